//! Which replica leads: decided by the frontends, ordered by the register.
//!
//! Problem: any number of frontends must agree on one leader that has every acknowledged order, quickly when the old one is
//! dead, and not at all when only this frontend has lost it.
//!
//! Idea: heartbeats to all replicas. Who suspects the leader asks every replica whether it has lost the leader too (a
//! pre-vote, as in Ongaro's thesis, section 9.6), and takes the **highest id** among those that are in sync, alive, fit and
//! willing; one compare-and-set on the configuration decides between frontends that do so at the same time. The frontend
//! only proposes the record; the replica that is to lead checks it and writes it ([`crate::proposal`]).
//!
//! Rules kept: R1 and R3, only an `(id, store)` of `in_sync` is elected; R7, a register older than anything known stops
//! elections until it is repaired; R8, a missing register is rebuilt only from *all* replicas; R9, a candidate has
//! everything that anyone was told of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tradenet_schemas::ids::{Boot, ClusterId, Epoch, Leader, Member, Node, Nonce, ReplicaId, SeqNum};
use tradenet_schemas::message::{Configuration, Floor, Message, RecordId, Role, Status, Verdict};
use tradenet_schemas::subjects::Peer;

use crate::bugs::{Bug, bug};
use crate::metrics::Aside;
use crate::proposal::{self, Evidence, Unrepaired, holds, stands};
use crate::times::Times;
use crate::{Mono, Now, Output, RegisterAnswer, RegisterRequest, Revision, Slot, highest};

/// After an attempt that came to nothing, the next one waits so long.
const RETRY: Duration = Duration::from_millis(100);
/// How often the register is read without a reason, to notice what was missed or went back.
const REGISTER_EVERY: Duration = Duration::from_secs(2);
/// The same, while the leader answers and does not serve: it may have found what only frontends can repair.
const REGISTER_OF_IDLE_EVERY: Duration = Duration::from_millis(500);
/// How often the newest configuration is told to a replica that does not have it.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// A change of leadership that nobody took up for so long is made again.
const EPOCH_LIFE: Duration = Duration::from_secs(2);

/// What an elector is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// This run of the frontend.
    pub boot: Boot,
    /// All replicas of the exchange.
    pub members: Vec<ReplicaId>,
    /// The protocol's periods.
    pub times: Times,
}

/// How often this frontend tried to have another leader, and what came of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Attempts {
    pub(crate) suspicions: u64,
    pub(crate) written: u64,
    pub(crate) conflict: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

/// What the elector wants done; the frontend puts it into packets.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Send(Peer, Message),
    Register(RegisterRequest),
    Output(Output),
}

/// A replica as this frontend knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerView {
    pub(crate) status: Option<Status>,
    pub(crate) heard: Option<Mono>,
    gone_first: Option<Mono>,
    gone: bool,
}

/// How far an attempt is.
#[derive(Clone, Debug)]
enum Phase {
    Calm,
    /// Collects pre-votes, then reads the register.
    Polling {
        since: Mono,
        suspect: Leader,
        votes: BTreeMap<ReplicaId, (bool, Status)>,
        absent: BTreeSet<ReplicaId>,
    },
    /// Reads the register to elect these (none: only to look).
    Reading {
        candidates: Option<Vec<Status>>,
    },
    /// Has proposed this: it may be written.
    Proposing {
        target: Box<Configuration>,
        expected: Option<Revision>,
        sent: Mono,
    },
}

/// The elector of one frontend.
#[derive(Clone, Debug)]
pub(crate) struct Elector {
    options: Options,
    now: Now,
    configuration: Option<Configuration>,
    adopted_at: Mono,
    pub(crate) peers: BTreeMap<ReplicaId, PeerView>,
    phase: Phase,
    asked_at: Mono,
    ticket: u64,
    nonces: u64,
    /// No attempt before this.
    quiet_until: Mono,
    /// When a record was proposed last that repairs the register.
    repaired_at: Option<Mono>,
    next_heartbeat: Mono,
    /// When the register was last asked, or answered.
    last_read: Mono,
    last_told: Mono,
    /// Since when this frontend has been connected; a fresh one waits for all in-sync replicas (cold start).
    connected_at: Option<Mono>,
    seen_leader: bool,
    /// Since when the leader says that it can't do its work.
    useless_since: Option<Mono>,
    /// The newest sequence that anybody was told of.
    seen: SeqNum,
    trouble: Option<String>,
    /// The register can't be repaired, and why: that is worse than whatever else is wrong.
    beyond_repair: Option<String>,
    attempts: Aside<Attempts>,
    pub(crate) wishes: VecDeque<Wish>,
}

impl Elector {
    pub(crate) fn new(options: Options) -> Self {
        let peers = options.members.iter().map(|&id| (id, PeerView::default())).collect();
        Self {
            now: Now::default(),
            configuration: None,
            adopted_at: Mono(0),
            peers,
            phase: Phase::Calm,
            asked_at: Mono(0),
            ticket: 0,
            nonces: 0,
            quiet_until: Mono(0),
            repaired_at: None,
            next_heartbeat: Mono(0),
            last_read: Mono(0),
            last_told: Mono(0),
            connected_at: None,
            seen_leader: false,
            useless_since: None,
            seen: SeqNum(0),
            trouble: None,
            beyond_repair: None,
            attempts: Aside::default(),
            wishes: VecDeque::new(),
            options,
        }
    }

    pub(crate) fn attempts(&self) -> Attempts {
        *self.attempts
    }

    pub(crate) fn configuration(&self) -> Option<&Configuration> {
        self.configuration.as_ref()
    }

    /// Whether the broker can be reached.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected_at.is_some()
    }

    /// Where commands go: the elected leader, which queues them until it serves.
    pub(crate) fn leader(&self) -> Option<Leader> {
        self.configuration.as_ref().map(|held| held.leader)
    }

    /// The leader's last word, if it serves and was heard lately.
    pub(crate) fn serving(&self, now: Mono) -> Option<&Status> {
        let leader = self.leader()?;
        let view = self.peers.get(&leader.id)?;
        let lately = view.heard.is_some_and(|at| now.since(at) < self.options.times.suspect);
        view.status.as_ref().filter(|status| lately && status.boot == leader.boot && status.role == Role::Leader)
    }

    /// Why no trade can be served at this moment, and what would help.
    pub(crate) fn trouble(&self, now: Mono) -> Option<String> {
        if let Some(status) = self.serving(now) {
            return status.hindrance().map(|theirs| self.beyond_repair.clone().unwrap_or(theirs));
        }
        if self.connected_at.is_none() {
            return Some("the broker can't be reached".to_owned());
        }
        let fallback = "no leader at this moment: one is being elected".to_owned();
        Some(self.trouble.clone().unwrap_or(fallback))
    }

    /// Why the register can't be repaired, though a leader may still serve, and what would help.
    pub(crate) fn beyond_repair(&self) -> Option<&str> {
        self.beyond_repair.as_deref()
    }

    /// An answer rested on this entry: whoever leads must have it (rule R9).
    pub(crate) fn saw(&mut self, seq: SeqNum) {
        self.seen = self.seen.max(seq);
    }

    /// The newest entry that is known to be committed.
    pub(crate) fn seen(&self) -> SeqNum {
        self.seen
    }

    fn info(&mut self, text: String) {
        self.wishes.push_back(Wish::Output(Output::info(text)));
    }

    fn troubled(&mut self, text: String) {
        let text = self.beyond_repair.clone().unwrap_or(text);
        if self.trouble.as_ref() != Some(&text) {
            self.wishes.push_back(Wish::Output(Output::warn(&text)));
            self.trouble = Some(text);
        }
        self.calm(RETRY * 3);
    }

    fn calm(&mut self, wait: Duration) {
        self.phase = Phase::Calm;
        self.quiet_until = self.now.mono.after(wait);
    }

    /// Takes on a newer configuration, wherever it was heard of.
    pub(crate) fn adopt(&mut self, now: Now, configuration: &Configuration) -> bool {
        self.now = now;
        let newer = self
            .configuration
            .as_ref()
            .is_none_or(|held| held.cluster == configuration.cluster && held.epoch < configuration.epoch);
        if newer {
            let in_sync: Vec<_> = configuration.in_sync.iter().map(|member| member.id.get()).collect();
            self.info(format!(
                "epoch {}: order-{} leads, in sync {in_sync:?} ({})",
                configuration.epoch, configuration.leader.id, configuration.why
            ));
            // The news of a record is often here before the answer to its proposal, which is not waited for then.
            if configuration.by == Node::Frontend(self.options.boot) {
                self.attempts.written += 1;
            } else if matches!(self.phase, Phase::Proposing { .. }) {
                self.attempts.conflict += 1;
            }
            self.configuration = Some(configuration.clone());
            self.adopted_at = now.mono;
            self.useless_since = None;
            self.trouble = None;
            self.calm(Duration::ZERO);
        }
        newer
    }

    // ------------------------------------------------------------ what is heard

    pub(crate) fn connected(&mut self, now: Now) {
        self.now = now;
        self.connected_at = Some(now.mono);
        self.quiet_until = now.mono.after(if self.seen_leader { self.options.times.reconnect_grace } else { RETRY });
        for view in self.peers.values_mut() {
            view.gone_first = None;
            view.gone = false;
            // Nobody is suspected for what could not be heard.
            view.heard = view.heard.map(|_| now.mono);
        }
        self.next_heartbeat = now.mono;
    }

    pub(crate) fn disconnected(&mut self, now: Now) {
        self.now = now;
        self.connected_at = None;
        self.phase = Phase::Calm;
    }

    pub(crate) fn nobody_there(&mut self, now: Now, id: ReplicaId) {
        self.now = now;
        let twice = self.options.times.nobody_twice;
        if let Some(view) = self.peers.get_mut(&id) {
            let first = *view.gone_first.get_or_insert(now.mono);
            view.gone |= now.mono.since(first) >= twice;
        }
        match &mut self.phase {
            Phase::Polling { absent, .. } => {
                absent.insert(id);
                self.count_votes();
            }
            Phase::Calm if self.connected_at.is_some() => self.look(),
            // It may have written the record before it went.
            Phase::Proposing { target, .. } if target.leader.id == id => self.read_register(None),
            _ => {}
        }
    }

    pub(crate) fn status_arrived(&mut self, now: Now, status: Status) {
        self.now = now;
        if let Some(configuration) = &status.configuration {
            self.adopt(now, configuration);
        }
        self.seen = highest([self.seen, status.committed]);
        let leads = self.leader() == Some(Leader { id: status.id, boot: status.boot });
        self.seen_leader |= leads && status.role == Role::Leader;
        let lags =
            self.configuration.as_ref().map(|held| held.epoch) > status.configuration.as_ref().map(|held| held.epoch);
        if lags && status.role != Role::Starting && now.mono.since(self.last_told) >= TELL_EVERY {
            self.tell(status.id);
        }
        if leads {
            let useless = status.trouble.is_some();
            self.useless_since = useless.then(|| self.useless_since.unwrap_or(now.mono));
        }
        if leads && status.role == Role::Leader && status.trouble.is_none() {
            self.trouble = None;
            if matches!(self.phase, Phase::Polling { .. }) {
                self.calm(Duration::ZERO);
            }
        }
        if let Some(view) = self.peers.get_mut(&status.id) {
            *view = PeerView { status: Some(status), heard: Some(now.mono), gone_first: None, gone: false };
        }
    }

    pub(crate) fn vote_arrived(&mut self, now: Now, willing: bool, status: Status) {
        self.status_arrived(now, status.clone());
        if let Phase::Polling { votes, .. } = &mut self.phase {
            votes.insert(status.id, (willing, status));
            self.count_votes();
        }
    }

    /// Tells a replica of a record that it has missed: it takes nobody's word for it, and looks at the register.
    fn tell(&mut self, id: ReplicaId) {
        if let Some(configuration) = self.configuration.clone() {
            self.last_told = self.now.mono;
            let told = Message::Propose { configuration: Box::new(configuration), expected: None };
            self.wishes.push_back(Wish::Send(Peer::Order(id), told));
        }
    }

    // ------------------------------------------------------------ time

    /// When the next heartbeat is due, if there is nothing else to do until then: all is in order, and the leader was heard
    /// so lately that it can't become suspect in between.
    pub(crate) fn rests_until(&self) -> Option<Mono> {
        let now = self.now.mono;
        let healthy = self.serving(now).is_some_and(|status| status.trouble.is_none());
        let leader = self.leader().and_then(|leader| self.peers.get(&leader.id)?.heard);
        let heard = leader.is_some_and(|at| now.since(at) < self.options.times.heartbeat * 2);
        let settled = self.peers.values().all(|view| view.gone || view.gone_first.is_none());
        let calm = matches!(self.phase, Phase::Calm) && self.connected_at.is_some() && now >= self.quiet_until;
        (healthy && heard && settled && calm).then_some(self.next_heartbeat)
    }

    /// Does what is due; whether that was a heartbeat.
    pub(crate) fn tick(&mut self, now: Now) -> bool {
        self.now = now;
        if self.connected_at.is_none() {
            return false;
        }
        let beat = now.mono >= self.next_heartbeat;
        if beat {
            self.next_heartbeat = now.mono.after(self.options.times.heartbeat);
            for id in self.options.members.clone() {
                if !self.may_wait(id) {
                    self.wishes.push_back(Wish::Send(Peer::Order(id), Message::Heartbeat { question: None }));
                }
            }
        }
        self.probe_the_gone();
        match &self.phase {
            Phase::Calm => self.look(),
            Phase::Polling { .. } => self.count_votes(),
            Phase::Reading { .. } if now.mono.since(self.asked_at) > self.options.times.register * 2 => {
                self.last_read = now.mono;
                self.calm(RETRY);
            }
            Phase::Proposing { .. } if now.mono.since(self.asked_at) > self.options.times.register => {
                self.read_register(None);
            }
            Phase::Proposing { sent, .. } if now.mono.since(*sent) >= self.options.times.heartbeat => {
                self.send_proposal();
            }
            Phase::Reading { .. } | Phase::Proposing { .. } => {}
        }
        beat
    }

    /// Whether a replica need not be asked with this heartbeat: while a leader serves that is no further than its followers, they are
    /// asked with every other (ADR 16). What was heard before this connection does not count.
    fn may_wait(&self, id: ReplicaId) -> bool {
        let (now, heartbeat) = (self.now.mono, self.options.times.heartbeat);
        let Some(leader) = self.serving(now).filter(|leader| leader.id != id && leader.trouble.is_none()) else {
            return false;
        };
        let Some(PeerView { status: Some(status), heard: Some(heard), .. }) = self.peers.get(&id) else {
            return false;
        };
        let lately = Some(*heard) > self.connected_at && now.since(*heard) < heartbeat * 3 / 2;
        lately && status.tail == leader.tail && matches!(self.phase, Phase::Calm)
    }

    /// "Nobody there" is believed when it is said twice: ask again as soon as the second time counts.
    fn probe_the_gone(&mut self) {
        let (now, twice) = (self.now.mono, self.options.times.nobody_twice);
        for (id, view) in &mut self.peers {
            let first = view.gone_first.filter(|_| !view.gone);
            if first.is_some_and(|first| now.since(first) >= twice) {
                view.gone_first = first.map(|first| Mono(first.0.min(now.0)));
                self.wishes.push_back(Wish::Send(Peer::Order(*id), Message::Heartbeat { question: None }));
            }
        }
    }

    /// Is everything in order?
    fn look(&mut self) {
        let now = self.now.mono;
        if now < self.quiet_until {
            return;
        }
        if self.configuration.is_none() {
            return self.read_register(None);
        }
        // Also while the leader is suspected: the register may know of a newer record that nobody here has heard of, or
        // need repair before anybody can lead.
        let every = if self.leader_is_idle() { REGISTER_OF_IDLE_EVERY } else { REGISTER_EVERY };
        if now.since(self.last_read) >= every {
            return self.read_register(None);
        }
        if self.is_suspect() {
            self.poll();
        }
    }

    /// Whether the leader was heard to be elected, and not to serve.
    fn leader_is_idle(&self) -> bool {
        let status = self.leader().and_then(|leader| {
            let status = self.peers.get(&leader.id).and_then(|view| view.status.as_ref());
            status.filter(|status| status.boot == leader.boot)
        });
        status.is_some_and(|status| status.role != Role::Leader || status.contested || status.trouble.is_some())
    }

    /// Whether the leader has to be replaced, as far as this frontend can tell.
    fn is_suspect(&self) -> bool {
        let (now, times) = (self.now.mono, self.options.times);
        let Some(leader) = self.leader() else { return false };
        let Some(view) = self.peers.get(&leader.id) else {
            return true;
        };
        let other_boot = view.status.as_ref().is_some_and(|status| status.boot != leader.boot)
            && view.heard.is_some_and(|at| at > self.adopted_at || now.since(self.adopted_at) > times.suspect);
        if view.gone || other_boot {
            return true;
        }
        let status = view.status.as_ref().filter(|status| status.boot == leader.boot);
        let heard = view.heard.filter(|_| status.is_some()).unwrap_or_default();
        let since = heard.max(self.adopted_at).max(self.connected_at.unwrap_or_default());
        let silent = now.since(since) > times.suspect;
        // It answers, but does not take up the lead.
        let idle = status.is_some_and(|status| status.role != Role::Leader) && now.since(self.adopted_at) > EPOCH_LIFE;
        let useless =
            self.useless_since.is_some_and(|since| now.since(since) > EPOCH_LIFE) && self.has_other_fit(leader);
        let young = now.since(self.adopted_at) < EPOCH_LIFE && self.seen_leader;
        (silent && !young)
            || (silent && heard < self.adopted_at && now.since(self.adopted_at) > times.suspect)
            || idle
            || useless
    }

    /// Whether another in-sync replica could lead, as far as was heard.
    fn has_other_fit(&self, leader: Leader) -> bool {
        let Some(held) = &self.configuration else { return false };
        let lately =
            |view: &PeerView| view.heard.is_some_and(|at| self.now.mono.since(at) < self.options.times.suspect);
        self.peers.values().filter(|view| lately(view)).filter_map(|view| view.status.as_ref()).any(|status| {
            status.id != leader.id
                && held.is_in_sync(status.id, status.store)
                && status.trouble.is_none()
                && status.role != Role::Starting
                && status.tail.seq >= self.seen
        })
    }

    fn poll(&mut self) {
        let Some(suspect) = self.leader() else { return };
        self.attempts.suspicions += 1;
        let (votes, absent) = (BTreeMap::new(), BTreeSet::new());
        self.phase = Phase::Polling { since: self.now.mono, suspect, votes, absent };
        for id in self.options.members.clone() {
            self.wishes.push_back(Wish::Send(Peer::Order(id), Message::PreVote { suspect }));
        }
    }

    fn count_votes(&mut self) {
        let Phase::Polling { since, suspect, votes, absent } = &self.phase else {
            return;
        };
        let (suspect, waited) = (*suspect, self.now.mono.since(*since));
        let Some(held) = self.configuration.clone() else {
            return self.calm(RETRY);
        };
        if held.leader != suspect {
            return self.calm(Duration::ZERO);
        }
        let restarted = |id| votes.get(&id).is_some_and(|(_, status)| id == suspect.id && status.boot != suspect.boot);
        let answered = |member: &Member| {
            let suspected = member.id == suspect.id && !restarted(member.id);
            votes.contains_key(&member.id)
                || absent.contains(&member.id)
                || suspected && self.peers.get(&member.id).is_some_and(|view| view.gone)
        };
        if !held.in_sync.iter().all(answered) && waited < self.options.times.poll {
            return;
        }
        if votes.is_empty() {
            let needed = name(held.in_sync.iter().map(|member| member.id));
            return self.troubled(format!("no replica answers this frontend; needed is one of {needed}"));
        }
        if let Some((_, status)) = votes
            .values()
            .find(|(_, status)| status.configuration.as_ref().is_some_and(|theirs| theirs.epoch > held.epoch))
        {
            let newer = status.configuration.clone();
            if let Some(newer) = newer {
                self.adopt(self.now, &newer);
            }
            return self.calm(RETRY);
        }
        // Somebody in sync still hears the leader: then it is this frontend that has lost it.
        let against = |(id, (willing, status)): (&ReplicaId, &(bool, Status))| {
            !willing && !status.leaving && held.in_sync_member(*id).is_some() && *id != suspect.id
        };
        if votes.iter().any(against) {
            return self.calm(RETRY);
        }
        let statuses: Vec<_> = votes.values().map(|(_, status)| status.clone()).collect();
        let candidates = self.candidates(&held, suspect, &statuses);
        let all_in_sync = candidates.len() == held.in_sync.len();
        let cold = !self.seen_leader
            && self.connected_at.is_some_and(|at| self.now.mono.since(at) < self.options.times.cold_start);
        if cold && !all_in_sync {
            let missing = held.in_sync.iter().map(|m| m.id).filter(|id| !candidates.iter().any(|c| c.id == *id));
            self.trouble = Some(format!("starting: waiting for {}", name(missing)));
            return self.calm(RETRY);
        }
        if candidates.is_empty() {
            let needed = name(held.in_sync.iter().map(|member| member.id));
            let why = statuses.iter().find_map(|status| {
                let replaced = held.in_sync_member(status.id).is_some_and(|member| member.store != status.store);
                replaced.then(|| format!(" (order-{} is there, but its disk is another one; to go on without the lost orders: tradenet recover)", status.id))
            });
            return self.troubled(format!("only {needed} has every order: start it{}", why.unwrap_or_default()));
        }
        let same =
            |status: &Status| (status.id, status.boot) == (suspect.id, suspect.boot) && holds(status, held.nonce);
        if candidates.iter().all(same) {
            // Electing it again would change nothing but the epoch's number.
            let why = candidates.iter().find_map(|status| status.trouble.clone());
            let why = why.unwrap_or_else(|| "the register does not answer it".to_owned());
            return self.troubled(format!("order-{} leads, but can't serve: {why}", suspect.id));
        }
        self.read_register(Some(candidates));
    }

    /// Who could lead: in sync, with that very disk, fit, and not the one that is suspected.
    fn candidates(&self, held: &Configuration, suspect: Leader, statuses: &[Status]) -> Vec<Status> {
        let seen = highest(statuses.iter().map(|status| status.committed).chain([self.seen]));
        let fit = |status: &&Status| {
            let right_disk = held.is_in_sync(status.id, status.store)
                || bug(Bug::ElectFromAnyone)
                || bug(Bug::ElectAnyStore) && held.in_sync_member(status.id).is_some();
            right_disk
                && (status.id, status.boot) != (suspect.id, suspect.boot)
                && status.role != Role::Starting
                && !status.leaving
                && status.trouble.is_none()
                && (status.tail.seq >= seen || bug(Bug::ElectShortTails))
        };
        let idle_leader_returns = |status: &&Status| {
            // A leader that was elected, never took up the lead, and still answers, if nobody else is fit.
            held.is_in_sync(status.id, status.store) && status.role != Role::Starting && status.tail.seq >= seen
        };
        let candidates: Vec<_> = statuses.iter().filter(fit).cloned().collect();
        let all_answered = held.in_sync.iter().all(|member| statuses.iter().any(|status| status.id == member.id));
        if candidates.is_empty() && all_answered {
            return statuses.iter().filter(idle_leader_returns).filter(|status| !status.leaving).cloned().collect();
        }
        candidates
    }

    // ------------------------------------------------------------ the register

    fn ask(&mut self, request: impl FnOnce(u64) -> RegisterRequest) {
        self.ticket += 1;
        self.asked_at = self.now.mono;
        self.wishes.push_back(Wish::Register(request(self.ticket)));
    }

    fn read_register(&mut self, candidates: Option<Vec<Status>>) {
        self.last_read = self.now.mono;
        self.phase = Phase::Reading { candidates };
        self.ask(|ticket| RegisterRequest::Read { ticket });
    }

    fn propose(&mut self, target: Configuration, expected: Option<Revision>) {
        self.asked_at = self.now.mono;
        self.phase = Phase::Proposing { target: Box::new(target), expected, sent: self.now.mono };
        self.send_proposal();
    }

    /// Sends the proposal, again and again until it is answered: who has it already does not begin anew.
    fn send_proposal(&mut self) {
        let now = self.now.mono;
        let Phase::Proposing { target, expected, sent } = &mut self.phase else { return };
        *sent = now;
        let message = Message::Propose { configuration: target.clone(), expected: *expected };
        self.wishes.push_back(Wish::Send(Peer::Order(target.leader.id), message));
    }

    /// The replica that would lead says what became of the proposal.
    pub(crate) fn proposal_answered(&mut self, now: Now, nonce: Nonce, verdict: Verdict) {
        self.now = now;
        let Phase::Proposing { target, .. } = &self.phase else { return };
        if target.nonce != nonce {
            return;
        }
        let target = target.clone();
        match verdict {
            Verdict::Written => {
                self.adopt(now, &target);
            }
            // Whatever became of it, the register knows: a read follows, and shows it or the winner's.
            Verdict::Conflict => {
                self.attempts.conflict += 1;
                self.read_register(None);
            }
            Verdict::Unknown(_) => {
                self.attempts.unknown += 1;
                self.read_register(None);
            }
            Verdict::Refused(why) => {
                self.attempts.refused += 1;
                let (id, epoch) = (target.leader.id, target.epoch);
                self.wishes.push_back(Wish::Output(Output::info(format!("order-{id} refuses epoch {epoch}: {why}"))));
                self.calm(RETRY);
            }
        }
    }

    pub(crate) fn register_answered(&mut self, now: Now, answer: RegisterAnswer) {
        self.now = now;
        if answer.ticket() != self.ticket {
            return;
        }
        self.last_read = now.mono;
        match (std::mem::replace(&mut self.phase, Phase::Calm), answer) {
            (Phase::Reading { candidates }, RegisterAnswer::Read { configuration, floor, .. }) => {
                self.was_read(candidates, &configuration, &floor);
            }
            (_, RegisterAnswer::Unknown { why, .. }) => {
                if self.serving(now.mono).is_none() {
                    self.trouble = Some(format!("the broker's register does not answer: {why}"));
                }
                self.calm(RETRY);
            }
            _ => self.calm(RETRY),
        }
    }

    fn was_read(&mut self, candidates: Option<Vec<Status>>, slot: &Slot<Configuration>, floor: &Slot<Floor>) {
        let statuses = self.peers.values().filter_map(|view| view.status.as_ref());
        let Some(value) = slot.value().filter(|value| stands(value, floor, statuses)).cloned() else {
            self.beyond_repair = None;
            return self.repair(slot, floor);
        };
        self.beyond_repair = None;
        if self.configuration.as_ref().is_some_and(|held| held.cluster != value.cluster) {
            if self.seen_leader || self.seen > SeqNum(0) {
                return self.troubled("the register holds another exchange's record".to_owned());
            }
            // Its first record was lost before anybody served in it, and the exchange has begun anew.
            self.configuration = None;
        }
        let known = self.configuration.as_ref();
        if known.is_none_or(|held| held.nonce != value.nonce) {
            // Where it is not newer, the register went back, and the floor shows that nobody served in the lost record.
            self.configuration = known.filter(|held| held.epoch < value.epoch).cloned();
            self.adopt(self.now, &value);
            return;
        }
        let Some(candidates) = candidates else {
            return self.calm(Duration::ZERO);
        };
        let Some(best) = candidates.iter().max_by_key(|status| status.id) else {
            return self.calm(RETRY);
        };
        let why = format!("order-{} does not lead any more", value.leader.id);
        let leader = Leader { id: best.id, boot: best.boot };
        let in_sync = candidates.iter().map(|status| Member { id: status.id, store: status.store }).collect();
        let follows = proposal::followed(&value, floor);
        let target = self.next(value.cluster, value.epoch.next(), leader, in_sync, follows, why);
        self.propose(target, slot.revision());
    }

    fn next(
        &mut self,
        cluster: ClusterId,
        epoch: Epoch,
        leader: Leader,
        mut in_sync: Vec<Member>,
        follows: Vec<RecordId>,
        why: String,
    ) -> Configuration {
        self.nonces += 1;
        let nonce = Nonce(self.options.boot.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.nonces));
        in_sync.sort_by_key(|member| member.id);
        let (members, by) = (self.options.members.clone(), Node::Frontend(self.options.boot));
        Configuration { cluster, epoch, nonce, leader, in_sync, members, follows, by, why, at: self.now.wall_ms }
    }

    /// The register is missing, unreadable or older than what is known (rules R7 and R8).
    fn repair(&mut self, slot: &Slot<Configuration>, floor: &Slot<Floor>) {
        let (now, suspect) = (self.now.mono, self.options.times.suspect);
        let lately = |view: &PeerView| view.heard.is_some_and(|at| now.since(at) < suspect) && !view.gone;
        let ready = |view: &&PeerView| lately(view) && view.status.as_ref().is_some_and(|s| s.role != Role::Starting);
        let missing: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, view)| !ready(view) && !bug(Bug::RebuildFromSome))
            .map(|(id, _)| *id)
            .collect();
        let statuses: Vec<_> = self.peers.values().filter_map(|view| view.status.clone()).collect();
        let state = proposal::state(slot);
        if !missing.is_empty() {
            let missing = name(missing);
            let held_by_none = statuses.iter().all(|status| status.configuration.is_none());
            if held_by_none && slot.is_missing() && floor.is_missing() {
                return self.troubled(format!("first start: waiting for {missing}"));
            }
            return self.troubled(format!(
                "the register {state}; it is written anew when every replica answers: start {missing}, or accept what \
                 may be lost with: tradenet recover"
            ));
        }
        let evidence = Evidence { configuration: slot, floor, statuses: &statuses, seen: self.seen };
        let rebuild = match proposal::rebuild(&evidence) {
            Ok(rebuild) => rebuild,
            Err(Unrepaired::Operator(why)) => {
                self.beyond_repair = Some(why.clone());
                return self.troubled(why);
            }
            Err(Unrepaired::NotYet(why)) => return self.troubled(why),
        };
        let Some((leader, in_sync)) = rebuild.choice() else { return };
        // A record that needs its buckets made takes a while; who is told that another one is being written waits for it.
        if self.repaired_at.is_some_and(|at| now.since(at) < RETRY) {
            return self.calm(RETRY);
        }
        self.repaired_at = Some(now);
        let Some(newest) = &rebuild.newest else {
            if self.configuration.is_some() {
                return self.troubled(proposal::EMPTIED.to_owned());
            }
            self.info("first start: proposing the first configuration".to_owned());
            let cluster = ClusterId(self.options.boot.0.rotate_left(17) ^ self.now.wall_ms);
            let target = self.next(cluster, rebuild.epoch, leader, in_sync, Vec::new(), "first start".to_owned());
            return self.propose(target, None);
        };
        // A record that only this frontend has seen was served by nobody, but its number is not given again.
        let known = self.configuration.as_ref().map(|held| held.epoch.next());
        let epoch = rebuild.epoch.max(known.unwrap_or_default());
        self.info(format!("the register {state}: to be written anew from what all replicas hold, as epoch {epoch}"));
        let why = "the register was repaired".to_owned();
        let target = self.next(newest.cluster, epoch, leader, in_sync, rebuild.follows.clone(), why);
        self.propose(target, slot.revision());
    }
}

/// Replicas by name: `order-1, order-2`.
fn name(ids: impl IntoIterator<Item = ReplicaId>) -> String {
    ids.into_iter().map(|id| format!("order-{id}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proposal::tests::{id, record};

    const MEMBERS: [u8; 3] = [1, 2, 3];

    /// What it says under a leader 3; that far its log goes.
    fn status(number: u8, role: Role, tail: u64) -> Status {
        Status { role, ..crate::proposal::tests::status(number, Some(record(1, 3, &MEMBERS)), tail) }
    }

    /// Who is asked with each of some heartbeats, if `answers` says of each what comes back with the first and the later ones.
    fn asked(answers: impl Fn(u8, usize) -> Option<Status>, reconnects_at: Option<usize>) -> Vec<Vec<u8>> {
        let times = Times::default();
        let options = Options { boot: Boot(9), members: MEMBERS.map(id).to_vec(), times };
        let mut elector = Elector::new(options);
        let at = |beat: usize| Now { mono: Mono(10_000_000 + 100_000 * beat as u64), wall_ms: 0 };
        elector.connected(at(0));
        // The register is not to be asked meanwhile.
        elector.last_read = at(0).mono;
        let beat = |beat: usize| {
            if reconnects_at == Some(beat) {
                elector.disconnected(at(beat));
                elector.connected(at(beat));
            }
            elector.tick(at(beat));
            let wishes: Vec<_> = elector.wishes.drain(..).collect();
            let asked = wishes.into_iter().filter_map(|wish| match wish {
                Wish::Send(Peer::Order(id), Message::Heartbeat { .. }) => Some(id.get()),
                _ => None,
            });
            let asked: Vec<u8> = asked.collect();
            for status in asked.iter().filter_map(|number| answers(*number, beat)) {
                let soon = Now { mono: Mono(at(beat).mono.0 + 1_000), wall_ms: 0 };
                elector.status_arrived(soon, status);
            }
            asked
        };
        (0..6).map(beat).collect()
    }

    #[test]
    fn followers_are_asked_with_every_other_heartbeat_while_nothing_happens() {
        let role = |number| if number == 3 { Role::Leader } else { Role::Follower };
        let (all, leader) = (|| vec![1, 2, 3], || vec![3]);
        let check =
            |what: &str, answers: &dyn Fn(u8, usize) -> Option<Status>, reconnects_at, expected: [Vec<u8>; 6]| {
                assert_eq!(asked(answers, reconnects_at), expected, "{what}");
            };
        let fine = |number: u8, _| Some(status(number, role(number), 7));
        check("all is in order", &fine, None, [all(), leader(), all(), leader(), all(), leader()]);
        check("after a reconnect", &fine, Some(1), [all(), all(), leader(), all(), leader(), all()]);
        let trades =
            |number: u8, beat| Some(status(number, role(number), if number == 3 { 8 + beat as u64 } else { 7 }));
        check("the leader is ahead", &trades, None, [all(), all(), all(), all(), all(), all()]);
        let silent = |number: u8, beat| (number != 1 || beat == 0).then(|| status(number, role(number), 7));
        check("one is silent", &silent, None, [all(), leader(), all(), vec![1, 3], all(), vec![1, 3]]);
        let nobody_leads = |number: u8, _| Some(status(number, Role::Follower, 7));
        check("nobody serves", &nobody_leads, None, [all(), all(), all(), all(), all(), all()]);
        let troubled =
            |number: u8, _| Some(Status { trouble: Some("full".to_owned()), ..status(number, role(number), 7) });
        check("the leader has trouble", &troubled, None, [all(), all(), all(), all(), all(), all()]);
    }
}
