//! What everybody may know of an entry.
//!
//! Problem: who follows the market must see the same events from every replica, and nothing of whose orders they are.
//! Idea: they follow from the entry and the state behind it, so they are derived where the entry is applied.
//! Rule kept: a trade is shown as [`Exchange::trades`] shows it, a level as [`Exchange::book`] does, a stock as
//! [`Exchange::stock`] does.

use tradenet_schemas::account::{Book, Level, Trade};
use tradenet_schemas::feed::{Fact, PublicEvent};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::trade::{Price, Side, Symbol};

use super::Exchange;
use super::market::Listings as _;

impl Exchange {
    /// What everybody may know of the entry that was applied last: its trades, the levels of the book that it changed, and the
    /// stocks, in this order.
    ///
    /// # Panics
    /// It is another entry: what it changed is changed again by now.
    pub fn public_events(&self, entry: &Entry) -> impl Iterator<Item = PublicEvent> {
        assert_eq!(entry.seq, self.applied(), "events are those of the last entry");
        let (at, taker) = (self.market.traded_at(), entry.events.first());
        let trades = entry.events.iter().filter_map(move |event| match (taker, event) {
            (Some(Event::Placed { side, .. }), Event::Matched { trade, symbol, price, quantity, .. }) => {
                let trade = Trade { number: *trade, price: *price, quantity: *quantity, side: *side, at };
                Some(Fact::Traded(symbol.clone(), trade))
            }
            _ => None,
        });
        // All trades of an entry are of one stock.
        let mut last = None;
        let touched = Self::touched(entry).filter(move |symbol| last.replace(*symbol) != Some(*symbol));
        let stocks = touched.filter_map(|symbol| self.stock(symbol)).map(Fact::StockChanged);
        let facts = trades.chain(self.changed_book(entry).map(Fact::BookChanged)).chain(stocks);
        facts.map(|fact| PublicEvent { seq: entry.seq, fact })
    }

    /// The levels that the entry changed, as they are now.
    fn changed_book(&self, entry: &Entry) -> Option<Book> {
        match entry.events.first()? {
            Event::Placed { symbol, side, price, quantity, .. } => {
                let mut left = quantity.get();
                let mut met = Vec::new();
                for event in &entry.events {
                    if let Event::Matched { price, .. } = event {
                        met.push(*price);
                    }
                    if let Event::Matched { quantity, .. } | Event::Cancelled { quantity, .. } = event {
                        left -= quantity.get();
                    }
                }
                met.dedup(); // Orders are met in the order of their prices.
                let rests: Vec<_> = price.filter(|_| left > 0).into_iter().collect();
                self.levels(entry, symbol, *side, &rests, &met)
            }
            Event::Cancelled { order, .. } => {
                let (listing, side, price) = self.market.terms(*order);
                self.levels(entry, self.house.symbol(listing), side, &[price?], &[])
            }
            _ => None,
        }
    }

    /// What stands at those prices on an order's own side and on the other.
    fn levels(&self, entry: &Entry, symbol: &Symbol, side: Side, own: &[Price], other: &[Price]) -> Option<Book> {
        if own.is_empty() && other.is_empty() {
            return None;
        }
        let listing = self.house.find(symbol)?;
        let shown = |side, prices: &[Price]| -> Vec<_> {
            prices.iter().map(|price| Level(*price, self.market.standing(listing, side, *price))).collect()
        };
        let (own, other) = (shown(side, own), shown(side.other(), other));
        let (bids, asks) = if side == Side::Buy { (own, other) } else { (other, own) };
        Some(Book { symbol: symbol.clone(), sequence: entry.seq, bids, asks })
    }
}
