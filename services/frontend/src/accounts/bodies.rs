//! The bodies of requests about accounts: what they may say, and what is wrong with those that say something else.
//!
//! The rules are those of [`crate::placing`], but for fields that are not known: these are refused, since a misspelt
//! `post_only` must not be an order without it. What is read here is also what the OpenAPI document shows.

use serde::Deserialize;
use serde_json::value::RawValue;
use tradenet_schemas::account::{Account, Asset, Cash, NewOrder, TimeInForce};
use tradenet_schemas::rest::openapi::{Amount, NewPrice, NewQuantity};
use tradenet_schemas::trade::{Price, Quantity, Refusal, Side, Symbol};
use utoipa::ToSchema;

use super::bad;
use crate::envelope::Failure;
use crate::fields;

pub(super) fn malformed(example: &str, why: &str) -> Failure {
    bad(format!("the body must be a JSON object such as {example}: {why}"))
}

/// A new account.
#[derive(Deserialize, ToSchema)]
#[schema(as = OpenAccount)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenFields<'a> {
    #[serde(borrow)]
    #[schema(value_type = Account)]
    pub(super) account: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssetFields<'a> {
    #[serde(borrow)]
    amount: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
}

// `AssetFields`, as there may be of them.
/// Money or stocks.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = Assets)]
#[expect(dead_code, reason = "only documents")]
pub(super) enum AssetBody {
    /// Money.
    Money(Money),
    /// Some of a stock.
    Stocks(Stocks),
}

/// Money
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MoneyToMove)]
#[expect(dead_code, reason = "only documents")]
pub(super) struct Money {
    #[schema(value_type = Amount)]
    amount: u64,
}

/// Some of a stock
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StocksToMove)]
#[expect(dead_code, reason = "only documents")]
pub(super) struct Stocks {
    name: Symbol,
    #[schema(value_type = NewQuantity)]
    quantity: u64,
}

const ASSETS: &str = r#"{"amount": 100.00} or {"name": "GameStart", "quantity": 1}"#;

/// Money or stocks; `too_much`: what an amount is that nobody can have.
pub(super) fn asset(body: &[u8], too_much: Refusal) -> Result<Asset, Failure> {
    let AssetFields { amount, name, quantity } = fields::object(body).map_err(|why| malformed(ASSETS, &why))?;
    match (amount, name, quantity) {
        (Some(amount), None, None) => {
            let cents = fields::cents(amount.get()).filter(|cents| *cents > 0);
            let cents = cents.ok_or_else(|| bad("amount must be a positive number with at most two decimals"))?;
            Ok(Asset::Cash(Cash::from_cents(cents).ok_or(too_much)?))
        }
        (None, name, count) if name.is_some() || count.is_some() => {
            let too_many =
                if too_much == Refusal::TooMuchCash { Refusal::TooManyStocks } else { Refusal::InsufficientStocks };
            let count = self::quantity(count)?;
            Ok(Asset::Stock(symbol(name)?, Quantity::new(count).ok_or(too_many)?))
        }
        _ => Err(malformed(ASSETS, "it must have either amount, or name and quantity")),
    }
}

fn quantity(raw: Option<&RawValue>) -> Result<u64, Failure> {
    let count = raw.and_then(|raw| fields::whole(raw.get())).filter(|count| *count > 0);
    count.ok_or_else(|| bad("quantity must be a positive whole number"))
}

fn symbol(raw: Option<&RawValue>) -> Result<Symbol, Failure> {
    let name = fields::string(raw).ok_or_else(|| bad("name must be the name of a stock, as text"))?;
    Ok(Symbol::new(&name).map_err(|_| Refusal::UnknownSymbol)?)
}

/// An order for the book.
#[derive(Deserialize, ToSchema)]
#[schema(as = PlaceInBook)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderFields<'a> {
    #[serde(borrow)]
    #[schema(value_type = Symbol)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    #[schema(value_type = Side)]
    side: Option<&'a RawValue>,
    #[serde(borrow)]
    #[schema(value_type = NewQuantity)]
    quantity: Option<&'a RawValue>,
    /// The worst price to trade at; without, any.
    #[serde(borrow)]
    #[schema(value_type = NewPrice, required = false)]
    price: Option<&'a RawValue>,
    /// Without: `gtc`.
    #[serde(borrow)]
    #[schema(value_type = TimeInForce, required = false)]
    time_in_force: Option<&'a RawValue>,
    /// Refuse it rather than trade at once.
    #[serde(borrow)]
    #[schema(value_type = bool, required = false)]
    post_only: Option<&'a RawValue>,
}

pub(super) fn new_order(body: &[u8]) -> Result<NewOrder, Failure> {
    const EXAMPLE: &str = r#"{"name": "GameStart", "side": "buy", "quantity": 1, "price": 15.99}"#;
    let fields: OrderFields<'_> = fields::object(body).map_err(|why| malformed(EXAMPLE, &why))?;
    let side = match fields::string(fields.side).as_deref() {
        Some("buy") => Side::Buy,
        Some("sell") => Side::Sell,
        _ => return Err(bad("side must be buy or sell")),
    };
    let count = quantity(fields.quantity)?;
    let price = fields.price.map(price).transpose()?;
    let time_in_force = match (fields.time_in_force, fields::string(fields.time_in_force).as_deref()) {
        (None, _) => TimeInForce::default(),
        (_, Some("gtc")) => TimeInForce::Gtc,
        (_, Some("ioc")) => TimeInForce::Ioc,
        (_, Some("fok")) => TimeInForce::Fok,
        _ => return Err(bad("time_in_force must be gtc, ioc or fok")),
    };
    let post_only = match fields.post_only.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(bad("post_only must be true or false")),
    };
    let symbol = symbol(fields.name)?;
    let quantity = Quantity::new(count).ok_or(match side {
        Side::Buy => Refusal::InsufficientFunds,
        Side::Sell => Refusal::InsufficientStocks,
    })?;
    Ok(NewOrder { symbol, side, quantity, price, time_in_force, post_only })
}

fn price(raw: &RawValue) -> Result<Price, Failure> {
    let cents = fields::cents(raw.get()).filter(|cents| *cents > 0).and_then(Price::from_cents);
    cents.ok_or_else(|| bad("price must be a positive number with at most two decimals, at most 10000000000.00"))
}
