//! `POST /orders`: from a body and headers to a command, and from every way this can fail to a status.
//!
//! Anything may arrive here. The rules: what is not exactly what the contract asks for is refused with the one sentence
//! that says what to change, checked in a fixed order (body, type, quantity, name), so that the same mistakes always get
//! the same answer. Fields that the contract does not name are ignored, so that clients may send what they like besides;
//! a field that is there twice is malformed, since nobody can tell which one is meant. The body is read as JSON whatever
//! its `Content-Type` says, or if it has none.

use std::borrow::Cow;

use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tradenet_schemas::limits::QUANTITY_MAX;
use tradenet_schemas::trade::{Command, IdempotencyKey, Quantity, Refusal, Side, Symbol};

use crate::envelope::Failure;

/// The header that makes a command happen once.
const KEY_HEADER: &str = "idempotency-key";

/// Why an order was not placed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    /// It is no JSON object, or one that can't be read.
    #[error(
        "the body must be a JSON object such as {{\"name\": \"GameStart\", \"quantity\": 1, \"type\": \"buy\"}}: {0}"
    )]
    Malformed(String),
    #[error("invalid transaction type")]
    TransactionType,
    #[error("quantity must be a positive whole number")]
    Quantity,
    #[error("name must be the name of a stock, as text")]
    Name,
    #[error("{0}")]
    Key(&'static str),
    /// The leader's decision, or one that needs no leader as it could only decide so.
    #[error("{}", refusal(*.0))]
    Refused(Refusal),
}

impl From<PlaceError> for Failure {
    fn from(error: PlaceError) -> Self {
        let status = match &error {
            PlaceError::Malformed(_)
            | PlaceError::TransactionType
            | PlaceError::Quantity
            | PlaceError::Name
            | PlaceError::Key(_) => StatusCode::BAD_REQUEST,
            PlaceError::Refused(Refusal::UnknownSymbol) => StatusCode::NOT_FOUND,
            PlaceError::Refused(Refusal::NotEnoughStocks | Refusal::TooManyStocks) => StatusCode::CONFLICT,
            PlaceError::Refused(Refusal::KeyReused) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

fn refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownSymbol => "stock not found",
        Refusal::NotEnoughStocks => "not enough stocks left to buy",
        Refusal::TooManyStocks => {
            "too many stocks: the quantity and the volume of a stock stay below 2^53, so trade fewer"
        }
        Refusal::KeyReused => "this Idempotency-Key was used for another request; send a new one",
    }
}

/// The fields as they stand in the body, so that each can be refused in its own words.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    side: Option<&'a RawValue>,
}

/// Reads a body.
///
/// A whole number that no stock can ever hold ([`QUANTITY_MAX`]) is refused without asking the leader; one that does not
/// even fit 64 bits counts as no number.
pub(crate) fn command(body: &[u8]) -> Result<Command, PlaceError> {
    let text = std::str::from_utf8(body).map_err(|error| PlaceError::Malformed(error.to_string()))?;
    // serde would also take an array of the fields' values.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(PlaceError::Malformed("it does not start with {".to_owned()));
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| PlaceError::Malformed(error.to_string()))?;
    let side = match string(fields.side).as_deref() {
        Some("buy") => Side::Buy,
        Some("sell") => Side::Sell,
        _ => return Err(PlaceError::TransactionType),
    };
    let count = fields.quantity.and_then(|raw| whole(raw.get())).filter(|count| *count > 0);
    let count = count.ok_or(PlaceError::Quantity)?;
    let name = string(fields.name).ok_or(PlaceError::Name)?;
    let symbol = Symbol::new(&name).map_err(|_| PlaceError::Refused(Refusal::UnknownSymbol))?;
    debug_assert_eq!(Quantity::new(QUANTITY_MAX).map(Quantity::get), Some(QUANTITY_MAX));
    let quantity = Quantity::new(count).ok_or(PlaceError::Refused(match side {
        Side::Buy => Refusal::NotEnoughStocks,
        Side::Sell => Refusal::TooManyStocks,
    }))?;
    Ok(Command::Trade { symbol, side, quantity })
}

fn string(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    // A borrowed `Cow` does not come by itself: serde makes owned ones unless told, and escapes need one.
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw?.get()).ok().map(|text| text.0)
}

/// The value of a JSON number, if it is whole, not below 0, and fits: `1`, `1.0`, `10e-1` and `1E0` are all one.
///
/// By its digits, not through a float: above 2^53 floats round, and `1.00000000000000001` would be one.
fn whole(number: &str) -> Option<u64> {
    if let Ok(count) = number.parse() {
        return Some(count);
    }
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (units, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{units}{fraction}");
    let shift = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    if shift < 0 {
        let kept = digits.len().saturating_sub(usize::try_from(shift.unsigned_abs()).ok()?);
        let dropped = digits.split_off(kept);
        if dropped.bytes().any(|digit| digit != b'0') {
            return None;
        }
        // Nothing is left of `0.0`.
        digits.insert(0, '0');
    }
    let zeros = u32::try_from(shift.max(0)).ok()?;
    digits.parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(zeros)?)
}

/// The client's key, if it sent one. `"k"` in quotes is the same key as `k`.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, PlaceError> {
    let mut sent = headers.get_all(KEY_HEADER).iter();
    let Some(value) = sent.next() else { return Ok(None) };
    if sent.next().is_some() {
        return Err(PlaceError::Key("Idempotency-Key must be sent at most once"));
    }
    // What is not visible ASCII breaks the key's own rule below.
    let text = value.to_str().unwrap_or_default();
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    IdempotencyKey::new(bare).map(Some).map_err(|invalid| PlaceError::Key(invalid.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_read_by_its_digits() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(whole(text), expected, "{text}");
        for one in ["1", "1.0", "1e0", "10e-1", "0.1E1", "0.01e+2", "1000.000e-3"] {
            check(one, Some(1));
        }
        for none in ["0.5", "1.00000000000000001", "15e-1", "-1", "\"1\"", "true", "[1]", "1e400", "1e-400", "1e20"] {
            check(none, None);
        }
        for none in ["18446744073709551616", "1e99999999999999999999", "0.1e-9223372036854775808", "{}", "-1.0"] {
            check(none, None);
        }
        check("0", Some(0));
        check("0.0", Some(0));
        check("0e5", Some(0));
        check("1e19", Some(10_000_000_000_000_000_000));
        check("18446744073709551615", Some(u64::MAX));
        check("9007199254740993", Some((1 << 53) + 1));
        check("9007199254740993.0", Some((1 << 53) + 1));
    }

    #[test]
    fn the_first_mistake_in_a_fixed_order_is_the_one_that_is_named() {
        let check = |body: &str, expected: PlaceError| assert_eq!(command(body.as_bytes()), Err(expected), "{body}");
        check(r#"{"name":7,"quantity":0,"type":"give"}"#, PlaceError::TransactionType);
        check(r#"{"name":7,"quantity":0,"type":"buy"}"#, PlaceError::Quantity);
        check(r#"{"name":7,"quantity":1,"type":"buy"}"#, PlaceError::Name);
        check(r#"{"name":"\ud800","quantity":1,"type":"buy"}"#, PlaceError::Name);
        check(r#"{"name":"a.b","quantity":1,"type":"buy"}"#, PlaceError::Refused(Refusal::UnknownSymbol));
        let over = 1_u64 << 53;
        let body = |side: &str| format!(r#"{{"name":"A","quantity":{over},"type":"{side}"}}"#);
        check(&body("buy"), PlaceError::Refused(Refusal::NotEnoughStocks));
        check(&body("sell"), PlaceError::Refused(Refusal::TooManyStocks));
    }

    #[test]
    fn what_means_the_same_is_the_same_command() {
        let plain = command(br#"{"name":"GameStart","quantity":2,"type":"buy"}"#).unwrap();
        let other =
            br#" {"type":"\u0062uy","n\u0061me":"Game\u0053tart","quantity":0.2e1,"more":[{"type":1}],"name2":0} "#;
        assert_eq!(command(other).unwrap(), plain);
    }
}
