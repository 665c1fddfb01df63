//! The market: commands become events, events become state.
//!
//! Problem: a trade must be the same trade on every replica, today and when the log is read again in a year.
//! Idea: judgement and effect are apart. [`Exchange::decide`] judges a command against the state and changes nothing;
//! [`Exchange::apply`] carries out what was decided, wherever and whenever the entry is read, and judges nothing: what it
//! finds impossible is a fault, and it panics (release builds too) rather than let a replica go its own way.
//! Rule kept: the state depends on the entries alone, and no stock is made or lost: for each one, what is left plus what
//! was bought is what was listed plus what was sold.

mod keys;

use std::collections::BTreeMap;

use tradenet_schemas::ids::{Boot, Digest, OrderNumber, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::{IDEMPOTENCY_KEYS_MAX, STOCKS_MAX};
use tradenet_schemas::trade::{Command, CommandKey, Order, Price, Quantity, Refusal, Side, Stock, Symbol};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use keys::Keys;

/// What [`Exchange::decide`] says of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is to be done: these events make one entry, with the command's key.
    Accept(Vec<Event>),
    /// It was done already.
    Replay {
        /// The order that it made.
        order: OrderNumber,
        /// The entry that made it. May not be committed yet.
        seq: SeqNum,
    },
    /// It is not to be done. Not remembered: asked again, it is decided anew.
    Refuse(Refusal),
}

/// A listed stock.
#[derive(Clone, Debug)]
struct Listing {
    stock: Stock,
    /// What the house had at first.
    listed: Quantity,
    /// All that clients have bought and sold; with `listed` this says what `stock` must be.
    bought: u64,
    sold: u64,
    /// The last entry that changed it.
    changed: SeqNum,
}

/// An order in 24 bytes; its number is its place. There are as many as there ever were trades.
#[derive(Clone, Debug)]
struct Filled {
    quantity: Quantity,
    seq: SeqNum,
    /// Which listing.
    listing: u32,
    side: Side,
}

/// The whole state of the exchange after some entry of the log.
///
/// Memory grows by 24 bytes an order; everything else is bounded by [`STOCKS_MAX`] and [`IDEMPOTENCY_KEYS_MAX`].
#[derive(Clone, Debug)]
pub struct Exchange {
    applied: SeqNum,
    /// In the order in which they were listed.
    listings: Vec<Listing>,
    by_name: BTreeMap<Symbol, u32>,
    orders: Vec<Filled>,
    /// A hash of all orders, each chained to the one before.
    orders_hash: u64,
    /// Two tables, so that traffic without keys of its own can't push out the keys that clients rely on.
    client_keys: Keys,
    generated_keys: Keys,
    catalog: Option<Boot>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::with_key_capacity(IDEMPOTENCY_KEYS_MAX)
    }
}

impl Exchange {
    /// The exchange before the first entry: nothing is listed.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that remembers so many keys of clients, and as many generated ones. All replicas must remember the same number;
    /// any but [`IDEMPOTENCY_KEYS_MAX`] is for tests.
    pub fn with_key_capacity(keys: usize) -> Self {
        Self {
            applied: SeqNum::default(),
            listings: Vec::new(),
            by_name: BTreeMap::new(),
            orders: Vec::new(),
            orders_hash: 0,
            client_keys: Keys::with_capacity(keys),
            generated_keys: Keys::with_capacity(keys),
            catalog: None,
        }
    }

    /// Judges a command against the state as it is; changes nothing.
    pub fn decide(&self, key: &CommandKey, command: &Command) -> Decision {
        let Command::Trade { symbol, side, quantity } = command;
        // The key comes first: a command that was done is answered so, whatever the stock is like by now.
        if let Some((order, seq)) = self.keys(key).get(key).and_then(|number| self.order(number)) {
            let same = order.symbol == *symbol && order.side == *side && order.quantity == *quantity;
            return match same {
                true => Decision::Replay { order: order.number, seq },
                false => Decision::Refuse(Refusal::KeyReused),
            };
        }
        let Some((_, listing)) = self.listing(symbol) else {
            return Decision::Refuse(Refusal::UnknownSymbol);
        };
        match listing.after(*side, *quantity) {
            Ok(_) => Decision::Accept(vec![Event::Traded {
                order: OrderNumber(self.orders() + 1),
                symbol: symbol.clone(),
                side: *side,
                quantity: *quantity,
                price: listing.stock.price,
            }]),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    /// The events that list those of `stocks` that are not listed, each name once (the first of its kind), as far as there
    /// is room for them ([`STOCKS_MAX`]). Their volume is not looked at: what is listed has not been traded.
    pub fn list(&self, stocks: &[Stock]) -> Vec<Event> {
        let mut new: BTreeMap<&Symbol, ()> = BTreeMap::new();
        stocks
            .iter()
            .filter(|stock| !self.by_name.contains_key(&stock.symbol) && new.insert(&stock.symbol, ()).is_none())
            .take(STOCKS_MAX.saturating_sub(self.listings.len()))
            .map(|stock| Event::Listed { symbol: stock.symbol.clone(), price: stock.price, quantity: stock.quantity })
            .collect()
    }

    /// Carries out the next entry.
    ///
    /// # Panics
    /// The entry can't follow: its number is not the next, it has an order number, stock, price or key that does not fit, a
    /// quantity would leave its bounds, or it says that the state should be another. Going on would spread the fault.
    pub fn apply(&mut self, entry: &Entry) {
        let seq = entry.seq;
        assert_eq!(seq.0, self.applied.0 + 1, "entries are applied in order, without gaps");
        let orders_before = self.orders();
        for (index, event) in entry.events.iter().enumerate() {
            match event {
                Event::EpochStart { digest, .. } => {
                    assert_eq!(index, 0, "entry {seq}: an epoch starts before anything else happens");
                    assert_eq!(*digest, self.digest(), "entry {seq}: the leader's state before it is not this one");
                }
                Event::Listed { symbol, price, quantity } => self.apply_listed(seq, symbol, *price, *quantity),
                Event::Traded { order, symbol, side, quantity, price } => {
                    assert_eq!(order.0, self.orders() + 1, "entry {seq}: order numbers have no gaps");
                    self.apply_traded(seq, symbol, *side, *quantity, *price);
                }
                Event::Attached { catalog } => {
                    assert_eq!(self.catalog, None, "entry {seq}: a catalog is attached while another is");
                    self.catalog = Some(*catalog);
                }
                Event::Detached { catalog } => {
                    assert_eq!(self.catalog, Some(*catalog), "entry {seq}: a catalog that is not attached is detached");
                    self.catalog = None;
                }
            }
        }
        self.apply_key(entry, orders_before);
        self.applied = seq;
    }

    fn apply_listed(&mut self, seq: SeqNum, symbol: &Symbol, price: Price, quantity: Quantity) {
        let index = u32::try_from(self.listings.len()).expect("there are not that many stocks");
        let known = self.by_name.insert(symbol.clone(), index);
        assert_eq!(known, None, "entry {seq}: {symbol} is listed twice");
        let stock = Stock { symbol: symbol.clone(), price, quantity, volume: Quantity::ZERO };
        self.listings.push(Listing { stock, listed: quantity, bought: 0, sold: 0, changed: seq });
    }

    fn apply_traded(&mut self, seq: SeqNum, symbol: &Symbol, side: Side, quantity: Quantity, price: Price) {
        let index = self.by_name.get(symbol).copied();
        let index = index.unwrap_or_else(|| panic!("entry {seq}: {symbol} is traded but not listed"));
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
        let filled = Filled { quantity, seq, listing: index, side };
        self.orders_hash = filled.chained_hash(self.orders_hash);
        self.orders.push(filled);
    }

    /// Remembers the entry's key. A command makes one order: the one that its key is answered with when it comes again.
    fn apply_key(&mut self, entry: &Entry, orders_before: u64) {
        let seq = entry.seq;
        let made = self.orders() - orders_before;
        let expected = u64::from(entry.key.is_some());
        assert_eq!(made, expected, "entry {seq}: an entry with a key makes one order, one without makes none");
        if let Some(key) = &entry.key {
            let order = OrderNumber(self.orders());
            let keys = if key.is_of_client() { &mut self.client_keys } else { &mut self.generated_keys };
            assert!(keys.remember(key, order), "entry {seq}: the key {key} was done already");
        }
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> SeqNum {
        self.applied
    }

    /// A hash of the whole state: equal states have equal digests, and different ones different digests (but for a collision
    /// of 64-bit hashes).
    ///
    /// The number of the entry, stocks and catalog are hashed here, which costs time in proportion to the stocks. Orders and
    /// remembered keys are too many for that: hashes of them are kept up to date as they come and go.
    pub fn digest(&self) -> Digest {
        let mut hash = Xxh3::new();
        let mut add = |number: u64| hash.update(&number.to_le_bytes());
        add(self.applied.0);
        add(self.orders());
        add(self.orders_hash);
        add(self.client_keys.digest());
        add(self.generated_keys.digest());
        add(u64::from(self.catalog.is_some()));
        add(self.catalog.unwrap_or_default().0);
        // In the order of listing, since orders point there. Each name ends its stock's numbers with a byte that is in no
        // name.
        for Listing { stock, listed, bought, sold, changed } in &self.listings {
            let numbers = [stock.price.cents(), stock.quantity.get(), stock.volume.get(), listed.get()];
            for number in numbers.into_iter().chain([*bought, *sold, changed.0]) {
                hash.update(&number.to_le_bytes());
            }
            hash.update(stock.symbol.as_str().as_bytes());
            hash.update(b"\n");
        }
        Digest(hash.digest())
    }

    /// The stock of that name, if it is listed.
    pub fn stock(&self, symbol: &Symbol) -> Option<Stock> {
        self.listing(symbol).map(|(_, listing)| listing.stock.clone())
    }

    /// The last entry that changed the stock; 0 if it is not listed.
    pub fn changed(&self, symbol: &Symbol) -> SeqNum {
        self.listing(symbol).map(|(_, listing)| listing.changed).unwrap_or_default()
    }

    /// All stocks, by name.
    pub fn stocks(&self) -> Vec<Stock> {
        self.by_name.values().map(|&index| self.listings[index as usize].stock.clone()).collect()
    }

    /// The order of that number, if there is one, and the entry that made it.
    pub fn order(&self, number: OrderNumber) -> Option<(Order, SeqNum)> {
        let index = usize::try_from(number.0.checked_sub(1)?).ok()?;
        let filled = self.orders.get(index)?;
        let symbol = self.listings[filled.listing as usize].stock.symbol.clone();
        Some((Order { number, symbol, side: filled.side, quantity: filled.quantity }, filled.seq))
    }

    /// How many orders there are, which is the number of the last one.
    pub fn orders(&self) -> u64 {
        self.orders.len() as u64
    }

    /// The catalog that is attached, if one is.
    pub fn catalog(&self) -> Option<Boot> {
        self.catalog
    }

    /// The stocks that an entry changes, in the order of its events; one may come twice.
    pub fn touched(entry: &Entry) -> impl Iterator<Item = &Symbol> {
        entry.events.iter().filter_map(|event| match event {
            Event::Listed { symbol, .. } | Event::Traded { symbol, .. } => Some(symbol),
            Event::EpochStart { .. } | Event::Attached { .. } | Event::Detached { .. } => None,
        })
    }

    fn listing(&self, symbol: &Symbol) -> Option<(u32, &Listing)> {
        let index = *self.by_name.get(symbol)?;
        Some((index, &self.listings[index as usize]))
    }

    fn keys(&self, key: &CommandKey) -> &Keys {
        if key.is_of_client() { &self.client_keys } else { &self.generated_keys }
    }
}

impl Listing {
    /// What is left and the volume after a trade, or why it can't be.
    fn after(&self, side: Side, quantity: Quantity) -> Result<(Quantity, Quantity), Refusal> {
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
        assert_eq!(volume.get(), self.bought + self.sold, "entry {seq}: {symbol}: the volume is not bought and sold");
    }
}

impl Filled {
    fn chained_hash(&self, prev: u64) -> u64 {
        let side = match self.side {
            Side::Buy => 0,
            Side::Sell => 1,
        };
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.seq.0.to_le_bytes());
        // A quantity is below 2^53: the side has room above it.
        bytes[8..16].copy_from_slice(&(self.quantity.get() | side << 63).to_le_bytes());
        bytes[16..].copy_from_slice(&self.listing.to_le_bytes());
        xxh3_64_with_seed(&bytes, prev)
    }
}
