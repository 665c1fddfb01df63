//! The facts in the order log, from which everything else is derived.
//!
//! One [`Entry`] holds all [`Event`]s of one accepted command. Entries hold replicated fields only, so the committed
//! prefix is byte for byte the same on every replica. `tradenet-core`'s journal codec says how they stand in the file.

use serde::{Deserialize, Serialize};

use crate::ids::{Boot, Digest, Epoch, Leader, OrderNumber, SeqNum};
use crate::trade::{CommandKey, Price, Quantity, Side, Symbol};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A leader began; everything before it in the log is committed when this is.
    EpochStart {
        /// Who.
        leader: Leader,
        /// The state before this entry, to be the same wherever the log is applied.
        digest: Digest,
    },
    /// A stock can be traded from now on.
    Listed {
        /// Its name.
        symbol: Symbol,
        /// The house's price, in cents.
        price: Price,
        /// What the house has to sell.
        quantity: Quantity,
    },
    /// A client traded with the house.
    Traded {
        /// The order's number.
        order: OrderNumber,
        /// What.
        symbol: Symbol,
        /// Which way.
        side: Side,
        /// How many.
        quantity: Quantity,
        /// At which price, in cents.
        price: Price,
    },
    /// This catalog answers for the exchange, and the leader waits for it before it answers a trade.
    Attached {
        /// The catalog's run.
        catalog: Boot,
    },
    /// No catalog does any more.
    Detached {
        /// The catalog's run.
        catalog: Boot,
    },
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its place.
    pub seq: SeqNum,
    /// The epoch in which it was decided.
    pub epoch: Epoch,
    /// When it was decided, in milliseconds since 1970 by the leader's clock: for people, nothing is decided by it.
    pub at: u64,
    /// The key of the command that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CommandKey>,
    /// What happened, all of it or nothing.
    pub events: Vec<Event>,
}
