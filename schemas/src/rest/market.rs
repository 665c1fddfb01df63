//! Accounts, their orders, books and trades as clients see them.

use serde::{Serialize, Serializer};

use super::Money;
use crate::account::{self, OrderStatus, TimeInForce};
#[cfg(feature = "openapi")]
use crate::ids::OrderNumber;
use crate::trade::Side;
#[cfg(feature = "openapi")]
use crate::trade::{Quantity, Symbol};

/// The answer to `POST /accounts`: the only place where a token is ever shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Opened<'a> {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = account::Account))]
    pub account: &'a str,
    /// What its owner calls with.
    #[serde(serialize_with = "text")]
    #[cfg_attr(feature = "openapi", schema(value_type = account::Token))]
    pub token: &'a account::Token,
}

fn text<S: Serializer>(token: &&account::Token, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(token)
}

/// `GET /accounts/{account}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account<'a> {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = account::Account))]
    pub account: &'a str,
    /// Its money, what is reserved included.
    pub cash: Money,
    /// How much of it is bid by open orders.
    pub reserved_cash: Money,
    /// Its stocks, by name.
    pub holdings: Vec<Holding<'a>>,
}

/// Some of a stock in an [`Account`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Holding<'a> {
    /// The stock.
    #[cfg_attr(feature = "openapi", schema(value_type = Symbol))]
    pub name: &'a str,
    /// How many, what is reserved included.
    #[cfg_attr(feature = "openapi", schema(value_type = Quantity))]
    pub quantity: u64,
    /// How many of them open orders offer.
    #[cfg_attr(feature = "openapi", schema(value_type = Quantity))]
    pub reserved: u64,
}

impl<'a> From<&'a account::Balance> for Account<'a> {
    fn from(balance: &'a account::Balance) -> Self {
        let holding = |holding: &'a account::Holding| Holding {
            name: holding.symbol.as_str(),
            quantity: holding.quantity.get(),
            reserved: holding.reserved.get(),
        };
        Self {
            account: balance.account.as_str(),
            cash: balance.cash.into(),
            reserved_cash: balance.reserved_cash.into(),
            holdings: balance.holdings.iter().map(holding).collect(),
        }
    }
}

/// `GET /accounts/{account}/orders/{number}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountOrder<'a> {
    /// Its number.
    #[cfg_attr(feature = "openapi", schema(value_type = OrderNumber))]
    pub order_num: u64,
    /// The stock.
    #[cfg_attr(feature = "openapi", schema(value_type = Symbol))]
    pub name: &'a str,
    /// `buy` or `sell`.
    pub side: Side,
    /// How many were ordered.
    #[cfg_attr(feature = "openapi", schema(value_type = Quantity))]
    pub quantity: u64,
    /// The worst price to trade at; `null` for any.
    pub price: Option<Money>,
    /// `gtc`, `ioc` or `fok`.
    pub time_in_force: TimeInForce,
    /// `open`, `filled` or `cancelled`.
    pub status: OrderStatus,
    /// How many were traded.
    #[cfg_attr(feature = "openapi", schema(value_type = Quantity))]
    pub filled: u64,
    /// How many were not.
    #[cfg_attr(feature = "openapi", schema(value_type = Quantity))]
    pub remaining: u64,
    /// Its trades, oldest first.
    pub fills: Vec<Fill>,
}

/// A trade in an [`AccountOrder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fill {
    /// Its number.
    pub trade: u64,
    /// At which price.
    pub price: Money,
    /// How many.
    #[cfg_attr(feature = "openapi", schema(value_type = Quantity))]
    pub quantity: u64,
}

impl<'a> From<&'a account::AccountOrder> for AccountOrder<'a> {
    fn from(order: &'a account::AccountOrder) -> Self {
        let fill = |fill: &account::Fill| Fill {
            trade: fill.trade.0,
            price: fill.price.into(),
            quantity: fill.quantity.get(),
        };
        let (quantity, filled) = (order.quantity.get(), order.filled.get());
        Self {
            order_num: order.number.0,
            name: order.symbol.as_str(),
            side: order.side,
            quantity,
            price: order.price.map(Money::from),
            time_in_force: order.time_in_force,
            status: order.status,
            filled,
            remaining: quantity - filled,
            fills: order.fills.iter().map(fill).collect(),
        }
    }
}

/// `GET /stocks/{name}/book`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Book<'a> {
    /// The stock.
    #[cfg_attr(feature = "openapi", schema(value_type = Symbol))]
    pub name: &'a str,
    /// Grows with every change of the book.
    pub sequence: u64,
    /// Price and quantity, highest price first.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<super::openapi::Level>))]
    pub bids: Vec<(Money, u64)>,
    /// Price and quantity, lowest price first.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<super::openapi::Level>))]
    pub asks: Vec<(Money, u64)>,
}

impl<'a> From<&'a account::Book> for Book<'a> {
    fn from(book: &'a account::Book) -> Self {
        let levels = |levels: &[account::Level]| {
            levels.iter().map(|account::Level(price, quantity)| (Money::from(*price), quantity.get())).collect()
        };
        Self {
            name: book.symbol.as_str(),
            sequence: book.sequence.0,
            bids: levels(&book.bids),
            asks: levels(&book.asks),
        }
    }
}

/// One of `GET /stocks/{name}/candles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candle {
    /// When it began, in milliseconds since 1970.
    pub at: u64,
    /// The first price.
    pub open: Money,
    /// The highest.
    pub high: Money,
    /// The lowest.
    pub low: Money,
    /// The last one.
    pub close: Money,
    /// How many stocks were traded.
    #[cfg_attr(feature = "openapi", schema(value_type = Quantity))]
    pub quantity: u64,
    /// In how many trades.
    pub trades: u64,
}

impl From<&account::Candle> for Candle {
    fn from(candle: &account::Candle) -> Self {
        Self {
            at: candle.at,
            open: candle.open.into(),
            high: candle.high.into(),
            low: candle.low.into(),
            close: candle.close.into(),
            quantity: candle.quantity.get(),
            trades: candle.trades,
        }
    }
}

/// One of `GET /stocks/{name}/trades`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trade {
    /// Its number.
    pub trade: u64,
    /// At which price.
    pub price: Money,
    /// How many.
    #[cfg_attr(feature = "openapi", schema(value_type = Quantity))]
    pub quantity: u64,
    /// Which way the order went that came in.
    pub side: Side,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

impl From<&account::Trade> for Trade {
    fn from(trade: &account::Trade) -> Self {
        Self {
            trade: trade.number.0,
            price: trade.price.into(),
            quantity: trade.quantity.get(),
            side: trade.side,
            at: trade.at,
        }
    }
}
