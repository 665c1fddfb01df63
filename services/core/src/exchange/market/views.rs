//! What is shown of the market: to an account of its own, to everybody of books and trades.

use tradenet_schemas::account::{
    AccountAnswer, AccountOrder, AccountQuery, Balance, Book, Candle, Cash, Credentials, Fill, Holding, Interval, Page,
    Trade,
};
use tradenet_schemas::ids::{OrderNumber, TradeNumber};
use tradenet_schemas::limits::{FILLS_SHOWN_MAX, PAGE_MAX};
use tradenet_schemas::trade::{Price, Quantity, Side, Symbol};

use super::{Listings, Market, Placed, Traded};

/// When an order is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::exchange) enum When {
    /// As its own entry left it.
    AtFirst,
    /// As it is.
    Now,
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
    ) -> AccountAnswer {
        let Some(holder) = self.accounts.authorise(caller) else {
            return AccountAnswer::Unauthorised;
        };
        match query {
            AccountQuery::Authorise => AccountAnswer::Authorised,
            AccountQuery::Balance => AccountAnswer::Balance(self.balance(listings, holder)),
            AccountQuery::Order(number) => AccountAnswer::Order(self.order(listings, holder, *number, When::Now)),
            AccountQuery::Orders(page) => AccountAnswer::Orders(self.page(listings, holder, page)),
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

    pub(in crate::exchange) fn order(
        &self,
        listings: &impl Listings,
        holder: u32,
        number: OrderNumber,
        when: When,
    ) -> Option<AccountOrder> {
        let order = self.own_order(holder, number)?;
        Some(self.show(listings, order, when, FILLS_SHOWN_MAX))
    }

    fn show(&self, listings: &impl Listings, order: &Placed, when: When, fills_max: usize) -> AccountOrder {
        let then = |trade: &&TradeNumber| when == When::Now || self.trade(**trade).seq == order.seq;
        let filled = order.trades.iter().filter(then).map(|trade| self.trade(*trade).quantity).sum();
        let fill = |number: &TradeNumber| {
            let trade = self.trade(*number);
            Fill { trade: *number, price: trade.price, quantity: quantity(trade.quantity) }
        };
        AccountOrder {
            number: order.number,
            symbol: listings.symbol(order.listing).clone(),
            side: order.side,
            quantity: quantity(order.quantity),
            price: order.price,
            time_in_force: order.time_in_force,
            status: if when == When::Now { order.status } else { order.first_status },
            filled: quantity(filled),
            fills: order.trades.iter().filter(then).take(fills_max).map(fill).collect(),
        }
    }

    fn trade(&self, number: TradeNumber) -> &Traded {
        let index = usize::try_from(number.0 - 1).expect("a trade's number is a place in memory");
        &self.trades[index]
    }

    /// Newest first. Ends early, but not empty, where the orders have more trades than one answer can hold.
    fn page(&self, listings: &impl Listings, holder: u32, page: &Page) -> Vec<AccountOrder> {
        let orders = self.accounts.holder(holder).orders.iter().rev().map(|&at| &self.orders[at as usize]);
        let wanted = |order: &&Placed| {
            page.before.is_none_or(|before| order.number < before)
                && page.status.is_none_or(|status| order.status == status)
        };
        let (mut shown, mut fills) = (Vec::new(), 0);
        for order in orders.filter(wanted).take(page.limit.min(PAGE_MAX)) {
            fills += order.trades.len().min(FILLS_SHOWN_MAX);
            if fills > FILLS_SHOWN_MAX && !shown.is_empty() {
                break;
            }
            shown.push(self.show(listings, order, When::Now, FILLS_SHOWN_MAX));
        }
        shown
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
        let newest = self.stalls[listing as usize].trades.iter().rev().take(limit.min(PAGE_MAX));
        newest.map(|number| self.shown_trade(*number)).collect()
    }

    /// A trade as everybody sees it.
    pub(in crate::exchange) fn shown_trade(&self, number: TradeNumber) -> Trade {
        let Traded { price, quantity: count, side, at, .. } = *self.trade(number);
        Trade { number, price, quantity: quantity(count), side, at }
    }

    /// How many stand on a side of a book at that price.
    pub(in crate::exchange) fn standing(&self, listing: u32, side: Side, price: Price) -> Quantity {
        quantity(self.stalls[listing as usize].book.standing(side, price))
    }

    /// Stock, side and price of an order.
    pub(in crate::exchange) fn terms(&self, number: OrderNumber) -> (u32, Side, Option<Price>) {
        let Placed { listing, side, price, .. } = self.orders[self.find(number).expect("the order was placed")];
        (listing, side, price)
    }
}
