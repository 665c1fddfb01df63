//! What an order would meet.
//!
//! Problem: the rules of prices, funds, time in force and self-trade act on each other, and must be judged before anything
//! changes.
//! Idea: the order walks along the orders it would meet, first the best and oldest, and writes each trade down; at the end
//! its time in force says what becomes of the rest.
//! Rule kept: nothing here changes anything.

use tradenet_schemas::account::{NewOrder, TimeInForce};
use tradenet_schemas::ids::{OrderNumber, TradeNumber};
use tradenet_schemas::journal::Event;
use tradenet_schemas::limits::{FILLS_PER_ORDER_MAX, OPEN_ORDERS_MAX};
use tradenet_schemas::trade::{Price, Quantity, Refusal, Side};

use super::accounts::{Holder, Kind};
use super::book::{Book, Resting};
use super::{Listings, Market, lacking};
use crate::bugs::{Bug, bug};

/// Whether an order with that limit trades at `price`.
pub(super) fn crosses(side: Side, limit: Option<Price>, price: Price) -> bool {
    limit.is_none_or(|limit| match side {
        Side::Buy => limit >= price,
        Side::Sell => limit <= price,
    })
}

/// What an order meets.
#[derive(Default)]
struct Walk {
    fills: Vec<(Resting, u64)>,
    left: u64,
    /// It met an order of its own account.
    met_itself: bool,
}

impl Market {
    pub(super) fn place(
        &self,
        listings: &impl Listings,
        holder: u32,
        order: &NewOrder,
        number: OrderNumber,
    ) -> Result<Vec<Event>, Refusal> {
        let listing = listings.find(&order.symbol).ok_or(Refusal::UnknownSymbol)?;
        let owner = self.accounts.holder(holder);
        covered(owner, listing, order)?;
        let book = &self.stalls[listing as usize].book;
        let mut walk = walk(book, holder, owner.cash.free(), order)?;
        if order.time_in_force == TimeInForce::Fok && walk.left > 0 {
            walk.fills.clear();
            walk.left = order.quantity.get();
        }
        if order.post_only && !walk.fills.is_empty() && !bug(Bug::PostOnlyTrades) {
            return Err(Refusal::WouldCross);
        }
        if order.quantity.get() - walk.left > listings.room(listing) {
            return Err(Refusal::TooManyStocks);
        }
        let waits = order.price.is_some() && order.time_in_force == TimeInForce::Gtc && !walk.met_itself;
        if walk.left > 0 && waits && owner.open >= OPEN_ORDERS_MAX {
            return Err(Refusal::TooManyOpenOrders);
        }
        Ok(self.events(owner, order, number, &walk, waits))
    }

    fn events(&self, owner: &Holder, order: &NewOrder, number: OrderNumber, walk: &Walk, waits: bool) -> Vec<Event> {
        let count = |count: u64| Quantity::new(count).expect("part of a quantity is one");
        let mut events = Vec::with_capacity(walk.fills.len() + 2);
        let NewOrder { symbol, side, quantity, price, time_in_force, post_only } = order.clone();
        let account = owner.name.clone();
        events.push(Event::Placed { order: number, account, symbol, side, quantity, price, time_in_force, post_only });
        for ((resting, taken), trade) in walk.fills.iter().zip(self.trades + 1..) {
            let (trade, maker, symbol) = (TradeNumber(trade), resting.order, order.symbol.clone());
            events.push(Event::Matched { trade, maker, symbol, price: resting.price, quantity: count(*taken) });
        }
        if walk.left > 0 && !waits {
            events.push(Event::Cancelled { order: number, quantity: count(walk.left) });
        }
        events
    }
}

/// Whether the account can pay for the order at its worst. A market buy is paid for as far as the money goes.
fn covered(owner: &Holder, listing: u32, order: &NewOrder) -> Result<(), Refusal> {
    let (kind, needed) = match (order.side, order.price) {
        (Side::Sell, _) => (Kind::Stock(listing), Some(order.quantity.get())),
        (Side::Buy, Some(price)) => (Kind::Cash, price.cents().checked_mul(order.quantity.get())),
        (Side::Buy, None) => return Ok(()),
    };
    let free = owner.stake(kind).free();
    if needed.is_some_and(|needed| needed <= free) { Ok(()) } else { Err(lacking(kind)) }
}

fn walk(book: &Book, holder: u32, mut money: u64, order: &NewOrder) -> Result<Walk, Refusal> {
    let mut walk = Walk { left: order.quantity.get(), ..Walk::default() };
    for resting in book.facing(order.side) {
        if walk.left == 0 || !crosses(order.side, order.price, resting.price) {
            break;
        }
        if resting.holder == holder && !bug(Bug::TradeWithItself) {
            walk.met_itself = true;
            break;
        }
        let wanted = walk.left.min(resting.left);
        let market_buy = order.side == Side::Buy && order.price.is_none();
        let taken = if market_buy { wanted.min(money / resting.price.cents()) } else { wanted };
        if taken > 0 {
            if walk.fills.len() == FILLS_PER_ORDER_MAX {
                return Err(Refusal::TooManyFills);
            }
            walk.fills.push((resting, taken));
            walk.left -= taken;
            money = money.saturating_sub(taken * resting.price.cents());
        }
        if taken < wanted {
            break; // The money does not go further.
        }
    }
    Ok(walk)
}
