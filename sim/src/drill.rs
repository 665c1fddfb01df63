//! One more fault, into an exchange that is whole: how long does anybody wait for it?
//!
//! Problem: while many faults strike at once no bound on waiting can be stated, and after the last one there is none to wait
//! for. L3, L5 and L6 of `docs/protocol.md` are about one fault, with everything else in order.
//! Idea: when a run has become whole, its seed draws one [`Drill`]. The fault stays for a while; meanwhile orders and
//! look-ups are asked for through every frontend, and the longest time without a good answer to either, and the epochs
//! spent, are compared with what the drill may cost.
//! Rule kept: a bound is 1 s (1.5 s in all for a catalog) and what noticing the fault takes by the protocol's own periods, which
//! the drill names.

use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::trade::Outcome;

use crate::Who;
use crate::invariants::Violation;
use crate::run::run_while;
use crate::tell::buy;
use crate::world::{Answered, World, symbol};

/// How long the fault stays, in microseconds: longer than a line is held before it is given up, and than any bound.
const LASTS_US: u64 = 4_000_000;
/// How long after each other orders and look-ups are asked for.
const ASK_EVERY_US: u64 = 200_000;
/// How often answers are looked for: so exact are the times.
const LOOK_EVERY_US: u64 = 20_000;
/// Before it strikes, nothing was started and no record written for so long: the grace after a reconnect is over, and the life
/// of an epoch, before which nobody but a leader that is gone is replaced.
const CALM_US: u64 = 3_000_000;
/// That is waited for at most so long; who is not calm by then has no drill.
const CALM_WITHIN_US: u64 = 15_000_000;
/// What a hung disk takes for a sync.
const HUNG_US: u64 = 60_000_000;
/// L6 without what noticing takes.
const STALL_US: u64 = 1_000_000;
/// L5, noticing included.
const CATALOG_US: u64 = 1_500_000;

/// A fault, alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Drill {
    /// The catalog that answers is killed.
    CatalogKilled,
    /// The catalog that answers is paused.
    CatalogPaused,
    /// A follower is killed.
    FollowerKilled,
    /// A follower is paused.
    FollowerPaused,
    /// A follower's disk hangs.
    FollowerHung,
    /// What a follower says is lost, and it hears everything.
    FollowerMute,
    /// A follower hears nothing, and is heard.
    FollowerDeaf,
    /// The leader is killed.
    LeaderKilled,
    /// The leader is paused.
    LeaderPaused,
    /// The leader's disk hangs.
    LeaderHung,
    /// What the leader says is lost, and it hears everything.
    LeaderMute,
    /// The leader hears nothing, and is heard.
    LeaderDeaf,
}

/// All drills.
pub const DRILLS: [Drill; 12] = [
    Drill::CatalogKilled,
    Drill::CatalogPaused,
    Drill::FollowerKilled,
    Drill::FollowerPaused,
    Drill::FollowerHung,
    Drill::FollowerMute,
    Drill::FollowerDeaf,
    Drill::LeaderKilled,
    Drill::LeaderPaused,
    Drill::LeaderHung,
    Drill::LeaderMute,
    Drill::LeaderDeaf,
];

/// What a drill cost.
#[derive(Clone, Copy, Debug)]
pub struct Drilled {
    /// Which.
    pub drill: Drill,
    /// The longest time in which no order was accepted through some frontend, in microseconds.
    pub orders_us: u64,
    /// The same for look-ups.
    pub look_ups_us: u64,
    /// Epochs that it took.
    pub epochs: u64,
}

impl Drill {
    /// By which rule, how long nobody may get an answer, in microseconds, and how many epochs it may cost.
    fn bounds(self, world: &World) -> (&'static str, u64, u64) {
        let us = |period: std::time::Duration| u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
        let times = &world.times;
        let (l3, l6) = ("L3 no livelock under a one-way cut", "L6 a broken replica stalls nobody");
        // A leader whose line is mended early has taken all others out by one record, and takes each in again by another.
        let around = u64::from(world.size.orders);
        match self {
            Self::CatalogKilled | Self::CatalogPaused => ("L5 the exchange goes on without its catalog", CATALOG_US, 0),
            // One epoch without it; who was killed may be started again meanwhile, which is another.
            Self::FollowerKilled => (l6, STALL_US + us(times.shrink), 2),
            Self::FollowerPaused | Self::FollowerHung => (l6, STALL_US + us(times.shrink), 1),
            Self::LeaderKilled | Self::LeaderPaused => (l6, STALL_US + us(times.suspect + times.poll), 2),
            Self::LeaderHung => (l6, STALL_US + us(times.stuck), 2),
            Self::FollowerMute | Self::FollowerDeaf => (l3, STALL_US + us(times.shrink), 2),
            Self::LeaderMute => (l3, STALL_US + us(times.suspect + times.poll), around),
            // Followers hear it, and agree to replace it when it has not answered them for as long as a leader may be stuck.
            Self::LeaderDeaf => (l3, STALL_US + us(times.suspect + times.stuck + times.poll), around),
        }
    }

    fn victim(self, world: &World) -> Option<usize> {
        let leader = world.leader();
        let machines = world.machines.iter().enumerate();
        match self {
            Self::CatalogKilled | Self::CatalogPaused => machines.clone().find_map(|(index, machine)| {
                let now = machine.clock.local(world.now).mono;
                machine.catalog().is_some_and(|catalog| catalog.has_authority(now)).then_some(index)
            }),
            Self::FollowerKilled
            | Self::FollowerPaused
            | Self::FollowerHung
            | Self::FollowerMute
            | Self::FollowerDeaf => {
                let mut followers = machines.filter(|(_, machine)| machine.is_replica() && Some(machine.who) != leader);
                followers.next().map(|(index, _)| index)
            }
            _ => leader.map(|leader| world.index(leader)),
        }
    }

    fn strike(self, world: &mut World, victim: usize) {
        match self {
            Self::CatalogKilled | Self::FollowerKilled | Self::LeaderKilled => world.kill_machine(victim, false),
            Self::CatalogPaused | Self::FollowerPaused | Self::LeaderPaused => {
                world.pause_machine(victim, world.now + LASTS_US);
            }
            Self::FollowerHung | Self::LeaderHung => world.machines[victim].disk.sync_us = HUNG_US,
            Self::FollowerMute | Self::LeaderMute => world.cut_line(victim, true, false),
            Self::FollowerDeaf | Self::LeaderDeaf => world.cut_line(victim, false, true),
        }
    }
}

impl World {
    /// Whether it is whole, with nothing about to change. A second copy that still is to come is a fault of its own: it can
    /// make a leader attach the catalog that was just killed once more (seed 770501919496454).
    fn is_calm(&self) -> bool {
        let lately = self.last_start.max(self.last_record);
        self.now >= lately + CALM_US && self.now > self.last_copy && self.register_stands() && self.is_whole()
    }

    /// Whether the register holds the newest record, and the floor is where that is served. One that has lost either is repaired
    /// only when all replicas answer (R8), so the loss of another one may be waited for.
    fn register_stands(&self) -> bool {
        let held = self.register.configuration.value().filter(|_| !self.register.configuration.unreadable);
        let floor = self.register.floor.value().filter(|_| !self.register.floor.unreadable);
        self.invariants.newest.as_ref().is_some_and(|newest| {
            held.is_some_and(|held| held.nonce == newest.nonce) && floor.is_some_and(|floor| floor.is(newest))
        })
    }
}

/// How long anybody has waited for a kind of answer.
#[derive(Clone, Copy)]
struct Wait {
    since: u64,
    longest: u64,
}

impl Wait {
    fn ends(&mut self, now: u64) {
        self.longest = self.longest.max(now - self.since);
        self.since = now;
    }
}

/// Strikes a whole exchange once; what that cost.
///
/// # Errors
/// More than the drill's bounds, or an invariant is violated meanwhile.
pub(crate) fn drill(world: &mut World) -> Result<Option<Drilled>, Violation> {
    run_while(world, CALM_US, |_| true)?;
    run_while(world, CALM_WITHIN_US, |world| !world.is_calm())?;
    if !world.is_calm() {
        return Ok(None);
    }
    let drill = DRILLS[world.rng.usize(0..DRILLS.len())];
    strike_once(world, drill)
}

fn strike_once(world: &mut World, drill: Drill) -> Result<Option<Drilled>, Violation> {
    let Some(victim) = drill.victim(world) else { return Ok(None) };
    let (began, epoch) = (world.now, world.epoch());
    let (rule, bound, epochs_max) = drill.bounds(world);
    let name = world.machines[victim].name.clone();
    world.trace.line(began, "nemesis", "strikes", || format!("{drill:?}: {name}"));
    drill.strike(world, victim);
    let frontends = world.size.frontends;
    // Of each frontend, for orders and for look-ups.
    let mut waits = vec![[Wait { since: began, longest: 0 }; 2]; usize::from(frontends)];
    let mut asked: Vec<(usize, usize, u64)> = Vec::new();
    let mut next = began;
    while world.now < began + LASTS_US {
        if world.now >= next {
            for (index, number) in (1..=frontends).enumerate() {
                let order = buy("MILD", 1, &format!("drill-{number}-{next}"));
                for (kind, request) in [order, ClientRequest::Stock(symbol("MILD"))].into_iter().enumerate() {
                    asked.push((index, kind, world.ask_later(crate::frontend(number), request)));
                }
            }
            next += ASK_EVERY_US;
        }
        run_while(world, LOOK_EVERY_US, |_| true)?;
        asked.retain(|(index, kind, call)| {
            let answer = world.answers.remove(call);
            if answer.as_ref().is_some_and(is_good) {
                waits[*index][*kind].ends(world.now);
            }
            answer.is_none()
        });
    }
    waits.iter_mut().flatten().for_each(|wait| wait.ends(world.now));
    let longest = |kind: usize| waits.iter().map(|both| both[kind].longest).max().unwrap_or(0);
    world.trace.line(world.now, "nemesis", "mends", || format!("{drill:?}: {name}"));
    let drilled =
        Drilled { drill, orders_us: longest(0), look_ups_us: longest(1), epochs: world.epoch().saturating_sub(epoch) };
    mend(world, victim);
    let waited = drilled.orders_us.max(drilled.look_ups_us);
    if waited > bound || drilled.epochs > epochs_max {
        let text = format!("{name}: {drilled:?}; at most {bound} us and {epochs_max} epochs");
        return Err(Violation::late(rule, text));
    }
    Ok(Some(drilled))
}

fn is_good(answer: &Answered) -> bool {
    let accepted = |outcome: &Outcome| matches!(outcome, Outcome::Accepted { .. });
    match answer {
        Answered::With(ClientAnswer::Outcome(outcome)) => accepted(outcome),
        Answered::With(ClientAnswer::Stock { stock, .. }) => stock.is_some(),
        _ => false,
    }
}

fn mend(world: &mut World, victim: usize) {
    world.mend_line(victim);
    if matches!(world.machines[victim].who, Who::Order(_)) {
        world.mend_disk(victim);
    }
    world.resume_machine(victim);
    world.start_machine(victim);
}

/// Each drill, on the usual exchange: what `stories` tells of them.
///
/// # Panics
/// One costs more than it may, or finds nothing to harm.
pub(crate) fn each_alone() {
    for drill in DRILLS {
        let mut world = World::up(40);
        world.run_for(CALM_US / 1_000);
        let done = strike_once(&mut world, drill);
        assert!(matches!(done, Ok(Some(_))), "{drill:?}: {done:?}");
        world.run_until(|world| world.is_whole(), "it is whole again");
    }
}
