//! What the matching engine and the market around it cost, one thread, without disks and messages.
//!
//! `cargo bench -p tradenet-core --bench market` measures; allocations are counted and printed first.

#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on ends")]

mod counting;

use counting::count;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use tradenet_core::exchange::market::book::{Book, Place, Resting};
use tradenet_core::exchange::{Decision, Exchange};
use tradenet_schemas::account::{Account, Asset, Cash, Credentials, Instruction, NewOrder, TimeInForce, TokenHash};
use tradenet_schemas::ids::{Boot, Epoch, OrderNumber};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::trade::{Command, CommandKey, Price, Quantity, Side, Stock, Symbol};

/// Orders that rest on each side, on the mean.
const RESTING: usize = 1_000;
/// Between the sides, so that limit orders rest.
const MIDDLE_CENTS: u64 = 10_000;
/// How far from the middle they rest, at most.
const SPREAD_CENTS: u64 = 200;
/// Steps of one measured run.
const STEPS: u64 = 100_000;

/// A book under a realistic mix: 45 % limit orders that rest, 45 % cancellations, 10 % market orders that meet them.
struct Floor {
    book: Book,
    rng: Rng,
    orders: u64,
    /// Where the orders of each side rest, in no order; and by number, at which place in that list.
    resting: [Vec<(OrderNumber, Place)>; 2],
    at: Vec<u32>,
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Sell)
}

impl Floor {
    fn open() -> Self {
        let room = || Vec::with_capacity(4 * RESTING);
        let at = Vec::with_capacity(8 << 20);
        let (book, rng) = (Book::default(), Rng::with_seed(8));
        let mut floor = Self { book, rng, orders: 0, resting: [room(), room()], at };
        for _ in 0..RESTING {
            floor.rest(Side::Buy);
            floor.rest(Side::Sell);
        }
        floor
    }

    fn rest(&mut self, side: Side) {
        let away = self.rng.u64(1..=SPREAD_CENTS);
        let cents = if side == Side::Buy { MIDDLE_CENTS - away } else { MIDDLE_CENTS + away };
        let (order, price) = (OrderNumber(self.orders), Price::from_cents(cents).unwrap());
        self.orders += 1;
        let left = self.rng.u64(1..=100);
        let place = self.book.rest(side, Resting { order, holder: self.rng.u32(0..1_000), price, left });
        let list = &mut self.resting[index(side)];
        self.at.push(u32::try_from(list.len()).unwrap());
        list.push((order, place));
    }

    /// The order does not rest any more.
    fn forget(&mut self, side: Side, order: OrderNumber) {
        let list = &mut self.resting[index(side)];
        let at = self.at[usize::try_from(order.0).unwrap()];
        list.swap_remove(at as usize);
        if let Some((moved, _)) = list.get(at as usize) {
            self.at[usize::try_from(moved.0).unwrap()] = at;
        }
    }

    fn cancel(&mut self, side: Side) {
        let list = &self.resting[index(side)];
        if list.is_empty() {
            return;
        }
        let (order, place) = list[self.rng.usize(0..list.len())];
        self.book.take(place, self.book.resting(place).left);
        self.forget(side, order);
    }

    fn trade(&mut self, side: Side) {
        let mut wanted = self.rng.u64(1..=50);
        while let Some(place) = self.book.best(side).filter(|_| wanted > 0) {
            let resting = self.book.resting(place);
            let taken = wanted.min(resting.left);
            self.book.take(place, taken);
            wanted -= taken;
            if taken == resting.left {
                self.forget(side.other(), resting.order);
            }
        }
    }

    fn step(&mut self) {
        let side = if self.rng.bool() { Side::Buy } else { Side::Sell };
        // What rests is kept near its mean: market orders take some, too.
        let many = self.resting[index(side)].len() > RESTING;
        match self.rng.u32(0..100) {
            0..10 => self.trade(side),
            _ if many => self.cancel(side),
            _ => self.rest(side),
        }
    }
}

/// An exchange with one stock and accounts that can pay for anything.
struct House {
    exchange: Exchange,
    rng: Rng,
    keys: u64,
    epoch: Epoch,
}

const PEOPLE: u64 = 100;

impl House {
    fn open() -> Self {
        let mut house = Self { exchange: Exchange::new(), rng: Rng::with_seed(8), keys: 0, epoch: Epoch(1) };
        let (price, quantity) = (Price::from_cents(MIDDLE_CENTS).unwrap(), Quantity::new(1 << 40).unwrap());
        let stock = Stock { symbol: symbol(), price, quantity, volume: Quantity::ZERO };
        house.enter(None, house.exchange.list(&[stock]));
        for person in 0..PEOPLE {
            let Credentials { account, token } = caller(person);
            house.submit(&Command::Open { account, token });
            let much = [
                Asset::Cash(Cash::from_cents(1 << 40).unwrap()),
                Asset::Stock(symbol(), Quantity::new(1 << 30).unwrap()),
            ];
            for asset in much {
                house.submit(&Command::Account { caller: caller(person), instruction: Instruction::Deposit(asset) });
            }
        }
        house
    }

    fn enter(&mut self, key: Option<CommandKey>, events: Vec<Event>) {
        let seq = self.exchange.applied().next();
        self.exchange.apply(&Entry { seq, epoch: self.epoch, at: 0, key, events });
    }

    /// Decides and applies, as a leader does. A refusal is one, too.
    fn submit(&mut self, command: &Command) {
        self.keys += 1;
        let key = CommandKey::generated(Boot(1), self.keys);
        if let Decision::Accept(events) = self.exchange.decide(&key, command) {
            self.enter(Some(key), events);
        }
    }

    fn trade_with_the_house(&mut self) {
        let side = if self.rng.bool() { Side::Buy } else { Side::Sell };
        self.submit(&Command::Trade { symbol: symbol(), side, quantity: Quantity::new(1).unwrap() });
    }

    fn place(&mut self) {
        let side = if self.rng.bool() { Side::Buy } else { Side::Sell };
        let cents = MIDDLE_CENTS - 20 + self.rng.u64(0..40);
        let order = NewOrder {
            symbol: symbol(),
            side,
            quantity: Quantity::new(self.rng.u64(1..10)).unwrap(),
            price: Price::from_cents(cents),
            time_in_force: TimeInForce::Gtc,
            post_only: false,
        };
        let caller = caller(self.rng.u64(0..PEOPLE));
        self.submit(&Command::Account { caller, instruction: Instruction::Place(order) });
    }
}

fn symbol() -> Symbol {
    Symbol::new("GameStart").unwrap()
}

fn caller(person: u64) -> Credentials {
    Credentials { account: Account::new(&format!("p{person}")).unwrap(), token: TokenHash([7; 32]) }
}

fn all(criterion: &mut Criterion) {
    let (mut floor, mut house, mut market) = (Floor::open(), House::open(), House::open());
    count("book", STEPS, || floor.step());
    count("house", STEPS, || house.trade_with_the_house());
    count("market", STEPS, || market.place());
    let mut group = criterion.benchmark_group("market");
    group.throughput(Throughput::Elements(1));
    group.bench_function("book: 45 % limit, 45 % cancel, 10 % market", |bench| bench.iter(|| floor.step()));
    group.bench_function("house: decide and apply a trade", |bench| bench.iter(|| house.trade_with_the_house()));
    group.bench_function("market: decide and apply an order", |bench| bench.iter(|| market.place()));
    group.finish();
}

criterion_group!(benches, all);
criterion_main!(benches);
