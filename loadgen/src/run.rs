//! One run: load, then the comparison, then the report.
//!
//! The order is what makes the result trustworthy: the list of stocks first (it fixes what the seed means), the load
//! with everything acknowledged kept, and only when the last outcome is known the reading back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::closed;
use crate::endpoints::Endpoints;
use crate::exchange::{Client, Outcome, Shared};
use crate::fresh::Freshness;
use crate::hlog::IntervalLog;
use crate::open::{self, Schedule};
use crate::options::{Load, RunOptions};
use crate::plan::{Chance, Plan};
use crate::progress::Progress;
use crate::recorder::{Kind, Recorder, Times};
use crate::report::Report;
use crate::verify::{Ledger, Placed, Subject, Unplaced, verify};
use crate::wire::{Side, Stock, Trade};

/// How many read back at once at the end. That is no part of the load, and must not go on with it where there are thousands
/// of clients.
const READERS_MAX: u32 = 64;

/// What every client of a run knows.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stocks: Vec<Stock>,
    pub(crate) fresh: Freshness,
    pub(crate) options: RunOptions,
    /// Sets this run's keys apart from those of every other run, the same seed's included: a key used again would be
    /// answered with the old run's order.
    run: u64,
}

/// What a client hands back.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) ledger: Ledger,
    pub(crate) opened: u64,
    /// The client ended early, for nothing was answered for a whole deadline.
    pub(crate) gave_up: bool,
}

/// Runs `options` and verifies every acknowledged trade.
///
/// Must be called within a Tokio runtime with time and I/O. Ends by itself: each request, trade and read has its
/// deadline. Dropping the future leaves trades under way whose outcome nobody will learn.
///
/// # Errors
/// Where the options cannot be run or no frontend lists its stocks within the deadline. What goes wrong later is part
/// of the report, whose [`Report::ok`] tells.
pub async fn run(options: RunOptions) -> anyhow::Result<Report> {
    run_told(options, None).await
}

/// A run that has begun.
pub(crate) struct Begun {
    pub(crate) start: Instant,
    /// Its `stop` ends a closed loop.
    pub(crate) shared: Arc<Shared>,
}

/// As [`run`], and tells somebody when the load begins.
pub(crate) async fn run_told(options: RunOptions, tell: Option<oneshot::Sender<Begun>>) -> anyhow::Result<Report> {
    options.check()?;
    let shared = Arc::new(Shared {
        endpoints: Endpoints::choose(&options).await?,
        recorder: recorder(&options),
        request_timeout: options.request_timeout,
        deadline: options.deadline,
        stop: AtomicBool::new(false),
    });
    let stocks = list_stocks(&shared).await?;
    let start = shared.recorder.begin();
    if let Some(tell) = tell {
        // Nobody waits for it any more: the run goes on all the same.
        let _ = tell.send(Begun { start, shared: Arc::clone(&shared) });
    }
    let fresh = Freshness::new(&stocks, start);
    let context = Arc::new(Context { shared, stocks, fresh, run: rand::random(), options });
    let processor = processor_time();
    let done = load(&context).await?;
    let elapsed = start.elapsed();
    let processor = processor_time().saturating_sub(processor).as_secs_f64() / elapsed.as_secs_f64();
    tokio::time::sleep(context.options.rest).await;
    finish(&context, done, elapsed, processor).await
}

pub(crate) fn recorder(options: &RunOptions) -> Recorder {
    let recorder = Recorder::new(options.warmup, options.timeline);
    if options.interval_log { recorder.with_interval_log() } else { recorder }
}

async fn list_stocks(shared: &Arc<Shared>) -> anyhow::Result<Vec<Stock>> {
    let stocks = Client::new(Arc::clone(shared), 0).stocks().await.map_err(|failure| {
        anyhow::anyhow!(
            "{} did not list its stocks: {}; is it running, and ready (GET /readyz)?",
            shared.endpoints.url(shared.endpoints.choice()),
            failure.cause
        )
    })?;
    anyhow::ensure!(!stocks.is_empty(), "the exchange lists no stocks: start its catalog with at least one");
    Ok(stocks)
}

/// Starts all clients and waits for the last.
async fn load(context: &Arc<Context>) -> anyhow::Result<Done> {
    let _progress = context.options.progress.then(|| Progress::show(Arc::clone(&context.shared)));
    let clients = context.options.clients;
    match context.options.load {
        Load::Iterations(_) | Load::ClosedFor(_) => {
            gather((0..clients).map(|number| closed::client(Arc::clone(context), number)).collect()).await
        }
        Load::Open { rate, duration } => {
            let schedule = Arc::new(Schedule::new(context, rate, context.options.warmup + duration));
            let _pacer = schedule.pace(clients)?;
            let connect = |number| open::connection(Arc::clone(context), Arc::clone(&schedule), number);
            gather((0..clients).map(connect).collect()).await
        }
    }
}

async fn gather(mut clients: JoinSet<Done>) -> anyhow::Result<Done> {
    let mut all = Done::default();
    while let Some(one) = clients.join_next().await {
        let one = one?;
        all.ledger.append(one.ledger);
        all.opened += one.opened;
        all.gave_up |= one.gave_up;
    }
    Ok(all)
}

/// Verifies and sums up.
async fn finish(context: &Context, done: Done, elapsed: Duration, processor: f64) -> anyhow::Result<Report> {
    let subject = Subject {
        before: context.stocks.clone(),
        quantity: context.options.quantity,
        exclusive: context.options.exclusive,
        readers: context.options.clients.min(READERS_MAX),
    };
    let counts = context.shared.recorder.counts();
    let (mut verification, opened) = verify(&context.shared, done.ledger, &subject).await?;
    verification.lookups = counts.lookups;
    verification.stale = context.fresh.stale();
    let recorded = context.shared.recorder.take();
    let endpoints = &context.shared.endpoints;
    let choice = endpoints.choice();
    let start = context.shared.recorder.start();
    Ok(Report {
        seed: context.options.seed,
        frontends: endpoints.known(),
        frontend: endpoints.url(choice).to_string(),
        frontend_changes: choice.generation,
        spread: context.options.spread,
        clients: context.options.clients,
        connections: done.opened + opened,
        elapsed: elapsed.saturating_sub(context.options.warmup),
        requests: recorded
            .latencies
            .iter()
            .filter(|(kind, _)| **kind != Kind::OrderRead)
            .map(|(_, l)| l.sent.len())
            .sum(),
        latencies: recorded.latencies,
        counts,
        errors: recorded.errors,
        longest_gap: recorded.gap,
        since_last_trade: recorded.last_trade.map(|last| (start + elapsed).saturating_duration_since(last)),
        gave_up: done.gave_up,
        timeline: recorded.timeline,
        trade_times: recorded.trade_times,
        error_times: recorded.error_times,
        schedule_lag: matches!(context.options.load, Load::Open { .. }).then_some(recorded.lag),
        processor,
        interval_log: recorded.interval_log.map(IntervalLog::end).unwrap_or_default(),
        verification,
    })
}

/// What this process has used of the processors so far.
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

impl Context {
    /// The plan of one client.
    pub(crate) fn plan(&self, client: u32) -> Plan {
        let options = &self.options;
        Plan::new(options.seed, client, self.stocks.len(), options.trade_probability, options.sides)
    }

    /// Trades and notes in `ledger` what became of it. `key` numbers the trade within the run.
    pub(crate) async fn trade(&self, client: &mut Client, stock: usize, side: Side, key: Key, ledger: &mut Ledger) {
        let name = &self.stocks[stock].name;
        let quantity = self.options.quantity;
        let text = format!("loadgen-{:016x}-{}-{}", self.run, key.client, key.trade);
        let sent = Instant::now();
        let outcome = client.trade(&Trade { name, quantity, side }, &text).await;
        let unplaced = |cause| Unplaced { key: text.clone(), name: name.clone(), quantity, cause };
        match outcome {
            Outcome::Acknowledged { number } => {
                let times = Times { intended: key.intended.unwrap_or(sent), sent, done: Instant::now() };
                self.shared.recorder.success(Kind::Trade, times);
                self.fresh.acknowledged(stock, quantity);
                ledger.placed.push(Placed { number, stock: u32::try_from(stock).unwrap_or(u32::MAX), side });
            }
            Outcome::NoStocksLeft => self.shared.recorder.count(|counts| counts.refused += 1),
            Outcome::Rejected(failure) => ledger.rejected.push(unplaced(failure.cause)),
            Outcome::Unknown(failure) => ledger.unknown.push(unplaced(failure.cause)),
        }
    }

    /// Reads one of the orders in `ledger` back while the load goes on, by chance.
    pub(crate) async fn reread(&self, client: &mut Client, chance: &mut Chance, ledger: &mut Ledger) {
        if let Some(placed) = chance.pick(self.options.reread, &ledger.placed) {
            let asked = Trade {
                name: &self.stocks[placed.stock as usize].name,
                quantity: self.options.quantity,
                side: placed.side,
            };
            ledger.reads.read(&self.shared.recorder, client, placed.number, &asked).await;
        }
    }

    /// Looks a stock up and says how many are left; none where the attempt failed.
    pub(crate) async fn lookup(&self, client: &mut Client, stock: usize, intended: Option<Instant>) -> Option<u64> {
        let sent = Instant::now();
        let asked = self.fresh.asked(stock);
        match client.lookup(&self.stocks[stock].name).await {
            Ok(lookup) => {
                let kind = if lookup.hit { Kind::LookupHit } else { Kind::LookupMiss };
                let times = Times { intended: intended.unwrap_or(sent), sent, done: Instant::now() };
                self.shared.recorder.success(kind, times);
                self.fresh.answered(asked, lookup.stock.volume);
                Some(lookup.stock.quantity)
            }
            Err(_) => {
                self.shared.recorder.count(|counts| counts.lookups_failed += 1);
                None
            }
        }
    }
}

/// Which trade of which client, and when it should start.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(crate) client: u32,
    pub(crate) trade: u64,
    /// In an open loop; a closed loop's trade should start when it does.
    pub(crate) intended: Option<Instant>,
}
