//! Does all of it add up?
//!
//! At the end every account lists all its orders. Each that was answered must be there as it was answered, or further along;
//! what the account has must be what was brought in and what its fills say, to the cent; and each trade must be in the
//! fills of exactly two accounts, once bought and once sold, at the price of the order that stood there first. Where nobody
//! else trades (`exclusive`), the books must be the open orders, and volumes and sums the trades.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::task::JoinSet;

use crate::connection::Call;
use crate::exchange::{Client, Failure};
use crate::market::account::{Account, Troubles};
use crate::market::trader::Trader;
use crate::market::wire::{Balance, Book, Cents, Listed, Order, Status, Trade};
use crate::market::{Market, gather, list_stocks};
use crate::url::path_segment;
use crate::wire::Side;

/// The longest page that the exchange gives.
const PAGE: usize = 500;
/// Most cases of one kind of problem that are shown as text; the JSON has them all.
const MAX_SHOWN: usize = 100;

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Orders that were answered, and were read back.
    pub orders: u64,
    /// Trades that were seen from both of their sides.
    pub trades: u64,
    /// Orders still open at the end.
    pub open: u64,
    /// Levels of books that were compared with them; exclusive runs only.
    pub levels: u64,
    /// Cents in all accounts of the run.
    pub cash_cents: u64,
    /// What was refused, by reason: answers, no errors.
    pub refused: BTreeMap<String, u64>,
    /// What is wrong, by kind.
    pub problems: BTreeMap<&'static str, Vec<String>>,
}

impl Verification {
    /// Whether all of it adds up and every outcome is known.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, trades, open, levels, cash_cents, refused, problems } = self;
        for (cause, count) in refused {
            writeln!(f, "refused {count:>8}  {cause}")?;
        }
        let verdict = if self.ok() { "verified" } else { "NOT VERIFIED" };
        write!(f, "{verdict}: {orders} orders read back, {trades} trades seen from both sides, {open} orders open, ")?;
        write!(f, "{levels} levels of books, {} in all accounts", Cents(*cash_cents))?;
        for (kind, cases) in problems {
            write!(f, "\n  {kind} ({}):", cases.len())?;
            for case in cases.iter().take(MAX_SHOWN) {
                write!(f, "\n    {case}")?;
            }
            if cases.len() > MAX_SHOWN {
                write!(f, "\n    and {} more (all of them with --json)", cases.len() - MAX_SHOWN)?;
            }
        }
        Ok(())
    }
}

/// An account as it is at the end.
struct Final {
    account: Account,
    orders: BTreeMap<u64, Order>,
    balance: Option<Balance>,
}

/// Reads everything back and compares.
pub(crate) async fn verify(market: &Arc<Market>, traders: Vec<Trader>) -> anyhow::Result<Verification> {
    let (mut troubles, mut readers) = (Troubles::default(), JoinSet::new());
    for (number, mut trader) in (0..).zip(traders) {
        troubles.append(std::mem::take(&mut trader.troubles));
        readers.spawn(read_back(Client::new(Arc::clone(&market.shared), number), trader.accounts));
    }
    let mut finals: Vec<Final> = gather(readers).await?.into_iter().flatten().collect();
    let mut result = Verification::default();
    for one in &mut finals {
        troubles.append(std::mem::take(&mut one.account.troubles));
        compare(market, one, &mut troubles);
        result.orders += one.account.placed.len() as u64;
        result.open += one.orders.values().filter(|order| order.status == Status::Open).count() as u64;
        result.cash_cents += one.balance.as_ref().map_or(0, |balance| balance.cash.0);
        for (cause, count) in std::mem::take(&mut one.account.refused) {
            *result.refused.entry(cause).or_default() += count;
        }
    }
    let exclusive = market.options.run.exclusive;
    let trades = pair(&finals, exclusive, &mut troubles);
    result.trades = trades.len() as u64;
    let mut client = Client::new(Arc::clone(&market.shared), 0);
    for stock in &market.stocks {
        let path = |rest: &str| format!("/stocks/{}/{rest}", path_segment(&stock.name));
        match client.read::<Vec<Trade>>("read", &Call::get(&path(&format!("trades?limit={PAGE}")))).await {
            Ok(shown) => compare_trades(&stock.name, &shown, &trades, exclusive, &mut troubles),
            Err(failure) => troubles.add("unreadable", format!("trades of {}: {}", stock.name, failure.cause)),
        }
        if exclusive {
            match client.read::<Book>("read", &Call::get(&path(&format!("book?depth={PAGE}")))).await {
                Ok(book) => result.levels += compare_book(&stock.name, &book, &finals, &mut troubles),
                Err(failure) => troubles.add("unreadable", format!("book of {}: {}", stock.name, failure.cause)),
            }
        }
    }
    if exclusive {
        compare_sums(market, &finals, &trades, &mut troubles).await?;
    }
    result.problems = troubles.0;
    Ok(result)
}

async fn read_back(mut client: Client, accounts: Vec<Account>) -> Vec<Final> {
    let mut finals = Vec::new();
    for mut account in accounts {
        let orders = all_orders(&mut client, &account).await.unwrap_or_else(|failure| {
            account.troubles.add("unreadable", format!("orders of {}: {}", account.name, failure.cause));
            account.vague = true;
            BTreeMap::new()
        });
        let balance = match account.ask::<Balance>(&mut client, "").await {
            Ok(balance) => Some(balance),
            Err(failure) => {
                account.troubles.add("unreadable", format!("{}: {}", account.name, failure.cause));
                None
            }
        };
        finals.push(Final { account, orders, balance });
    }
    finals
}

/// All orders of an account, page by page until there are none left: a page may be shorter than was asked for.
async fn all_orders(client: &mut Client, account: &Account) -> Result<BTreeMap<u64, Order>, Failure> {
    let (mut orders, mut before) = (BTreeMap::new(), None::<u64>);
    loop {
        let before_this = before.map(|number| format!("&before={number}")).unwrap_or_default();
        let page: Vec<Order> = account.ask(client, &format!("/orders?limit={PAGE}{before_this}")).await?;
        let Some(last) = page.last().map(|order| order.order_num) else { return Ok(orders) };
        if before.is_some_and(|before| last >= before) {
            let cause = format!("the page before {before:?} goes to {last}");
            return Err(Failure { status: Some(200), cause });
        }
        before = Some(last);
        orders.extend(page.into_iter().map(|order| (order.order_num, order)));
    }
}

/// An account with what it was told.
fn compare(market: &Market, one: &mut Final, troubles: &mut Troubles) {
    let name = one.account.name.clone();
    let unread = one.orders.is_empty() && one.account.vague;
    for number in one.account.placed.keys().filter(|number| !one.orders.contains_key(number) && !unread) {
        troubles.add("lost", format!("{number} of {name}"));
    }
    for (number, order) in &one.orders {
        if !one.account.placed.contains_key(number) && !one.account.vague {
            troubles.add("never acknowledged", format!("{number} of {name}: {order:?}"));
        }
        one.account.seen(order.clone());
    }
    troubles.append(std::mem::take(&mut one.account.troubles));
    let (Some(balance), false) = (&one.balance, one.account.vague) else { return };
    let expected = worth(market, &one.account, one.orders.values());
    let holdings = balance.holdings.iter().map(|holding| (holding.name.clone(), (holding.quantity, holding.reserved)));
    let found = (i128::from(balance.cash.0), balance.reserved_cash.0, holdings.collect::<BTreeMap<_, _>>());
    if found != expected {
        troubles.add("not conserved", format!("{name} has {found:?}, and should have {expected:?}"));
    }
}

/// What an account must have: cents, cents reserved, and of each stock how many and how many reserved.
fn worth<'a>(
    market: &Market,
    account: &Account,
    orders: impl Iterator<Item = &'a Order>,
) -> (i128, u64, BTreeMap<String, (u64, u64)>) {
    let (mut cash, mut reserved_cash) = (i128::from(account.cash), 0);
    let mut stocks: BTreeMap<String, (i128, u64)> = BTreeMap::new();
    for (index, quantity) in &account.stocks {
        stocks.entry(market.stocks[*index].name.clone()).or_default().0 += i128::from(*quantity);
    }
    for order in orders {
        let sign = if order.side == Side::Buy { 1 } else { -1 };
        let of_stock = stocks.entry(order.name.clone()).or_default();
        for fill in &order.fills {
            cash -= sign * i128::from(fill.price.0) * i128::from(fill.quantity);
            of_stock.0 += sign * i128::from(fill.quantity);
        }
        if order.status == Status::Open {
            match order.side {
                Side::Buy => reserved_cash += order.price.map_or(0, |price| price.0) * order.remaining,
                Side::Sell => of_stock.1 += order.remaining,
            }
        }
    }
    // Less than none is no quantity that anybody could be shown.
    let whole = |(name, (owned, reserved))| (name, (u64::try_from(owned).unwrap_or(u64::MAX), reserved));
    let stocks = stocks.into_iter().map(whole).filter(|(_, (owned, _))| *owned > 0).collect();
    (cash, reserved_cash, stocks)
}

/// One side of a trade.
#[derive(Clone, Copy)]
struct Half<'a> {
    order: &'a Order,
    account: u32,
    price: Cents,
    quantity: u64,
}

/// A trade that was seen from both sides, as everybody should see it.
struct Paired {
    name: String,
    trade: Trade,
}

/// Brings the two sides of each trade together.
fn pair(finals: &[Final], exclusive: bool, troubles: &mut Troubles) -> BTreeMap<u64, Paired> {
    let mut halves: BTreeMap<u64, Vec<Half<'_>>> = BTreeMap::new();
    for one in finals {
        for order in one.orders.values() {
            for fill in &order.fills {
                let (account, price, quantity) = (one.account.index, fill.price, fill.quantity);
                halves.entry(fill.trade).or_default().push(Half { order, account, price, quantity });
            }
        }
    }
    let vague = finals.iter().any(|one| one.account.vague);
    let mut paired = BTreeMap::new();
    for (trade, halves) in halves {
        match paired_up(&halves) {
            Ok(Some((name, price, quantity, side))) => {
                let trade = Trade { trade, price, quantity, side };
                paired.insert(trade.trade, Paired { name, trade });
            }
            // The other side is somebody else's, or could not be read.
            Ok(None) if !exclusive || vague => {}
            Ok(None) => troubles.add("unpaired trade", format!("{trade} is in one order alone")),
            Err(why) => troubles.add("unpaired trade", format!("{trade}: {why}")),
        }
    }
    paired
}

/// Stock, price, quantity and the taker's side; none where only one side is known.
fn paired_up(halves: &[Half<'_>]) -> Result<Option<(String, Cents, u64, Side)>, String> {
    let [first, second] = halves else {
        return if halves.len() == 1 { Ok(None) } else { Err(format!("it is in {} orders", halves.len())) };
    };
    // Who has the lower number stood there first.
    let (maker, taker) = if first.order.order_num < second.order.order_num { (first, second) } else { (second, first) };
    let orders = || format!("{:?} and {:?}", maker.order, taker.order);
    if maker.account == taker.account {
        return Err(format!("an account traded with itself: {}", orders()));
    }
    if maker.order.side == taker.order.side || maker.order.name != taker.order.name {
        return Err(format!("nobody sold what was bought: {}", orders()));
    }
    if (maker.price, maker.quantity) != (taker.price, taker.quantity) || maker.order.price != Some(maker.price) {
        return Err(format!("it was not at the price of the order that rested: {}", orders()));
    }
    Ok(Some((maker.order.name.clone(), maker.price, maker.quantity, taker.order.side)))
}

/// What everybody is shown of the last trades.
fn compare_trades(
    name: &str,
    shown: &[Trade],
    trades: &BTreeMap<u64, Paired>,
    exclusive: bool,
    troubles: &mut Troubles,
) {
    if shown.windows(2).any(|pair| pair[0].trade <= pair[1].trade) {
        troubles.add("trades shown wrongly", format!("{name}: not newest first"));
    }
    for trade in shown {
        match trades.get(&trade.trade) {
            Some(paired) if paired.name == name && paired.trade == *trade => {}
            None if !exclusive => {}
            other => {
                let own = other.map(|paired| (&paired.name, &paired.trade));
                troubles.add("trades shown wrongly", format!("{name}: {trade:?}, and its orders say {own:?}"));
            }
        }
    }
    let oldest = shown.last().map_or(0, |trade| trade.trade);
    let seen: BTreeSet<u64> = shown.iter().map(|trade| trade.trade).collect();
    let full = shown.len() == PAGE;
    let missing = trades.values().filter(|paired| paired.name == name && (!full || paired.trade.trade >= oldest));
    for paired in missing.filter(|paired| !seen.contains(&paired.trade.trade)) {
        troubles.add("trades shown wrongly", format!("{name}: {:?} is not shown", paired.trade));
    }
}

/// The book must be the open orders, level by level, as far as it is shown.
fn compare_book(name: &str, book: &Book, finals: &[Final], troubles: &mut Troubles) -> u64 {
    let (mut bids, mut asks) = (BTreeMap::<Cents, u64>::new(), BTreeMap::<Cents, u64>::new());
    let open = finals.iter().flat_map(|one| one.orders.values()).filter(|order| order.status == Status::Open);
    for order in open.filter(|order| order.name == name) {
        let side = if order.side == Side::Buy { &mut bids } else { &mut asks };
        *side.entry(order.price.unwrap_or_default()).or_default() += order.remaining;
    }
    let expected =
        Book { bids: bids.into_iter().rev().take(PAGE).collect(), asks: asks.into_iter().take(PAGE).collect() };
    if *book != expected {
        troubles.add("book is not the open orders", format!("{name}: {book:?}, and open are {expected:?}"));
    }
    (book.bids.len() + book.asks.len()) as u64
}

/// All accounts together, and the volumes of the stocks.
async fn compare_sums(
    market: &Market,
    finals: &[Final],
    trades: &BTreeMap<u64, Paired>,
    troubles: &mut Troubles,
) -> anyhow::Result<()> {
    if finals.iter().any(|one| one.account.vague || one.balance.is_none()) {
        return Ok(());
    }
    let brought: u64 = finals.iter().map(|one| one.account.cash).sum();
    let balances = || finals.iter().filter_map(|one| one.balance.as_ref());
    let held: u64 = balances().map(|balance| balance.cash.0).sum();
    if brought != held {
        troubles.add("not conserved", format!("{} was brought in, {} is held", Cents(brought), Cents(held)));
    }
    let after = list_stocks(&market.shared).await?;
    let after: BTreeMap<&str, &Listed> = after.iter().map(|stock| (stock.name.as_str(), stock)).collect();
    for (index, stock) in market.stocks.iter().enumerate() {
        let brought: u64 = finals.iter().filter_map(|one| one.account.stocks.get(&index)).sum();
        let of_this = balances().flat_map(|balance| &balance.holdings).filter(|holding| holding.name == stock.name);
        let held: u64 = of_this.map(|holding| holding.quantity).sum();
        if brought != held {
            troubles.add("not conserved", format!("{brought} {} were brought in, {held} are held", stock.name));
        }
        let traded: u64 = trades.values().filter(|paired| paired.name == stock.name).map(|p| p.trade.quantity).sum();
        let moved = after.get(stock.name.as_str()).map(|after| after.volume.saturating_sub(stock.volume));
        if moved != Some(traded) {
            troubles.add(
                "stock moved wrongly",
                format!("{}: {traded} were traded, the volume moved by {moved:?}", stock.name),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::wire::Fill;

    fn order(order_num: u64, side: Side, cents: u64, fills: &[(u64, u64, u64)]) -> Order {
        let fills: Vec<_> = fills
            .iter()
            .map(|(trade, cents, quantity)| Fill { trade: *trade, price: Cents(*cents), quantity: *quantity })
            .collect();
        let filled = fills.iter().map(|fill| fill.quantity).sum();
        let (name, time_in_force) = ("A".to_owned(), "gtc".to_owned());
        let status = if filled == 5 { Status::Filled } else { Status::Open };
        let price = Some(Cents(cents));
        Order { order_num, name, side, quantity: 5, price, time_in_force, status, filled, remaining: 5 - filled, fills }
    }

    fn halves(orders: &[(u32, Order)]) -> Vec<Half<'_>> {
        let half = |(account, order): &'_ (u32, Order)| (*account, order.fills[0]);
        orders
            .iter()
            .map(|one| {
                let (account, fill) = half(one);
                Half { order: &one.1, account, price: fill.price, quantity: fill.quantity }
            })
            .collect()
    }

    #[test]
    fn a_trade_has_two_sides_that_agree() {
        let fill = [(1, 300, 2)];
        let (sell, buy) = (order(1, Side::Sell, 300, &fill), order(2, Side::Buy, 400, &fill));
        let check = |orders: &[(u32, Order)], expected: Result<bool, &str>| match (paired_up(&halves(orders)), expected)
        {
            (Ok(found), Ok(paired)) => assert_eq!(found.is_some(), paired),
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        };
        check(&[(0, sell.clone()), (1, buy.clone())], Ok(true));
        check(&[(1, buy.clone()), (0, sell.clone())], Ok(true));
        check(&[(0, sell.clone())], Ok(false));
        check(&[(0, sell.clone()), (0, buy.clone())], Err("with itself"));
        check(&[(0, sell.clone()), (1, Order { side: Side::Sell, ..buy.clone() })], Err("nobody sold"));
        check(&[(0, sell.clone()), (1, Order { name: "B".to_owned(), ..buy.clone() })], Err("nobody sold"));
        check(&[(0, Order { price: Some(Cents(200)), ..sell.clone() }), (1, buy.clone())], Err("price of the order"));
        check(&[(0, sell.clone()), (1, order(2, Side::Buy, 400, &[(1, 300, 3)]))], Err("price of the order"));
        check(&[(0, sell), (1, buy.clone()), (2, buy)], Err("in 3 orders"));
    }

    #[test]
    fn trades_that_are_shown_are_those_of_the_orders() {
        let shown = |trade, cents| Trade { trade, price: Cents(cents), quantity: 2, side: Side::Buy };
        let own: BTreeMap<u64, Paired> =
            [1, 2].map(|number| (number, Paired { name: "A".to_owned(), trade: shown(number, 300) })).into();
        let check = |trades: &[Trade], exclusive, expected: usize| {
            let mut troubles = Troubles::default();
            compare_trades("A", trades, &own, exclusive, &mut troubles);
            assert_eq!(troubles.0.values().map(Vec::len).sum::<usize>(), expected, "{trades:?}: {troubles:?}");
        };
        check(&[shown(2, 300), shown(1, 300)], true, 0);
        check(&[shown(1, 300), shown(2, 300)], true, 1);
        check(&[shown(2, 300)], true, 1);
        check(&[shown(2, 301), shown(1, 300)], true, 1);
        check(&[shown(3, 300), shown(2, 300), shown(1, 300)], true, 1);
        check(&[shown(3, 300), shown(2, 300), shown(1, 300)], false, 0);
    }
}
