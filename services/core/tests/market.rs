//! Accounts and books against a naive model of them, and by example.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use tradenet_core::exchange::{Decision, Exchange, Found, Walk};
use tradenet_schemas::account::{
    Account, AccountAnswer, AccountOrder, AccountQuery, Asset, Balance, Book, Candle, Cash, Credentials, Fill, Holding,
    Instruction, Interval, Level, NewOrder, OrderStatus, Page, TimeInForce, TokenHash, Trade,
};
use tradenet_schemas::feed::{Fact, PublicEvent};
use tradenet_schemas::ids::{Boot, Epoch, Leader, OrderNumber, ReplicaId, SeqNum, TradeNumber};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::{
    CASH_CENTS_MAX, FILLS_PER_ORDER_MAX, FILLS_SHOWN_MAX, IDEMPOTENCY_KEYS_MAX, OPEN_ORDERS_MAX, QUANTITY_MAX,
    STATEMENT_ORDERS_MAX,
};
use tradenet_schemas::statement::DoneOrder;
use tradenet_schemas::trade::{
    Command, CommandKey, IdempotencyKey, Outcome, Price, Quantity, Receipt, Refusal, Side, Stock, Symbol,
};

use Side::{Buy, Sell};
use TimeInForce::{Fok, Gtc, Ioc};

const STOCKS: [&str; 2] = ["Zoo", "Max"];
const PEOPLE: [&str; 3] = ["ann", "bob", "cy"];

fn account(name: &str) -> Account {
    Account::new(name).unwrap()
}

fn symbol(name: &str) -> Symbol {
    Symbol::new(name).unwrap()
}

fn quantity(count: u64) -> Quantity {
    Quantity::new(count).unwrap()
}

fn price(cents: u64) -> Price {
    Price::from_cents(cents).unwrap()
}

fn cents(cents: u64) -> Asset {
    Asset::Cash(Cash::from_cents(cents).unwrap())
}

fn some(name: &str, count: u64) -> Asset {
    Asset::Stock(symbol(name), quantity(count))
}

/// Everybody's token is told by the name.
fn caller(name: &str) -> Credentials {
    Credentials { account: account(name), token: token(name, 0) }
}

fn token(name: &str, draw: u8) -> TokenHash {
    let mut bytes = [draw; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    TokenHash(bytes)
}

fn order(name: &str, side: Side, count: u64, cents: Option<u64>) -> NewOrder {
    let (symbol, quantity, price) = (symbol(name), quantity(count), cents.map(price));
    NewOrder { symbol, side, quantity, price, time_in_force: Gtc, post_only: false }
}

fn with(time_in_force: TimeInForce, order: NewOrder) -> NewOrder {
    NewOrder { time_in_force, ..order }
}

fn post_only(order: NewOrder) -> NewOrder {
    NewOrder { post_only: true, ..order }
}

/// Cents and quantities, best first.
type Levels = Vec<(u64, u64)>;

/// Somebody who hears nothing but the public events.
#[derive(Default)]
struct Follower {
    books: BTreeMap<Symbol, [BTreeMap<u64, u64>; 2]>,
    trades: BTreeMap<Symbol, Vec<Trade>>,
    stocks: BTreeMap<Symbol, Stock>,
    heard: Vec<PublicEvent>,
}

impl Follower {
    fn hear(&mut self, event: PublicEvent) {
        self.heard.push(event.clone());
        match event.fact {
            Fact::Traded(symbol, trade) => self.trades.entry(symbol).or_default().insert(0, trade),
            Fact::StockChanged(stock) => drop(self.stocks.insert(stock.symbol.clone(), stock)),
            Fact::BookChanged(Book { symbol, sequence, bids, asks }) => {
                assert_eq!(sequence, event.seq);
                let sides = self.books.entry(symbol).or_default();
                for (side, levels) in sides.iter_mut().zip([bids, asks]) {
                    for Level(price, count) in levels {
                        match count.get() {
                            0 => assert!(side.remove(&price.cents()).is_some(), "a level goes that was there"),
                            count => assert_ne!(side.insert(price.cents(), count), Some(count), "a level changes"),
                        }
                    }
                }
            }
        }
    }

    /// What it has made of the events is what the exchange shows.
    fn check(&self, exchange: &Exchange) {
        for symbol in STOCKS.map(symbol) {
            let book = exchange.book(&symbol, 100).unwrap();
            let shown = [book.bids, book.asks].map(|levels| levels.iter().map(|l| (l.0.cents(), l.1.get())).collect());
            assert_eq!(self.books.get(&symbol).cloned().unwrap_or_default(), shown, "the book of {symbol}");
            let heard = self.trades.get(&symbol).map_or(&[][..], |trades| &trades[..trades.len().min(100)]);
            assert_eq!(heard, exchange.trades(&symbol, 100).unwrap(), "the trades of {symbol}");
            assert_eq!(self.stocks.get(&symbol).cloned(), exchange.stock(&symbol), "{symbol}");
        }
    }
}

/// An exchange, the keys of the frontend before it, and somebody who follows it. Orders that are done are stated but for the newest,
/// so what is asked of others is found in the log.
struct Desk {
    exchange: Exchange,
    log: Vec<Entry>,
    keys: u64,
    follower: Follower,
}

impl Desk {
    /// Two stocks, and three people with 100.00 and ten Zoos each.
    fn open() -> Self {
        Self::keeping(1)
    }

    /// The same where so many orders that are done are kept.
    fn keeping(orders: usize) -> Self {
        let exchange = Exchange::keeping(IDEMPOTENCY_KEYS_MAX, orders);
        let mut desk = Self { exchange, log: Vec::new(), keys: 0, follower: Follower::default() };
        let stock =
            |name| Stock { symbol: symbol(name), price: price(500), quantity: quantity(100), volume: Quantity::ZERO };
        desk.enter(None, desk.exchange.list(&STOCKS.map(stock)));
        for name in PEOPLE {
            desk.done(&Command::Open { account: account(name), token: token(name, 0) });
            desk.ask(name, Instruction::Deposit(cents(10_000))).unwrap();
            desk.ask(name, Instruction::Deposit(some("Zoo", 10))).unwrap();
        }
        desk
    }

    fn enter(&mut self, key: Option<CommandKey>, events: Vec<Event>) {
        self.enter_at(self.exchange.applied().next().0 * 10, key, events);
    }

    fn enter_at(&mut self, at: u64, key: Option<CommandKey>, events: Vec<Event>) {
        let entry = Entry { seq: self.exchange.applied().next(), epoch: Epoch(1), at, key, events };
        self.exchange.apply(&entry);
        let events = self.exchange.public_events(&entry);
        events.for_each(|event| self.follower.hear(event));
        self.follower.check(&self.exchange);
        self.log.push(entry);
    }

    /// Orders that are done are stated, as a leader does it before it decides what comes next.
    fn state(&mut self) {
        while let Some(statement) = self.exchange.statement_due() {
            self.enter(None, vec![statement]);
        }
    }

    /// To the end, which is near: how many entries were read, and what is there.
    fn walked(&self, mut walk: Walk) -> (usize, Walk) {
        let mut read = 0;
        while let Some(seq) = walk.next_entry() {
            walk.take(&self.log[usize::try_from(seq.0).unwrap() - 1]);
            read += 1;
        }
        (read, walk)
    }

    fn account(&self, caller: &Credentials, query: &AccountQuery) -> AccountAnswer {
        self.asked(caller, query).1
    }

    /// How many entries were read for the answer, and the answer.
    fn asked(&self, caller: &Credentials, query: &AccountQuery) -> (usize, AccountAnswer) {
        match self.exchange.account(caller, query) {
            Found::Here(answer) => (0, answer),
            Found::Behind(walk) => {
                let (read, walk) = self.walked(*walk);
                (read, walk.into_answer())
            }
        }
    }

    fn outcome(&self, command: &Command, order: OrderNumber, before: Option<SeqNum>) -> Outcome {
        match self.exchange.outcome(command, order, before) {
            Found::Here(outcome) => outcome,
            Found::Behind(walk) => Exchange::outcome_by(self.walked(*walk).1),
        }
    }

    fn submit(&mut self, key: &CommandKey, command: &Command) -> Result<Outcome, Refusal> {
        self.state();
        let before = self.exchange.digest();
        let decision = self.exchange.decide(key, command);
        assert_eq!(self.exchange.digest(), before, "deciding changes nothing");
        match decision {
            Decision::Accept(events) => {
                self.enter(Some(key.clone()), events);
                Ok(self.outcome(command, OrderNumber(self.exchange.orders()), None))
            }
            Decision::Replay { order, seq } => Ok(self.outcome(command, order, Some(seq))),
            Decision::Refuse(refusal) => Err(refusal),
            Decision::RefuseBy(walk) => Err(Exchange::refusal_by(self.walked(*walk).1)),
        }
    }

    fn done(&mut self, command: &Command) -> Outcome {
        self.keys += 1;
        self.submit(&CommandKey::generated(Boot(1), self.keys), command).unwrap()
    }

    fn ask(&mut self, name: &str, instruction: Instruction) -> Result<Receipt, Refusal> {
        self.keys += 1;
        let key = CommandKey::generated(Boot(1), self.keys);
        match self.submit(&key, &Command::Account { caller: caller(name), instruction })? {
            Outcome::Done { receipt, replayed: false } => Ok(*receipt),
            other => panic!("{other:?}"),
        }
    }

    fn place(&mut self, name: &str, order: NewOrder) -> Result<AccountOrder, Refusal> {
        match self.ask(name, Instruction::Place(order))? {
            Receipt::Order(order) => Ok(order),
            other => panic!("{other:?}"),
        }
    }

    fn cancel(&mut self, name: &str, number: u64) -> Result<AccountOrder, Refusal> {
        match self.ask(name, Instruction::Cancel(OrderNumber(number)))? {
            Receipt::Order(order) => Ok(order),
            other => panic!("{other:?}"),
        }
    }

    fn balance(&self, name: &str) -> Balance {
        match self.account(&caller(name), &AccountQuery::Balance) {
            AccountAnswer::Balance(balance) => balance,
            other => panic!("{other:?}"),
        }
    }

    /// Cash, reserved cash, Zoos, reserved Zoos.
    fn owns(&self, name: &str) -> (u64, u64, u64, u64) {
        let balance = self.balance(name);
        let zoos = balance.holdings.iter().find(|holding| holding.symbol == symbol("Zoo"));
        let (owned, reserved) = zoos.map_or((0, 0), |zoos| (zoos.quantity.get(), zoos.reserved.get()));
        (balance.cash.cents(), balance.reserved_cash.cents(), owned, reserved)
    }

    fn orders(&self, name: &str, page: Page) -> Vec<AccountOrder> {
        match self.account(&caller(name), &AccountQuery::Orders(page)) {
            AccountAnswer::Orders(orders) => orders,
            other => panic!("{other:?}"),
        }
    }

    /// Bids and asks of Zoo.
    fn book(&self) -> (Levels, Levels) {
        let book = self.exchange.book(&symbol("Zoo"), 100).unwrap();
        let plain = |levels: Vec<Level>| levels.iter().map(|level| (level.0.cents(), level.1.get())).collect();
        (plain(book.bids), plain(book.asks))
    }
}

/// Number, how many were filled, and how it stands.
fn short(order: &AccountOrder) -> (u64, u64, OrderStatus) {
    (order.number.0, order.filled.get(), order.status)
}

use OrderStatus::{Cancelled, Filled, Open};

// ---------------------------------------------------------------- by example

#[test]
fn an_order_rests_trades_at_the_resting_price_and_frees_what_that_saves() {
    let mut desk = Desk::open();
    assert_eq!(short(&desk.place("ann", order("Zoo", Sell, 4, Some(300))).unwrap()), (1, 0, Open));
    assert_eq!(desk.owns("ann"), (10_000, 0, 10, 4), "a sell reserves its stocks");
    let bought = desk.place("bob", order("Zoo", Buy, 6, Some(400))).unwrap();
    assert_eq!(short(&bought), (2, 4, Open));
    assert_eq!(bought.fills, [Fill { trade: TradeNumber(1), price: price(300), quantity: quantity(4) }]);
    assert_eq!(desk.owns("ann"), (11_200, 0, 6, 0));
    assert_eq!(desk.owns("bob"), (8_800, 800, 14, 0), "only what rests is reserved, at its own price");
    assert_eq!(desk.book(), (vec![(400, 2)], vec![]));
    let zoo = desk.exchange.stock(&symbol("Zoo")).unwrap();
    assert_eq!((zoo.quantity.get(), zoo.volume.get(), zoo.price), (100, 4, price(500)), "the house is as it was");
    assert_eq!(desk.exchange.order(OrderNumber(2)), None, "an account's order is none of the house's");
}

#[test]
fn the_best_price_comes_first_and_the_oldest_among_equals() {
    let mut desk = Desk::open();
    for (name, cents) in [("ann", 310), ("bob", 300), ("ann", 300)] {
        desk.place(name, order("Zoo", Sell, 2, Some(cents))).unwrap();
    }
    let bought = desk.place("cy", order("Zoo", Buy, 5, None)).unwrap();
    let prices: Vec<_> = bought.fills.iter().map(|fill| (fill.price.cents(), fill.quantity.get())).collect();
    assert_eq!(prices, [(300, 2), (300, 2), (310, 1)]);
    assert_eq!((desk.owns("bob").0, desk.owns("ann").0, desk.owns("cy").0), (10_600, 10_910, 8_490));
    assert_eq!(desk.book(), (vec![], vec![(310, 1)]));
}

#[test]
fn time_in_force_says_what_becomes_of_the_rest() {
    let check =
        |behaviour: &str, incoming: NewOrder, expected: Result<(u64, u64, OrderStatus), Refusal>, bids: &[_]| {
            let mut desk = Desk::open();
            desk.place("ann", order("Zoo", Sell, 3, Some(300))).unwrap();
            let placed = desk.place("bob", incoming).map(|order| short(&order));
            assert_eq!(placed, expected, "{behaviour}");
            assert_eq!(desk.book().0, bids, "{behaviour}");
            let reserved: u64 = bids.iter().map(|(price, count)| price * count).sum();
            assert_eq!(desk.owns("bob").1, reserved, "{behaviour}");
        };
    let buy = |count, cents| order("Zoo", Buy, count, cents);
    check("gtc rests", buy(5, Some(300)), Ok((2, 3, Open)), &[(300, 2)]);
    check("gtc that crosses nothing rests whole", buy(5, Some(299)), Ok((2, 0, Open)), &[(299, 5)]);
    check("ioc is cancelled", with(Ioc, buy(5, Some(300))), Ok((2, 3, Cancelled)), &[]);
    check("fok fills nothing", with(Fok, buy(5, Some(300))), Ok((2, 0, Cancelled)), &[]);
    check("fok fills all", with(Fok, buy(3, Some(300))), Ok((2, 3, Filled)), &[]);
    check("a market order never rests", buy(5, None), Ok((2, 3, Cancelled)), &[]);
    check("a market order may be fok", with(Fok, buy(5, None)), Ok((2, 0, Cancelled)), &[]);
    check("post-only that would trade", post_only(buy(1, Some(300))), Err(Refusal::WouldCross), &[]);
    check("post-only that would not", post_only(buy(1, Some(299))), Ok((2, 0, Open)), &[(299, 1)]);
    check("nothing to meet", order("Max", Buy, 1, None), Ok((2, 0, Cancelled)), &[]);
}

#[test]
fn only_what_is_free_can_be_ordered_or_withdrawn() {
    let mut desk = Desk::open();
    desk.place("ann", order("Zoo", Buy, 10, Some(900))).unwrap();
    desk.place("ann", order("Zoo", Sell, 8, Some(2_000))).unwrap();
    assert_eq!(desk.owns("ann"), (10_000, 9_000, 10, 8));
    let orders = desk.exchange.orders();
    let mut check = |instruction, expected| assert_eq!(desk.ask("ann", instruction).err(), expected);
    check(Instruction::Withdraw(cents(1_001)), Some(Refusal::InsufficientFunds));
    check(Instruction::Withdraw(some("Zoo", 3)), Some(Refusal::InsufficientStocks));
    check(Instruction::Withdraw(some("Max", 1)), Some(Refusal::InsufficientStocks));
    check(Instruction::Withdraw(some("Nix", 1)), Some(Refusal::UnknownSymbol));
    check(Instruction::Place(order("Zoo", Buy, 1, Some(1_001))), Some(Refusal::InsufficientFunds));
    check(Instruction::Place(order("Zoo", Sell, 3, Some(1))), Some(Refusal::InsufficientStocks));
    check(Instruction::Place(order("Zoo", Sell, 3, None)), Some(Refusal::InsufficientStocks));
    check(Instruction::Place(order("Nix", Sell, 3, None)), Some(Refusal::UnknownSymbol));
    check(
        Instruction::Place(order("Zoo", Buy, QUANTITY_MAX, Some(1_000_000_000_000))),
        Some(Refusal::InsufficientFunds),
    );
    check(Instruction::Deposit(cents(CASH_CENTS_MAX - 29_999)), Some(Refusal::TooMuchCash));
    check(Instruction::Deposit(some("Zoo", QUANTITY_MAX - 29)), Some(Refusal::TooManyStocks));
    check(Instruction::Cancel(OrderNumber(9)), Some(Refusal::UnknownOrder));
    check(Instruction::Withdraw(cents(1_000)), None);
    check(Instruction::Withdraw(some("Zoo", 2)), None);
    assert_eq!(desk.exchange.orders(), orders, "no refusal uses a number");
    assert_eq!(desk.owns("ann"), (9_000, 9_000, 8, 8));
    let max = desk.ask("cy", Instruction::Deposit(cents(CASH_CENTS_MAX - 29_000)));
    assert!(max.is_ok(), "all together may have the most that can be written");
}

#[test]
fn a_market_buy_goes_as_far_as_the_money() {
    let mut desk = Desk::open();
    desk.place("ann", order("Zoo", Sell, 2, Some(3_000))).unwrap();
    desk.place("ann", order("Zoo", Sell, 5, Some(3_500))).unwrap();
    let bought = desk.place("bob", order("Zoo", Buy, 7, None)).unwrap();
    assert_eq!(short(&bought), (3, 3, Cancelled));
    assert_eq!(desk.owns("bob"), (500, 0, 13, 0));
    assert_eq!(short(&desk.place("bob", order("Zoo", Buy, 1, None)).unwrap()), (4, 0, Cancelled));
    let fok = with(Fok, order("Zoo", Buy, 3, None));
    assert_eq!(short(&desk.place("cy", fok).unwrap()), (5, 0, Cancelled), "three cost more than cy has");
}

#[test]
fn nobody_trades_with_oneself() {
    let mut desk = Desk::open();
    desk.place("bob", order("Zoo", Sell, 2, Some(300))).unwrap();
    desk.place("ann", order("Zoo", Sell, 2, Some(310))).unwrap();
    desk.place("bob", order("Zoo", Sell, 2, Some(320))).unwrap();
    let fok = with(Fok, order("Zoo", Buy, 3, Some(320)));
    assert_eq!(short(&desk.place("ann", fok).unwrap()), (4, 0, Cancelled), "a fok counts what stands before");
    let bought = desk.place("ann", order("Zoo", Buy, 6, Some(320))).unwrap();
    assert_eq!(short(&bought), (5, 2, Cancelled), "the rest is cancelled at the own order");
    assert_eq!(desk.book().1, [(310, 2), (320, 2)], "which stays");
    assert_eq!(desk.owns("ann"), (9_400, 0, 12, 2));
}

#[test]
fn a_cancelled_order_frees_what_it_reserved_once() {
    let mut desk = Desk::open();
    for cents in [300, 300, 310] {
        desk.place("ann", order("Zoo", Buy, 2, Some(cents))).unwrap();
    }
    assert_eq!(desk.cancel("bob", 2).err(), Some(Refusal::UnknownOrder), "it is not bob's");
    assert_eq!(short(&desk.cancel("ann", 2).unwrap()), (2, 0, Cancelled));
    assert_eq!(desk.cancel("ann", 2).err(), Some(Refusal::OrderDone));
    assert_eq!((desk.owns("ann").1, desk.book().0), (1_220, vec![(310, 2), (300, 2)]));
    desk.place("bob", order("Zoo", Sell, 3, None)).unwrap();
    let cancelled = desk.cancel("ann", 1).unwrap();
    assert_eq!(short(&cancelled), (1, 1, Cancelled));
    assert_eq!(desk.cancel("ann", 3).err(), Some(Refusal::OrderDone), "it is filled");
    assert_eq!((desk.owns("ann"), desk.book().0), ((9_080, 0, 13, 0), vec![]));
}

#[test]
fn a_wrong_token_learns_nothing() {
    let mut desk = Desk::open();
    desk.place("ann", order("Zoo", Buy, 2, Some(300))).unwrap();
    for (name, wrong) in [("ann", token("bob", 0)), ("ann", token("ann", 1)), ("nobody", token("nobody", 0))] {
        let caller = Credentials { account: account(name), token: wrong };
        for instruction in [Instruction::Deposit(cents(1)), Instruction::Cancel(OrderNumber(1))] {
            let command = Command::Account { caller: caller.clone(), instruction };
            let decision = desk.exchange.decide(&CommandKey::generated(Boot(1), 0), &command);
            assert_eq!(decision, Decision::Refuse(Refusal::Unauthorised), "{name}");
        }
        for query in [AccountQuery::Authorise, AccountQuery::Balance, AccountQuery::Order(OrderNumber(1))] {
            assert_eq!(desk.account(&caller, &query), AccountAnswer::Unauthorised, "{name}");
        }
    }
    assert_eq!(desk.account(&caller("ann"), &AccountQuery::Authorise), AccountAnswer::Authorised);
    let bobs = desk.account(&caller("bob"), &AccountQuery::Order(OrderNumber(1)));
    assert_eq!(bobs, AccountAnswer::Order(None), "another account's order is none");
}

#[test]
fn an_account_that_has_done_nothing_can_be_opened_again_for_another_token() {
    let mut desk = Desk::open();
    let key = |text: &str| CommandKey::of_client(&IdempotencyKey::new(text).unwrap());
    let open = |name: &str, draw| Command::Open { account: account(name), token: token(name, draw) };
    let opened = |replayed| Ok(Outcome::Done { receipt: Box::new(Receipt::Opened), replayed });
    assert_eq!(desk.submit(&key("a"), &open("dan", 0)), opened(false));
    assert_eq!(desk.submit(&key("b"), &open("dan", 9)), Err(Refusal::AccountTaken));
    assert_eq!(desk.submit(&key("a"), &open("eve", 0)), Err(Refusal::KeyReused));
    assert_eq!(desk.submit(&key("a"), &open("dan", 1)), opened(false));
    assert_eq!(desk.submit(&key("a"), &open("dan", 1)), opened(true), "the same token again needs no entry");
    let asks = |draw| Credentials { account: account("dan"), token: token("dan", draw) };
    assert_eq!(desk.account(&asks(0), &AccountQuery::Authorise), AccountAnswer::Unauthorised);
    assert_eq!(desk.account(&asks(1), &AccountQuery::Authorise), AccountAnswer::Authorised);
    desk.done(&Command::Account { caller: asks(1), instruction: Instruction::Deposit(cents(1)) });
    assert_eq!(desk.submit(&key("a"), &open("dan", 2)), Err(Refusal::AccountTaken), "it was used");
    assert_eq!(desk.submit(&key("a"), &open("dan", 1)), opened(true));
}

#[test]
fn an_instruction_is_done_once_and_answered_as_at_first() {
    let mut desk = Desk::open();
    let key = |name: &str| CommandKey::of_account(&account(name), &IdempotencyKey::new("k").unwrap());
    let place = |name: &str, count| Command::Account {
        caller: caller(name),
        instruction: Instruction::Place(order("Zoo", Buy, count, Some(300))),
    };
    let first = desk.submit(&key("ann"), &place("ann", 4)).unwrap();
    desk.place("bob", order("Zoo", Sell, 3, None)).unwrap();
    let Outcome::Done { receipt, replayed: true } = desk.submit(&key("ann"), &place("ann", 4)).unwrap() else {
        panic!("it is done again")
    };
    assert_eq!(Outcome::Done { receipt, replayed: false }, first, "though it has traded since");
    assert_eq!(desk.submit(&key("ann"), &place("ann", 5)), Err(Refusal::KeyReused));
    assert!(desk.submit(&key("cy"), &place("cy", 5)).is_ok(), "everybody has one's own keys");
    let deposit = Command::Account { caller: caller("ann"), instruction: Instruction::Deposit(cents(7)) };
    assert_eq!(desk.submit(&key("ann"), &deposit), Err(Refusal::KeyReused));
    let key = CommandKey::of_account(&account("ann"), &IdempotencyKey::new("d").unwrap());
    assert!(matches!(desk.submit(&key, &deposit), Ok(Outcome::Done { replayed: false, .. })));
    let balance = desk.balance("ann");
    desk.ask("ann", Instruction::Deposit(cents(1))).unwrap();
    let again = desk.submit(&key, &deposit).unwrap();
    assert_eq!(again, Outcome::Done { receipt: Box::new(Receipt::Balance(balance)), replayed: true });
    assert_eq!(desk.owns("ann").0, 10_000 - 900 + 7 + 1);
}

#[test]
fn what_one_account_and_one_order_may_do_at_once_is_bounded() {
    let mut desk = Desk::open();
    desk.ask("ann", Instruction::Deposit(some("Zoo", 5_000))).unwrap();
    for _ in 0..OPEN_ORDERS_MAX {
        desk.place("ann", order("Zoo", Sell, 1, Some(1))).unwrap();
    }
    assert_eq!(desk.place("ann", order("Zoo", Sell, 1, Some(1))).err(), Some(Refusal::TooManyOpenOrders));
    assert!(desk.place("ann", with(Ioc, order("Zoo", Sell, 1, Some(1)))).is_ok(), "it does not rest");
    desk.place("bob", order("Zoo", Sell, 1, Some(1))).unwrap();
    let all = FILLS_PER_ORDER_MAX as u64;
    assert_eq!(desk.place("cy", order("Zoo", Buy, all + 1, Some(2))).err(), Some(Refusal::TooManyFills));
    let filled = desk.place("cy", order("Zoo", Buy, all, Some(2))).unwrap();
    assert_eq!((filled.filled.get(), filled.fills.len()), (all, FILLS_PER_ORDER_MAX));
    assert_eq!(desk.book(), (vec![], vec![(1, 1)]));
}

#[test]
fn orders_are_listed_newest_first_by_pages() {
    let mut desk = Desk::open();
    for cents in [100, 110, 120, 130] {
        desk.place("ann", order("Zoo", Buy, 1, Some(cents))).unwrap();
    }
    desk.cancel("ann", 2).unwrap();
    desk.place("bob", order("Zoo", Sell, 1, None)).unwrap();
    let check = |status, limit, before: Option<u64>, expected: &[u64]| {
        let page = Page { status, limit, before: before.map(OrderNumber) };
        let numbers: Vec<_> = desk.orders("ann", page).iter().map(|order| order.number.0).collect();
        assert_eq!(numbers, expected);
    };
    check(None, 50, None, &[4, 3, 2, 1]);
    check(None, 2, None, &[4, 3]);
    check(None, 2, Some(3), &[2, 1]);
    check(Some(Open), 50, None, &[3, 1]);
    check(Some(Filled), 50, None, &[4]);
    check(Some(Cancelled), 50, Some(2), &[]);
}

/// Ann's orders for one Zoo that are filled at once, so many of them, with one that rests and is cancelled last.
fn desk_of_many(orders: u64) -> (Desk, u64) {
    let mut desk = Desk::open();
    for name in ["ann", "bob"] {
        desk.ask(name, Instruction::Deposit(some("Zoo", 100_000))).unwrap();
        desk.ask(name, Instruction::Deposit(cents(100_000_000))).unwrap();
    }
    let rests = desk.place("ann", order("Zoo", Buy, 1, Some(1))).unwrap().number.0;
    desk.place("bob", order("Zoo", Sell, orders, Some(300))).unwrap();
    for _ in 0..orders {
        desk.place("ann", order("Zoo", Buy, 1, Some(300))).unwrap();
    }
    desk.cancel("ann", rests).unwrap();
    desk.place("ann", with(Ioc, order("Zoo", Buy, 1, Some(1)))).unwrap();
    desk.state();
    (desk, rests)
}

#[test]
fn an_old_order_is_found_in_a_few_steps_however_many_there_are() {
    let (desk, rests) = desk_of_many(1_000);
    let check = |number: u64, steps_max: usize, expected: Option<(u64, OrderStatus)>| {
        let query = AccountQuery::Order(OrderNumber(number));
        let (steps, answer) = desk.asked(&caller("ann"), &query);
        let AccountAnswer::Order(order) = answer else { panic!("{answer:?}") };
        assert_eq!(order.map(|order| (order.filled.get(), order.status)), expected, "order {number}");
        assert!(steps <= steps_max, "order {number} was found after {steps} steps");
    };
    // A statement for each order, as only one is kept: a thousand, which has ten binary digits.
    for number in rests + 2..rests + 1_002 {
        check(number, 12, Some((1, Filled)));
    }
    check(rests, 12, Some((0, Cancelled)));
    check(rests + 1, 12, None);
    check(rests + 1_003, 0, None);
}

#[test]
fn a_page_reads_no_more_statements_than_it_shows_orders_and_a_few() {
    let (desk, _) = desk_of_many(1_000);
    let check = |status, before: Option<u64>, limit, steps_max: usize, expected: usize| {
        let page = Page { status, limit, before: before.map(OrderNumber) };
        let (steps, answer) = desk.asked(&caller("ann"), &AccountQuery::Orders(page.clone()));
        let AccountAnswer::Orders(orders) = answer else { panic!("{answer:?}") };
        assert_eq!(orders.len(), expected, "{page:?}");
        assert!(orders.is_sorted_by(|one, next| one.number > next.number), "{orders:?}");
        assert!(steps <= steps_max, "{page:?} took {steps} steps");
    };
    check(None, None, 20, 32, 20);
    check(None, Some(500), 20, 32, 20);
    check(Some(Filled), Some(500), 20, 32, 20);
    check(Some(Cancelled), None, 20, 12, 2);
    check(Some(Open), None, 20, 0, 0);
    check(None, None, 500, 32, 63);
    check(None, None, 0, 0, 0);
}

/// A hundred orders of Ann's are open when one is filled, and then are cancelled one by one between others.
#[test]
fn orders_that_rest_for_long_lengthen_the_way_by_their_number() {
    let mut desk = Desk::open();
    for name in ["ann", "bob"] {
        desk.ask(name, Instruction::Deposit(some("Zoo", 10_000))).unwrap();
        desk.ask(name, Instruction::Deposit(cents(100_000_000))).unwrap();
    }
    let rest: Vec<_> = (0..100).map(|_| desk.place("ann", order("Zoo", Buy, 1, Some(1))).unwrap().number.0).collect();
    desk.place("bob", order("Zoo", Sell, 1_000, Some(300))).unwrap();
    let wanted = desk.place("ann", order("Zoo", Buy, 1, Some(300))).unwrap().number;
    for number in rest {
        (0..2).for_each(|_| drop(desk.place("ann", order("Zoo", Buy, 1, Some(300))).unwrap()));
        desk.cancel("ann", number).unwrap();
    }
    desk.state();
    let Found::Behind(walk) = desk.exchange.account(&caller("ann"), &AccountQuery::Order(wanted)) else {
        panic!("it is stated")
    };
    let (read, walk) = desk.walked(*walk);
    assert_eq!(walk.into_order().map(|order| (order.number, order.status)), Some((wanted, Filled)));
    assert!((100..200).contains(&read), "{read}");
    let query = AccountQuery::Orders(Page { status: None, limit: 50, before: Some(wanted) });
    let Found::Behind(walk) = desk.exchange.account(&caller("ann"), &query) else { panic!("they are stated") };
    let (read, walk) = desk.walked(*walk);
    let AccountAnswer::Orders(page) = walk.into_answer() else { panic!("a page is asked for") };
    assert_eq!(page.len(), 50);
    assert!((100..200).contains(&read), "{read}");
}

#[test]
fn a_statement_has_so_many_orders_and_trades_and_no_more() {
    let mut desk = Desk::keeping(1_000);
    desk.ask("ann", Instruction::Deposit(some("Zoo", 10_000))).unwrap();
    desk.ask("bob", Instruction::Deposit(cents(100_000_000))).unwrap();
    // Seven with 300 trades each, of which three fit; then single ones.
    for _ in 0..7 {
        for _ in 0..300 {
            desk.place("ann", order("Zoo", Sell, 1, Some(300))).unwrap();
        }
        desk.place("bob", order("Zoo", Buy, 300, Some(300))).unwrap();
    }
    let stated = desk.log.iter().filter_map(|entry| match &entry.events[..] {
        [Event::Stated { account, orders, .. }] => {
            Some((account.as_str(), orders.len(), orders.iter().map(|order| order.fills.len()).sum::<usize>()))
        }
        _ => None,
    });
    let stated: Vec<_> = stated.collect();
    assert!(stated.iter().all(|(_, orders, fills)| *orders <= STATEMENT_ORDERS_MAX && *fills <= FILLS_SHOWN_MAX));
    assert!(stated.contains(&("ann", STATEMENT_ORDERS_MAX, STATEMENT_ORDERS_MAX)), "{stated:?}");
    let bobs: Vec<_> = desk.orders("bob", Page { status: None, limit: 500, before: None });
    assert_eq!(bobs.len(), 3, "a page ends early where there are more trades than one answer can hold");
    let last = bobs.last().map(|order| order.number);
    let next = desk.orders("bob", Page { status: None, limit: 500, before: last });
    assert_eq!(next.len(), 3);
    let last = next.last().map(|order| order.number);
    assert_eq!(desk.orders("bob", Page { status: None, limit: 500, before: last }).len(), 1);
}

#[test]
fn an_entry_is_told_as_trades_then_levels_then_stocks_and_names_nobody() {
    let check = |act: &dyn Fn(&mut Desk), expected: &str| {
        let mut desk = Desk::open();
        desk.place("ann", order("Zoo", Sell, 2, Some(300))).unwrap();
        desk.place("cy", order("Zoo", Sell, 2, Some(310))).unwrap();
        let before = desk.follower.heard.len();
        act(&mut desk);
        let heard = &desk.follower.heard[before..];
        let told: Vec<_> = heard.iter().map(|event| serde_json::to_value(&event.fact).unwrap()).collect();
        assert_eq!(serde_json::Value::from(told), serde_json::from_str::<serde_json::Value>(expected).unwrap());
        assert!(heard.iter().all(|event| event.seq == desk.exchange.applied()));
    };
    let stock = |volume| {
        format!(r#"{{"stock_changed": {{"symbol": "Zoo", "price": 500, "quantity": 100, "volume": {volume}}}}}"#)
    };
    let levels = |bids, asks| {
        format!(r#"{{"book_changed": {{"symbol": "Zoo", "sequence": 13, "bids": {bids}, "asks": {asks}}}}}"#)
    };
    let traded = |number, price, count| {
        format!(
            r#"{{"traded": ["Zoo", {{"number": {number}, "price": {price}, "quantity": {count}, "side": "buy", "at": 130}}]}}"#
        )
    };
    let buy = |count, cents| order("Zoo", Buy, count, cents);
    let place = |order: NewOrder| move |desk: &mut Desk| drop(desk.place("bob", order.clone()).unwrap());
    check(&place(buy(1, Some(290))), &format!("[{}]", levels("[[290, 1]]", "[]")));
    let both = [traded(1, 300, 2), traded(2, 310, 1), levels("[]", "[[300, 0], [310, 1]]"), stock(3)];
    check(&place(buy(3, Some(310))), &format!("[{}]", both.join(", ")));
    let rest = [traded(1, 300, 2), levels("[[300, 1]]", "[[300, 0]]"), stock(2)];
    check(&place(buy(3, Some(300))), &format!("[{}]", rest.join(", ")));
    let gone = [traded(1, 300, 2), levels("[]", "[[300, 0]]"), stock(2)];
    check(&place(with(Ioc, buy(3, Some(300)))), &format!("[{}]", gone.join(", ")));
    check(&place(with(Ioc, buy(3, Some(299)))), "[]");
    check(&|desk| drop(desk.ask("bob", Instruction::Deposit(cents(1))).unwrap()), "[]");
    check(&|desk| drop(desk.cancel("cy", 2).unwrap()), &format!("[{}]", levels("[]", "[[310, 0]]")));
    let house = Command::Trade { symbol: symbol("Zoo"), side: Buy, quantity: quantity(1) };
    let sold = r#"[{"stock_changed": {"symbol": "Zoo", "price": 500, "quantity": 99, "volume": 1}}]"#;
    check(&|desk| drop(desk.done(&house)), sold);
}

#[test]
fn prices_are_summed_up_by_period_in_the_order_of_the_log() {
    let mut desk = Desk::open();
    let mut trade_at = |at, cents| {
        desk.place("ann", order("Zoo", Sell, 2, Some(cents))).unwrap();
        desk.keys += 1;
        let key = CommandKey::generated(Boot(1), desk.keys);
        let buy =
            Command::Account { caller: caller("bob"), instruction: Instruction::Place(order("Zoo", Buy, 2, None)) };
        let Decision::Accept(events) = desk.exchange.decide(&key, &buy) else { panic!("it is not accepted") };
        desk.enter_at(at, Some(key), events);
    };
    let (minute, hour) = (60_000, 3_600_000);
    trade_at(hour + 1_000, 300);
    trade_at(hour + 1_999, 320);
    trade_at(hour + 2_500, 310);
    trade_at(hour + minute, 290);
    // By another leader, whose clock is behind.
    trade_at(hour, 295);
    let check = |interval, limit, expected: &[(u64, [u64; 4], u64)]| {
        let candles = desk.exchange.candles(&symbol("Zoo"), interval, limit).unwrap();
        let plain = |candle: &Candle| {
            let prices = [candle.open, candle.high, candle.low, candle.close].map(Price::cents);
            assert_eq!(candle.quantity.get(), 2 * candle.trades);
            (candle.at, prices, candle.trades)
        };
        assert_eq!(candles.iter().map(plain).collect::<Vec<_>>(), expected);
    };
    check(Interval::Hour, 9, &[(hour, [300, 320, 290, 295], 5)]);
    check(Interval::Minute, 9, &[(hour + minute, [290, 295, 290, 295], 2), (hour, [300, 320, 300, 310], 3)]);
    let first = (hour + 1_000, [300, 320, 300, 320], 2);
    let second = (hour + 2_000, [310, 310, 310, 310], 1);
    check(Interval::Second, 9, &[(hour + minute, [290, 295, 290, 295], 2), second, first]);
    check(Interval::Second, 1, &[(hour + minute, [290, 295, 290, 295], 2)]);
}

#[test]
fn impossible_entries_are_fatal() {
    let check = |behaviour: &str, events: Vec<Event>, expected: &str| {
        let mut desk = Desk::open();
        desk.place("ann", order("Zoo", Sell, 2, Some(300))).unwrap();
        desk.place("bob", order("Zoo", Sell, 2, Some(300))).unwrap();
        let key = CommandKey::generated(Boot(2), 1);
        let panic = catch_unwind(AssertUnwindSafe(|| desk.enter(Some(key), events))).unwrap_err();
        let text =
            panic.downcast::<String>().map_or_else(|panic| (*panic.downcast::<&str>().unwrap()).into(), |text| *text);
        assert!(text.contains(expected), "{behaviour}: {text}");
    };
    let placed = |name: &str, count, cents| {
        let NewOrder { symbol, side, quantity, price, time_in_force, post_only } = order("Zoo", Buy, count, cents);
        let (order, account) = (OrderNumber(3), account(name));
        Event::Placed { order, account, symbol, side, quantity, price, time_in_force, post_only }
    };
    let matched = |maker, cents, count| Event::Matched {
        trade: TradeNumber(1),
        maker: OrderNumber(maker),
        symbol: symbol("Zoo"),
        price: price(cents),
        quantity: quantity(count),
    };
    check("the younger first", vec![placed("cy", 1, None), matched(2, 300, 1)], "first to be met");
    check("another price", vec![placed("cy", 1, None), matched(1, 299, 1)], "first to be met");
    check("with itself", vec![placed("ann", 1, None), matched(1, 300, 1)], "trades with itself");
    check("over the limit", vec![placed("cy", 1, Some(299)), matched(1, 300, 1)], "worse price");
    check("more than rests", vec![placed("cy", 3, None), matched(1, 300, 3)], "than is left");
    check("a crossed book", vec![placed("cy", 1, Some(300))], "should have traded");
    check("a market order that rests", vec![placed("cy", 1, None)], "would rest");
    check("a trade alone", vec![matched(1, 300, 1)], "without an order that arrives");
    check("more than there is", vec![placed("cy", 40, Some(300))], "reserves");
    let cancelled = |order, count| Event::Cancelled { order: OrderNumber(order), quantity: quantity(count) };
    check("another rest", vec![cancelled(1, 1)], "another rest");
    check("an order that is not there", vec![cancelled(7, 1)], "no order 7");
    check("another order than the one placed", vec![placed("cy", 1, Some(1)), cancelled(1, 2)], "another order");
    let withdrawn = |asset| Event::Withdrawn { account: account("ann"), asset };
    check("more than is owned", vec![withdrawn(cents(10_001))], "has less");
    check("what is reserved", vec![withdrawn(some("Zoo", 9))], "reserves");
    check("two commands", vec![withdrawn(cents(1)), withdrawn(cents(1))], "does one command");
    let stated = |orders| Event::Stated { account: account("ann"), earlier: vec![], orders };
    check("a statement of nothing", vec![stated(vec![])], "without an order");
    let open = DoneOrder {
        order: OrderNumber(1),
        symbol: symbol("Zoo"),
        side: Sell,
        quantity: quantity(2),
        price: Some(price(300)),
        time_in_force: Gtc,
        rested_after: Some(0),
        cancelled: quantity(2),
        fills: vec![],
    };
    check("a statement of an open order", vec![stated(vec![open])], "not what became of ann's next orders");
    check("a stranger", vec![Event::Deposited { account: account("eve"), asset: cents(1) }], "no account eve");
    check("a used account's token", vec![Event::Opened { account: account("ann"), token: token("x", 1) }], "was used");
}

// ---------------------------------------------------------------- against a model

/// An order in the model's list, which is never taken out of it.
#[derive(Clone, Debug)]
struct Noted {
    owner: usize,
    order: NewOrder,
    left: u64,
    status: OrderStatus,
    fills: Vec<Fill>,
    number: u64,
}

/// Everything in plain lists; who is met next is found by looking at all.
#[derive(Clone, Debug, Default)]
struct Model {
    cash: [u64; 3],
    stocks: [BTreeMap<String, u64>; 3],
    orders: Vec<Noted>,
    trades: u64,
}

impl Model {
    fn open() -> Self {
        let zoos = || BTreeMap::from([("Zoo".to_owned(), 10)]);
        Self { cash: [10_000; 3], stocks: [zoos(), zoos(), zoos()], orders: vec![], trades: 0 }
    }

    fn open_orders(&self, who: usize) -> impl Iterator<Item = &Noted> {
        self.orders.iter().filter(move |noted| noted.owner == who && noted.status == Open)
    }

    fn reserved_cash(&self, who: usize) -> u64 {
        let bids = self.open_orders(who).filter(|noted| noted.order.side == Buy);
        bids.map(|noted| noted.left * noted.order.price.unwrap().cents()).sum()
    }

    fn reserved(&self, who: usize, name: &str) -> u64 {
        let asks = self.open_orders(who).filter(|n| n.order.side == Sell && n.order.symbol.as_str() == name);
        asks.map(|noted| noted.left).sum()
    }

    fn owned(&self, who: usize, name: &str) -> u64 {
        self.stocks[who].get(name).copied().unwrap_or(0)
    }

    /// The open order that an order of that side meets first.
    fn best(&self, incoming: &NewOrder) -> Option<usize> {
        let facing = self.orders.iter().enumerate().filter(|(_, noted)| {
            let order = &noted.order;
            noted.status == Open && order.symbol == incoming.symbol && order.side != incoming.side
        });
        facing
            .min_by_key(|(_, noted)| {
                let cents = i128::from(noted.order.price.unwrap().cents());
                (if incoming.side == Buy { cents } else { -cents }, noted.number)
            })
            .map(|(index, _)| index)
    }

    fn place(&mut self, who: usize, order: &NewOrder, number: u64) -> Result<Noted, Refusal> {
        let (name, count) = (order.symbol.as_str(), order.quantity.get());
        let free_cash = self.cash[who] - self.reserved_cash(who);
        match (order.side, order.price) {
            (Buy, Some(price)) if u128::from(price.cents()) * u128::from(count) > u128::from(free_cash) => {
                return Err(Refusal::InsufficientFunds);
            }
            (Sell, _) if count > self.owned(who, name) - self.reserved(who, name) => {
                return Err(Refusal::InsufficientStocks);
            }
            _ => {}
        }
        let before = self.clone();
        let mut noted = Noted { owner: who, order: order.clone(), left: count, status: Open, fills: vec![], number };
        let met_itself = self.trade(&mut noted);
        if order.time_in_force == Fok && noted.left > 0 {
            *self = before;
            (noted.left, noted.fills) = (count, vec![]);
        } else if order.post_only && !noted.fills.is_empty() {
            *self = before;
            return Err(Refusal::WouldCross);
        }
        noted.status = match (noted.left, order.price, order.time_in_force) {
            (0, ..) => Filled,
            (_, Some(_), Gtc) if !met_itself => Open,
            _ => Cancelled,
        };
        self.orders.push(noted.clone());
        Ok(noted)
    }

    /// Whether the order met one of its own account.
    fn trade(&mut self, noted: &mut Noted) -> bool {
        let who = noted.owner;
        while let Some(index) = self.best(&noted.order).filter(|_| noted.left > 0) {
            let maker = self.orders[index].clone();
            let price = maker.order.price.unwrap();
            let crosses = noted.order.price.is_none_or(|limit| match noted.order.side {
                Buy => limit >= price,
                Sell => limit <= price,
            });
            if !crosses || maker.owner == who {
                return crosses;
            }
            // One by one, as long as there is money.
            let free = self.cash[who] - self.reserved_cash(who);
            let pays = noted.order.side == Buy && noted.order.price.is_none();
            let affordable = if pays { free / price.cents() } else { u64::MAX };
            let taken = noted.left.min(maker.left).min(affordable);
            if taken == 0 {
                return false;
            }
            self.trades += 1;
            let fill = Fill { trade: TradeNumber(self.trades), price, quantity: quantity(taken) };
            let (buyer, seller) = if noted.order.side == Buy { (who, maker.owner) } else { (maker.owner, who) };
            self.cash[buyer] -= price.cents() * taken;
            self.cash[seller] += price.cents() * taken;
            *self.stocks[buyer].entry(noted.order.symbol.as_str().to_owned()).or_default() += taken;
            *self.stocks[seller].entry(noted.order.symbol.as_str().to_owned()).or_default() -= taken;
            for order in [&mut self.orders[index], noted] {
                order.left -= taken;
                order.fills.push(fill);
            }
            if self.orders[index].left == 0 {
                self.orders[index].status = Filled;
            }
            if taken == affordable && noted.left > 0 && self.orders[index].left > 0 {
                return false;
            }
        }
        false
    }

    fn carry_out(&mut self, who: usize, instruction: &Instruction, number: u64) -> Result<(), Refusal> {
        match instruction {
            Instruction::Deposit(Asset::Cash(cash)) => self.cash[who] += cash.cents(),
            Instruction::Deposit(Asset::Stock(symbol, count)) => {
                *self.stocks[who].entry(symbol.as_str().to_owned()).or_default() += count.get();
            }
            Instruction::Withdraw(Asset::Cash(cash)) => {
                if cash.cents() > self.cash[who] - self.reserved_cash(who) {
                    return Err(Refusal::InsufficientFunds);
                }
                self.cash[who] -= cash.cents();
            }
            Instruction::Withdraw(Asset::Stock(symbol, count)) => {
                let name = symbol.as_str();
                if count.get() > self.owned(who, name) - self.reserved(who, name) {
                    return Err(Refusal::InsufficientStocks);
                }
                *self.stocks[who].get_mut(name).unwrap() -= count.get();
            }
            Instruction::Place(order) => drop(self.place(who, order, number)?),
            Instruction::Cancel(wanted) => {
                let found = self.orders.iter_mut().find(|noted| noted.number == wanted.0 && noted.owner == who);
                let found = found.ok_or(Refusal::UnknownOrder)?;
                if found.status != Open {
                    return Err(Refusal::OrderDone);
                }
                found.status = Cancelled;
            }
        }
        Ok(())
    }

    fn page(&self, who: usize, page: &Page) -> Vec<u64> {
        let wanted = |noted: &&Noted| {
            noted.owner == who
                && page.before.is_none_or(|before| noted.number < before.0)
                && page.status.is_none_or(|status| noted.status == status)
        };
        self.orders.iter().rev().filter(wanted).take(page.limit).map(|noted| noted.number).collect()
    }

    fn balance(&self, who: usize) -> Balance {
        let holding = |(name, owned): (&String, &u64)| Holding {
            symbol: symbol(name),
            quantity: quantity(*owned),
            reserved: quantity(self.reserved(who, name)),
        };
        Balance {
            account: account(PEOPLE[who]),
            cash: Cash::from_cents(self.cash[who]).unwrap(),
            reserved_cash: Cash::from_cents(self.reserved_cash(who)).unwrap(),
            holdings: self.stocks[who].iter().filter(|(_, owned)| **owned > 0).map(holding).collect(),
        }
    }

    fn levels(&self, name: &str, side: Side) -> Levels {
        let mut levels: BTreeMap<u64, u64> = BTreeMap::new();
        for noted in self.orders.iter().filter(|noted| noted.status == Open && noted.order.side == side) {
            if noted.order.symbol.as_str() == name {
                *levels.entry(noted.order.price.unwrap().cents()).or_default() += noted.left;
            }
        }
        let levels = levels.into_iter();
        if side == Buy { levels.rev().collect() } else { levels.collect() }
    }
}

fn compare(desk: &Desk, model: &Model) {
    for (who, name) in PEOPLE.iter().enumerate() {
        assert_eq!(desk.balance(name), model.balance(who));
        let orders = desk.orders(name, Page { status: None, limit: 500, before: None });
        let noted: Vec<_> = model.orders.iter().rev().filter(|noted| noted.owner == who).collect();
        assert_eq!(orders.len(), noted.len());
        for (order, noted) in orders.iter().zip(noted) {
            let filled = noted.order.quantity.get() - noted.left;
            assert_eq!(short(order), (noted.number, filled, noted.status));
            assert_eq!((&order.fills, order.price), (&noted.fills, noted.order.price));
        }
    }
    for name in STOCKS {
        let book = desk.exchange.book(&symbol(name), 500).unwrap();
        for (shown, side) in [(&book.bids, Buy), (&book.asks, Sell)] {
            let shown: Vec<_> = shown.iter().map(|level| (level.0.cents(), level.1.get())).collect();
            assert_eq!(shown, model.levels(name, side));
        }
    }
    let trades: usize = STOCKS.iter().map(|name| desk.exchange.trades(&symbol(name), 500).unwrap().len()).sum();
    assert_eq!(trades as u64, model.trades);
}

fn any_instruction() -> impl Strategy<Value = Instruction> {
    let side = prop_oneof![Just(Buy), Just(Sell)];
    let cents = prop_oneof![6 => (280..320_u64).prop_map(Some), 1 => Just(None)];
    let force = prop_oneof![6 => Just(Gtc), 1 => Just(Ioc), 1 => Just(Fok)];
    let name = prop_oneof![4 => Just("Zoo"), 1 => Just("Max")];
    let place = (name, side, 1..6_u64, cents, force, prop::bool::weighted(0.1)).prop_map(
        |(name, side, count, cents, time_in_force, post_only)| {
            Instruction::Place(NewOrder { time_in_force, post_only, ..order(name, side, count, cents) })
        },
    );
    let asset = prop_oneof![(1..3_000_u64).prop_map(cents_of), (1..6_u64).prop_map(|count| some("Zoo", count))];
    prop_oneof![
        20 => place,
        6 => (1..60_u64).prop_map(|number| Instruction::Cancel(OrderNumber(number))),
        1 => asset.clone().prop_map(Instruction::Deposit),
        2 => asset.prop_map(Instruction::Withdraw),
    ]
}

fn any_page() -> impl Strategy<Value = Page> {
    let status =
        prop_oneof![3 => Just(None), 1 => Just(Some(Open)), 1 => Just(Some(Filled)), 1 => Just(Some(Cancelled))];
    let before = prop_oneof![1 => Just(None), 2 => (0..60_u64).prop_map(|number| Some(OrderNumber(number)))];
    (status, 0..12_usize, before).prop_map(|(status, limit, before)| Page { status, limit, before })
}

fn cents_of(count: u64) -> Asset {
    cents(count)
}

proptest! {
    #[test]
    fn it_trades_as_the_model_does(
        steps in prop::collection::vec((0..3_usize, any_instruction()), 0..80),
        kept in 0..20_usize,
        page in any_page(),
    ) {
        let (mut desk, mut model) = (Desk::keeping(kept), Model::open());
        for (who, instruction) in steps {
            let number = desk.exchange.orders() + 1;
            let expected = model.carry_out(who, &instruction, number);
            let found = desk.ask(PEOPLE[who], instruction.clone());
            prop_assert_eq!(found.map(drop), expected, "{:?}", instruction);
            desk.state();
            compare(&desk, &model);
            let numbers: Vec<_> = desk.orders(PEOPLE[who], page.clone()).iter().map(|order| order.number.0).collect();
            let expected = model.page(who, &page);
            prop_assert!(expected.starts_with(&numbers) && numbers.is_empty() == expected.is_empty(), "{:?}", page);
        }
        let (leader, digest) = (Leader { id: ReplicaId::new(1).unwrap(), boot: Boot(1) }, desk.exchange.digest());
        desk.enter(None, vec![Event::EpochStart { leader, digest }]);
        prop_assert_eq!(desk.exchange.applied() > SeqNum(0), true);
    }
}
