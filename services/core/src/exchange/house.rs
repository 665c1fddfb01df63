//! What is listed, and trades with the house at the listed price.
//!
//! Rule kept: no stock is made or lost: for each one, what is left plus what was bought is what was listed plus what was
//! sold; and its volume is all that was traded, with the house or among accounts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tradenet_schemas::ids::SeqNum;
use tradenet_schemas::limits::QUANTITY_MAX;
use tradenet_schemas::trade::{Price, Quantity, Refusal, Side, Stock, Symbol};
use xxhash_rust::xxh3::Xxh3;

use super::market::Listings;

/// A listed stock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Listing {
    pub(super) stock: Stock,
    /// What the house had at first.
    listed: Quantity,
    /// All that clients have bought from it and sold to it; with `listed` this says what `stock` must be.
    bought: u64,
    sold: u64,
    /// What accounts have traded with each other.
    matched: u64,
    /// The last entry that changed it.
    pub(super) changed: SeqNum,
}

/// All stocks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct House {
    /// In the order in which they were listed.
    listings: Vec<Listing>,
    /// The entry that listed the first.
    first: Option<SeqNum>,
    by_name: BTreeMap<Symbol, u32>,
}

impl House {
    pub(super) fn len(&self) -> usize {
        self.listings.len()
    }

    /// The entry that listed the first of them, if there are any.
    pub(super) fn first(&self) -> Option<SeqNum> {
        self.first
    }

    pub(super) fn get(&self, listing: u32) -> &Listing {
        &self.listings[listing as usize]
    }

    /// All of them, by name.
    pub(super) fn by_name(&self) -> impl Iterator<Item = &Listing> {
        self.by_name.values().map(|&index| self.get(index))
    }

    pub(super) fn apply_listed(&mut self, seq: SeqNum, symbol: &Symbol, price: Price, quantity: Quantity) {
        let index = u32::try_from(self.listings.len()).expect("there are not that many stocks");
        let known = self.by_name.insert(symbol.clone(), index);
        assert_eq!(known, None, "entry {seq}: {symbol} is listed twice");
        self.first.get_or_insert(seq);
        let stock = Stock { symbol: symbol.clone(), price, quantity, volume: Quantity::ZERO };
        self.listings.push(Listing { stock, listed: quantity, bought: 0, sold: 0, matched: 0, changed: seq });
    }

    /// A client traded with the house. Gives the stock's place.
    pub(super) fn apply_traded(
        &mut self,
        seq: SeqNum,
        symbol: &Symbol,
        side: Side,
        quantity: Quantity,
        price: Price,
    ) -> u32 {
        let index = self.find(symbol).unwrap_or_else(|| panic!("entry {seq}: {symbol} is traded but not listed"));
        let listing = &mut self.listings[index as usize];
        assert_eq!(price, listing.stock.price, "entry {seq}: {symbol} is traded at another price than the listed one");
        match listing.after(side, quantity) {
            Ok((left, volume)) => (listing.stock.quantity, listing.stock.volume) = (left, volume),
            Err(refusal) => panic!("entry {seq}: a trade of {symbol} that can't be: {refusal:?}"),
        }
        match side {
            Side::Buy => listing.bought += quantity.get(),
            Side::Sell => listing.sold += quantity.get(),
        }
        listing.changed = seq;
        listing.assert_conserved(seq);
        index
    }

    /// Accounts traded with each other.
    pub(super) fn apply_matched(&mut self, seq: SeqNum, index: u32, quantity: Quantity) {
        let listing = &mut self.listings[index as usize];
        let volume = listing.stock.volume.checked_add(quantity);
        listing.stock.volume = volume.unwrap_or_else(|| panic!("entry {seq}: a volume over its bound"));
        listing.matched += quantity.get();
        listing.changed = seq;
        listing.assert_conserved(seq);
    }

    /// Adds every stock to a digest, in the order of listing, since orders point there. Each name ends its stock's numbers
    /// with a byte that is in no name.
    pub(super) fn hash(&self, hash: &mut Xxh3) {
        for Listing { stock, listed, bought, sold, matched, changed } in &self.listings {
            let numbers = [stock.price.cents(), stock.quantity.get(), stock.volume.get(), listed.get()];
            for number in numbers.into_iter().chain([*bought, *sold, *matched, changed.0]) {
                hash.update(&number.to_le_bytes());
            }
            hash.update(stock.symbol.as_str().as_bytes());
            hash.update(b"\n");
        }
    }
}

impl Listings for House {
    fn find(&self, symbol: &Symbol) -> Option<u32> {
        self.by_name.get(symbol).copied()
    }
    fn symbol(&self, listing: u32) -> &Symbol {
        &self.get(listing).stock.symbol
    }
    fn room(&self, listing: u32) -> u64 {
        QUANTITY_MAX - self.get(listing).stock.volume.get()
    }
}

impl Listing {
    /// What is left and the volume after a trade with the house, or why it can't be.
    pub(super) fn after(&self, side: Side, quantity: Quantity) -> Result<(Quantity, Quantity), Refusal> {
        let left = match side {
            // Nothing is not a trade. Frontends don't ask for it, but must not be able to get it into the log either.
            _ if quantity == Quantity::ZERO => return Err(Refusal::NotEnoughStocks),
            Side::Buy => self.stock.quantity.checked_sub(quantity).ok_or(Refusal::NotEnoughStocks)?,
            Side::Sell => self.stock.quantity.checked_add(quantity).ok_or(Refusal::TooManyStocks)?,
        };
        let volume = self.stock.volume.checked_add(quantity).ok_or(Refusal::TooManyStocks)?;
        Ok((left, volume))
    }

    /// Compares what is kept trade by trade with what follows from the sums. None of these numbers passes 2^54.
    fn assert_conserved(&self, seq: SeqNum) {
        let Stock { symbol, quantity, volume, .. } = &self.stock;
        let (had, has) = (self.listed.get() + self.sold, quantity.get() + self.bought);
        assert_eq!(had, has, "entry {seq}: {symbol}: listed and sold is not left and bought");
        let traded = self.bought + self.sold + self.matched;
        assert_eq!(volume.get(), traded, "entry {seq}: {symbol}: the volume is not all that was traded");
    }
}
