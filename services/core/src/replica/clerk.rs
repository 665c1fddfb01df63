//! The clerk: writes into the register what frontends propose, where it may be written.
//!
//! Problem: frontends elect, but a frontend's credentials must not be enough to change the configuration; and the register
//! may be missing, old, or silent at the moment.
//! Idea: the replica that a proposal names as leader reads the register, compares ([`crate::proposal`]), writes at the
//! revision that the frontend saw, and takes the lead at once. Where the register has to be written anew it asks every
//! other replica first. A proposal that is written already only tells of it, so frontends need no other way to tell a
//! replica that missed a change.
//! Rule kept: one proposal at a time; each is answered by what the register shows, and an outcome that is not known is
//! called so; a leader is replaced only if this replica has just agreed to it.

use std::collections::BTreeMap;
use std::time::Duration;

use tradenet_schemas::ids::{Leader, Nonce, Question, ReplicaId};
use tradenet_schemas::message::{Configuration, Floor, Message, Role, Status, Verdict};
use tradenet_schemas::subjects::Peer;

use super::Replica;
use crate::bugs::{Bug, bug};
use crate::proposal::{Evidence, FloorFirst, Heir, Refusal, rebuild, stands};
use crate::{Mono, Output, RegisterAnswer, RegisterRequest, ReplyTo, Revision, Slot};

/// How long a replica stands by its agreement to replace a leader.
const AGREED: Duration = Duration::from_secs(1);
/// How long the other replicas have to say how they are.
const ASK: Duration = Duration::from_millis(300);

/// What the clerk has to do, and has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Clerk {
    work: Option<Work>,
    /// What became of the last proposal, should its answer be lost.
    last: Option<(Nonce, Verdict)>,
    /// The leader that this replica agreed to replace, and when.
    agreed: Option<(Leader, Mono)>,
}

/// A proposal under way.
#[derive(Clone, Debug)]
struct Work {
    target: Configuration,
    expected: Option<Revision>,
    reply: ReplyTo,
    /// The request to the register that waits for its answer.
    ticket: u64,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Reads the register.
    Read,
    /// Asks all replicas how they are: the register has to be written anew. Only answers to that question count (R8).
    Ask { since: Mono, question: Question, found: Box<Found>, statuses: BTreeMap<ReplicaId, Status> },
    /// Writes the floor; then everything is looked at again.
    Floor,
    /// Writes the record.
    Write,
    /// The write may have taken effect.
    ReadBack,
}

/// What the register holds.
#[derive(Clone, Debug)]
struct Found {
    configuration: Slot<Configuration>,
    floor: Slot<Floor>,
}

impl Replica {
    /// This replica has told somebody that the leader may be replaced.
    pub(super) fn agreed_to_replace(&mut self, suspect: Leader) {
        self.clerk.agreed = Some((suspect, self.now.mono));
    }

    /// A frontend proposes a record.
    pub(super) fn proposed(&mut self, target: Configuration, expected: Option<Revision>, reply: ReplyTo) {
        let nonce = target.nonce;
        if let Some(work) = self.clerk.work.as_mut().filter(|work| work.target.nonce == nonce) {
            work.reply = reply;
            return;
        }
        let done = self.clerk.last.as_ref().filter(|(last, _)| *last == nonce).map(|(_, verdict)| verdict.clone());
        let known = self.configuration.as_ref().is_some_and(|held| held.nonce == nonce).then_some(Verdict::Written);
        let busy = || self.clerk.work.is_some().then(|| Verdict::Unknown("another record is being written".to_owned()));
        if let Some(verdict) = done.or(known).or_else(busy) {
            return self.reply(reply, Message::Proposed { nonce, verdict });
        }
        self.clerk.work = Some(Work { target, expected, reply, ticket: 0, stage: Stage::Read });
        self.ask_for_clerk(Stage::Read, |ticket| RegisterRequest::Read { ticket });
    }

    fn ask_for_clerk(&mut self, stage: Stage, request: impl FnOnce(u64) -> RegisterRequest) {
        let ticket = self.next_register_ticket();
        let Some(work) = &mut self.clerk.work else { return };
        (work.stage, work.ticket) = (stage, ticket);
        self.outputs.push_back(Output::Register(request(ticket)));
    }

    /// Whether the register's answer was for the clerk.
    pub(super) fn clerk_answered(&mut self, answer: &RegisterAnswer) -> bool {
        let Some(work) = self.clerk.work.as_ref().filter(|work| work.ticket == answer.ticket()) else {
            return false;
        };
        match (&work.stage, answer) {
            (Stage::Read, RegisterAnswer::Read { configuration, floor, .. }) => {
                self.compare(Found { configuration: configuration.clone(), floor: floor.clone() });
            }
            (Stage::ReadBack, RegisterAnswer::Read { configuration, .. }) => match configuration.value() {
                Some(held) if held.nonce == work.target.nonce => self.is_written(),
                _ => self.conclude(Verdict::Unknown("the register did not answer the write".to_owned())),
            },
            (Stage::Write, RegisterAnswer::Written { .. }) => self.is_written(),
            (Stage::Write, RegisterAnswer::Conflict { .. }) => self.conclude(Verdict::Conflict),
            (Stage::Write, RegisterAnswer::Unknown { .. }) => {
                self.ask_for_clerk(Stage::ReadBack, |ticket| RegisterRequest::Read { ticket });
            }
            (Stage::Floor, RegisterAnswer::Written { .. } | RegisterAnswer::Conflict { .. }) => {
                self.ask_for_clerk(Stage::Read, |ticket| RegisterRequest::Read { ticket });
            }
            (_, RegisterAnswer::Unknown { why, .. }) => self.conclude(Verdict::Unknown(why.clone())),
            _ => {}
        }
        true
    }

    /// The register's state decides by which rules the proposal is judged.
    fn compare(&mut self, found: Found) {
        let Some(work) = &self.clerk.work else { return };
        let (target, configuration) = (&work.target, &found.configuration);
        if configuration.value().is_some_and(|held| held.nonce == target.nonce) {
            return self.is_written();
        }
        if configuration.revision() != work.expected {
            return self.conclude(Verdict::Conflict);
        }
        // Also one that is still on its way to the disk, and so not in the status: this replica would not take the target on.
        if self.newest().is_some_and(|held| held.epoch >= target.epoch) {
            return self.refuse(Refusal::Epoch);
        }
        let status = self.status();
        let heir = self.as_heir(&status);
        if let Err(refusal) = heir.may_lead(target) {
            return self.refuse(refusal);
        }
        // What this replica can't allow by itself, the others may: they may know that the register does not stand.
        let held = configuration.value().filter(|held| stands(held, &found.floor, [&status]));
        match held.is_some_and(|held| heir.may_follow(held, &found.floor, target).is_ok()) {
            true => self.write_proposed(),
            false => self.ask_everybody(found, status),
        }
    }

    fn as_heir<'a>(&'a self, status: &'a Status) -> Heir<'a> {
        let agreed = self.clerk.agreed.filter(|(_, at)| self.now.mono.since(*at) < AGREED).map(|(leader, _)| leader);
        Heir { status, members: &self.options.members, agreed }
    }

    fn ask_everybody(&mut self, found: Found, own: Status) {
        let statuses = BTreeMap::from([(own.id, own)]);
        let question = Question(self.options.boot.0 ^ self.next_register_ticket());
        let Some(work) = &mut self.clerk.work else { return };
        work.stage = Stage::Ask { since: self.now.mono, question, found: Box::new(found), statuses };
        for id in self.options.members.clone() {
            if id != self.options.id {
                self.send(Peer::Order(id), Message::Heartbeat { question: Some(question) });
            }
        }
        self.judge_rebuild(false);
    }

    /// A replica said how it is.
    pub(super) fn clerk_hears(&mut self, status: &Status) {
        let asked = self.clerk.work.as_mut().map(|work| &mut work.stage);
        if let Some(Stage::Ask { question, statuses, .. }) = asked
            && status.role != Role::Starting
            && status.answers == Some(*question)
        {
            let known = statuses.insert(status.id, status.clone());
            // Two processes with one id: one of them may have what is not seen of the other.
            match known.is_some_and(|known| known.boot != status.boot) {
                true => self.refuse(Refusal::NoRebuild),
                false => self.judge_rebuild(false),
            }
        }
    }

    /// With the word of every replica; `overdue`: some are silent.
    fn judge_rebuild(&mut self, overdue: bool) {
        let Some(Work { target, stage: Stage::Ask { found, statuses, .. }, .. }) = &self.clerk.work else {
            return;
        };
        let complete = self.options.members.iter().all(|id| statuses.contains_key(id));
        match (complete, overdue) {
            (true, _) => {}
            (false, false) => return,
            (false, true) if bug(Bug::RebuildFromSome) => {}
            (false, true) => return self.refuse(Refusal::NoRebuild),
        }
        let Found { configuration, floor } = &**found;
        let own = self.status();
        let others = statuses.values().filter(|status| status.id != own.id).cloned();
        let statuses: Vec<_> = others.chain([own.clone()]).collect();
        if let Some(held) = configuration.value().filter(|held| stands(held, floor, &statuses)) {
            let refusal = self.as_heir(&own).may_follow(held, floor, target).err();
            return self.refuse(refusal.unwrap_or(Refusal::NoRebuild));
        }
        let allowed = rebuild(&Evidence { configuration, floor, statuses: &statuses, seen: self.committed })
            .map_err(|_| Refusal::NoRebuild)
            .and_then(|rebuild| self.as_heir(&own).may_rebuild(&rebuild, target).map(|()| rebuild));
        match allowed {
            Err(refusal) => self.refuse(refusal),
            Ok(rebuild) => {
                let floor = match rebuild.floor {
                    FloorFirst::Stands => return self.write_proposed(),
                    FloorFirst::PutBack(record) => record,
                    FloorFirst::Anew(epoch) => Box::new(Configuration { epoch, ..target.clone() }),
                };
                let expected = found.floor.revision();
                self.ask_for_clerk(Stage::Floor, |ticket| RegisterRequest::Floor { ticket, floor, expected });
            }
        }
    }

    fn write_proposed(&mut self) {
        let Some(work) = &self.clerk.work else { return };
        let (configuration, expected) = (Box::new(work.target.clone()), work.expected);
        self.ask_for_clerk(Stage::Write, |ticket| RegisterRequest::Write { ticket, configuration, expected });
    }

    /// The register holds it: it counts, whoever wrote it.
    fn is_written(&mut self) {
        let Some(target) = self.clerk.work.as_ref().map(|work| work.target.clone()) else { return };
        self.conclude(Verdict::Written);
        self.send(Peer::All, Message::Announce(Box::new(target.clone())));
        self.adopt(&target);
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.outputs.push_back(Output::info(format!("refused to write a proposed record: {refusal}")));
        self.conclude(Verdict::Refused(refusal.to_string()));
    }

    fn conclude(&mut self, verdict: Verdict) {
        let Some(work) = self.clerk.work.take() else { return };
        let nonce = work.target.nonce;
        if !matches!(verdict, Verdict::Unknown(_)) {
            self.clerk.last = Some((nonce, verdict.clone()));
        }
        self.reply(work.reply, Message::Proposed { nonce, verdict });
    }

    /// Whether a proposal is being checked or written.
    pub(super) fn clerk_is_busy(&self) -> bool {
        self.clerk.work.is_some()
    }

    /// Nobody is waited for without a limit.
    pub(super) fn clerk_tick(&mut self) {
        let asked = self.clerk.work.as_ref().map(|work| &work.stage);
        if let Some(Stage::Ask { since, .. }) = asked
            && self.now.mono.since(*since) > ASK
        {
            self.judge_rebuild(true);
        }
    }
}
