//! What clients of the REST edge see: `contract.md` as types. Only here do its words stand for the exchange's terms.

pub mod feed;
pub mod market;
#[cfg(feature = "openapi")]
pub mod openapi;

use serde::{Deserialize, Serialize, Serializer, ser};
use serde_json::value::RawValue;

use crate::account::Cash;
#[cfg(feature = "openapi")]
use crate::ids::{OrderNumber, ReplicaId};
use crate::trade::{self, Decimal, Price, Side};

/// A success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Data<T> {
    /// What was asked for.
    pub data: T,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// Why.
    pub error: FailureBody,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureBody {
    /// The HTTP status.
    pub code: u16,
    /// What happened and what to do next.
    pub message: String,
}

/// Money as a JSON number that always shows two decimals; made from [`Price`] or [`Cash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    cents: u64,
}

impl From<Price> for Money {
    fn from(price: Price) -> Self {
        Self { cents: price.cents() }
    }
}

impl From<Cash> for Money {
    fn from(cash: Cash) -> Self {
        Self { cents: cash.cents() }
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(Decimal(self.cents).to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

/// `GET /stocks/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stock<'a> {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = trade::Symbol))]
    pub name: &'a str,
    /// The house's price.
    pub price: Money,
    /// What is left for sale.
    #[cfg_attr(feature = "openapi", schema(value_type = trade::Quantity))]
    pub quantity: u64,
    /// What has been traded.
    #[cfg_attr(feature = "openapi", schema(value_type = trade::Quantity))]
    pub volume: u64,
}

impl<'a> From<&'a trade::Stock> for Stock<'a> {
    fn from(stock: &'a trade::Stock) -> Self {
        Self {
            name: stock.symbol.as_str(),
            price: stock.price.into(),
            quantity: stock.quantity.get(),
            volume: stock.volume.get(),
        }
    }
}

/// The answer to `POST /orders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placed {
    /// The order's number.
    #[cfg_attr(feature = "openapi", schema(value_type = OrderNumber))]
    pub transaction_number: u64,
}

/// `GET /orders/{number}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Order {
    /// Its number.
    #[cfg_attr(feature = "openapi", schema(value_type = OrderNumber))]
    pub order_num: u64,
    /// The stock.
    #[cfg_attr(feature = "openapi", schema(value_type = trade::Symbol))]
    pub name: String,
    /// `buy` or `sell`.
    #[serde(rename = "type")]
    pub side: Side,
    /// How many.
    #[cfg_attr(feature = "openapi", schema(value_type = trade::Quantity))]
    pub quantity: u64,
}

impl From<&trade::Order> for Order {
    fn from(order: &trade::Order) -> Self {
        Self {
            order_num: order.number.0,
            name: order.symbol.as_str().to_owned(),
            side: order.side,
            quantity: order.quantity.get(),
        }
    }
}

/// `GET /cluster`: the exchange as this frontend sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    /// The newest configuration's number; 0 before the first.
    pub epoch: u64,
    /// The replica that leads, if it is known to serve.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ReplicaId>))]
    pub leader: Option<u8>,
    /// The replicas that hold every committed order, by id.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<ReplicaId>))]
    pub in_sync: Vec<u8>,
    /// Whether trades can be served.
    pub ready: bool,
    /// Why not, or what keeps an exchange that still trades from becoming whole again, and what would help.
    pub trouble: Option<String>,
    /// All replicas that belong to the exchange, by id.
    pub replicas: Vec<Replica>,
    /// The catalog that answers look-ups, by its boot id.
    pub catalog: Option<String>,
    /// The frontend that answers this.
    pub frontend: Frontend,
    /// When this was so, by that frontend's clock, in milliseconds since 1970; all times below are by the same clock.
    #[serde(default)]
    pub at: u64,
    /// What happened to the exchange lately as this frontend saw it, oldest first: elections and faults, the newest 64.
    #[serde(default)]
    pub history: Vec<Happening>,
    /// The processes of the exchange, by kind and name: the answering frontend, and those that answer the broker's service API.
    /// They are asked only while somebody reads this, so a first answer has none of the others.
    #[serde(default)]
    pub services: Vec<Service>,
}

/// One order replica in [`Cluster`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replica {
    /// Its number.
    #[cfg_attr(feature = "openapi", schema(value_type = ReplicaId))]
    pub id: u8,
    /// Whether it answers heartbeats.
    pub alive: bool,
    /// `starting`, `learner`, `follower`, `activating`, `leader`, or `unknown` before its first answer.
    pub role: String,
    /// Whether it is in the in-sync set.
    pub in_sync: bool,
    /// The epoch that it has adopted.
    pub epoch: u64,
    /// The end of its log.
    pub tail: u64,
    /// What is on its disk.
    pub durable: u64,
    /// What it knows to be committed.
    pub committed: u64,
    /// What it has applied to its state.
    pub applied: u64,
    /// Entries that some replica has in its log and this one not on its disk.
    #[serde(default)]
    pub lag: u64,
    /// Since when it does not answer; `null` while it does, or where it never did.
    #[serde(default)]
    pub silent_since: Option<u64>,
    /// Since when it is not in sync; `null` while it is, or where it never was.
    #[serde(default)]
    pub out_of_sync_since: Option<u64>,
    /// What keeps it from taking part fully.
    pub trouble: Option<String>,
}

/// Something that happened to the exchange, in [`Cluster`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Happening {
    /// Its number at this frontend, from 1.
    pub number: u64,
    /// When it was seen.
    pub at: u64,
    /// The newest configuration by then.
    pub epoch: u64,
    /// What kind of thing.
    pub kind: HappeningKind,
    /// What happened, for people.
    pub text: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HappeningKind {
    /// A replica leads that did not lead before.
    Elected,
    /// Nobody serves.
    Leaderless,
    /// A replica does not answer.
    Silent,
    /// A replica answers again.
    Back,
    /// A replica is not in sync any more.
    OutOfSync,
    /// A replica is in sync.
    InSync,
    /// Another catalog answers look-ups, or none.
    Catalog,
    /// The broker was lost, or found again.
    Broker,
}

/// One process of the exchange in [`Cluster`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Service {
    /// `order`, `catalog` or `frontend`.
    pub kind: String,
    /// What it is called, such as `catalog-1`.
    pub name: String,
    /// Its run.
    pub boot: String,
    /// Whether it answered when it was last asked.
    pub alive: bool,
    /// When it answered last.
    pub seen: u64,
    /// A frontend's address.
    pub http: Option<String>,
    /// The machine or container that it runs on.
    pub host: Option<String>,
    /// Its process there.
    pub pid: Option<u32>,
    /// A catalog: whether it has the leader's authority to answer. A frontend: whether its cache may be served from.
    pub lease: Option<bool>,
    /// The command that ends it, for a shell on its machine, or where its containers are looked after.
    pub stop: Option<String>,
}

/// The answering frontend in [`Cluster`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Frontend {
    /// Its run.
    pub boot: String,
    /// Whether its cache may be served from at this moment.
    pub lease: bool,
    /// Its cache.
    pub cache: Cache,
    /// What it is called, such as `frontend-1`.
    #[serde(default)]
    pub name: String,
    /// The trades that it has answered.
    #[serde(default)]
    pub trades: Trades,
}

/// Orders of the house and of accounts that a frontend has answered with success, in [`Cluster`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trades {
    /// How many since its start.
    pub count: u64,
    /// How many of these were answered within the last 10 s and are timed here: 1,024 at most.
    pub timed: usize,
    /// How long half of those took at most, from the end of a request's headers until its answer began, in microseconds.
    pub p50_us: Option<u64>,
    /// How long all but one in a hundred of those took at most, in microseconds.
    pub p99_us: Option<u64>,
}

/// A frontend's cache in [`Cluster`]: its size now, and counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cache {
    /// How many stocks it can hold.
    pub capacity: usize,
    /// How many it holds.
    pub entries: usize,
    /// Look-ups answered from it.
    pub hits: u64,
    /// Look-ups that asked the catalog.
    pub misses: u64,
    /// Stocks dropped to make room.
    pub evictions: u64,
    /// Stocks dropped because they changed.
    pub invalidations: u64,
    /// Times that everything was dropped: a lapsed lease or a new session.
    pub flushes: u64,
    /// Answers that came too late to be kept.
    pub stale_fills: u64,
}
