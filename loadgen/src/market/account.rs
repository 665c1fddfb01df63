//! One account: what it was told, and its calls.
//!
//! The rule: whatever was answered is kept, and every call that changes something carries a key of its own and is repeated
//! under it, so that at the end there is nothing that this account can't account for.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::Call;
use crate::exchange::{Client, Failure, Shared, Undone};
use crate::market::wire::{Asset, Balance, Cents, NewOrder, Opened, Order, Status};
use crate::recorder::{Kind, Times};
use crate::wire::Side;

/// An order that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// As it was asked for.
    pub(crate) side: Side,
    pub(crate) quantity: u64,
    pub(crate) price: Option<Cents>,
    pub(crate) time_in_force: &'static str,
    /// As it was shown last.
    pub(crate) shown: Order,
}

/// What an account wants to place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) stock: usize,
    pub(crate) side: Side,
    pub(crate) quantity: u64,
    pub(crate) price: Option<Cents>,
    pub(crate) time_in_force: Option<&'static str>,
    pub(crate) post_only: bool,
}

impl Wish {
    fn kind(&self) -> Kind {
        match (self.price, self.time_in_force) {
            (None, _) => Kind::Market,
            (_, None | Some("gtc")) => Kind::Limit,
            _ => Kind::Immediate,
        }
    }
}

/// What went wrong where nothing should have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles(pub(crate) BTreeMap<&'static str, Vec<String>>);

impl Troubles {
    pub(crate) fn add(&mut self, kind: &'static str, what: String) {
        self.0.entry(kind).or_default().push(what);
    }
    pub(crate) fn append(&mut self, other: Self) {
        for (kind, mut cases) in other.0 {
            self.0.entry(kind).or_default().append(&mut cases);
        }
    }
}

/// One account.
pub(crate) struct Account {
    pub(crate) name: String,
    /// Its place among the accounts of the run.
    pub(crate) index: u32,
    token: String,
    /// Calls that carried a key.
    keys: u64,
    /// What was brought in and not taken out: cents, and of each stock by its index.
    pub(crate) cash: u64,
    pub(crate) stocks: BTreeMap<usize, u64>,
    pub(crate) placed: BTreeMap<u64, Placed>,
    /// Numbers of orders that were open when last seen, oldest first.
    pub(crate) open: Vec<u64>,
    /// Something was asked for whose outcome nobody knows: what it has cannot be worked out.
    pub(crate) vague: bool,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) troubles: Troubles,
}

impl Account {
    /// Opens an account.
    ///
    /// # Errors
    /// It was not opened.
    pub(crate) async fn open(client: &mut Client, shared: &Shared, name: String, index: u32) -> Result<Self, Failure> {
        let body = body(&serde_json::json!({"account": name}));
        let call = Call { method: Method::POST, path: "/accounts", key: Some(&name), token: None, body };
        let sent = Instant::now();
        match client.command::<Opened>("open", &call).await {
            Ok(opened) => {
                success(shared, Kind::Opening, sent);
                Ok(Self {
                    name,
                    index,
                    token: opened.token,
                    keys: 0,
                    cash: 0,
                    stocks: BTreeMap::new(),
                    placed: BTreeMap::new(),
                    open: Vec::new(),
                    vague: false,
                    refused: BTreeMap::new(),
                    troubles: Troubles::default(),
                })
            }
            Err(Undone::Refused(failure) | Undone::Unknown(failure)) => Err(failure),
        }
    }

    /// Brings something in (`way` is `deposits`) or takes it out (`withdrawals`). `stock` is the index of the stock.
    pub(crate) async fn transfer(
        &mut self,
        client: &mut Client,
        shared: &Shared,
        way: &'static str,
        (asset, stock): (Asset<'_>, Option<usize>),
    ) {
        let path = format!("/accounts/{}/{way}", self.name);
        let done = self.change::<Balance>(client, shared, Kind::Transfer, (Method::POST, &path, body(&asset))).await;
        if done.is_none() {
            return;
        }
        let (kept, amount) = match (&asset, stock) {
            (Asset::Stock { quantity, .. }, Some(stock)) => (self.stocks.entry(stock).or_default(), *quantity),
            (Asset::Cash { amount }, _) => (&mut self.cash, amount.0),
            (Asset::Stock { .. }, None) => return,
        };
        *kept = if way == "deposits" { *kept + amount } else { kept.saturating_sub(amount) };
    }

    /// Places an order; whether it was.
    pub(crate) async fn place(&mut self, client: &mut Client, shared: &Shared, wish: Wish, name: &str) -> bool {
        let Wish { side, quantity, price, time_in_force, post_only, .. } = wish;
        let path = format!("/accounts/{}/orders", self.name);
        let asked = body(&NewOrder { name, side, quantity, price, time_in_force, post_only });
        let Some(shown) = self.change::<Order>(client, shared, wish.kind(), (Method::POST, &path, asked)).await else {
            return false;
        };
        if shown.status == Status::Open {
            self.open.push(shown.order_num);
        }
        let time_in_force = time_in_force.unwrap_or("gtc");
        let (number, placed) = (shown.order_num, Placed { side, quantity, price, time_in_force, shown });
        if self.placed.insert(number, placed).is_some() {
            self.troubles.add("doubled", format!("{number} of {}", self.name));
        }
        true
    }

    /// Cancels the oldest order that may be open.
    pub(crate) async fn cancel(&mut self, client: &mut Client, shared: &Shared) {
        let number = self.open.remove(0);
        let path = format!("/accounts/{}/orders/{number}", self.name);
        let call = (Method::DELETE, path.as_str(), Bytes::new());
        let Some(shown) = self.change::<Order>(client, shared, Kind::Cancel, call).await else {
            return;
        };
        if shown.status != Status::Cancelled {
            self.troubles.add("changed", format!("{number} of {} was cancelled and is {:?}", self.name, shown.status));
        }
        self.seen(shown);
    }

    /// Sends a command with the next key. None where it was not done, or nobody knows; that is noted.
    async fn change<T: DeserializeOwned>(
        &mut self,
        client: &mut Client,
        shared: &Shared,
        kind: Kind,
        (method, path, body): (Method, &str, Bytes),
    ) -> Option<T> {
        self.keys += 1;
        let key = format!("{}-{}", self.name, self.keys);
        let call = Call { method, path, key: Some(&key), token: Some(&self.token), body };
        let sent = Instant::now();
        match client.command::<T>(kind.name(), &call).await {
            Ok(done) => {
                success(shared, kind, sent);
                return Some(done);
            }
            Err(Undone::Refused(failure)) if failure.status == Some(409) => {
                *self.refused.entry(failure.cause).or_default() += 1;
            }
            Err(Undone::Refused(Failure { status: Some(404), cause })) if kind == Kind::Cancel => {
                self.troubles.add("lost", format!("{path}: {cause}"));
            }
            Err(Undone::Refused(failure)) => {
                self.troubles.add("rejected", format!("key {key}: {:?} {}", failure.status, failure.cause));
            }
            Err(Undone::Unknown(failure)) => {
                self.vague = true;
                self.troubles.add("unknown outcome", format!("key {key}: {}", failure.cause));
            }
        }
        None
    }

    /// Asks for something of this account, until it is answered.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, client: &mut Client, rest: &str) -> Result<T, Failure> {
        let path = format!("/accounts/{}{rest}", self.name);
        client.read("read", &Call { token: Some(&self.token), ..Call::get(&path) }).await
    }

    /// An order of this account was shown: it must be what was asked for, and follow from what was shown before.
    pub(crate) fn seen(&mut self, shown: Order) {
        let number = shown.order_num;
        let Some(placed) = self.placed.get_mut(&number) else { return };
        if let Some(why) = differs(placed, &shown) {
            self.troubles
                .add("changed", format!("{number} of {}: {why}; {:?} became {shown:?}", self.name, placed.shown));
        }
        if shown.status != Status::Open {
            self.open.retain(|open| *open != number);
        }
        placed.shown = shown;
    }
}

/// Why an order can't be what was placed, and shown before.
pub(crate) fn differs(placed: &Placed, shown: &Order) -> Option<&'static str> {
    let Placed { side, quantity, price, time_in_force, shown: before, .. } = placed;
    let asked = (shown.side, shown.quantity, shown.price, shown.time_in_force.as_str(), &shown.name);
    let filled: u64 = shown.fills.iter().map(|fill| fill.quantity).sum();
    let worse = |fill: &&super::wire::Fill| match (side, price) {
        (_, None) => false,
        (Side::Buy, Some(limit)) => fill.price > *limit,
        (Side::Sell, Some(limit)) => fill.price < *limit,
    };
    let ended = match shown.status {
        Status::Open => shown.remaining > 0 && shown.price.is_some() && *time_in_force == "gtc",
        Status::Filled => shown.remaining == 0,
        Status::Cancelled => shown.remaining > 0,
    };
    if asked != (*side, *quantity, *price, time_in_force, &before.name) {
        Some("it is another order")
    } else if filled != shown.filled || shown.filled + shown.remaining != shown.quantity {
        Some("its fills do not add up")
    } else if !ended {
        Some("its status is not that of what is left")
    } else if *time_in_force == "fok" && shown.filled > 0 && shown.remaining > 0 {
        Some("a fok was filled in part")
    } else if shown.fills.iter().any(|fill| worse(&fill)) {
        Some("it traded at a worse price than its limit")
    } else if !shown.fills.starts_with(&before.fills) {
        Some("a fill that was shown is gone")
    } else if before.status != Status::Open && (before.status != shown.status || before.fills != shown.fills) {
        Some("it was done, and has changed")
    } else {
        None
    }
}

/// A call was answered with success.
pub(crate) fn success(shared: &Shared, kind: Kind, sent: Instant) {
    shared.recorder.success(kind, Times { intended: sent, sent, done: Instant::now() });
}

fn body(value: &impl Serialize) -> Bytes {
    // Plain data of ours: it always can be written.
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::wire::Fill;

    fn shown(status: Status, fills: &[u64]) -> Order {
        let fills: Vec<Fill> =
            (1..).zip(fills).map(|(trade, count)| Fill { trade, price: Cents(300), quantity: *count }).collect();
        let filled: u64 = fills.iter().map(|fill| fill.quantity).sum();
        Order {
            order_num: 7,
            name: "A".to_owned(),
            side: Side::Buy,
            quantity: 5,
            price: Some(Cents(300)),
            time_in_force: "gtc".to_owned(),
            status,
            filled,
            remaining: 5_u64.saturating_sub(filled),
            fills,
        }
    }

    #[test]
    fn an_order_follows_from_what_was_asked_and_shown_before() {
        let check = |before: Order, after: Order, expected: Option<&str>| {
            let time_in_force = if before.time_in_force == "fok" { "fok" } else { "gtc" };
            let placed = Placed { side: Side::Buy, quantity: 5, price: Some(Cents(300)), time_in_force, shown: before };
            let found = differs(&placed, &after);
            assert!(
                found.is_some() == expected.is_some()
                    && found.is_none_or(|why| expected.is_some_and(|part| why.contains(part))),
                "{found:?}, not {expected:?}: {after:?}"
            );
        };
        use Status::{Cancelled, Filled, Open};
        let open = || shown(Open, &[2]);
        check(open(), open(), None);
        check(open(), shown(Open, &[2, 1]), None);
        check(open(), shown(Filled, &[2, 3]), None);
        check(open(), shown(Cancelled, &[2]), None);
        check(open(), shown(Open, &[]), Some("is gone"));
        check(open(), shown(Open, &[1, 2]), Some("is gone"));
        check(shown(Cancelled, &[2]), shown(Cancelled, &[2, 1]), Some("has changed"));
        check(shown(Filled, &[5]), shown(Cancelled, &[2]), Some("is gone"));
        check(shown(Cancelled, &[2]), shown(Open, &[2]), Some("has changed"));
        check(open(), shown(Filled, &[2]), Some("status"));
        check(open(), shown(Cancelled, &[2, 3]), Some("status"));
        check(open(), Order { filled: 3, remaining: 2, ..open() }, Some("add up"));
        check(open(), Order { side: Side::Sell, ..open() }, Some("another order"));
        check(open(), Order { quantity: 6, ..open() }, Some("another order"));
        check(open(), Order { price: None, ..open() }, Some("another order"));
        check(open(), Order { name: "B".to_owned(), ..open() }, Some("another order"));
        let dear = Fill { trade: 2, price: Cents(301), quantity: 1 };
        let fills = [open().fills, vec![dear]].concat();
        check(open(), Order { filled: 3, remaining: 2, fills, ..open() }, Some("worse price"));
        let fok = |order: Order| Order { time_in_force: "fok".to_owned(), ..order };
        check(fok(shown(Cancelled, &[])), fok(shown(Cancelled, &[])), None);
        check(fok(shown(Cancelled, &[2])), fok(shown(Cancelled, &[2])), Some("in part"));
    }
}
