//! The part of the REST contract this tool speaks, as types.
//!
//! Written from the contract and not from the exchange's own code: a load generator that shared the types of what it
//! checks would agree with its mistakes.

use serde::{Deserialize, Serialize};

/// The envelope of every success.
#[derive(Deserialize)]
pub(crate) struct Data<T> {
    pub(crate) data: T,
}

/// The envelope of every error.
#[derive(Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What an error says.
#[derive(Deserialize)]
pub(crate) struct ErrorDetail {
    pub(crate) message: String,
}

/// A stock as looked up. The price plays no part in a run.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Stock {
    pub(crate) name: String,
    pub(crate) quantity: u64,
    pub(crate) volume: u64,
}

/// Buy or sell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// From the house: its quantity falls.
    Buy,
    /// To the house: its quantity rises.
    Sell,
}

impl Side {
    /// The word of the contract.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

/// The body of `POST /orders`.
#[derive(Serialize)]
pub(crate) struct Trade<'a> {
    pub(crate) name: &'a str,
    pub(crate) quantity: u32,
    #[serde(rename = "type")]
    pub(crate) side: Side,
}

/// The success of `POST /orders`.
#[derive(Deserialize)]
pub(crate) struct Traded {
    pub(crate) transaction_number: u64,
}

/// The success of `GET /orders/{number}`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Order {
    pub(crate) order_num: u64,
    pub(crate) name: String,
    /// Text: an order that came back as neither buy nor sell is a changed order and not an unreadable one.
    #[serde(rename = "type")]
    pub(crate) side: String,
    pub(crate) quantity: u64,
}
