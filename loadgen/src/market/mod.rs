//! The market: many accounts that trade with each other, and a count of every cent at the end.
//!
//! Problem: that a book matches is seen by looking; that no cent, stock or order is lost over a failover is seen only by
//! whoever knows what all of it must add up to. Idea: the accounts are this run's own, each called by one client alone, so
//! what every one of them must have follows from what its client was told; and every trade is seen from both of its sides.
//! Rule: a call is repeated under its key until its outcome is known, and what was answered must stand at the end.

mod account;
mod report;
mod trader;
mod verify;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

pub use report::MarketReport;
pub use verify::Verification;

use crate::connection::Call;
use crate::endpoints::Endpoints;
use crate::exchange::{Client, Shared};
use crate::market::account::Troubles;
use crate::market::trader::Trader;
use crate::market::wire::{Book, Listed};
use crate::options::{Load, RunOptions};
use crate::progress::Progress;
use crate::run::{processor_time, recorder};
use crate::url::path_segment;

/// Most accounts of a run: as many as the exchange has at most.
pub const MAX_ACCOUNTS: u32 = 100_000;
/// Most orders of a run: about 500 bytes are kept of each.
pub const MAX_ORDERS: u64 = 5_000_000;

/// Everything [`market`] is told.
#[derive(Clone, Debug)]
pub struct MarketOptions {
    /// Frontends, clients, seed and times. Of its load only the duration counts; `exclusive`: no other account trades or
    /// has orders in the books.
    pub run: RunOptions,
    /// How many accounts are opened.
    pub accounts: u32,
    /// Ends when so many orders were placed, instead of after a time.
    pub orders: Option<u64>,
}

impl MarketOptions {
    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// A sentence naming the option and its limit.
    pub fn check(&self) -> anyhow::Result<()> {
        self.run.check()?;
        anyhow::ensure!(
            (2..=MAX_ACCOUNTS).contains(&self.accounts),
            "--accounts is {}: choose 2 to {MAX_ACCOUNTS}",
            self.accounts
        );
        anyhow::ensure!(
            self.orders.is_none_or(|orders| (1..=MAX_ORDERS).contains(&orders)),
            "--orders is above {MAX_ORDERS}, or 0: run it in parts"
        );
        Ok(())
    }
}

/// What every client of a run knows.
pub(crate) struct Market {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stocks: Vec<Listed>,
    pub(crate) options: MarketOptions,
    /// Orders placed by all.
    pub(crate) orders: AtomicU64,
    /// Sets this run's accounts apart from those of every other.
    pub(crate) run: u64,
}

/// Runs the market and verifies all of it.
///
/// Must be called within a Tokio runtime with time and I/O. Ends by itself, as every call has its deadline.
///
/// # Errors
/// Where the options cannot be run, no frontend lists its stocks, or the accounts cannot be opened. What goes wrong later is
/// part of the report, whose [`MarketReport::ok`] tells.
pub async fn market(options: MarketOptions) -> anyhow::Result<MarketReport> {
    options.check()?;
    let shared = Arc::new(Shared {
        endpoints: Endpoints::choose(&options.run).await?,
        recorder: recorder(&options.run),
        request_timeout: options.run.request_timeout,
        deadline: options.run.deadline,
        stop: AtomicBool::new(false),
    });
    let stocks = list_stocks(&shared).await?;
    if options.run.exclusive {
        ensure_empty(&shared, &stocks).await?;
    }
    shared.recorder.begin();
    let orders = AtomicU64::new(0);
    let market = Arc::new(Market { shared, stocks, options, orders, run: rand::random() });
    let progress = market.options.run.progress.then(|| Progress::show(Arc::clone(&market.shared)));
    let clients = market.options.run.clients.min(market.options.accounts);
    let traders = gather((0..clients).map(|number| Trader::open(Arc::clone(&market), number)).collect()).await?;
    let traders = traders.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (start, processor) = (Instant::now(), processor_time());
    let traders = gather(traders.into_iter().map(Trader::trade).collect()).await?;
    let elapsed = start.elapsed();
    let processor = processor_time().saturating_sub(processor).as_secs_f64() / elapsed.as_secs_f64();
    drop(progress);
    let mut recorded = market.shared.recorder.take();
    if let Some(gap) = &mut recorded.gap {
        // The recorder's clock began with the first account.
        gap.from = gap.from.saturating_sub(start.saturating_duration_since(market.shared.recorder.start()));
    }
    let gave_up = traders.iter().any(|trader| trader.gave_up);
    let verification = verify::verify(&market, traders).await?;
    Ok(MarketReport::new(&market, recorded, (elapsed, processor), gave_up, verification))
}

async fn list_stocks(shared: &Arc<Shared>) -> anyhow::Result<Vec<Listed>> {
    let mut client = Client::new(Arc::clone(shared), 0);
    let stocks = client.read::<Vec<Listed>>("lookup", &Call::get("/stocks")).await.map_err(|failure| {
        let url = shared.endpoints.url(shared.endpoints.choice());
        anyhow::anyhow!("{url} did not list its stocks: {}; is it running, and ready (GET /readyz)?", failure.cause)
    })?;
    anyhow::ensure!(!stocks.is_empty(), "the exchange lists no stocks: start its catalog with at least one");
    Ok(stocks)
}

/// Whoever says that nobody else trades must find empty books.
async fn ensure_empty(shared: &Arc<Shared>, stocks: &[Listed]) -> anyhow::Result<()> {
    let mut client = Client::new(Arc::clone(shared), 0);
    for stock in stocks {
        let path = format!("/stocks/{}/book", path_segment(&stock.name));
        let book = client.read::<Book>("read", &Call::get(&path)).await;
        let book = book.map_err(|failure| anyhow::anyhow!("{path} could not be read: {}", failure.cause))?;
        anyhow::ensure!(
            book.bids.is_empty() && book.asks.is_empty(),
            "there are orders in the book of {}: leave --exclusive out, or start a new exchange",
            stock.name
        );
    }
    Ok(())
}

/// What all of them give, in whatever order.
async fn gather<T: Send + 'static>(mut tasks: JoinSet<T>) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(one) = tasks.join_next().await {
        all.push(one?);
    }
    Ok(all)
}

impl Market {
    /// How long accounts trade; none where the orders decide.
    pub(crate) fn duration(&self) -> Option<Duration> {
        match (self.options.orders, self.options.run.load) {
            (None, Load::ClosedFor(time) | Load::Open { duration: time, .. }) => Some(time),
            _ => None,
        }
    }
}
