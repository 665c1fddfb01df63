//! Requests of clients: look up, submit, and retry until the outcome is known.
//!
//! Problem: a client wants one answer to one request, while leaders change, catalogs fall silent and messages get lost.
//! Idea: every command has a key, the client's or one made here, so it can be sent again and again, to whoever leads by
//! then, and still happens once. Look-ups go to the catalog; while none has authority the leader answers them itself.
//! Rules kept: an outcome that is not known is never called a failure; a look-up is answered only by an answer to a
//! question that was sent after it arrived (C2).

mod chronicle;
mod observe;
mod under_way;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradenet_schemas::ids::{Boot, Epoch, Leader, Node, ReplicaId, SeqNum};
use tradenet_schemas::limits::SUBMISSIONS_PER_MESSAGE_MAX;
use tradenet_schemas::message::{Answer, Configuration, Envelope, Message, Query, Role, Submission};
use tradenet_schemas::rest;
use tradenet_schemas::subjects::Peer;
use tradenet_schemas::trace::{Trace, Traced};
use tradenet_schemas::trade::{Command, CommandKey, Outcome, Stock, Symbol};

use crate::bugs::{Bug, bug};
use crate::cache::{Cache, Invalidated};
use crate::election::{self, Elector, Wish};
use crate::metrics::{Aside, Readings};
use crate::ticks::Ticks;
use crate::times::Times;
use crate::{ClientAnswer, ClientRequest, Decider, Input, Mono, Now, Output, Packet, Stop, Ticket, wire};
use chronicle::Chronicle;
use under_way::UnderWay;

pub use observe::METRICS;

/// How long a request's answer is waited for at first; see [`Sending::sent`].
const SEND_AGAIN: Duration = Duration::from_millis(250);
/// A request that was sent to the wrong place is sent elsewhere after this.
const ELSEWHERE: Duration = Duration::from_millis(20);
/// Requests for leases whose answer may still come.
const ASKED_MAX: usize = 64;
/// Requests of clients under way.
const UNDER_WAY_MAX: usize = 16_384;

/// What a frontend is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// This run of it.
    pub boot: Boot,
    /// All replicas of the exchange.
    pub members: Vec<ReplicaId>,
    /// The protocol's periods.
    pub times: Times,
    /// How many stocks it may cache; 0 for none.
    pub cache_size: usize,
}

/// When and how often a request was sent.
#[derive(Clone, Copy, Default, Debug)]
struct Sending {
    attempts: u32,
    again_at: Mono,
}

/// A command whose outcome is not known.
#[derive(Clone, Debug)]
struct Pending {
    ticket: Ticket,
    key: CommandKey,
    command: Command,
    /// What was committed when the client asked, as far as it was known here.
    known: SeqNum,
    since: Mono,
    sending: Sending,
    /// The epoch in which it was sent last. A refusal of an earlier one says nothing: the next leader may accept it.
    sent_in: Epoch,
}

/// A question without an answer.
#[derive(Clone, Debug)]
struct Asking {
    ticket: Ticket,
    query: Query,
    since: Mono,
    sending: Sending,
}

/// A frontend. See the module.
#[derive(Clone, Debug)]
pub struct Frontend {
    options: Options,
    now: Now,
    elector: Elector,
    cache: Cache,
    requests: u64,
    commands: UnderWay<Pending>,
    questions: UnderWay<Asking>,
    /// Requests from this number on were never looked at. Of the others none is to be sent before that moment.
    unseen: u64,
    again_at: Mono,
    /// The request that comes next, if it is to be followed.
    arriving: Option<(Ticket, Arc<Trace>)>,
    /// Requests under way that are followed, by number.
    traces: BTreeMap<u64, Arc<Trace>>,
    catalog: Option<Boot>,
    asked: BTreeMap<u64, (Boot, Mono)>,
    /// The configured leader, if the last that was heard of its place is that it has gone: nobody listens there, or
    /// another boot answers. Commands wait then instead of being sent: one that never left can be answered with "not
    /// available" at its deadline, and one that was sent to nobody would have to be called unknown.
    missing: Option<Leader>,
    next_renewal: Mono,
    /// The newest entry an answer rested on.
    leaving: Option<Mono>,
    stopped: bool,
    dirty: bool,
    ticks: Ticks,
    counts: Aside<observe::Counts>,
    chronicle: Aside<Chronicle>,
    outputs: VecDeque<Output>,
}

impl Frontend {
    /// A frontend that knows nobody yet.
    pub fn new(options: Options) -> Self {
        let election = election::Options { boot: options.boot, members: options.members.clone(), times: options.times };
        Self {
            now: Now::default(),
            elector: Elector::new(election),
            cache: Cache::new(options.cache_size),
            requests: 0,
            commands: UnderWay::new(),
            questions: UnderWay::new(),
            unseen: 0,
            again_at: Mono(0),
            arriving: None,
            traces: BTreeMap::new(),
            catalog: None,
            asked: BTreeMap::new(),
            missing: None,
            next_renewal: Mono(0),
            leaving: None,
            stopped: false,
            dirty: false,
            ticks: Ticks::default(),
            counts: Aside::default(),
            chronicle: Aside::default(),
            outputs: VecDeque::new(),
            options,
        }
    }

    /// The stock, if it may be served from the cache at this moment. Counts a hit.
    pub fn cached(&mut self, now: Now, symbol: &Symbol) -> Option<Stock> {
        self.cache.get(now.mono, symbol).map(|(stock, _)| stock.clone())
    }

    /// The version of a cached stock, for those who check: see [`Frontend::cached`].
    pub fn cached_version(&mut self, now: Now, symbol: &Symbol) -> Option<SeqNum> {
        self.cache.get(now.mono, symbol).map(|(_, version)| version)
    }

    /// Whether trades can be served: there is a leader that takes them, and something to trade.
    ///
    /// # Errors
    /// Why not, and what would help.
    pub fn ready(&self, now: Now) -> Result<(), String> {
        if self.leaving.is_some() {
            return Err("this frontend is leaving: use another one".to_owned());
        }
        self.elector.trouble(now.mono).map_or(Ok(()), Err)
    }

    /// Who leads and who is in sync, as this frontend sees it.
    pub fn leadership(&self, now: Now) -> rest::feed::Leadership {
        let held = self.elector.configuration();
        rest::feed::Leadership {
            epoch: held.map_or(0, |held| held.epoch.0),
            leader: self.elector.serving(now.mono).map(|status| status.id.get()),
            in_sync: held.map_or(vec![], |held| held.in_sync.iter().map(|member| member.id.get()).collect()),
        }
    }

    /// The exchange as this frontend sees it, but for what only its shell knows: names, processes, how long trades take.
    pub fn cluster(&self, now: Now) -> rest::Cluster {
        let held = self.elector.configuration();
        let trouble = self.ready(now).err();
        let statuses = self.elector.peers.values().filter_map(|view| view.status.as_ref());
        let farthest = statuses.map(|status| status.tail.seq.0).max().unwrap_or(0);
        let replicas = self.elector.peers.iter().map(|(id, view)| {
            let status = view.status.as_ref();
            let seq = |get: fn(&tradenet_schemas::message::Status) -> SeqNum| status.map_or(0, |status| get(status).0);
            rest::Replica {
                id: id.get(),
                alive: self.is_alive(now, view),
                role: status.map_or("unknown", |status| role(status.role)).to_owned(),
                in_sync: status.is_some_and(|s| held.is_some_and(|held| held.is_in_sync(s.id, s.store))),
                epoch: status.and_then(|status| status.configuration.as_ref()).map_or(0, |held| held.epoch.0),
                tail: seq(|status| status.tail.seq),
                durable: seq(|status| status.durable),
                committed: seq(|status| status.committed),
                applied: seq(|status| status.applied),
                lag: farthest.saturating_sub(seq(|status| status.durable)),
                silent_since: self.chronicle.silent_since(*id),
                out_of_sync_since: self.chronicle.out_of_sync_since(*id),
                trouble: status.and_then(|status| status.trouble.clone()),
            }
        });
        let rest::feed::Leadership { epoch, leader, in_sync } = self.leadership(now);
        rest::Cluster {
            epoch,
            leader,
            in_sync,
            ready: trouble.is_none(),
            trouble: trouble.or_else(|| self.elector.beyond_repair().map(str::to_owned)),
            replicas: replicas.collect(),
            catalog: self.catalog.map(|boot| boot.to_string()),
            frontend: rest::Frontend {
                boot: self.options.boot.to_string(),
                lease: self.cache.is_leased(now.mono),
                cache: self.cache.counts(),
                name: String::new(),
                trades: rest::Trades::default(),
            },
            at: now.wall_ms,
            history: self.chronicle.happenings(),
            services: Vec::new(),
        }
    }

    fn is_alive(&self, now: Now, view: &election::PeerView) -> bool {
        view.heard.is_some_and(|at| now.mono.since(at) < self.options.times.suspect)
    }

    /// Takes note of what is not as it was, for people.
    fn note(&mut self) {
        let now = self.now;
        let rest::feed::Leadership { epoch, leader, in_sync } = self.leadership(now);
        let heard = self.elector.peers.iter().map(|(id, view)| (*id, self.is_alive(now, view))).collect();
        let seen = chronicle::Seen {
            connected: self.elector.is_connected(),
            epoch,
            leader,
            why: self.elector.configuration().map_or_else(String::new, |held| held.why.clone()),
            in_sync,
            heard,
            catalog: self.catalog,
            trouble: self.elector.trouble(now.mono),
        };
        self.chronicle.look(now.wall_ms, seen);
    }

    fn packet(&self, body: Message) -> Packet {
        let held = self.elector.configuration();
        let envelope = Envelope {
            cluster: held.map(|held| held.cluster),
            epoch: held.map_or(Epoch(0), |held| held.epoch),
            from: Node::Frontend(self.options.boot),
            body,
        };
        Packet::new(envelope, Bytes::new())
    }

    fn send(&mut self, to: Peer, body: Message) {
        self.send_traced(to, body, Vec::new());
    }

    fn send_traced(&mut self, to: Peer, body: Message, traces: Vec<Traced>) {
        let packet = Packet { traces, ..self.packet(body) };
        self.outputs.push_back(Output::Send { to, packet });
    }

    fn traces_of(&self, requests: impl Iterator<Item = u64>) -> Vec<Traced> {
        match self.traces.is_empty() {
            true => Vec::new(),
            false => wire::traced(requests.map(|request| (request, self.traces.get(&request).cloned()))),
        }
    }

    fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    // ------------------------------------------------------------ clients

    fn asked(&mut self, ticket: Ticket, request: ClientRequest) {
        let trace = self.arriving.take().filter(|(of, _)| *of == ticket).map(|(_, trace)| trace);
        if self.commands.len() + self.questions.len() >= UNDER_WAY_MAX {
            let why = "too many requests are under way: try again".to_owned();
            return self.outputs.push_back(Output::Answer(ticket, ClientAnswer::Unavailable(why)));
        }
        let number = self.next_request();
        let (since, sending) = (self.now.mono, Sending::default());
        let query = match request {
            ClientRequest::Command(key, command) => {
                let key = key.map_or_else(|| CommandKey::generated(self.options.boot, number), |key| command.key(&key));
                self.traces.extend(trace.map(|trace| (number, trace)));
                let (known, sent_in) = (self.elector.seen(), Epoch(0));
                self.commands.push(number, Pending { ticket, key, command, known, since, sending, sent_in });
                return;
            }
            ClientRequest::Stock(symbol) => {
                if let Some(stock) = self.cached(self.now, &symbol) {
                    let answer = ClientAnswer::Stock { stock: Some(stock), hit: true };
                    return self.outputs.push_back(Output::Answer(ticket, answer));
                }
                self.cache.ask(number, &symbol);
                Query::Stock(symbol)
            }
            ClientRequest::Stocks => Query::Stocks,
            ClientRequest::Order(order) => Query::Order(order),
            ClientRequest::Market(query) => query,
        };
        self.traces.extend(trace.map(|trace| (number, trace)));
        self.questions.push(number, Asking { ticket, query, since, sending });
    }

    fn answer(&mut self, number: u64, ticket: Ticket, answer: ClientAnswer) {
        self.counts.unknown += u64::from(matches!(answer, ClientAnswer::Unknown));
        self.counts.unavailable += u64::from(matches!(answer, ClientAnswer::Unavailable(_)));
        self.traces.remove(&number);
        self.outputs.push_back(Output::Answer(ticket, answer));
    }

    fn gone(&mut self, ticket: Ticket) {
        // Looked for among all, of which a frontend has some thousand at most: few clients go, the oldest first, and a table of
        // tickets would be kept with every request.
        let command = self.commands.find(|pending| pending.ticket == ticket);
        if let Some(number) = command.or_else(|| self.questions.find(|asking| asking.ticket == ticket)) {
            self.commands.remove(number);
            self.questions.remove(number);
            self.traces.remove(&number);
            self.cache.forget(number);
        }
    }

    // ------------------------------------------------------------ sending

    /// Sends what was never sent, and what has waited long enough. Nothing is sent to a broker that is away: whoever asked
    /// meanwhile, and is told that it was in vain, knows then that nothing was done.
    fn send_requests(&mut self) {
        if !self.elector.is_connected() {
            return;
        }
        let now = self.now.mono;
        // All that are under way are gone through only when one of them may be due: with many clients that would be most
        // of the work.
        let mut from = self.unseen;
        if self.again_at <= now {
            (from, self.again_at) = (0, Mono(u64::MAX));
        }
        self.unseen = self.requests + 1;
        self.send_commands(from);
        self.send_questions(from);
    }

    fn send_questions(&mut self, from: u64) {
        let now = self.now.mono;
        let catalog = self.catalog;
        let mut messages = Vec::new();
        for (request, asking) in self.questions.iter_mut_from(from) {
            if asking.sending.again_at > now {
                self.again_at = self.again_at.min(asking.sending.again_at);
                continue;
            }
            // In turn to the catalog and to the leader, of which one answers look-ups at any time.
            let of_stocks = matches!(asking.query, Query::Stock(_) | Query::Stocks);
            let to_leader = !of_stocks || asking.sending.attempts % 2 == 1;
            let leader = self.elector.leader().map(|leader| Peer::Order(leader.id));
            let to = if to_leader { leader } else { catalog.map(Peer::Catalog).or(leader) };
            let Some(to) = to else {
                self.again_at = now;
                continue;
            };
            let patience = match asking.query {
                // The leader keeps it until there is an event.
                Query::Events(_) => self.options.times.watch + SEND_AGAIN,
                _ => SEND_AGAIN,
            };
            self.counts.sent_again += u64::from(asking.sending.attempts > 0);
            asking.sending.sent(now, patience);
            self.again_at = self.again_at.min(asking.sending.again_at);
            let query = asking.query.clone();
            messages.push((to, request, query));
        }
        for (to, request, query) in messages {
            let message = match (to, query) {
                (Peer::Catalog(catalog), Query::Stock(symbol)) => {
                    let (session, _) = self.cache.session_with(catalog);
                    Message::Lookup { request, session, symbol: Some(symbol) }
                }
                (Peer::Catalog(_), _) => Message::Lookup { request, session: 0, symbol: None },
                (_, query) => Message::Read { request, query },
            };
            let traces = self.traces_of([request].into_iter());
            self.send_traced(to, message, traces);
        }
    }

    fn send_commands(&mut self, from: u64) {
        let now = self.now.mono;
        let Some(leader) = self.elector.leader().filter(|leader| self.missing != Some(*leader)) else {
            self.again_at = now;
            return;
        };
        let epoch = self.elector.configuration().map_or(Epoch(0), |held| held.epoch);
        let mut batch = Vec::new();
        for (request, pending) in self.commands.iter_mut_from(from) {
            if pending.sending.again_at > now {
                self.again_at = self.again_at.min(pending.sending.again_at);
                continue;
            }
            let again = pending.sending.attempts > 0;
            self.counts.sent_again += u64::from(again);
            pending.sending.sent(now, SEND_AGAIN);
            self.again_at = self.again_at.min(pending.sending.again_at);
            pending.sent_in = epoch;
            let (key, command, known) = (pending.key.clone(), pending.command.clone(), pending.known);
            batch.push(Submission { request, key, command, known, again });
        }
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(SUBMISSIONS_PER_MESSAGE_MAX));
            let traces = self.traces_of(batch.iter().map(|submission| submission.request));
            self.send_traced(Peer::Order(leader.id), Message::Submit(batch), traces);
            batch = rest;
        }
    }

    /// Another leader: everything without an answer is sent to it at once.
    fn send_all_again(&mut self) {
        self.again_at = Mono(0);
        for pending in self.commands.iter_mut() {
            pending.sending.again_at = Mono(0);
        }
        for asking in self.questions.iter_mut() {
            asking.sending.again_at = Mono(0);
        }
    }

    fn adopt(&mut self, configuration: &Configuration) {
        let before = self.elector.leader();
        self.elector.adopt(self.now, configuration);
        self.leader_may_have_changed(before);
    }

    fn leader_may_have_changed(&mut self, before: Option<Leader>) {
        if self.elector.leader() != before {
            self.send_all_again();
        }
    }

    // ------------------------------------------------------------ answers

    fn received(&mut self, packet: Packet) {
        let known = self.elector.configuration().map(|held| held.cluster);
        if known.is_some() && packet.envelope.cluster.is_some() && known != packet.envelope.cluster {
            return;
        }
        let before = self.elector.leader();
        let (from, epoch) = (packet.envelope.from, packet.envelope.epoch);
        match (packet.envelope.body, from) {
            (Message::Status(status), Node::Order(..)) => {
                self.learn_catalog(&status);
                self.elector.status_arrived(self.now, *status);
            }
            (Message::Vote { willing, status }, Node::Order(..)) => {
                self.elector.vote_arrived(self.now, willing, *status);
            }
            (Message::Proposed { nonce, verdict }, Node::Order(..)) => {
                self.elector.proposal_answered(self.now, nonce, verdict);
            }
            (Message::Announce(configuration), Node::Order(..)) => self.adopt(&configuration),
            (Message::Outcomes { seq, outcomes, before }, Node::Order(..)) => {
                self.elector.saw(seq);
                for (request, outcome) in outcomes {
                    self.decided(epoch, request, outcome, seq, before.contains(&request));
                }
            }
            (Message::Answer { request, seq, answer }, Node::Order(..)) => {
                self.elector.saw(seq);
                self.answered(request, answer);
            }
            (Message::NotLeader { requests, configuration, catalog }, _) => {
                if let (Some(configuration), Node::Order(..)) = (configuration, from) {
                    self.adopt(&configuration);
                }
                self.catalog = catalog.or(self.catalog);
                requests.into_iter().for_each(|request| self.elsewhere(request, ELSEWHERE));
            }
            (Message::Overloaded { requests }, _) => self.refused(requests, "the exchange is overloaded: try again"),
            (Message::Unavailable { requests, why }, _) => self.refused(requests, &why),
            (body, Node::Catalog(catalog)) => self.catalog_says(catalog, body),
            (body, from) => self.outputs.push_back(Output::debug(format!("nothing to do with {body:?} from {from:?}"))),
        }
        if let (Node::Order(id, boot), Some(leader)) = (from, self.elector.leader())
            && leader.id == id
        {
            self.missing = (leader.boot != boot).then_some(leader);
        }
        self.leader_may_have_changed(before);
    }

    fn learn_catalog(&mut self, status: &tradenet_schemas::message::Status) {
        let leads = self.elector.leader() == Some(Leader { id: status.id, boot: status.boot });
        if leads && status.role == Role::Leader {
            self.catalog = status.catalog;
        }
    }

    fn decided(&mut self, epoch: Epoch, request: u64, mut outcome: Outcome, seq: SeqNum, before: bool) {
        let sent_since = self.commands.get(request).is_some_and(|pending| epoch < pending.sent_in);
        if matches!(outcome, Outcome::Refused(_)) && sent_since {
            return;
        }
        let Some(pending) = self.commands.remove(request) else {
            return;
        };
        if let (Some(symbol), false) = (pending.command.trades(), matches!(outcome, Outcome::Refused(_))) {
            self.cache.seen(symbol, seq);
        }
        // Without a key of the client's, or sent more than once from here, what was done may be this very request.
        let own = !pending.key.is_of_client() || pending.sending.attempts > 1 && !before;
        if let (true, Outcome::Accepted { replayed, .. } | Outcome::Done { replayed, .. }) = (own, &mut outcome) {
            *replayed = false;
        }
        self.answer(request, pending.ticket, ClientAnswer::Outcome(outcome));
    }

    fn answered(&mut self, request: u64, answer: Answer) {
        let Some(asking) = self.questions.remove(request) else {
            return;
        };
        self.cache.forget(request);
        let answer = match answer {
            Answer::Order(order) => ClientAnswer::Order(order),
            Answer::Stock(stock) => ClientAnswer::Stock { stock, hit: false },
            Answer::Stocks(stocks) => ClientAnswer::Stocks(stocks),
            of_the_market => ClientAnswer::Market(of_the_market),
        };
        self.answer(request, asking.ticket, answer);
    }

    /// The receiver does not answer this; somebody else will.
    fn elsewhere(&mut self, request: u64, wait: Duration) {
        let at = self.now.mono.after(wait);
        let command = self.commands.get_mut(request).map(|pending| &mut pending.sending);
        let sending = command.or_else(|| self.questions.get_mut(request).map(|asking| &mut asking.sending));
        if let Some(sending) = sending {
            sending.again_at = sending.again_at.min(at);
            self.again_at = self.again_at.min(at);
        }
    }

    /// The leader did not take these. Whatever was sent before may have been taken, so only a first try is given up.
    fn refused(&mut self, requests: Vec<u64>, why: &str) {
        for request in requests {
            let first = self.commands.get(request).is_some_and(|pending| pending.sending.attempts == 1);
            if first || self.questions.get(request).is_some() {
                let command = self.commands.remove(request).map(|pending| pending.ticket);
                let ticket = command.or_else(|| self.questions.remove(request).map(|asking| asking.ticket));
                self.cache.forget(request);
                if let Some(ticket) = ticket {
                    self.answer(request, ticket, ClientAnswer::Unavailable(why.to_owned()));
                }
            }
        }
    }

    fn catalog_says(&mut self, catalog: Boot, body: Message) {
        match body {
            Message::Found { request, session, cacheable, version, stocks, .. } => {
                self.found(catalog, request, session, cacheable.then_some(version), stocks);
            }
            Message::Lease { request, session, valid_ms, invalidation, committed } => {
                self.elector.saw(committed);
                if let Some((_, asked)) = self.asked.remove(&request).filter(|(boot, _)| *boot == catalog) {
                    let valid = Duration::from_millis(valid_ms);
                    self.cache.lease(self.now.mono, catalog, session, asked, valid, invalidation);
                }
            }
            Message::Invalidate { session, number, symbols } => {
                if let Invalidated::Confirm(number) = self.cache.invalidate(catalog, session, number, &symbols) {
                    self.outputs.push_back(Output::debug(format!("cache: dropped {symbols:?} for the catalog")));
                    self.send(Peer::Catalog(catalog), Message::Confirm { session, number });
                }
            }
            _ => {}
        }
    }

    fn found(&mut self, catalog: Boot, request: u64, session: u64, version: Option<SeqNum>, stocks: Vec<Stock>) {
        let Some(asking) = self.questions.remove(request) else {
            return;
        };
        if let Query::Stocks = asking.query {
            return self.answer(request, asking.ticket, ClientAnswer::Stocks(stocks));
        }
        let stock = stocks.into_iter().next();
        match (&stock, version) {
            (Some(stock), Some(version)) => {
                if let Some(evicted) = self.cache.fill(request, catalog, session, version, stock.clone()) {
                    let added = &stock.symbol;
                    self.outputs.push_back(Output::debug(format!("cache: {evicted} replaced by {added}")));
                }
            }
            _ => self.cache.forget(request),
        }
        if bug(Bug::AnswerFromEarlierFills) {
            self.answer_all_who_ask(&asking.query, stock.as_ref());
        }
        self.answer(request, asking.ticket, ClientAnswer::Stock { stock, hit: false });
    }

    /// For [`Bug::AnswerFromEarlierFills`].
    fn answer_all_who_ask(&mut self, query: &Query, stock: Option<&Stock>) {
        let same: Vec<_> = self.questions.iter().filter(|(_, asking)| asking.query == *query).map(|(r, _)| r).collect();
        for request in same {
            self.cache.forget(request);
            if let Some(asking) = self.questions.remove(request) {
                self.answer(request, asking.ticket, ClientAnswer::Stock { stock: stock.cloned(), hit: false });
            }
        }
    }

    // ------------------------------------------------------------ time

    fn tick(&mut self) {
        let now = self.now.mono;
        if !self.ticks.are_due(now) {
            self.ticks = self.ticks.hastened(now, || self.rests_until());
            return;
        }
        let before = self.elector.leader();
        let beat = self.elector.tick(self.now);
        self.leader_may_have_changed(before);
        if let Some(catalog) = self.catalog.filter(|_| self.cache.is_on() && (beat || now >= self.next_renewal)) {
            self.next_renewal = now.after(self.options.times.heartbeat);
            self.renew(catalog);
        }
        self.deadlines();
        self.note();
        let idle = self.commands.is_empty() && self.questions.is_empty();
        if self.leaving.is_some_and(|since| idle || now.since(since) >= self.options.times.leave) {
            self.stopped = true;
            self.outputs.push_back(Output::Stop(Stop::Left));
        }
        self.ticks = self.rests_until().map_or(Ticks::soon(now), Ticks::at_once);
    }

    /// Asks for the lease anew, unless most of it is left: then the next beat is early enough.
    fn renew(&mut self, catalog: Boot) {
        let now = self.now.mono;
        let (session, confirmed) = self.cache.session_with(catalog);
        if session == 0 || !self.cache.is_leased(now.after(self.options.times.heartbeat * 3)) {
            let request = self.next_request();
            self.asked.insert(request, (catalog, now));
            while self.asked.len() > ASKED_MAX {
                self.asked.pop_first();
            }
            self.send(Peer::Catalog(catalog), Message::Renew { request, session, confirmed });
        }
    }

    /// The next duty of a frontend that has nothing under way; none for one that has.
    fn rests_until(&self) -> Option<Mono> {
        let idle = self.commands.is_empty() && self.questions.is_empty() && self.leaving.is_none();
        let beat = self.elector.rests_until().filter(|_| idle)?;
        let renews = self.catalog.is_some() && self.cache.is_on();
        Some(if renews { beat.min(self.next_renewal) } else { beat })
    }

    fn deadlines(&mut self) {
        let (now, deadline) = (self.now.mono, self.options.times.deadline);
        let late: Vec<_> =
            self.commands.iter().filter(|(_, p)| now.since(p.since) >= deadline).map(|(number, _)| number).collect();
        let why = self.elector.trouble(now).unwrap_or_else(|| "no answer in time: try again".to_owned());
        for number in late {
            if let Some(pending) = self.commands.remove(number) {
                let never_sent = pending.sending.attempts == 0;
                let answer = if never_sent { ClientAnswer::Unavailable(why.clone()) } else { ClientAnswer::Unknown };
                self.answer(number, pending.ticket, answer);
            }
        }
        let late: Vec<_> =
            self.questions.iter().filter(|(_, a)| now.since(a.since) >= deadline).map(|(number, _)| number).collect();
        for number in late {
            self.cache.forget(number);
            if let Some(asking) = self.questions.remove(number) {
                self.answer(number, asking.ticket, ClientAnswer::Unavailable(why.clone()));
            }
        }
    }

    fn flush_wishes(&mut self) {
        while let Some(wish) = self.elector.wishes.pop_front() {
            match wish {
                Wish::Send(to, message) => self.send(to, message),
                Wish::Register(request) => self.outputs.push_back(Output::Register(request)),
                Wish::Output(output) => self.outputs.push_back(output),
            }
        }
    }
}

impl Sending {
    /// Sent at this moment; without an answer within `patience` it is sent again, then after twice as long, and so on.
    fn sent(&mut self, now: Mono, patience: Duration) {
        self.again_at = now.after(patience * 2u32.pow(self.attempts.min(3)));
        self.attempts += 1;
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Starting => "starting",
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::Activating => "activating",
        Role::Leader => "leader",
    }
}

impl Decider for Frontend {
    fn handle(&mut self, now: Now, input: Input) {
        if self.stopped {
            return;
        }
        self.now = now;
        self.dirty = true;
        match input {
            Input::Received { packet, .. } => self.received(packet),
            Input::NobodyThere(Peer::Order(id)) => {
                self.missing = self.elector.leader().filter(|leader| leader.id == id).or(self.missing);
                self.elector.nobody_there(now, id);
            }
            Input::NobodyThere(Peer::Catalog(boot)) if self.catalog == Some(boot) => {
                let at = now.mono.after(ELSEWHERE);
                for asking in self.questions.iter_mut() {
                    asking.sending.again_at = asking.sending.again_at.min(at);
                }
                self.again_at = self.again_at.min(at);
            }
            Input::Register(answer) => {
                let before = self.elector.leader();
                self.elector.register_answered(now, answer);
                self.leader_may_have_changed(before);
            }
            Input::Connected => self.elector.connected(now),
            Input::Disconnected => self.elector.disconnected(now),
            Input::Trace(ticket, trace) => self.arriving = Some((ticket, trace)),
            Input::Client(ticket, request) => self.asked(ticket, request),
            Input::ClientGone(ticket) => self.gone(ticket),
            Input::Leave => {
                self.leaving.get_or_insert(now.mono);
                self.ticks = Ticks::at_once(now.mono);
            }
            Input::NobodyThere(_) | Input::Disk(_) | Input::Timer => {}
        }
        self.tick();
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.dirty && !self.stopped {
            self.dirty = false;
            self.send_requests();
            self.flush_wishes();
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
