//! One client and the accounts that it trades for, in turn.
//!
//! Half of the accounts are makers: they quote around the house's price, and cancel and quote again. The other half are
//! takers: they hit what stands there. So books have some depth, and most orders either trade at once or are cancelled, as
//! on a real exchange. What is asked for follows from the seed and from what was answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use crate::connection::Call;
use crate::exchange::{Client, Failure};
use crate::market::account::{Account, Wish, success};
use crate::market::wire::{Asset, Balance, Book, Cents, Order};
use crate::market::{Market, Troubles};
use crate::plan::stream;
use crate::recorder::Kind;
use crate::wire::Side;

/// What each account starts with: 1,000,000.00, and 1,000 each of this many stocks.
const CASH: u64 = 100_000_000;
const STOCKS: u64 = 1_000;
const STOCKS_EACH: usize = 2;
/// Open orders of one account; with more, it cancels.
const OPEN_MOST: usize = 20;
/// A tick is this part of the house's price, and at least a cent.
const TICKS: u64 = 1_000;
/// Most stocks of one order.
const QUANTITY_MOST: u64 = 10;

/// What an account does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Quote,
    Immediate(&'static str),
    Market,
    Cancel,
    Transfer,
    Look,
}

/// In percent: quotes, cancels, market orders, `ioc`, `fok`, transfers. The rest looks.
const MAKER: [u64; 6] = [50, 38, 0, 0, 0, 4];
const TAKER: [u64; 6] = [20, 12, 25, 22, 12, 4];

/// A client with its accounts.
pub(crate) struct Trader {
    market: Arc<Market>,
    client: Client,
    random: Xoshiro256PlusPlus,
    pub(crate) accounts: Vec<Account>,
    pub(crate) troubles: Troubles,
    /// Ended early, for nothing was answered for a whole deadline.
    pub(crate) gave_up: bool,
}

impl Trader {
    /// Opens the accounts of client `number`, and fills them.
    pub(crate) async fn open(market: Arc<Market>, number: u32) -> anyhow::Result<Self> {
        let mut client = Client::new(Arc::clone(&market.shared), number);
        let random = Xoshiro256PlusPlus::seed_from_u64(stream(market.options.run.seed, number));
        let clients = market.options.run.clients.min(market.options.accounts);
        let (mut accounts, mut index) = (Vec::new(), number);
        while index < market.options.accounts {
            let name = format!("lg-{:016x}-{index}", market.run);
            let opened = Account::open(&mut client, &market.shared, name.clone(), index).await;
            let mut account = opened.map_err(|failure| {
                anyhow::anyhow!("{name} was not opened: {}; does this exchange have accounts?", failure.cause)
            })?;
            let cash = (Asset::Cash { amount: Cents(CASH) }, None);
            account.transfer(&mut client, &market.shared, "deposits", cash).await;
            for stock in own_stocks(index as usize, market.stocks.len()) {
                let asset = Asset::Stock { name: &market.stocks[stock].name, quantity: STOCKS };
                account.transfer(&mut client, &market.shared, "deposits", (asset, Some(stock))).await;
            }
            anyhow::ensure!(account.troubles.0.is_empty(), "{} was not filled: {:?}", account.name, account.troubles.0);
            accounts.push(account);
            index += clients;
        }
        Ok(Self { market, client, random, accounts, troubles: Troubles::default(), gave_up: false })
    }

    /// Lets the accounts act in turn, until the time is over or enough orders were placed.
    pub(crate) async fn trade(mut self) -> Self {
        let end = self.market.duration().map(|time| Instant::now() + time);
        let most = self.market.options.orders.unwrap_or(super::MAX_ORDERS);
        let mut turn = 0;
        while end.is_none_or(|end| Instant::now() < end)
            && self.market.orders.load(Ordering::Relaxed) < most
            && !self.market.shared.stop.load(Ordering::Relaxed)
        {
            let at = turn % self.accounts.len();
            let maker = self.accounts[at].index.is_multiple_of(2);
            self.act(at, maker).await;
            // A whole deadline without an answer: the exchange is away, and the next call would find the same.
            if self.accounts[at].vague {
                self.gave_up = true;
                break;
            }
            turn += 1;
            if !self.market.options.run.think.is_zero() {
                tokio::time::sleep(self.market.options.run.think).await;
            }
        }
        self
    }

    fn draw(&mut self, end: u64) -> u64 {
        self.random.random_range(0..end)
    }

    fn step(&mut self, maker: bool, open: usize) -> Step {
        let shares = if maker { MAKER } else { TAKER };
        let steps =
            [Step::Quote, Step::Cancel, Step::Market, Step::Immediate("ioc"), Step::Immediate("fok"), Step::Transfer];
        let mut drawn = self.draw(100);
        let mut step = Step::Look;
        for (share, candidate) in shares.into_iter().zip(steps) {
            if drawn < share {
                step = candidate;
                break;
            }
            drawn -= share;
        }
        match step {
            Step::Cancel if open == 0 => Step::Quote,
            Step::Quote if open >= OPEN_MOST => Step::Cancel,
            step => step,
        }
    }

    async fn act(&mut self, at: usize, maker: bool) {
        let step = self.step(maker, self.accounts[at].open.len());
        let market = Arc::clone(&self.market);
        let shared = &market.shared;
        match step {
            Step::Cancel => self.accounts[at].cancel(&mut self.client, shared).await,
            Step::Look => self.look(at).await,
            Step::Transfer => {
                let (amount, way) = (Cents(self.draw(10_000) + 1), ["deposits", "withdrawals"][usize::from(maker)]);
                let asset = (Asset::Cash { amount }, None);
                self.accounts[at].transfer(&mut self.client, shared, way, asset).await;
            }
            Step::Quote | Step::Immediate(_) | Step::Market => {
                let wish = self.wish(at, step, maker);
                let name = &market.stocks[wish.stock].name;
                if self.accounts[at].place(&mut self.client, shared, wish, name).await {
                    market.orders.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn wish(&mut self, at: usize, step: Step, maker: bool) -> Wish {
        let side = if self.draw(2) == 0 { Side::Buy } else { Side::Sell };
        let own: Vec<usize> = self.accounts[at].stocks.keys().copied().collect();
        let stock = own[usize::try_from(self.draw(own.len() as u64)).unwrap_or(0)];
        let quantity = self.draw(QUANTITY_MOST) + 1;
        let house = self.market.stocks[stock].price.0.max(1);
        let tick = (house / TICKS).max(1);
        // Makers stand up to ten ticks behind the house's price, and now and then a little before it; takers go beyond.
        let steps = self.draw(12) + 1;
        let (eager, by) = if maker { (steps > 10, steps.min(10)) } else { (true, steps / 2) };
        let up = eager == (side == Side::Buy);
        let price = if up { house + by * tick } else { house.saturating_sub(by * tick).max(1) };
        let (price, time_in_force) = match step {
            Step::Market => (None, None),
            Step::Immediate(word) => (Some(Cents(price)), Some(word)),
            _ => (Some(Cents(price)), None),
        };
        let post_only = maker && self.draw(3) == 0;
        Wish { stock, side, quantity, price, time_in_force, post_only }
    }

    /// Looks at something that must be in order at every moment.
    async fn look(&mut self, at: usize) {
        let (what, which) = (self.draw(3), self.draw(u64::MAX));
        let (account, sent) = (&mut self.accounts[at], Instant::now());
        let looked: Result<(), Failure> = match what {
            0 => account.ask::<Balance>(&mut self.client, "").await.map(|balance| {
                let over = balance.holdings.iter().any(|holding| holding.reserved > holding.quantity);
                if over || balance.reserved_cash > balance.cash {
                    account
                        .troubles
                        .add("not conserved", format!("{} reserves more than it has: {balance:?}", account.name));
                }
            }),
            1 if !account.placed.is_empty() => {
                let skip = usize::try_from(which % account.placed.len() as u64).unwrap_or(0);
                let number = account.placed.keys().nth(skip).copied().unwrap_or_default();
                account
                    .ask::<Order>(&mut self.client, &format!("/orders/{number}"))
                    .await
                    .map(|order| account.seen(order))
            }
            _ => {
                let stock = usize::try_from(which % self.market.stocks.len() as u64).unwrap_or(0);
                let name = &self.market.stocks[stock].name;
                let path = format!("/stocks/{}/book", crate::url::path_segment(name));
                self.client.read::<Book>("read", &Call::get(&path)).await.map(|book| {
                    if !in_order(&book) {
                        self.troubles.add("book out of order", format!("{name}: {book:?}"));
                    }
                })
            }
        };
        match looked {
            Ok(()) => success(&self.market.shared, Kind::MarketRead, sent),
            Err(failure) => self.troubles.add("unreadable", failure.cause),
        }
    }
}

/// Best first, and nobody bids what somebody asks.
fn in_order(book: &Book) -> bool {
    let crossed = book.bids.first().zip(book.asks.first()).is_some_and(|(bid, ask)| bid.0 >= ask.0);
    let falling = book.bids.windows(2).all(|pair| pair[0].0 > pair[1].0);
    let rising = book.asks.windows(2).all(|pair| pair[0].0 < pair[1].0);
    falling && rising && !crossed
}

/// The stocks that an account trades: few of many, so that each account meets others again and again.
fn own_stocks(account: usize, stocks: usize) -> Vec<usize> {
    let mut own: Vec<usize> = (0..STOCKS_EACH).map(|nth| (account + nth * (account / stocks + 1)) % stocks).collect();
    own.dedup();
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_best_first_and_not_crossed() {
        let side = |cents: &[u64]| cents.iter().map(|cents| (Cents(*cents), 1)).collect::<Vec<_>>();
        for (bids, asks, expected) in [
            (&[][..], &[][..], true),
            (&[3, 2], &[4, 5], true),
            (&[2, 3], &[], false),
            (&[], &[5, 4], false),
            (&[3, 3], &[], false),
            (&[4], &[4], false),
            (&[5], &[4], false),
        ] {
            let book = Book { bids: side(bids), asks: side(asks) };
            assert_eq!(in_order(&book), expected, "{book:?}");
        }
    }

    #[test]
    fn every_stock_is_somebodys() {
        for stocks in [1, 2, 12] {
            let owned: std::collections::BTreeSet<usize> =
                (0..100).flat_map(|account| own_stocks(account, stocks)).collect();
            assert_eq!(owned.len(), stocks);
        }
    }

    #[test]
    fn the_shares_of_what_accounts_do_leave_room_to_look() {
        for shares in [MAKER, TAKER] {
            assert!(shares.iter().sum::<u64>() < 100, "{shares:?}");
        }
    }
}
