//! An order replica: keeps the log, and leads or follows.
//!
//! Problem: three processes must agree on one sequence of orders while any of them may stop, pause, lose its disk or be
//! cut off; and no client may ever be told of an order that is not on every in-sync disk.
//!
//! Idea: a primary-backup log in the shape of PacificA (Lin et al., MSR-TR-2008-25) and of Kafka's in-sync replicas. One
//! record outside, the configuration, says who leads and who is in sync; every change of it is a new epoch. Within an
//! epoch the leader alone appends; an entry is committed when it is on the disk of every in-sync member.
//!
//! Rules kept here (`docs/protocol.md` has them all): R1 commit on all of `in_sync` and `pending`; R2 a restarted leader is
//! another process; R3 acknowledgements count only from the disk that is named; R4 the epoch is on disk before anything
//! is acknowledged in it, and the floor is taken before anything is served in it; R5 what may change is answered only
//! after a confirmation round; R6 shrink first, then commit without; count a learner first, then write it.
//!
//! - this file: start, adoption of configurations, what all roles answer;
//! - [`follow`]: appending what the leader sends, catching up;
//! - [`lead`]: activation, batches, commit, release; [`change`]: changes of the configuration; [`attach`]: the catalog;
//! - [`feed`]: what everybody may know, told to frontends and to who follows the market on the broker;
//! - [`lookup`]: orders that only the journal has any more;
//! - [`clerk`]: what frontends propose, checked and written;
//! - [`queue`]: commands that wait to be decided; [`remembered`]: what was answered without an entry;
//! - [`transfer`]: catching up from far behind, with a peer's snapshot;
//! - [`keep`]: which snapshot a start begins with, and when one is made; [`snapshot`]: what is in it;
//! - [`observe`]: what is counted, and shown to people.

mod attach;
mod change;
mod clerk;
mod disk;
mod feed;
mod follow;
mod keep;
mod lead;
mod log;
mod lookup;
mod observe;
mod queue;
mod remembered;
mod scrub;
pub mod snapshot;
mod transfer;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tradenet_schemas::ids::{Boot, Epoch, Leader, Node, Position, ReplicaId, SeqNum, StoreId};
use tradenet_schemas::journal::Entry;
use tradenet_schemas::limits::{BATCH_BYTES_MAX, CHUNK_BYTES_MAX};
use tradenet_schemas::message::{Configuration, Envelope, Message, Role, Status};
use tradenet_schemas::subjects::Peer;

use crate::bugs::{Bug, bug};
use crate::exchange::Exchange;
use crate::metrics::{Aside, Readings};
use crate::ticks::Ticks;
use crate::times::Times;
use crate::{
    Decider, DiskAnswer, DiskRequest, DiskTicket, Input, Mono, Now, Output, Packet, RegisterAnswer, ReplyTo, Stop,
    journal,
};
use clerk::Clerk;
use disk::Disk;
use feed::State;
use follow::Following;
use keep::Keeping;
use lead::{Acknowledgement, Leading};
use log::{Log, Place};
use lookup::Part;
use observe::Counts;
use scrub::Scrubbing;
use snapshot::Snapshot;
use transfer::Transfer;

pub use observe::METRICS;
pub use transfer::{CATCH_UP_BYTES_PER_S, FAR_BEHIND_ENTRIES};

/// A tick that comes so late means that the process was paused: nobody is judged by that time.
const PAUSED: Duration = Duration::from_millis(250);
/// How much of the journal is read at once.
const READ_BYTES_MAX: usize = 1 << 20;
/// How many reads of the journal for others are under way.
const READS_MAX: usize = 8;
/// How many messages wait for an epoch to be on disk.
const HELD_MAX: usize = 32;
/// How many pre-votes wait for a sign of the leader.
const VOTES_MAX: usize = 64;
/// How long a replica waits for a sign of the leader before it votes against replacing it.
const VOTE_WAIT: Duration = Duration::from_millis(100);
/// A replica that has not fallen for so long is as good as one that never did.
const FALLS_FORGOTTEN: Duration = Duration::from_secs(300);
/// How long a leaving leader looks for an heir who does not leave too: where everybody is told to stop at once, all stay in
/// sync, and any of them can lead when they are back.
const LEAVE_TOGETHER: Duration = Duration::from_millis(100);
/// How long a leaving follower waits to be taken out of the in-sync set.
const LEAVE_IN_SYNC: Duration = Duration::from_millis(700);
/// A leader that is heard, but answers no probe for so long, may be replaced.
const DEAF: Duration = Duration::from_secs(1);
/// How long after a full disk the next append is tried.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// What a replica is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which replica.
    pub id: ReplicaId,
    /// This run of it.
    pub boot: Boot,
    /// The directory's identity.
    pub store: StoreId,
    /// All replicas of the exchange.
    pub members: Vec<ReplicaId>,
    /// The protocol's periods.
    pub times: Times,
    /// The configuration that the directory holds.
    pub configuration: Option<Configuration>,
    /// The journal's size, in bytes.
    pub journal_bytes: u64,
    /// How much of the journal there is from one snapshot to the next, in bytes:
    /// [`snapshot::SNAPSHOT_EVERY_BYTES`] but in tests.
    pub snapshot_every_bytes: u64,
    /// How many of the newest orders the state keeps: [`ORDERS_KEPT`](crate::exchange::ORDERS_KEPT) but in tests.
    pub orders_kept: usize,
    /// A replica that has missed more entries looks for a snapshot of a peer: [`FAR_BEHIND_ENTRIES`] but in tests.
    pub far_behind_entries: u64,
    /// How much of snapshots and journals is copied in a second at most, in bytes, by a replica that is so far behind.
    pub catch_up_bytes_per_s: u64,
}

/// Why a part of the journal is read.
#[derive(Clone, Debug)]
enum ReadFor {
    /// To check and index it at the start, from this byte on.
    Start,
    /// To apply entries behind the first of these; what is read begins behind the second.
    Apply(SeqNum, Position),
    /// For a peer that asked for the entries behind `asked`; what is read begins behind `from`, which may be a little before.
    /// No more than so many bytes of lines are given. Void once the log has been cut.
    Peer { reply: ReplyTo, asked: Position, from: Position, most: usize, cuts: u64 },
    /// The newest snapshot but so many.
    Snapshot(usize),
    /// The line of the journal with which that snapshot ends.
    LastLine(Box<Snapshot>, usize),
    /// To see whether it is as it was written, up to there.
    Scrub(Place),
    /// To find old orders that somebody asked for.
    Orders(Part),
    /// A part of a snapshot for a peer: of that one or the newest, from that byte on.
    PeerSnapshot { reply: ReplyTo, of: Option<Position>, offset: u64 },
}

/// A pre-vote that waits for a sign of life of the leader.
#[derive(Clone, Debug)]
struct Vote {
    reply: ReplyTo,
    suspect: Leader,
    since: Mono,
}

/// How often a replica fell out of the in-sync set lately.
#[derive(Clone, Copy, Default, Debug)]
struct Falls {
    count: u32,
    last: Mono,
}

/// An order replica. See the module.
#[derive(Clone, Debug)]
pub struct Replica {
    options: Options,
    now: Now,
    /// The newest configuration on this disk.
    configuration: Option<Configuration>,
    /// The end of the log came from the leader of that one, in its epoch: no other record of it has entries there.
    ends_by_it: bool,
    /// The one before it by which the end of the log was written, if this process has seen that.
    written_by: Option<Box<Configuration>>,
    /// The one that is on its way to the disk.
    adopting: Option<(DiskTicket, Configuration)>,
    /// What arrived for the epoch that is on its way to the disk.
    held: VecDeque<(Packet, Option<ReplyTo>)>,
    log: Log,
    disk: Disk,
    reads: Vec<(DiskTicket, ReadFor)>,
    /// While starting: how much of the journal has been checked, and what was read behind that.
    starting: Option<(u64, Vec<u8>)>,
    keeping: Keeping,
    scrubbing: Scrubbing,
    state: State,
    committed: SeqNum,
    following: Following,
    transfer: Option<Transfer>,
    /// Before that no other one is begun.
    transfer_after: Mono,
    transfers_in_vain: u32,
    leading: Option<Box<Leading>>,
    clerk: Clerk,
    votes: Vec<Vote>,
    /// Since when no pre-vote's probe of the leader was answered, though the leader is heard.
    deaf_since: Option<Mono>,
    /// The newest confirmation round that this process has begun, as whichever leader.
    rounds: u64,
    register_ticket: u64,
    nonces: u64,
    /// How often the log was cut.
    cuts: u64,
    counts: Aside<Counts>,

    /// When the configuration was adopted.
    adopted_at: Mono,
    connected: bool,
    /// The journal was damaged: under another name the directory's good part counts when this is done.
    giving_up: Option<DiskTicket>,
    /// How often each replica fell out lately.
    falls: BTreeMap<ReplicaId, Falls>,
    leaving: Option<Mono>,
    full_since: Option<Mono>,
    last_tick: Mono,
    ticks: Ticks,
    dirty: bool,
    stopped: bool,
    outputs: VecDeque<Output>,
}

impl Replica {
    /// A replica that begins by reading its newest snapshot, and its journal from there on.
    pub fn new(options: Options) -> Self {
        let mut replica = Self {
            now: Now::default(),
            configuration: options.configuration.clone(),
            ends_by_it: false,
            written_by: None,
            adopting: None,
            held: VecDeque::new(),
            log: Log::default(),
            disk: Disk::new(options.journal_bytes),
            reads: Vec::new(),
            starting: Some((0, Vec::new())),
            keeping: Keeping::new(options.snapshot_every_bytes),
            scrubbing: Scrubbing::new(),
            state: State::keeping(options.orders_kept),
            committed: SeqNum(0),
            following: Following::default(),
            transfer: None,
            transfer_after: Mono(0),
            transfers_in_vain: 0,
            leading: None,
            clerk: Clerk::default(),
            votes: Vec::new(),
            deaf_since: None,
            rounds: 0,
            register_ticket: 0,
            nonces: 0,
            cuts: 0,
            counts: Aside::default(),
            adopted_at: Mono(0),
            connected: false,
            giving_up: None,
            falls: BTreeMap::new(),
            leaving: None,
            full_since: None,
            last_tick: Mono(0),
            ticks: Ticks::default(),
            dirty: false,
            stopped: false,
            outputs: VecDeque::new(),
            options,
        };
        replica.load_snapshot(0);
        replica
    }

    /// What it says of itself.
    pub fn status(&self) -> Status {
        Status {
            id: self.options.id,
            boot: self.options.boot,
            store: self.options.store,
            role: self.role(),
            configuration: self.configuration.clone(),
            tail: self.log.tail(),
            durable: self.durable(),
            committed: self.committed,
            applied: self.state.exchange.applied().min(self.committed),
            released: self.leading.as_ref().map_or(SeqNum(0), |leading| leading.released()),
            catalog: self.leading.as_ref().and_then(|_| self.state.exchange.catalog()),
            leaving: self.leaving.is_some(),
            contested: self.is_contested(),
            written_by: self.written_by.clone().filter(|before| before.epoch == self.log.tail().epoch),
            answers: None,
            unlisted: self.is_unlisted(),
            trouble: self.trouble(),
        }
    }

    /// The end of the log.
    pub fn tail(&self) -> Position {
        self.log.tail()
    }

    /// The last entry that is known to be committed.
    pub fn committed(&self) -> SeqNum {
        self.committed
    }

    /// Where an entry stands; none behind the end of the log, and of old entries only for some.
    pub fn position(&self, seq: SeqNum) -> Option<Position> {
        self.log.position(seq)
    }

    /// An entry, if it is among the newest.
    pub fn entry(&self, seq: SeqNum) -> Option<&Entry> {
        self.log.entry(seq)
    }

    /// As a leader that serves: the configuration by which it counts commits.
    pub fn serves_in(&self) -> Option<&Configuration> {
        let leading = self.leading.as_ref().filter(|leading| leading.serves())?;
        Some(&leading.in_force)
    }

    /// The state that is applied so far.
    pub fn exchange(&self) -> &Exchange {
        &self.state.exchange
    }

    /// What it does at present.
    pub fn role(&self) -> Role {
        match (&self.starting, &self.leading) {
            (Some(_), _) => Role::Starting,
            (None, Some(leading)) if leading.serves() => Role::Leader,
            (None, Some(_)) => Role::Activating,
            (None, None) if self.is_in_sync() => Role::Follower,
            (None, None) => Role::Learner,
        }
    }

    fn trouble(&self) -> Option<String> {
        if self.disk.is_full() {
            return Some("its disk is full: make room".to_owned());
        }
        let stuck = self.leading.as_ref().and_then(|leading| leading.stuck_since())?;
        let long = self.now.mono.since(stuck) > self.options.times.stuck * 2;
        long.then(|| "an order waits to be committed: a replica or the register does not answer it".to_owned())
    }

    fn is_unlisted(&self) -> bool {
        let listed = self.state.exchange.listed();
        self.leading.as_ref().is_some_and(|leading| listed.is_none_or(|seq| seq > leading.released()))
    }

    fn is_in_sync(&self) -> bool {
        self.configuration.as_ref().is_some_and(|held| held.is_in_sync(self.options.id, self.options.store))
    }

    fn epoch(&self) -> Epoch {
        self.configuration.as_ref().map_or(Epoch(0), |held| held.epoch)
    }

    fn me(&self) -> Leader {
        Leader { id: self.options.id, boot: self.options.boot }
    }

    /// The last entry that is on disk.
    fn durable(&self) -> SeqNum {
        let confirmed = self.disk.confirmed();
        let tail = self.log.tail().seq;
        if confirmed >= self.log.bytes() {
            return tail;
        }
        self.log.last_within(confirmed)
    }

    // ------------------------------------------------------------ what goes out

    fn packet(&self, body: Message, lines: Bytes) -> Packet {
        let envelope = Envelope {
            cluster: self.configuration.as_ref().map(|held| held.cluster),
            epoch: self.epoch(),
            from: Node::Order(self.options.id, self.options.boot),
            body,
        };
        Packet::new(envelope, lines)
    }

    fn send(&mut self, to: Peer, body: Message) {
        let packet = self.packet(body, Bytes::new());
        self.outputs.push_back(Output::Send { to, packet });
    }

    fn reply(&mut self, to: ReplyTo, body: Message) {
        let packet = self.packet(body, Bytes::new());
        self.outputs.push_back(Output::Reply { to, packet });
    }

    fn read(&mut self, why: ReadFor, offset: u64, bytes_max: usize) {
        let ticket = self.disk.ticket();
        self.reads.push((ticket, why));
        self.outputs.push_back(Output::Disk(DiskRequest::Read { ticket, offset, bytes_max }));
    }

    fn append_lines(&mut self, lines: Bytes) {
        if let Some(request) = self.disk.append(lines) {
            self.outputs.push_back(Output::Disk(request));
        }
    }

    fn stop(&mut self, why: Stop) {
        if !self.stopped {
            self.stopped = true;
            self.outputs.push_back(Output::Stop(why));
        }
    }

    fn broken(&mut self, why: impl Into<String>) {
        self.stop(Stop::Broken(why.into()));
    }

    // ------------------------------------------------------------ start

    /// Checks and indexes the next part of the journal (rule R9: nothing of a damaged journal is used).
    fn read_at_start(&mut self, bytes: &[u8]) {
        let Some((checked, mut rest)) = self.starting.take() else {
            return;
        };
        rest.extend_from_slice(bytes);
        let mut scan = journal::scan(&rest, self.log.tail());
        let mut bad = None;
        let mut used = 0;
        for scanned in &mut scan {
            match scanned {
                Ok(good) => {
                    used += good.bytes;
                    self.log.push(good.entry, good.position, good.bytes);
                }
                Err(error) => {
                    bad = Some(error);
                    break;
                }
            }
        }
        rest.drain(..used);
        let checked = checked + used as u64;
        if !bytes.is_empty() && bad.is_none() {
            let offset = checked + rest.len() as u64;
            self.starting = Some((checked, rest));
            return self.read(ReadFor::Start, offset, READ_BYTES_MAX);
        }
        let line = self.log.tail().seq.next();
        match bad {
            Some(error) if !error.is_damage() => {
                return self
                    .broken(format!("orders.jsonl can't be used from line {line}, byte {checked}, on: {error}"));
            }
            Some(error) => return self.give_up(checked, &error.to_string()),
            None if rest.is_empty() => {}
            None if !journal::is_torn_tail(&rest, self.log.tail()) => {
                return self.give_up(checked, "it does not end as it was written");
            }
            None => {
                let lost = rest.len();
                self.outputs.push_back(Output::warn(format!(
                    "orders.jsonl ends in the middle of line {line}: cut the last {lost} bytes, a torn write that began \
                     at byte {checked}"
                )));
                let request = self.disk.cut(checked);
                self.outputs.push_back(Output::Disk(request));
            }
        }
        self.started();
    }

    /// What was acknowledged may be missing, so this is not the disk any more that the record names: under another name it
    /// is a learner's (rule R3), which keeps what is good and is filled again by its peers.
    fn give_up(&mut self, bytes: u64, why: &str) {
        let line = self.log.tail().seq.next();
        // A boot is random and never comes again, so nobody else has this name.
        let store = if bug(Bug::KeepNameOnDamage) { self.options.store } else { StoreId(self.options.boot.0) };
        self.outputs.push_back(Output::warn(format!(
            "orders.jsonl is damaged at line {line}, byte {bytes}: {why}. Kept aside; its good part counts as a learner's, \
             store {store}, and is filled again by the others"
        )));
        self.options.store = store;
        self.starting = Some((bytes, Vec::new()));
        let request = self.disk.give_up(store, bytes);
        if let DiskRequest::GiveUp { ticket, .. } = &request {
            self.giving_up = Some(*ticket);
        }
        self.outputs.push_back(Output::Disk(request));
    }

    fn given_up(&mut self) {
        self.giving_up = None;
        self.starting = None;
        self.started();
    }

    fn started(&mut self) {
        let (tail, epoch) = (self.log.tail(), self.epoch());
        if tail.epoch > epoch {
            return self.broken(format!(
                "orders.jsonl holds entries of epoch {}, but configuration.json only epoch {epoch}: the files are not of \
                 one replica. Remove the directory and let this replica fill itself from its peers",
                tail.epoch
            ));
        }
        self.outputs.push_back(Output::info(format!("journal read: {} entries, epoch {epoch}", tail.seq)));
        if bug(Bug::RestartedLeaderGoesOn) {
            self.go_on_leading();
        }
    }

    /// For [`Bug::RestartedLeaderGoesOn`].
    fn go_on_leading(&mut self) {
        let (me, in_sync) = (self.me(), self.is_in_sync());
        if let Some(held) = self.configuration.as_mut().filter(|held| in_sync && held.leader.id == me.id) {
            held.leader = me;
            self.activate();
        }
    }

    // ------------------------------------------------------------ state

    /// Applies entries up to `to`, from memory or from the file.
    fn apply_up_to(&mut self, to: SeqNum) {
        if self.looks_for_snapshot() {
            return; // It may spare most of the way.
        }
        while self.state.exchange.applied() < to {
            let next = self.state.exchange.applied().next();
            let Some(entry) = self.log.entry(next) else {
                let applied = self.state.exchange.applied();
                if !self.reads.iter().any(|(_, why)| matches!(why, ReadFor::Apply(from, _) if *from == applied)) {
                    let from = self.log.place_at_or_before(applied);
                    self.read(ReadFor::Apply(applied, from.position), from.end, READ_BYTES_MAX);
                }
                return;
            };
            self.state.apply(entry);
        }
    }

    /// How many of so many bytes, which were read from behind an entry on, are of the log: what of the file is behind it is about to be
    /// cut, or taken over.
    fn of_the_log(&self, from: SeqNum, bytes: usize) -> usize {
        let left = self.log.bytes().saturating_sub(self.log.place_at_or_before(from).end);
        usize::try_from(left).unwrap_or(usize::MAX).min(bytes)
    }

    fn read_to_apply(&mut self, applied: SeqNum, from: Position, bytes: &[u8], to: SeqNum) {
        if applied != self.state.exchange.applied() {
            return;
        }
        let mut scan = journal::scan(&bytes[..self.of_the_log(from.seq, bytes.len())], from);
        while let Some(scanned) = scan.next() {
            match scanned {
                Ok(good) if !self.log.contains(good.position) || good.position.seq > to => break,
                Ok(good) if good.position.seq <= applied => {}
                Ok(good) => self.state.apply(&good.entry),
                Err(error) => return self.gone_bad(scan.position(), &error.to_string()),
            }
        }
        self.dirty = true;
    }

    /// How far the state may go: a leader decides against its newest entry, everybody else shows what is committed.
    fn apply_target(&self) -> SeqNum {
        if self.leading.is_some() { self.log.tail().seq } else { self.committed }
    }

    /// Removes what a newer leader does not have. Nothing known to be committed is ever among it (invariant S14).
    fn cut_behind(&mut self, seq: SeqNum) -> bool {
        if seq < self.committed {
            let committed = self.committed;
            self.broken(format!(
                "told to cut the log behind {seq}, but {committed} is committed: this must not happen"
            ));
            return false;
        }
        self.end_transfer("the log is cut");
        let tail = self.log.tail().seq;
        self.cuts += 1;
        if !self.log.cut(seq) {
            self.broken(format!(
                "told to cut entries {} to {tail}, more than were ever under way at once. Remove the directory and let \
                 this replica fill itself from its peers",
                seq.next()
            ));
            return false;
        }
        if self.state.exchange.applied() > seq {
            self.state = State::keeping(self.options.orders_kept);
            self.load_snapshot(0);
        }
        let request = self.disk.cut(self.log.bytes());
        self.outputs.push_back(Output::Disk(request));
        self.outputs.push_back(Output::warn(format!(
            "cut entries {} to {tail}, which a former leader wrote and nobody was told of",
            seq.next()
        )));
        true
    }

    // ------------------------------------------------------------ configurations

    /// The newest configuration known, on disk or on its way there.
    fn newest(&self) -> Option<&Configuration> {
        self.adopting.as_ref().map(|(_, adopting)| adopting).or(self.configuration.as_ref())
    }

    /// Takes on a configuration if it is newer: it goes to disk before anything is done in it (rule R4).
    fn adopt(&mut self, configuration: &Configuration) {
        let newest = self.newest();
        if newest.is_some_and(|held| held.cluster != configuration.cluster || held.epoch >= configuration.epoch) {
            return;
        }
        if !configuration.members.contains(&self.options.id) {
            return;
        }
        let change = self.leading.as_ref().and_then(|leading| leading.change.as_ref());
        let own = change.is_some_and(|change| change.nonce() == configuration.nonce);
        if !own || configuration.leader != self.me() {
            // Also where somebody else names this very process: elected anew, it begins anew.
            self.step_down(configuration);
        }
        let ticket = self.disk.ticket();
        let persist = DiskRequest::Persist { ticket, configuration: Box::new(configuration.clone()) };
        self.outputs.push_back(Output::Disk(persist));
        self.adopting = Some((ticket, configuration.clone()));
        if bug(Bug::AdoptBeforePersist) {
            self.adopted(ticket);
        }
    }

    fn adopted(&mut self, ticket: DiskTicket) {
        if self.adopting.as_ref().is_none_or(|(asked, _)| *asked != ticket) {
            return;
        }
        let Some((_, configuration)) = self.adopting.take() else {
            return;
        };
        self.count_falls(&configuration);
        let former = self.configuration.as_ref().map(|held| (held.leader, held.epoch.next()));
        let mine = configuration.leader == self.me();
        self.outputs.push_back(Output::info(format!(
            "epoch {}: order-{} leads, in sync {:?} ({})",
            configuration.epoch,
            configuration.leader.id,
            configuration.in_sync.iter().map(|member| member.id.get()).collect::<Vec<_>>(),
            configuration.why
        )));
        // Where an epoch was missed, the same process may lead with another log than before.
        let unbroken = former == Some((configuration.leader, configuration.epoch));
        self.following.enter(configuration.epoch, unbroken);
        self.adopted_at = self.now.mono;
        self.deaf_since = None;
        let before = self.configuration.replace(configuration);
        if let Some(before) = before.filter(|_| self.ends_by_it) {
            self.written_by = Some(Box::new(before));
        }
        self.ends_by_it = false;
        if mine || self.is_in_sync() {
            self.is_counted_on();
        }
        if self.leading.is_some() {
            self.change_persisted();
        } else if mine {
            self.activate();
        } else if bug(Bug::CutOnCatchUp) && self.committed < self.log.tail().seq {
            self.cut_behind(self.committed);
        }
        for (packet, reply) in std::mem::take(&mut self.held) {
            self.received(packet, reply);
        }
    }

    /// Whoever was in sync and is not any more has fallen: it waits longer before it leads again.
    fn count_falls(&mut self, newer: &Configuration) {
        let Some(held) = &self.configuration else { return };
        let now = self.now.mono;
        for member in held.in_sync.iter().filter(|member| newer.in_sync_member(member.id).is_none()) {
            let falls = self.falls.entry(member.id).or_default();
            let recent = now.since(falls.last) < FALLS_FORGOTTEN;
            *falls = Falls { count: if recent { falls.count + 1 } else { 1 }, last: now };
        }
    }

    /// `wait`, doubled for each recent fall of that replica but the first.
    fn patience(&self, id: ReplicaId, wait: Duration, max: Duration) -> Duration {
        let falls = self.falls.get(&id).filter(|falls| self.now.mono.since(falls.last) < FALLS_FORGOTTEN);
        let doublings = falls.map_or(0, |falls| falls.count.saturating_sub(1).min(16));
        (wait * 2u32.pow(doublings)).min(max)
    }

    // ------------------------------------------------------------ messages

    fn received(&mut self, packet: Packet, reply: Option<ReplyTo>) {
        let from = packet.envelope.from;
        if from.boot() == self.options.boot {
            return;
        }
        let known = self.newest().map(|held| held.cluster);
        if known.is_some() && packet.envelope.cluster.is_some() && known != packet.envelope.cluster {
            self.outputs.push_back(Output::debug(format!("dropped a message of another exchange from {from:?}")));
            return;
        }
        if self.starting.is_some() && !matches!(packet.body(), Message::Heartbeat { .. }) {
            return;
        }
        match (packet.envelope.body, from, reply) {
            (Message::Heartbeat { question }, _, Some(reply)) => {
                let status = Message::Status(Box::new(Status { answers: question, ..self.status() }));
                self.reply(reply, status);
            }
            (Message::PreVote { suspect }, _, Some(reply)) => self.pre_vote(reply, packet.envelope.epoch, suspect),
            (Message::Announce(configuration) | Message::Fenced(configuration), Node::Order(..), _) => {
                self.adopt(&configuration);
            }
            (Message::Propose { configuration, expected }, _, Some(reply)) => {
                self.proposed(*configuration, expected, reply);
            }
            (Message::Status(status), Node::Order(..), _) => self.peer_answered(&status),
            (body @ Message::Append { .. }, Node::Order(id, boot), reply) => {
                let sender = Leader { id, boot };
                let envelope = Envelope { cluster: packet.envelope.cluster, epoch: packet.envelope.epoch, from, body };
                let packet = Packet::new(envelope, packet.lines);
                self.append_arrived(sender, packet, reply);
            }
            (Message::Ack { store, durable, round, leaving }, Node::Order(id, boot), _) => {
                let ack = Acknowledgement { id, boot, epoch: packet.envelope.epoch, store, durable, round, leaving };
                self.acknowledged(&ack);
            }
            (Message::FetchSnapshot { of, offset, bytes_max }, Node::Order(..), Some(reply)) => {
                self.snapshot_asked(reply, of, offset, bytes_max);
            }
            (Message::SnapshotPart { of, size_bytes, offset }, Node::Order(id, _), _) => {
                self.snapshot_part_arrived(id, packet.envelope.epoch, of, size_bytes, offset, &packet.lines);
            }
            (Message::Fetch { from, bytes_max }, Node::Order(..), Some(reply)) => {
                let most = bytes_max.and_then(|most| usize::try_from(most).ok()).unwrap_or(CHUNK_BYTES_MAX);
                self.fetch_asked(reply, from, most.min(CHUNK_BYTES_MAX));
            }
            (Message::Chunk { asked, prev, tail, committed }, Node::Order(id, boot), _) => {
                let sender = Leader { id, boot };
                if self.scrub_chunk(id, asked, prev, &packet.lines)
                    || self.transfer_chunk(sender, packet.envelope.epoch, asked, prev, &packet.lines)
                {
                    return;
                }
                self.chunk_arrived(sender, packet.envelope.epoch, asked, prev, tail, committed, &packet.lines);
            }
            (Message::Submit(submissions), _, Some(reply)) => {
                self.submitted(from.boot(), packet.envelope.epoch, submissions, reply, &packet.traces);
            }
            (Message::Read { request, query }, _, Some(reply)) => self.queried(request, query, reply),
            (Message::Authority { request, following, staged }, Node::Catalog(boot), Some(reply)) => {
                self.authority_asked(boot, packet.envelope.epoch, request, following.then_some(staged), reply);
            }
            (Message::Staged { seq }, Node::Catalog(boot), _) => self.staged(boot, packet.envelope.epoch, seq),
            (Message::List { stocks }, Node::Catalog(_), Some(reply)) => self.list_asked(&stocks, reply),
            (Message::Relinquish {}, Node::Catalog(boot), _) => self.relinquished(boot),
            (body, from, _) => {
                self.outputs.push_back(Output::debug(format!("nothing to do with {body:?} from {from:?}")));
            }
        }
    }

    // ------------------------------------------------------------ votes

    /// May `suspect` be replaced? Not while it is heard here, unless the broker says that it has gone.
    fn pre_vote(&mut self, reply: ReplyTo, epoch: Epoch, suspect: Leader) {
        // Who asks about an epoch that is over learns of the newer one from the status.
        if suspect == self.me() || self.newest().is_some_and(|held| held.epoch > epoch) {
            return self.vote(reply, suspect, false);
        }
        let followed = self.newest().is_some_and(|held| held.leader == suspect);
        let heard =
            followed && self.following.heard().is_some_and(|at| self.now.mono.since(at) < self.options.times.pre_vote);
        if !heard {
            return self.vote(reply, suspect, true);
        }
        if self.votes.len() < VOTES_MAX {
            self.votes.push(Vote { reply, suspect, since: self.now.mono });
            self.send(Peer::Order(suspect.id), Message::Heartbeat { question: None });
        }
    }

    fn vote(&mut self, reply: ReplyTo, suspect: Leader, willing: bool) {
        let status = Box::new(self.status());
        let willing = willing && self.leaving.is_none();
        if willing {
            self.agreed_to_replace(suspect);
        }
        self.reply(reply, Message::Vote { willing, status });
    }

    fn votes_decided(&mut self, decide: impl Fn(&Vote) -> Option<bool>) {
        for vote in std::mem::take(&mut self.votes) {
            match decide(&vote) {
                Some(willing) => self.vote(vote.reply, vote.suspect, willing),
                None => self.votes.push(vote),
            }
        }
    }

    fn peer_answered(&mut self, status: &Status) {
        self.deaf_since = None;
        // It lives; but one that can't take up the lead, or can't commit, has to be replaced all the same.
        let useless = status.trouble.is_some()
            || status.role != Role::Leader && self.now.mono.since(self.adopted_at) >= self.options.times.stuck * 2;
        self.votes_decided(|vote| {
            (vote.suspect.id == status.id).then_some(vote.suspect.boot != status.boot || useless)
        });
        if let Some(configuration) = &status.configuration {
            self.adopt(configuration);
        }
        self.follower_lives(status.id, status.boot);
        self.clerk_hears(status);
    }

    fn nobody_there(&mut self, peer: Peer) {
        let id = match peer {
            Peer::Order(id) => id,
            Peer::All => return self.nobody_follows(),
            Peer::Catalog(_) | Peer::Frontend(_) => return,
        };
        self.votes_decided(|vote| (vote.suspect.id == id).then_some(true));
        self.fetch_peer_is_gone(id);
        self.transfer_peer_is_gone(id);
        self.scrub_peer_is_gone(id);
        self.follower_is_gone(id);
    }

    // ------------------------------------------------------------ disk

    fn disk_answered(&mut self, answer: DiskAnswer) {
        match answer {
            DiskAnswer::Done { ticket, took } => {
                if self.disk.done(ticket) {
                    self.full_since = None;
                    self.became_durable(took);
                }
                self.adopted(ticket);
                if self.giving_up == Some(ticket) {
                    self.given_up();
                }
                self.snapshots_dropped(ticket);
                self.taken_snapshot_saved(ticket);
                self.rewritten(ticket);
                self.transfer_on();
            }
            DiskAnswer::Read { ticket, bytes } => self.was_read(ticket, &bytes),
            DiskAnswer::Loaded { ticket, file } => self.snapshot_loaded(ticket, file),
            DiskAnswer::SnapshotRead { ticket, part } => self.snapshot_read(ticket, part),
            DiskAnswer::SnapshotMade { ticket, seq, size_bytes, took } => {
                self.snapshot_made(ticket, seq, size_bytes, took);
            }
            DiskAnswer::NoSnapshot { ticket, error } => self.no_snapshot(ticket, &error),
            DiskAnswer::Full { ticket } => {
                if self.disk.had_no_room(ticket) {
                    self.outputs.push_back(Output::warn(
                        "the disk is full: make room, and this replica takes part again by itself",
                    ));
                    self.full_since = Some(self.now.mono);
                }
            }
            DiskAnswer::Failed { ticket, why } => self.failed(ticket, &why),
            DiskAnswer::Broken { why, .. } => {
                self.broken(format!(
                    "the disk can't be trusted any more: {why}. Check it, then start this replica again"
                ));
            }
        }
    }

    fn was_read(&mut self, ticket: DiskTicket, bytes: &Bytes) {
        let Some(index) = self.reads.iter().position(|(asked, _)| *asked == ticket) else {
            return;
        };
        match self.reads.swap_remove(index).1 {
            ReadFor::Start => self.read_at_start(bytes),
            ReadFor::Apply(applied, from) => self.read_to_apply(applied, from, bytes, self.apply_target()),
            ReadFor::LastLine(snapshot, skip) => self.last_line_read(*snapshot, skip, bytes),
            ReadFor::Scrub(to) => self.scrub_read(to, bytes),
            ReadFor::Orders(part) => self.part_read(part, bytes),
            ReadFor::Snapshot(_) | ReadFor::PeerSnapshot { .. } => {} // These are answered otherwise.
            ReadFor::Peer { reply, asked, from, most, cuts } if cuts == self.cuts => {
                self.read_for_peer(reply, asked, from, most, bytes);
            }
            ReadFor::Peer { .. } => {} // What was read may be what was cut.
        }
    }

    /// Something could not be read, or not written where it was read. Only what is needed to go on ends the process.
    fn failed(&mut self, ticket: DiskTicket, why: &str) {
        let Some(index) = self.reads.iter().position(|(asked, _)| *asked == ticket) else {
            return self.not_rewritten(ticket, why);
        };
        match self.reads.swap_remove(index).1 {
            ReadFor::Start => self.broken(format!(
                "orders.jsonl can't be read behind line {}, which a start needs: {why}. Mend that disk or mount it, then start \
                 this replica again",
                self.log.tail().seq
            )),
            ReadFor::Apply(_, from) => self.broken(format!(
                "orders.jsonl can't be read behind line {}, and its orders are not in memory: {why}. Mend that disk or mount \
                 it, then start this replica again",
                from.seq
            )),
            ReadFor::Snapshot(_) => self.snapshots_not_read(why),
            ReadFor::LastLine(snapshot, skip) => {
                self.pass_over(&snapshot.name(), &format!("the journal can't be read where it ends: {why}"), skip);
            }
            ReadFor::Scrub(to) => self.scrub_not_read(to, why),
            ReadFor::Orders(part) => self.part_not_read(part, why),
            ReadFor::PeerSnapshot { .. } => {
                self.outputs.push_back(Output::debug(format!("a snapshot that a peer asked for can't be read: {why}")));
            }
            // It asks somebody else when no answer comes.
            ReadFor::Peer { from, .. } => {
                let text = format!("what a peer asked for behind line {} can't be read: {why}", from.seq);
                self.outputs.push_back(Output::debug(text));
                self.scrub_unread(self.log.place_at_or_before(from.seq).end);
            }
        }
    }

    /// Gives a peer the entries behind a position, or tells it where the logs may still agree.
    fn fetch_asked(&mut self, reply: ReplyTo, asked: Position, most: usize) {
        if self.reads.len() >= READS_MAX {
            return; // It asks again, or somebody else.
        }
        let from = if self.log.contains(asked) { asked } else { self.log.at_or_before(asked) };
        if from != asked || from == self.log.tail() {
            return self.answer_fetch(reply, asked, from, Bytes::new());
        }
        let (place, cuts) = (self.log.place_at_or_before(asked.seq), self.cuts);
        // Of an old entry only a place before it is known, from which its own is found.
        let before = if place.position == asked { 0 } else { log::MARK_EVERY_BYTES + BATCH_BYTES_MAX };
        self.read(ReadFor::Peer { reply, asked, from: place.position, most, cuts }, place.end, before + most);
    }

    /// What was read for a peer, from the entry behind `from` on.
    fn read_for_peer(&mut self, reply: ReplyTo, asked: Position, from: Position, most: usize, bytes: &Bytes) {
        // It may have been cut while it was read.
        if self.log.position(from.seq) != Some(from) {
            return;
        }
        let bytes = bytes.slice(..self.of_the_log(from.seq, bytes.len()));
        let mut scan = journal::scan(&bytes, from);
        while scan.position().seq < asked.seq {
            match scan.next() {
                Some(Ok(_)) => {}
                Some(Err(error)) => return self.gone_bad(scan.position(), &error.to_string()),
                None => return,
            }
        }
        if scan.position() != asked {
            // The logs differ there.
            return self.answer_fetch(reply, asked, from, Bytes::new());
        }
        // What the lines say is for who asked; here it is enough that they are those that were written.
        let begins = bytes.len() - scan.rest().len();
        let lines = bytes.slice(begins..bytes.len().min(begins + most));
        let followed = journal::follow(&lines, asked.chain);
        if lines[followed.bytes..].contains(&b'\n') {
            let seq = SeqNum(asked.seq.0 + followed.lines);
            let good = Position { epoch: self.log.epoch(seq), seq, chain: followed.chain };
            self.gone_bad(good, &journal::BadLine::Checksum.to_string());
            // What stands before it is worth having all the same.
            if followed.bytes == 0 {
                return;
            }
        }
        self.answer_fetch(reply, asked, asked, lines.slice(..followed.bytes));
    }

    fn answer_fetch(&mut self, reply: ReplyTo, asked: Position, prev: Position, lines: Bytes) {
        let body = Message::Chunk { asked, prev, tail: self.log.tail().seq, committed: self.committed };
        let packet = self.packet(body, lines);
        self.outputs.push_back(Output::Reply { to: reply, packet });
    }

    fn retry_full_disk(&mut self) {
        if self.disk.is_full() && self.full_since.is_none_or(|since| self.now.mono.since(since) >= FULL_RETRY) {
            self.full_since = Some(self.now.mono);
            for request in self.disk.retry() {
                self.outputs.push_back(Output::Disk(request));
            }
        }
    }

    // ------------------------------------------------------------ time

    fn tick(&mut self) {
        if !self.ticks.are_due(self.now.mono) {
            self.ticks = self.ticks.hastened(self.now.mono, || self.rests_until());
            return;
        }
        let late = self.last_tick != Mono(0) && self.now.mono.since(self.last_tick) > PAUSED;
        self.last_tick = self.now.mono;
        self.ticks = Ticks::soon(self.now.mono);
        if self.starting.is_some() {
            return;
        }
        let now = self.now.mono;
        // A leader that speaks but never answers has lost its way in: it can't commit, and must not be kept.
        if self.votes.iter().any(|vote| now.since(vote.since) > VOTE_WAIT) {
            let deaf = now.since(*self.deaf_since.get_or_insert(now)) > DEAF;
            self.votes_decided(|vote| (now.since(vote.since) > VOTE_WAIT).then_some(deaf));
        }
        self.retry_full_disk();
        self.scrub_tick();
        self.clerk_tick();
        self.follow_tick();
        self.transfer_on();
        self.lead_tick(late);
        self.leave_tick();
        if let Some(duty) = self.rests_until() {
            self.ticks = Ticks::resting(duty);
        }
    }

    /// The next duty of a replica that has nothing under way; none for one that has.
    fn rests_until(&self) -> Option<Mono> {
        let still =
            self.starting.is_none() && self.adopting.is_none() && self.leaving.is_none() && self.votes.is_empty();
        let on_disk = self.disk.waiting() == 0 && !self.disk.is_full();
        if !still || !on_disk || self.clerk_is_busy() {
            return None;
        }
        match &self.leading {
            Some(leading) => self.leads_calmly(leading).then(|| self.keeps_alive_at(leading)),
            None => self.follows_calmly().then(|| self.now.mono.after(self.options.times.heartbeat)),
        }
    }

    /// A leaver has gone when nothing is left to do: a follower is out of the in-sync set, a leader has handed over.
    fn leave_tick(&mut self) {
        let Some(since) = self.leaving else { return };
        let overdue = self.now.mono.since(since) >= self.options.times.leave;
        let idle = self.disk.waiting() == 0 && self.adopting.is_none();
        let done = match &self.leading {
            // Nobody can be told or asked any more; the log says what was under way.
            _ if !self.connected => true,
            Some(leading) => leading.may_leave(self.committed == self.log.tail().seq),
            None => !self.is_in_sync() || !self.leader_is_heard() || self.now.mono.since(since) >= LEAVE_IN_SYNC,
        };
        if (done && idle) || overdue {
            self.stop(Stop::Left);
        }
    }

    fn leader_is_heard(&self) -> bool {
        self.following.heard().is_some_and(|at| self.now.mono.since(at) < self.options.times.suspect)
    }
}

impl Decider for Replica {
    fn handle(&mut self, now: Now, input: Input) {
        if self.stopped {
            return;
        }
        self.now = now;
        self.dirty = true;
        match input {
            Input::Received { packet, reply } => self.received(packet, reply),
            Input::NobodyThere(peer) => self.nobody_there(peer),
            Input::Disk(answer) => self.disk_answered(answer),
            Input::Register(answer) => self.register_answered(answer),
            Input::Connected => {
                self.connected = true;
                self.leader_reconnected();
            }
            Input::Disconnected => self.connected = false,
            Input::Leave => {
                if self.leaving.is_none() {
                    self.outputs.push_back(Output::debug("leaving: finishing what is under way"));
                    self.leaving = Some(now.mono);
                    self.following.tell_that_we_leave();
                }
            }
            Input::Timer | Input::Trace(..) | Input::Client(..) | Input::ClientGone(_) => {}
        }
        self.tick();
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.dirty && !self.stopped {
            self.dirty = false;
            if self.starting.is_none() {
                self.apply_up_to(self.apply_target());
                self.lead_on();
                self.follow_on();
                self.keep_on();
            }
        }
        self.outputs.pop_front()
    }

    /// Not before its own first entry: until then entries that a former leader has released may seem not to be.
    fn released(&self) -> Option<SeqNum> {
        let leading = self.leading.as_ref().filter(|leading| leading.serves())?;
        let released = leading.released();
        leading.begun.is_some_and(|begun| released >= begun).then_some(released)
    }

    fn poll_timeout(&self) -> Option<Mono> {
        (!self.stopped).then_some(self.ticks.by())
    }

    fn observe(&self, _: Now, readings: &mut Readings) {
        self.show(readings);
    }
}

impl Replica {
    fn next_register_ticket(&mut self) -> u64 {
        self.register_ticket += 1;
        self.register_ticket
    }

    fn register_answered(&mut self, answer: RegisterAnswer) {
        if !self.clerk_answered(&answer) {
            self.change_answered(answer);
        }
    }
}
