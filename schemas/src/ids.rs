//! Who speaks, and when: the identities that protocol messages are fenced by.
//!
//! A name alone is never enough: a process that restarts keeps its id but not its memory, and a disk that is replaced
//! keeps its id but not its data. So leadership belongs to `(ReplicaId, Boot)` (rule R2) and membership of the in-sync
//! set to `(ReplicaId, StoreId)` (rule R3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::REPLICA_ID_MAX;
use crate::text;

pub use crate::text::HexDigits;

/// A 64-bit identifier that is written as 16 hexadecimal digits, so that JSON readers keep every bit.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// How it is written.
            #[must_use]
            pub fn digits(self) -> HexDigits {
                HexDigits::of(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.digits().as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:016x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                HexDigits::read(text).map(Self).ok_or(InvalidId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.digits().as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text::parse(deserializer, str::parse)
            }
        }
    };
}

/// The text is not 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id has 16 hexadecimal digits")
    }
}

impl std::error::Error for InvalidId {}

hex_id! {
    /// One run of one process, drawn at its start.
    Boot
}
hex_id! {
    /// One directory of a replica, drawn when it is first made. A directory that was emptied is another store.
    StoreId
}
hex_id! {
    /// One exchange, drawn when its first configuration is written. Messages of another exchange are dropped.
    ClusterId
}
hex_id! {
    /// Names one attempt to write the configuration, so that a lost answer can be looked up.
    Nonce
}
hex_id! {
    /// One question of a replica to the others, so that a late answer to an earlier one is not taken for one to this.
    Question
}
hex_id! {
    /// The checksum of an entry chained over all entries before it: equal chains mean equal prefixes.
    Chain
}
hex_id! {
    /// A digest of the exchange's state; equal on every replica at the same sequence number (invariant S9).
    Digest
}

/// An order replica, 1 to [`REPLICA_ID_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct ReplicaId(u8);

impl ReplicaId {
    /// The replica with this number, if it is in bounds.
    pub fn new(id: u8) -> Option<Self> {
        (1..=REPLICA_ID_MAX).contains(&id).then_some(Self(id))
    }
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for ReplicaId {
    type Error = String;
    fn try_from(id: u8) -> Result<Self, String> {
        Self::new(id).ok_or_else(|| format!("a replica's id is a whole number from 1 to {REPLICA_ID_MAX}"))
    }
}

impl From<ReplicaId> for u8 {
    fn from(id: ReplicaId) -> u8 {
        id.0
    }
}

impl FromStr for ReplicaId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<u8>().unwrap_or(0).try_into()
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order-{}", self.0)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

counter! {
    /// The number of a configuration; every change of leader or in-sync set is the next one. 0: none yet.
    Epoch
}
counter! {
    /// A position in the order log, from 1 without gaps. 0: before the first entry.
    SeqNum
}
counter! {
    /// The number a client knows its order by, from 1 without gaps.
    OrderNumber
}

counter! {
    /// The number of a trade between two accounts, from 1 without gaps, whichever the stock.
    TradeNumber
}

counter! {
    /// The number of a public event, from 1 without gaps, whatever it is about. 0: before the first.
    EventNumber
}

/// An entry's place and identity: equal positions mean equal logs up to there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Position {
    /// The epoch in which the entry was decided.
    pub epoch: Epoch,
    /// Where it stands.
    pub seq: SeqNum,
    /// Its chained checksum.
    pub chain: Chain,
}

/// Who leads: the process, not only its name (rule R2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Leader {
    /// The replica.
    pub id: ReplicaId,
    /// The run of it that was elected.
    pub boot: Boot,
}

/// Who holds every committed entry: the disk, not only its owner's name (rule R3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Member {
    /// The replica.
    pub id: ReplicaId,
    /// The directory that holds the entries.
    pub store: StoreId,
}

/// A process that sends messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// An order replica.
    Order(ReplicaId, Boot),
    /// A catalog.
    Catalog(Boot),
    /// A frontend.
    Frontend(Boot),
    /// An operator's command.
    Tool(Boot),
}

impl Node {
    /// The run of the process.
    pub fn boot(self) -> Boot {
        match self {
            Self::Order(_, boot) | Self::Catalog(boot) | Self::Frontend(boot) | Self::Tool(boot) => boot,
        }
    }
}
