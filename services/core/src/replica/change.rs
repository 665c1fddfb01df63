//! Changes of the configuration by the leader: activation, shrink, re-add, hand-over.
//!
//! Problem: the register's answer may be lost after the write took effect, somebody else may have written, and the
//! register itself may have gone back to an older record.
//! Idea: one change at a time, and it is never given up halfway: the same record, told apart by its nonce, is written
//! again until a read shows what became of it. Then: own disk, floor, and only then does it count. Whatever the register shows,
//! the floor is taken only from a record that this one follows, and of all records that follow that one only one can (ADR 13).
//! Rule kept: R4 (the floor is taken before anything is served in the epoch), R6, and R7 (a register that is older than
//! what is known stops all changes).

use std::time::Duration;

use tradenet_schemas::ids::{Epoch, Node, Nonce};
use tradenet_schemas::message::{Configuration, Floor, Message};
use tradenet_schemas::subjects::Peer;

use super::Replica;
use crate::bugs::{Bug, bug};
use crate::proposal::may_take;
use crate::{Mono, Output, RegisterAnswer, RegisterRequest, Slot};

/// How long after a failed step it is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// What a change is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Activate,
    Shrink,
    Add,
    HandOver,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Reads what the register holds.
    Read,
    /// Writes.
    Write,
    /// Is written; goes to the own disk.
    Persist,
    /// Reads that it still stands, and the floor.
    Verify,
    /// Takes the floor.
    Floor,
}

/// A change under way.
#[derive(Clone, Debug)]
pub(super) struct Change {
    kind: Kind,
    target: Configuration,
    stage: Stage,
    /// The request to the register that waits for its answer.
    ticket: u64,
    asked: Mono,
    retry_at: Option<Mono>,
    /// A write was asked for: it may take effect at any time.
    written: bool,
    /// The register does not let this leader begin: nor does it before it has looked again.
    contested: bool,
}

impl Change {
    pub(super) fn nonce(&self) -> Nonce {
        self.target.nonce
    }
    /// Whether nobody can ever hear of it.
    pub(super) fn may_be_dropped(&self) -> bool {
        !self.written && self.kind != Kind::Activate
    }
}

impl Replica {
    /// The configuration after the one in force, for the caller to change.
    pub(super) fn next_configuration(&mut self, why: String) -> Configuration {
        self.nonces += 1;
        let nonce = Nonce(self.options.boot.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.nonces));
        let mut next = match &self.leading {
            Some(leading) => leading.in_force.clone(),
            None => unreachable!("only a leader changes the configuration"),
        };
        next.follows = vec![next.id()];
        next.epoch = next.epoch.next();
        next.nonce = nonce;
        next.by = Node::Order(self.options.id, self.options.boot);
        next.why = why;
        next.at = self.now.wall_ms;
        next
    }

    pub(super) fn start_change(&mut self, kind: Kind, target: Configuration) {
        let stage = if kind == Kind::Activate { Stage::Verify } else { Stage::Read };
        let change = Change {
            kind,
            target,
            stage,
            ticket: 0,
            asked: self.now.mono,
            retry_at: None,
            written: false,
            contested: false,
        };
        let Some(leading) = &mut self.leading else { return };
        assert!(leading.change.is_none(), "one change at a time");
        leading.change = Some(change);
        self.ask_register(stage, None);
    }

    /// Begins a stage with the request it needs.
    fn ask_register(&mut self, stage: Stage, revision: Option<u64>) {
        let ticket = self.next_register_ticket();
        let now = self.now.mono;
        let Some(change) = self.leading.as_mut().and_then(|leading| leading.change.as_mut()) else {
            return;
        };
        (change.stage, change.ticket) = (stage, ticket);
        change.asked = now;
        change.retry_at = None;
        change.written |= stage == Stage::Write;
        let request = match stage {
            Stage::Read | Stage::Verify => RegisterRequest::Read { ticket },
            Stage::Write => {
                RegisterRequest::Write { ticket, configuration: Box::new(change.target.clone()), expected: revision }
            }
            Stage::Floor => {
                RegisterRequest::Floor { ticket, floor: Box::new(change.target.clone()), expected: revision }
            }
            Stage::Persist => return,
        };
        self.outputs.push_back(Output::Register(request));
    }

    pub(super) fn change_answered(&mut self, answer: RegisterAnswer) {
        let Some(change) = self.leading.as_ref().and_then(|leading| leading.change.as_ref()) else {
            return;
        };
        if change.ticket != answer.ticket() {
            return;
        }
        match (change.stage, answer) {
            (Stage::Read, RegisterAnswer::Read { configuration, floor, .. }) => {
                self.was_read_before(&configuration, &floor);
            }
            (Stage::Verify, RegisterAnswer::Read { configuration, floor, .. }) => self.verified(&configuration, &floor),
            (Stage::Write, RegisterAnswer::Written { .. }) => self.landed(),
            (Stage::Write, RegisterAnswer::Conflict { .. }) => self.ask_register(Stage::Read, None),
            (Stage::Floor, RegisterAnswer::Written { .. }) => self.change_done(),
            (Stage::Floor, RegisterAnswer::Conflict { .. }) => self.ask_register(Stage::Verify, None),
            (_, RegisterAnswer::Unknown { why, .. }) => {
                self.outputs.push_back(Output::debug(format!("the register did not answer: {why}")));
                self.retry_change();
            }
            (Stage::Persist, _)
            | (_, RegisterAnswer::Written { .. } | RegisterAnswer::Conflict { .. } | RegisterAnswer::Read { .. }) => {}
        }
    }

    fn retry_change(&mut self) {
        let at = self.now.mono.after(RETRY);
        if let Some(change) = self.leading.as_mut().and_then(|leading| leading.change.as_mut()) {
            change.retry_at = Some(at);
        }
    }

    pub(super) fn change_tick(&mut self) {
        let (now, patience) = (self.now.mono, self.options.times.register * 2);
        let Some(change) = self.leading.as_ref().and_then(|leading| leading.change.as_ref()) else {
            return;
        };
        let due = change.retry_at.is_some_and(|at| now >= at) || now.since(change.asked) > patience;
        if !due || change.stage == Stage::Persist {
            return;
        }
        // Whatever was asked may have taken effect: look first.
        let stage = if matches!(change.stage, Stage::Read | Stage::Write) { Stage::Read } else { Stage::Verify };
        self.ask_register(stage, None);
    }

    /// What the register holds before the write, or after a write whose answer is not known.
    fn was_read_before(&mut self, slot: &Slot<Configuration>, floor: &Slot<Floor>) {
        let Some(leading) = &self.leading else { return };
        let Some(change) = &leading.change else { return };
        // Above the record's epoch: somebody served in a newer one, which the register has lost.
        let lost = |value: &Configuration| {
            let another = |floor: &Floor| floor.record().is_some() && !floor.is(value);
            floor
                .value()
                .is_some_and(|floor| floor.epoch() > value.epoch || floor.epoch() == value.epoch && another(floor))
        };
        match slot {
            Slot::Present { value, .. } if value.nonce == change.target.nonce => self.landed(),
            Slot::Present { value, .. } if lost(value) && !bug(Bug::IgnoreTheFloor) => self.register_went_back(slot),
            Slot::Present { value, revision } if value.nonce == leading.in_force.nonce => {
                let revision = Some(*revision);
                self.ask_register(Stage::Write, revision);
            }
            Slot::Present { value, .. } if value.epoch > leading.in_force.epoch => self.lost_to(&value.clone()),
            other => self.register_went_back(other),
        }
    }

    /// Somebody else wrote first.
    fn lost_to(&mut self, winner: &Configuration) {
        self.step_down(winner);
        self.adopt(winner);
    }

    /// Rule R7: the register is older than what is known here; nothing is changed until it is repaired.
    fn register_went_back(&mut self, slot: &Slot<Configuration>) {
        self.wait_for_repair(match slot {
            Slot::Present { .. } => "the register holds an older record",
            Slot::Unreadable { .. } => "the register can't be read",
            Slot::BucketMissing | Slot::KeyMissing => "the register is empty",
        });
    }

    /// The same of the floor, and of one that another leader has taken.
    fn floor_is_not_free(&mut self, floor: &Slot<Floor>) {
        self.wait_for_repair(match floor {
            Slot::Present { .. } => "the register's floor is another leader's",
            Slot::Unreadable { .. } => "the register's floor can't be read",
            Slot::BucketMissing | Slot::KeyMissing => "the register's floor is gone",
        });
    }

    fn wait_for_repair(&mut self, found: &str) {
        let Some(leading) = &mut self.leading else { return };
        if leading.trouble.is_none() {
            self.outputs.push_back(Output::warn(format!("{found}: no change until the frontends have repaired it")));
        }
        leading.trouble = Some(found.to_owned());
        if let Some(change) = &mut leading.change {
            change.contested = true;
        }
        self.retry_change();
    }

    /// The record is written.
    fn landed(&mut self) {
        let Some(leading) = &mut self.leading else { return };
        leading.trouble = None;
        let Some(change) = &mut leading.change else { return };
        change.stage = Stage::Persist;
        let (kind, target) = (change.kind, change.target.clone());
        if kind == Kind::HandOver {
            // The newest configuration to everybody before the own disk: the heir waits for it.
            self.send(Peer::All, Message::Announce(Box::new(target.clone())));
        }
        if self.epoch() >= target.epoch && self.adopting.is_none() {
            return self.ask_register(Stage::Verify, None); // Heard of it before the register answered.
        }
        self.adopt(&target);
    }

    /// A configuration in which this replica leads is on its disk.
    pub(super) fn change_persisted(&mut self) {
        let held = self.configuration.clone();
        let Some(leading) = &self.leading else { return };
        match (&leading.change, held) {
            (Some(change), Some(held)) if change.target.nonce == held.nonce => self.ask_register(Stage::Verify, None),
            _ => self.broken("a configuration named this leader that it did not write: this must not happen"),
        }
    }

    fn verified(&mut self, slot: &Slot<Configuration>, floor: &Slot<Floor>) {
        let change = self.leading.as_mut().and_then(|leading| leading.change.as_mut());
        let Some(Change { target, contested, .. }) = change else { return };
        *contested = false;
        let taken = floor.value().is_some_and(|floor| floor.is(target));
        // Only the first leader of all finds no floor; later it is for the frontends to repair.
        let first = floor.is_missing() && target.epoch == Epoch(1);
        let free = first || floor.value().is_some_and(|floor| may_take(target, floor));
        match slot {
            Slot::Present { value, .. } if value.nonce == target.nonce => {}
            _ if bug(Bug::IgnoreReportedEpochs) => {}
            Slot::Present { value, .. } if value.epoch > target.epoch => return self.lost_to(&value.clone()),
            other => return self.register_went_back(other),
        }
        match floor {
            _ if taken || bug(Bug::ServeBelowTheFloor) => self.change_done(),
            _ if free => self.ask_register(Stage::Floor, floor.revision()),
            other => self.floor_is_not_free(other),
        }
    }

    /// See [`Status::contested`](tradenet_schemas::message::Status::contested).
    pub(super) fn is_contested(&self) -> bool {
        let change = self.leading.as_ref().and_then(|leading| leading.change.as_ref());
        change.is_some_and(|change| change.contested)
    }

    /// Written, on disk, floor taken: it counts from now on.
    fn change_done(&mut self) {
        let Some(leading) = &mut self.leading else { return };
        let Some(change) = leading.change.take() else { return };
        self.counts.change(change.kind);
        leading.trouble = None;
        leading.in_force = change.target;
        leading.counts_from = None;
        if change.kind == Kind::Add {
            leading.joining = None;
        }
        // Followers compare their logs anew in every epoch: the next message is not left to chance.
        leading.round_wanted = true;
        if change.kind != Kind::Activate {
            let announced = Box::new(leading.in_force.clone());
            self.send(Peer::All, Message::Announce(announced));
            self.start_next_epoch();
        }
        self.dirty = true;
    }
}
