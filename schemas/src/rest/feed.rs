//! What `GET /events` tells, in the contract's words: the `data` of each kind of event.

use serde::{Deserialize, Serialize};

use super::Stock;
use super::market::Trade;
use crate::account;
#[cfg(feature = "openapi")]
use crate::ids::ReplicaId;
use crate::ids::{EventNumber, SeqNum};
use crate::trade::{self, Symbol};

/// `event: trade`: two accounts traded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Traded<'a> {
    /// The log entry that made it; comparable with that of a book.
    pub sequence: u64,
    /// The stock.
    #[cfg_attr(feature = "openapi", schema(value_type = Symbol))]
    pub name: &'a str,
    /// The rest as in `GET /stocks/{name}/trades`.
    #[serde(flatten)]
    pub trade: Trade,
}

impl<'a> Traded<'a> {
    /// The trade of that stock, made by that entry.
    pub fn new(seq: SeqNum, symbol: &'a Symbol, trade: &account::Trade) -> Self {
        Self { sequence: seq.0, name: symbol.as_str(), trade: trade.into() }
    }
}

/// `event: stock`: a stock was listed or traded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StockChanged<'a> {
    /// The log entry that changed it.
    pub sequence: u64,
    /// As in `GET /stocks/{name}`.
    #[serde(flatten)]
    pub stock: Stock<'a>,
}

impl<'a> StockChanged<'a> {
    /// The stock as that entry left it.
    pub fn new(seq: SeqNum, stock: &'a trade::Stock) -> Self {
        Self { sequence: seq.0, stock: stock.into() }
    }
}

/// `event: cluster`: who leads, as in `GET /cluster`. A state: the newest one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Leadership {
    /// The newest configuration's number; 0 before the first.
    pub epoch: u64,
    /// The replica that leads, if it is known to serve.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ReplicaId>))]
    pub leader: Option<u8>,
    /// The replicas that hold every committed order, by id.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<ReplicaId>))]
    pub in_sync: Vec<u8>,
}

/// `event: gap`: events that the client lacks can't be told any more. It has to read anew what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// The last event that the client has.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub after: EventNumber,
    /// The next one that it gets.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub next: EventNumber,
}

/// `event: end`: the last of a stream that ends in good order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct End {
    /// Why, and what to do next.
    pub message: String,
}
