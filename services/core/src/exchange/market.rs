//! Accounts trade with each other: one book a stock, price-time priority, whole cents.
//!
//! Problem: an order must meet the same orders at the same prices on every replica, and no cent or stock may appear or
//! vanish on its way from one account to another.
//! Idea: as everywhere in the exchange, judgement and effect are apart. `decide` walks the book that the order would
//! meet and writes down what happens; `apply` does what is written, and asserts that it is what the rules allow.
//! Rules kept: who offers the best price is met first, and who offered it first among equals; a trade takes the resting
//! order's price; nobody trades with oneself; only what is free is reserved, and what is reserved is there.

mod accounts;
pub mod book;
mod candles;
mod matching;
pub(super) mod statements;
pub(super) mod views;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tradenet_schemas::account::{
    Account, Asset, Cash, Credentials, Fill, Instruction, NewOrder, OrderStatus, TimeInForce, TokenHash, Trade,
};
use tradenet_schemas::ids::{OrderNumber, SeqNum, TradeNumber};
use tradenet_schemas::journal::Event;
use tradenet_schemas::limits::{ACCOUNTS_MAX, CASH_CENTS_MAX, FILLS_SHOWN_MAX, PAGE_MAX, QUANTITY_MAX};
use tradenet_schemas::trade::{Price, Quantity, Refusal, Side, Symbol};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use accounts::{Accounts, Kind};
use book::{Book, Place, Resting};
use candles::Candles;

use crate::bugs::{Bug, bug};

/// What the market has to know of the listings: they are the house's.
pub(super) trait Listings {
    /// The place of that stock in the order of listing.
    fn find(&self, symbol: &Symbol) -> Option<u32>;
    /// Its name.
    fn symbol(&self, listing: u32) -> &Symbol;
    /// How much its volume may still grow.
    fn room(&self, listing: u32) -> u64;
}

/// An order of an account that is open, or that no statement has yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Placed {
    number: OrderNumber,
    holder: u32,
    listing: u32,
    side: Side,
    time_in_force: TimeInForce,
    price: Option<Price>,
    quantity: u64,
    left: u64,
    status: OrderStatus,
    /// How many trades it had when it was put in the book, if it was.
    rested_after: Option<usize>,
    /// The first of its trades.
    fills: Vec<Fill>,
    place: Option<Place>,
    /// How many orders were done when it was, itself included.
    done: u64,
}

impl Placed {
    /// What it reserves while so many are left of it.
    fn reserves(&self, left: u64) -> (Kind, u64) {
        match (self.side, self.price) {
            (Side::Sell, _) => (Kind::Stock(self.listing), left),
            (Side::Buy, Some(price)) => (Kind::Cash, price.cents() * left),
            (Side::Buy, None) => (Kind::Cash, 0),
        }
    }
}

/// What the market has of one stock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Stall {
    book: Book,
    /// The newest, oldest first: as many as are ever shown.
    trades: VecDeque<Trade>,
    candles: Candles,
}

/// All accounts and books, their orders that are open or were done lately, and the newest trades.
///
/// Memory is bounded: by [`ACCOUNTS_MAX`], [`OPEN_ORDERS_MAX`](tradenet_schemas::limits::OPEN_ORDERS_MAX) for each account and
/// [`FILLS_SHOWN_MAX`] for each order; by how many orders are kept when they are done, and of those that were open at once as many as wait
/// to be stated; and by [`PAGE_MAX`] trades of each stock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Market {
    accounts: Accounts,
    orders: BTreeMap<OrderNumber, Placed>,
    /// Those of them that are done, by how many were done before.
    done: BTreeMap<u64, OrderNumber>,
    /// How many of those are kept before the oldest is stated.
    done_max: usize,
    /// How many orders were ever done.
    done_count: u64,
    /// How many trades there ever were.
    trades: u64,
    /// When the last one was.
    traded_at: u64,
    /// By listing.
    stalls: Vec<Stall>,
    /// A hash of all that ever changed, each change chained to the one before.
    hash: u64,
    /// The order that the entry in hand places.
    arriving: Option<OrderNumber>,
}

impl Market {
    /// Nobody has an account; of the orders that are done so many are kept.
    pub(super) fn keeping(done_max: usize) -> Self {
        Self {
            accounts: Accounts::default(),
            orders: BTreeMap::new(),
            done: BTreeMap::new(),
            done_max,
            done_count: 0,
            trades: 0,
            traded_at: 0,
            stalls: Vec::new(),
            hash: 0,
            arriving: None,
        }
    }

    /// A stock was listed.
    pub(super) fn listed(&mut self) {
        self.stalls.push(Stall::default());
    }

    /// See [`Exchange::digest`](super::Exchange::digest).
    pub(super) fn digest(&self) -> u64 {
        self.hash
    }

    /// Counts everything anew.
    ///
    /// # Panics
    /// The sums kept on the way are not those of the accounts and of the orders in the books.
    pub(super) fn assert_sound(&self) {
        self.accounts.assert_summed();
        let mut reserved = BTreeMap::<(u32, Option<u32>), u64>::new();
        for order in self.orders.values().filter(|order| order.status == OrderStatus::Open) {
            let (kind, amount) = order.reserves(order.left);
            let stock = match kind {
                Kind::Cash => None,
                Kind::Stock(listing) => Some(listing),
            };
            *reserved.entry((order.holder, stock)).or_default() += amount;
        }
        for ((holder, stock), amount) in reserved {
            let stake = self.accounts.holder(holder).stake(stock.map_or(Kind::Cash, Kind::Stock));
            assert_eq!(stake.reserved, amount, "an account reserves something else than its open orders do");
        }
    }

    // ------------------------------------------------------------ judgement

    /// Whether an account of that name can be opened; `again`: whether this repeats the opening.
    pub(super) fn open(&self, account: &Account, token: TokenHash, again: bool) -> Result<Vec<Event>, Refusal> {
        match self.accounts.find(account) {
            None if self.accounts.len() >= ACCOUNTS_MAX => Err(Refusal::TooManyAccounts),
            Some(id) if !again || !self.accounts.is_fresh(id) => Err(Refusal::AccountTaken),
            _ => Ok(vec![Event::Opened { account: account.clone(), token }]),
        }
    }

    /// Whether there is an account of that name with that token.
    pub(super) fn has_token(&self, account: &Account, token: TokenHash) -> bool {
        self.accounts.authorise(&Credentials { account: account.clone(), token }).is_some()
    }

    /// The account of that name.
    pub(super) fn holder(&self, account: &Account) -> Option<u32> {
        self.accounts.find(account)
    }

    /// Whether the caller is who it says.
    pub(super) fn authorise(&self, caller: &Credentials) -> Result<u32, Refusal> {
        self.accounts.authorise(caller).ok_or(Refusal::Unauthorised)
    }

    /// Judges what an account asks for; `next` is the number that an order would get.
    pub(super) fn decide(
        &self,
        listings: &impl Listings,
        holder: u32,
        instruction: &Instruction,
        next: OrderNumber,
    ) -> Result<Vec<Event>, Refusal> {
        let account = || self.accounts.holder(holder).name.clone();
        match instruction {
            Instruction::Deposit(asset) => {
                let (kind, amount) = stake(listings, asset)?;
                let (most, refusal) = match kind {
                    Kind::Cash => (CASH_CENTS_MAX, Refusal::TooMuchCash),
                    Kind::Stock(_) => (QUANTITY_MAX, Refusal::TooManyStocks),
                };
                let fits = self.accounts.held(kind).checked_add(amount).is_some_and(|sum| sum <= most);
                fits.then(|| vec![Event::Deposited { account: account(), asset: asset.clone() }]).ok_or(refusal)
            }
            Instruction::Withdraw(asset) => {
                let (kind, amount) = stake(listings, asset)?;
                let enough = self.accounts.holder(holder).stake(kind).free() >= amount;
                let events = || vec![Event::Withdrawn { account: account(), asset: asset.clone() }];
                enough.then(events).ok_or(lacking(kind))
            }
            Instruction::Place(order) => self.place(listings, holder, order, next),
            Instruction::Cancel(number) => {
                let order = self.own_order(holder, *number).ok_or(Refusal::UnknownOrder)?;
                match order.status {
                    OrderStatus::Open => {
                        let quantity = Quantity::new(order.left).expect("less is left than was ordered");
                        Ok(vec![Event::Cancelled { order: *number, quantity }])
                    }
                    OrderStatus::Filled | OrderStatus::Cancelled => Err(Refusal::OrderDone),
                }
            }
        }
    }

    fn own_order(&self, holder: u32, number: OrderNumber) -> Option<&Placed> {
        self.orders.get(&number).filter(|order| order.holder == holder)
    }

    fn placed(&mut self, seq: SeqNum, number: OrderNumber) -> &mut Placed {
        self.orders.get_mut(&number).unwrap_or_else(|| panic!("entry {seq}: there is no order {number} that is open"))
    }

    // ------------------------------------------------------------ effect

    fn note(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = xxh3_64_with_seed(&number.to_le_bytes(), self.hash);
        }
    }

    fn note_stake(&mut self, holder: u32, kind: Kind) {
        let stake = self.accounts.holder(holder).stake(kind);
        let kind = match kind {
            Kind::Cash => u64::MAX,
            Kind::Stock(listing) => u64::from(listing),
        };
        self.note(&[u64::from(holder), kind, stake.owned, stake.reserved]);
    }

    pub(super) fn apply_opened(&mut self, seq: SeqNum, account: &Account, token: TokenHash) {
        let id = self.accounts.open(seq, account, token);
        let hash = xxh3_64_with_seed(&token.0, xxh3_64_with_seed(account.as_str().as_bytes(), 0));
        self.note(&[u64::from(id), hash]);
    }

    pub(super) fn apply_moved(
        &mut self,
        seq: SeqNum,
        listings: &impl Listings,
        account: &Account,
        asset: &Asset,
        way_in: bool,
    ) {
        let holder = self.accounts.acting(seq, account);
        let (kind, amount) =
            stake(listings, asset).unwrap_or_else(|why| panic!("entry {seq}: {asset:?} can't be moved: {why:?}"));
        match way_in {
            true => self.accounts.bring(holder, kind, amount),
            false => self.accounts.take_out(holder, kind, amount),
        }
        self.note_stake(holder, kind);
    }

    /// An order arrives: what it may need is reserved at once.
    pub(super) fn apply_placed(
        &mut self,
        seq: SeqNum,
        listing: u32,
        number: OrderNumber,
        account: &Account,
        order: &NewOrder,
    ) {
        assert!(self.arriving.is_none(), "entry {seq}: two orders are placed by one entry");
        let holder = self.accounts.acting(seq, account);
        let quantity = order.quantity.get();
        assert!(quantity > 0 && order.price.is_none_or(|price| price.cents() > 0), "entry {seq}: an order for nothing");
        let placed = Placed {
            number,
            holder,
            listing,
            side: order.side,
            time_in_force: order.time_in_force,
            price: order.price,
            quantity,
            left: quantity,
            status: OrderStatus::Open,
            rested_after: None,
            fills: Vec::new(),
            place: None,
            done: 0,
        };
        let (kind, amount) = placed.reserves(quantity);
        self.accounts.reserve(holder, kind, amount);
        self.note_stake(holder, kind);
        self.orders.insert(number, placed);
        let owner = self.accounts.holder_mut(holder);
        owner.orders.insert(number);
        owner.open += 1;
        self.arriving = Some(number);
    }

    /// The arriving order meets the best of those that rest. Gives the stock.
    pub(super) fn apply_matched(
        &mut self,
        seq: SeqNum,
        at: u64,
        (number, maker): (TradeNumber, OrderNumber),
        price: Price,
        quantity: Quantity,
    ) -> u32 {
        assert_eq!(number.0, self.trades + 1, "entry {seq}: trade numbers have no gaps");
        let taker = self.arriving.unwrap_or_else(|| panic!("entry {seq}: a trade without an order that arrives"));
        let Placed { listing, side, holder, price: limit, .. } = *self.placed(seq, taker);
        let stall = &mut self.stalls[listing as usize];
        let place = stall.book.best(side).unwrap_or_else(|| panic!("entry {seq}: nothing rests that could be met"));
        let resting = stall.book.resting(place);
        assert_eq!((resting.order, resting.price), (maker, price), "entry {seq}: another order is the first to be met");
        let itself = resting.holder == holder && !bug(Bug::TradeWithItself);
        assert!(!itself, "entry {seq}: an account trades with itself");
        assert!(matching::crosses(side, limit, price), "entry {seq}: a trade at a worse price than was asked for");
        stall.book.take(place, quantity.get());
        stall.book.changed = seq;
        // A new leader's clock may be behind: time does not go back here.
        let at = self.traded_at.max(at);
        stall.candles.add(at, price, quantity);
        if stall.trades.len() >= PAGE_MAX {
            stall.trades.pop_front();
        }
        stall.trades.push_back(Trade { number, price, quantity, side, at });
        (self.trades, self.traded_at) = (number.0, at);
        for order in [taker, maker] {
            self.fill(seq, order, Fill { trade: number, price, quantity });
        }
        listing
    }

    /// One of the two orders of a trade: what it reserved for it is released, and what it bought or sold changes hands.
    fn fill(&mut self, seq: SeqNum, number: OrderNumber, fill: Fill) {
        let (price, quantity) = (fill.price, fill.quantity.get());
        let order = self.placed(seq, number);
        order.left = order.left.checked_sub(quantity).expect("no more is traded than is left of an order");
        if order.fills.len() < FILLS_SHOWN_MAX {
            order.fills.push(fill);
        }
        let (holder, side, left, stocks) = (order.holder, order.side, order.left, Kind::Stock(order.listing));
        let (reserved, amount) = order.reserves(quantity);
        let money = price.cents() * quantity;
        self.accounts.release(holder, reserved, amount);
        match side {
            Side::Buy => {
                self.accounts.debit(holder, Kind::Cash, money);
                self.accounts.credit(holder, stocks, quantity);
            }
            Side::Sell => {
                self.accounts.debit(holder, stocks, quantity);
                self.accounts.credit(holder, Kind::Cash, money);
            }
        }
        self.note_stake(holder, Kind::Cash);
        self.note_stake(holder, stocks);
        if left == 0 {
            self.end(seq, number, OrderStatus::Filled);
        }
    }

    /// What is left of an order is cancelled, whether it rests or arrives.
    pub(super) fn apply_cancelled(&mut self, seq: SeqNum, number: OrderNumber, quantity: Quantity) {
        let arriving = self.arriving.is_none_or(|arriving| arriving == number);
        assert!(arriving, "entry {seq}: another order is cancelled than the one that is placed");
        let order = self.placed(seq, number);
        assert_eq!(order.status, OrderStatus::Open, "entry {seq}: order {number} is done, and is cancelled");
        assert_eq!(order.left, quantity.get(), "entry {seq}: order {number} has another rest than is cancelled");
        let (listing, place, holder) = (order.listing, order.place, order.holder);
        let (kind, amount) = order.reserves(order.left);
        self.accounts.release(holder, kind, if bug(Bug::KeepReserved) { 0 } else { amount });
        self.note_stake(holder, kind);
        if let Some(place) = place {
            let book = &mut self.stalls[listing as usize].book;
            book.take(place, quantity.get());
            book.changed = seq;
        }
        self.end(seq, number, OrderStatus::Cancelled);
    }

    fn end(&mut self, seq: SeqNum, number: OrderNumber, status: OrderStatus) {
        self.done_count += 1;
        let done = self.done_count;
        let order = self.placed(seq, number);
        order.status = status;
        order.place = None;
        order.done = done;
        let holder = order.holder;
        self.done.insert(done, number);
        let owner = self.accounts.holder_mut(holder);
        owner.open -= 1;
        owner.done.push_back(number);
    }

    /// The entry is over: what is left of the order that arrived rests, and nothing was made or lost.
    pub(super) fn settle(&mut self, seq: SeqNum) {
        let listing = self.arriving.map(|number| self.placed(seq, number).listing);
        self.accounts.assert_conserved(seq, listing);
        let Some(number) = self.arriving.take() else { return };
        let order = self.orders.get_mut(&number).expect("the order was placed by this entry");
        if order.status == OrderStatus::Open {
            order.rested_after = Some(order.fills.len());
            let price = order.price.unwrap_or_else(|| panic!("entry {seq}: a market order would rest"));
            let resting = Resting { order: order.number, holder: order.holder, price, left: order.left };
            let book = &mut self.stalls[order.listing as usize].book;
            order.place = Some(book.rest(order.side, resting));
            book.changed = seq;
            let crossed = book
                .best(order.side)
                .is_some_and(|best| matching::crosses(order.side, order.price, book.resting(best).price));
            assert!(!crossed, "entry {seq}: an order rests that should have traded");
        }
        let (number, left) = (order.number.0, order.left);
        self.note(&[number, left]);
    }
}

/// What an asset is in an account.
fn stake(listings: &impl Listings, asset: &Asset) -> Result<(Kind, u64), Refusal> {
    match asset {
        Asset::Cash(cash) if *cash == Cash::ZERO => Err(Refusal::InsufficientFunds),
        Asset::Cash(cash) => Ok((Kind::Cash, cash.cents())),
        Asset::Stock(symbol, quantity) => match listings.find(symbol) {
            None => Err(Refusal::UnknownSymbol),
            Some(_) if *quantity == Quantity::ZERO => Err(Refusal::InsufficientStocks),
            Some(listing) => Ok((Kind::Stock(listing), quantity.get())),
        },
    }
}

fn lacking(kind: Kind) -> Refusal {
    match kind {
        Kind::Cash => Refusal::InsufficientFunds,
        Kind::Stock(_) => Refusal::InsufficientStocks,
    }
}
