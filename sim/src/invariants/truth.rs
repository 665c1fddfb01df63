//! S3: committed prefixes never differ or shrink. S10: stocks and money are conserved. S11: order numbers are dense.
//!
//! The log as it was ever committed, kept by other code than core's: maps of plain numbers, versions of each stock. What
//! clients were answered is measured by it (S8, S12, S13 in [`crate::auditor`]).

use std::collections::BTreeMap;

use tradenet_core::replica::Replica;
use tradenet_schemas::account::{Asset, TimeInForce};
use tradenet_schemas::ids::{Epoch, OrderNumber, Position, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::statement::{DoneOrder, Statements};
use tradenet_schemas::trade::{CommandKey, Order, Quantity, Side, Stock, Symbol};

use super::{Verdict, Violation};
use crate::market::{Deed, Earlier, Market, Ordered, Patience, Stated};
use crate::marks;

const S3: &str = "S3 committed prefixes never differ";
const S8: &str = "S8 a key has one effect";
const S10: &str = "S10 stocks and money are conserved";
const S11: &str = "S11 order numbers are dense";

/// A stock as it was from an entry on.
#[derive(Clone, Debug)]
pub struct Version {
    /// The entry that made it so.
    pub seq: SeqNum,
    /// What it was like.
    pub stock: Stock,
}

/// The log as it was committed.
#[derive(Clone, Default, Debug)]
pub struct Truth {
    positions: Vec<Position>,
    stocks: BTreeMap<Symbol, Vec<Version>>,
    /// By number; an account's order is in the market.
    orders: Vec<(SeqNum, Option<Order>)>,
    /// What a key did.
    keys: BTreeMap<CommandKey, SeqNum>,
    /// Accounts and books.
    pub market: Market,
    /// In which epoch each order of an account was placed.
    placed_in: BTreeMap<OrderNumber, Epoch>,
    /// Rare situations.
    pub(crate) marks: BTreeMap<&'static str, u64>,
}

impl Truth {
    /// Nothing is committed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The last committed entry.
    pub fn end(&self) -> SeqNum {
        SeqNum(self.positions.len() as u64)
    }

    /// Where a committed entry stands.
    pub fn position(&self, seq: SeqNum) -> Option<Position> {
        let index = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.positions.get(index).copied()
    }

    /// All versions of a stock, oldest first.
    pub fn versions(&self, symbol: &Symbol) -> &[Version] {
        self.stocks.get(symbol).map_or(&[], Vec::as_slice)
    }

    /// All stocks.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.stocks.keys()
    }

    /// A committed order and its entry; none in it if it is an account's.
    pub fn order(&self, number: OrderNumber) -> Option<&(SeqNum, Option<Order>)> {
        let index = usize::try_from(number.0.checked_sub(1)?).ok()?;
        self.orders.get(index)
    }

    /// How many orders there are.
    pub fn orders(&self) -> u64 {
        self.orders.len() as u64
    }

    /// The entry that a key made.
    pub fn by_key(&self, key: &CommandKey) -> Option<SeqNum> {
        self.keys.get(key).copied()
    }

    /// A replica calls so much committed; whether any of it was not known.
    ///
    /// # Errors
    /// It is another log than the one that was committed before, or what is new breaks a rule.
    pub(super) fn committed(&mut self, replica: &Replica) -> Result<bool, Violation> {
        let claimed = replica.committed();
        let known = claimed.min(self.end());
        let (here, there) = (self.position(known).unwrap_or_default(), replica.position(known));
        if there != Some(here) {
            let text =
                format!("entry {known} was committed as {here:?}, but a replica has {there:?} there as committed");
            return Err(Violation::new(S3, text));
        }
        let fresh = claimed > known;
        while self.end() < claimed {
            let next = self.end().next();
            let (Some(entry), Some(position)) = (replica.entry(next), replica.position(next)) else {
                let text = format!("a replica calls {claimed} committed, but has no entry {next}");
                return Err(Violation::new(S3, text));
            };
            self.take(entry)?;
            self.positions.push(position);
        }
        Ok(fresh)
    }

    fn take(&mut self, entry: &Entry) -> Verdict {
        for event in &entry.events {
            match event {
                Event::Listed { symbol, price, quantity } => {
                    let stock =
                        Stock { symbol: symbol.clone(), price: *price, quantity: *quantity, volume: Quantity::ZERO };
                    let seq = entry.seq;
                    let known = self.stocks.insert(symbol.clone(), vec![Version { seq, stock }]);
                    if known.is_some() {
                        return Err(Violation::new(S10, format!("entry {seq} lists {symbol} again")));
                    }
                }
                Event::Traded { order, symbol, side, quantity, .. } => {
                    self.number(entry.seq, *order)?;
                    let order = Order { number: *order, symbol: symbol.clone(), side: *side, quantity: *quantity };
                    self.orders.push((entry.seq, Some(order)));
                    let sign = if *side == Side::Buy { -1 } else { 1 };
                    self.trade(entry.seq, symbol, sign, *quantity)?;
                }
                Event::Placed { order, .. } => {
                    self.number(entry.seq, *order)?;
                    self.orders.push((entry.seq, None));
                    self.placed_in.insert(*order, entry.epoch);
                }
                Event::Matched { maker, symbol, quantity, .. } => {
                    self.trade(entry.seq, symbol, 0, *quantity)?;
                    if self.placed_in.get(maker).is_some_and(|placed| *placed < entry.epoch) {
                        *self.marks.entry(marks::MATCHED_LATER).or_default() += 1;
                    }
                }
                Event::Stated { earlier, .. } => {
                    let mark = if earlier.is_empty() { marks::STATED } else { marks::STATED_AGAIN };
                    *self.marks.entry(mark).or_default() += 1;
                }
                _ => {}
            }
        }
        if let [Event::Placed { time_in_force: TimeInForce::Fok, .. }, Event::Cancelled { .. }] = entry.events[..] {
            *self.marks.entry(marks::KILLED).or_default() += 1;
        }
        let deeds: Vec<Deed> = entry.events.iter().filter_map(deed).collect();
        let taken = self.market.take(entry.seq.0, &deeds);
        taken.map_err(|why| Violation::new(S10, format!("entry {}: {why}", entry.seq)))?;
        self.remember(entry)
    }

    fn number(&self, seq: SeqNum, number: OrderNumber) -> Verdict {
        match number.0 == self.orders() + 1 {
            true => Ok(()),
            false => Err(Violation::new(S11, format!("entry {seq} makes order {number}"))),
        }
    }

    /// A trade raises the volume; one with the house lowers (-1) or raises (1) what it has left.
    fn trade(&mut self, seq: SeqNum, symbol: &Symbol, sign: i128, quantity: Quantity) -> Verdict {
        let versions = self.stocks.get_mut(symbol);
        let Some((versions, stock)) = versions.and_then(|v| v.last().map(|last| last.stock.clone()).map(|s| (v, s)))
        else {
            return Err(Violation::new(S10, format!("entry {seq} trades {symbol}, which is not listed")));
        };
        let left = i128::from(stock.quantity.get()) + sign * i128::from(quantity.get());
        let volume = stock.volume.get() + quantity.get();
        let left = u64::try_from(left).ok().and_then(Quantity::new);
        let (Some(left), Some(volume)) = (left, Quantity::new(volume)) else {
            return Err(Violation::new(S10, format!("entry {seq} leaves less than nothing of {symbol}")));
        };
        let stock = Stock { quantity: left, volume, ..stock };
        // An order may trade several times in one entry.
        match versions.last_mut().filter(|last| last.seq == seq) {
            Some(last) => last.stock = stock,
            None => versions.push(Version { seq, stock }),
        }
        Ok(())
    }

    fn remember(&mut self, entry: &Entry) -> Verdict {
        let of_nobody = |event: &Event| {
            matches!(
                event,
                Event::EpochStart { .. }
                    | Event::Listed { .. }
                    | Event::Attached { .. }
                    | Event::Detached { .. }
                    | Event::Stated { .. }
            )
        };
        if entry.events.iter().all(of_nobody) {
            return Ok(());
        }
        let Some(key) = &entry.key else {
            return Err(Violation::new(S8, format!("entry {} has no key", entry.seq)));
        };
        let again = matches!(entry.events[..], [Event::Opened { .. }]);
        match self.keys.insert(key.clone(), entry.seq) {
            Some(before) if !again => {
                Err(Violation::new(S8, format!("{key} made entry {before} and entry {}", entry.seq)))
            }
            _ => Ok(()),
        }
    }
}

/// What an event does to accounts and books.
fn deed(event: &Event) -> Option<Deed> {
    let moved = |account: &tradenet_schemas::account::Account, asset: &Asset, inwards| {
        let (stock, amount) = match asset {
            Asset::Cash(cash) => (None, cash.cents()),
            Asset::Stock(symbol, quantity) => (Some(symbol.as_str().to_owned()), quantity.get()),
        };
        Some(Deed::Move { account: account.as_str().to_owned(), stock, amount, inwards })
    };
    match event {
        Event::Opened { account, .. } => Some(Deed::Open { account: account.as_str().to_owned() }),
        Event::Deposited { account, asset } => moved(account, asset, true),
        Event::Withdrawn { account, asset } => moved(account, asset, false),
        Event::Placed { order, account, symbol, side, quantity, price, time_in_force, post_only } => {
            Some(Deed::Place(Ordered {
                number: order.0,
                account: account.as_str().to_owned(),
                symbol: symbol.as_str().to_owned(),
                buys: *side == Side::Buy,
                quantity: quantity.get(),
                price: price.map(|price| price.cents()),
                patience: Patience::of(*time_in_force),
                post_only: *post_only,
                left: quantity.get(),
                done: false,
                fills: Vec::new(),
            }))
        }
        Event::Matched { trade, maker, price, quantity, .. } => {
            Some(Deed::Match { trade: trade.0, maker: maker.0, price: price.cents(), quantity: quantity.get() })
        }
        Event::Cancelled { order, quantity } => Some(Deed::Cancel { order: order.0, quantity: quantity.get() }),
        Event::Stated { account, earlier, orders } => Some(Deed::State {
            account: account.as_str().to_owned(),
            earlier: earlier.iter().map(group).collect(),
            orders: orders.iter().map(stated).collect(),
        }),
        _ => None,
    }
}

fn group(statements: &Statements) -> Earlier {
    let Statements { count, newest, lowest, highest, filled, cancelled } = *statements;
    Earlier { count, newest: newest.0, orders: (lowest.0, highest.0), any: (filled, cancelled) }
}

fn stated(order: &DoneOrder) -> Stated {
    Stated {
        number: order.order.0,
        symbol: order.symbol.as_str().to_owned(),
        buys: order.side == Side::Buy,
        quantity: order.quantity.get(),
        price: order.price.map(|price| price.cents()),
        patience: Patience::of(order.time_in_force),
        rested_after: order.rested_after.map(|trades| trades as u64),
        cancelled: order.cancelled.get(),
        fills: order.fills.iter().map(|(trade, price, count)| (trade.0, price.cents(), count.get())).collect(),
    }
}
