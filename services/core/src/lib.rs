//! Decides: everything Trade-Net does is decided here, in plain state machines.
//!
//! Problem: a replicated exchange fails in the order of its messages, crashes and timers, and such orders can't be tried
//! where the code itself reads clocks, sockets and disks.
//! Idea: no decision does IO. Each decider has the same surface ([`Decider`]): [`Decider::handle`] takes one event and the
//! time and never blocks or fails; then [`Decider::poll_output`] is called until it gives `None`;
//! [`Decider::poll_timeout`] names the next moment at which the decider wants [`Input::Timer`]. A service performs the
//! outputs for real, the simulator in a made-up world; the enums [`Input`] and [`Output`] are the whole seam.
//! Rule kept: no IO, no clock, no randomness, no hash-map order, so the same inputs give the same outputs. A decider is plain
//! data: it can be cloned, and printed whole, which is how a checker goes back and tries what else could have come.
//!
//! - [`exchange`]: commands become events, events become state.
//! - [`journal`]: an entry as a line of text, chained by checksum.
//! - [`replica`]: leader, follower, learner (rules R1–R9).
//! - [`election`]: which replica leads, decided by frontends.
//! - [`proposal`]: what replicas check before they write what frontends have decided.
//! - [`catalog`]: the read model that answers look-ups and invalidates caches (C1–C4).
//! - [`cache`]: what a frontend may serve without asking.
//! - [`feed`]: the newest of what everybody may know.
//! - [`frontend`]: requests of clients: look up, submit, retry until known.
//! - [`outlet`]: the log, handed out to a stream that others read.
//! - [`bugs`]: rules left out on purpose, in test builds only.
//! - [`times`]: the protocol's periods, and the inequalities between them; `ticks`: who looks at them when.
//! - [`metrics`]: what all of these count, for people.
//! - [`wire`]: a message as bytes; `form`: what is written and read most, without the machinery of JSON.

pub mod bugs;
pub mod cache;
pub mod catalog;
pub mod election;
pub mod exchange;
pub mod feed;
mod form;
pub mod frontend;
pub mod journal;
pub mod metrics;
pub mod outlet;
pub mod proposal;
pub mod replica;
mod ticks;
pub mod times;
pub mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::replica::snapshot::{MakeError, SnapshotPart};
use bytes::Bytes;
use tradenet_schemas::ids::{OrderNumber, SeqNum, StoreId};
use tradenet_schemas::message::{Answer, Configuration, Floor, Query};
use tradenet_schemas::subjects::Peer;
use tradenet_schemas::trace::Trace;
use tradenet_schemas::trade::{Command, IdempotencyKey, Order, Outcome, Stock, Symbol};

pub use wire::Packet;

/// A moment on the machine's monotonic clock, in microseconds from an arbitrary start of the process.
///
/// Moments of two processes can't be compared; nothing in the protocol does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// The moment `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
    }
    /// How long ago `earlier` was; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// The time at which an input is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For everything that is decided.
    pub mono: Mono,
    /// Milliseconds since 1970, for people only.
    pub wall_ms: u64,
}

/// Where the answer to a request goes: the request's reply subject. Opaque to the deciders.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReplyTo(pub Arc<str>);

/// A client's request, held by the shell until its answer is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// What a client of a frontend asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientRequest {
    /// One stock, from the cache or from the catalog.
    Stock(Symbol),
    /// All stocks.
    Stocks,
    /// One order.
    Order(OrderNumber),
    /// Something that only the leader answers: of accounts, books and trades.
    Market(Query),
    /// A command, with the client's key if it sent one.
    Command(Option<IdempotencyKey>, Command),
}

/// What a client of a frontend gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientAnswer {
    /// The stock, if it is listed.
    Stock {
        /// The stock.
        stock: Option<Stock>,
        /// Whether the cache had it.
        hit: bool,
    },
    /// All stocks, by name.
    Stocks(Vec<Stock>),
    /// The order, if there is one.
    Order(Option<Order>),
    /// What was asked of accounts, books or trades.
    Market(Answer),
    /// What became of the command.
    Outcome(Outcome),
    /// Nothing was done: no leader, no catalog, or they have no room. Trying again later is safe.
    Unavailable(String),
    /// The deadline passed after the command was sent: it may or may not happen.
    Unknown,
}

/// Names one operation on the disk; tickets grow by one.
pub type DiskTicket = u64;

/// What a replica asks of its disk. What changes the journal or the configuration is done in the order it was asked for. A read is
/// begun when all before it is done, and goes on beside what comes after: its answer may come after theirs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskRequest {
    /// Append to the journal, then fdatasync. Several that wait together may share one sync.
    Append {
        /// Which operation.
        ticket: DiskTicket,
        /// Whole lines.
        lines: Bytes,
    },
    /// Cut the journal to that many bytes, then fsync. Appends work again after a full disk.
    Cut {
        /// Which operation.
        ticket: DiskTicket,
        /// How many bytes stay.
        bytes: u64,
    },
    /// The journal is damaged behind `bytes` bytes, so the directory is not what it was named for: keep a copy of the journal
    /// for people, give the directory another name (write aside, fsync, rename, fsync the directory), remove the snapshots of
    /// more than is good, then cut.
    GiveUp {
        /// Which operation.
        ticket: DiskTicket,
        /// The new name.
        store: StoreId,
        /// How many bytes stay.
        bytes: u64,
    },
    /// Write lines over those that stand there and have gone bad, then fdatasync. The journal is no longer and no shorter then.
    Rewrite {
        /// Which operation.
        ticket: DiskTicket,
        /// From which byte.
        offset: u64,
        /// Whole lines, as long together as those they replace.
        lines: Bytes,
    },
    /// Replace the configuration file: write aside, fsync, rename, fsync the directory.
    Persist {
        /// Which operation.
        ticket: DiskTicket,
        /// What to write.
        configuration: Box<Configuration>,
    },
    /// Read from the journal. What is given was there at one moment between the end of all that was asked for before and the answer.
    Read {
        /// Which operation.
        ticket: DiskTicket,
        /// From which byte.
        offset: u64,
        /// At most so many bytes; fewer only at the end of the file.
        bytes_max: usize,
    },
    /// Read the newest snapshot but `skip`.
    LoadSnapshot {
        /// Which operation.
        ticket: DiskTicket,
        /// How many newer ones are passed over.
        skip: usize,
    },
    /// Read a part of a snapshot's file.
    ReadSnapshot {
        /// Which operation.
        ticket: DiskTicket,
        /// The last entry in that snapshot; the newest one if not given.
        seq: Option<SeqNum>,
        /// From which byte.
        offset: u64,
        /// At most so many bytes; fewer only at the end of the file.
        bytes_max: usize,
    },
    /// Write a snapshot that a peer has made, as those are written that are made here. Beside all other operations.
    SaveSnapshot {
        /// Which operation.
        ticket: DiskTicket,
        /// The last entry in it.
        seq: SeqNum,
        /// Its file.
        file: Bytes,
    },
    /// Make a snapshot of the journal up to the first entry that ends at byte `until` or behind it
    /// ([`replica::snapshot::Making`]): write aside, fsync, rename, fsync the directory, then remove all but the newest two.
    /// Beside all other operations, which don't wait for it: none of them changes the journal before that entry's end.
    MakeSnapshot {
        /// Which operation.
        ticket: DiskTicket,
        /// See there.
        until: u64,
    },
    /// Remove the snapshots of more than `bytes` bytes of the journal, so that the next start reads it from there on, then
    /// fsync the directory.
    DropSnapshots {
        /// Which operation.
        ticket: DiskTicket,
        /// How much of the journal those may cover that stay.
        bytes: u64,
    },
}

/// What the disk answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskAnswer {
    /// It is done, and on disk.
    Done {
        /// Which operation.
        ticket: DiskTicket,
        /// How long the sync took.
        took: Duration,
    },
    /// What was read.
    Read {
        /// Which operation.
        ticket: DiskTicket,
        /// The bytes; empty at the end of the file.
        bytes: Bytes,
    },
    /// A snapshot was looked for.
    Loaded {
        /// Which operation.
        ticket: DiskTicket,
        /// Its file's name and content; none if there are no more.
        file: Option<(String, Bytes)>,
    },
    /// A part of a snapshot was looked for.
    SnapshotRead {
        /// Which operation.
        ticket: DiskTicket,
        /// It; none if there is no such snapshot.
        part: Option<SnapshotPart>,
    },
    /// A snapshot was made, and is on disk.
    SnapshotMade {
        /// Which operation.
        ticket: DiskTicket,
        /// The last entry in it.
        seq: SeqNum,
        /// The size of its file, in bytes.
        size_bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// No snapshot was made; those that there are stay.
    NoSnapshot {
        /// Which operation.
        ticket: DiskTicket,
        /// Why.
        error: MakeError,
    },
    /// There was no room. Nothing of this append is in the file, and every later one fails the same until a `Cut`.
    Full {
        /// Which operation.
        ticket: DiskTicket,
    },
    /// A read could not be carried out, or a rewrite of what is on another disk (an archive). The rest goes on as it was: it may
    /// be tried again.
    Failed {
        /// Which operation.
        ticket: DiskTicket,
        /// What happened.
        why: String,
    },
    /// The disk can't be trusted any more, such as after a failed fsync.
    Broken {
        /// Which operation.
        ticket: DiskTicket,
        /// The system's error.
        why: String,
    },
}

/// A value's revision in the register, for compare-and-set.
pub type Revision = u64;

/// One of the register's two records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Slot<T> {
    /// The bucket does not exist.
    BucketMissing,
    /// The bucket has no such key.
    KeyMissing,
    /// The record.
    Present {
        /// Its value.
        value: T,
        /// Its revision.
        revision: Revision,
    },
    /// The record is there, but it can't be read.
    Unreadable {
        /// Why.
        why: String,
        /// The revision, to replace it.
        revision: Revision,
    },
}

impl<T> Slot<T> {
    /// The value, if it is there.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Present { value, .. } => Some(value),
            _ => None,
        }
    }
    /// Whether there has never been one, as far as can be seen.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::BucketMissing | Self::KeyMissing)
    }
    /// The revision, if there is a record.
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Self::Present { revision, .. } | Self::Unreadable { revision, .. } => Some(*revision),
            Self::BucketMissing | Self::KeyMissing => None,
        }
    }
}

/// What a decider asks of the register, the two buckets of configuration and floor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegisterRequest {
    /// Read both records, through the streams' leader.
    Read {
        /// Names the request.
        ticket: u64,
    },
    /// Write the configuration if its revision is still `expected`; with none, if there is no record (the bucket is made
    /// if it is missing).
    Write {
        /// Names the request.
        ticket: u64,
        /// What to write.
        configuration: Box<Configuration>,
        /// The revision it replaces.
        expected: Option<Revision>,
    },
    /// Write the floor in the same way.
    Floor {
        /// Names the request.
        ticket: u64,
        /// The newest record by which anyone may have served.
        floor: Box<Configuration>,
        /// The revision it replaces.
        expected: Option<Revision>,
    },
}

/// What the register answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegisterAnswer {
    /// Both records.
    Read {
        /// Names the request.
        ticket: u64,
        /// The configuration.
        configuration: Slot<Configuration>,
        /// The floor.
        floor: Slot<Floor>,
    },
    /// The record was written.
    Written {
        /// Names the request.
        ticket: u64,
    },
    /// The record was not written: its revision is another.
    Conflict {
        /// Names the request.
        ticket: u64,
    },
    /// Whether it was written, or what it reads, is not known: no answer in time. Read it back.
    Unknown {
        /// Names the request.
        ticket: u64,
        /// What happened.
        why: String,
    },
}

impl RegisterAnswer {
    /// The request that this answers.
    pub fn ticket(&self) -> u64 {
        match self {
            Self::Read { ticket, .. }
            | Self::Written { ticket }
            | Self::Conflict { ticket }
            | Self::Unknown { ticket, .. } => *ticket,
        }
    }
}

/// What happens to a decider.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message arrived.
    Received {
        /// The message.
        packet: Packet,
        /// Where its answer goes, if it wants one.
        reply: Option<ReplyTo>,
    },
    /// The broker says that nobody listens where a request to this peer went.
    NobodyThere(Peer),
    /// The broker can be reached (again).
    Connected,
    /// The broker can't be reached.
    Disconnected,
    /// The register answers.
    Register(RegisterAnswer),
    /// The disk answers.
    Disk(DiskAnswer),
    /// What the client asks next under this ticket is to be followed.
    Trace(Ticket, Arc<Trace>),
    /// A client asks.
    Client(Ticket, ClientRequest),
    /// A client has gone; nobody waits for the answer any more.
    ClientGone(Ticket),
    /// The time that `poll_timeout` named has come.
    Timer,
    /// Finish what is under way and stop.
    Leave,
}

/// What a decider wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a message to a peer, on the subject of its topic.
    Send {
        /// To whom.
        to: Peer,
        /// What.
        packet: Packet,
    },
    /// Answer a request.
    Reply {
        /// Where to.
        to: ReplyTo,
        /// What.
        packet: Packet,
    },
    /// Ask the register.
    Register(RegisterRequest),
    /// Ask the disk.
    Disk(DiskRequest),
    /// Answer a client.
    Answer(Ticket, ClientAnswer),
    /// Tell people.
    Notice(Notice),
    /// End the process.
    Stop(Stop),
}

/// Why a process ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It was asked to, and everything is in order.
    Left,
    /// It cannot go on, and must not.
    Broken(String),
}

/// How loud a notice is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Of interest to who looks closely.
    Debug,
    /// A change of state.
    Info,
    /// Something that somebody should look into.
    Warn,
}

/// A line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// How loud.
    pub level: Level,
    /// What.
    pub text: String,
}

impl Output {
    /// A notice at `info`.
    pub fn info(text: impl fmt::Display) -> Self {
        Self::Notice(Notice { level: Level::Info, text: text.to_string() })
    }
    /// A notice at `warn`.
    pub fn warn(text: impl fmt::Display) -> Self {
        Self::Notice(Notice { level: Level::Warn, text: text.to_string() })
    }
    /// A notice at `debug`.
    pub fn debug(text: impl fmt::Display) -> Self {
        Self::Notice(Notice { level: Level::Debug, text: text.to_string() })
    }
}

/// The surface that every state machine of this crate has.
///
/// Call [`Decider::handle`] for each event; then [`Decider::poll_output`] until it gives `None`, carrying out each output in order;
/// then wait until [`Decider::poll_timeout`] or the next event. Several events may be handled before outputs are polled:
/// what waits together is decided together (natural batching).
pub trait Decider {
    /// Takes one event. Never blocks, never fails.
    fn handle(&mut self, now: Now, input: Input);
    /// The next thing to do, in order.
    fn poll_output(&mut self) -> Option<Output>;
    /// When to call `handle` with [`Input::Timer`], at the latest.
    fn poll_timeout(&self) -> Option<Mono>;
    /// Up to which entry others may be handed the log by this process; none while another one does that.
    fn released(&self) -> Option<SeqNum> {
        None
    }
    /// Shows what it has counted and how it stands, for people. Changes nothing.
    fn observe(&self, now: Now, readings: &mut metrics::Readings) {
        let _ = (now, readings);
    }
}

/// The highest of several sequence numbers; 0 for none.
pub(crate) fn highest(seqs: impl IntoIterator<Item = SeqNum>) -> SeqNum {
    seqs.into_iter().max().unwrap_or_default()
}
