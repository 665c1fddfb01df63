//! Faults, drawn from the seed.
//!
//! Problem: a fixed mix of faults reaches the same situations again and again; rare ones need many of one kind, none of
//! another, or a pace of their own (Groce et al., Swarm Testing, 2012).
//! Idea: each seed has a *diet*: every kind of fault is on or off, and comes at a pace of its own. At the end of the safety
//! phase everything is mended, and the exchange must become whole by itself.
//! Rule kept: what no protocol can survive is not done: the last disk that has an order is not emptied or damaged,
//! configuration and floor do not both go back at once, empty twins of all replicas do not meet an empty register.

use tradenet_core::{ClientRequest, Input};
use tradenet_schemas::ids::OrderNumber;

use crate::clock::DRIFT_PPM_MAX;
use crate::disk::Fails;
use crate::machine::frontend;
use crate::workload::Load;
use crate::world::{Event, SEGMENT_BYTES, World};

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A process is killed.
    Kill,
    /// The leader is killed.
    KillLeader,
    /// A machine goes away without a word.
    Power,
    /// Several processes are killed at once.
    KillMany,
    /// A process is asked to stop.
    Stop,
    /// A process is paused.
    Pause,
    /// A replica is started a second time on another machine, with the same id and a disk of its own.
    Twin,
    /// A line is cut, in one or both directions.
    Cut,
    /// The broker restarts.
    Broker,
    /// The broker's cluster falls into two parts that do not hear each other.
    Split,
    /// A machine's messages are late.
    Lag,
    /// A disk is slow.
    SlowDisk,
    /// A disk is full.
    FullDisk,
    /// A write or its sync fails, with any part of it in the file.
    FailDisk,
    /// A read fails.
    FailRead,
    /// A bit flips on a disk, while its replica runs or not.
    FlipBit,
    /// A segment of a journal is lost, or its end, while its replica runs or not.
    LoseSegment,
    /// A disk is emptied.
    Wipe,
    /// A disk that was taken away is put back as it was.
    Remount,
    /// The register serves an older configuration.
    RegisterBack,
    /// The register is empty.
    RegisterWipe,
    /// The register can't be parsed.
    RegisterGarbage,
    /// A machine's wall clock jumps, and its monotonic one goes at another rate from now on.
    ClockJump,
}

/// All kinds, and the mark of each: that it struck.
pub const KINDS: [(Kind, &str); 23] = [
    (Kind::Kill, "fault: a process killed"),
    (Kind::KillLeader, "fault: the leader killed"),
    (Kind::Power, "fault: a machine gone without a word"),
    (Kind::KillMany, "fault: several processes killed at once"),
    (Kind::Stop, "fault: a process asked to stop"),
    (Kind::Pause, "fault: a process paused"),
    (Kind::Twin, "fault: two processes with one id"),
    (Kind::Cut, "fault: a line cut"),
    (Kind::Broker, "fault: the broker restarted"),
    (Kind::Split, "fault: the broker's cluster in two parts"),
    (Kind::Lag, "fault: a machine's messages late"),
    (Kind::SlowDisk, "fault: a slow disk"),
    (Kind::FullDisk, "fault: a disk without room"),
    (Kind::FailDisk, "fault: a write or sync that fails"),
    (Kind::FailRead, "fault: a read that fails"),
    (Kind::FlipBit, "fault: a flipped bit"),
    (Kind::Wipe, "fault: a disk emptied"),
    (Kind::Remount, "fault: an old disk put back"),
    (Kind::RegisterBack, "fault: the register gone back"),
    (Kind::RegisterWipe, "fault: the register emptied"),
    (Kind::RegisterGarbage, "fault: an unreadable register"),
    (Kind::ClockJump, "fault: a clock that jumps"),
    (Kind::LoseSegment, "fault: a segment of a journal lost"),
];

/// Every run has at least so many faults.
pub(crate) const FAULTS_MIN: u64 = 20;
/// So many strikes in a row that find nothing to harm are followed by a kill.
const MISSES_MAX: u32 = 20;
/// How many orders are looked up when a bit of a journal has flipped.
const LOOK_UPS: u64 = 16;
/// Of a write that fails, fewer bytes than these are in the file.
const FAILED_WRITE_BYTES_MAX: usize = 400;
/// A wall clock may jump to any time before this, in milliseconds since 1970.
pub(crate) const WALL_MS_MAX: u64 = 2_000_000_000_000;

/// Something the nemesis does or undoes.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The next fault of a kind, and then the one after it.
    Next(Kind),
    /// A cut line heals.
    Mend(usize),
    /// A machine's messages are in time again.
    InTime(usize),
    /// A disk is well again.
    DiskWell(usize),
    /// The two parts hear each other again.
    Join,
    /// One of the two processes with an id is stopped.
    TwinEnds(usize),
}

/// What the seed has in store.
pub struct Nemesis {
    /// Which kinds come, and how long after each other, in microseconds on average.
    diet: Vec<(Kind, u64)>,
    /// Disks emptied so far.
    pub wiped: u64,
    /// Faults so far.
    pub faults: u64,
    /// It strikes no more.
    pub asleep: bool,
    /// A process that ends is started again, as a supervisor would.
    pub supervised: bool,
    /// Clients begin nothing new.
    pub closing: bool,
    /// How busy clients are.
    pub load: Option<Load>,
    /// The longest that a killed process stays away, in microseconds.
    away_us: u64,
}

impl Nemesis {
    /// No faults at all.
    pub fn asleep() -> Self {
        Self {
            diet: Vec::new(),
            wiped: 0,
            faults: 0,
            asleep: true,
            supervised: false,
            closing: false,
            load: None,
            away_us: 0,
        }
    }

    /// For the trace.
    pub fn diet(&self) -> impl Iterator<Item = String> + '_ {
        self.diet.iter().map(|(kind, every)| format!("{kind:?}/{}ms", every / 1_000))
    }
}

impl World {
    /// Draws the seed's diet and lets it begin.
    pub(crate) fn unleash(&mut self) {
        let pace = [300_000, 800_000, 2_000_000, 5_000_000][self.rng.usize(0..4)];
        let share = self.rng.u32(15..70);
        let mut diet = Vec::new();
        // Those whose journals have segments lose them: the draws of others stay what they were.
        let drawn = KINDS.into_iter().filter(|(kind, _)| *kind != Kind::LoseSegment);
        if self.segment_bytes < SEGMENT_BYTES {
            diet.push((Kind::LoseSegment, pace * 2));
        }
        for (kind, _) in drawn {
            let every = pace * self.rng.u64(50..300) / 100;
            let rare = matches!(kind, Kind::RegisterWipe | Kind::RegisterGarbage | Kind::Broker | Kind::KillMany);
            if self.rng.u32(0..100) < share {
                diet.push((kind, if rare { every * 3 } else { every }));
            }
        }
        // Together they need an operator; each alone must be survived.
        let keep_both = self.rng.u8(0..8) == 0;
        let disks = self.rng.bool();
        let register = |kind: Kind| matches!(kind, Kind::RegisterBack | Kind::RegisterWipe | Kind::RegisterGarbage);
        let disk = |kind: Kind| matches!(kind, Kind::Wipe | Kind::Remount | Kind::FlipBit | Kind::LoseSegment);
        diet.retain(|(kind, _)| match kind {
            // All replicas' twins are empty: with an empty register that looks like the first start.
            Kind::Twin => disks && !keep_both,
            kind => keep_both || if disks { !register(*kind) } else { !disk(*kind) },
        });
        if diet.is_empty() {
            diet.push((Kind::Kill, pace));
        }
        self.nemesis.away_us = [50_000, 500_000, 3_000_000, 8_000_000][self.rng.usize(0..4)];
        self.nemesis.asleep = false;
        for (kind, every) in &diet {
            let at = self.now + self.rng.u64(0..every * 2);
            self.at(at, Event::Fault(Fault::Next(*kind)));
        }
        self.nemesis.diet = diet;
        self.bad_weather();
    }

    fn bad_weather(&mut self) {
        let rng = &mut self.rng;
        let weather = &mut self.weather;
        weather.jitter_us = [20, 200, 2_000, 20_000][rng.usize(0..4)];
        weather.loss_ppm = [0, 0, 100, 5_000, 50_000, 300_000][rng.usize(0..6)];
        weather.overtaken_ppm = [0, 0, 1_000, 50_000][rng.usize(0..4)];
        weather.twice_ppm = [0, 0, 1_000, 20_000][rng.usize(0..4)];
        self.auditor.doubled = weather.twice_ppm > 0;
        weather.register_us = [1_000, 5_000, 50_000, 600_000][rng.usize(0..4)];
        weather.register_lost_ppm = [0, 0, 50_000, 300_000][rng.usize(0..4)];
        weather.register_stale_ppm = [0, 0, 20_000, 200_000][rng.usize(0..4)];
    }

    /// What is drawn before anything starts: clocks and disks.
    pub(crate) fn draw_machines(&mut self) {
        self.drift_ppm = [0, 100, DRIFT_PPM_MAX][self.rng.usize(0..3)];
        self.sync_us = [100, 800, 3_000, 15_000][self.rng.usize(0..4)];
        let sync_us = self.sync_us;
        for machine in &mut self.machines {
            machine.disk.sync_us = sync_us;
        }
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Mend(machine) => self.mend_line(machine),
            Fault::Join => {
                self.split.clear();
                let now = self.now;
                self.trace.line(now, "broker", "joins", || "both parts hear each other again".to_owned());
            }
            Fault::TwinEnds(machine) => self.end_twin(machine),
            Fault::InTime(machine) => {
                self.machines[machine].lag_us = 0;
                self.line_of(machine, "in-time", || "its messages are not late any more".to_owned());
            }
            Fault::DiskWell(machine) => {
                self.line_of(machine, "well", || "its disk has room, and is as fast as at first".to_owned());
                self.machines[machine].disk.full = false;
                self.machines[machine].disk.sync_us = self.sync_us;
            }
            Fault::Next(kind) => {
                if self.nemesis.asleep {
                    return;
                }
                let every = self.nemesis.diet.iter().find(|(of, _)| *of == kind).map_or(u64::MAX / 4, |(_, e)| *e);
                let at = self.now + self.rng.u64(every / 10..every * 2);
                self.at(at, Event::Fault(fault));
                self.strike_with(kind);
            }
        }
    }

    fn strike_with(&mut self, kind: Kind) -> bool {
        let now = self.now;
        self.trace.line(now, "nemesis", "strikes", || format!("{kind:?}"));
        let harmed = self.do_harm(kind);
        if !harmed {
            self.trace.line(now, "nemesis", "misses", || format!("{kind:?}: there is nothing to harm"));
        }
        if let Some((_, mark)) = KINDS.iter().find(|(known, _)| harmed && *known == kind) {
            self.nemesis.faults += 1;
            self.mark(mark);
        }
        harmed
    }

    /// One more fault of the diet, at once.
    pub(crate) fn strike_now(&mut self) {
        for _ in 0..MISSES_MAX {
            let (kind, _) = self.nemesis.diet[self.rng.usize(0..self.nemesis.diet.len())];
            if self.strike_with(kind) {
                return;
            }
        }
        self.strike_with(Kind::Kill);
    }

    /// `false` if there was nothing to harm.
    fn do_harm(&mut self, kind: Kind) -> bool {
        let any = self.rng.usize(0..self.crew);
        let order = self.rng.usize(0..usize::from(self.size.orders));
        match kind {
            Kind::Kill => self.kill_and_start(any, false),
            Kind::Power => self.kill_and_start(any, true),
            Kind::KillLeader => {
                let Some(leader) = self.leader() else { return false };
                self.kill_and_start(self.index(leader), false);
            }
            Kind::KillMany => {
                let host = self.rng.bool();
                let all = self.rng.u32(0..100) < 30;
                for machine in 0..self.crew {
                    if all || self.rng.bool() {
                        self.kill_and_start(machine, host);
                    }
                }
            }
            Kind::Stop => {
                self.line_of(any, "told", || "to stop".to_owned());
                self.put_in(any, Input::Leave);
                let away = self.away() + 4_500_000;
                self.at(self.now + away, Event::Start { machine: any });
            }
            Kind::Pause => {
                let most = [50_000, 400_000, 1_500_000, 6_000_000][self.rng.usize(0..4)];
                let until = self.now + self.rng.u64(1_000..most);
                self.pause_machine(any, until);
            }
            Kind::Twin => return self.start_twin(order),
            Kind::Cut => self.cut_for_a_while(any),
            Kind::Broker => {
                let most = [100, 1_000, 4_000][self.rng.usize(0..3)];
                let ms = self.rng.u64(1..most);
                self.restart_broker(ms);
            }
            Kind::Split => self.split_for_a_while(),
            Kind::Lag => {
                let lag = [1_000, 50_000, 400_000, 2_000_000][self.rng.usize(0..4)];
                let lag_us = self.rng.u64(0..lag);
                self.machines[any].lag_us = lag_us;
                self.line_of(any, "late", || format!("its messages, by {lag_us} us each way"));
                let at = self.now + self.rng.u64(10_000..3_000_000);
                self.at(at, Event::Fault(Fault::InTime(any)));
            }
            Kind::Remount => return self.remount(order),
            Kind::FlipBit => return self.flip_bit(order),
            Kind::LoseSegment => return self.lose_segment(order),
            Kind::Wipe => return self.empty_disk(order),
            Kind::SlowDisk | Kind::FullDisk | Kind::FailDisk | Kind::FailRead => self.harm_disk(kind, order),
            Kind::RegisterBack | Kind::RegisterWipe | Kind::RegisterGarbage => return self.harm_register(kind),
            Kind::ClockJump => {
                let (ppm, wall) = (self.rng.i64(-self.drift_ppm..=self.drift_ppm), self.rng.u64(0..WALL_MS_MAX));
                self.machines[any].clock.jump(self.now, ppm, wall);
                self.line_of(any, "jumps", || format!("its clock: off by {ppm} millionths, the wall's by {wall} ms"));
                self.clock_has_jumped(any);
            }
        }
        true
    }

    fn away(&mut self) -> u64 {
        self.rng.u64(1_000..=self.nemesis.away_us.max(2_000))
    }

    fn kill_and_start(&mut self, machine: usize, host: bool) {
        self.kill_machine(machine, host);
        let at = self.now + self.away();
        self.at(at, Event::Start { machine });
    }

    fn start_twin(&mut self, machine: usize) -> bool {
        let id = self.machines[machine].id;
        let twin = (self.crew..self.machines.len()).find(|&twin| self.machines[twin].id == id);
        let Some(twin) = twin.filter(|&twin| self.machines[twin].process.is_none()) else { return false };
        self.start_machine(twin);
        let most = [100_000, 1_000_000, 6_000_000][self.rng.usize(0..3)];
        let at = self.now + self.rng.u64(10_000..most);
        self.at(at, Event::Fault(Fault::TwinEnds(twin)));
        true
    }

    /// The operator stops one of the two, and goes on with the disk that is in sync, if only one is.
    fn end_twin(&mut self, twin: usize) {
        self.kill_machine(twin, false);
        let id = self.machines[twin].id;
        let own = (0..self.crew).find(|&own| self.machines[own].id == id);
        let in_sync = |machine: usize| {
            let newest = self.invariants.newest.as_ref();
            newest.is_some_and(|newest| id.is_some_and(|id| newest.is_in_sync(id, self.machines[machine].disk.store)))
        };
        let Some(own) = own.filter(|&own| in_sync(twin) && !in_sync(own)) else { return };
        self.kill_machine(own, false);
        let disk = self.machines[twin].disk.clone();
        self.machines[twin].disk = std::mem::replace(&mut self.machines[own].disk, disk);
        let store = self.machines[own].disk.store;
        self.line_of(own, "takes", || format!("its twin's disk, store {store}"));
        self.start_machine(own);
    }

    fn cut_for_a_while(&mut self, machine: usize) {
        let (up, down) = [(true, true), (true, true), (true, false), (false, true)][self.rng.usize(0..4)];
        self.line_of(machine, "cut", || format!("up {up}, down {down}"));
        self.cut_line(machine, up, down);
        let most = [100_000, 1_000_000, 6_000_000][self.rng.usize(0..3)];
        let at = self.now + self.rng.u64(1_000..most);
        self.at(at, Event::Fault(Fault::Mend(machine)));
    }

    /// Each machine is on one of two sides; the register is on the first.
    fn split_for_a_while(&mut self) {
        self.split = (0..self.machines.len()).map(|_| self.rng.bool()).collect();
        if let Some(leader) = self.leader().filter(|_| self.rng.bool()) {
            // The hardest case: the leader and some client's frontend on the side of few.
            let leader = self.index(leader);
            self.split[leader] = true;
        }
        let away = self.machines.iter().zip(&self.split).filter(|(_, away)| **away).map(|(machine, _)| &machine.name);
        let now = self.now;
        self.trace.line(now, "broker", "splits", || format!("away from the register: {:?}", away.collect::<Vec<_>>()));
        let most = [300_000, 1_500_000, 6_000_000][self.rng.usize(0..3)];
        let at = self.now + self.rng.u64(10_000..most);
        self.at(at, Event::Fault(Fault::Join));
    }

    /// An operator puts a disk back that was taken away before.
    fn remount(&mut self, machine: usize) -> bool {
        let Some(index) = self.attic.iter().position(|(of, _)| *of == machine) else {
            return false;
        };
        if !self.may_be_wiped(machine) {
            return false;
        }
        self.nemesis.wiped += 1;
        self.kill_machine(machine, false);
        let (_, disk) = self.attic.swap_remove(index);
        let before = std::mem::replace(&mut self.machines[machine].disk, disk);
        self.attic.push((machine, before));
        let store = self.machines[machine].disk.store;
        self.line_of(machine, "remount", || format!("its disk is now store {store} again"));
        let at = self.now + self.away();
        self.at(at, Event::Start { machine });
        true
    }

    /// As good as a lost disk: the replica will give it up as soon as it notices. But for a snapshot's bit, which costs nothing.
    fn flip_bit(&mut self, machine: usize) -> bool {
        if self.rng.u8(0..4) == 0 && self.machines[machine].disk.flip_snapshot(&mut self.rng) {
            self.line_of(machine, "flipped", || "a bit of a snapshot".to_owned());
            if self.rng.bool() {
                self.kill_and_start(machine, false);
            }
            return true;
        }
        // Two flipped bits in the last record can make it look like one that was never whole.
        let good = self.machines[machine].disk.is_good();
        if !good || !self.may_be_wiped(machine) || !self.machines[machine].disk.flip(&mut self.rng) {
            return false;
        }
        self.nemesis.wiped += 1;
        let at = self.machines[machine].disk.flipped;
        self.line_of(machine, "flipped", || match at {
            Some(at) => format!("a bit of its journal, byte {at}"),
            None => "a bit of its configuration file".to_owned(),
        });
        self.find_out(machine);
        true
    }

    /// As good as a lost disk for who has to start from that segment; who runs, or starts behind it, gets it back.
    fn lose_segment(&mut self, machine: usize) -> bool {
        let (every, committed) = (self.segment_bytes, self.invariants.truth.end());
        if !self.machines[machine].disk.is_good() || !self.may_be_wiped(machine) {
            return false;
        }
        let Some(lost) = self.machines[machine].disk.lose_segment(every, committed, &mut self.rng) else {
            return false;
        };
        self.nemesis.wiped += 1;
        self.line_of(machine, "flipped", || format!("bytes {lost:?} of its journal are lost, a segment's"));
        self.find_out(machine);
        true
    }

    /// What has rotted on a disk is found by a start, or by a replica that runs.
    fn find_out(&mut self, machine: usize) {
        if self.rng.bool() {
            self.kill_and_start(machine, false);
        } else {
            self.look_up_some_orders();
        }
    }

    /// Before a replica has read again by itself what has just rotted.
    fn look_up_some_orders(&mut self) {
        for _ in 0..LOOK_UPS.min(self.invariants.truth.orders()) {
            let number = OrderNumber(self.rng.u64(1..=self.invariants.truth.orders()));
            let through = frontend(self.rng.u8(1..=self.size.frontends));
            self.ask_later(through, ClientRequest::Order(number));
        }
    }

    fn empty_disk(&mut self, machine: usize) -> bool {
        if !self.may_be_wiped(machine) {
            return false;
        }
        self.nemesis.wiped += 1;
        self.kill_machine(machine, false);
        self.wipe_disk(machine);
        let at = self.now + self.away();
        self.at(at, Event::Start { machine });
        true
    }

    fn harm_disk(&mut self, kind: Kind, machine: usize) {
        match kind {
            Kind::SlowDisk => {
                let most = [20_000, 300_000, 2_000_000][self.rng.usize(0..3)];
                let sync_us = self.rng.u64(1_000..most);
                self.machines[machine].disk.sync_us = sync_us;
                self.line_of(machine, "slow", || format!("its disk: a sync takes {sync_us} us"));
            }
            Kind::FullDisk => {
                self.machines[machine].disk.full = true;
                self.line_of(machine, "full", || "its disk".to_owned());
            }
            _ => {
                let kept = self.rng.usize(0..FAILED_WRITE_BYTES_MAX);
                let fails = if kind == Kind::FailRead { Fails::Read } else { Fails::Write { kept } };
                self.machines[machine].disk.fails = Some(fails);
                self.line_of(machine, "fails", || format!("its disk, with the next {fails:?}"));
                let at = self.now + self.away() + 200_000;
                self.at(at, Event::Start { machine });
                return;
            }
        }
        let at = self.now + self.rng.u64(10_000..4_000_000);
        self.at(at, Event::Fault(Fault::DiskWell(machine)));
    }

    /// Not the last disk that is sure to have everything; nor one whose owner may be about to become that.
    fn may_be_wiped(&self, machine: usize) -> bool {
        let whole = |machine: &&crate::machine::Machine| {
            let newest = self.invariants.newest.as_ref();
            newest.is_some_and(|newest| machine.id.is_some_and(|id| newest.is_in_sync(id, machine.disk.store)))
                && self.has_everything(&machine.disk)
        };
        let others = self.machines.iter().filter(|other| other.who != self.machines[machine].who);
        others.filter(whole).filter(|other| other.is_running()).count() >= 1
    }

    fn harm_register(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::RegisterBack => {
                // Where both records are lost, nobody can tell that they are.
                if self.register.floor.value().is_none() || !self.register.configuration.go_back() {
                    return false;
                }
                for _ in 0..self.rng.u32(0..3) {
                    self.register.configuration.go_back();
                }
            }
            Kind::RegisterWipe => {
                let stays = self.rng.bool();
                let newest = self.invariants.newest.as_ref().map(|newest| newest.nonce);
                let went_back = self.register.configuration.value().is_some_and(|held| Some(held.nonce) != newest);
                match self.rng.u32(0..3) {
                    0 => self.register.configuration.wipe(stays),
                    1 if !went_back => self.register.floor.wipe(stays),
                    _ => {
                        self.register.configuration.wipe(stays);
                        self.register.floor.wipe(stays);
                    }
                }
            }
            _ => {
                let floor = self.rng.bool() && self.register.floor.value().is_some();
                if floor {
                    self.register.floor.unreadable = true;
                } else if self.register.configuration.value().is_some() {
                    self.register.configuration.unreadable = true;
                } else {
                    return false;
                }
            }
        }
        self.register_was_tampered();
        true
    }

    /// Everything is mended, and started: from now on nothing bad happens.
    pub(crate) fn heal(&mut self) {
        let (now, encodes) = (self.now, self.weather.encodes);
        self.trace.line(now, "nemesis", "sleeps", || "everything is mended".to_owned());
        self.nemesis.asleep = true;
        self.nemesis.supervised = true;
        self.broker_up = true;
        self.split.clear();
        self.weather = crate::bus::Weather { encodes, ..crate::bus::Weather::default() };
        (self.crew..self.machines.len()).for_each(|twin| self.end_twin(twin));
        for machine in 0..self.crew {
            let place = &mut self.machines[machine];
            place.lag_us = 0;
            place.ghost_until = 0;
            if place.paused_until.is_some() {
                place.paused_until = Some(now);
                self.resume_machine(machine);
            }
            self.mend_line(machine);
            self.mend_disk(machine);
            if self.machines[machine].disk.configuration_flipped {
                // Only a start looks at that file. What of the journal has rotted is found while the replica runs.
                self.kill_machine(machine, false);
            }
            self.start_machine(machine);
        }
    }
}
