//! Leading: decide, replicate, commit, release.
//!
//! Problem: a client may be answered only when its order can't be lost, doubled or contradicted by any later read; and
//! one fsync and one message must carry many orders.
//!
//! Idea: commands wait in a queue while one batch is under way, and what waits is the next batch (natural batching, no
//! timer). One message carries a batch to all followers and to the catalog while the own disk writes it. An answer waits
//! for up to two things: that an entry is *released* (committed, and staged by the attached catalog), and that a
//! *confirmation round* begun after the request arrived was answered by all of `in_sync` and the one who is joining (R5).
//!
//! Rule kept: nothing is answered from what a deposed leader could still believe.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradenet_schemas::ids::{Boot, Epoch, Member, OrderNumber, Position, ReplicaId, SeqNum, StoreId};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use tradenet_schemas::message::{Answer, Configuration, Message, Query, Submission};
use tradenet_schemas::subjects::Peer;
use tradenet_schemas::trace::{TRACES_MAX, Trace, Traced};
use tradenet_schemas::trade::{Command, CommandKey, Outcome, Receipt, Refusal};

use super::attach::Attachment;
use super::change::{Change, Kind};
use super::feed::{Published, Watchers};
use super::lookup::{Lookups, Then};
use super::observe::Verdict;
use super::queue::{Queue, Queued};
use super::remembered::Remembered;
use super::{LEAVE_TOGETHER, Replica};
use crate::bugs::{Bug, bug};
use crate::exchange::{Decision, Found};
use crate::{Mono, Output, Packet, ReplyTo, highest, journal, wire};

/// Commands that may wait to be decided.
pub(super) const QUEUE_COMMANDS_MAX: usize = 16_384;
/// Answers that may wait to be given.
pub(super) const WAITING_MAX: usize = 65_536;
/// Outcomes in one message, in bytes; a single one is smaller.
const OUTCOMES_BYTES_MAX: usize = 512 * 1024;
/// A learner that counts already, but lacks committed entries for so long, does not count any more.
const JOINS_WITHIN: Duration = Duration::from_millis(500);
/// How much later than due a keep-alive goes out. A beat of the frontends sets off the attached catalog too, and the round that
/// its request for authority needs is a keep-alive as well: sent first, there would be two.
const KEEP_ALIVE_LATE: Duration = Duration::from_millis(10);
/// A follower silent for so long is asked whether it is there.
const PROBE_AFTER: Duration = Duration::from_millis(150);
/// A learner whose acknowledgements lag more than this does not keep up.
const KEEPS_UP: Duration = Duration::from_millis(200);
/// The longest a hand-over waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_millis(1_000);
/// An own sync that takes so long is a reason to hand over.
const SLOW_SYNC: Duration = Duration::from_millis(500);

/// Who sent a command, and waits for its outcome.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) from: Boot,
    pub(super) request: u64,
    pub(super) reply: ReplyTo,
    /// If it is followed.
    pub(super) trace: Option<Arc<Trace>>,
}

/// What a frontend is told of a command.
#[derive(Clone, Debug)]
pub(super) struct Told {
    request: u64,
    outcome: Outcome,
    /// Whether it was done before its client asked.
    before: bool,
    /// If it is followed.
    trace: Option<Arc<Trace>>,
}

/// What is owed.
#[derive(Clone, Debug)]
pub(super) enum Due {
    Outcome(Told),
    Answer { request: u64, answer: Answer },
    Listed,
    Grant { request: u64, catalog: Boot, asked: Mono },
}

/// An answer that waits until it may be given.
#[derive(Clone, Debug)]
struct Waiting {
    reply: ReplyTo,
    /// Until this entry is released,
    seq: SeqNum,
    /// and this round is confirmed.
    round: u64,
    due: Due,
}

/// What a follower said.
#[derive(Clone, Debug)]
pub(super) struct Acknowledgement {
    pub(super) id: ReplicaId,
    pub(super) boot: Boot,
    pub(super) epoch: Epoch,
    pub(super) store: StoreId,
    pub(super) durable: SeqNum,
    pub(super) round: u64,
    pub(super) leaving: bool,
}

/// A follower as the leader knows it.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    pub(super) store: StoreId,
    pub(super) boot: Boot,
    epoch: Epoch,
    acked: SeqNum,
    round: u64,
    pub(super) heard: Mono,
    /// What it has yet to acknowledge, since when.
    pub(super) behind: Option<(SeqNum, Mono)>,
    /// Since when it acknowledges in time.
    pub(super) keeps_up_since: Option<Mono>,
    /// When the broker first said that nobody is there.
    gone_first: Option<Mono>,
    pub(super) gone: bool,
    pub(super) leaving: bool,
}

/// A hand-over that waits for what is under way.
#[derive(Clone, Debug)]
pub(super) struct Draining {
    pub(super) since: Mono,
}

/// A leader's memory.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    /// The configuration that commits are counted by: written, on disk, and in the floor.
    pub(super) in_force: Configuration,
    /// The first epoch of this leadership.
    first_epoch: Epoch,
    /// The own EpochStart.
    pub(super) begun: Option<SeqNum>,
    /// The EpochStart of the configuration in force; none as long as that is not written.
    pub(super) counts_from: Option<SeqNum>,
    since: Mono,
    serves: bool,
    /// The newest round sent, and the newest that everybody answered.
    round: u64,
    confirmed: u64,
    pub(super) round_wanted: bool,
    last_sent: Mono,
    /// The commit point that was told last.
    told: SeqNum,
    pub(super) followers: BTreeMap<ReplicaId, Follower>,
    /// The learner that already counts, and since when.
    pub(super) joining: Option<Member>,
    joining_since: Mono,
    /// Nobody is judged before this.
    grace_until: Mono,
    /// Commands that were refused in this leadership: a late copy of one must not be accepted after all.
    refused: Remembered<Refusal>,
    /// Commands that were turned away at their only sending: their clients know that nothing was done, so a late copy is not
    /// taken.
    turned_away: Remembered<()>,
    queue: Queue,
    waiting: Vec<Waiting>,
    pub(super) lookups: Lookups,
    pub(super) watchers: Watchers,
    pub(super) published: Published,
    pub(super) released: SeqNum,
    uncommitted_since: Option<Mono>,
    slow_sync: bool,
    pub(super) facts: VecDeque<Vec<Event>>,
    pub(super) draining: Option<Draining>,
    pub(super) change: Option<Change>,
    pub(super) attachment: Attachment,
    pub(super) trouble: Option<String>,
}

impl Leading {
    pub(super) fn serves(&self) -> bool {
        self.serves
    }
    pub(super) fn released(&self) -> SeqNum {
        self.released
    }
    /// How many commands wait, how many answers, how many readers of events.
    pub(super) fn depths(&self) -> (usize, usize, usize) {
        (self.queue.len(), self.waiting.len(), self.watchers.len())
    }
    /// Since when an entry waits to be committed.
    pub(super) fn stuck_since(&self) -> Option<Mono> {
        self.uncommitted_since
    }
    /// Whether a leaving leader has nothing left to do: nobody to hand over to, nobody to answer.
    pub(super) fn may_leave(&self, all_committed: bool) -> bool {
        let heir = self.in_force.in_sync.iter().any(|member| self.is_fit(member.id));
        let idle = self.queue.is_empty() && self.lookups.len() == 0;
        !heir && self.change.is_none() && idle && (all_committed || !self.serves)
    }
    /// Whether that follower could lead.
    pub(super) fn is_fit(&self, id: ReplicaId) -> bool {
        let member = self.in_force.in_sync_member(id);
        member.and_then(|member| self.word(member)).is_some_and(|follower| !follower.leaving && !follower.gone)
    }
    /// The followers whose word counts: all in sync but the leader, and the one who is joining.
    fn required(&self, me: ReplicaId) -> impl Iterator<Item = Member> + '_ {
        self.in_force.in_sync.iter().copied().chain(self.joining).filter(move |member| member.id != me)
    }
    /// What that member said, if it was the disk that the record names who said it (rule R3).
    fn word(&self, member: Member) -> Option<&Follower> {
        let follower = self.followers.get(&member.id)?;
        let same = follower.store == member.store || bug(Bug::CountAnyStore);
        (same && follower.epoch >= self.first_epoch).then_some(follower)
    }
    fn owe(&mut self, reply: ReplyTo, seq: SeqNum, round: u64, due: Due) {
        self.round_wanted |= round > self.round;
        self.waiting.push(Waiting { reply, seq, round, due });
    }
    /// That follower falls out: it comes back only after keeping up anew, with everything that was committed meanwhile.
    fn has_to_keep_up_again(&mut self, id: ReplicaId, tail: SeqNum, now: Mono) {
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.keeps_up_since = None;
            follower.behind = Some((tail, now));
        }
    }
    /// The round that begins after now.
    fn coming_round(&self) -> u64 {
        self.round + 1
    }
    /// Which round confirms what may have changed since (rule R5).
    fn round_of_a_read(&self) -> u64 {
        if bug(Bug::ReadWithoutConfirmation) { 0 } else { self.coming_round() }
    }
}

impl Replica {
    // ------------------------------------------------------------ beginning

    /// Elected: everything needed to serve is checked and taken first; [`Replica::begin`] follows.
    pub(super) fn activate(&mut self) {
        let Some(configuration) = self.configuration.clone() else {
            return;
        };
        if !configuration.is_in_sync(self.options.id, self.options.store) {
            self.outputs
                .push_back(Output::warn("elected with another disk than this one: not leading, another is elected"));
            return;
        }
        let now = self.now.mono;
        self.leading = Some(Box::new(Leading {
            first_epoch: configuration.epoch,
            in_force: configuration.clone(),
            begun: None,
            counts_from: None,
            since: now,
            serves: false,
            // Rounds go on where an earlier leadership of this process ended: followers know it by its boot, and what
            // they heard of then must not confirm anything now.
            round: if bug(Bug::RestartRounds) { 0 } else { self.rounds },
            confirmed: if bug(Bug::RestartRounds) { 0 } else { self.rounds },
            round_wanted: false,
            last_sent: now,
            told: SeqNum(0),
            followers: BTreeMap::new(),
            joining: None,
            joining_since: now,
            grace_until: now,
            refused: Remembered::default(),
            turned_away: Remembered::default(),
            queue: Queue::default(),
            waiting: Vec::new(),
            lookups: Lookups::default(),
            watchers: Watchers::default(),
            published: Published::default(),
            released: SeqNum(0),
            uncommitted_since: None,
            slow_sync: false,
            facts: VecDeque::new(),
            draining: None,
            change: None,
            attachment: Attachment::default(),
            trouble: None,
        }));
        self.start_change(Kind::Activate, configuration);
    }

    /// The floor is taken: the first entry of the epoch, as soon as the state is as new as the log.
    fn begin(&mut self) {
        let Some(leading) = &self.leading else { return };
        if leading.begun.is_some() || leading.change.is_some() || self.state.exchange.applied() != self.log.tail().seq {
            return;
        }
        let inherited = self.state.exchange.catalog().is_some();
        let waited_out = self.now.mono.after(self.options.times.authority_waited_out);
        self.start_epoch();
        if let Some(leading) = &mut self.leading {
            leading.begun = leading.counts_from;
            // An old grant may be alive: the former leader gave it before this epoch was on any follower's disk (C4).
            leading.attachment = Attachment::inherited(inherited.then_some(waited_out), self.now.mono);
        }
        self.followers_get_grace();
    }

    /// The first entry of an epoch, by which all before it are committed in it.
    fn start_epoch(&mut self) {
        let start = Event::EpochStart { leader: self.me(), digest: self.state.exchange.digest() };
        let mut lines = Vec::new();
        let seq = self.append_entry(None, vec![start], &mut lines);
        if let Some(leading) = &mut self.leading {
            leading.counts_from = Some(seq);
            leading.uncommitted_since = leading.uncommitted_since.or(Some(self.now.mono));
        }
        self.publish(lines, Vec::new());
    }

    /// A leader that goes on by another record starts its epoch, too: who has served last can be told from the ends of the logs then,
    /// should the floor be lost (ADR 13). Nothing is decided on a full disk, so that nothing waits for it there.
    pub(super) fn start_next_epoch(&mut self) {
        let due = |leading: &Leading| leading.begun.is_some() && leading.counts_from.is_none();
        if self.leading.as_deref().is_some_and(due) && !self.disk.is_full() {
            self.start_epoch();
        }
    }

    /// Deposed: whoever waits is told where to go; commands are sent again there, with the same key.
    pub(super) fn step_down(&mut self, newer: &Configuration) {
        let Some(leading) = self.leading.take() else { return };
        self.rounds = leading.round + 1;
        self.outputs.push_back(Output::info(format!(
            "no leader any more: order-{} leads in epoch {}",
            newer.leader.id, newer.epoch
        )));
        let mut orphans: BTreeMap<ReplyTo, Vec<u64>> = BTreeMap::new();
        for queued in leading.queue {
            orphans.entry(queued.reply).or_default().push(queued.submission.request);
        }
        for waiting in leading.waiting {
            if let (true, Due::Outcome(told)) = (bug(Bug::AnswerWhenDeposed), &waiting.due) {
                let outcomes = vec![(told.request, told.outcome.clone())];
                self.reply(waiting.reply.clone(), Message::Outcomes { seq: waiting.seq, outcomes, before: vec![] });
            }
            if let Due::Outcome(Told { request, .. }) | Due::Answer { request, .. } = waiting.due {
                orphans.entry(waiting.reply).or_default().push(request);
            }
        }
        for (reply, request) in leading.lookups.into_requests().chain(leading.watchers.into_requests()) {
            orphans.entry(reply).or_default().push(request);
        }
        for (reply, requests) in orphans {
            let configuration = Some(Box::new(newer.clone()));
            self.reply(reply, Message::NotLeader { requests, configuration, catalog: None });
        }
    }

    // ------------------------------------------------------------ requests

    pub(super) fn submitted(
        &mut self,
        from: Boot,
        epoch: Epoch,
        submissions: Vec<Submission>,
        reply: ReplyTo,
        traces: &[Traced],
    ) {
        // A command that was sent to an earlier leader comes late: whoever sent it has long sent it again.
        let Some(leading) = self.leading.as_ref().filter(|leading| epoch >= leading.first_epoch) else {
            let requests = submissions.iter().map(|submission| submission.request).collect();
            return self.not_leader(requests, reply);
        };
        let is_late = |new: &Submission| {
            let known = leading.turned_away.get((from, new.request)).is_some();
            !new.again && known && !bug(Bug::TakeTurnedAway)
        };
        // Its answer was forgotten, or it comes very late for the first time: either way it is right that nothing is done.
        let may_be_late = |new: &Submission| {
            let request = (from, new.request);
            let forgotten = leading.refused.may_be_forgotten(request)
                || !new.again && leading.turned_away.may_be_forgotten(request);
            forgotten && !self.is_under_way(leading, &new.key)
        };
        let (serves, room) = (leading.serves, QUEUE_COMMANDS_MAX.saturating_sub(leading.queue.len()));
        let crowded = leading.waiting.len() > WAITING_MAX;
        let in_time = submissions.into_iter().filter(|new| !is_late(new));
        let (late, submissions): (Vec<_>, Vec<_>) = in_time.partition(may_be_late);
        let overloaded = |requests| Message::Overloaded { requests };
        self.turn_away(from, &late, reply.clone(), Verdict::Overloaded, overloaded);
        if self.disk.is_full() && serves {
            let why = "the leader's disk is full, and no other replica is in sync".to_owned();
            return self.turn_away(from, &submissions, reply, Verdict::Unavailable, |requests| Message::Unavailable {
                requests,
                why,
            });
        }
        if submissions.len() > room || crowded {
            return self.turn_away(from, &submissions, reply, Verdict::Overloaded, overloaded);
        }
        let Some(leading) = &mut self.leading else { return };
        for submission in submissions {
            let trace = wire::trace_of(traces, submission.request);
            leading.queue.push(Queued { from, submission, reply: reply.clone(), trace });
        }
    }

    /// Whether a command with that key waits to be decided, or is done.
    fn is_under_way(&self, leading: &Leading, key: &CommandKey) -> bool {
        self.state.exchange.knows(key) || leading.queue.holds(key)
    }

    /// Answers that nothing is done. A copy of what is under way waits for that one's answer instead.
    fn turn_away(
        &mut self,
        from: Boot,
        submissions: &[Submission],
        reply: ReplyTo,
        verdict: Verdict,
        message: impl FnOnce(Vec<u64>) -> Message,
    ) {
        let Some(leading) = &self.leading else { return };
        let is_new = |new: &&Submission| !self.is_under_way(leading, &new.key);
        let new: Vec<&Submission> = submissions.iter().filter(is_new).collect();
        let requests: Vec<u64> = new.iter().map(|new| new.request).collect();
        let Some(leading) = &mut self.leading else { return };
        for only in new.iter().filter(|new| !new.again) {
            leading.turned_away.remember((from, only.request), ());
        }
        if !requests.is_empty() {
            self.counts.verdict(verdict, requests.len());
            self.reply(reply, message(requests));
        }
    }

    pub(super) fn queried(&mut self, request: u64, query: Query, reply: ReplyTo) {
        let tail = self.log.tail().seq;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.serves) else {
            return self.not_leader(vec![request], reply);
        };
        if leading.waiting.len() > WAITING_MAX {
            return self.reply(reply, Message::Overloaded { requests: vec![request] });
        }
        if matches!(query, Query::Stock(_) | Query::Stocks) && self.state.exchange.catalog().is_some() {
            // While a catalog may answer, only the catalog does (C1).
            let catalog = self.state.exchange.catalog();
            return self.reply(reply, Message::NotLeader { requests: vec![request], configuration: None, catalog });
        }
        if let Query::Order(number) = query
            && self.state.exchange.is_too_old(number)
        {
            return self.look_up(request, number, reply);
        }
        let confirm = leading.round_of_a_read();
        let (answer, seq, round) = match query {
            // What is in the log never changes, so it needs to be released, and no more.
            Query::Order(number) => match self.state.exchange.order(number) {
                Some((order, seq)) => (Answer::Order(Some(order)), seq, 0),
                None => (Answer::Order(None), tail, confirm),
            },
            Query::Stock(symbol) => (Answer::Stock(self.state.exchange.stock(&symbol)), tail, confirm),
            Query::Stocks => (Answer::Stocks(self.state.exchange.stocks()), tail, confirm),
            Query::Account(caller, query) => match self.state.exchange.account(&caller, &query) {
                Found::Here(answer) => (Answer::Account(Box::new(answer)), tail, confirm),
                Found::Behind(walk) => return self.walk(walk, Then::Show { request, reply }),
            },
            Query::Book(symbol, depth) => (Answer::Book(self.state.exchange.book(&symbol, depth)), tail, confirm),
            Query::Trades(symbol, limit) => (Answer::Trades(self.state.exchange.trades(&symbol, limit)), tail, confirm),
            Query::Candles(symbol, interval, limit) => {
                (Answer::Candles(self.state.exchange.candles(&symbol, interval, limit)), tail, confirm)
            }
            Query::LastEvent => (Answer::LastEvent(self.state.events.last()), tail, confirm),
            Query::Events(after) => return self.watched(request, after, reply),
        };
        let of_market = matches!(answer, Answer::Account(_) | Answer::Book(_) | Answer::Trades(_));
        let seq = if of_market && bug(Bug::ShowMarketBeforeRelease) { SeqNum(0) } else { seq };
        leading.owe(reply, seq, round, Due::Answer { request, answer });
    }

    // ------------------------------------------------------------ batches

    /// Appends an entry to log, state and `lines`.
    fn append_entry(&mut self, key: Option<CommandKey>, events: Vec<Event>, lines: &mut Vec<u8>) -> SeqNum {
        let prev = self.log.tail();
        // Not the epoch on disk: the floor may not be taken yet, and so its number not be this leader's alone.
        let epoch = self.leading.as_ref().map_or(Epoch(0), |leading| leading.in_force.epoch);
        let seq = prev.seq.next();
        let entry = Entry { seq, epoch, at: self.now.wall_ms, key, events };
        let before = lines.len();
        let chain = journal::encode(&entry, prev.chain, lines);
        self.state.apply(&entry);
        self.log.push(entry, Position { epoch, seq, chain }, lines.len() - before);
        self.ends_by_it = epoch == self.epoch();
        seq
    }

    /// Decides what waits, if no batch is under way.
    fn decide(&mut self) {
        let all_committed = self.committed == self.log.tail().seq;
        let Some(leading) = &self.leading else { return };
        // An entry needs the heir's word, so deciding goes on safely where a hand-over does not come about.
        let now = self.now.mono;
        let draining = leading.draining.as_ref().is_some_and(|draining| now.since(draining.since) < DRAIN_MAX);
        if !leading.serves || draining || !all_committed || self.disk.is_full() {
            return;
        }
        let (mut lines, mut traces) = (Vec::new(), Vec::new());
        while let Some(events) = self.leading.as_mut().and_then(|leading| leading.facts.pop_front()) {
            let attaches = matches!(events.first(), Some(Event::Attached { .. }));
            let seq = self.append_entry(None, events, &mut lines);
            if attaches {
                self.attached_at(seq);
            }
        }
        let first = self.log.tail().seq;
        for _ in 0..BATCH_ENTRIES_MAX {
            // There is to be room for a statement and a command.
            if lines.len() >= BATCH_BYTES_MAX || self.log.tail().seq.0 + 2 > first.0 + BATCH_ENTRIES_MAX as u64 {
                break;
            }
            // One before each command, which makes one order at most: so a backlog gets no longer, and no command waits for much of it.
            if self.leaving.is_none()
                && let Some(statement) = self.state.exchange.statement_due()
            {
                self.append_entry(None, vec![statement], &mut lines);
            }
            let Some(queued) = self.leading.as_mut().and_then(|leading| leading.queue.pop()) else {
                break;
            };
            self.decide_one(queued, &mut lines, &mut traces);
        }
        if !lines.is_empty() {
            let now = self.now.mono;
            self.counts.batch_entries.record(self.log.tail().seq.0 - self.committed.0);
            self.counts.batch_bytes.record(lines.len() as u64);
            if let Some(leading) = &mut self.leading {
                leading.uncommitted_since = Some(now);
            }
            self.publish(lines, traces);
        }
    }

    /// `traces` gets the entry of a command that is followed.
    fn decide_one(&mut self, queued: Queued, lines: &mut Vec<u8>, traces: &mut Vec<Traced>) {
        let Queued { from, submission, reply, trace } = queued;
        let Submission { request, key, command, known, again } = submission;
        let refused = self.leading.as_ref().and_then(|leading| leading.refused.get((from, request)));
        let refused = refused.filter(|_| !bug(Bug::DecideRefusedAgain));
        let decision =
            refused.map_or_else(|| self.state.exchange.decide(&key, &command), |known| Decision::Refuse(*known));
        let before = matches!(decision, Decision::Replay { seq, .. } if seq <= known);
        let verdict = match &decision {
            Decision::Accept(_) => Verdict::Accepted,
            Decision::Replay { .. } => Verdict::Replayed,
            Decision::Refuse(_) | Decision::RefuseBy(_) => Verdict::Refused,
        };
        self.counts.verdict(verdict, 1);
        let sender = Sender { from, request, reply, trace };
        let tail = self.log.tail().seq;
        match decision {
            Decision::Accept(events) => {
                // Only the opening of an account is done again under its key: for a new token.
                let again = matches!(command, Command::Open { .. }) && self.state.exchange.knows(&key);
                let seq = self.append_entry(Some(key), events, lines);
                if traces.len() < TRACES_MAX {
                    traces.extend(sender.trace.clone().map(|trace| Traced { number: seq.0, trace }));
                }
                let order = OrderNumber(self.state.exchange.orders());
                match self.state.exchange.outcome(&command, order, again.then_some(seq)) {
                    Found::Here(outcome) => self.tell(sender, outcome, before, seq, false),
                    Found::Behind(_) => unreachable!("what was done just now is in the state"),
                }
            }
            Decision::Replay { seq, .. } if bug(Bug::DropKeysAtFailover) && self.is_of_a_former_leader(seq) => {
                let key = CommandKey::generated(self.options.boot, self.log.tail().seq.0);
                let submission = Submission { request, key, command, known, again };
                let Sender { from, reply, trace, .. } = sender;
                self.decide_one(Queued { from, submission, reply, trace }, lines, traces);
            }
            Decision::Replay { order, seq } => {
                // What can change since is a read, and needs what a read needs (R5).
                let fixed = (order != OrderNumber(0)).then_some(seq);
                match self.state.exchange.outcome(&command, order, Some(seq)) {
                    Found::Here(outcome) => {
                        self.tell(sender, outcome, before, fixed.unwrap_or(tail), fixed.is_none());
                    }
                    Found::Behind(walk) => self.walk(walk, Then::Repeat { sender, before, fixed }),
                }
            }
            // It tells of everything before it, and a deposed leader can't refuse either.
            Decision::Refuse(refusal) => self.tell(sender, Outcome::Refused(refusal), before, tail, true),
            Decision::RefuseBy(walk) => self.walk(walk, Then::Refuse(sender)),
        }
    }

    /// Owes a command's outcome, until that entry is released and, if it has to be, a round is confirmed.
    pub(super) fn tell(&mut self, sender: Sender, outcome: Outcome, before: bool, seq: SeqNum, confirm: bool) {
        let Sender { from, request, reply, trace } = sender;
        let Some(leading) = &mut self.leading else { return };
        let confirm = confirm && !bug(Bug::RefuseWithoutConfirmation);
        let round = if confirm { leading.coming_round() } else { 0 };
        if let Outcome::Refused(refusal) = &outcome {
            leading.refused.remember((from, request), *refusal);
        }
        leading.owe(reply, seq, round, Due::Outcome(Told { request, outcome, before, trace }));
    }

    /// For [`Bug::DropKeysAtFailover`].
    fn is_of_a_former_leader(&self, seq: SeqNum) -> bool {
        let epoch = self.log.position(seq).map(|position| position.epoch);
        epoch < self.leading.as_ref().map(|leading| leading.first_epoch)
    }

    /// Sends a batch to everybody, and to the own disk meanwhile.
    fn publish(&mut self, lines: Vec<u8>, traces: Vec<Traced>) {
        let lines = Bytes::from(lines);
        self.send_append(lines.clone(), traces);
        self.append_lines(lines);
    }

    /// Entries, or none: a keep-alive, a confirmation round, or news of the commit point.
    fn send_append(&mut self, lines: Bytes, traces: Vec<Traced>) {
        let count = memchr::memchr_iter(b'\n', &lines).count() as u64;
        let tail = self.log.tail();
        let prev = self.log.position(SeqNum(tail.seq.0 - count)).unwrap_or_default();
        let (now, committed, me, held) = (self.now.mono, self.committed, self.me(), self.configuration.clone());
        let Some(leading) = &mut self.leading else { return };
        leading.round += 1;
        self.rounds = leading.round;
        leading.round_wanted = false;
        leading.last_sent = now;
        leading.told = committed;
        let epoch = held.as_ref().map_or(Epoch(0), |held| held.epoch);
        let news = leading.required(me.id).any(|member| leading.word(member).is_none_or(|word| word.epoch < epoch));
        let configuration = held.filter(|_| news || lines.is_empty()).map(Box::new);
        let round = leading.round;
        for follower in leading.followers.values_mut() {
            if bug(Bug::TrustPublishes) {
                follower.acked = tail.seq;
            }
            if follower.behind.is_none() && follower.acked < tail.seq {
                follower.behind = Some((tail.seq, now));
            }
        }
        let append = Message::Append { leader: me, configuration, prev, committed, round };
        let packet = Packet { traces, ..self.packet(append, lines) };
        self.outputs.push_back(Output::Send { to: Peer::All, packet });
    }

    /// News of the commit point alone, for catalogs: a look-up may wait for it. Followers have time until the next batch.
    fn send_commit(&mut self) {
        let (at, committed, leader) = (self.log.tail(), self.committed, self.me());
        let Some(leading) = &mut self.leading else { return };
        leading.told = committed;
        self.send(Peer::All, Message::Commit { leader, at, committed });
    }

    // ------------------------------------------------------------ acknowledgements

    pub(super) fn acknowledged(&mut self, ack: &Acknowledgement) {
        let (now, tail) = (self.now.mono, self.log.tail().seq);
        let Some(leading) = &mut self.leading else { return };
        if ack.epoch < leading.first_epoch {
            return;
        }
        let fresh = || Follower {
            store: ack.store,
            boot: ack.boot,
            epoch: ack.epoch,
            acked: SeqNum(0),
            round: 0,
            heard: now,
            behind: Some((tail, now)),
            keeps_up_since: None,
            gone_first: None,
            gone: false,
            leaving: false,
        };
        let follower = leading.followers.entry(ack.id).or_insert_with(fresh);
        if follower.boot != ack.boot && ack.epoch < follower.epoch {
            return; // A former run of it, late.
        }
        if follower.boot != ack.boot || follower.store != ack.store {
            // Another run: what the former had on disk is for this one to show again.
            *follower = fresh();
        }
        follower.epoch = follower.epoch.max(ack.epoch);
        follower.acked = follower.acked.max(ack.durable);
        follower.round = follower.round.max(ack.round);
        follower.heard = now;
        follower.gone_first = None;
        follower.gone = false;
        follower.leaving |= ack.leaving;
        if let Some((target, since)) = follower.behind {
            if now.since(since) > KEEPS_UP {
                follower.keeps_up_since = None;
            }
            if follower.acked >= target {
                follower.keeps_up_since = follower.keeps_up_since.or(Some(now));
                follower.behind = (follower.acked < tail).then_some((tail, now));
            }
        }
    }

    pub(super) fn follower_lives(&mut self, id: ReplicaId, boot: Boot) {
        let follower = self.leading.as_mut().and_then(|leading| leading.followers.get_mut(&id));
        if let Some(follower) = follower.filter(|follower| follower.boot == boot) {
            // It is there, but only an acknowledgement shows that it hears this leader.
            follower.gone_first = None;
        }
    }

    /// The broker knows nobody of that name. Twice, some time apart, is believed.
    pub(super) fn follower_is_gone(&mut self, id: ReplicaId) {
        let (now, twice) = (self.now.mono, self.options.times.nobody_twice);
        if self.leading.as_ref().is_some_and(|leading| now < leading.grace_until) {
            return;
        }
        let Some(follower) = self.leading.as_mut().and_then(|leading| leading.followers.get_mut(&id)) else {
            return;
        };
        let first = *follower.gone_first.get_or_insert(now);
        follower.gone |= now.since(first) >= twice;
    }

    /// Nobody is judged by a time in which nothing could be heard.
    pub(super) fn followers_get_grace(&mut self) {
        let now = self.now.mono;
        let Some(leading) = &mut self.leading else { return };
        for follower in leading.followers.values_mut() {
            follower.heard = now;
            follower.gone_first = None;
            follower.behind = follower.behind.map(|(target, _)| (target, now));
        }
        leading.since = now;
    }

    /// Moves confirmation and commit on.
    fn count(&mut self) {
        let (me, durable) = (self.options.id, self.durable());
        let Some(leading) = &mut self.leading else { return };
        let said = |member| leading.word(member).map_or((0, SeqNum(0)), |word| (word.round, word.acked));
        let mut said: Vec<_> = leading.required(me).map(said).collect();
        if bug(Bug::CommitWithoutTheLastFollower) {
            said.pop();
        }
        let rounds = said.iter().map(|(round, _)| *round);
        let round = if bug(Bug::ConfirmByOne) { rounds.max() } else { rounds.min() };
        let acked = said.iter().map(|(_, acked)| *acked).min();
        // With nobody to ask every round is answered: only this process can be elected by the next record.
        leading.confirmed = leading.confirmed.max(round.unwrap_or(leading.round + 1));
        let durable = if bug(Bug::CommitWithoutOwnDisk) { self.log.tail().seq } else { durable };
        let everywhere = acked.map_or(durable, |acked| acked.min(durable));
        // Entries of former epochs are committed by the own first one, never by themselves.
        let begun = leading.counts_from.is_some_and(|first| everywhere >= first) || bug(Bug::ServeBeforeTheFirstEntry);
        if begun && everywhere > self.committed {
            self.committed = everywhere;
            if everywhere == self.log.tail().seq {
                let since = leading.uncommitted_since.take();
                since.iter().for_each(|since| self.counts.commit_us.record_duration(self.now.mono.since(*since)));
            }
            if !leading.serves {
                leading.serves = true;
                let took = self.now.mono.since(leading.since).as_millis();
                self.outputs
                    .push_back(Output::info(format!("leads: serving after {took} ms, from entry {everywhere}")));
            }
        }
    }

    /// Gives the answers that are due.
    fn release(&mut self) {
        let gate = self.gate();
        let committed = self.committed;
        let Some(leading) = &mut self.leading else { return };
        leading.released = highest([leading.released, committed.min(gate)]);
        let (released, confirmed) = (leading.released, leading.confirmed);
        let ready = |waiting: &Waiting| waiting.seq <= released && waiting.round <= confirmed;
        if !leading.waiting.iter().any(ready) {
            return;
        }
        let (due, waiting) = std::mem::take(&mut leading.waiting).into_iter().partition(ready);
        leading.waiting = waiting;
        let mut outcomes: BTreeMap<ReplyTo, Vec<Told>> = BTreeMap::new();
        for Waiting { reply, due, .. } in due {
            match due {
                Due::Outcome(told) => outcomes.entry(reply).or_default().push(told),
                Due::Answer { request, answer } => {
                    self.reply(reply, Message::Answer { request, seq: released, answer });
                }
                Due::Listed => self.reply(reply, Message::Listed {}),
                Due::Grant { request, catalog, asked } => self.grant(reply, request, catalog, asked, released),
            }
        }
        for (reply, outcomes) in outcomes {
            for told in in_messages(outcomes) {
                let before = told.iter().filter(|told| told.before).map(|told| told.request).collect();
                let traces = wire::traced(told.iter().map(|told| (told.request, told.trace.clone())));
                let outcomes = told.into_iter().map(|told| (told.request, told.outcome)).collect();
                let outcomes = Message::Outcomes { seq: released, outcomes, before };
                let packet = Packet { traces, ..self.packet(outcomes, Bytes::new()) };
                self.outputs.push_back(Output::Reply { to: reply.clone(), packet });
            }
        }
    }

    /// Owes an answer that only has to wait until that entry is released.
    pub(super) fn owe_released(&mut self, reply: ReplyTo, seq: SeqNum, request: u64, answer: Answer) {
        if let Some(leading) = &mut self.leading {
            leading.owe(reply, seq, 0, Due::Answer { request, answer });
        }
    }

    /// Owes what the state was like behind that entry, and what stands in the log.
    pub(super) fn owe_read(&mut self, reply: ReplyTo, seq: SeqNum, due: Due) {
        let Some(leading) = &mut self.leading else { return };
        leading.owe(reply, seq, leading.round_of_a_read(), due);
    }

    pub(super) fn owe_confirmed(&mut self, reply: ReplyTo, seq: SeqNum, due: Due) {
        let Some(leading) = &mut self.leading else { return };
        if leading.waiting.len() <= WAITING_MAX {
            let round = if bug(Bug::GrantWithoutConfirmation) { 0 } else { leading.coming_round() };
            leading.owe(reply, seq, round, due);
        }
    }

    /// What is to be done after everything that has arrived.
    pub(super) fn lead_on(&mut self) {
        if self.leading.is_none() {
            return;
        }
        self.begin();
        self.start_next_epoch();
        self.count();
        self.release();
        self.give_snapshots();
        self.decide();
        self.send_what_is_due();
        self.read_parts();
        self.tell_watchers();
        self.publish_events();
    }

    fn send_what_is_due(&mut self) {
        let (now, committed) = (self.now.mono, self.committed);
        let Some(leading) = &self.leading else { return };
        if leading.begun.is_none() {
            return;
        }
        let quiet = now.since(leading.last_sent);
        let resend = quiet >= self.options.times.retransmit && committed < self.log.tail().seq;
        let round =
            leading.round_wanted && (leading.confirmed >= leading.round || quiet >= self.options.times.retransmit);
        if round || resend || quiet >= self.options.times.heartbeat + KEEP_ALIVE_LATE {
            self.send_append(Bytes::new(), Vec::new());
            self.count();
            self.release();
        } else if leading.told < committed {
            self.send_commit();
        }
    }

    // ------------------------------------------------------------ time

    pub(super) fn became_durable(&mut self, took: Duration) {
        if let Some(leading) = &mut self.leading {
            leading.slow_sync = took >= SLOW_SYNC;
        }
    }

    pub(super) fn lead_tick(&mut self, paused: bool) {
        if self.leading.is_none() {
            return;
        }
        if paused {
            self.outputs.push_back(Output::warn(
                "was paused, or had no processor time: nobody is judged by that. If it goes on, give this process more",
            ));
            self.followers_get_grace();
        }
        self.probe();
        self.attachment_tick();
        self.change_tick();
        self.judge();
        self.hand_over();
    }

    /// Whether nothing is under way in a whole exchange: every member is in sync and was heard lately, and none of them should
    /// lead instead.
    pub(super) fn leads_calmly(&self, leading: &Leading) -> bool {
        let (now, me) = (self.now.mono, self.options.id);
        let settled =
            leading.serves && leading.change.is_none() && leading.joining.is_none() && leading.draining.is_none();
        let untroubled = leading.trouble.is_none() && !leading.slow_sync && now >= leading.grace_until;
        let answered = leading.depths() == (0, 0, 0) && leading.lookups.len() == 0;
        let committed = self.committed == self.log.tail().seq && leading.facts.is_empty();
        let is_fine = |follower: &Follower| {
            let slow = follower.behind.is_some_and(|(_, since)| now.since(since) >= PROBE_AFTER);
            !follower.gone && !follower.leaving && !slow && now.since(follower.heard) < PROBE_AFTER
        };
        let others = leading.in_force.members.iter().filter(|id| **id != me);
        settled
            && untroubled
            && answered
            && committed
            && self.is_attached_calmly(&leading.attachment)
            && others.clone().all(|id| *id < me)
            && others.clone().all(|id| {
                let member = leading.in_force.in_sync_member(*id);
                member.and_then(|member| leading.word(member)).is_some_and(is_fine)
            })
    }

    /// When the followers are told next that the leader lives. What is due already goes out with this round.
    pub(super) fn keeps_alive_at(&self, leading: &Leading) -> Mono {
        let (now, heartbeat) = (self.now.mono, self.options.times.heartbeat);
        let due = leading.last_sent.after(heartbeat + KEEP_ALIVE_LATE);
        if due > now { due } else { now.after(heartbeat) }
    }

    fn probe(&mut self) {
        let now = self.now.mono;
        let Some(leading) = &self.leading else { return };
        let silent: Vec<_> = leading
            .required(self.options.id)
            .filter(|member| {
                let heard = leading.followers.get(&member.id).map_or(leading.since, |follower| follower.heard);
                now.since(heard) >= PROBE_AFTER
            })
            .collect();
        for member in silent {
            self.send(Peer::Order(member.id), Message::Heartbeat { question: None });
        }
    }

    /// Takes out who is silent or slow; takes in who has caught up (rule R6).
    fn judge(&mut self) {
        let (now, times, me) = (self.now.mono, self.options.times, self.options.id);
        let in_flight = self.committed < self.log.tail().seq;
        let stays = self.leaving.is_none() || in_flight;
        let Some(leading) = &self.leading else { return };
        if leading.begun.is_none() || leading.change.is_some() || !self.connected || now < leading.grace_until {
            return;
        }
        let fell = |member: &Member| {
            let Some(follower) = leading.followers.get(&member.id) else {
                return now.since(leading.since) >= times.shrink;
            };
            let slow = follower.behind.is_some_and(|(_, since)| now.since(since) >= times.shrink);
            let wrong = follower.store != member.store;
            follower.gone || slow || wrong || follower.leaving || now.since(follower.heard) >= times.shrink
        };
        let fallen: Vec<_> = leading.in_force.in_sync.iter().filter(|m| m.id != me && fell(m)).copied().collect();
        if !fallen.is_empty() && stays {
            let names: Vec<_> = fallen.iter().map(|member| format!("order-{}", member.id)).collect();
            let mut next = self.next_configuration(format!("{} silent or too slow", names.join(", ")));
            next.in_sync.retain(|member| !fallen.contains(member));
            let tail = self.log.tail().seq;
            if let Some(leading) = &mut self.leading {
                let followers = fallen.iter().map(|member| member.id);
                followers.for_each(|id| leading.has_to_keep_up_again(id, tail, now));
            }
            if let Some(leading) = self.leading.as_mut().filter(|_| bug(Bug::CommitBeforeShrink)) {
                leading.in_force.in_sync.clone_from(&next.in_sync);
            }
            return self.start_change(Kind::Shrink, next);
        }
        if !leading.serves || self.leaving.is_some() || leading.draining.is_some() {
            return;
        }
        if leading.joining.is_some() {
            return self.join();
        }
        let caught_up = leading.followers.iter().find(|(id, follower)| {
            let wait = self.patience(**id, times.readd, times.readd_max);
            leading.in_force.in_sync_member(**id).is_none()
                && leading.in_force.members.contains(id)
                && !follower.leaving
                && !follower.gone
                && now.since(follower.heard) < times.heartbeat * 3
                // From then on it is asked about every entry; the record names it when it has the earlier ones too.
                && follower.epoch >= leading.first_epoch
                && follower.keeps_up_since.is_some_and(|since| now.since(since) >= wait)
        });
        let caught_up = caught_up.map(|(&id, follower)| Member { id, store: follower.store });
        if let (Some(member), Some(leading)) = (caught_up, &mut self.leading) {
            // It counts before the record says so: the write may land unseen (R6).
            leading.joining = Some(member);
            leading.joining_since = now;
            // Nobody was asked so far, or others: what was confirmed without it ends here.
            leading.confirmed = leading.confirmed.min(leading.round);
        }
    }

    /// The learner counts already, so nothing is committed without it. The record may name it as soon as it has what was
    /// committed before.
    fn join(&mut self) {
        let (now, times, committed) = (self.now.mono, self.options.times, self.committed);
        let Some(leading) = &mut self.leading else { return };
        let Some(member) = leading.joining else { return };
        let follower = leading.word(member);
        let lives = |follower: &&Follower| {
            !follower.gone && !follower.leaving && now.since(follower.heard) < times.heartbeat * 3
        };
        let Some(follower) = follower.filter(lives) else {
            leading.joining = None; // Nothing is written yet.
            return;
        };
        if follower.acked >= committed || bug(Bug::JoinWithGaps) {
            let mut next = self.next_configuration(format!("order-{} has caught up", member.id));
            next.in_sync.push(member);
            next.in_sync.sort_by_key(|member| member.id);
            if let Some(leading) = self.leading.as_mut().filter(|_| bug(Bug::JoinAfterTheRecord)) {
                leading.joining = None;
            }
            self.start_change(Kind::Add, next);
        } else if now.since(leading.joining_since) > JOINS_WITHIN {
            leading.joining = None;
            if let Some(follower) = leading.followers.get_mut(&member.id) {
                follower.keeps_up_since = None;
            }
        }
    }

    /// The broker is back: nobody is judged for a while, and a change that was only thought of meanwhile is dropped.
    pub(super) fn leader_reconnected(&mut self) {
        self.followers_get_grace();
        let until = self.now.mono.after(self.options.times.reconnect_grace);
        let Some(leading) = &mut self.leading else { return };
        leading.grace_until = until;
        if leading.change.as_ref().is_some_and(Change::may_be_dropped) {
            leading.change = None;
            leading.joining = None;
            leading.draining = None;
        }
    }

    /// Who should lead instead, if anybody.
    fn heir(&self) -> Option<(ReplicaId, &'static str)> {
        let (now, times, me) = (self.now.mono, self.options.times, self.options.id);
        let leading = self.leading.as_ref()?;
        let in_sync = leading.in_force.in_sync.iter().rev().map(|member| member.id);
        let fit = |id: &ReplicaId| {
            let follower = leading.followers.get(id);
            let lively = follower.is_some_and(|follower| now.since(follower.heard) < times.heartbeat * 3);
            *id != me && leading.is_fit(*id) && lively
        };
        let stuck = leading.uncommitted_since.is_some_and(|since| now.since(since) >= times.stuck);
        let own_disk = stuck && self.durable() < self.log.tail().seq || leading.slow_sync || self.disk.is_full();
        if own_disk {
            return in_sync.clone().find(fit).map(|id| (id, "the leader's disk is too slow or full"));
        }
        if let Some(since) = self.leaving {
            if now.since(since) < LEAVE_TOGETHER {
                return None;
            }
            return in_sync.clone().find(fit).map(|id| (id, "the leader leaves"));
        }
        let steady = |id: &ReplicaId| {
            let wait = self.patience(*id, times.handover, times.handover_max);
            let since = leading.followers.get(id).and_then(|follower| follower.keeps_up_since);
            since.is_some_and(|since| now.since(since) >= wait) && now.since(leading.since) >= times.handover
        };
        in_sync.clone().find(|id| *id > me && fit(id) && steady(id)).map(|id| (id, "the highest in-sync id leads"))
    }

    /// Hands over to who should lead: first what is under way is finished, then the record is written.
    fn hand_over(&mut self) {
        let now = self.now.mono;
        let Some(leading) = &self.leading else { return };
        if leading.change.is_some() || leading.joining.is_some() || !leading.serves || !self.connected {
            return;
        }
        let heir = self.heir();
        let own_disk = heir.is_some_and(|(_, why)| why.contains("disk"));
        // Whoever still waits is told where to go, and asks again there with the same key.
        let drained = self.committed == self.log.tail().seq;
        let Some(leading) = &mut self.leading else { return };
        let Some((id, why)) = heir else {
            leading.draining = None;
            return;
        };
        let since = leading.draining.get_or_insert(Draining { since: now }).since;
        if !drained && !own_disk {
            if now.since(since) >= DRAIN_MAX {
                leading.draining = None;
                leading.since = now;
            }
            return;
        }
        let Some(boot) = leading.followers.get(&id).map(|follower| follower.boot) else {
            return;
        };
        let waiting = leading.queue.len() + leading.waiting.len() + leading.lookups.len();
        if waiting > 0 {
            self.outputs.push_back(Output::info(format!("hands over to order-{id} while {waiting} requests wait")));
        }
        let me = self.options.id;
        let mut next = self.next_configuration(why.to_owned());
        next.leader = tradenet_schemas::ids::Leader { id, boot };
        if own_disk || self.leaving.is_some() {
            // Else the heir would wait for somebody who is not there.
            next.in_sync.retain(|member| member.id != me);
        }
        self.start_change(Kind::HandOver, next);
    }
}

/// Splits outcomes so that each message stays below its bound, whatever accounts own and orders have met.
fn in_messages(outcomes: Vec<Told>) -> Vec<Vec<Told>> {
    let mut messages: Vec<Vec<_>> = vec![Vec::new()];
    let mut bytes = 0;
    for told in outcomes {
        let more = bytes_max(&told.outcome);
        if bytes + more > OUTCOMES_BYTES_MAX && bytes > 0 {
            messages.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(message) = messages.last_mut() {
            message.push(told);
        }
    }
    messages
}

/// The most bytes that an outcome takes in a message.
fn bytes_max(outcome: &Outcome) -> usize {
    const PLAIN: usize = 512;
    const PIECE: usize = 160;
    let Outcome::Done { receipt, .. } = outcome else { return PLAIN };
    let pieces = match &**receipt {
        Receipt::Opened => 0,
        Receipt::Balance(balance) => balance.holdings.len(),
        Receipt::Order(order) => order.fills.len(),
    };
    PLAIN + PIECE * pieces
}

impl Leading {
    /// The first epoch of this leadership: what was said in an earlier one was said to somebody else.
    pub(super) fn in_force_since(&self) -> Epoch {
        self.first_epoch
    }
}
