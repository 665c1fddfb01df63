//! What is shown of the market: to an account of its own, to everybody of books and trades.

use tradenet_schemas::account::{
    AccountAnswer, AccountOrder, AccountQuery, Balance, Book, Candle, Cash, Credentials, Holding, Interval,
    OrderStatus, Page, Trade,
};
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::limits::PAGE_MAX;
use tradenet_schemas::trade::{Price, Quantity, Side, Symbol};

use super::statements::{Found, Walk};
use super::{Listings, Market, Placed};

/// When an order is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::exchange) enum When {
    /// As its own entry left it.
    AtFirst,
    /// As it is.
    Now,
}

/// An order as its own entry left it, which put it in the book after so many trades, or did not.
pub(super) fn at_first(order: AccountOrder, rested_after: Option<usize>) -> AccountOrder {
    let Some(trades) = rested_after else { return order };
    let fills: Vec<_> = order.fills.into_iter().take(trades).collect();
    let filled = fills.iter().map(|fill| fill.quantity.get()).sum();
    AccountOrder { status: OrderStatus::Open, filled: quantity(filled), fills, ..order }
}

fn quantity(count: u64) -> Quantity {
    Quantity::new(count).expect("quantities are in bounds")
}

fn cash(cents: u64) -> Cash {
    Cash::from_cents(cents).expect("money is in bounds")
}

impl Market {
    /// Answers an account that asks about itself.
    pub(in crate::exchange) fn answer(
        &self,
        listings: &impl Listings,
        caller: &Credentials,
        query: &AccountQuery,
    ) -> Found<AccountAnswer> {
        let Some(holder) = self.accounts.authorise(caller) else {
            return Found::Here(AccountAnswer::Unauthorised);
        };
        match query {
            AccountQuery::Authorise => Found::Here(AccountAnswer::Authorised),
            AccountQuery::Balance => Found::Here(AccountAnswer::Balance(self.balance(listings, holder))),
            AccountQuery::Order(number) => self.find(listings, holder, *number, When::Now).map(AccountAnswer::Order),
            AccountQuery::Orders(page) => {
                let walk = self.page(listings, holder, page);
                if walk.is_at_its_end() { Found::Here(walk.into_answer()) } else { Found::Behind(Box::new(walk)) }
            }
        }
    }

    pub(in crate::exchange) fn balance(&self, listings: &impl Listings, holder: u32) -> Balance {
        let owner = self.accounts.holder(holder);
        let holding = |(listing, stake): (&u32, &super::accounts::Stake)| Holding {
            symbol: listings.symbol(*listing).clone(),
            quantity: quantity(stake.owned),
            reserved: quantity(stake.reserved),
        };
        let mut holdings: Vec<_> = owner.stocks.iter().map(holding).collect();
        holdings.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        let (account, cash, reserved_cash) = (owner.name.clone(), cash(owner.cash.owned), cash(owner.cash.reserved));
        Balance { account, cash, reserved_cash, holdings }
    }

    /// One of the account's orders that are in the state.
    pub(in crate::exchange) fn order(
        &self,
        listings: &impl Listings,
        holder: u32,
        number: OrderNumber,
        when: When,
    ) -> Option<AccountOrder> {
        let order = self.own_order(holder, number)?;
        let shown = self.show(listings, order);
        Some(if when == When::AtFirst { at_first(shown, order.rested_after) } else { shown })
    }

    fn show(&self, listings: &impl Listings, order: &Placed) -> AccountOrder {
        AccountOrder {
            number: order.number,
            symbol: listings.symbol(order.listing).clone(),
            side: order.side,
            quantity: quantity(order.quantity),
            price: order.price,
            time_in_force: order.time_in_force,
            status: order.status,
            filled: quantity(order.quantity - order.left),
            fills: order.fills.clone(),
        }
    }

    /// To an account's orders, newest first.
    fn page(&self, listings: &impl Listings, holder: u32, page: &Page) -> Walk {
        let before = page.before.unwrap_or(OrderNumber(u64::MAX));
        let newest = self.accounts.holder(holder).orders.range(..before).rev().map(|number| &self.orders[number]);
        let wanted = |order: &&Placed| page.status.is_none_or(|status| order.status == status);
        let at_hand = newest.filter(wanted).take(page.limit.min(PAGE_MAX)).map(|order| self.show(listings, order));
        self.walk_through(holder, page, at_hand)
    }

    /// The best of a book.
    pub(in crate::exchange) fn book(&self, symbol: &Symbol, listing: u32, depth: usize) -> Book {
        let (book, depth) = (&self.stalls[listing as usize].book, depth.min(PAGE_MAX));
        let (bids, asks) = (book.depth(Side::Buy, depth), book.depth(Side::Sell, depth));
        Book { symbol: symbol.clone(), sequence: book.changed, bids, asks }
    }

    /// The last periods of a stock's prices, newest first.
    pub(in crate::exchange) fn candles(&self, listing: u32, interval: Interval, limit: usize) -> Vec<Candle> {
        self.stalls[listing as usize].candles.last(interval, limit.min(PAGE_MAX))
    }

    /// The last trades of a stock, newest first.
    pub(in crate::exchange) fn trades(&self, listing: u32, limit: usize) -> Vec<Trade> {
        self.stalls[listing as usize].trades.iter().rev().take(limit.min(PAGE_MAX)).copied().collect()
    }

    /// When the last trade was, in milliseconds since 1970 by the leader's clock.
    pub(in crate::exchange) fn traded_at(&self) -> u64 {
        self.traded_at
    }

    /// How many stand on a side of a book at that price.
    pub(in crate::exchange) fn standing(&self, listing: u32, side: Side, price: Price) -> Quantity {
        quantity(self.stalls[listing as usize].book.standing(side, price))
    }

    /// Stock, side and price of an order.
    pub(in crate::exchange) fn terms(&self, number: OrderNumber) -> (u32, Side, Option<Price>) {
        let Placed { listing, side, price, .. } = self.orders[&number];
        (listing, side, price)
    }
}
