//! Where messages go: `PREFIX.DOMAIN.VERB.ID`, lower case, the id last.
//!
//! The prefix is a parameter, so that tests and exchanges share a broker. User text never becomes part of a subject.
//! Each topic has its own subject, so that the broker can permit each service its own (see `nats/`).

use std::fmt;

use crate::ids::{Boot, Node, ReplicaId};
use crate::message::Message;

/// The first token of every subject of one exchange: 1 to 32 of `a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prefix(String);

impl Prefix {
    /// The prefix of that name.
    ///
    /// # Errors
    /// The text breaks a rule of the type.
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if (1..=32).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a subject prefix has 1 to 32 of a-z, 0-9, _ and -".to_owned())
        }
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// What is published to in order to read one of the register's records, through the leader of its stream.
    pub fn register_read(bucket: &str) -> String {
        format!("$JS.API.STREAM.MSG.GET.KV_{bucket}")
    }
    /// What is published to in order to make one of the register's buckets.
    pub fn register_created(bucket: &str) -> String {
        format!("$JS.API.STREAM.CREATE.KV_{bucket}")
    }
    /// What is published to in order to write the only record of one of the register's buckets.
    pub fn register_written(bucket: &str) -> String {
        format!("$KV.{bucket}.current")
    }
    /// Both buckets of the register.
    pub fn register_buckets(&self) -> [String; 2] {
        [self.configuration_bucket(), self.floor_bucket()]
    }
    /// What the log is published on for [`Prefix::entries_stream`].
    pub fn entries(&self) -> String {
        format!("{}.feed.entries.all", self.0)
    }
    /// The stream that others read the log from, by its usual name.
    pub fn entries_stream(&self) -> String {
        format!("{}-entries", self.0)
    }
    /// The bucket that holds the configuration.
    pub fn configuration_bucket(&self) -> String {
        format!("{}-configuration", self.0)
    }
    /// The bucket that holds the floor.
    pub fn floor_bucket(&self) -> String {
        format!("{}-floor", self.0)
    }
}

/// Who is known to the broker: one user a service, and one for each kind of guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum User {
    /// An order replica.
    Order,
    /// A catalog.
    Catalog,
    /// A frontend.
    Frontend,
    /// A person: `tradenet status`, `recover`, and the broker's own tools.
    Operator,
    /// loadgen.
    Load,
    /// Whoever follows the market from outside.
    Feed,
    /// Whoever reads the whole log from outside.
    Ledger,
}

/// What stands in place of the id, the last token of a topic's subjects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    /// A replica's id.
    Replica,
    /// A catalog's boot.
    Catalog,
    /// A frontend's boot.
    Frontend,
    /// `all`: everybody who listens hears it.
    All,
}

macro_rules! topics {
    ($($(#[doc = $says:literal])+ $name:ident = $tokens:literal to $address:ident, said by [$($speaker:ident),*], heard by [$($listener:ident),*];)*) => {
        /// What a subject is for. Services subscribe by this table and try at their start what they may say by it; the users in
        /// `nats/users.conf` and `docs/asyncapi.json` are held against it by tests.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Topic {
            $($(#[doc = $says])+ $name,)*
        }

        impl Topic {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What it is for, in a sentence.
            pub fn says(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($says),+).trim_ascii(),)*
                }
            }
            /// The tokens between prefix and id.
            pub fn tokens(self) -> &'static str {
                match self {
                    $(Self::$name => $tokens,)*
                }
            }
            /// Whom the last token names.
            pub fn address(self) -> Address {
                match self {
                    $(Self::$name => Address::$address,)*
                }
            }
            /// Who publishes on it.
            pub fn speakers(self) -> &'static [User] {
                match self {
                    $(Self::$name => &[$(User::$speaker),*],)*
                }
            }
            /// Who subscribes to it. The operator may hear everything besides.
            pub fn listeners(self) -> &'static [User] {
                match self {
                    $(Self::$name => &[$(User::$listener),*],)*
                }
            }
        }
    };
}

topics! {
    /// Heartbeats and pre-votes to a replica.
    Heartbeat = "order.heartbeat" to Replica, said by [Order, Frontend, Operator], heard by [Order];
    /// Configurations, from the replica that wrote one to everybody.
    Announce = "order.announce" to All, said by [Order], heard by [Order, Catalog, Frontend];
    /// Proposed configurations, from frontends to a replica.
    Propose = "order.propose" to Replica, said by [Frontend], heard by [Order];
    /// Commands to a replica.
    Submit = "order.submit" to Replica, said by [Frontend], heard by [Order];
    /// Queries to a replica.
    Read = "order.read" to Replica, said by [Frontend], heard by [Order];
    /// Entries, from the leader to followers and catalogs.
    Replicate = "order.replicate" to All, said by [Order], heard by [Order, Catalog];
    /// News of the commit point, from the leader to catalogs.
    Commit = "order.commit" to All, said by [Order], heard by [Catalog];
    /// Acknowledgements to the leader, and "your epoch is over".
    Ack = "order.ack" to Replica, said by [Order], heard by [Order];
    /// Requests for missed entries and for snapshots, to a replica.
    Fetch = "order.fetch" to Replica, said by [Order], heard by [Order];
    /// A catalog's requests to a replica.
    Authority = "order.authority" to Replica, said by [Catalog], heard by [Order];
    /// A frontend's requests to a catalog.
    Lookup = "catalog.lookup" to Catalog, said by [Frontend], heard by [Catalog];
    /// A catalog's invalidations to a frontend.
    Invalidate = "frontend.invalidate" to Frontend, said by [Catalog], heard by [Frontend];
    /// Public events, from the leader to whoever follows the market.
    Events = "feed.events" to All, said by [Order], heard by [Feed];
}

impl Topic {
    /// The topic that a request travels on; none for answers, which go to the asker's reply subject.
    pub fn of(message: &Message) -> Option<Self> {
        Some(match message {
            Message::Heartbeat { .. } | Message::PreVote { .. } => Self::Heartbeat,
            Message::Announce(_) => Self::Announce,
            Message::Propose { .. } => Self::Propose,
            Message::Submit(_) => Self::Submit,
            Message::Read { .. } => Self::Read,
            Message::Append { .. } => Self::Replicate,
            Message::Commit { .. } => Self::Commit,
            Message::Ack { .. } | Message::Fenced(_) => Self::Ack,
            Message::Fetch { .. } | Message::FetchSnapshot { .. } => Self::Fetch,
            Message::Authority { .. } | Message::Staged { .. } | Message::List { .. } | Message::Relinquish {} => {
                Self::Authority
            }
            Message::Renew { .. } | Message::Confirm { .. } | Message::Lookup { .. } => Self::Lookup,
            Message::Invalidate { .. } => Self::Invalidate,
            Message::Events { .. } => Self::Events,
            Message::Status(_)
            | Message::Vote { .. }
            | Message::Proposed { .. }
            | Message::Outcomes { .. }
            | Message::Answer { .. }
            | Message::NotLeader { .. }
            | Message::Overloaded { .. }
            | Message::Unavailable { .. }
            | Message::Chunk { .. }
            | Message::SnapshotPart { .. }
            | Message::Grant { .. }
            | Message::Snapshot { .. }
            | Message::Listed {}
            | Message::Lease { .. }
            | Message::Found { .. } => return None,
        })
    }

    /// Whether a message is a request: it is sent with a reply subject, where its answer arrives, or the broker's word
    /// that nobody listens. Everything else is an answer, is told to all, or is a fact that needs no answer of its own.
    /// [`Message::Events`] is sent so for the broker's word alone: nobody answers it.
    pub fn wants_answer(message: &Message) -> bool {
        matches!(
            message,
            Message::Heartbeat { .. }
                | Message::PreVote { .. }
                | Message::Propose { .. }
                | Message::Submit(_)
                | Message::Read { .. }
                | Message::Fetch { .. }
                | Message::FetchSnapshot { .. }
                | Message::Authority { .. }
                | Message::List { .. }
                | Message::Renew { .. }
                | Message::Lookup { .. }
                | Message::Events { .. }
        )
    }
}

/// What a service that is `node` listens to.
pub fn heard_by(node: Node) -> Vec<(Topic, Peer)> {
    let (user, own) = match node {
        Node::Order(id, _) => (User::Order, Peer::Order(id)),
        Node::Catalog(boot) => (User::Catalog, Peer::Catalog(boot)),
        Node::Frontend(boot) => (User::Frontend, Peer::Frontend(boot)),
        Node::Tool(_) => return Vec::new(),
    };
    let topics = Topic::ALL.iter().filter(|topic| topic.listeners().contains(&user));
    topics.map(|topic| (*topic, if topic.address() == Address::All { Peer::All } else { own })).collect()
}

/// Whom a message is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// The replica of that id, whichever run of it.
    Order(ReplicaId),
    /// That run of a catalog.
    Catalog(Boot),
    /// That run of a frontend.
    Frontend(Boot),
    /// Everybody who listens to the topic.
    All,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(id) => write!(f, "{id}"),
            Self::Catalog(boot) | Self::Frontend(boot) => boot.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

/// The last token of a reply subject.
fn reply_token(peer: Peer) -> String {
    match peer {
        Peer::Order(id) => format!("o{id}"),
        Peer::Catalog(boot) => format!("c{boot}"),
        Peer::Frontend(boot) => format!("f{boot}"),
        Peer::All => "a".to_owned(),
    }
}

impl Prefix {
    /// The subject of a topic at a peer.
    pub fn subject(&self, topic: Topic, peer: Peer) -> String {
        format!("{}.{}.{peer}", self.0, topic.tokens())
    }

    /// Where answers to `node` arrive; `peer`, the last token, tells which of its requests found nobody.
    pub fn reply(&self, node: Node, peer: Peer) -> String {
        format!("{}{}", self.reply_prefix(node), reply_token(peer))
    }

    /// Where the large answers to `node` arrive, those that travel on its second connection: one token below the others, so
    /// that a subscription to `*` behind one of the two prefixes does not hear the other's.
    pub fn bulk_reply(&self, node: Node, peer: Peer) -> String {
        format!("{}{}", self.bulk_reply_prefix(node), reply_token(peer))
    }

    /// What every subject of [`Prefix::bulk_reply`] starts with, the last dot included.
    pub fn bulk_reply_prefix(&self, node: Node) -> String {
        format!("{}bulk.", self.reply_prefix(node))
    }

    /// What every reply subject of `node` starts with, the last dot included. Behind it comes one token, or `bulk` and one.
    pub fn reply_prefix(&self, node: Node) -> String {
        let kind = match node {
            Node::Order(..) => "order",
            Node::Catalog(_) => "catalog",
            Node::Frontend(_) => "frontend",
            Node::Tool(_) => "tool",
        };
        format!("{}.{kind}.reply.{}.", self.0, node.boot())
    }

    /// The peer in the last token of a reply subject.
    pub fn peer_of_reply(subject: &str) -> Option<Peer> {
        let token = subject.rsplit('.').next()?;
        let (kind, id) = token.split_at_checked(1)?;
        match kind {
            "o" => id.parse().ok().map(Peer::Order),
            "c" => id.parse().ok().map(Peer::Catalog),
            "f" => id.parse().ok().map(Peer::Frontend),
            "a" => id.is_empty().then_some(Peer::All),
            _ => None,
        }
    }
}
