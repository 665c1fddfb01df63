//! The catalog: a read model of the log that answers look-ups and keeps caches honest.
//!
//! Problem: look-ups are far more frequent than trades, so they are answered away from the leader and from caches; yet
//! after a trade has been answered, no reader anywhere may see the stock as it was before.
//!
//! Idea: the catalog hears the leader's batches beside the followers. A batch is *staged* here at once: every live session
//! that may hold a stock it changes is told to drop it, while the disks still write. When all have confirmed (or their
//! leases have run out) the leader is told, and releases the entry when it is committed too. From then on a look-up of
//! such a stock waits for the news of the commit, so it shows either the old state before anyone was answered, or the
//! new state.
//!
//! Rules kept: C1, a change is shown only after it was dropped everywhere; C3, leases count from the request and never
//! outlive the catalog's own authority; C4, only the attached catalog answers, under authority from the leader.

mod observe;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tradenet_schemas::ids::{Boot, Epoch, Leader, Node, Position, ReplicaId, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::message::{Configuration, Envelope, Message};
use tradenet_schemas::subjects::Peer;
use tradenet_schemas::trade::{Quantity, Side, Stock, Symbol};

use crate::bugs::{Bug, bug};
use crate::exchange::Exchange;
use crate::metrics::{Aside, Readings};
use crate::ticks::Ticks;
use crate::times::Times;
use crate::{Decider, Input, Mono, Now, Output, Packet, ReplyTo, Stop, highest, journal};

pub use observe::METRICS;

/// Sessions of frontends at once.
const SESSIONS_MAX: usize = 1_024;
/// Look-ups that may wait for the news of a commit.
const HELD_MAX: usize = 4_096;
/// Entries that may be staged and not yet committed; beyond, a snapshot is cheaper.
const STEPS_MAX: usize = 16_384;
/// Batches that are kept while a snapshot is under way.
const EARLY_MAX: usize = 32;
/// Requests for authority whose answer may still come.
const ASKED_MAX: usize = 64;
/// A session that has not confirmed for so long gets no longer lease: it is waited out.
const CONFIRMS_WITHIN: Duration = Duration::from_millis(200);
/// How often a list of stocks is sent again.
const LIST_AGAIN: Duration = Duration::from_millis(500);

/// What a catalog is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// This run of it.
    pub boot: Boot,
    /// All replicas of the exchange.
    pub members: Vec<ReplicaId>,
    /// The protocol's periods.
    pub times: Times,
    /// The stocks to list.
    pub stocks: Vec<Stock>,
}

/// What was staged: an entry, or the jump to a snapshot.
#[derive(Clone, Debug)]
enum Step {
    Entry(Entry),
    Jump(Vec<Stock>),
}

/// The read model.
#[derive(Clone, Debug)]
struct Model {
    leader: Leader,
    /// The newest epoch in which it was followed: what was sent in an earlier one is late.
    epoch: Epoch,
    /// It has everything that the leader has sent; else a snapshot is asked for.
    linked: bool,
    /// What look-ups show.
    stocks: BTreeMap<Symbol, Stock>,
    visible: Position,
    /// What is not visible yet, in order.
    steps: VecDeque<(Position, Step)>,
    committed: SeqNum,
    /// What the leader was told to be staged.
    told: SeqNum,
}

impl Model {
    fn last(&self) -> Position {
        self.steps.back().map_or(self.visible, |(position, _)| *position)
    }
    /// The newest step that reaches into what was told and changes the stock (any, for none). A jump covers everything
    /// from the step before it, so it counts also where only its beginning was told.
    fn told_change(&self, symbol: Option<&Symbol>) -> Option<SeqNum> {
        let mut before = self.visible.seq;
        let mut found = None;
        for (position, step) in &self.steps {
            if before >= self.told {
                break;
            }
            if changes(step, symbol) {
                found = Some(position.seq);
            }
            before = position.seq;
        }
        found
    }
    fn is_staged(&self, symbol: &Symbol) -> bool {
        self.steps.iter().any(|(_, step)| changes(step, Some(symbol)))
    }
}

fn changes(step: &Step, symbol: Option<&Symbol>) -> bool {
    match (step, symbol) {
        (Step::Jump(_), _) => true,
        (Step::Entry(entry), None) => Exchange::touched(entry).next().is_some(),
        (Step::Entry(entry), Some(symbol)) => Exchange::touched(entry).any(|touched| touched == symbol),
    }
}

/// An invalidation that was not confirmed yet.
#[derive(Clone, Debug)]
struct Outstanding {
    number: u64,
    /// The step it is for.
    seq: SeqNum,
    symbols: Vec<Symbol>,
    since: Mono,
    sent: Mono,
}

/// One cache of one frontend.
#[derive(Clone, Debug)]
struct Session {
    lease_until: Mono,
    invalidation: u64,
    outstanding: VecDeque<Outstanding>,
    may_hold: BTreeSet<Symbol>,
}

/// A look-up that waits.
#[derive(Clone, Debug)]
struct Held {
    frontend: Boot,
    reply: ReplyTo,
    request: u64,
    session: u64,
    symbol: Option<Symbol>,
    /// Until this is visible, or no longer staged.
    until: SeqNum,
    since: Mono,
}

/// A catalog. See the module.
#[derive(Clone, Debug)]
pub struct Catalog {
    options: Options,
    now: Now,
    configuration: Option<Configuration>,
    /// The newest epoch whose leader has sent anything.
    led_in: Epoch,
    model: Option<Model>,
    authority_until: Mono,
    /// Nothing older may be shown.
    floor: SeqNum,
    asked: BTreeMap<u64, Mono>,
    requests: u64,
    last_asked: Option<Mono>,
    listed_with: Option<Leader>,
    last_listed: Option<Mono>,
    sessions: BTreeMap<(Boot, u64), Session>,
    next_session: u64,
    held: Vec<Held>,
    /// Batches that overtook the snapshot they belong behind.
    early: VecDeque<Packet>,
    counts: Aside<observe::Counts>,
    leaving: Option<Mono>,
    stopped: bool,
    dirty: bool,
    ticks: Ticks,
    outputs: VecDeque<Output>,
}

impl Catalog {
    /// A catalog that knows nothing yet but its list of stocks.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            now: Now::default(),
            configuration: None,
            led_in: Epoch(0),
            model: None,
            authority_until: Mono(0),
            floor: SeqNum(0),
            asked: BTreeMap::new(),
            requests: 0,
            last_asked: None,
            listed_with: None,
            last_listed: None,
            sessions: BTreeMap::new(),
            next_session: 1,
            held: Vec::new(),
            early: VecDeque::new(),
            counts: Aside::default(),
            leaving: None,
            stopped: false,
            dirty: false,
            ticks: Ticks::default(),
            outputs: VecDeque::new(),
        }
    }

    /// What look-ups show, if anything: the newest visible entry and the stocks.
    pub fn visible(&self) -> Option<(SeqNum, &BTreeMap<Symbol, Stock>)> {
        self.model.as_ref().map(|model| (model.visible.seq, &model.stocks))
    }

    /// Whether it may answer at this moment.
    pub fn has_authority(&self, now: Mono) -> bool {
        now < self.authority_until
    }

    fn packet(&self, body: Message) -> Packet {
        let envelope = Envelope {
            cluster: self.configuration.as_ref().map(|held| held.cluster),
            epoch: self.model.as_ref().filter(|model| model.linked).map_or(Epoch(0), |model| model.epoch),
            from: Node::Catalog(self.options.boot),
            body,
        };
        Packet::new(envelope, Bytes::new())
    }

    fn send(&mut self, to: Peer, body: Message) {
        let packet = self.packet(body);
        self.outputs.push_back(Output::Send { to, packet });
    }

    fn reply(&mut self, to: ReplyTo, body: Message) {
        let packet = self.packet(body);
        self.outputs.push_back(Output::Reply { to, packet });
    }

    fn adopt(&mut self, configuration: &Configuration) {
        self.take_on(configuration, false);
    }

    /// Takes on a newer configuration. A register that went back may have lost records of which only this catalog heard, and
    /// hand out their numbers again; then nobody served in them, so a leader that sends entries is right, unless a newer
    /// one has sent some.
    fn take_on(&mut self, configuration: &Configuration, serves: bool) {
        let serves = serves && configuration.epoch >= self.led_in;
        let newer = self.configuration.as_ref().is_none_or(|held| {
            let other = held.nonce != configuration.nonce;
            held.cluster == configuration.cluster && (held.epoch < configuration.epoch || serves && other)
        });
        if newer {
            let leader = configuration.leader;
            if self.configuration.as_ref().map(|held| held.leader) != Some(leader) {
                self.outputs
                    .push_back(Output::info(format!("epoch {}: order-{} leads", configuration.epoch, leader.id)));
                self.last_asked = None;
            }
            self.configuration = Some(configuration.clone());
        }
    }

    /// The first record was lost before this catalog followed anybody, and the exchange has begun anew: nothing was shown
    /// that rests on it. Should that message have been late, and the record it knew not lost, the next one brings it back.
    fn forget_the_lost_exchange(&mut self) {
        self.configuration = None;
        self.led_in = Epoch(0);
        self.early.clear();
        self.listed_with = None;
        self.last_asked = None;
    }

    // ------------------------------------------------------------ the log

    fn append_arrived(&mut self, sender: Leader, packet: &Packet) {
        let (leader, configuration, prev, committed) = match packet.body() {
            Message::Append { leader, configuration, prev, committed, .. } => (leader, configuration, prev, committed),
            Message::Commit { leader, at, committed } => (leader, &None, at, committed),
            _ => return,
        };
        if let Some(configuration) = configuration {
            self.take_on(configuration, configuration.leader == sender);
        }
        let leads = self.configuration.as_ref().is_some_and(|held| held.leader == sender);
        if *leader != sender || !leads {
            return;
        }
        self.led_in = self.led_in.max(packet.envelope.epoch);
        let now = self.now.mono;
        let Some(model) = &mut self.model else { return self.keep_early(packet) };
        if packet.envelope.epoch < model.epoch {
            return; // Of an earlier leadership: it may be of another log.
        }
        let known = model.visible == *prev || model.steps.iter().any(|(position, _)| position == prev);
        if !known {
            // Behind, or another leader's log: a snapshot is asked for, unless it is only an old message.
            if model.leader != sender || packet.envelope.epoch > model.epoch || prev.seq > model.last().seq {
                model.linked = false;
                self.keep_early(packet);
            }
            return;
        }
        if model.leader != sender {
            // What the former leader sent and this one does not have never happened.
            while model.last().seq > prev.seq {
                model.steps.pop_back();
            }
            model.told = model.told.min(prev.seq);
            model.leader = sender;
            let last = model.last().seq;
            wait_at_most_for(&mut self.held, last.max(self.floor));
        }
        (model.epoch, model.linked) = (packet.envelope.epoch, true);
        let (mut end, mut fresh) = (prev.seq, Vec::new());
        for scanned in journal::scan(&packet.lines, *prev) {
            let good = match scanned {
                Ok(good) => good,
                Err(error) if error.is_newer() => {
                    let why = format!("entry {} can't be followed: {error}", end.next());
                    self.outputs.push_back(Output::Stop(Stop::Broken(why)));
                    return;
                }
                Err(_) => break,
            };
            end = good.position.seq;
            let held = |(position, _): &(Position, Step)| *position == good.position;
            let same =
                good.position.seq < model.visible.seq || model.visible == good.position || model.steps.iter().any(held);
            if good.position.seq <= model.last().seq && !same {
                model.linked = false;
                return;
            }
            if good.position.seq > model.last().seq && model.steps.len() < STEPS_MAX {
                fresh.push(Exchange::touched(&good.entry).cloned().collect::<Vec<_>>());
                model.steps.push_back((good.position, Step::Entry(good.entry)));
            }
        }
        let first = SeqNum(model.last().seq.0 - fresh.len() as u64).next();
        model.committed = model.committed.max((*committed).min(end));
        for (symbols, seq) in fresh.into_iter().zip(first.0..) {
            if !symbols.is_empty() {
                invalidate(&mut self.sessions, now, SeqNum(seq), Some(&symbols));
            }
        }
        self.send_invalidations();
    }

    fn keep_early(&mut self, packet: &Packet) {
        self.early.push_back(packet.clone());
        if self.early.len() > EARLY_MAX {
            self.early.pop_front();
        }
    }

    fn snapshot_arrived(&mut self, sender: Leader, epoch: Epoch, leader: Leader, at: Position, stocks: Vec<Stock>) {
        let leads = self.configuration.as_ref().is_some_and(|held| held.leader == sender);
        // One that was given before the newest entry of the same leadership would hide what the leader was told of.
        let stale = self.model.as_ref().is_some_and(|model| {
            let late = epoch < model.epoch || epoch == model.epoch && at.seq < model.told;
            model.linked || late || at.seq < model.visible.seq
        });
        if leader != sender || !leads || stale {
            return;
        }
        let (visible, shown, told) = match self.model.take() {
            Some(model) => (model.visible, model.stocks, model.told),
            None => (Position::default(), BTreeMap::new(), SeqNum(0)),
        };
        let steps = VecDeque::from([(at, Step::Jump(stocks))]);
        let told = told.min(at.seq);
        let committed = at.seq;
        self.counts.snapshots += 1;
        self.model = Some(Model { leader, epoch, linked: true, stocks: shown, visible, steps, committed, told });
        wait_at_most_for(&mut self.held, at.seq.max(self.floor));
        // What changed in between is not known here, so everything may have, with any entry behind what is visible.
        let first = if bug(Bug::JumpInOneStep) { at.seq } else { visible.seq.next().min(at.seq) };
        invalidate(&mut self.sessions, self.now.mono, first, None);
        self.send_invalidations();
        for packet in std::mem::take(&mut self.early) {
            self.append_arrived(sender, &packet);
        }
    }

    /// The last step that no session stands against.
    fn staged(&self) -> SeqNum {
        let Some(model) = &self.model else { return SeqNum(0) };
        let first = self.sessions.values().flat_map(|session| &session.outstanding).map(|waiting| waiting.seq).min();
        first.map_or(model.last().seq, |first| SeqNum(first.0 - 1).min(model.last().seq))
    }

    /// Shows what is both committed and staged, tells the leader, and answers who waited.
    fn advance(&mut self) {
        let staged = self.staged();
        let Some(model) = &mut self.model else { return };
        let upto = if bug(Bug::ShowBeforeDropped) { model.committed } else { staged.min(model.committed) };
        while model.steps.front().is_some_and(|(position, _)| position.seq <= upto) {
            if let Some((position, step)) = model.steps.pop_front() {
                show(&mut model.stocks, step);
                model.visible = position;
            }
        }
        let attached = self.now.mono < self.authority_until.after(self.options.times.authority);
        if staged > model.told && model.linked && attached {
            model.told = staged;
            let leader = model.leader.id;
            self.send(Peer::Order(leader), Message::Staged { seq: staged });
        }
        self.answer_held();
    }

    // ------------------------------------------------------------ look-ups

    fn looked_up(&mut self, frontend: Boot, request: u64, session: u64, symbol: Option<Symbol>, reply: ReplyTo) {
        let since = self.now.mono;
        let until = self.model.as_ref().and_then(|model| model.told_change(symbol.as_ref())).unwrap_or_default();
        let until = if bug(Bug::LookUpWithoutWaiting) { SeqNum(0) } else { highest([until, self.floor]) };
        self.answer(Held { frontend, reply, request, session, symbol, until, since });
    }

    fn answer(&mut self, held: Held) {
        let now = self.now.mono;
        let waited_long = now.since(held.since) > self.options.times.deadline;
        let authority = self.has_authority(now) && !waited_long;
        let Some(model) = self.model.as_ref().filter(|_| authority) else {
            let requests = vec![held.request];
            self.counts.not_leader += 1;
            // Who leads, only replicas and the register say: what was heard here may have been lost since.
            return self.reply(held.reply, Message::NotLeader { requests, configuration: None, catalog: None });
        };
        if model.visible.seq < held.until {
            if self.held.len() < HELD_MAX {
                self.counts.waited += 1;
                self.held.push(held);
            }
            return;
        }
        let version = model.visible.seq;
        let stocks: Vec<_> = match &held.symbol {
            Some(symbol) => model.stocks.get(symbol).cloned().into_iter().collect(),
            None => model.stocks.values().cloned().collect(),
        };
        let settled = held.symbol.as_ref().is_some_and(|symbol| !model.is_staged(symbol)) && self.leaving.is_none();
        let session = self.sessions.get_mut(&(held.frontend, held.session));
        let (mut cacheable, mut invalidation) = (false, 0);
        if let (Some(session), Some(symbol)) = (session, held.symbol.filter(|_| settled && !stocks.is_empty())) {
            invalidation = session.invalidation;
            cacheable = true;
            session.may_hold.insert(symbol);
        }
        let (request, session) = (held.request, held.session);
        self.counts.found += 1;
        self.reply(held.reply, Message::Found { request, session, invalidation, cacheable, version, stocks });
    }

    fn answer_held(&mut self) {
        let visible = self.model.as_ref().map_or(SeqNum(0), |model| model.visible.seq);
        let (now, deadline) = (self.now.mono, self.options.times.deadline);
        let authority = self.has_authority(now);
        let due = |held: &Held| held.until <= visible || !authority || now.since(held.since) > deadline;
        if self.held.iter().any(due) {
            let (due, waits): (Vec<_>, _) = std::mem::take(&mut self.held).into_iter().partition(due);
            self.held = waits;
            due.into_iter().for_each(|held| self.answer(held));
        }
    }

    // ------------------------------------------------------------ sessions

    fn renewed(&mut self, frontend: Boot, request: u64, number: u64, confirmed: u64, reply: ReplyTo) {
        self.confirmed(frontend, number, confirmed);
        let now = self.now.mono;
        let authority = Duration::from_micros(self.authority_until.0.saturating_sub(now.0));
        let authority =
            if bug(Bug::LeaseOutlivesAuthority) && !authority.is_zero() { Duration::MAX } else { authority };
        let mut valid = self.options.times.lease.min(authority);
        let mut key = (frontend, number);
        let room = self.sessions.len() < SESSIONS_MAX;
        // One that has run out may have been waited out: it is not taken up again.
        self.sessions.retain(|known, session| *known != key || now <= session.lease_until);
        if !self.sessions.contains_key(&key) && room && !valid.is_zero() && self.leaving.is_none() {
            // A lost answer leaves a session behind that nobody uses; it runs out by itself.
            key = (frontend, self.next_session);
            self.next_session += 1;
            let (outstanding, may_hold) = (VecDeque::new(), BTreeSet::new());
            self.sessions.insert(key, Session { lease_until: now, invalidation: 0, outstanding, may_hold });
        }
        let committed = self.model.as_ref().map_or(SeqNum(0), |model| model.committed);
        let Some(session) = self.sessions.get_mut(&key) else {
            let lease = Message::Lease { request, session: 0, valid_ms: 0, invalidation: 0, committed };
            return self.reply(reply, lease);
        };
        let slow = session.outstanding.front().is_some_and(|first| now.since(first.since) > CONFIRMS_WITHIN);
        if slow || self.leaving.is_some() {
            valid = Duration::ZERO;
        }
        // Whole milliseconds down for the frontend, a tenth up for its clock here.
        let valid_ms = u64::try_from(valid.as_millis()).unwrap_or(0);
        if valid_ms > 0 {
            session.lease_until = session.lease_until.max(now.after(valid + valid / 10));
            self.counts.leases += 1;
        }
        let invalidation = session.invalidation;
        self.reply(reply, Message::Lease { request, session: key.1, valid_ms, invalidation, committed });
    }

    fn confirmed(&mut self, frontend: Boot, session: u64, number: u64) {
        if let Some(session) = self.sessions.get_mut(&(frontend, session)) {
            while session.outstanding.front().is_some_and(|first| first.number <= number) {
                session.outstanding.pop_front();
            }
        }
    }

    /// Sends what was not sent yet, or not confirmed in time.
    fn send_invalidations(&mut self) {
        let (now, again) = (self.now.mono, self.options.times.retransmit);
        let mut messages = Vec::new();
        for ((frontend, number), session) in &mut self.sessions {
            for waiting in &mut session.outstanding {
                if waiting.sent == Mono(0) || now.since(waiting.sent) >= again {
                    waiting.sent = now.max(Mono(1));
                    let symbols = waiting.symbols.clone();
                    let message = Message::Invalidate { session: *number, number: waiting.number, symbols };
                    messages.push((*frontend, message));
                }
            }
        }
        self.counts.invalidations += messages.len() as u64;
        for (frontend, message) in messages {
            self.send(Peer::Frontend(frontend), message);
        }
    }

    // ------------------------------------------------------------ authority

    fn granted(&mut self, sender: Leader, request: u64, valid: Duration, released: SeqNum) {
        let leads = self.configuration.as_ref().is_none_or(|held| held.leader == sender);
        let linked = self.model.as_ref().is_some_and(|model| model.leader == sender && model.linked);
        let Some(asked) = self.asked.get(&request).filter(|_| leads && linked) else {
            return;
        };
        let until = if bug(Bug::AuthorityFromArrival) { self.now.mono } else { *asked }.after(valid);
        if !self.has_authority(self.now.mono) && until > self.now.mono {
            self.outputs.push_back(Output::info(format!("answers look-ups for order-{}", sender.id)));
        }
        self.authority_until = self.authority_until.max(until);
        self.floor = self.floor.max(released);
    }

    /// With each beat, but where almost all of the authority is left, with every other one.
    fn asks_every(&self) -> Duration {
        let Times { heartbeat, authority, .. } = self.options.times;
        let fresh = self.has_authority(self.now.mono.after(authority.saturating_sub(heartbeat * 2)));
        if fresh { heartbeat * 2 } else { heartbeat }
    }

    fn ask_for_authority(&mut self) {
        let now = self.now.mono;
        let due = self.last_asked.is_none_or(|at| now.since(at) >= self.asks_every());
        let Some(leader) = self.configuration.as_ref().map(|held| held.leader).filter(|_| due) else {
            return;
        };
        self.last_asked = Some(now);
        self.requests += 1;
        self.asked.insert(self.requests, now);
        while self.asked.len() > ASKED_MAX {
            self.asked.pop_first();
        }
        let following = self.model.as_ref().is_some_and(|model| model.leader == leader && model.linked);
        let staged = if following { self.staged() } else { SeqNum(0) };
        if let Some(model) = self.model.as_mut().filter(|_| following) {
            model.told = model.told.max(staged);
        }
        let request = self.requests;
        self.send(Peer::Order(leader.id), Message::Authority { request, following, staged });
        let list_due = self.last_listed.is_none_or(|at| now.since(at) >= LIST_AGAIN);
        if self.listed_with != Some(leader) && list_due && !self.options.stocks.is_empty() {
            self.last_listed = Some(now);
            let stocks = self.options.stocks.clone();
            self.send(Peer::Order(leader.id), Message::List { stocks });
        }
    }

    // ------------------------------------------------------------ all the rest

    fn received(&mut self, packet: &Packet, reply: Option<ReplyTo>) {
        let known = self.configuration.as_ref().map(|held| held.cluster);
        if known.is_some() && packet.envelope.cluster.is_some() && known != packet.envelope.cluster {
            if self.model.is_some() || !matches!(packet.envelope.from, Node::Order(..)) {
                return;
            }
            self.forget_the_lost_exchange();
        }
        let (epoch, from) = (packet.envelope.epoch, packet.envelope.from);
        match (&packet.envelope.body, from, reply) {
            (Message::Append { .. } | Message::Commit { .. }, Node::Order(id, boot), _) => {
                self.append_arrived(Leader { id, boot }, packet);
            }
            (Message::Snapshot { leader, at, stocks }, Node::Order(id, boot), _) => {
                self.snapshot_arrived(Leader { id, boot }, epoch, *leader, *at, stocks.clone());
            }
            (
                Message::Announce(configuration) | Message::NotLeader { configuration: Some(configuration), .. },
                Node::Order(..),
                _,
            ) => self.adopt(configuration),
            (Message::Grant { request, valid_ms, released }, Node::Order(id, boot), _) => {
                self.granted(Leader { id, boot }, *request, Duration::from_millis(*valid_ms), *released);
            }
            (Message::Listed {}, Node::Order(id, boot), _) => self.listed_with = Some(Leader { id, boot }),
            (Message::Renew { request, session, confirmed }, Node::Frontend(boot), Some(reply)) => {
                self.renewed(boot, *request, *session, *confirmed, reply);
            }
            (Message::Confirm { session, number }, Node::Frontend(boot), _) => self.confirmed(boot, *session, *number),
            (Message::Lookup { request, session, symbol }, Node::Frontend(boot), Some(reply)) => {
                self.looked_up(boot, *request, *session, symbol.clone(), reply);
            }
            (body, ..) => self.outputs.push_back(Output::debug(format!("nothing to do with {body:?} from {from:?}"))),
        }
    }

    fn leave(&mut self) {
        if self.leaving.is_none() {
            self.outputs.push_back(Output::debug("leaving: no new leases, waiting for those that are alive"));
            self.leaving = Some(self.now.mono);
            let last = self.model.as_ref().map_or(SeqNum(1), |model| model.last().seq.max(SeqNum(1)));
            invalidate(&mut self.sessions, self.now.mono, last, None);
            self.send_invalidations();
        }
    }

    /// It may go when no cache rests on it any more.
    fn leave_tick(&mut self) {
        let Some(since) = self.leaving else { return };
        let dropped = self.sessions.values().all(|session| session.outstanding.is_empty());
        if dropped || self.now.mono.since(since) >= self.options.times.leave {
            self.authority_until = Mono(0);
            self.answer_held();
            if let Some(leader) = self.configuration.as_ref().map(|held| held.leader).filter(|_| dropped) {
                self.send(Peer::Order(leader.id), Message::Relinquish {});
            }
            self.stopped = true;
            self.outputs.push_back(Output::Stop(Stop::Left));
        }
    }

    fn tick(&mut self) {
        let now = self.now.mono;
        if !self.ticks.are_due(now) {
            self.ticks = self.ticks.hastened(now, || self.rests_until());
            return;
        }
        let before = self.sessions.len();
        self.sessions.retain(|_, session| now <= session.lease_until || session.outstanding.is_empty());
        if self.sessions.len() < before {
            self.counts.leases_waited_out += (before - self.sessions.len()) as u64;
            self.outputs.push_back(Output::debug("a lease was waited out: its cache did not confirm in time"));
        }
        self.sessions.retain(|_, session| now <= session.lease_until);
        self.send_invalidations();
        self.ask_for_authority();
        self.leave_tick();
        self.ticks = self.rests_until().map_or(Ticks::soon(now), Ticks::resting);
    }

    /// When the next authority is asked for, or the first lease ends, if there is nothing else to do until then.
    fn rests_until(&self) -> Option<Mono> {
        let confirmed = self.sessions.values().all(|session| session.outstanding.is_empty());
        let attached = self.has_authority(self.now.mono.after(self.options.times.heartbeat * 2));
        let idle = self.held.is_empty() && self.leaving.is_none();
        let asks = self.last_asked.filter(|_| confirmed && attached && idle)?.after(self.asks_every());
        let leases = self.sessions.values().map(|session| session.lease_until);
        Some(leases.fold(asks, Mono::min))
    }
}

/// What lies behind `last` never happened: nobody waits for it.
fn wait_at_most_for(held: &mut [Held], last: SeqNum) {
    held.iter_mut().for_each(|held| held.until = held.until.min(last));
}

/// Every session that may hold one of `symbols` (any at all, for none) has to drop it before `seq` is staged.
fn invalidate(sessions: &mut BTreeMap<(Boot, u64), Session>, now: Mono, seq: SeqNum, symbols: Option<&[Symbol]>) {
    for session in sessions.values_mut() {
        let dropped: Vec<_> = match symbols {
            Some(symbols) => symbols.iter().filter(|symbol| session.may_hold.remove(*symbol)).cloned().collect(),
            None => std::mem::take(&mut session.may_hold).into_iter().collect(),
        };
        if symbols.is_none() {
            session.push_invalidation(now, seq, Vec::new());
        } else if !dropped.is_empty() {
            session.push_invalidation(now, seq, dropped);
        }
    }
}

impl Session {
    fn push_invalidation(&mut self, now: Mono, seq: SeqNum, symbols: Vec<Symbol>) {
        self.invalidation += 1;
        let (number, sent) = (self.invalidation, Mono(0));
        self.outstanding.push_back(Outstanding { number, seq, symbols, since: now, sent });
    }
}

/// Shows a step.
fn show(stocks: &mut BTreeMap<Symbol, Stock>, step: Step) {
    let entry = match step {
        Step::Jump(all) => {
            *stocks = all.into_iter().map(|stock| (stock.symbol.clone(), stock)).collect();
            return;
        }
        Step::Entry(entry) => entry,
    };
    for event in entry.events {
        match event {
            Event::Listed { symbol, price, quantity } => {
                let stock = Stock { symbol: symbol.clone(), price, quantity, volume: Quantity::ZERO };
                stocks.insert(symbol, stock);
            }
            Event::Traded { symbol, side, quantity, .. } => {
                let stock = stocks.get_mut(&symbol).expect("only a listed stock is traded");
                let left = match side {
                    Side::Buy => stock.quantity.checked_sub(quantity),
                    Side::Sell => stock.quantity.checked_add(quantity),
                };
                stock.quantity = left.expect("the leader checked the quantity");
                stock.volume = stock.volume.checked_add(quantity).expect("the leader checked the volume");
            }
            Event::Matched { symbol, quantity, .. } => {
                let stock = stocks.get_mut(&symbol).expect("only a listed stock is traded");
                stock.volume = stock.volume.checked_add(quantity).expect("the leader checked the volume");
            }
            // No stock shows it.
            _ => {}
        }
    }
}

impl Decider for Catalog {
    fn handle(&mut self, now: Now, input: Input) {
        if self.stopped {
            return;
        }
        self.now = now;
        self.dirty = true;
        match input {
            Input::Received { packet, reply } => self.received(&packet, reply),
            Input::Leave => self.leave(),
            Input::Connected
            | Input::Disconnected
            | Input::NobodyThere(_)
            | Input::Register(_)
            | Input::Disk(_)
            | Input::Trace(..)
            | Input::Client(..)
            | Input::ClientGone(_)
            | Input::Timer => {}
        }
        self.tick();
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.dirty && !self.stopped {
            self.dirty = false;
            self.advance();
        }
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        (!self.stopped).then_some(self.ticks.by())
    }

    fn observe(&self, now: Now, readings: &mut Readings) {
        self.show(now, readings);
    }
}
