//! Following: append what the leader sends, fetch what was missed, acknowledge what is on disk.
//!
//! Problem: batches get lost (a slow consumer's are dropped), come late, come from a leader that no longer is one; and an
//! own log may end in entries that a former leader never committed.
//! Idea: every batch names the entry before it. It is appended only behind that very entry; otherwise the missing part is
//! fetched. Lines are compared one by one, and the log is cut only where the *current leader's* line differs, so an
//! acknowledged entry is never cut and fetched again.
//! Rule kept: an acknowledgement covers only what was compared with the leader's log and is on disk, in an epoch that is
//! on disk (R4).

use bytes::Bytes;
use tradenet_schemas::ids::{Epoch, Leader, Position, ReplicaId, SeqNum};
use tradenet_schemas::message::Message;
use tradenet_schemas::subjects::Peer;

use super::{HELD_MAX, Replica};
use crate::bugs::{Bug, bug};
use crate::{Mono, Output, Packet, ReplyTo, journal};

/// Batches that may wait for the disk; what comes beyond is fetched later.
pub(super) const APPENDS_WAITING_MAX: usize = 64;

/// What a replica knows of the leader it follows.
#[derive(Clone, Default, Debug)]
pub(super) struct Following {
    /// The first epoch of this unbroken leadership: what was sent in an earlier one may be of another log.
    since: Epoch,
    /// When it was heard last.
    heard: Option<Mono>,
    /// The own log equals the leader's up to here.
    matched: SeqNum,
    /// The leader's end, as far as is known.
    leader_tail: SeqNum,
    /// The newest confirmation round heard, and the newest answered.
    round: u64,
    round_answered: u64,
    /// What was acknowledged last.
    acknowledged: Option<SeqNum>,
    /// An acknowledgement that tells nothing new is wanted all the same.
    ack_wanted: bool,
    fetch: Option<Fetch>,
    /// Peers tried since the last answer.
    tries: usize,
}

/// A request for missed entries.
#[derive(Clone, Debug)]
struct Fetch {
    peer: ReplicaId,
    from: Position,
    since: Mono,
    /// The leader's end when it was asked.
    leader_tail: SeqNum,
}

impl Following {
    pub(super) fn heard(&self) -> Option<Mono> {
        self.heard
    }

    /// The first epoch of this unbroken leadership.
    pub(super) fn since(&self) -> Epoch {
        self.since
    }

    /// The leader's end, as far as is known.
    pub(super) fn leader_tail(&self) -> SeqNum {
        self.leader_tail
    }

    /// The leader should know at once.
    pub(super) fn tell_that_we_leave(&mut self) {
        self.ack_wanted = true;
    }

    /// A new epoch, of the same leader without a gap or of any other. What was compared before is compared again.
    pub(super) fn enter(&mut self, epoch: Epoch, unbroken: bool) {
        let before = std::mem::take(self);
        self.since = epoch;
        if bug(Bug::MatchAcrossEpochs) {
            self.matched = before.matched;
        }
        if unbroken {
            let Self { since, heard, round, round_answered, .. } = before;
            *self = Self { since, heard, round, round_answered, ..Self::default() };
        }
    }
}

impl Replica {
    /// A batch or a keep-alive of a leader.
    pub(super) fn append_arrived(&mut self, sender: Leader, packet: Packet, reply: Option<ReplyTo>) {
        let Message::Append { leader, configuration, prev, committed, round } = &packet.envelope.body else {
            return;
        };
        if *leader != sender {
            return;
        }
        let epoch = packet.envelope.epoch;
        if let Some(configuration) = configuration {
            self.adopt(configuration);
        }
        if let Some((_, adopting)) = &self.adopting {
            // Nothing is done for an epoch that is not on disk yet (rule R4).
            if adopting.leader == sender && self.held.len() < HELD_MAX {
                self.held.push_back((packet, reply));
            }
            return;
        }
        let Some(held) = &self.configuration else { return };
        if held.leader != sender {
            if epoch < held.epoch {
                let newer = Message::Fenced(Box::new(held.clone()));
                self.counts.fenced += 1;
                self.send(Peer::Order(sender.id), newer);
            }
            return;
        }
        if epoch > held.epoch || epoch < self.following.since || self.leading.is_some() {
            return; // The configuration comes with the next keep-alive.
        }
        let (prev, committed, round) = (*prev, *committed, *round);
        self.following.heard = Some(self.now.mono);
        self.following.round = self.following.round.max(round);
        if self.transfer.is_some() {
            // What comes now is fetched when what was before it is there.
            self.following.leader_tail = self.following.leader_tail.max(prev.seq);
        } else if self.log.contains(prev) {
            self.following.leader_tail = self.following.leader_tail.max(prev.seq);
            if let Some(end) = self.take_lines(prev, &packet.lines, true) {
                self.matched_up_to(end, committed);
                // New lines are acknowledged when they are on disk. A round without any asks whether the epoch stands.
                let asks = self.following.round > self.following.round_answered && packet.lines.is_empty();
                let known_already = !packet.lines.is_empty() && self.disk.waiting() == 0;
                self.following.ack_wanted |= asks || known_already;
            }
        } else {
            self.following.leader_tail = self.following.leader_tail.max(prev.seq);
            if bug(Bug::IgnoreGaps) {
                self.following.matched = self.following.matched.max(prev.seq);
            }
            let from = if prev.seq > self.log.tail().seq { self.log.tail() } else { self.log.at_or_before(prev) };
            self.fetch(from);
        }
    }

    /// The own log equals the leader's up to `end`.
    fn matched_up_to(&mut self, end: SeqNum, committed: SeqNum) {
        self.following.matched = self.following.matched.max(end);
        self.following.leader_tail = self.following.leader_tail.max(end);
        self.committed = self.committed.max(committed.min(self.following.matched));
    }

    /// Appends the lines behind `prev` that are not there yet; the last entry of them. Where a line differs from the own
    /// one, the own rest is cut if the lines are the leader's, and else they are of no use.
    fn take_lines(&mut self, prev: Position, lines: &Bytes, from_leader: bool) -> Option<SeqNum> {
        if self.disk.waiting() >= APPENDS_WAITING_MAX {
            return None;
        }
        let mut end = prev.seq;
        let mut taken = 0;
        let mut scan = journal::scan(lines, prev);
        let mut fresh = Vec::new();
        for scanned in &mut scan {
            let good = match scanned {
                Ok(good) => good,
                Err(error) if error.is_newer() => {
                    // To stay would mean to lose touch with a log that goes on, in sync with nobody and of use to nobody.
                    self.broken(format!("entry {} can't be followed: {error}", end.next()));
                    return None;
                }
                Err(_) => {
                    self.outputs.push_back(Output::warn(
                        "dropped entries that were damaged on the way; they are fetched again",
                    ));
                    return None;
                }
            };
            end = good.position.seq;
            if fresh.is_empty() && self.log.contains(good.position) {
                taken += good.bytes;
            } else {
                fresh.push(good);
            }
        }
        if let Some(first) = fresh.first() {
            let before = SeqNum(first.position.seq.0 - 1);
            if self.log.tail().seq > before {
                if !from_leader {
                    return None;
                }
                if !self.cut_behind(before) {
                    return None;
                }
                self.following.matched = self.following.matched.min(before);
            }
            for good in fresh {
                self.log.push(good.entry, good.position, good.bytes);
            }
            self.ends_by_it = from_leader && self.log.tail().epoch == self.epoch();
            self.append_lines(lines.slice(taken..));
        }
        Some(end)
    }

    // ------------------------------------------------------------ catching up

    /// Asks for the entries behind `from`, unless that is under way.
    pub(super) fn fetch(&mut self, from: Position) {
        if self.following.fetch.is_some() || self.disk.waiting() >= APPENDS_WAITING_MAX || self.leading.is_some() {
            return;
        }
        if self.transfers() {
            return;
        }
        let Some(peer) = self.fetch_peer() else { return };
        self.following.fetch =
            Some(Fetch { peer, from, since: self.now.mono, leader_tail: self.following.leader_tail });
        self.send(Peer::Order(peer), Message::Fetch { from, bytes_max: None });
    }

    /// Whom to ask: an in-sync member the leader, who alone may have it cut its log; one that is far behind first another
    /// follower, so that its catch-up does not slow the leader down.
    fn fetch_peer(&self) -> Option<ReplicaId> {
        let peers = self.followers_then_leader();
        let first = if self.is_far_behind() { 0 } else { peers.len().saturating_sub(1) };
        let peers = &peers[first..];
        (!peers.is_empty()).then(|| peers[self.following.tries % peers.len()])
    }

    pub(super) fn followers_then_leader(&self) -> Vec<ReplicaId> {
        let Some(held) = &self.configuration else { return Vec::new() };
        let leader = held.leader.id;
        let others = held.in_sync.iter().map(|member| member.id).rev();
        others.filter(|&id| id != leader && id != self.options.id).chain([leader]).collect()
    }

    pub(super) fn fetch_peer_is_gone(&mut self, peer: ReplicaId) {
        if self.following.fetch.as_ref().is_some_and(|fetch| fetch.peer == peer) {
            self.following.fetch = None;
            self.following.tries += 1;
        }
    }

    /// Entries that were asked for.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn chunk_arrived(
        &mut self,
        sender: Leader,
        epoch: Epoch,
        asked: Position,
        prev: Position,
        tail: SeqNum,
        committed: SeqNum,
        lines: &Bytes,
    ) {
        let expected =
            self.following.fetch.as_ref().is_some_and(|fetch| fetch.peer == sender.id && fetch.from == asked);
        if !expected || self.leading.is_some() || self.adopting.is_some() {
            return;
        }
        let leader_tail = self.following.fetch.take().map(|fetch| fetch.leader_tail);
        if epoch > self.epoch() {
            return; // Entries of an epoch that is not on disk here (rule R4): asked for again when it is.
        }
        let leads =
            epoch >= self.following.since && self.configuration.as_ref().is_some_and(|held| held.leader == sender);
        if leads {
            self.following.heard = Some(self.now.mono);
        }
        if prev != asked {
            // The logs differ at `asked`. Each round goes at least one epoch down, and 0 is common to all.
            let from = if self.log.contains(prev) { prev } else { self.log.at_or_before(prev) };
            return self.fetch(from);
        }
        if !self.log.contains(prev) {
            return;
        }
        let before = self.log.tail();
        match self.take_lines(prev, lines, leads) {
            Some(end) if leads => {
                self.following.ack_wanted = true;
                self.matched_up_to(end, committed);
            }
            Some(end) => self.committed = self.committed.max(committed.min(end)),
            None => {}
        }
        // Who has no more than this replica is not asked again and again.
        let further = self.log.tail() != before;
        self.following.tries = if further { 0 } else { self.following.tries + 1 };
        let end = self.log.tail().seq;
        if end > before.seq && end == self.following.leader_tail && Some(end) > leader_tail {
            self.outputs.push_back(Output::debug(format!("caught up with batches that came meanwhile, at {end}")));
        }
        // Without progress the next attempt waits for the next tick.
        if further && self.log.tail().seq < tail.max(self.following.leader_tail) {
            self.fetch(self.log.tail());
        }
    }

    // ------------------------------------------------------------ acknowledging

    /// Acknowledges what is new.
    pub(super) fn follow_on(&mut self) {
        if self.leading.is_some() || self.adopting.is_some() || self.following.heard.is_none() {
            return;
        }
        let Some(leader) = self.configuration.as_ref().map(|held| held.leader) else {
            return;
        };
        let durable = if bug(Bug::AcknowledgeBeforeSync) { self.log.tail().seq } else { self.durable() };
        let durable = self.following.matched.min(durable);
        let following = &mut self.following;
        if !following.ack_wanted && following.acknowledged == Some(durable) {
            return;
        }
        following.ack_wanted = false;
        following.round_answered = following.round;
        following.acknowledged = Some(durable);
        let ack = Message::Ack {
            store: self.options.store,
            durable,
            round: following.round,
            leaving: self.leaving.is_some(),
        };
        self.send(Peer::Order(leader.id), ack);
    }

    /// Whether there is nothing to fetch, and the leader was heard.
    pub(super) fn follows_calmly(&self) -> bool {
        let complete = self.following.fetch.is_none()
            && self.transfer.is_none()
            && self.log.tail().seq >= self.following.leader_tail;
        complete && self.leader_is_heard()
    }

    pub(super) fn follow_tick(&mut self) {
        let times = self.options.times;
        let overdue = |fetch: &Fetch| self.now.mono.since(fetch.since) > times.fetch;
        if self.following.fetch.as_ref().is_some_and(overdue) {
            self.following.fetch = None;
            self.following.tries += 1;
        }
        if self.leading.is_none() && self.following.heard.is_some() && self.log.tail().seq < self.following.leader_tail
        {
            self.fetch(self.log.tail());
        }
    }

    /// The commands and queries that were sent to somebody who does not lead.
    pub(super) fn not_leader(&mut self, requests: Vec<u64>, reply: ReplyTo) {
        self.counts.not_leader += requests.len() as u64;
        let configuration = self.newest().cloned().map(Box::new);
        self.reply(reply, Message::NotLeader { requests, configuration, catalog: None });
    }
}
