//! Statements: what is said once more of an account's orders that are done, so that they are found without an index.
//!
//! Problem: an account may look at each order that it ever placed, and what became of one stands in several entries, of which
//! only the first is found by the order's number.
//! Idea: now and then an entry states the next of an account's orders that are done, all in one place. Statements form groups
//! of falling size, like the digits of their number in binary. One that makes a larger group of smaller ones says where those
//! are. So the newest of a group leads to the rest of it, and any is reached in as many steps as that number has digits.
//! Rule kept: an order is stated once, when nothing can happen to it any more.

use serde::{Deserialize, Serialize};

use crate::account::{AccountOrder, Fill, OrderStatus, TimeInForce};
use crate::ids::{OrderNumber, SeqNum, TradeNumber};
use crate::trade::{Price, Quantity, Side, Symbol};

/// An order of an account that is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DoneOrder {
    /// Its number.
    pub order: OrderNumber,
    /// What.
    pub symbol: Symbol,
    /// Which way.
    pub side: Side,
    /// How many were ordered.
    pub quantity: Quantity,
    /// The worst price to trade at, in cents; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// How long it waited.
    #[serde(default, skip_serializing_if = "is_default")]
    pub time_in_force: TimeInForce,
    /// How many trades it had when it was put in the book; none: it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rested_after: Option<usize>,
    /// How many were left, and cancelled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cancelled: Quantity,
    /// Number, price in cents and quantity of its first trades, at most [`FILLS_SHOWN_MAX`](crate::limits::FILLS_SHOWN_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fills: Vec<(TradeNumber, Price, Quantity)>,
}

/// Most orders rest till they are filled, and every byte of the log is kept for ever.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl DoneOrder {
    /// Whether all of it was traded, or the rest cancelled.
    pub fn status(&self) -> OrderStatus {
        if self.cancelled == Quantity::ZERO { OrderStatus::Filled } else { OrderStatus::Cancelled }
    }

    /// The same as it is shown to its account.
    pub fn into_shown(self) -> AccountOrder {
        let (status, filled) = (self.status(), self.quantity.checked_sub(self.cancelled).unwrap_or_default());
        let fills = self.fills.into_iter().map(|(trade, price, quantity)| Fill { trade, price, quantity }).collect();
        let Self { order: number, symbol, side, quantity, price, time_in_force, .. } = self;
        AccountOrder { number, symbol, side, quantity, price, time_in_force, status, filled, fills }
    }
}

/// Statements of one account, in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Statements {
    /// How many: a power of two.
    pub count: u64,
    /// The entry with the newest of them.
    pub newest: SeqNum,
    /// The lowest number of an order in them.
    pub lowest: OrderNumber,
    /// The highest.
    pub highest: OrderNumber,
    /// Whether any of the orders was filled.
    pub filled: bool,
    /// Whether any was cancelled.
    pub cancelled: bool,
}
