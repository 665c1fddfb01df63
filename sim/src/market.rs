//! Accounts and books a second time, by naive code: lists that are searched from end to end, and every version kept.
//!
//! Problem: what clients are told of accounts, orders and books has to be compared with something else than the code that
//! told it.
//! Idea: an entry's deeds, as plain text and numbers, are done again: what an order has to meet is found by looking at all
//! orders that rest, and must be what the entry says. What anybody can ask for is kept in all its versions, so that an answer
//! has a span of entries in which it was true.
//! Rule kept: nothing of `tradenet_core::exchange` is used. Fed by [`crate::invariants::Truth`] with entries as core has
//! them, and by [`crate::ledger`] with lines of a journal.

use std::collections::{BTreeMap, BTreeSet};

use tradenet_schemas::account::{
    AccountAnswer, AccountOrder, AccountQuery, Balance, Book, OrderStatus, Page, TimeInForce, Trade,
};
use tradenet_schemas::message::{Answer, Query};
use tradenet_schemas::trade::Side;

/// A page may end early where an account has so many statements.
const EARLY: usize = 32;

/// What a check says.
pub type Finding = Result<(), String>;
/// From which entry on something was so, and until before which, if it changed since.
pub type Span = (u64, Option<u64>);

/// What an entry does, in plain words and numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// An account is opened.
    Open {
        /// Its name.
        account: String,
    },
    /// Something is brought in, or taken out.
    Move {
        /// Whose.
        account: String,
        /// Which stock; money, if none.
        stock: Option<String>,
        /// How many.
        amount: u64,
        /// Which way.
        inwards: bool,
    },
    /// An order is placed.
    Place(Ordered),
    /// It meets one that rests.
    Match {
        /// The trade's number.
        trade: u64,
        /// The order that rests.
        maker: u64,
        /// At which price.
        price: u64,
        /// How many.
        quantity: u64,
    },
    /// What is left of an order is cancelled.
    Cancel {
        /// Which.
        order: u64,
        /// How many are left.
        quantity: u64,
    },
    /// Orders that are done are said once more.
    State {
        /// Whose they are.
        account: String,
        /// What leads to its earlier statements.
        earlier: Vec<Earlier>,
        /// The orders.
        orders: Vec<Stated>,
    },
}

/// Statements of an account in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Earlier {
    /// How many.
    pub count: u64,
    /// The entry with the newest.
    pub newest: u64,
    /// The lowest and the highest number of an order in them.
    pub orders: (u64, u64),
    /// Whether any of those was filled, and whether any was cancelled.
    pub any: (bool, bool),
}

/// An order that is done, as a statement has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stated {
    /// Its number.
    pub number: u64,
    /// Of what.
    pub symbol: String,
    /// Which way.
    pub buys: bool,
    /// How many.
    pub quantity: u64,
    /// The worst price.
    pub price: Option<u64>,
    /// How it was to be filled.
    pub patience: Patience,
    /// How many trades it had when it came to rest, if it did.
    pub rested_after: Option<u64>,
    /// How many were left, and cancelled.
    pub cancelled: u64,
    /// Trade, price, how many.
    pub fills: Vec<(u64, u64, u64)>,
}

/// How an order is to be filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// It rests.
    Rests,
    /// At once, as far as that goes.
    AtOnce,
    /// At once and whole.
    WholeAtOnce,
}

impl Patience {
    /// The same in the words of orders.
    pub fn of(time_in_force: TimeInForce) -> Self {
        match time_in_force {
            TimeInForce::Gtc => Self::Rests,
            TimeInForce::Ioc => Self::AtOnce,
            TimeInForce::Fok => Self::WholeAtOnce,
        }
    }
}

/// An order of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ordered {
    /// Its number.
    pub number: u64,
    /// Whose it is.
    pub account: String,
    /// Of what.
    pub symbol: String,
    /// Which way.
    pub buys: bool,
    /// How many.
    pub quantity: u64,
    /// The worst price.
    pub price: Option<u64>,
    /// How long it waits.
    pub patience: Patience,
    /// It must not trade at once.
    pub post_only: bool,
    /// How many are left of it.
    pub left: u64,
    /// Nothing more happens to it.
    pub done: bool,
    /// Trade, price, how many.
    pub fills: Vec<(u64, u64, u64)>,
}

/// What an account has.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Holder {
    cash: u64,
    stocks: BTreeMap<String, u64>,
    reserved_cash: u64,
    reserved: BTreeMap<String, u64>,
}

/// Both sides of a book: price and how many, best first.
type Levels = (Vec<(u64, u64)>, Vec<(u64, u64)>);

/// A trade: its number, price, how many, whether the taker bought.
type Traded = (u64, u64, u64, bool);

/// Something in all its versions, each with the entry that made it so.
#[derive(Clone, Debug)]
struct Versions<T>(Vec<(u64, T)>);

impl Ordered {
    fn status(&self) -> OrderStatus {
        match (self.done, self.left) {
            (false, _) => OrderStatus::Open,
            (true, 0) => OrderStatus::Filled,
            (true, _) => OrderStatus::Cancelled,
        }
    }

    fn is_shown_as(&self, account: &str, shown: &AccountOrder) -> bool {
        let fills = shown.fills.iter().map(|fill| (fill.trade.0, fill.price.cents(), fill.quantity.get()));
        self.number == shown.number.0
            && self.account == account
            && self.symbol == shown.symbol.as_str()
            && (self.buys, self.quantity) == (shown.side == Side::Buy, shown.quantity.get())
            && self.price == shown.price.map(|price| price.cents())
            && self.patience == Patience::of(shown.time_in_force)
            && (self.status(), self.quantity - self.left) == (shown.status, shown.filled.get())
            && fills.eq(self.fills.iter().copied())
    }
}

impl<T: PartialEq> Versions<T> {
    /// As it was behind that entry.
    fn at(&self, seq: u64) -> Option<&T> {
        let behind = self.0.partition_point(|(since, _)| *since <= seq);
        self.0[..behind].last().map(|(_, value)| value)
    }
    fn last(&self) -> Option<&T> {
        self.0.last().map(|(_, value)| value)
    }
    fn push(&mut self, seq: u64, value: T) {
        match self.0.last_mut() {
            Some((last, old)) if *last == seq => *old = value,
            Some((_, old)) if *old == value => {}
            _ => self.0.push((seq, value)),
        }
    }
    /// The first span that reaches behind `from` in which it was so.
    fn find(&self, from: u64, is_so: impl Fn(u64, &T) -> bool) -> Option<Span> {
        // A span reaches behind `from` from the last one on that does not begin behind it.
        let first = self.0.partition_point(|(seq, _)| *seq <= from).saturating_sub(1);
        let mut reached = self.0.iter().enumerate().skip(first).map(|(index, (seq, value))| {
            let until = self.0.get(index + 1).map(|(next, _)| *next);
            (*seq, until, value)
        });
        reached.find(|(seq, _, value)| is_so(*seq, value)).map(|(seq, until, _)| (seq, until))
    }
}

impl<T> Default for Versions<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What an order that rests still wants.
#[derive(Clone, Debug)]
struct Resting {
    number: u64,
    account: String,
    symbol: String,
    buys: bool,
    price: u64,
    left: u64,
}

/// All accounts, orders, books and trades, as they were at any time.
#[derive(Clone, Default, Debug)]
pub struct Market {
    holders: BTreeMap<String, Versions<Holder>>,
    orders: BTreeMap<u64, Versions<Ordered>>,
    /// Those that rest as they are now, oldest first.
    resting: Vec<Resting>,
    books: BTreeMap<String, Versions<Levels>>,
    /// By stock, each with its entry.
    trades: BTreeMap<String, Vec<(u64, Traded)>>,
    traded: u64,
    /// What was brought in and not taken out: money, and each stock.
    brought: BTreeMap<Option<String>, u64>,
    /// Each account's statements, one by one.
    statements: BTreeMap<String, Vec<Earlier>>,
    /// The orders in them.
    stated: BTreeSet<u64>,
}

impl Market {
    /// Does an entry's deeds, and compares them with what the rules say.
    ///
    /// # Errors
    /// They are not what an order of its kind does, or something is made or lost.
    pub fn take(&mut self, seq: u64, deeds: &[Deed]) -> Finding {
        match deeds {
            [] => return Ok(()),
            [Deed::Open { account }] => {
                // An account that has done nothing may be opened again.
                let known = self.holders.entry(account.clone()).or_default();
                if known.0.len() > 1 {
                    return Err(format!("{account} is opened again"));
                }
                known.push(seq, Holder::default());
            }
            [Deed::Move { account, stock, amount, inwards }] => {
                self.moves(seq, account, stock.as_ref(), *amount, *inwards)?;
            }
            [Deed::Cancel { order, quantity }] => self.cancels(seq, *order, *quantity)?,
            [Deed::Place(order), rest @ ..] => self.places(seq, order, rest)?,
            [Deed::State { account, earlier, orders }] => self.states(seq, account, earlier, orders)?,
            other => return Err(format!("no command does {other:?}")),
        }
        let symbol = match deeds {
            [Deed::Move { stock, .. }] => stock.as_deref(),
            [Deed::Place(order), ..] => Some(order.symbol.as_str()),
            _ => None,
        };
        self.conserves(symbol)
    }

    fn holder(&self, account: &str) -> Result<&Holder, String> {
        self.holders.get(account).and_then(Versions::last).ok_or_else(|| format!("there is no account {account}"))
    }

    fn order(&self, number: u64) -> Option<&Ordered> {
        self.orders.get(&number).and_then(Versions::last)
    }

    fn moves(&mut self, seq: u64, account: &str, stock: Option<&String>, amount: u64, inwards: bool) -> Finding {
        let mut holder = self.holder(account)?.clone();
        let sum = self.brought.entry(stock.cloned()).or_default();
        let (owned, reserved) = match stock {
            None => (&mut holder.cash, holder.reserved_cash),
            Some(name) => {
                let reserved = holder.reserved.get(name).copied().unwrap_or(0);
                (holder.stocks.entry(name.clone()).or_default(), reserved)
            }
        };
        if inwards {
            (*owned, *sum) = (*owned + amount, *sum + amount);
        } else {
            let left = owned.checked_sub(amount).filter(|left| *left >= reserved);
            *owned = left.ok_or_else(|| format!("{account} takes out {amount}, which it does not have free"))?;
            *sum -= amount;
        }
        self.keep(seq, account, holder);
        Ok(())
    }

    /// What the order has to meet, by looking at all that rest: which, at what price, how many; and whether it met its own.
    fn meets(&self, order: &Ordered, mut money: u64) -> (Vec<(u64, u64, u64)>, u64, bool) {
        let (mut met, mut left) = (Vec::new(), order.quantity);
        let faces = |other: &&Resting| other.symbol == order.symbol && other.buys != order.buys;
        let mut resting: Vec<&Resting> = self.resting.iter().filter(faces).collect();
        // The sort keeps the order of those with equal prices, which is that of their coming.
        resting.sort_by_key(|other| if order.buys { other.price } else { u64::MAX - other.price });
        for other in resting {
            let price = other.price;
            let crosses = order.price.is_none_or(|limit| if order.buys { limit >= price } else { limit <= price });
            if left == 0 || !crosses {
                break;
            }
            if other.account == order.account {
                return (met, left, true);
            }
            let wanted = left.min(other.left);
            let taken = if order.buys && order.price.is_none() { wanted.min(money / price.max(1)) } else { wanted };
            if taken > 0 {
                met.push((other.number, price, taken));
                left -= taken;
                money = money.saturating_sub(taken * price);
            }
            if taken < wanted {
                break;
            }
        }
        (met, left, false)
    }

    fn places(&mut self, seq: u64, order: &Ordered, rest: &[Deed]) -> Finding {
        let holder = self.holder(&order.account)?;
        if needs(order) > free(holder, order) {
            return Err(format!("{} can't cover {order:?}", order.account));
        }
        let (mut met, mut left, itself) = self.meets(order, holder.cash - holder.reserved_cash);
        if order.patience == Patience::WholeAtOnce && left > 0 {
            (met, left) = (Vec::new(), order.quantity);
        }
        if order.post_only && !met.is_empty() {
            return Err(format!("trades at once, and was not to: {order:?}"));
        }
        let waits = order.price.is_some() && order.patience == Patience::Rests && !itself;
        let mut expected: Vec<Deed> = Vec::new();
        for (trade, (maker, price, quantity)) in (self.traded + 1..).zip(&met) {
            expected.push(Deed::Match { trade, maker: *maker, price: *price, quantity: *quantity });
        }
        if left > 0 && !waits {
            expected.push(Deed::Cancel { order: order.number, quantity: left });
        }
        if expected != rest {
            return Err(format!("{order:?} has to do {expected:?}, and does {rest:?}"));
        }
        self.orders.entry(order.number).or_default().push(seq, order.clone());
        self.trades(seq, order, &met)?;
        if let Some(price) = order.price.filter(|_| left > 0 && waits) {
            let (account, symbol) = (order.account.clone(), order.symbol.clone());
            self.resting.push(Resting { number: order.number, account, symbol, buys: order.buys, price, left });
        } else {
            self.changes(seq, order.number, |placed| placed.done = true);
        }
        self.touched(seq, order.number, &met)
    }

    fn trades(&mut self, seq: u64, order: &Ordered, met: &[(u64, u64, u64)]) -> Finding {
        for (maker, price, quantity) in met {
            self.traded += 1;
            let fill = (self.traded, *price, *quantity);
            let seller_of = |number| self.order(number).map(|order| order.account.clone()).unwrap_or_default();
            let other = seller_of(*maker);
            let (buyer, seller) = if order.buys { (&order.account, &other) } else { (&other, &order.account) };
            let (mut pays, mut gives) = (self.holder(buyer)?.clone(), self.holder(seller)?.clone());
            let money = price * quantity;
            let short = |what: &str| format!("trade {}: {what} is not there", fill.0);
            pays.cash = pays.cash.checked_sub(money).ok_or_else(|| short("the money"))?;
            gives.cash += money;
            *pays.stocks.entry(order.symbol.clone()).or_default() += quantity;
            let stocks = gives.stocks.entry(order.symbol.clone()).or_default();
            *stocks = stocks.checked_sub(*quantity).ok_or_else(|| short("the stock"))?;
            let (buyer, seller) = (buyer.clone(), seller.clone());
            self.keep(seq, &buyer, pays);
            self.keep(seq, &seller, gives);
            for number in [*maker, order.number] {
                self.changes(seq, number, |order| {
                    order.left -= quantity;
                    order.fills.push(fill);
                    order.done = order.left == 0;
                });
            }
            let kept = (fill.0, *price, *quantity, order.buys);
            self.trades.entry(order.symbol.clone()).or_default().push((seq, kept));
        }
        Ok(())
    }

    fn cancels(&mut self, seq: u64, number: u64, quantity: u64) -> Finding {
        let order = self.order(number).filter(|order| !order.done && order.left == quantity);
        order.ok_or_else(|| format!("order {number} has no rest of {quantity} to cancel"))?;
        self.changes(seq, number, |order| order.done = true);
        self.touched(seq, number, &[])
    }

    fn states(&mut self, seq: u64, account: &str, earlier: &[Earlier], orders: &[Stated]) -> Finding {
        let statements = self.statements.get(account).map_or(&[][..], Vec::as_slice);
        // The next makes one group of those whose digits are carried when one is added to their number.
        let groups = in_groups(statements);
        let carried = &groups[groups.len() - (statements.len() + 1).trailing_zeros() as usize..];
        if earlier != carried {
            return Err(format!("{account} has the statements {groups:?}, and the next leads to {earlier:?}"));
        }
        for stated in orders {
            let number = stated.number;
            let versions = self.orders.get(&number).ok_or_else(|| format!("there is no order {number}"))?;
            let (first, last) = (versions.0.first(), versions.last());
            let (Some((_, first)), Some(last)) = (first, last.filter(|last| last.done && last.account == account))
            else {
                return Err(format!("order {number} is not done, or not of {account}"));
            };
            let is_so = Stated {
                number,
                symbol: last.symbol.clone(),
                buys: last.buys,
                quantity: last.quantity,
                price: last.price,
                patience: last.patience,
                rested_after: (!first.done).then_some(first.fills.len() as u64),
                cancelled: last.left,
                fills: last.fills.clone(),
            };
            if *stated != is_so {
                return Err(format!("{is_so:?} is stated as {stated:?}"));
            }
            if !self.stated.insert(number) {
                return Err(format!("order {number} is stated twice"));
            }
        }
        let numbers = || orders.iter().map(|order| order.number);
        let (Some(lowest), Some(highest)) = (numbers().min(), numbers().max()) else {
            return Err(format!("nothing is stated of {account}"));
        };
        let any = |whole| orders.iter().any(|order| (order.cancelled == 0) == whole);
        let own = Earlier { count: 1, newest: seq, orders: (lowest, highest), any: (any(true), any(false)) };
        self.statements.entry(account.to_owned()).or_default().push(own);
        Ok(())
    }

    fn changes(&mut self, seq: u64, number: u64, change: impl FnOnce(&mut Ordered)) {
        if let Some(mut order) = self.order(number).cloned() {
            change(&mut order);
            if order.done {
                self.resting.retain(|other| other.number != number);
            } else if let Some(other) = self.resting.iter_mut().find(|other| other.number == number) {
                other.left = order.left;
            }
            self.orders.entry(number).or_default().push(seq, order);
        }
    }

    /// An order and those that it met have changed: so have their accounts' reserves, and the book.
    fn touched(&mut self, seq: u64, number: u64, met: &[(u64, u64, u64)]) -> Finding {
        let numbers = met.iter().map(|(maker, ..)| *maker).chain([number]);
        let accounts: BTreeSet<_> = numbers.filter_map(|n| self.order(n)).map(|order| order.account.clone()).collect();
        for account in accounts {
            let holder = self.holder(&account)?.clone();
            self.keep(seq, &account, holder);
            self.covers(&account)?;
        }
        let Some(symbol) = self.order(number).map(|order| order.symbol.clone()) else { return Ok(()) };
        let levels = self.levels(&symbol);
        let book = self.books.entry(symbol).or_default();
        if book.last().is_some() || levels != Levels::default() {
            book.push(seq, levels);
        }
        Ok(())
    }

    fn levels(&self, symbol: &str) -> Levels {
        let (mut bids, mut asks) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
        for order in self.resting.iter().filter(|order| order.symbol == symbol) {
            *(if order.buys { &mut bids } else { &mut asks }).entry(order.price).or_default() += order.left;
        }
        (bids.into_iter().rev().collect(), asks.into_iter().collect())
    }

    /// A new version of what an account has, with its reserves counted anew.
    fn keep(&mut self, seq: u64, account: &str, mut holder: Holder) {
        holder.stocks.retain(|_, count| *count > 0);
        (holder.reserved_cash, holder.reserved) = (0, BTreeMap::new());
        for order in self.resting.iter().filter(|order| order.account == account) {
            match order.buys {
                true => holder.reserved_cash += order.price * order.left,
                false => *holder.reserved.entry(order.symbol.clone()).or_default() += order.left,
            }
        }
        self.holders.entry(account.to_owned()).or_default().push(seq, holder);
    }

    /// Nobody reserves what it does not have.
    fn covers(&self, account: &str) -> Finding {
        let holder = self.holder(account)?;
        let covered = |(name, count): (&String, &u64)| holder.stocks.get(name).is_some_and(|owned| owned >= count);
        match holder.reserved_cash <= holder.cash && holder.reserved.iter().all(covered) {
            true => Ok(()),
            false => Err(format!("{account} reserves what it does not have: {holder:?}")),
        }
    }

    /// Of the money, and of the stock that was in hand, nothing is made or lost.
    fn conserves(&self, symbol: Option<&str>) -> Finding {
        let holders = || self.holders.values().filter_map(Versions::last);
        let cash: u64 = holders().map(|holder| holder.cash).sum();
        self.is_what_was_brought(&None, cash)?;
        let Some(symbol) = symbol else { return Ok(()) };
        let count: u64 = holders().filter_map(|holder| holder.stocks.get(symbol)).sum();
        self.is_what_was_brought(&Some(symbol.to_owned()), count)
    }

    fn is_what_was_brought(&self, asset: &Option<String>, sum: u64) -> Finding {
        let brought = self.brought.get(asset).copied().unwrap_or(0);
        if brought == sum { Ok(()) } else { Err(format!("of {asset:?} there is {sum}, and {brought} was brought in")) }
    }

    // ------------------------------------------------------------ when something was so

    /// The first span that reaches behind entry `from` in which that was the right answer.
    ///
    /// # Errors
    /// It never was since.
    pub fn when(&self, query: &Query, answer: &Answer, from: u64) -> Result<Span, String> {
        let found = match (query, answer) {
            (Query::Account(caller, query), Answer::Account(answer)) => {
                self.when_account(caller.account.as_str(), query, answer, from)
            }
            (Query::Book(symbol, depth), Answer::Book(Some(book))) => {
                self.when_book(symbol.as_str(), *depth, book, from)
            }
            (Query::Trades(symbol, limit), Answer::Trades(Some(trades))) => {
                self.when_trades(symbol.as_str(), *limit, trades)
            }
            _ => None,
        };
        found.ok_or_else(|| format!("{query:?} was answered with {answer:?}, which was never so since entry {from}"))
    }

    fn when_account(&self, account: &str, query: &AccountQuery, answer: &AccountAnswer, from: u64) -> Option<Span> {
        match (query, answer) {
            (AccountQuery::Balance, AccountAnswer::Balance(balance)) => self.when_balance(account, balance, from),
            (AccountQuery::Order(number), AccountAnswer::Order(Some(order))) if order.number == *number => {
                self.when_order(account, order, from)
            }
            (AccountQuery::Order(number), AccountAnswer::Order(None)) => match self.orders.get(&number.0) {
                Some(versions) if versions.last().is_some_and(|order| order.account == account) => {
                    versions.0.first().map(|(seq, _)| (0, Some(*seq)))
                }
                _ => Some((0, None)),
            },
            (AccountQuery::Orders(page), AccountAnswer::Orders(shown)) => self.when_listed(account, page, shown, from),
            _ => None,
        }
    }

    /// When an account had that.
    pub fn when_balance(&self, account: &str, balance: &Balance, from: u64) -> Option<Span> {
        let is_so = |_, holder: &Holder| {
            let shown = balance.holdings.iter().map(|h| (h.symbol.as_str(), h.quantity.get(), h.reserved.get()));
            let reserved = |name: &String| holder.reserved.get(name).copied().unwrap_or(0);
            let held = holder.stocks.iter().map(|(name, count)| (name.as_str(), *count, reserved(name)));
            balance.account.as_str() == account
                && (holder.cash, holder.reserved_cash) == (balance.cash.cents(), balance.reserved_cash.cents())
                && held.eq(shown)
        };
        self.holders.get(account)?.find(from, is_so)
    }

    /// When an order of that account was like that.
    pub fn when_order(&self, account: &str, shown: &AccountOrder, from: u64) -> Option<Span> {
        self.orders.get(&shown.number.0)?.find(from, |_, order| order.is_shown_as(account, shown))
    }

    /// When those were the account's newest orders of that kind, each of them like that; fewer than were asked for, perhaps, but not
    /// none of some.
    fn when_listed(&self, account: &str, page: &Page, shown: &[AccountOrder], from: u64) -> Option<Span> {
        let below = page.before.map_or(u64::MAX, |before| before.0);
        let all = self.orders.range(..below).rev().map(|(_, versions)| versions);
        let own: Vec<_> = all.filter(|all| all.last().is_some_and(|order| order.account == account)).collect();
        let changes = own.iter().flat_map(|versions| versions.0.iter().map(|(seq, _)| *seq));
        let mut times: Vec<_> = changes.filter(|seq| *seq > from).chain([from]).collect();
        times.sort_unstable();
        times.dedup();
        let was_so = |seq: u64| {
            let then = own.iter().filter_map(|versions| versions.at(seq));
            let mut then =
                then.filter(|order| page.status.is_none_or(|status| order.status() == status)).take(page.limit);
            let each = shown.iter().all(|shown| then.next().is_some_and(|order| order.is_shown_as(account, shown)));
            let may_end_early = !shown.is_empty() && self.statements.get(account).is_some_and(|all| all.len() >= EARLY);
            each && (may_end_early || then.next().is_none())
        };
        let at = times.iter().position(|seq| was_so(*seq))?;
        Some((times[at], times.get(at + 1).copied()))
    }

    fn when_book(&self, symbol: &str, depth: usize, shown: &Book, from: u64) -> Option<Span> {
        let side = |levels: &[tradenet_schemas::account::Level]| -> Vec<(u64, u64)> {
            levels.iter().map(|level| (level.0.cents(), level.1.get())).collect()
        };
        let (bids, asks) = (side(&shown.bids), side(&shown.asks));
        let first = |side: &Vec<(u64, u64)>| side.iter().take(depth).copied().collect::<Vec<_>>();
        let versions = self.books.get(symbol).filter(|_| shown.sequence.0 > 0);
        let Some(versions) = versions else {
            let begins = self.books.get(symbol).and_then(|versions| versions.0.first()).map(|(seq, _)| *seq);
            return (bids.is_empty() && asks.is_empty()).then_some((0, begins));
        };
        versions
            .find(from, |seq, levels| seq == shown.sequence.0 && first(&levels.0) == bids && first(&levels.1) == asks)
    }

    fn when_trades(&self, symbol: &str, limit: usize, shown: &[Trade]) -> Option<Span> {
        let known: &[_] = self.trades.get(symbol).map_or(&[], Vec::as_slice);
        let newest = shown.first().map(|trade| trade.number.0);
        let end = match newest {
            None => 0,
            Some(newest) => known.iter().position(|(_, trade)| trade.0 == newest)? + 1,
        };
        let expected = known[..end].iter().rev().take(limit).map(|(_, trade)| *trade);
        let shown = shown.iter().map(|t| (t.number.0, t.price.cents(), t.quantity.get(), t.side == Side::Buy));
        let from = end.checked_sub(1).map_or(0, |last| known[last].0);
        // All trades of one entry are shown at once.
        let until = known.get(end).map(|(seq, _)| *seq);
        (expected.eq(shown) && until != Some(from)).then_some((from, until))
    }

    /// The entry that placed an order.
    pub fn placed_at(&self, number: u64) -> Option<u64> {
        self.orders.get(&number)?.0.first().map(|(seq, _)| *seq)
    }

    /// When the account's free money was below that.
    pub fn when_poorer(&self, account: &str, cents: u64, from: u64) -> Option<Span> {
        self.holders.get(account)?.find(from, |_, holder| holder.cash - holder.reserved_cash < cents)
    }

    /// When the account had fewer of a stock free.
    pub fn when_fewer(&self, account: &str, symbol: &str, count: u64, from: u64) -> Option<Span> {
        let free = |holder: &Holder| {
            let of = |all: &BTreeMap<String, u64>| all.get(symbol).copied().unwrap_or(0);
            of(&holder.stocks) - of(&holder.reserved)
        };
        self.holders.get(account)?.find(from, |_, holder| free(holder) < count)
    }

    /// When an order with that limit would have met another.
    pub fn when_crossed(&self, symbol: &str, buys: bool, limit: u64, from: u64) -> Option<Span> {
        self.books.get(symbol)?.find(from, |_, (bids, asks)| match buys {
            true => asks.first().is_some_and(|(price, _)| *price <= limit),
            false => bids.first().is_some_and(|(price, _)| *price >= limit),
        })
    }

    /// When that order of the account was done.
    pub fn when_done(&self, account: &str, number: u64, from: u64) -> Option<Span> {
        self.orders.get(&number)?.find(from, |_, order| order.account == account && order.done)
    }

    /// When there was such an account.
    pub fn when_taken(&self, account: &str, from: u64) -> Option<Span> {
        self.holders.get(account)?.find(from, |_, _| true)
    }

    /// Whether the order is of another account, or there is none of that number.
    pub fn is_not_of(&self, account: &str, number: u64) -> bool {
        self.order(number).is_none_or(|order| order.account != account)
    }
}

/// The same statements as a later one refers to them: in groups whose sizes are the binary digits of their number.
fn in_groups(mut statements: &[Earlier]) -> Vec<Earlier> {
    let mut groups = Vec::new();
    while let Some(digit) = statements.len().checked_ilog2() {
        let (group, rest) = statements.split_at(1 << digit);
        let orders = group.iter().fold((u64::MAX, 0), |all, one| (all.0.min(one.orders.0), all.1.max(one.orders.1)));
        let any = (group.iter().any(|one| one.any.0), group.iter().any(|one| one.any.1));
        let newest = group.last().map_or(0, |one| one.newest);
        groups.push(Earlier { count: group.len() as u64, newest, orders, any });
        statements = rest;
    }
    groups
}

/// What an order needs at its worst, of money or of its stock.
fn needs(order: &Ordered) -> u64 {
    match (order.buys, order.price) {
        (true, price) => price.unwrap_or(0) * order.quantity,
        (false, _) => order.quantity,
    }
}

/// What its account has free of that.
fn free(holder: &Holder, order: &Ordered) -> u64 {
    let of = |all: &BTreeMap<String, u64>| all.get(&order.symbol).copied().unwrap_or(0);
    if order.buys { holder.cash - holder.reserved_cash } else { of(&holder.stocks) - of(&holder.reserved) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(account: &str) -> Vec<Deed> {
        vec![Deed::Open { account: account.to_owned() }]
    }

    fn bring(account: &str, stock: Option<&str>, amount: u64) -> Vec<Deed> {
        moves(account, stock, amount, true)
    }

    fn moves(account: &str, stock: Option<&str>, amount: u64, inwards: bool) -> Vec<Deed> {
        vec![Deed::Move { account: account.to_owned(), stock: stock.map(str::to_owned), amount, inwards }]
    }

    /// An order of four HOT at that price.
    fn place(number: u64, account: &str, buys: bool, price: u64, then: &[Deed]) -> Vec<Deed> {
        let (account, symbol) = (account.to_owned(), "HOT".to_owned());
        let (patience, price, fills) = (Patience::Rests, Some(price), Vec::new());
        let (quantity, left, post_only, done) = (4, 4, false, false);
        let order = Ordered { number, account, symbol, buys, quantity, price, patience, post_only, left, done, fills };
        [Deed::Place(order)].into_iter().chain(then.iter().cloned()).collect()
    }

    fn as_it(mut entry: Vec<Deed>, change: impl FnOnce(&mut Ordered)) -> Vec<Deed> {
        if let [Deed::Place(order), ..] = &mut entry[..] {
            change(order);
        }
        entry
    }

    fn met(trade: u64, maker: u64, price: u64, quantity: u64) -> Deed {
        Deed::Match { trade, maker, price, quantity }
    }

    fn rest(order: u64, quantity: u64) -> Deed {
        Deed::Cancel { order, quantity }
    }

    /// Ann and Bob have 1,000 cents and 10 HOT each; whether these entries can follow.
    #[track_caller]
    fn check(entries: &[Vec<Deed>], holds: bool) {
        let people = ["ann", "bob"].map(|who| [open(who), bring(who, None, 1_000), bring(who, Some("HOT"), 10)]);
        let mut market = Market::default();
        let all = people.into_iter().flatten().chain(entries.iter().cloned());
        let found: Result<Vec<()>, String> = (1..).zip(all).map(|(seq, deeds)| market.take(seq, &deeds)).collect();
        assert_eq!(found.is_ok(), holds, "{found:?}");
    }

    #[test]
    fn the_best_price_is_met_first_and_of_equals_the_oldest() {
        let asks = [place(1, "ann", false, 9, &[]), place(2, "ann", false, 8, &[])];
        let then = |entry: Vec<Deed>| [asks.as_slice(), &[entry]].concat();
        check(&then(place(3, "bob", true, 9, &[met(1, 2, 8, 4)])), true);
        check(&then(place(3, "bob", true, 9, &[met(1, 1, 9, 4)])), false);
        check(&then(place(3, "bob", true, 9, &[met(1, 2, 9, 4)])), false);
        check(&then(place(3, "bob", true, 9, &[])), false);
        let asks = [place(1, "ann", false, 9, &[]), place(2, "ann", false, 9, &[])];
        check(&[asks.as_slice(), &[place(3, "bob", true, 9, &[met(1, 1, 9, 4)])]].concat(), true);
        check(&[asks.as_slice(), &[place(3, "bob", true, 9, &[met(1, 2, 9, 4)])]].concat(), false);
    }

    #[test]
    fn what_an_order_must_not_do_it_does_not() {
        let ask = || place(1, "ann", false, 9, &[]);
        let itself = |then: &[Deed]| place(2, "ann", true, 9, then);
        check(&[ask(), itself(&[rest(2, 4)])], true);
        check(&[ask(), itself(&[met(1, 1, 9, 4)])], false);
        let post_only = |then: &[Deed]| as_it(place(2, "bob", true, 9, then), |order| order.post_only = true);
        check(&[ask(), post_only(&[met(1, 1, 9, 4)])], false);
        let whole = |then: &[Deed]| {
            let many = |order: &mut Ordered| (order.quantity, order.left) = (5, 5);
            as_it(as_it(place(2, "bob", true, 9, then), |order| order.patience = Patience::WholeAtOnce), many)
        };
        check(&[ask(), whole(&[rest(2, 5)])], true);
        check(&[ask(), whole(&[met(1, 1, 9, 4), rest(2, 1)])], false);
    }

    #[test]
    fn only_what_is_free_is_taken_out_or_bid() {
        check(&[moves("ann", None, 1_000, false)], true);
        check(&[moves("ann", None, 1_001, false)], false);
        check(&[place(1, "ann", true, 250, &[])], true);
        check(&[place(1, "ann", true, 251, &[])], false);
        check(&[place(1, "ann", true, 200, &[]), moves("ann", None, 200, false)], true);
        check(&[place(1, "ann", true, 200, &[]), moves("ann", None, 201, false)], false);
        check(&[place(1, "ann", true, 200, &[]), vec![rest(1, 4)], moves("ann", None, 1_000, false)], true);
        check(&[vec![rest(1, 4)]], false);
    }
}
