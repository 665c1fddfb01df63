//! The facts in the order log, from which everything else is derived.
//!
//! One [`Entry`] holds all [`Event`]s of one accepted command. Entries hold replicated fields only, so the committed
//! prefix is byte for byte the same on every replica. `tradenet-core`'s journal codec says how they stand in the file.

use serde::{Deserialize, Serialize};

use crate::account::{Account, Asset, TimeInForce, TokenHash};
use crate::ids::{Boot, Digest, Epoch, Leader, OrderNumber, SeqNum, TradeNumber};
use crate::statement::{DoneOrder, Statements};
use crate::trade::{CommandKey, Price, Quantity, Side, Symbol};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A leader began, or goes on by another record; everything before it in the log is committed when this is.
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
    /// An account was opened, or has another token: as long as it has done nothing, the one who opened it can have a new one.
    Opened {
        /// Its name.
        account: Account,
        /// What its token hashes to.
        token: TokenHash,
    },
    /// An account brought something in.
    Deposited {
        /// Who.
        account: Account,
        /// What.
        asset: Asset,
    },
    /// An account took something out.
    Withdrawn {
        /// Who.
        account: Account,
        /// What.
        asset: Asset,
    },
    /// An account placed an order in a book. What of it is neither filled nor cancelled by the same entry rests there.
    Placed {
        /// The order's number.
        order: OrderNumber,
        /// Whose it is.
        account: Account,
        /// What.
        symbol: Symbol,
        /// Which way.
        side: Side,
        /// How many.
        quantity: Quantity,
        /// The worst price to trade at, in cents; none: any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        price: Option<Price>,
        /// How long it waits.
        time_in_force: TimeInForce,
        /// Whether it was to be refused rather than trade at once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        post_only: bool,
    },
    /// The order that this entry places met one that rested.
    Matched {
        /// The trade's number.
        trade: TradeNumber,
        /// The order that rested.
        maker: OrderNumber,
        /// What was traded.
        symbol: Symbol,
        /// At which price, in cents: the resting order's.
        price: Price,
        /// How many.
        quantity: Quantity,
    },
    /// What was left of an order was cancelled.
    Cancelled {
        /// Which.
        order: OrderNumber,
        /// How many were left.
        quantity: Quantity,
    },
    /// What has become of some of an account's orders is said once more, since they are not kept in memory any longer.
    Stated {
        /// Whose they are.
        account: Account,
        /// The groups of its earlier statements with which this one makes a larger group, the smallest last.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        earlier: Vec<Statements>,
        /// The next of its orders that are done, in the order in which that came about.
        orders: Vec<DoneOrder>,
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
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
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
