//! Accounts and what they own, order and see: the part of the exchange where people trade with each other.
//!
//! Money is whole cents. An account is entered with a [`Token`], of which only the hash ([`TokenHash`]) is ever written or
//! sent behind the REST edge.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{OrderNumber, SeqNum, TradeNumber};
use crate::limits::{ACCOUNT_BYTES_MAX, CASH_CENTS_MAX};
use crate::text::{self, unhex_digit};
use crate::trade::{Decimal, Invalid, Price, Quantity, Side, Symbol};

/// An account's name: 1 to [`ACCOUNT_BYTES_MAX`] of `a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(Arc<str>);

impl Account {
    /// The account of that name.
    ///
    /// # Errors
    /// The text breaks the rule of the type.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        let plain = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if plain && (1..=ACCOUNT_BYTES_MAX).contains(&name.len()) {
            Ok(Self(name.into()))
        } else {
            Err(Invalid("account must be a name of 1 to 32 of a-z 0-9 _ -"))
        }
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.0)
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parse(deserializer, Self::new)
    }
}

/// The SHA-256 of a token's secret, written as 64 hexadecimal digits. Knowing it does not let anybody in at the REST edge.
///
/// `==` is not for checking a caller: see `tradenet_core::exchange`, which compares in constant time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hashes stay out of logs, too: a log line that names one tells nobody anything.
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

impl FromStr for TokenHash {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        unhex(text).map(Self).ok_or(Invalid("a token's hash has 64 hexadecimal digits"))
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parse(deserializer, str::parse)
    }
}

/// The 32 bytes that 64 lower-case hexadecimal digits stand for; nothing for any other text.
fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = unhex_digit(pair[0])? << 4 | unhex_digit(pair[1])?;
    }
    Some(bytes)
}

/// What a caller presents: `ACCOUNT.SECRET`, the secret being 256 random bits in 64 hexadecimal digits. It names its
/// account, so that a call that is none of the account's is told from one with a wrong token without looking anybody up.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub account: Account,
    /// What only the owner knows.
    pub secret: [u8; 32],
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.account, TokenHash(self.secret))
    }
}

/// A secret is never printed by accident.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}..)", self.account)
    }
}

impl FromStr for Token {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = Invalid("not a token");
        let (account, secret) = text.split_once('.').ok_or(invalid.clone())?;
        let secret = unhex(secret).ok_or(invalid)?;
        Ok(Self { account: Account::new(account)?, secret })
    }
}

/// Who calls, as far as it is known behind the REST edge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Credentials {
    /// The account that the token is for.
    pub account: Account,
    /// The hash of its secret.
    pub token: TokenHash,
}

/// Money of an account or of all, in cents: at most [`CASH_CENTS_MAX`], whoever owns it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Cash(u64);

impl Cash {
    /// None.
    pub const ZERO: Self = Self(0);

    /// So many cents, if they are in bounds.
    pub fn from_cents(cents: u64) -> Option<Self> {
        (cents <= CASH_CENTS_MAX).then_some(Self(cents))
    }
    /// The cents.
    pub fn cents(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Cash {
    type Error = Invalid;
    fn try_from(cents: u64) -> Result<Self, Invalid> {
        Self::from_cents(cents).ok_or(Invalid("an amount has at most 2^53 - 1 cents"))
    }
}

impl From<Cash> for u64 {
    fn from(cash: Cash) -> u64 {
        cash.0
    }
}

impl fmt::Display for Cash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Decimal(self.0).fmt(f)
    }
}

/// Something that can be brought in and taken out; above 0.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Asset {
    /// Money.
    Cash(Cash),
    /// Some of a stock.
    Stock(Symbol, Quantity),
}

/// How long an order waits to be filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TimeInForce {
    /// Good till cancelled: what is not filled at once rests in the book.
    #[default]
    Gtc,
    /// Immediate or cancel: what is not filled at once is cancelled.
    Ioc,
    /// Fill or kill: all at once, or nothing.
    Fok,
}

/// An order that an account wants to place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct NewOrder {
    /// What.
    pub symbol: Symbol,
    /// Which way.
    pub side: Side,
    /// How many, above 0.
    pub quantity: Quantity,
    /// The worst price to trade at, above 0; none: any (a market order, which never rests).
    pub price: Option<Price>,
    /// How long it waits.
    pub time_in_force: TimeInForce,
    /// Refuse it rather than trade at once.
    pub post_only: bool,
}

/// What an account asks the exchange to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Instruction {
    /// Bring something in.
    Deposit(Asset),
    /// Take something out that no order reserves.
    Withdraw(Asset),
    /// Place an order in the book.
    Place(NewOrder),
    /// Cancel what is left of an order.
    Cancel(OrderNumber),
}

/// Some of a stock that an account has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Holding {
    /// Which.
    pub symbol: Symbol,
    /// How many, what is reserved included.
    pub quantity: Quantity,
    /// How many of them are offered by open orders.
    pub reserved: Quantity,
}

/// All that an account has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Balance {
    /// Whose.
    pub account: Account,
    /// Money, what is reserved included.
    pub cash: Cash,
    /// How much of it is bid by open orders.
    pub reserved_cash: Cash,
    /// Stocks, by name; none with 0.
    pub holdings: Vec<Holding>,
}

/// What has become of an account's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// It rests in the book.
    Open,
    /// All of it was traded.
    Filled,
    /// It is done, and not all of it was traded.
    Cancelled,
}

/// A trade as one of its two orders sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Fill {
    /// Which trade.
    pub trade: TradeNumber,
    /// At which price.
    pub price: Price,
    /// How many.
    pub quantity: Quantity,
}

/// An account's order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct AccountOrder {
    /// Its number.
    pub number: OrderNumber,
    /// What.
    pub symbol: Symbol,
    /// Which way.
    pub side: Side,
    /// How many were ordered.
    pub quantity: Quantity,
    /// The worst price to trade at; none: any.
    pub price: Option<Price>,
    /// How long it waits.
    pub time_in_force: TimeInForce,
    /// What has become of it.
    pub status: OrderStatus,
    /// How many were traded.
    pub filled: Quantity,
    /// Its first trades, at most [`FILLS_SHOWN_MAX`](crate::limits::FILLS_SHOWN_MAX).
    pub fills: Vec<Fill>,
}

/// What stands in the book at one price.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Level(pub Price, pub Quantity);

/// The best of a stock's book.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Book {
    /// Which stock.
    pub symbol: Symbol,
    /// The last entry of the log that changed the book; 0 for none.
    pub sequence: SeqNum,
    /// What is asked for, best (highest) price first.
    pub bids: Vec<Level>,
    /// What is offered, best (lowest) price first.
    pub asks: Vec<Level>,
}

/// A trade between two accounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Trade {
    /// Its number.
    pub number: TradeNumber,
    /// At which price: that of the order that rested.
    pub price: Price,
    /// How many.
    pub quantity: Quantity,
    /// Which way the order went that came in.
    pub side: Side,
    /// When, in milliseconds since 1970 by the leader's clock.
    pub at: u64,
}

/// How long the periods of a chart are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
}

impl Interval {
    /// Its length in milliseconds.
    pub fn ms(self) -> u64 {
        match self {
            Self::Second => 1_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
        }
    }
}

/// What the trades between accounts were like in one period; there is none for a period without any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Candle {
    /// When it began, in milliseconds since 1970: a multiple of its length.
    pub at: u64,
    /// The first price.
    pub open: Price,
    /// The highest.
    pub high: Price,
    /// The lowest.
    pub low: Price,
    /// The last one.
    pub close: Price,
    /// How many stocks were traded.
    pub quantity: Quantity,
    /// In how many trades.
    pub trades: u64,
}

/// Which of an account's orders are listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Page {
    /// Only those of this status.
    pub status: Option<OrderStatus>,
    /// At most so many, at most [`PAGE_MAX`](crate::limits::PAGE_MAX).
    pub limit: usize,
    /// Only those with a lower number.
    pub before: Option<OrderNumber>,
}

/// What an account asks about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AccountQuery {
    /// Whether the token is right, and nothing else.
    Authorise,
    /// What it has.
    Balance,
    /// One of its orders.
    Order(OrderNumber),
    /// Its orders, newest first.
    Orders(Page),
}

/// The answer to an [`AccountQuery`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AccountAnswer {
    /// The token is not the account's, or there is no such account: which of the two is not said.
    Unauthorised,
    /// The token is right.
    Authorised,
    /// What it has.
    Balance(Balance),
    /// The order, if it is the account's.
    Order(Option<AccountOrder>),
    /// Its orders, newest first.
    Orders(Vec<AccountOrder>),
}
