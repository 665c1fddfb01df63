//! Orders that are done leave the state, and are found again.
//!
//! Problem: there is no end of orders, an account may look at each of its own, and memory must not grow with each.
//! Idea: the state keeps the newest that are done. When there are more, whose oldest it is gets a *statement*: an entry that
//! says of the next of that account's orders what became of them ([`tradenet_schemas::statement`]). Then they are dropped. An
//! account has a few [`Statements`] of falling size, whose newest entries lead to all older ones; a [`Walk`] says which of
//! them is to be read next.
//! Rule kept: an order is in the state or in one statement, never in both, and never in none.

use std::collections::BTreeMap;

use tradenet_schemas::account::{Account, AccountAnswer, AccountOrder, OrderStatus, Page};
use tradenet_schemas::ids::{OrderNumber, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::{FILLS_SHOWN_MAX, PAGE_MAX, STATEMENT_ORDERS_MAX};
use tradenet_schemas::statement::{DoneOrder, Statements};
use tradenet_schemas::trade::Quantity;

use super::views::{When, at_first};
use super::{Listings, Market, Placed};
use crate::bugs::{Bug, bug};

/// After how many statements a page ends with what is known of it by then, which is one order at least.
const STATEMENTS_OF_A_PAGE_MAX: usize = 32;

impl Market {
    /// The statement that is due: more orders are kept that are done than have to be. It has the oldest of them, and the next of the
    /// same account as far as they are in the older half of what is kept.
    pub(in crate::exchange) fn statement_due(&self, listings: &impl Listings) -> Option<Event> {
        let (_, oldest) = self.done.first_key_value().filter(|_| self.done.len() > self.done_max)?;
        let holder = self.orders[oldest].holder;
        let (mut fills, older) = (0, self.done_count - self.done_max as u64 / 2);
        // One always fits: no order has more trades than that.
        let fits = |order: &&Placed| {
            fills += order.fills.len();
            fills <= FILLS_SHOWN_MAX && order.done <= older
        };
        let next = self.accounts.holder(holder).done.iter().map(|number| &self.orders[number]);
        Some(self.statement(listings, holder, next.take(STATEMENT_ORDERS_MAX).take_while(fits).count()))
    }

    /// An account's next statement, of so many orders.
    fn statement(&self, listings: &impl Listings, holder: u32, count: usize) -> Event {
        let owner = self.accounts.holder(holder);
        let orders = owner.done.iter().take(count).map(|number| self.orders[number].done(listings)).collect();
        let earlier = owner.statements[made_larger(&owner.statements)..].to_vec();
        let earlier = if bug(Bug::ForgetStatements) { Vec::new() } else { earlier };
        Event::Stated { account: owner.name.clone(), earlier, orders }
    }

    /// Orders are stated, and dropped. How many is the leader's choice.
    pub(in crate::exchange) fn apply_stated(&mut self, seq: SeqNum, listings: &impl Listings, event: &Event) {
        let Event::Stated { account, orders, .. } = event else { unreachable!("another event states nothing") };
        let holder =
            self.accounts.find(account).unwrap_or_else(|| panic!("entry {seq}: there is no account {account}"));
        let expected = self.statement(listings, holder, orders.len());
        assert_eq!(*event, expected, "entry {seq}: not what became of {account}'s next orders");
        let newest = alone(seq, orders).unwrap_or_else(|| panic!("entry {seq}: a statement without an order"));
        for order in orders {
            let placed = self.orders.remove(&order.order).expect("what is stated was compared with the state");
            self.done.remove(&placed.done);
            self.accounts.holder_mut(holder).orders.remove(&order.order);
        }
        let owner = self.accounts.holder_mut(holder);
        owner.done.drain(..orders.len());
        let made_larger = owner.statements.drain(made_larger(&owner.statements)..);
        let newest = made_larger.rev().fold(newest, |newest, before| together(before, newest));
        owner.statements.push(newest);
        self.note(&[u64::from(holder), seq.0, orders.len() as u64]);
    }

    /// The account's order of that number, if it has one.
    pub(in crate::exchange) fn find(
        &self,
        listings: &impl Listings,
        holder: u32,
        number: OrderNumber,
        when: When,
    ) -> Found<Option<AccountOrder>> {
        match self.way_to(holder, number, when) {
            None => Found::Here(self.order(listings, holder, number, when)),
            Some(walk) => Found::Behind(walk),
        }
    }

    /// The way to an order that is not in the state, if there is one.
    pub(in crate::exchange) fn way_to(&self, holder: u32, number: OrderNumber, when: When) -> Option<Box<Walk>> {
        if self.own_order(holder, number).is_some() || bug(Bug::LookOnlyAtTheState) {
            return None;
        }
        let page = Page { status: None, limit: 1, before: Some(OrderNumber(number.0.saturating_add(1))) };
        let walk = Walk { lowest: number, when: Some(when), ..self.walk(holder, &page) };
        Some(walk.pruned()).filter(|walk| !walk.is_at_its_end()).map(Box::new)
    }

    /// To the orders of a page, those of them that are in the state being at hand, the newest first.
    pub(super) fn walk_through(&self, holder: u32, page: &Page, at_hand: impl Iterator<Item = AccountOrder>) -> Walk {
        let mut walk = self.walk(holder, page);
        for order in at_hand {
            if walk.is_full() {
                break;
            }
            walk.keep(order);
        }
        walk.pruned()
    }

    fn walk(&self, holder: u32, page: &Page) -> Walk {
        let owner = self.accounts.holder(holder);
        Walk {
            account: owner.name.clone(),
            lowest: OrderNumber(0),
            below: page.before.unwrap_or(OrderNumber(u64::MAX)),
            status: page.status,
            limit: page.limit.min(PAGE_MAX),
            when: None,
            found: BTreeMap::new(),
            fills: 0,
            ahead: owner.statements.clone(),
            read: 0,
        }
    }
}

impl Placed {
    fn done(&self, listings: &impl Listings) -> DoneOrder {
        let Self { number, side, time_in_force, price, rested_after, .. } = *self;
        let quantity = |count| Quantity::new(count).expect("quantities are in bounds");
        DoneOrder {
            order: number,
            symbol: listings.symbol(self.listing).clone(),
            side,
            quantity: quantity(self.quantity),
            price,
            time_in_force,
            rested_after,
            cancelled: quantity(self.left),
            fills: self.fills.iter().map(|fill| (fill.trade, fill.price, fill.quantity)).collect(),
        }
    }
}

/// From which group on one more statement makes them one larger group, as a binary number is counted up.
fn made_larger(statements: &[Statements]) -> usize {
    let same = statements.iter().rev().zip(0..).take_while(|(group, digit)| group.count == 1 << digit);
    statements.len() - same.count()
}

/// The statement of that entry, by itself.
fn alone(seq: SeqNum, orders: &[DoneOrder]) -> Option<Statements> {
    let numbers = || orders.iter().map(|order| order.order);
    let any = |status| orders.iter().any(|order| order.status() == status);
    let (filled, cancelled) = (any(OrderStatus::Filled), any(OrderStatus::Cancelled));
    Some(Statements { count: 1, newest: seq, lowest: numbers().min()?, highest: numbers().max()?, filled, cancelled })
}

fn together(before: Statements, newest: Statements) -> Statements {
    Statements {
        count: before.count + newest.count,
        newest: newest.newest,
        lowest: before.lowest.min(newest.lowest),
        highest: before.highest.max(newest.highest),
        filled: before.filled || newest.filled,
        cancelled: before.cancelled || newest.cancelled,
    }
}

/// A way through an account's statements to what somebody asked for: some of its orders, the newest first.
///
/// Read the entry [`Walk::next_entry`] and give it to [`Walk::take`], until there is none. One order is found after as many steps as
/// the number of statements has binary digits, and a page ends after some more, if no order rested for long. Each that was open when
/// the wanted one was placed, and is in a later statement, may cost as many again; there are at most
/// [`OPEN_ORDERS_MAX`](tradenet_schemas::limits::OPEN_ORDERS_MAX).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    account: Account,
    /// Which are wanted: from this number on,
    lowest: OrderNumber,
    /// below this one,
    below: OrderNumber,
    /// of this status, or of any;
    status: Option<OrderStatus>,
    /// and no more than so many.
    limit: usize,
    /// How the one that is wanted is shown; none for a page.
    when: Option<When>,
    found: BTreeMap<OrderNumber, AccountOrder>,
    /// How many trades those have.
    fills: usize,
    /// Where more may be.
    ahead: Vec<Statements>,
    /// How many statements were read.
    read: usize,
}

impl Walk {
    /// The entry to read next: of the statements with the highest numbers that are wanted, the newest. None at the end.
    pub fn next_entry(&self) -> Option<SeqNum> {
        self.nearest().map(|at| self.ahead[at].newest).filter(|_| !self.is_at_its_end())
    }

    /// Whether what is found is the answer: there is no more, or enough was read to know some of it.
    pub fn is_at_its_end(&self) -> bool {
        self.ahead.is_empty() || self.read >= STATEMENTS_OF_A_PAGE_MAX && self.known().next().is_some()
    }

    /// How many statements were read.
    pub fn read(&self) -> usize {
        self.read
    }

    /// What was found, the newest first, as far as nothing ahead can come before it.
    fn known(&self) -> impl Iterator<Item = &AccountOrder> {
        let ahead = self.nearest().map(|at| self.reach(&self.ahead[at]));
        let newest_first = self.found.values().rev();
        newest_first.take_while(move |order| ahead.is_none_or(|ahead| order.number > ahead))
    }

    fn nearest(&self) -> Option<usize> {
        (0..self.ahead.len()).max_by_key(|&at| (self.reach(&self.ahead[at]), self.ahead[at].newest))
    }

    /// The highest number in them that is wanted.
    fn reach(&self, statements: &Statements) -> OrderNumber {
        statements.highest.min(OrderNumber(self.below.0.saturating_sub(1)))
    }

    /// Takes the entry that was to be read.
    ///
    /// # Panics
    /// It is another one: the log is not what the state is of.
    pub fn take(&mut self, entry: &Entry) {
        let at = self.nearest().expect("only what was asked for is read");
        let seq = self.ahead.remove(at).newest;
        assert_eq!(entry.seq, seq, "another entry is read than the one that states an account's orders");
        let [Event::Stated { account, earlier, orders }] = &entry.events[..] else {
            panic!("entry {seq} states no orders")
        };
        assert_eq!(*account, self.account, "entry {seq}: a statement of another account");
        self.read += 1;
        self.ahead.extend_from_slice(earlier);
        let (lowest, below, status) = (self.lowest, self.below, self.status);
        let wanted = |order: &&DoneOrder| {
            (lowest..below).contains(&order.order) && status.is_none_or(|status| order.status() == status)
        };
        for order in orders.iter().filter(wanted).cloned() {
            let rested_after = order.rested_after;
            let shown = order.into_shown();
            self.keep(if self.when == Some(When::AtFirst) { at_first(shown, rested_after) } else { shown });
        }
        self.prune();
    }

    /// Keeps an order that was found, but for what is behind the end of a page then.
    fn keep(&mut self, order: AccountOrder) {
        self.fills += order.fills.len();
        self.found.insert(order.number, order);
        while let (count, Some(last)) = (self.found.len(), self.found.first_entry())
            && (count > self.limit || self.fills - last.get().fills.len() > FILLS_SHOWN_MAX)
        {
            self.fills -= last.remove().fills.len();
        }
    }

    /// Whether no order with a lower number than those that were found is wanted.
    fn is_full(&self) -> bool {
        self.found.len() >= self.limit || self.fills > FILLS_SHOWN_MAX
    }

    fn pruned(mut self) -> Self {
        self.prune();
        self
    }

    /// Forgets the statements that need not be read.
    fn prune(&mut self) {
        let ahead = std::mem::take(&mut self.ahead);
        self.ahead = ahead.into_iter().filter(|statements| self.may_hold_more(statements)).collect();
    }

    fn may_hold_more(&self, statements: &Statements) -> bool {
        let of_status = match self.status {
            None => true,
            Some(OrderStatus::Open) => false,
            Some(OrderStatus::Filled) => statements.filled,
            Some(OrderStatus::Cancelled) => statements.cancelled,
        };
        let last = self.found.first_key_value().map(|(number, _)| *number);
        let comes_before = last.is_some_and(|last| self.reach(statements) > last);
        let wanted = statements.lowest < self.below && statements.highest >= self.lowest;
        of_status && wanted && (comes_before || !self.is_full())
    }

    /// The order that was wanted, if there is one.
    pub fn into_order(mut self) -> Option<AccountOrder> {
        self.found.pop_last().map(|(_, order)| order)
    }

    /// What the account is told. A page may end early, but not empty: where many statements were read, and where the orders have
    /// more trades than one answer can hold.
    pub fn into_answer(self) -> AccountAnswer {
        if self.when.is_some() {
            return AccountAnswer::Order(self.into_order());
        }
        let mut fills = 0;
        let fits = |order: &&AccountOrder| {
            fills += order.fills.len();
            fills <= FILLS_SHOWN_MAX
        };
        AccountAnswer::Orders(self.known().take_while(fits).cloned().collect())
    }
}

/// What is in the state, or the way to where it stands in the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found<T> {
    /// It is in the state.
    Here(T),
    /// There is more to be read.
    Behind(Box<Walk>),
}

impl<T> Found<T> {
    pub(in crate::exchange) fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Here(found) => Found::Here(change(found)),
            Self::Behind(walk) => Found::Behind(walk),
        }
    }
}
