//! What is traded. Money is whole cents; there are no floats behind the REST edge.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::account::{Account, AccountOrder, Balance, Credentials, Instruction, TokenHash};
use crate::ids::{Boot, OrderNumber};
use crate::limits::{ACCOUNT_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, PRICE_CENTS_MAX, QUANTITY_MAX, SYMBOL_BYTES_MAX};
use crate::text::{self, HexDigits};

/// A stock's name: 1 to [`SYMBOL_BYTES_MAX`] visible ASCII characters other than `.`, `*`, `>` and `/`, so that it could
/// stand in a subject or a path without meaning anything there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Symbol(#[serde(serialize_with = "as_text")] Arc<str>);

/// An `Idempotency-Key`: 1 to [`IDEMPOTENCY_KEY_BYTES_MAX`] visible ASCII characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdempotencyKey(Arc<str>);

/// What makes a command happen once: the client's key, or one that the frontend made for a client without.
///
/// Written as `c:KEY`, `a:ACCOUNT:KEY` or `g:BOOT-NUMBER`, so that no client can name another account's, or one that was made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CommandKey(#[serde(serialize_with = "as_text")] Arc<str>);

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Text that is not what its type asks for; the message says what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Invalid {}

fn visible(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

impl Symbol {
    /// The symbol of that name.
    ///
    /// # Errors
    /// The text breaks a rule of the type.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'>' | b'/');
        if (1..=SYMBOL_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
            Ok(Self(name.into()))
        } else {
            Err(Invalid("a stock's name has 1 to 32 visible ASCII characters other than . * > and /"))
        }
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl IdempotencyKey {
    /// The key of that text.
    ///
    /// # Errors
    /// The text breaks a rule of the type.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()) && visible(text) {
            Ok(Self(text.into()))
        } else {
            Err(Invalid("Idempotency-Key must have 1 to 255 visible ASCII characters"))
        }
    }
}

impl CommandKey {
    /// The key a client sent.
    pub fn of_client(key: &IdempotencyKey) -> Self {
        Self(format!("c:{}", key.0).into())
    }
    /// The key an account's client sent; another account may use the same.
    pub fn of_account(account: &Account, key: &IdempotencyKey) -> Self {
        Self(format!("a:{account}:{}", key.0).into())
    }
    /// A key for a command that came without one, unique by the frontend's boot and its count.
    pub fn generated(frontend: Boot, number: u64) -> Self {
        const GENERATED_BYTES_MAX: usize = "g:0123456789abcdef-18446744073709551615".len();
        // Of every order without a key: by hand in a fraction of the time of `format!`.
        let mut text = String::with_capacity(GENERATED_BYTES_MAX);
        text.extend(["g:", HexDigits::of(frontend.0).as_str(), "-", itoa::Buffer::new().format(number)]);
        Self(text.into())
    }
    /// Whether a client chose it, and so may use it again long after.
    pub fn is_of_client(&self) -> bool {
        !self.0.starts_with("g:")
    }
    /// The key of that text, prefix included.
    ///
    /// # Errors
    /// The text breaks a rule of the type.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        const PREFIX_BYTES_MAX: usize = "a::".len() + ACCOUNT_BYTES_MAX;
        let known = ["c:", "a:", "g:"].iter().any(|prefix| text.starts_with(prefix));
        if known && text.len() > 2 && text.len() <= IDEMPOTENCY_KEY_BYTES_MAX + PREFIX_BYTES_MAX && visible(text) {
            Ok(Self(text.into()))
        } else {
            Err(Invalid("a command's key starts with c:, a: or g:"))
        }
    }
    /// The text, prefix included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_type {
    ($name:ident, $parse:path) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text::parse(deserializer, $parse)
            }
        }
    };
}
text_type!(Symbol, Symbol::new);
text_type!(CommandKey, CommandKey::new);

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CommandKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which way a trade goes, as the client sees it: a buy takes from the house, a sell gives to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The client buys.
    Buy,
    /// The client sells.
    Sell,
}

impl Side {
    /// The side that this one trades with.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

/// How many stocks, 0 to [`QUANTITY_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Quantity(u64);

impl Quantity {
    /// None at all.
    pub const ZERO: Self = Self(0);
    /// That many, if it is in bounds.
    pub fn new(count: u64) -> Option<Self> {
        (count <= QUANTITY_MAX).then_some(Self(count))
    }
    /// The count.
    pub fn get(self) -> u64 {
        self.0
    }
    /// The sum, if it is in bounds.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::new)
    }
    /// The difference, if there is that much.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl TryFrom<u64> for Quantity {
    type Error = Invalid;
    fn try_from(count: u64) -> Result<Self, Invalid> {
        Self::new(count).ok_or(Invalid("a quantity is a whole number below 2^53"))
    }
}

impl From<Quantity> for u64 {
    fn from(quantity: Quantity) -> u64 {
        quantity.0
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The price of one stock in cents, 0 to [`PRICE_CENTS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Price(u64);

impl Price {
    /// A price of that many cents, if it is in bounds.
    pub fn from_cents(cents: u64) -> Option<Self> {
        (cents <= PRICE_CENTS_MAX).then_some(Self(cents))
    }
    /// The cents.
    pub fn cents(self) -> u64 {
        self.0
    }
    /// Reads a decimal with at most two places, such as `15.99`, `16` or `0.5`.
    ///
    /// # Errors
    /// The text is anything else, or over the bound.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = Invalid("a price is a decimal number with at most two places");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 2 {
            return Err(invalid);
        }
        let cents = whole.parse::<u64>().ok().and_then(|units| {
            let tenths = fraction.parse::<u64>().ok()?;
            units.checked_mul(100)?.checked_add(if fraction.len() == 1 { tenths * 10 } else { tenths })
        });
        cents.and_then(Self::from_cents).ok_or(invalid)
    }
}

impl TryFrom<u64> for Price {
    type Error = Invalid;
    fn try_from(cents: u64) -> Result<Self, Invalid> {
        Self::from_cents(cents).ok_or(Invalid("a price is at most 10,000,000,000.00"))
    }
}

impl From<Price> for u64 {
    fn from(price: Price) -> u64 {
        price.0
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Decimal(self.0).fmt(f)
    }
}

/// Cents, written as a number with two decimals.
pub(crate) struct Decimal(pub(crate) u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// A stock as the market sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Stock {
    /// Its name.
    pub symbol: Symbol,
    /// The house's price.
    pub price: Price,
    /// What the house has left to sell.
    pub quantity: Quantity,
    /// What has been traded so far.
    pub volume: Quantity,
}

/// What a client asks the exchange to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Trade with the house at its price.
    Trade {
        /// What.
        symbol: Symbol,
        /// Which way.
        side: Side,
        /// How many, above 0.
        quantity: Quantity,
    },
    /// Open an account.
    Open {
        /// Its name.
        account: Account,
        /// What its token hashes to.
        token: TokenHash,
    },
    /// Do something for an account.
    Account {
        /// Who asks.
        caller: Credentials,
        /// What to do.
        instruction: Instruction,
    },
}

impl Command {
    /// The stock that it may trade.
    pub fn trades(&self) -> Option<&Symbol> {
        match self {
            Self::Trade { symbol, .. } => Some(symbol),
            Self::Account { instruction: Instruction::Place(order), .. } => Some(&order.symbol),
            Self::Open { .. } | Self::Account { .. } => None,
        }
    }
    /// The key by which this command happens once, from the client's.
    pub fn key(&self, key: &IdempotencyKey) -> CommandKey {
        match self {
            Self::Trade { .. } | Self::Open { .. } => CommandKey::of_client(key),
            Self::Account { caller, .. } => CommandKey::of_account(&caller.account, key),
        }
    }
}

/// An order that was accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Order {
    /// The number its client knows it by.
    pub number: OrderNumber,
    /// What was traded.
    pub symbol: Symbol,
    /// Which way.
    pub side: Side,
    /// How many.
    pub quantity: Quantity,
}

/// Why a command was not accepted; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No stock of that name is listed.
    UnknownSymbol,
    /// The house has fewer left than were asked for.
    NotEnoughStocks,
    /// The stock's quantity or volume would pass [`QUANTITY_MAX`].
    TooManyStocks,
    /// The key was used for another command.
    KeyReused,
    /// There is an account of that name already.
    AccountTaken,
    /// There are [`ACCOUNTS_MAX`](crate::limits::ACCOUNTS_MAX) accounts already.
    TooManyAccounts,
    /// The token is not the account's, or there is no such account.
    Unauthorised,
    /// The account has less money that no order reserves.
    InsufficientFunds,
    /// The account has fewer stocks that no order reserves.
    InsufficientStocks,
    /// All accounts together would have more than [`CASH_CENTS_MAX`](crate::limits::CASH_CENTS_MAX).
    TooMuchCash,
    /// A post-only order would trade at once.
    WouldCross,
    /// The account has [`OPEN_ORDERS_MAX`](crate::limits::OPEN_ORDERS_MAX) open orders already.
    TooManyOpenOrders,
    /// The order would meet more than [`FILLS_PER_ORDER_MAX`](crate::limits::FILLS_PER_ORDER_MAX) others.
    TooManyFills,
    /// The account has no order of that number.
    UnknownOrder,
    /// The order is not open any more.
    OrderDone,
}

/// What an account is told when its command was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Receipt {
    /// The account is open, with the token of the command.
    Opened,
    /// What the account has now.
    Balance(Balance),
    /// The order as it is now, or for a repeated command, as it was when that was done.
    Order(AccountOrder),
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is on disk on every in-sync replica and visible to every reader.
    Accepted {
        /// The order's number.
        order: OrderNumber,
        /// Whether this is the answer of an earlier submission of the same key.
        replayed: bool,
    },
    /// A command about an account: done in the same sense.
    Done {
        /// What its client is told.
        receipt: Box<Receipt>,
        /// Whether this is the answer of an earlier submission of the same key.
        replayed: bool,
    },
    /// It was refused.
    Refused(Refusal),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_one_that_is_read() {
        let check = |boot, number, expected: &str| {
            let key = CommandKey::generated(Boot(boot), number);
            assert_eq!((key.as_str(), CommandKey::new(expected).as_ref()), (expected, Ok(&key)));
        };
        check(0, 1, "g:0000000000000000-1");
        check(0xbead, 100, "g:000000000000bead-100");
        check(u64::MAX, u64::MAX, "g:ffffffffffffffff-18446744073709551615");
    }
}
