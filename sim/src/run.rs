//! One seed, from start to verdict.
//!
//! First the safety phase: faults, and clients all the while. Then everything is mended and must become whole within a
//! bound (L1, L2, L4): a trade through every frontend, everybody in sync, the highest id leading, a catalog that answers. Then
//! one more fault strikes, alone, and nobody may wait long for it (L3, L5, L6; [`crate::drill`]). At the end all journals must be equal, and every promise kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::auditor::Counts;
use crate::bus::Weather;
use crate::disk::Disk;
use crate::drill::{Drilled, drill};
use crate::invariants::Violation;
use crate::ledger::Ledger;
use crate::linear::{self, Checked};
use crate::machine::Machine;
use crate::marks;
use crate::nemesis::FAULTS_MIN;
use crate::tell::buy;
use crate::trace::Detail;
use crate::workload::Load;
use crate::world::{Answered, Size, World};
use tradenet_core::ClientAnswer;
use tradenet_schemas::ids::Member;
use tradenet_schemas::trade::Outcome;

/// The name under which a run that does not become whole in time fails.
const LIVENESS: &str = "liveness";
/// L1: after the last fault an order is accepted within this, in microseconds: 3 s, another 3 s that a frontend which has just
/// started waits for all who are in sync, and 1 s in which nobody is suspected after a reconnect.
const AVAILABLE_WITHIN_US: u64 = 7_000_000;
/// The same where the register has to be repaired first.
const REPAIRED_AND_AVAILABLE_WITHIN_US: u64 = 20_000_000;
/// After the last fault, an order through each frontend is accepted within this.
const EVERYWHERE_WITHIN_US: u64 = 20_000_000;
/// What can be repaired without an operator is repaired within this after the last fault.
const REPAIRED_WITHIN_US: u64 = 8_000_000;
/// How long after each other orders are sent until one is accepted.
const ASK_EVERY_US: u64 = 100_000;
/// L4: after the last fault everybody is in sync, and the highest id leads, within this,
const WHOLE_WITHIN_US: u64 = 30_000_000;
/// or so long after what the protocol's own rule makes wait who fell out often (up to 30 s to be in sync, 60 s to lead).
const WHOLE_BEYOND_PATIENCE_US: u64 = 15_000_000;
/// L2: in sync again within so long beyond twice what a learner must keep up (2 s, and up to 30 s if it fell out often), since
/// who learns from a new leader keeps up anew: 3 s, one in which the register owes an answer that was lost before the last fault
/// ended, and two in which half a megabyte is copied at the rate that some seeds have.
const LEARNED_BEYOND_US: u64 = 6_000_000;
/// L7: asking all others, and asking them again;
const ROT_WITHIN_US: u64 = 20_000_000;
/// and for each 64 KiB of the longest journal two rounds of reading it again.
const ROT_A_PART_US: u64 = 2 * 2_100_000;
/// After the last answer all journals are equal within this: a process may just have been started again.
const EQUAL_WITHIN_US: u64 = 10_000_000;

/// What came of a seed.
#[derive(Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// What was violated, if anything was.
    pub violation: Option<Violation>,
    /// Virtual microseconds.
    pub virtual_us: u64,
    /// Events.
    pub steps: u64,
    /// Faults.
    pub faults: u64,
    /// The last epoch.
    pub epochs: u64,
    /// What the auditor checked.
    pub counts: Counts,
    /// What was checked once more at the end, from outside.
    pub checked: Checked,
    /// How long it took to become whole, where it did.
    pub recovered: Option<Recovered>,
    /// What one more fault cost, where it became whole.
    pub drilled: Option<Drilled>,
    /// Rare situations.
    pub marks: BTreeMap<&'static str, u64>,
    /// Equal for equal runs.
    pub fingerprint: u64,
    /// The end of the trace, if it was wanted.
    pub trace: Vec<String>,
}

/// How long after the last fault, in microseconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Recovered {
    /// An order is accepted.
    pub available_us: u64,
    /// Everybody is in sync.
    pub in_sync_us: u64,
    /// The same, from when an order was accepted, and the last process started.
    pub learned_us: u64,
    /// What the protocol's own rule made learners keep up, the longer the more often they had fallen out before.
    pub learning_us: u64,
    /// The highest id leads, and a catalog answers.
    pub whole_us: u64,
    /// The register had to be repaired.
    pub repairs: bool,
    /// What the protocol's own rule made replicas wait that had fallen out before.
    pub patience_us: u64,
}

/// How a run came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// By itself.
    Whole,
    /// Only an operator can go on.
    Lost,
}

/// Runs a seed.
pub fn run(seed: u64, detail: Detail) -> Verdict {
    let (mut world, breathless) = draw(seed, detail);
    let (mut recovered, mut drilled) = (None, None);
    let violation = safety(&mut world, breathless)
        .and_then(|()| liveness(&mut world, &mut recovered))
        .and_then(|ending| {
            if ending == Ending::Whole {
                drilled = drill(&mut world)?;
            }
            Ok(ending)
        })
        .and_then(|ending| finish(&mut world, ending))
        .err();
    // What a step breaks has its line already.
    if let Some(violation) = violation.as_ref().filter(|_| world.violation.is_none()) {
        let told = || format!("{}: {}", violation.invariant, violation.text);
        world.trace.line(world.now, "world", violation.word(), told);
    }
    for (count, mark) in [(world.auditor.counts.replayed, marks::REPLAYED), (world.auditor.counts.hits, marks::HIT)] {
        if count > 0 {
            world.mark(mark);
        }
    }
    let of_the_market = world.auditor.marks.iter().chain(&world.invariants.truth.marks);
    for (mark, count) in of_the_market.map(|(mark, count)| (*mark, *count)).collect::<Vec<_>>() {
        *world.marks.entry(mark).or_default() += count;
    }
    Verdict {
        seed,
        violation,
        virtual_us: world.now,
        steps: world.trace.steps(),
        faults: world.nemesis.faults,
        epochs: world.epoch(),
        counts: world.auditor.counts,
        checked: world.checked,
        recovered,
        drilled,
        marks: world.marks.clone(),
        fingerprint: world.trace.fingerprint(),
        trace: world.trace.last(usize::MAX),
    }
}

/// The world of a seed: how large, how fast, how well connected; and whether its clients never pause ([`Load::breathless`]).
fn draw(seed: u64, detail: Detail) -> (World, bool) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let size = Size {
        orders: [3, 3, 3, 3, 3, 2, 4, 5][rng.usize(0..8)],
        catalogs: rng.u8(1..=2),
        frontends: rng.u8(1..=3),
        cache_size: [0, 1, 3, 100][rng.usize(0..4)],
    };
    let mut world = World::empty(seed, size, detail);
    world.weather = Weather {
        // One in eight goes over the wire's bytes: that costs most of the time.
        encodes: rng.u8(0..8) == 0,
        ..Weather::default()
    };
    world.draw_machines();
    (world, rng.u8(0..8) == 0)
}

fn safety(world: &mut World, breathless: bool) -> Result<(), Violation> {
    world.start_all();
    if world.rng.u32(0..100) < 80 {
        // Mostly the exchange is up before anything happens to it.
        run_while(world, 10_000_000, |world| !world.is_whole())?;
    }
    let load = Load {
        clients: world.rng.usize(1..8),
        think_us: [500, 5_000, 30_000, 200_000][world.rng.usize(0..4)],
        trades: world.rng.u32(10..90),
        market: [0, 30, 60, 90][world.rng.usize(0..4)],
        breathless,
    };
    world.open(load);
    world.unleash();
    let diet: Vec<_> = world.nemesis.diet().collect();
    let now = world.now;
    world.trace.line(now, "nemesis", "diet", || format!("{diet:?} {load:?} {:?}", world.weather));
    let length = world.rng.u64(3_000_000..20_000_000);
    run_while(world, length, |_| true)?;
    while world.nemesis.faults < FAULTS_MIN {
        world.strike_now();
        let pause = world.rng.u64(10_000..400_000);
        run_while(world, pause, |_| true)?;
    }
    Ok(())
}

fn liveness(world: &mut World, recovered: &mut Option<Recovered>) -> Result<Ending, Violation> {
    world.heal();
    world.nemesis.closing = true;
    match becomes_whole(world) {
        Ok(took) => {
            *recovered = Some(took);
            rot_goes(world)?;
            Ok(Ending::Whole)
        }
        // Asked only where it did not: much that looks lost is repaired.
        Err(late) if late.is_late => match world.why_lost() {
            Some(why) => {
                world.mark(marks::OPERATOR);
                world.mark(why);
                let named = names_the_way_out(world);
                named.then_some(Ending::Lost).ok_or_else(|| self::late(world, "tradenet recover is named"))
            }
            None => Err(late),
        },
        Err(violation) => Err(violation),
    }
}

/// What has rotted on the disks of running replicas is got back from the others.
fn rot_goes(world: &mut World) -> Result<(), Violation> {
    let is_rotten =
        |world: &mut World| world.machines.iter().any(|machine| machine.is_replica() && machine.disk.flipped.is_some());
    let longest = world.machines.iter().map(|machine| machine.disk.file.len()).max().unwrap_or(0);
    run_while(world, ROT_WITHIN_US + (longest as u64 / 65_536 + 1) * ROT_A_PART_US, is_rotten)?;
    if is_rotten(world) { Err(late(world, "L7 rot is found and repaired")) } else { Ok(()) }
}

/// Where only an operator can help, people are told so.
fn names_the_way_out(world: &World) -> bool {
    let mut troubles = (1..=world.size.frontends).map(|number| world.trouble(crate::frontend(number)));
    troubles.any(|trouble| trouble.contains("tradenet recover"))
}

fn becomes_whole(world: &mut World) -> Result<Recovered, Violation> {
    let healed = world.now;
    // A leader that ended before it took the first floor leaves a register to be repaired, too.
    let repairs = world.register.tampered || world.register.floor.value().is_none();
    let (learning_us, leading_us) = world.invariants.patience_us(&world.times);
    let patience_us = learning_us + leading_us;
    let (available_us, in_sync) = available(world, healed, repairs)?;
    let mut took = Recovered { repairs, patience_us, available_us, ..Recovered::default() };
    let bound = WHOLE_WITHIN_US.max(patience_us + WHOLE_BEYOND_PATIENCE_US);
    let left = |world: &World| (healed + bound).saturating_sub(world.now);
    if in_sync.is_none() {
        run_while(world, left(world), |world| !world.all_in_sync())?;
        if !world.all_in_sync() {
            return Err(late(world, "L4 everybody is in sync"));
        }
    }
    let in_sync = in_sync.unwrap_or(world.now);
    took.in_sync_us = in_sync - healed;
    took.learned_us = in_sync.saturating_sub(world.last_start.max(healed + available_us));
    // What a fault had begun may still make somebody fall.
    took.learning_us = world.invariants.patience_us(&world.times).0;
    if took.learned_us > took.learning_us * 2 + LEARNED_BEYOND_US {
        return Err(late(world, &format!("L2 everybody is in sync again: {took:?}")));
    }
    run_while(world, left(world), |world| !world.is_whole())?;
    if !world.is_whole() {
        return Err(late(world, "L4 the highest id leads, a catalog answers"));
    }
    took.whole_us = world.now - healed;
    Ok(took)
}

/// Asks through every frontend, again and again, until an order is accepted through each; how soon the first one was, and when
/// everybody was in sync, if that is so.
fn available(world: &mut World, healed: u64, repairs: bool) -> Result<(u64, Option<u64>), Violation> {
    let bound = if repairs { REPAIRED_AND_AVAILABLE_WITHIN_US } else { AVAILABLE_WITHIN_US };
    let (mut asked, mut served, mut first, mut in_sync) = (Vec::new(), BTreeSet::new(), None, None);
    for attempt in 0.. {
        for number in (1..=world.size.frontends).filter(|number| !served.contains(number)) {
            let request = buy("MILD", 1, &format!("after-{number}-{attempt}"));
            asked.push((number, world.ask_later(crate::frontend(number), request)));
        }
        run_while(world, ASK_EVERY_US, |_| true)?;
        in_sync = in_sync.or(Some(world.now)).filter(|_| world.all_in_sync());
        // Who was told to stop before may still go, and come back.
        let (took, all_up) = (world.now - healed, world.now - healed.max(world.last_start));
        asked.retain(|(number, call)| {
            let answer = world.answers.remove(call);
            if let Some(Answered::With(ClientAnswer::Outcome(Outcome::Accepted { .. }))) = answer {
                served.insert(*number);
            }
            answer.is_none()
        });
        if !served.is_empty() {
            first.get_or_insert(took);
        }
        match first {
            Some(first) if served.len() == usize::from(world.size.frontends) => return Ok((first, in_sync)),
            None if all_up > bound => return Err(late(world, "L1 an order is accepted")),
            _ if all_up > EVERYWHERE_WITHIN_US => return Err(late(world, "L1 an order is accepted by each frontend")),
            None if took > REPAIRED_WITHIN_US && world.why_lost().is_some() && names_the_way_out(world) => {
                return Err(late(world, "L1 an order is accepted"));
            }
            _ => {}
        }
    }
    Ok((0, None))
}

fn late(world: &World, what: &str) -> Violation {
    let troubles: Vec<_> = (1..=world.size.frontends).map(|number| world.trouble(crate::frontend(number))).collect();
    let replicas: Vec<_> = world
        .machines
        .iter()
        .filter(|machine| machine.is_replica())
        .map(|machine| {
            let status = machine.replica().map(|replica| {
                let status = replica.status();
                (status.role, status.configuration.map(|held| held.epoch), status.tail.seq, status.committed)
            });
            format!("{}: {status:?} {:?}", machine.name, machine.ended)
        })
        .collect();
    Violation::late(
        LIVENESS,
        format!("not in time: {what}; frontends say {troubles:?}; {replicas:?}; newest {:?}", world.invariants.newest),
    )
}

fn finish(world: &mut World, ending: Ending) -> Result<(), Violation> {
    if ending == Ending::Lost {
        return promises(world);
    }
    run_while(world, 30_000_000, |world| !world.is_quiet())?;
    if !world.is_quiet() {
        return Err(late(world, "every client gets an answer"));
    }
    // A process that was told to stop before may still go, and has to come back.
    run_while(world, EQUAL_WITHIN_US, |world| !world.journals_are_equal())?;
    if !world.journals_are_equal() {
        return Err(late(world, "all journals are equal"));
    }
    promises(world)
}

/// Whether every client was told what is so: by the log as core knows it, by what clients saw alone, and by a journal's bytes.
fn promises(world: &mut World) -> Result<(), Violation> {
    world.auditor.finish(&world.invariants.truth)?;
    world.checked = linear::check(&world.history, &crate::world::stocks())?;
    match world.whole_journal() {
        Some(journal) => Ledger::read(journal)?.check(&world.history),
        None => Ok(()), // Every disk that had it is gone; the auditor has seen it.
    }
}

/// Lets the world go on for at most so long.
pub(crate) fn run_while(
    world: &mut World,
    at_most_us: u64,
    mut goes_on: impl FnMut(&mut World) -> bool,
) -> Result<(), Violation> {
    let end = world.now + at_most_us;
    let mut looks = 0u32;
    loop {
        looks += 1;
        // Looking costs more than a step: not each time.
        if world.now >= end || (looks % 32 == 1 && !goes_on(world)) {
            return Ok(());
        }
        if !world.step() {
            return match world.violation.clone() {
                Some(violation) => Err(violation),
                None => Ok(()),
            };
        }
    }
}

impl World {
    /// Whether a disk has everything that was committed. One whose last record went bad looks as if that was never whole.
    pub(crate) fn has_everything(&self, disk: &Disk) -> bool {
        disk.is_good() && disk.entries() >= self.invariants.truth.end()
    }

    /// Why only an operator may be able to help, if that is so.
    pub(crate) fn why_lost(&self) -> Option<&'static str> {
        let newest = self.invariants.newest.as_ref()?;
        // A register that lost its record and a disk that is gone are two faults of which each hides the other.
        let (tampered, wiped) = (self.register.tampered, self.nemesis.wiped > 0);
        // The same where the very first leader never got to take the floor, or to commit its first entry.
        let unfinished = self.register.floor.value().is_none() || self.committed() == 0;
        let named = |machine: &&Machine, member: &Member| {
            machine.id == Some(member.id) && machine.disk.store == member.store && self.has_everything(&machine.disk)
        };
        // What a twin had under way when it ended may name its disk, which is gone with it.
        let left = |member: &Member| self.machines[..self.crew].iter().any(|machine| named(&machine, member));
        if wiped && tampered {
            Some(marks::REGISTER_AND_DISK)
        } else if unfinished && (wiped || tampered) {
            Some(marks::NEVER_BEGUN)
        } else {
            (!newest.in_sync.iter().any(left)).then_some(marks::LAST_DISK)
        }
    }
}
