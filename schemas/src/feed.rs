//! What everybody may know: the market's events, without a word of whose orders they are.
//!
//! Each entry of the log makes none, one or several, in a fixed order: its trades, the levels of the book that it changed, the
//! stock. They are numbered through the whole log ([`EventNumber`](crate::ids::EventNumber)), so a number names the same event
//! on every replica.

use serde::{Deserialize, Serialize};

use crate::account::{Book, Trade};
use crate::ids::SeqNum;
use crate::trade::{Stock, Symbol};

/// Something that happened in public.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct PublicEvent {
    /// The entry that made it.
    pub seq: SeqNum,
    /// What happened.
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Two accounts traded that stock.
    Traded(Symbol, Trade),
    /// A book changed: only the levels that did, as they are now; none left: the level is gone.
    BookChanged(Book),
    /// A stock was listed or traded: as it is now.
    StockChanged(Stock),
}
