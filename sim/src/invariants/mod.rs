//! What must hold at every moment: S1 to S16 of `docs/protocol.md`, section 7.
//!
//! Problem: a broken invariant shows in a client's answer long after, or never; and looking at everything after every step
//! is too slow for a million seeds.
//! Idea: look where something can have changed, at what is new. [`Truth`] is the log as it was ever committed anywhere:
//! whatever any replica calls committed is compared with it once, and chained checksums make one comparison enough for
//! the whole prefix.
//! Rule kept: the checks know the world from outside, its disks and messages, and no check changes anything.
//!
//! | here | kept elsewhere |
//! | --- | --- |
//! | S1 [`one_leader`], S2 [`everywhere`], S3 [`truth`], S4 and S7 [`acknowledgement`], S5 and S6 [`floor`], S8, S10 and S11 [`truth`], S9 [`digest`], S13 [`shown`], S15 [`bounds`] and [`shown`] | S8, S12, S13, S16 in [`crate::auditor`], by what clients got; S14 by core itself, which stops (`world::ended`) |

pub mod acknowledgement;
pub mod bounds;
pub mod digest;
pub mod everywhere;
pub mod floor;
pub mod one_leader;
pub mod shown;
pub mod truth;

use std::collections::BTreeMap;
use std::time::Duration;

use tradenet_core::replica::Replica;
use tradenet_core::times::Times;
use tradenet_core::{Output, Packet};
use tradenet_schemas::ids::ReplicaId;
use tradenet_schemas::message::{Configuration, Message};

use crate::machine::{Decided, Holder, LastSeen, Machine};
use crate::register::Register;
use crate::world::World;

pub use truth::Truth;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub invariant: &'static str,
    /// What was found.
    pub text: String,
    /// Nothing was broken: what must come (L1 to L7) did not come within its bound.
    pub is_late: bool,
}

impl Violation {
    /// A violation of that invariant.
    pub fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self { invariant, text: text.into(), is_late: false }
    }
    /// What must come by that rule did not come in time.
    pub fn late(rule: &'static str, text: impl Into<String>) -> Self {
        Self { invariant: rule, text: text.into(), is_late: true }
    }
    /// What it is called.
    pub fn word(&self) -> &'static str {
        if self.is_late { "LATE" } else { "VIOLATED" }
    }
}

/// After so many inputs at once a process's queues are looked at,
const BURST_INPUTS: usize = 32;
/// and else in each step of which the number is a multiple of this.
const LOOK_EVERY_STEPS: u64 = 256;

/// What a check says.
pub type Verdict = Result<(), Violation>;

/// All checks, with what they remember.
#[derive(Clone, Debug)]
pub struct Invariants {
    /// The log as it was committed.
    pub truth: Truth,
    one_leader: one_leader::OneLeader,
    digest: digest::Digests,
    floor: floor::Floors,
    /// The newest configuration that was ever written, whatever the register says of it now.
    pub newest: Option<Configuration>,
    /// How often each replica fell out of the in-sync set.
    falls: BTreeMap<ReplicaId, u32>,
}

impl Invariants {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self {
            truth: Truth::new(),
            one_leader: one_leader::OneLeader::default(),
            digest: digest::Digests::default(),
            floor: floor::Floors::default(),
            newest: None,
            falls: BTreeMap::new(),
        }
    }

    /// How long at most those who fell out have to wait until they are in sync again, and after that until the highest leads:
    /// twice as long for each time but the first.
    pub(crate) fn patience_us(&self, times: &Times) -> (u64, u64) {
        let falls = self.falls.values().max().copied().unwrap_or(0);
        let doubled = |wait: Duration, max: Duration| {
            let wait = (wait * 2u32.pow(falls.saturating_sub(1).min(16))).min(max);
            u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)
        };
        (doubled(times.readd, times.readd_max), doubled(times.handover, times.handover_max))
    }

    /// A replica has done a step: it was `seen` before, and is to be seen otherwise now.
    pub(crate) fn replica_stepped(
        &mut self,
        replica: &Replica,
        (seen, now_seen): (LastSeen, LastSeen),
        me: Holder<'_>,
        holders: &[Holder<'_>],
        register: &Register,
    ) -> Verdict {
        if now_seen.tail != seen.tail {
            self.one_leader.names_one_entry(replica, seen.tail.seq, me)?;
            bounds::check(replica)?;
        }
        if let Some(held) = replica.serves_in().filter(|_| now_seen.serves_in != seen.serves_in) {
            self.one_leader.leads(held, me)?;
            floor::served(held, me, register)?;
        }
        if now_seen.committed != seen.committed {
            let fresh = self.truth.committed(replica)?;
            if fresh {
                self.disk_changed(holders, register)?;
            }
        }
        if now_seen.applied != seen.applied {
            self.digest.check(replica)?;
        }
        Ok(())
    }

    /// The register was written.
    pub(crate) fn register_written(
        &mut self,
        holders: &[Holder<'_>],
        register: &Register,
        configuration: bool,
    ) -> Verdict {
        let Some(written) = register.configuration.value() else {
            return Ok(());
        };
        self.floor.written(register)?;
        if configuration {
            if has_lost_the_floor(written, register) {
                // Written by somebody who looked before the register went back, or before the floor was taken: that stands against
                // it, and who reads both repairs it before anybody can be elected by it.
                return Ok(());
            }
            self.one_leader.grows(self.newest.as_ref(), written, register.tampered)?;
            let before = self.newest.replace(written.clone());
            for member in before.iter().flat_map(|before| &before.in_sync) {
                *self.falls.entry(member.id).or_default() += u32::from(written.in_sync_member(member.id).is_none());
            }
            everywhere::check(written, &self.truth, holders)?;
        }
        Ok(())
    }

    /// A disk may have lost something, or something more is committed.
    pub(crate) fn disk_changed(&self, holders: &[Holder<'_>], register: &Register) -> Verdict {
        let newest = self.newest.as_ref().filter(|newest| !has_lost_the_floor(newest, register));
        newest.map_or(Ok(()), |newest| everywhere::check(newest, &self.truth, holders))
    }

    /// The nemesis changed the register: what it was is no measure any more.
    pub fn register_tampered(&mut self) {
        self.floor.forget();
    }
}

impl Default for Invariants {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether nobody can be elected by a record any more: after the register went back, another one has the floor that does not come before it.
fn has_lost_the_floor(record: &Configuration, register: &Register) -> bool {
    let floor = register.floor.value().filter(|_| register.tampered);
    floor.is_some_and(|floor| !floor.is(record) && !record.may_take(floor))
}

fn holders(machines: &[Machine]) -> Vec<Holder<'_>> {
    machines.iter().filter_map(Machine::holder).collect()
}

impl World {
    fn verdict(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violated(violation.invariant, violation.text);
        }
    }

    /// Looks at what a process's last step changed.
    pub(crate) fn look_at(&mut self, machine: usize) {
        let me = &self.machines[machine];
        let (Some(replica), Some(process)) = (me.replica(), me.process.as_ref()) else {
            return;
        };
        let (seen, now_seen) = (process.last_seen, LastSeen::of(replica));
        let Some(holder) = me.holder().filter(|_| now_seen != seen) else {
            return;
        };
        let holders = holders(&self.machines);
        let verdict = self.invariants.replica_stepped(replica, (seen, now_seen), holder, &holders, &self.register);
        self.verdict(verdict);
        if let Some(process) = &mut self.machines[machine].process {
            process.last_seen = now_seen;
        }
    }

    /// Looks at what a process shows after a step: its lease where it served something from its cache, and its queues.
    pub(crate) fn check_shown(&mut self, machine: usize, outputs: &[Output], inputs: usize) {
        let served = outputs.iter().any(shown::is_hit);
        let queues = inputs >= BURST_INPUTS || self.trace.steps().is_multiple_of(LOOK_EVERY_STEPS);
        if !served && !queues {
            return;
        }
        let me = &self.machines[machine];
        let now = me.clock.local(self.now);
        let Some(process) = &me.process else { return };
        let readings = match &process.decider {
            Decided::Replica(decider) => shown::shown(&**decider, now),
            Decided::Catalog(decider) => shown::shown(&**decider, now),
            Decided::Frontend(decider) => shown::shown(&**decider, now),
        };
        let lease = if served { shown::lease(&readings) } else { Ok(()) };
        self.verdict(lease.and_then(|()| shown::queues(&readings)));
    }

    /// Looks at what is about to be sent.
    pub(crate) fn check_sent(&mut self, from: usize, packet: &Packet) {
        if let Message::Ack { store, durable, .. } = packet.body() {
            let holder = self.machines[from].holder();
            let check = |holder| acknowledgement::check(holder, packet.envelope.epoch, *store, *durable);
            self.verdict(holder.map_or(Ok(()), check));
        }
    }

    /// Looks at what is about to be told to whoever follows the market.
    pub(crate) fn check_published(&mut self, packet: &Packet) {
        if let Message::Events { after, events } = packet.body() {
            let verdict = self.auditor.published(*after, events, &self.invariants.truth);
            self.verdict(verdict);
        }
    }

    /// Looks at the register after a write.
    pub(crate) fn check_register(&mut self, configuration: bool) {
        if configuration {
            self.last_record = self.now;
        }
        let verdict = self.invariants.register_written(&holders(&self.machines), &self.register, configuration);
        self.verdict(verdict);
    }

    /// Looks at the disks after one of them lost something.
    pub(crate) fn check_disk(&mut self, _machine: usize) {
        let verdict = self.invariants.disk_changed(&holders(&self.machines), &self.register);
        self.verdict(verdict);
    }
}
