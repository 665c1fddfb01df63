//! `POST /orders`: from a body and headers to a command, and from every way this can fail to a status.
//!
//! Anything may arrive here. The rules: what is not exactly what the contract asks for is refused with the one sentence
//! that says what to change, checked in a fixed order (body, type, quantity, name), so that the same mistakes always get
//! the same answer. Fields that the contract does not name are ignored, so that clients may send what they like besides;
//! a field that is there twice is malformed, since nobody can tell which one is meant. The body is read as JSON whatever
//! its `Content-Type` says, or if it has none.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tradenet_schemas::limits::QUANTITY_MAX;
use tradenet_schemas::rest::openapi::NewQuantity;
use tradenet_schemas::trade::{Command, IdempotencyKey, Quantity, Refusal, Side, Symbol};
use utoipa::ToSchema;

use crate::envelope::Failure;
use crate::{fields, refusals};

/// The header that makes a command happen once.
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

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
    #[error("{}", refusals::message(*.0))]
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
            PlaceError::Refused(refusal) => refusals::status(*refusal),
        };
        Self::new(status, error.to_string())
    }
}

// The fields as they stand in the body, so that each can be refused in its own words.
/// A trade with the house.
#[derive(Deserialize, ToSchema)]
#[schema(as = PlaceOrder)]
pub(crate) struct Fields<'a> {
    #[serde(borrow)]
    #[schema(value_type = Symbol)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    #[schema(value_type = NewQuantity)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    #[schema(value_type = Side)]
    side: Option<&'a RawValue>,
}

/// Reads a body.
///
/// A whole number that no stock can ever hold ([`QUANTITY_MAX`]) is refused without asking the leader; one that does not
/// even fit 64 bits counts as no number.
pub(crate) fn command(body: &[u8]) -> Result<Command, PlaceError> {
    let fields: Fields<'_> = fields::object(body).map_err(PlaceError::Malformed)?;
    let side = match fields::string(fields.side).as_deref() {
        Some("buy") => Side::Buy,
        Some("sell") => Side::Sell,
        _ => return Err(PlaceError::TransactionType),
    };
    let count = fields.quantity.and_then(|raw| fields::whole(raw.get())).filter(|count| *count > 0);
    let count = count.ok_or(PlaceError::Quantity)?;
    let name = fields::string(fields.name).ok_or(PlaceError::Name)?;
    let symbol = Symbol::new(&name).map_err(|_| PlaceError::Refused(Refusal::UnknownSymbol))?;
    debug_assert_eq!(Quantity::new(QUANTITY_MAX).map(Quantity::get), Some(QUANTITY_MAX));
    let quantity = Quantity::new(count).ok_or(PlaceError::Refused(match side {
        Side::Buy => Refusal::NotEnoughStocks,
        Side::Sell => Refusal::TooManyStocks,
    }))?;
    Ok(Command::Trade { symbol, side, quantity })
}

/// The client's key, if it sent one. `"k"` in quotes is the same key as `k`.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, PlaceError> {
    let mut sent = headers.get_all(&KEY_HEADER).iter();
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
