//! What travels between services, all of it over the broker.
//!
//! A message is a JSON object (the [`Envelope`]); behind it, after one line feed, may stand journal lines as they are in
//! the file. Every message carries cluster, epoch and sender, so that the receiver can tell a stale one: messages may be
//! lost, doubled, or arrive minutes late.

use serde::{Deserialize, Serialize};

use crate::account::{AccountAnswer, AccountQuery, Book, Candle, Credentials, Interval, Trade};
use crate::feed::PublicEvent;
use crate::ids::{
    Boot, ClusterId, Epoch, EventNumber, Leader, Member, Node, Nonce, OrderNumber, Position, Question, ReplicaId,
    SeqNum, StoreId,
};
use crate::trade::{Command, CommandKey, Order, Outcome, Stock, Symbol};

/// The record that orders all changes of leadership and of the in-sync set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Configuration {
    /// The exchange it belongs to.
    pub cluster: ClusterId,
    /// Its number: the previous one plus one.
    pub epoch: Epoch,
    /// Which attempt to write it this was.
    pub nonce: Nonce,
    /// Who leads.
    pub leader: Leader,
    /// Who holds every committed entry, by id.
    #[cfg_attr(feature = "json-schema", schemars(length(max = crate::limits::REPLICA_ID_MAX)))]
    pub in_sync: Vec<Member>,
    /// All replicas that belong to the exchange, by id.
    #[cfg_attr(feature = "json-schema", schemars(length(max = crate::limits::REPLICA_ID_MAX)))]
    pub members: Vec<ReplicaId>,
    /// From which records it may take the floor, newest first: the one that it was decided by, and before it those that this
    /// one followed and by which nobody was known to serve. Whoever is in sync by it has everything that was committed by any of
    /// them. Empty in the first record of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "json-schema", schemars(length(max = crate::limits::FOLLOWED_MAX)))]
    pub follows: Vec<RecordId>,
    /// Who wrote it.
    pub by: Node,
    /// Why, for people.
    pub why: String,
    /// When, in milliseconds since 1970 by the writer's clock: for people.
    pub at: u64,
}

/// Tells a record from every other, also from another of the same epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct RecordId {
    /// Its epoch.
    pub epoch: Epoch,
    /// Which attempt to write one.
    pub nonce: Nonce,
}

/// The floor: the newest record by which anybody may have served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Floor {
    /// That record.
    Record(Box<Configuration>),
    /// Its epoch alone, as releases before records said whom they follow wrote it.
    Number(Epoch),
}

impl Floor {
    /// The epoch of that record.
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Record(record) => record.epoch,
            Self::Number(epoch) => *epoch,
        }
    }
    /// The record, where the floor says it.
    pub fn record(&self) -> Option<&Configuration> {
        match self {
            Self::Record(record) => Some(record),
            Self::Number(_) => None,
        }
    }
    /// Whether it is this record.
    pub fn is(&self, record: &Configuration) -> bool {
        self.record().is_some_and(|own| own.id() == record.id())
    }
}

impl Configuration {
    /// What tells it from every other record.
    pub fn id(&self) -> RecordId {
        RecordId { epoch: self.epoch, nonce: self.nonce }
    }
    /// Whether it was decided after that record and may take the floor from it.
    pub fn follows(&self, id: RecordId) -> bool {
        self.follows.contains(&id)
    }
    /// Whether it may take the floor, as that stands.
    pub fn may_take(&self, floor: &Floor) -> bool {
        match floor {
            Floor::Record(record) => self.follows(record.id()),
            Floor::Number(epoch) => self.follows.last().map_or(*epoch < self.epoch, |oldest| *epoch <= oldest.epoch),
        }
    }
    /// The in-sync member of that id.
    pub fn in_sync_member(&self, id: ReplicaId) -> Option<Member> {
        self.in_sync.iter().copied().find(|member| member.id == id)
    }
    /// Whether that replica with that disk is in sync.
    pub fn is_in_sync(&self, id: ReplicaId, store: StoreId) -> bool {
        self.in_sync.contains(&Member { id, store })
    }
}

/// What every message starts with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Envelope {
    /// The exchange, as soon as the sender knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// The newest epoch the sender has adopted.
    pub epoch: Epoch,
    /// The sender.
    pub from: Node,
    /// The message.
    pub body: Message,
}

/// How far a replica is with taking part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads its journal after the start.
    Starting,
    /// Not in sync; catches up.
    Learner,
    /// In sync; holds every committed entry.
    Follower,
    /// Elected; not yet allowed to decide.
    Activating,
    /// Decides commands.
    Leader,
}

/// What a replica says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Status {
    /// Who.
    pub id: ReplicaId,
    /// Which run.
    pub boot: Boot,
    /// Which disk.
    pub store: StoreId,
    /// What it does.
    pub role: Role,
    /// The newest configuration it holds on disk.
    pub configuration: Option<Configuration>,
    /// The end of its log.
    pub tail: Position,
    /// What is on its disk.
    pub durable: SeqNum,
    /// What it knows to be committed.
    pub committed: SeqNum,
    /// What it has applied to its state.
    pub applied: SeqNum,
    /// As leader: what clients may see.
    pub released: SeqNum,
    /// As leader: the catalog that answers for it.
    pub catalog: Option<Boot>,
    /// Whether it is about to leave, and so should not be elected.
    pub leaving: bool,
    /// Leads, or is to, by a record that it does not serve by: the register does not show it, or its floor is gone or with a record
    /// that this one does not follow (rule R7).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contested: bool,
    /// The record that the end of its log was written by, where the one on its disk is newer and it is known: until a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_by: Option<Box<Configuration>>,
    /// The question that this answers, if one was asked by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Question>,
    /// As leader: clients may see no stock yet, for no catalog has brought any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlisted: bool,
    /// Why it cannot take orders at present, if so.
    pub trouble: Option<String>,
}

impl Status {
    /// Why no trade is served by this leader, if so, and what would help.
    pub fn hindrance(&self) -> Option<String> {
        let unlisted = || self.unlisted.then(|| "no stock is listed yet: the catalog does that, start it".to_owned());
        self.trouble.clone().or_else(unlisted)
    }
}

/// One command of one client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Submission {
    /// The frontend's number for it, to tell answers apart.
    pub request: u64,
    /// What makes it happen once.
    pub key: CommandKey,
    /// What to do.
    pub command: Command,
    /// The newest entry that the frontend knew of when the client asked: what was done by then was done for an earlier
    /// request.
    pub known: SeqNum,
    /// It was sent before. What was sent once is done by nobody when its receiver has not taken it, and its client is told so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// What a frontend asks the leader.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// An order by its number.
    Order(OrderNumber),
    /// A stock by its name.
    Stock(Symbol),
    /// All stocks, by name.
    Stocks,
    /// Something of an account.
    Account(Credentials, AccountQuery),
    /// So many of the best levels of a stock's book, a side.
    Book(Symbol, usize),
    /// So many of the last trades between accounts of a stock, newest first.
    Trades(Symbol, usize),
    /// So many of the last periods of a stock's prices, newest first.
    Candles(Symbol, Interval, usize),
    /// The number of the newest public event.
    LastEvent,
    /// The public events behind that one. Answered when there are some, or after a while without any.
    Events(EventNumber),
}

/// The answer to a [`Query`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The order, or none of that number.
    Order(Option<Order>),
    /// The stock, or none of that name.
    Stock(Option<Stock>),
    /// All stocks, by name.
    Stocks(Vec<Stock>),
    /// What the account asked for.
    Account(Box<AccountAnswer>),
    /// The book, if the stock is listed.
    Book(Option<Book>),
    /// The trades, if the stock is listed.
    Trades(Option<Vec<Trade>>),
    /// The periods, if the stock is listed.
    Candles(Option<Vec<Candle>>),
    /// The number of the newest public event; 0 for none.
    LastEvent(EventNumber),
    /// Public events, all of them released.
    Events {
        /// The number before the first of them. Higher than was asked for: those between are not remembered any more.
        after: EventNumber,
        /// The next ones, without gaps; there may be more.
        events: Vec<PublicEvent>,
    },
}

/// What became of a proposed record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is the register's record.
    Written,
    /// Another was written first.
    Conflict,
    /// It must not be written.
    Refused(String),
    /// Nobody knows yet: read the register.
    Unknown(String),
}

/// Everything that services say to each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Message {
    // Anyone to a replica, answered.
    /// How are you? Answered by [`Message::Status`].
    Heartbeat {
        /// Told back in the answer, where that has to be the answer to this very question.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        question: Option<Question>,
    },
    /// The answer to [`Message::Heartbeat`].
    Status(Box<Status>),
    /// May this leader be replaced? Answered by [`Message::Vote`].
    PreVote {
        /// The leader that the sender has lost.
        suspect: Leader,
    },
    /// The answer to [`Message::PreVote`].
    Vote {
        /// Whether the replica has lost that leader too.
        willing: bool,
        /// How the replica is.
        status: Box<Status>,
    },
    /// The newest configuration, told to everybody.
    Announce(Box<Configuration>),

    // Frontend to the replica that would lead, answered.
    /// A record for the register, which only replicas may write. One that is written already is taken on. Answered by
    /// [`Message::Proposed`].
    Propose {
        /// The record.
        configuration: Box<Configuration>,
        /// The revision that it replaces; none where there is no record.
        expected: Option<u64>,
    },
    /// What became of a proposal.
    Proposed {
        /// Which one: the record's nonce.
        nonce: Nonce,
        /// What became of it.
        verdict: Verdict,
    },

    // Frontend to leader, answered.
    /// Commands to decide. Each is answered in some [`Message::Outcomes`], or the whole by [`Message::NotLeader`].
    Submit(
        #[cfg_attr(feature = "json-schema", schemars(length(max = crate::limits::SUBMISSIONS_PER_MESSAGE_MAX)))]
        Vec<Submission>,
    ),
    /// Outcomes by request number.
    Outcomes {
        /// The newest entry that any of them rests on.
        seq: SeqNum,
        /// Request number and outcome.
        outcomes: Vec<(u64, Outcome)>,
        /// Those of the requests that were surely done for an earlier request of their client: before this one was made.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        before: Vec<u64>,
    },
    /// Asks for something that may change.
    Read {
        /// The frontend's number for it.
        request: u64,
        /// What.
        query: Query,
    },
    /// The answer to [`Message::Read`].
    Answer {
        /// The request it answers.
        request: u64,
        /// The released sequence it shows.
        seq: SeqNum,
        /// The answer.
        answer: Answer,
    },
    /// The receiver does not lead, or does not answer this; try where `configuration` or `catalog` says.
    NotLeader {
        /// The requests it did not answer.
        requests: Vec<u64>,
        /// What it knows instead.
        configuration: Option<Box<Configuration>>,
        /// The catalog that answers look-ups.
        catalog: Option<Boot>,
    },
    /// The leader's queue is full; try again later.
    Overloaded {
        /// The requests it did not take.
        requests: Vec<u64>,
    },
    /// The leader cannot do it at present, such as when its disk is full and no other is in sync.
    Unavailable {
        /// The requests it did not take.
        requests: Vec<u64>,
        /// Why.
        why: String,
    },

    // Leader to followers and catalogs.
    /// New entries (the journal lines behind the envelope), or none to show that the leader lives.
    Append {
        /// The leader that sends it.
        leader: Leader,
        /// The configuration, where the receiver may not know it yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        configuration: Option<Box<Configuration>>,
        /// The entry before the first line.
        prev: Position,
        /// What is committed.
        committed: SeqNum,
        /// Confirmation round: an answer that carries it was sent after it began.
        round: u64,
    },
    // Leader to catalogs.
    /// News of the commit point, where no batch is about to carry it: look-ups may wait for it. Followers, who apply what is
    /// committed whenever they hear of it, learn it with the next [`Message::Append`].
    Commit {
        /// The leader that sends it.
        leader: Leader,
        /// The end of its log.
        at: Position,
        /// What is committed.
        committed: SeqNum,
    },
    // Leader to whoever follows the market.
    /// The next public events, all of them released; or none, to tell the number of the newest one. It goes to everybody at
    /// most once: who misses one sees it by the numbers.
    Events {
        /// The number before the first of them; with none, the number of the newest event.
        after: EventNumber,
        /// The next ones, without gaps.
        events: Vec<PublicEvent>,
    },

    // Followers to leader.
    /// A follower's answer to [`Message::Append`].
    Ack {
        /// The disk that holds the entries.
        store: StoreId,
        /// What of the leader's log is on that disk: everything up to here.
        durable: SeqNum,
        /// The newest round heard.
        round: u64,
        /// Whether it is about to leave, and should be taken out of the in-sync set.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        leaving: bool,
    },
    /// The receiver's epoch is over; here is a newer configuration.
    Fenced(Box<Configuration>),

    // Replica to replica.
    /// Asks for a part of a snapshot. Answered by [`Message::SnapshotPart`].
    FetchSnapshot {
        /// The last entry in that snapshot; the newest one if not given.
        of: Option<Position>,
        /// From which byte of its file on.
        offset: u64,
        /// At most so many bytes; no more than [`CHUNK_BYTES_MAX`](crate::limits::CHUNK_BYTES_MAX) are given.
        bytes_max: u64,
    },
    /// A part of a snapshot's file.
    SnapshotPart {
        /// The last entry in the snapshot; none if there is no such snapshot.
        of: Option<Position>,
        /// The size of the whole file, in bytes.
        size_bytes: u64,
        /// Where the part begins.
        offset: u64,
    },
    /// Asks for the entries behind a position. Answered by [`Message::Chunk`].
    Fetch {
        /// The newest entry the sender has that may be the receiver's too.
        from: Position,
        /// At most so many bytes of whole lines; [`CHUNK_BYTES_MAX`](crate::limits::CHUNK_BYTES_MAX) if not given, and never more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_max: Option<u64>,
    },
    /// Entries behind `prev` (the lines behind the envelope).
    Chunk {
        /// What the fetch asked for.
        asked: Position,
        /// Where the lines begin. Not `asked`: the logs differ there, and this is where the receiver may look next.
        prev: Position,
        /// The end of the sender's log.
        tail: SeqNum,
        /// What the sender knows to be committed.
        committed: SeqNum,
    },

    // Catalog and leader.
    /// A catalog asks to answer for the leader. Answered by [`Message::Grant`], [`Message::Snapshot`] or
    /// [`Message::NotLeader`].
    Authority {
        /// The catalog's number for this request; the grant counts from when it was sent.
        request: u64,
        /// Whether it follows the log of this epoch's leader.
        following: bool,
        /// What it has staged: every cache has dropped what these entries change.
        staged: SeqNum,
    },
    /// The catalog answers for the exchange.
    Grant {
        /// The request that it counts from.
        request: u64,
        /// How long, in milliseconds from when the request was sent.
        valid_ms: u64,
        /// What was released when it was given: nothing older may be shown.
        released: SeqNum,
    },
    /// The catalog's beginning: the state at `at`, all of it committed.
    Snapshot {
        /// The leader whose log it is.
        leader: Leader,
        /// The last entry in the state.
        at: Position,
        /// All stocks.
        #[cfg_attr(feature = "json-schema", schemars(length(max = crate::limits::STOCKS_MAX)))]
        stocks: Vec<Stock>,
    },
    /// Every cache has dropped what the entries up to here change, and no look-up shows older state for them.
    Staged {
        /// Up to here.
        seq: SeqNum,
    },
    /// Stocks to list where they are not yet. Answered by [`Message::Listed`].
    List {
        /// The stocks.
        #[cfg_attr(feature = "json-schema", schemars(length(max = crate::limits::STOCKS_MAX)))]
        stocks: Vec<Stock>,
    },
    /// All stocks of [`Message::List`] are listed.
    Listed {},
    /// The catalog goes: no lease that it gave is alive any more.
    Relinquish {},

    // Frontend and catalog.
    /// A frontend asks for a lease on what it caches. Answered by [`Message::Lease`].
    Renew {
        /// The frontend's number for this request; the lease counts from when it was sent.
        request: u64,
        /// The session that its cache belongs to.
        session: u64,
        /// The newest invalidation of the session it has carried out.
        confirmed: u64,
    },
    /// What a frontend has cached stays valid.
    Lease {
        /// The request that it counts from.
        request: u64,
        /// The session it is for. Another one than asked for: drop everything first.
        session: u64,
        /// How long, in milliseconds from when the request was sent. 0: not at all.
        valid_ms: u64,
        /// The newest invalidation of the session.
        invalidation: u64,
        /// The newest committed entry the catalog knows.
        committed: SeqNum,
    },
    /// Drop these stocks. Answered by [`Message::Confirm`].
    Invalidate {
        /// The session it is for.
        session: u64,
        /// Its number in the session, without gaps.
        number: u64,
        /// What to drop.
        symbols: Vec<Symbol>,
    },
    /// All invalidations of the session up to this number were carried out.
    Confirm {
        /// The session.
        session: u64,
        /// Up to here.
        number: u64,
    },
    /// Asks a catalog for a stock, or for all. Answered by [`Message::Found`] or [`Message::NotLeader`].
    Lookup {
        /// The frontend's number for it.
        request: u64,
        /// The session that would cache the answer.
        session: u64,
        /// Which stock; none: all of them.
        symbol: Option<Symbol>,
    },
    /// The answer to [`Message::Lookup`].
    Found {
        /// The request it answers.
        request: u64,
        /// The session that may cache it.
        session: u64,
        /// The invalidations of the session that it is newer than.
        invalidation: u64,
        /// Whether it may be cached at all.
        cacheable: bool,
        /// The newest entry that it shows.
        version: SeqNum,
        /// The stock if it is listed, or all stocks.
        #[cfg_attr(feature = "json-schema", schemars(length(max = crate::limits::STOCKS_MAX)))]
        stocks: Vec<Stock>,
    },
}
