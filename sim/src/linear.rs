//! Whether a history is linearizable: a search for an order of all operations that real time and the object allow.
//!
//! Problem: [`crate::auditor`] places each answer in the log that was committed. If log and answers are wrong together, or
//! the placing is, it sees nothing.
//! Idea: Wing and Gong's search with Lowe's memo (Testing for Linearizability, 2017), on what clients saw and no more
//! ([`crate::history`]). Linearizability is local, so it is done for each object alone: every stock, and the table of all
//! orders, and every account that only has money and gives no orders (of others, what they have depends on whom their orders
//! met, so they are no objects by themselves). Three things keep it near linear:
//!
//! - an operation that may come next and changes nothing comes next: that never takes a choice away from another;
//! - untold operations of equal effect are interchangeable, so the one that was asked for first is used first;
//! - an order in which an answer is overtaken for good (a volume never falls) is given up at once.
//!
//! Rule kept: bounded, and never silently: a search that takes more than [`SEARCH_MAX`] steps is counted as undecided
//! ([`Checked::undecided`]). Not covered here: that the order of one stock's trades agrees with another's reads; the table
//! of orders binds trades of all stocks together, and the auditor all reads.
//!
//! Own code since `porcupine-rs` 0.3 limits a search by wall clock only, which makes a seed's verdict depend on the
//! machine, and has no operations that may never have happened.

use std::collections::BTreeSet;
use std::fmt::Debug;

use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::account::{Account, AccountAnswer, Asset, Instruction};
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::message::Answer;
use tradenet_schemas::trade::{Command, Outcome, Quantity, Receipt, Refusal, Side, Stock};

use crate::history::{History, Trade};
use crate::invariants::Violation;
use crate::workload::house_trade;

const LINEAR: &str = "S12 what clients saw is linearizable";

/// Choices tried in the search for one object's order.
pub const SEARCH_MAX: usize = 200_000;

/// What an operation does to an object.
pub trait Effect: Clone + Ord + Debug {
    /// What the object is like.
    type State: Clone + Ord + Debug;
    /// What it is like afterwards; none if the operation can't have come next.
    fn after(&self, state: &Self::State) -> Option<Self::State>;
    /// Whether it can't come next in this state, nor in any that follows.
    fn is_overtaken(&self, state: &Self::State) -> bool;
}

/// An operation that a client was told of: it took effect between the two.
#[derive(Clone, Debug)]
pub struct Told<E> {
    /// When it was asked for.
    pub called: u64,
    /// When the client was told.
    pub returned: u64,
    /// What it did.
    pub effect: E,
}

/// An operation that nobody was told of: it took effect at some time after, or never.
#[derive(Clone, Debug)]
pub struct Untold<E> {
    /// When it was asked for.
    pub called: u64,
    /// What it would have done.
    pub effect: E,
}

/// What the search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// There is an order.
    Found,
    /// There is none; how far one gets.
    None(String),
    /// The search took too long.
    Undecided,
}

/// A list of operations from which any can be taken out, and put back in reverse.
struct Remaining {
    next: Vec<usize>,
    prev: Vec<usize>,
    taken: Vec<usize>,
    /// Names the set of those taken. Two sets could share a name by chance only (128 bits): then a possible order might be
    /// missed, never a violation.
    name: u128,
}

impl Remaining {
    /// Places `1..=count`; 0 is before the first and behind the last.
    fn new(count: usize) -> Self {
        let next = (0..=count).map(|at| if at == count { 0 } else { at + 1 }).collect();
        let prev = (0..=count).map(|at| if at == 0 { count } else { at - 1 }).collect();
        Self { next, prev, taken: Vec::new(), name: 0 }
    }
    fn take(&mut self, at: usize) {
        let (before, behind) = (self.prev[at], self.next[at]);
        self.next[before] = behind;
        self.prev[behind] = before;
        self.taken.push(at);
        self.name ^= name(at);
    }
    fn put_back_to(&mut self, count: usize) {
        while self.taken.len() > count {
            let Some(at) = self.taken.pop() else { return };
            let (before, behind) = (self.prev[at], self.next[at]);
            self.next[before] = at;
            self.prev[behind] = at;
            self.name ^= name(at);
        }
    }
    fn is_empty(&self) -> bool {
        self.next[0] == 0
    }
}

/// What may come next.
#[derive(Clone, Copy)]
enum Choice {
    Told(usize),
    /// The first unused one of that kind.
    Untold(usize),
}

/// A point of the search where something was chosen.
struct Fork<S> {
    state: S,
    taken: usize,
    used: Vec<usize>,
    choices: Vec<Choice>,
}

struct Search<'a, E: Effect> {
    told: Vec<&'a Told<E>>,
    /// Untold operations by effect, each kind by time.
    kinds: Vec<(&'a E, Vec<u64>)>,
    used: Vec<usize>,
    remaining: Remaining,
    seen: BTreeSet<(u128, Vec<usize>, E::State)>,
    /// How many could be placed at most, the state then, and what had to come next.
    best: Option<(usize, E::State, Option<usize>)>,
}

/// Looks for an order of all of `told` and some of `untold`, from `start`.
pub fn order<E: Effect>(start: E::State, told: &[Told<E>], untold: &[Untold<E>], search_max: usize) -> Order {
    let mut search = Search::new(told, untold);
    let mut forks: Vec<Fork<E::State>> = Vec::new();
    let mut state = start;
    for _ in 0..search_max {
        search.take_what_changes_nothing(&state);
        if search.remaining.is_empty() {
            return Order::Found;
        }
        let choices = search.choices(&state);
        let (taken, used) = (search.remaining.taken.len(), search.used.clone());
        forks.push(Fork { state: state.clone(), taken, used, choices });
        let Some(next) = search.go_on(&mut forks) else {
            return Order::None(search.why_not());
        };
        state = next;
    }
    Order::Undecided
}

impl<'a, E: Effect> Search<'a, E> {
    fn new(told: &'a [Told<E>], untold: &'a [Untold<E>]) -> Self {
        let mut told: Vec<_> = told.iter().collect();
        told.sort_by_key(|operation| operation.called);
        let mut untold: Vec<_> = untold.iter().collect();
        untold.sort_by(|a, b| (&a.effect, a.called).cmp(&(&b.effect, b.called)));
        let mut kinds: Vec<(&E, Vec<u64>)> = Vec::new();
        for Untold { called, effect } in untold {
            match kinds.last_mut().filter(|(kind, _)| *kind == effect) {
                Some((_, times)) => times.push(*called),
                None => kinds.push((effect, vec![*called])),
            }
        }
        Self {
            used: vec![0; kinds.len()],
            remaining: Remaining::new(told.len()),
            told,
            kinds,
            seen: BTreeSet::new(),
            best: None,
        }
    }

    /// The operations that real time lets come next, and the time before which everything that comes next was asked for.
    fn candidates(&self) -> (Vec<usize>, u64) {
        let (mut candidates, mut until) = (Vec::new(), u64::MAX);
        let mut at = self.remaining.next[0];
        while at != 0 && self.told[at - 1].called <= until {
            candidates.push(at);
            until = until.min(self.told[at - 1].returned);
            at = self.remaining.next[at];
        }
        (candidates, until)
    }

    fn take_what_changes_nothing(&mut self, state: &E::State) {
        loop {
            let (candidates, _) = self.candidates();
            let idle = |at: &usize| self.told[at - 1].effect.after(state).as_ref() == Some(state);
            let idle: Vec<_> = candidates.into_iter().filter(idle).collect();
            if idle.is_empty() {
                return;
            }
            idle.into_iter().for_each(|at| self.remaining.take(at));
        }
    }

    fn choices(&mut self, state: &E::State) -> Vec<Choice> {
        let (candidates, until) = self.candidates();
        self.note_progress(state, &candidates);
        if candidates.iter().any(|at| self.told[at - 1].effect.is_overtaken(state)) {
            return Vec::new();
        }
        let told = candidates.iter().filter(|&&at| self.told[at - 1].effect.after(state).is_some());
        let told = told.map(|&at| Choice::Told(at));
        let untold = self.kinds.iter().enumerate().filter(|(kind, (effect, times))| {
            times.get(self.used[*kind]).is_some_and(|&called| called <= until) && effect.after(state).is_some()
        });
        let mut choices: Vec<_> = told.chain(untold.map(|(kind, _)| Choice::Untold(kind))).collect();
        let known = choices.len() > 1 && !self.seen.insert((self.remaining.name, self.used.clone(), state.clone()));
        if known {
            choices.clear();
        }
        choices.reverse();
        choices
    }

    /// Makes the newest choice that is left; the state after it.
    fn go_on(&mut self, forks: &mut Vec<Fork<E::State>>) -> Option<E::State> {
        loop {
            let fork = forks.last_mut()?;
            self.remaining.put_back_to(fork.taken);
            self.used.clone_from(&fork.used);
            let Some(choice) = fork.choices.pop() else {
                forks.pop();
                continue;
            };
            let effect = match choice {
                Choice::Told(at) => {
                    self.remaining.take(at);
                    &self.told[at - 1].effect
                }
                Choice::Untold(kind) => {
                    self.used[kind] += 1;
                    self.kinds[kind].0
                }
            };
            return effect.after(&fork.state);
        }
    }

    fn note_progress(&mut self, state: &E::State, candidates: &[usize]) {
        let taken = self.remaining.taken.len();
        if self.best.as_ref().is_none_or(|(best, ..)| taken > *best) {
            let pressing = candidates.iter().copied().min_by_key(|at| self.told[at - 1].returned);
            self.best = Some((taken, state.clone(), pressing));
        }
    }

    fn why_not(&self) -> String {
        let Some((taken, state, pressing)) = &self.best else {
            return String::new();
        };
        let (total, pressing) = (self.told.len(), pressing.map(|at| self.told[at - 1]));
        format!("{taken} of {total} operations fit, up to {state:?}; from there nothing leads to {pressing:?}")
    }
}

/// 128 bits that stand for a place.
fn name(at: usize) -> u128 {
    let twice = 2 * at as u64;
    u128::from(mix(twice)) << 64 | u128::from(mix(twice + 1))
}

/// SplitMix64's finalizer.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

// ------------------------------------------------------------ the objects of the exchange

/// A stock as clients see it: the house's price, what is left, what was traded; and the last order that is known.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    price: u64,
    quantity: u64,
    volume: u64,
    order: OrderNumber,
}

/// What happens to one stock.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OnStock {
    /// It is listed like that.
    List(Listed),
    /// Accounts traded so many, by the order of that number if anybody was told.
    Met {
        /// The order's number.
        number: Option<OrderNumber>,
        /// How many.
        count: u64,
    },
    /// A trade, with its number if anybody was told.
    Trade {
        /// The order's number.
        number: Option<OrderNumber>,
        /// Whether the client buys.
        buys: bool,
        /// How many.
        count: u64,
    },
    /// It was shown like that: price, quantity, volume.
    Shown(Option<(u64, u64, u64)>),
    /// So many were asked for, and not there.
    TooFew(u64),
    /// An answer that is never right.
    Never,
}

impl Effect for OnStock {
    type State = Option<Listed>;

    fn after(&self, state: &Option<Listed>) -> Option<Option<Listed>> {
        let same = |holds: bool| holds.then(|| state.clone());
        match (self, state) {
            (Self::List(listed), None) => Some(Some(listed.clone())),
            (Self::Trade { number, buys, count }, Some(listed)) => {
                let order = number.unwrap_or(listed.order);
                let grows = number.is_none_or(|number| number > listed.order);
                let left = if *buys { listed.quantity.checked_sub(*count) } else { Some(listed.quantity + count) };
                let quantity = left.filter(|_| grows)?;
                Some(Some(Listed { quantity, volume: listed.volume + count, order, ..*listed }))
            }
            (Self::Met { number, count }, Some(listed)) => {
                let order = number.unwrap_or(listed.order);
                let grows = number.is_none_or(|number| number > listed.order);
                grows.then(|| Some(Listed { volume: listed.volume + count, order, ..*listed }))
            }
            (Self::Shown(None), state) => same(state.is_none()),
            (Self::Shown(Some(shown)), Some(listed)) => same(*shown == (listed.price, listed.quantity, listed.volume)),
            (Self::TooFew(asked), Some(listed)) => same(listed.quantity < *asked),
            _ => None,
        }
    }

    fn is_overtaken(&self, state: &Option<Listed>) -> bool {
        let Some(listed) = state else { return false };
        match self {
            Self::Trade { number: Some(number), .. } | Self::Met { number: Some(number), .. } => {
                *number <= listed.order
            }
            Self::Shown(Some((.., volume))) => *volume < listed.volume,
            Self::Shown(None) => true,
            _ => false,
        }
    }
}

/// What happens to the table of all orders, whose state is how many there are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OnOrders {
    /// An order is made, with that number if anybody was told.
    Made(Option<OrderNumber>),
    /// It was there, or was not.
    Looked(OrderNumber, bool),
}

impl Effect for OnOrders {
    type State = OrderNumber;

    fn after(&self, last: &OrderNumber) -> Option<OrderNumber> {
        match self {
            Self::Made(None) => Some(last.next()),
            Self::Made(Some(number)) => (*number == last.next()).then_some(*number),
            Self::Looked(number, there) => ((number <= last) == *there).then_some(*last),
        }
    }

    fn is_overtaken(&self, last: &OrderNumber) -> bool {
        match self {
            Self::Made(number) => number.is_some_and(|number| number <= *last),
            Self::Looked(number, there) => !there && number <= last,
        }
    }
}

/// What happens to an account that only has money and gives no orders: what it has depends on nobody else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OnSavings {
    /// It is opened.
    Open,
    /// So many cents are brought in.
    In(u64),
    /// So many are taken out.
    Out(u64),
    /// It was shown with so many.
    Shown(u64),
    /// So many were asked for, and not there.
    TooFew(u64),
    /// It was there.
    Taken,
    /// An answer that is never right.
    Never,
}

impl Effect for OnSavings {
    type State = Option<u64>;

    fn after(&self, state: &Option<u64>) -> Option<Option<u64>> {
        let same = |holds: bool| holds.then_some(*state);
        match (self, state) {
            (Self::Open, None) => Some(Some(0)),
            (Self::In(cents), Some(has)) => Some(Some(has + cents)),
            (Self::Out(cents), Some(has)) => has.checked_sub(*cents).map(Some),
            (Self::Shown(cents), Some(has)) => same(cents == has),
            (Self::TooFew(cents), Some(has)) => same(has < cents),
            (Self::Taken, Some(_)) => same(true),
            _ => None,
        }
    }

    fn is_overtaken(&self, state: &Option<u64>) -> bool {
        *self == Self::Open && state.is_some()
    }
}

/// What was searched.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Checked {
    /// Operations placed.
    pub operations: u64,
    /// Objects for which the search took too long.
    pub undecided: u64,
}

/// Checks a run's history, object by object. `listed`: the stocks that a catalog may list at any time.
///
/// # Errors
/// Some object's operations have no order that real time allows.
pub fn check(history: &History, listed: &[Stock]) -> Result<Checked, Violation> {
    let trades = history.trades().map_err(|why| Violation::new(LINEAR, why))?;
    let mut checked = Checked::default();
    for stock in listed {
        let (told, untold) = of_stock(history, &trades, stock);
        checked.count(&told, order(None, &told, &untold, SEARCH_MAX), stock.symbol.as_str())?;
    }
    let (told, untold) = of_orders(history, &trades);
    checked.count(&told, order(OrderNumber(0), &told, &untold, SEARCH_MAX), "all orders")?;
    for saver in savers(history) {
        let (told, untold) = of_savings(history, &trades, saver);
        checked.count(&told, order(None, &told, &untold, SEARCH_MAX), saver.as_str())?;
    }
    Ok(checked)
}

impl Checked {
    /// Counts what was searched in another run, too.
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.undecided += other.undecided;
    }

    fn count<E>(&mut self, told: &[Told<E>], order: Order, object: &str) -> Result<(), Violation> {
        self.operations += told.len() as u64;
        match order {
            Order::Found => {}
            Order::Undecided => self.undecided += 1,
            Order::None(why) => return Err(Violation::new(LINEAR, format!("{object}: {why}"))),
        }
        Ok(())
    }
}

/// What an account's command is to its savings.
fn on_savings(command: &Command) -> Option<(&Account, Option<OnSavings>)> {
    match command {
        Command::Trade { .. } => None,
        Command::Open { account, .. } => Some((account, Some(OnSavings::Open))),
        Command::Account { caller, instruction } => {
            let effect = match instruction {
                Instruction::Deposit(Asset::Cash(cash)) => Some(OnSavings::In(cash.cents())),
                Instruction::Withdraw(Asset::Cash(cash)) => Some(OnSavings::Out(cash.cents())),
                _ => None,
            };
            Some((&caller.account, effect))
        }
    }
}

/// The accounts of which no client ever asked for more than money in and out.
fn savers(history: &History) -> BTreeSet<&Account> {
    let commands = || {
        history.calls().iter().filter_map(|call| match &call.request {
            ClientRequest::Command(_, command) => on_savings(command),
            _ => None,
        })
    };
    let others: BTreeSet<_> = commands().filter(|(_, effect)| effect.is_none()).map(|(account, _)| account).collect();
    commands().map(|(account, _)| account).filter(|account| !others.contains(account)).collect()
}

fn of_savings(history: &History, trades: &[Trade], saver: &Account) -> (Vec<Told<OnSavings>>, Vec<Untold<OnSavings>>) {
    let (mut told, mut untold) = (Vec::new(), Vec::new());
    let effect_of = |command: &Command| -> Option<OnSavings> {
        on_savings(command).filter(|(account, _)| account.as_str() == saver.as_str()).and_then(|(_, effect)| effect)
    };
    for trade in trades {
        let Some(effect) = effect_of(&trade.command) else { continue };
        match trade.told {
            Some((returned, _)) => told.push(Told { called: trade.called, returned, effect }),
            None => untold.push(Untold { called: trade.called, effect }),
        }
    }
    for refused in history.refused() {
        let effect = match (effect_of(&refused.command), refused.refusal) {
            (None, _) => continue,
            (Some(OnSavings::Out(cents)), Refusal::InsufficientFunds) => OnSavings::TooFew(cents),
            (Some(OnSavings::Open), Refusal::AccountTaken) => OnSavings::Taken,
            _ => OnSavings::Never,
        };
        told.push(Told { called: refused.called, returned: refused.returned, effect });
    }
    // A balance that comes with a receipt is what a read at that moment would have shown; with a replayed one, at an earlier.
    for (_, called, returned, answer) in history.answers() {
        let shown = match answer {
            ClientAnswer::Outcome(Outcome::Done { receipt, replayed: false }) => match &**receipt {
                Receipt::Balance(balance) => balance,
                _ => continue,
            },
            ClientAnswer::Market(Answer::Account(answer)) => match &**answer {
                AccountAnswer::Balance(balance) => balance,
                _ => continue,
            },
            _ => continue,
        };
        if shown.account == *saver {
            told.push(Told { called, returned, effect: OnSavings::Shown(shown.cash.cents()) });
        }
    }
    (told, untold)
}

fn of_stock(history: &History, trades: &[Trade], stock: &Stock) -> (Vec<Told<OnStock>>, Vec<Untold<OnStock>>) {
    let first = Listed {
        price: stock.price.cents(),
        quantity: stock.quantity.get(),
        volume: Quantity::ZERO.get(),
        order: OrderNumber(0),
    };
    let (mut told, mut untold) = (Vec::new(), vec![Untold { called: 0, effect: OnStock::List(first) }]);
    for trade in trades {
        let number = trade.told.map(|(_, number)| number);
        if let Command::Account { instruction: Instruction::Place(order), .. } = &trade.command {
            let called = trade.called;
            match trade.told.filter(|_| order.symbol == stock.symbol) {
                Some(_) if trade.traded == 0 => {}
                Some((returned, _)) => {
                    told.push(Told { called, returned, effect: OnStock::Met { number, count: trade.traded } });
                }
                // Nobody knows how many it met: any of these, and more than one of them, is allowed.
                None if order.symbol == stock.symbol => {
                    let met = |count| Untold { called, effect: OnStock::Met { number: None, count } };
                    untold.extend((1..=order.quantity.get()).map(met));
                }
                None => {}
            }
        }
        let Some((_, side, quantity)) = house_trade(&trade.command).filter(|(symbol, ..)| **symbol == stock.symbol)
        else {
            continue;
        };
        let (buys, count) = (side == Side::Buy, quantity.get());
        let effect = OnStock::Trade { number, buys, count };
        match trade.told {
            Some((returned, _)) => told.push(Told { called: trade.called, returned, effect }),
            None => untold.push(Untold { called: trade.called, effect }),
        }
    }
    for refused in history.refused() {
        let Some((_, side, quantity)) = house_trade(&refused.command).filter(|(symbol, ..)| **symbol == stock.symbol)
        else {
            continue;
        };
        let effect = match refused.refusal {
            Refusal::UnknownSymbol => OnStock::Shown(None),
            Refusal::NotEnoughStocks if side == Side::Buy => OnStock::TooFew(quantity.get()),
            // Nobody uses a key twice, and nobody sells 2^53 of anything.
            _ => OnStock::Never,
        };
        told.push(Told { called: refused.called, returned: refused.returned, effect });
    }
    let as_shown = |shown: Option<&Stock>| {
        OnStock::Shown(shown.map(|shown| (shown.price.cents(), shown.quantity.get(), shown.volume.get())))
    };
    for (request, called, returned, answer) in history.answers() {
        let effect = match (request, answer) {
            (ClientRequest::Stock(symbol), ClientAnswer::Stock { stock: shown, .. }) if *symbol == stock.symbol => {
                as_shown(shown.as_ref())
            }
            (_, ClientAnswer::Stocks(all)) => as_shown(all.iter().find(|shown| shown.symbol == stock.symbol)),
            _ => continue,
        };
        told.push(Told { called, returned, effect });
    }
    (told, untold)
}

fn of_orders(history: &History, trades: &[Trade]) -> (Vec<Told<OnOrders>>, Vec<Untold<OnOrders>>) {
    let (mut told, mut untold) = (Vec::new(), Vec::new());
    // An account's order has a number, and is not found by it.
    let (mut of_accounts, mut of_unknown_account) = (BTreeSet::new(), false);
    for trade in trades {
        let places = matches!(&trade.command, Command::Account { instruction: Instruction::Place(_), .. });
        if !places && house_trade(&trade.command).is_none() {
            continue;
        }
        let number = trade.told.map(|(_, number)| number);
        of_accounts.extend(number.filter(|_| places));
        of_unknown_account |= places && number.is_none();
        let effect = OnOrders::Made(number);
        match trade.told {
            Some((returned, _)) => told.push(Told { called: trade.called, returned, effect }),
            None => untold.push(Untold { called: trade.called, effect }),
        }
    }
    for (request, called, returned, answer) in history.answers() {
        if let (ClientRequest::Order(number), ClientAnswer::Order(shown)) = (request, answer) {
            let may_be_an_accounts = of_unknown_account || of_accounts.contains(number);
            if shown.is_some() || !may_be_an_accounts {
                told.push(Told { called, returned, effect: OnOrders::Looked(*number, shown.is_some()) });
            }
        }
    }
    (told, untold)
}

#[cfg(test)]
mod tests;
