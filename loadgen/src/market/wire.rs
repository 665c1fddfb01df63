//! What accounts send and get, written from the contract; money is cents, read by its digits.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

use crate::wire::Side;

/// Money in cents; a JSON number with two decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cents(pub(crate) u64);

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Cents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Cents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        cents(raw.get()).map(Self).ok_or_else(|| de::Error::custom("money is a number with two decimals"))
    }
}

fn cents(text: &str) -> Option<u64> {
    let (units, decimals) = text.split_once('.')?;
    let plain = decimals.len() == 2 && [units, decimals].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()));
    plain.then(|| format!("{units}{decimals}").parse().ok()).flatten()
}

/// A stock, with what the house wants for it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) price: Cents,
    pub(crate) volume: u64,
}

#[derive(Deserialize)]
pub(crate) struct Opened {
    pub(crate) token: String,
}

/// The body of a deposit or withdrawal.
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Asset<'a> {
    Cash { amount: Cents },
    Stock { name: &'a str, quantity: u64 },
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Balance {
    pub(crate) cash: Cents,
    pub(crate) reserved_cash: Cents,
    pub(crate) holdings: Vec<Holding>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Holding {
    pub(crate) name: String,
    pub(crate) quantity: u64,
    pub(crate) reserved: u64,
}

/// The body of an order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NewOrder<'a> {
    pub(crate) name: &'a str,
    pub(crate) side: Side,
    pub(crate) quantity: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) price: Option<Cents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_in_force: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) post_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Open,
    Filled,
    Cancelled,
}

/// An order as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_num: u64,
    pub(crate) name: String,
    pub(crate) side: Side,
    pub(crate) quantity: u64,
    pub(crate) price: Option<Cents>,
    pub(crate) time_in_force: String,
    pub(crate) status: Status,
    pub(crate) filled: u64,
    pub(crate) remaining: u64,
    pub(crate) fills: Vec<Fill>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Fill {
    pub(crate) trade: u64,
    pub(crate) price: Cents,
    pub(crate) quantity: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Book {
    pub(crate) bids: Vec<(Cents, u64)>,
    pub(crate) asks: Vec<(Cents, u64)>,
}

/// A trade as everybody sees it; its time plays no part.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Trade {
    pub(crate) trade: u64,
    pub(crate) price: Cents,
    pub(crate) quantity: u64,
    pub(crate) side: Side,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_and_written_by_its_digits() {
        for (text, expected) in [
            ("15.99", Some(1_599)),
            ("0.00", Some(0)),
            ("90071992547409.91", Some(9_007_199_254_740_991)),
            ("15.9", None),
            ("15", None),
            ("-1.00", None),
            ("1.000", None),
            ("1e2", None),
            ("\"1.00\"", None),
        ] {
            let found = serde_json::from_str::<Cents>(text).ok();
            assert_eq!(found, expected.map(Cents), "{text}");
            assert!(found.is_none_or(|cents| serde_json::to_string(&cents).unwrap() == text), "{text}");
        }
    }
}
