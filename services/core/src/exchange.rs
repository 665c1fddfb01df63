//! The market: commands become events, events become state.
//!
//! Problem: a trade must be the same trade on every replica, today and when the log is read again in a year.
//! Idea: judgement and effect are apart. [`Exchange::decide`] judges a command against the state and changes nothing;
//! [`Exchange::apply`] carries out what was decided, wherever and whenever the entry is read, and judges nothing: what it
//! finds impossible is a fault, and it panics (release builds too) rather than let a replica go its own way.
//! Rule kept: the state depends on the entries alone.
//!
//! - [`house`]: what is listed, and trades at the listed price.
//! - [`market`]: accounts, and what they trade with each other.
//! - [`public`]: what everybody may know of an entry.
//! - [`orders`]: the newest orders by number;
//! - [`keys`]: which commands were done already.

mod house;
mod keys;
pub mod market;
mod orders;
mod public;

use serde::{Deserialize, Serialize};
use tradenet_schemas::account::{
    Account, AccountAnswer, AccountOrder, AccountQuery, Book, Candle, Credentials, Instruction, Interval, NewOrder,
    Trade,
};
use tradenet_schemas::ids::{Boot, Digest, Leader, OrderNumber, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::{IDEMPOTENCY_KEYS_MAX, STOCKS_MAX};
use tradenet_schemas::trade::{Command, CommandKey, Order, Outcome, Quantity, Receipt, Refusal, Side, Stock, Symbol};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use house::House;
use keys::{Deed, Done, Keys, Receipts};
use market::views::When;
use market::{Listings as _, Market};
use orders::{Filled, Orders};

pub use market::statements::{Found, Walk};
pub use orders::ORDERS_KEPT;

/// What [`Exchange::decide`] says of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is to be done: these events make one entry, with the command's key.
    Accept(Vec<Event>),
    /// It was done already.
    Replay {
        /// The order that it made; 0 for none.
        order: OrderNumber,
        /// The entry that made it. May not be committed yet.
        seq: SeqNum,
    },
    /// It is not to be done. Not remembered: asked again, it is decided anew.
    Refuse(Refusal),
    /// It is not to be done either, for a reason that the journal has: an order is to be cancelled that is done, or nobody's.
    RefuseBy(Box<Walk>),
}

impl Decision {
    fn of(judged: Result<Vec<Event>, Refusal>) -> Self {
        judged.map_or_else(Self::Refuse, Self::Accept)
    }
}

/// The whole state of the exchange after some entry of the log.
///
/// Memory is bounded: by what the [market](market) keeps, and by [`STOCKS_MAX`], [`ORDERS_KEPT`] and [`IDEMPOTENCY_KEYS_MAX`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exchange {
    applied: SeqNum,
    house: House,
    market: Market,
    orders: Orders,
    /// Two tables, so that traffic without keys of its own can't push out the keys that clients rely on.
    client_keys: Keys,
    generated_keys: Keys,
    receipts: Receipts,
    catalog: Option<Boot>,
    /// Who has started an epoch last, as far as was seen since the start: a leader that goes on need not have everything looked through.
    #[serde(skip)]
    led_by: Option<Leader>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::keeping(IDEMPOTENCY_KEYS_MAX, ORDERS_KEPT)
    }
}

impl Exchange {
    /// The exchange before the first entry: nothing is listed.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that remembers so many keys of clients, and as many generated ones, so many of the newest orders, and as many of accounts
    /// that are done. All replicas must remember the same numbers; any but [`IDEMPOTENCY_KEYS_MAX`] and [`ORDERS_KEPT`] are for tests.
    pub fn keeping(keys: usize, orders: usize) -> Self {
        Self {
            applied: SeqNum::default(),
            house: House::default(),
            market: Market::keeping(orders),
            orders: Orders::keeping(orders),
            client_keys: Keys::with_capacity(keys),
            generated_keys: Keys::with_capacity(keys),
            receipts: Receipts::default(),
            catalog: None,
            led_by: None,
        }
    }

    /// Whether a command was done under that key, as far as is remembered.
    pub fn knows(&self, key: &CommandKey) -> bool {
        self.keys(key).get(key).is_some()
    }

    /// Judges a command against the state as it is; changes nothing.
    pub fn decide(&self, key: &CommandKey, command: &Command) -> Decision {
        let done = self.keys(key).get(key);
        match command {
            Command::Trade { symbol, side, quantity } => self.decide_trade(done, symbol, *side, *quantity),
            Command::Open { account, token } => {
                let same = done.map(|done| done.deed == Deed::Command(opening(account)));
                match same {
                    Some(false) => Decision::Refuse(Refusal::KeyReused),
                    _ if same == Some(true) && self.market.has_token(account, *token) => replay(done),
                    _ => Decision::of(self.market.open(account, *token, same == Some(true))),
                }
            }
            Command::Account { caller, instruction } => self.decide_for(done, caller, instruction),
        }
    }

    fn decide_trade(&self, done: Option<Done>, symbol: &Symbol, side: Side, quantity: Quantity) -> Decision {
        let listing = self.house.find(symbol);
        // The key comes first: a command that was done is answered so, whatever the stock is like by now.
        if let Some(done) = done {
            let same = listing.is_some_and(|listing| done.deed == Deed::Trade { listing, side, quantity });
            return if same { replay(Some(done)) } else { Decision::Refuse(Refusal::KeyReused) };
        }
        let Some(listing) = listing.map(|listing| self.house.get(listing)) else {
            return Decision::Refuse(Refusal::UnknownSymbol);
        };
        let order = OrderNumber(self.orders() + 1);
        let (symbol, price) = (symbol.clone(), listing.stock.price);
        let traded = |_| vec![Event::Traded { order, symbol, side, quantity, price }];
        Decision::of(listing.after(side, quantity).map(traded))
    }

    /// Who asks comes before everything else, even before whether it was asked before.
    fn decide_for(&self, done: Option<Done>, caller: &Credentials, instruction: &Instruction) -> Decision {
        let holder = match self.market.authorise(caller) {
            Ok(holder) => holder,
            Err(refusal) => return Decision::Refuse(refusal),
        };
        match done {
            Some(done) if done.deed == Deed::Command(fingerprint(instruction)) => replay(Some(done)),
            Some(_) => Decision::Refuse(Refusal::KeyReused),
            None => {
                if let Instruction::Cancel(number) = *instruction
                    && let Some(walk) = self.market.way_to(holder, number, When::Now)
                {
                    return Decision::RefuseBy(walk);
                }
                let next = OrderNumber(self.orders() + 1);
                Decision::of(self.market.decide(&self.house, holder, instruction, next))
            }
        }
    }

    /// What the client of a command is told that was done and made that order; `before`: the entry that did it for an
    /// earlier request, none where it was done just now.
    ///
    /// What is asked for again is shown as its own entry left it. Only the balance after a deposit or withdrawal whose
    /// receipt is gone ([`RECEIPT_HOLDINGS_MAX`](tradenet_schemas::limits::RECEIPT_HOLDINGS_MAX)) is shown as it is now.
    /// What is about an order that was stated meanwhile is told by [`Exchange::outcome_by`].
    pub fn outcome(&self, command: &Command, order: OrderNumber, before: Option<SeqNum>) -> Found<Outcome> {
        let replayed = before.is_some();
        let (caller, instruction) = match command {
            Command::Trade { .. } => return Found::Here(Outcome::Accepted { order, replayed }),
            Command::Open { .. } => {
                return Found::Here(Outcome::Done { receipt: Box::new(Receipt::Opened), replayed });
            }
            Command::Account { caller, instruction } => (caller, instruction),
        };
        let holder = self.market.holder(&caller.account).expect("only an account that is there has a command done");
        let (number, when) = match instruction {
            Instruction::Deposit(_) | Instruction::Withdraw(_) => {
                let first = before.and_then(|seq| self.receipts.get(seq)).cloned();
                let balance = first.unwrap_or_else(|| self.market.balance(&self.house, holder));
                return Found::Here(Outcome::Done { receipt: Box::new(Receipt::Balance(balance)), replayed });
            }
            Instruction::Place(_) => (order, When::AtFirst),
            Instruction::Cancel(number) => (*number, When::Now),
        };
        self.market.find(&self.house, holder, number, when).map(|order| Self::done_to(order, replayed))
    }

    /// The same for what was done for an earlier request, at the end of the walk to its order.
    ///
    /// # Panics
    /// The order was not found: the log is not what the state is of.
    pub fn outcome_by(walk: Walk) -> Outcome {
        Self::done_to(walk.into_order(), true)
    }

    fn done_to(order: Option<AccountOrder>, replayed: bool) -> Outcome {
        let order = order.expect("the order of a command that was done is there");
        Outcome::Done { receipt: Box::new(Receipt::Order(order)), replayed }
    }

    /// Why nothing is done that [`Decision::RefuseBy`] is said of, at the end of that walk.
    pub fn refusal_by(walk: Walk) -> Refusal {
        if walk.into_order().is_some() { Refusal::OrderDone } else { Refusal::UnknownOrder }
    }

    /// The event that states some account's orders, if one is due: it is the whole of its entry.
    pub fn statement_due(&self) -> Option<Event> {
        self.market.statement_due(&self.house)
    }

    /// The events that list those of `stocks` that are not listed, each name once (the first of its kind), as far as there
    /// is room for them ([`STOCKS_MAX`]). Their volume is not looked at: what is listed has not been traded.
    pub fn list(&self, stocks: &[Stock]) -> Vec<Event> {
        let mut new = std::collections::BTreeSet::new();
        stocks
            .iter()
            .filter(|stock| self.house.find(&stock.symbol).is_none() && new.insert(&stock.symbol))
            .take(STOCKS_MAX.saturating_sub(self.house.len()))
            .map(|stock| Event::Listed { symbol: stock.symbol.clone(), price: stock.price, quantity: stock.quantity })
            .collect()
    }

    /// Carries out the next entry.
    ///
    /// # Panics
    /// The entry can't follow: its number is not the next, it has an order number, stock, price, account or key that does not
    /// fit, a quantity would leave its bounds, or it says that the state should be another. Going on would spread the fault.
    pub fn apply(&mut self, entry: &Entry) {
        let seq = entry.seq;
        assert_eq!(seq.0, self.applied.0 + 1, "entries are applied in order, without gaps");
        for (index, event) in entry.events.iter().enumerate() {
            match event {
                Event::EpochStart { leader, digest } => {
                    assert_eq!(index, 0, "entry {seq}: an epoch starts before anything else happens");
                    assert_eq!(*digest, self.digest(), "entry {seq}: the leader's state before it is not this one");
                    if self.led_by.replace(*leader) != Some(*leader) {
                        self.market.assert_sound();
                    }
                }
                Event::Listed { symbol, price, quantity } => {
                    self.house.apply_listed(seq, symbol, *price, *quantity);
                    self.market.listed();
                }
                Event::Attached { catalog } => {
                    assert_eq!(self.catalog, None, "entry {seq}: a catalog is attached while another is");
                    self.catalog = Some(*catalog);
                }
                Event::Detached { catalog } => {
                    assert_eq!(self.catalog, Some(*catalog), "entry {seq}: a catalog that is not attached is detached");
                    self.catalog = None;
                }
                _ => self.apply_deed(entry, event),
            }
        }
        self.market.settle(seq);
        self.apply_key(entry);
        self.applied = seq;
    }

    /// What commands did, and what is said of it later.
    fn apply_deed(&mut self, entry: &Entry, event: &Event) {
        let seq = entry.seq;
        match event {
            Event::Traded { order, symbol, side, quantity, price } => {
                self.assert_next(seq, *order);
                let listing = self.house.apply_traded(seq, symbol, *side, *quantity, *price);
                self.orders.push_house(Filled { quantity: *quantity, seq, listing, side: *side });
            }
            Event::Opened { account, token } => self.market.apply_opened(seq, account, *token),
            Event::Deposited { account, asset } => self.market.apply_moved(seq, &self.house, account, asset, true),
            Event::Withdrawn { account, asset } => self.market.apply_moved(seq, &self.house, account, asset, false),
            Event::Placed { order, account, .. } => {
                self.assert_next(seq, *order);
                let placed = new_order(event).expect("the event places an order");
                let listing = self.house.find(&placed.symbol);
                let listing = listing.unwrap_or_else(|| panic!("entry {seq}: {} is not listed", placed.symbol));
                self.market.apply_placed(seq, listing, *order, account, &placed);
                self.orders.push_account();
            }
            Event::Matched { trade, maker, symbol, price, quantity } => {
                let listing = self.market.apply_matched(seq, entry.at, (*trade, *maker), *price, *quantity);
                assert_eq!(self.house.symbol(listing), symbol, "entry {seq}: another stock is traded than was ordered");
                self.house.apply_matched(seq, listing, *quantity);
            }
            Event::Cancelled { order, quantity } => self.market.apply_cancelled(seq, *order, *quantity),
            Event::Stated { .. } => {
                assert_eq!(entry.events.len(), 1, "entry {seq}: something else is done by a statement's entry");
                self.market.apply_stated(seq, &self.house, event);
            }
            Event::EpochStart { .. } | Event::Listed { .. } | Event::Attached { .. } | Event::Detached { .. } => {
                unreachable!("no command does this")
            }
        }
    }

    fn assert_next(&self, seq: SeqNum, order: OrderNumber) {
        assert_eq!(order.0, self.orders() + 1, "entry {seq}: order numbers have no gaps");
    }

    /// Remembers the entry's key, with what it is answered with when it comes again.
    fn apply_key(&mut self, entry: &Entry) {
        let seq = entry.seq;
        let first = entry.events.first().and_then(|event| self.deed(event));
        let places = matches!(entry.events.first(), Some(Event::Placed { .. }));
        let is_command = |event: &&Event| is_deed(event) && !(places && matches!(event, Event::Cancelled { .. }));
        let commands = entry.events.iter().filter(is_command).count();
        let keyed = usize::from(entry.key.is_some());
        assert_eq!(commands, keyed, "entry {seq}: an entry with a key does one command, one without does none");
        let (Some(key), Some((order, deed))) = (&entry.key, first) else { return };
        let done = Done { order, deed, seq };
        let keys = if key.is_of_client() { &mut self.client_keys } else { &mut self.generated_keys };
        // An account that has done nothing can be opened again, for another token.
        let again = matches!(entry.events.first(), Some(Event::Opened { .. }))
            && keys.get(key).is_some_and(|known| known.deed == deed);
        assert!(again || keys.remember(key, done), "entry {seq}: the key {key} was done already");
        if let Some(Event::Deposited { account, .. } | Event::Withdrawn { account, .. }) = entry.events.first()
            && key.is_of_client()
        {
            let holder = self.market.holder(account).expect("the account was found when the event was applied");
            self.receipts.keep(seq, self.market.balance(&self.house, holder));
        }
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> SeqNum {
        self.applied
    }

    /// A hash of the whole state: equal states have equal digests, and different ones different digests (but for a collision
    /// of 64-bit hashes).
    ///
    /// The number of the entry, stocks and catalog are hashed here, which costs time in proportion to the stocks. Orders,
    /// accounts and remembered keys are too many for that: hashes of them are kept up to date as they come and go.
    pub fn digest(&self) -> Digest {
        let mut hash = Xxh3::new();
        let mut add = |number: u64| hash.update(&number.to_le_bytes());
        add(self.applied.0);
        add(self.orders());
        add(self.orders.hash());
        add(self.market.digest());
        add(self.client_keys.digest());
        add(self.generated_keys.digest());
        add(u64::from(self.catalog.is_some()));
        add(self.catalog.unwrap_or_default().0);
        self.house.hash(&mut hash);
        Digest(hash.digest())
    }

    /// The stock of that name, if it is listed.
    pub fn stock(&self, symbol: &Symbol) -> Option<Stock> {
        self.house.find(symbol).map(|listing| self.house.get(listing).stock.clone())
    }

    /// The last entry that changed the stock; 0 if it is not listed.
    pub fn changed(&self, symbol: &Symbol) -> SeqNum {
        self.house.find(symbol).map(|listing| self.house.get(listing).changed).unwrap_or_default()
    }

    /// All stocks, by name.
    pub fn stocks(&self) -> Vec<Stock> {
        self.house.by_name().map(|listing| listing.stock.clone()).collect()
    }

    /// The entry that listed the first stocks, if there are any.
    pub fn listed(&self) -> Option<SeqNum> {
        self.house.first()
    }

    /// The order with the house of that number and the entry that made it, if it is kept ([`ORDERS_KEPT`]).
    pub fn order(&self, number: OrderNumber) -> Option<(Order, SeqNum)> {
        let filled = self.orders.house(number)?;
        let symbol = self.house.symbol(filled.listing).clone();
        Some((Order { number, symbol, side: filled.side, quantity: filled.quantity }, filled.seq))
    }

    /// Whether there is an order of that number that is too old to be kept: the journal says what it is.
    pub fn is_too_old(&self, number: OrderNumber) -> bool {
        (1..=self.orders.before()).contains(&number.0)
    }

    /// How many orders there are, which is the number of the last one.
    pub fn orders(&self) -> u64 {
        self.orders.count()
    }

    /// How many orders an entry makes.
    pub fn orders_made(entry: &Entry) -> u64 {
        entry.events.iter().filter(|event| matches!(event, Event::Traded { .. } | Event::Placed { .. })).count() as u64
    }

    /// The order of that number, if that entry made it: with the house, or none that [`Exchange::order`] shows.
    pub fn made(entry: &Entry, number: OrderNumber) -> Option<Option<Order>> {
        entry.events.iter().find_map(|event| match event {
            Event::Traded { order, symbol, side, quantity, .. } if *order == number => {
                Some(Some(Order { number, symbol: symbol.clone(), side: *side, quantity: *quantity }))
            }
            Event::Placed { order, .. } if *order == number => Some(None),
            _ => None,
        })
    }

    /// Answers an account that asks about itself.
    pub fn account(&self, caller: &Credentials, query: &AccountQuery) -> Found<AccountAnswer> {
        self.market.answer(&self.house, caller, query)
    }

    /// The best of a stock's book, if the stock is listed.
    pub fn book(&self, symbol: &Symbol, depth: usize) -> Option<Book> {
        self.house.find(symbol).map(|listing| self.market.book(symbol, listing, depth))
    }

    /// The last trades between accounts of a stock, newest first, if the stock is listed.
    pub fn trades(&self, symbol: &Symbol, limit: usize) -> Option<Vec<Trade>> {
        self.house.find(symbol).map(|listing| self.market.trades(listing, limit))
    }

    /// The last periods of a stock's prices, newest first, if the stock is listed.
    pub fn candles(&self, symbol: &Symbol, interval: Interval, limit: usize) -> Option<Vec<Candle>> {
        self.house.find(symbol).map(|listing| self.market.candles(listing, interval, limit))
    }

    /// The catalog that is attached, if one is.
    pub fn catalog(&self) -> Option<Boot> {
        self.catalog
    }

    /// The stocks that an entry changes, in the order of its events; one may come twice.
    pub fn touched(entry: &Entry) -> impl Iterator<Item = &Symbol> {
        entry.events.iter().filter_map(|event| match event {
            Event::Listed { symbol, .. } | Event::Traded { symbol, .. } | Event::Matched { symbol, .. } => Some(symbol),
            _ => None,
        })
    }

    fn keys(&self, key: &CommandKey) -> &Keys {
        if key.is_of_client() { &self.client_keys } else { &self.generated_keys }
    }
}

fn replay(done: Option<Done>) -> Decision {
    let Done { order, seq, .. } = done.expect("what is repeated was done");
    Decision::Replay { order, seq }
}

/// Tells an instruction from others of the same account.
fn fingerprint(instruction: &Instruction) -> u64 {
    xxh3_64(&serde_json::to_vec(instruction).expect("plain data serializes into memory"))
}

/// Tells the opening of an account from that of others, whatever its token.
fn opening(account: &Account) -> u64 {
    xxh3_64_with_seed(account.as_str().as_bytes(), 1)
}

/// The order that the event places.
fn new_order(event: &Event) -> Option<NewOrder> {
    let Event::Placed { symbol, side, quantity, price, time_in_force, post_only, .. } = event else { return None };
    let (symbol, side, quantity, price) = (symbol.clone(), *side, *quantity, *price);
    Some(NewOrder { symbol, side, quantity, price, time_in_force: *time_in_force, post_only: *post_only })
}

/// Whether a command did this, by itself or with others.
fn is_deed(event: &Event) -> bool {
    matches!(
        event,
        Event::Traded { .. }
            | Event::Opened { .. }
            | Event::Deposited { .. }
            | Event::Withdrawn { .. }
            | Event::Placed { .. }
            | Event::Cancelled { .. }
    )
}

impl Exchange {
    /// What a command did, from the first event of its entry: the order that it made, and what the command was.
    fn deed(&self, first: &Event) -> Option<(OrderNumber, Deed)> {
        let instruction = match first {
            Event::Traded { order, .. } => {
                let &Filled { listing, side, quantity, .. } =
                    self.orders.house(*order).expect("the newest order is kept: the event was applied just now");
                return Some((*order, Deed::Trade { listing, side, quantity }));
            }
            Event::Opened { account, .. } => return Some((OrderNumber(0), Deed::Command(opening(account)))),
            Event::Deposited { asset, .. } => Instruction::Deposit(asset.clone()),
            Event::Withdrawn { asset, .. } => Instruction::Withdraw(asset.clone()),
            Event::Placed { .. } => Instruction::Place(new_order(first)?),
            Event::Cancelled { order, .. } => Instruction::Cancel(*order),
            _ => return None,
        };
        let order = if let Event::Placed { order, .. } = first { *order } else { OrderNumber(0) };
        Some((order, Deed::Command(fingerprint(&instruction))))
    }
}
