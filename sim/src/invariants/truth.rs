//! S3: committed prefixes never differ or shrink. S10: stocks are conserved. S11: order numbers are dense.
//!
//! The log as it was ever committed, kept by other code than core's: maps of plain numbers, versions of each stock. What
//! clients were answered is measured by it (S8, S12, S13 in [`crate::auditor`]).

use std::collections::BTreeMap;

use tradenet_core::replica::Replica;
use tradenet_schemas::ids::{OrderNumber, Position, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::trade::{CommandKey, Order, Quantity, Side, Stock, Symbol};

use super::{Verdict, Violation};

const S3: &str = "S3 committed prefixes never differ";
const S8: &str = "S8 a key has one effect";
const S10: &str = "S10 stocks are conserved";
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
    orders: Vec<(SeqNum, Order)>,
    keys: BTreeMap<CommandKey, OrderNumber>,
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

    /// A committed order and its entry.
    pub fn order(&self, number: OrderNumber) -> Option<&(SeqNum, Order)> {
        let index = usize::try_from(number.0.checked_sub(1)?).ok()?;
        self.orders.get(index)
    }

    /// How many orders there are.
    pub fn orders(&self) -> u64 {
        self.orders.len() as u64
    }

    /// The order that a key made.
    pub fn by_key(&self, key: &CommandKey) -> Option<OrderNumber> {
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
                    self.trade(entry.seq, *order, symbol, *side, *quantity)?;
                    self.remember(entry, *order)?;
                }
                // Of accounts nothing is asked here.
                _ => {}
            }
        }
        Ok(())
    }

    fn trade(&mut self, seq: SeqNum, number: OrderNumber, symbol: &Symbol, side: Side, quantity: Quantity) -> Verdict {
        if number.0 != self.orders() + 1 {
            return Err(Violation::new(S11, format!("entry {seq} makes order {number}")));
        }
        let order = Order { number, symbol: symbol.clone(), side, quantity };
        self.orders.push((seq, order));
        let versions = self.stocks.get_mut(symbol);
        let Some((versions, stock)) = versions.and_then(|v| v.last().map(|last| last.stock.clone()).map(|s| (v, s)))
        else {
            return Err(Violation::new(S10, format!("entry {seq} trades {symbol}, which is not listed")));
        };
        let sign: i128 = if side == Side::Buy { -1 } else { 1 };
        let left = i128::from(stock.quantity.get()) + sign * i128::from(quantity.get());
        let volume = stock.volume.get() + quantity.get();
        let left = u64::try_from(left).ok().and_then(Quantity::new);
        let (Some(left), Some(volume)) = (left, Quantity::new(volume)) else {
            return Err(Violation::new(S10, format!("entry {seq} leaves less than nothing of {symbol}")));
        };
        let stock = Stock { quantity: left, volume, ..stock };
        versions.push(Version { seq, stock });
        Ok(())
    }

    fn remember(&mut self, entry: &Entry, order: OrderNumber) -> Verdict {
        let Some(key) = &entry.key else {
            return Err(Violation::new(S8, format!("entry {} has no key", entry.seq)));
        };
        match self.keys.insert(key.clone(), order) {
            None => Ok(()),
            Some(before) => Err(Violation::new(S8, format!("{key} made order {before} and order {order}"))),
        }
    }
}
