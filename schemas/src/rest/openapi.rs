//! The schemas of values that REST clients send and get, for the OpenAPI document.
//!
//! Problem: a bound that stands in a document by hand is wrong the day after it changes in the code. Idea: the types that
//! keep the bounds have their schemas written here, by the same constants; bodies derive theirs and name these types for
//! their fields. Rule kept: only descriptions and examples are written twice.

use utoipa::openapi::schema::{ArrayBuilder, Schema, Type};
use utoipa::openapi::{Object, ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::Money;
use crate::account::{Account, Token};
use crate::ids::{OrderNumber, ReplicaId};
use crate::limits::{
    ACCOUNT_BYTES_MAX, CASH_CENTS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, PRICE_CENTS_MAX, QUANTITY_MAX, REPLICA_ID_MAX,
    SYMBOL_BYTES_MAX,
};
use crate::trade::{IdempotencyKey, Quantity, Symbol};

/// Gives a type its schema: a name in the document, and what it allows.
macro_rules! schema_of {
    ($($type:ty as $name:literal: $schema:expr;)+) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    $schema.into()
                }
            }
            impl ToSchema for $type {
                fn name() -> std::borrow::Cow<'static, str> {
                    $name.into()
                }
            }
        )+
    };
}

/// A price that an order names: above 0.
#[derive(Debug)]
pub struct NewPrice;

/// How many stocks an order, deposit or withdrawal is about: above 0.
#[derive(Debug)]
pub struct NewQuantity;

/// An amount of money that is brought in or taken out: above 0.
#[derive(Debug)]
pub struct Amount;

/// One side of a book at one price: `[price, quantity]`.
#[derive(Debug)]
pub struct Level;

schema_of! {
    Symbol as "Symbol": text(r"^[!-)+,\-0-=?-~]+$", SYMBOL_BYTES_MAX, "GameStart")
        .description(Some("A stock's name: visible ASCII other than . * > and /"));
    Quantity as "Quantity": whole(0).maximum(Some(QUANTITY_MAX)).examples([100]).description(Some("How many stocks"));
    NewQuantity as "NewQuantity": whole(1).maximum(Some(QUANTITY_MAX)).examples([1]).description(Some("How many stocks"));
    OrderNumber as "OrderNumber": whole(1).examples([42]).description(Some("From 1, without gaps"));
    ReplicaId as "ReplicaId": whole(1).maximum(Some(u64::from(REPLICA_ID_MAX))).examples([3])
        .description(Some("An order replica"));
    Money as "Money": money().minimum(Some(0)).examples([15.99])
        .description(Some("Money, always shown with two decimals"));
    NewPrice as "NewPrice": money().minimum(Some(0.01)).maximum(Some(units(PRICE_CENTS_MAX))).multiple_of(Some(0.01))
        .examples([15.99]).description(Some("A price, with at most two decimals"));
    Amount as "Amount": money().minimum(Some(0.01)).maximum(Some(units(CASH_CENTS_MAX))).multiple_of(Some(0.01))
        .examples([100.0]).description(Some("An amount of money, with at most two decimals"));
    Account as "AccountName": text("^[a-z0-9_-]+$", ACCOUNT_BYTES_MAX, "alice");
    Token as "Token": ObjectBuilder::new().schema_type(Type::String)
        .pattern(Some(format!("^[a-z0-9_-]{{1,{ACCOUNT_BYTES_MAX}}}\\.[0-9a-f]{{64}}$")))
        .description(Some("ACCOUNT.SECRET, the secret being 256 random bits; shown once"));
    IdempotencyKey as "IdempotencyKey": text("^[!-~]+$", IDEMPOTENCY_KEY_BYTES_MAX, "01JCZ5T6M3-buy-GameStart")
        .description(Some("Visible ASCII, chosen by the client; in quotes it is the same key"));
}

impl PartialSchema for Level {
    fn schema() -> RefOr<Schema> {
        let pair: [Schema; 2] = [Object::with_type(Type::Number).into(), Object::with_type(Type::Integer).into()];
        let level = ArrayBuilder::new().items(utoipa::openapi::schema::ArrayItems::False).prefix_items(pair);
        level.min_items(Some(2)).max_items(Some(2)).examples([serde_json::json!([15.99, 5])]).into()
    }
}

impl ToSchema for Level {}

fn whole(least: u64) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least))
}

fn money() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number)
}

/// For people to read: the code counts cents.
#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
fn units(cents: u64) -> f64 {
    cents as f64 / 100.0
}

fn text(pattern: &str, bytes_max: usize, example: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    text.min_length(Some(1)).max_length(Some(bytes_max)).examples([example])
}
