//! What is measured while a run goes on.
//!
//! One recorder serves all clients. Its lock is held for a few additions and never across an await; on the one thread
//! that the command runs on it is never contended. Latencies go into HDR histograms (nanoseconds, three significant
//! digits), which keep every value of a long run in bounded memory and lose nothing at the top end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::hlog::IntervalLog;

/// Significant decimal digits kept of a latency.
const DIGITS: u8 = 3;
/// Latencies above count as this one.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// Different causes of errors that are kept apart; the rest is counted together.
const MAX_CAUSES: usize = 64;
/// Columns of a timeline: at 100 ms, nearly three hours. What comes later counts to the last.
const MAX_COLUMNS: usize = 100_000;

/// A kind of request with its own row of percentiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `GET /stocks/{name}`, answered with `X-Cache: hit`.
    LookupHit,
    /// The same, answered otherwise.
    LookupMiss,
    /// `POST /orders`, from the first attempt until it is acknowledged.
    Trade,
    /// `GET /orders/{number}`, on the way or at the end.
    OrderRead,
    /// `POST /accounts`.
    Opening,
    /// `POST /accounts/{account}/deposits` and `…/withdrawals`.
    Transfer,
    /// An account's order that may rest.
    Limit,
    /// An account's limit order that may not: `ioc` or `fok`.
    Immediate,
    /// An account's order without a limit.
    Market,
    /// `DELETE /accounts/{account}/orders/{number}`.
    Cancel,
    /// A read of an account, its orders, a book or trades, while the load goes on.
    MarketRead,
}

impl Kind {
    /// The kinds of a run with the house, in the order of every table.
    pub const ALL: [Self; 4] = [Self::LookupHit, Self::LookupMiss, Self::Trade, Self::OrderRead];

    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LookupHit => "lookup hit",
            Self::LookupMiss => "lookup miss",
            Self::Trade => "trade",
            Self::OrderRead => "order read",
            Self::Opening => "opening",
            Self::Transfer => "transfer",
            Self::Limit => "limit order",
            Self::Immediate => "ioc or fok",
            Self::Market => "market order",
            Self::Cancel => "cancel",
            Self::MarketRead => "read",
        }
    }

    /// The name in JSON, CSV and names of files.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::LookupHit => "lookup_hit",
            Self::LookupMiss => "lookup_miss",
            Self::Trade => "trade",
            Self::OrderRead => "order_read",
            Self::Opening => "opening",
            Self::Transfer => "transfer",
            Self::Limit => "limit_order",
            Self::Immediate => "ioc_or_fok",
            Self::Market => "market_order",
            Self::Cancel => "cancel",
            Self::MarketRead => "market_read",
        }
    }

    /// Whether it is a trade, or an order that may become one.
    fn is_trade(self) -> bool {
        matches!(self, Self::Trade | Self::Limit | Self::Immediate | Self::Market)
    }
}

/// Latencies of one kind of request, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Counted from when the request should have started. In a closed loop that is when it did start.
    pub intended: Histogram<u64>,
    /// Counted from when it did start. In an open loop this hides what a stalled server does to those who wait.
    pub sent: Histogram<u64>,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self { intended: empty(), sent: empty() }
    }
}

/// A histogram that grows its range to the values that come.
pub(crate) fn empty() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("three digits are within the library's bounds")
}

/// Which request an error belongs to, and what went wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorKey {
    /// `lookup`, `trade`, `read`, or the call of an account.
    pub request: &'static str,
    /// The HTTP status, where one arrived.
    pub status: Option<u16>,
    /// The message of the answer, or what broke.
    pub cause: String,
}

impl fmt::Display for ErrorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{:<13}{status}  {}", self.request, self.cause),
            None => write!(f, "{:<13}---  {}", self.request, self.cause),
        }
    }
}

/// A time without one acknowledged trade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// How long it was.
    pub length: Duration,
    /// When it began, since the start of the run.
    pub from: Duration,
}

/// One column of a timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Lookups answered.
    pub lookups: u32,
    /// Trades acknowledged.
    pub trades: u32,
    /// Attempts that failed.
    pub errors: u32,
    /// Latencies of the trades acknowledged in this column, in microseconds, unordered.
    pub trade_micros: Vec<u32>,
}

/// Numbers of things that happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Lookups answered, measured or not.
    pub lookups: u64,
    /// Lookups that failed.
    pub lookups_failed: u64,
    /// Trades acknowledged, measured or not.
    pub trades: u64,
    /// Acknowledged trades whose answer said that an earlier attempt had carried them out.
    pub replayed: u64,
    /// Trades refused because no stocks are left: an answer, not an error.
    pub refused: u64,
    /// Trades not made because the lookup found nothing left.
    pub sold_out: u64,
    /// Attempts that were repeated.
    pub retries: u64,
    /// Requests of an open loop that were given up before they started: later than they might be, or a whole deadline after
    /// the schedule's end.
    pub unsent: u64,
}

/// How late requests of an open loop started, and whose fault it was. Measured requests only.
#[derive(Clone, Debug)]
pub struct ScheduleLag {
    /// Nanoseconds by which a request started late though a connection was idle: the generator's own lag.
    pub generator: Histogram<u64>,
    /// Requests that had to wait for a free connection: the exchange was slower than the rate asks for.
    pub waited: u64,
    /// The longest such wait.
    pub longest_wait: Duration,
}

/// How a request of an open loop started, and how late.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Its connection was idle.
    Idle(Duration),
    /// All connections were busy when it was due.
    Waited(Duration),
}

/// Everything recorded.
pub(crate) struct Recorded {
    pub(crate) latencies: BTreeMap<Kind, Latency>,
    pub(crate) counts: Counts,
    pub(crate) errors: BTreeMap<ErrorKey, u64>,
    pub(crate) gap: Option<Gap>,
    pub(crate) last_trade: Option<Instant>,
    pub(crate) timeline: Vec<Column>,
    /// When each trade was acknowledged, in order, since the start; kept with the timeline only.
    pub(crate) trade_times: Vec<Duration>,
    /// When each attempt failed, in the same way.
    pub(crate) error_times: Vec<Duration>,
    pub(crate) lag: ScheduleLag,
    pub(crate) interval_log: Option<IntervalLog>,
}

impl Recorded {
    fn empty() -> Self {
        Self {
            latencies: Kind::ALL.into_iter().map(|kind| (kind, Latency::new())).collect(),
            counts: Counts::default(),
            errors: BTreeMap::new(),
            gap: None,
            last_trade: None,
            timeline: Vec::new(),
            trade_times: Vec::new(),
            error_times: Vec::new(),
            lag: ScheduleLag { generator: empty(), waited: 0, longest_wait: Duration::ZERO },
            interval_log: None,
        }
    }
}

/// The three instants of one answered request.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// When it should have started.
    pub(crate) intended: Instant,
    /// When it did.
    pub(crate) sent: Instant,
    /// When its answer was whole.
    pub(crate) done: Instant,
}

/// Shared by all clients of a run.
pub(crate) struct Recorder {
    start: OnceLock<Instant>,
    warmup: Duration,
    column: Option<Duration>,
    recorded: Mutex<Recorded>,
}

impl Recorder {
    /// A recorder that measures requests which should start later than `warmup` after the beginning.
    pub(crate) fn new(warmup: Duration, column: Option<Duration>) -> Self {
        Self { start: OnceLock::new(), warmup, column, recorded: Mutex::new(Recorded::empty()) }
    }

    /// The same, which also keeps an interval log.
    pub(crate) fn with_interval_log(self) -> Self {
        self.lock().interval_log = Some(IntervalLog::default());
        self
    }

    /// The run begins now, unless it has: what came before was waiting for the exchange.
    pub(crate) fn begin(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    /// When the run began.
    pub(crate) fn start(&self) -> Instant {
        self.begin()
    }

    /// From when on requests are measured.
    pub(crate) fn measure_from(&self) -> Instant {
        self.begin() + self.warmup
    }

    /// A request of `kind` was answered with success.
    pub(crate) fn success(&self, kind: Kind, times: Times) {
        let mut recorded = self.lock();
        if kind.is_trade() {
            recorded.counts.trades += 1;
            self.note_gap(&mut recorded, times.done);
            if self.column.is_some() {
                recorded.trade_times.push(times.done.saturating_duration_since(self.start()));
            }
        } else if matches!(kind, Kind::LookupHit | Kind::LookupMiss) {
            recorded.counts.lookups += 1;
        }
        self.note_column(&mut recorded, kind, times);
        if times.intended < self.measure_from() {
            return;
        }
        let latency = recorded.latencies.entry(kind).or_insert_with(Latency::new);
        record(&mut latency.intended, times.done - times.intended);
        record(&mut latency.sent, times.done - times.sent);
        if let Some(log) = &mut recorded.interval_log {
            log.record(kind, times.done - self.start(), times.done - times.intended);
        }
    }

    /// A request of an open loop starts, which should have started at `intended`.
    pub(crate) fn started(&self, start: Start, intended: Instant) {
        if intended < self.measure_from() {
            return;
        }
        let lag = &mut self.lock().lag;
        match start {
            Start::Idle(late) => record(&mut lag.generator, late),
            Start::Waited(late) => {
                lag.waited += 1;
                lag.longest_wait = lag.longest_wait.max(late);
            }
        }
    }

    /// One attempt failed.
    pub(crate) fn error(&self, mut key: ErrorKey) {
        let mut recorded = self.lock();
        let now = Instant::now();
        if let Some(column) = self.column_now(&mut recorded, now) {
            column.errors += 1;
            recorded.error_times.push(now.saturating_duration_since(self.start()));
        }
        if recorded.errors.len() >= MAX_CAUSES && !recorded.errors.contains_key(&key) {
            "other causes".clone_into(&mut key.cause);
        }
        *recorded.errors.entry(key).or_default() += 1;
    }

    /// Counts something without a latency.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock().counts);
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// The counts so far, and the number of failed attempts.
    pub(crate) fn glance(&self) -> (Counts, u64) {
        let recorded = self.lock();
        (recorded.counts, recorded.errors.values().sum())
    }

    /// Takes what was recorded, when all clients are done.
    pub(crate) fn take(&self) -> Recorded {
        std::mem::replace(&mut *self.lock(), Recorded::empty())
    }

    /// Between two successes only: what comes before the first is start-up, what comes after the last is the end.
    fn note_gap(&self, recorded: &mut Recorded, done: Instant) {
        if let Some(last) = recorded.last_trade {
            let length = done.saturating_duration_since(last);
            if recorded.gap.is_none_or(|gap| length > gap.length) {
                recorded.gap = Some(Gap { length, from: last - self.start() });
            }
        }
        recorded.last_trade = recorded.last_trade.max(Some(done));
    }

    fn note_column(&self, recorded: &mut Recorded, kind: Kind, times: Times) {
        if !kind.is_trade() && !matches!(kind, Kind::LookupHit | Kind::LookupMiss) {
            // The comparison comes after the load, whose course this is.
            return;
        }
        let Some(column) = self.column_now(recorded, times.done) else {
            return;
        };
        if kind.is_trade() {
            column.trades += 1;
            let micros = (times.done - times.intended).as_micros();
            column.trade_micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
        } else {
            column.lookups += 1;
        }
    }

    fn column_now<'a>(&self, recorded: &'a mut Recorded, at: Instant) -> Option<&'a mut Column> {
        let width = self.column?.as_nanos().max(1);
        let start = *self.start.get()?;
        let index = at.saturating_duration_since(start).as_nanos() / width;
        let index = usize::try_from(index).unwrap_or(MAX_COLUMNS).min(MAX_COLUMNS - 1);
        if recorded.timeline.len() <= index {
            recorded.timeline.resize_with(index + 1, Column::default);
        }
        recorded.timeline.get_mut(index)
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a latency.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let nanos = u64::try_from(latency.min(LONGEST).as_nanos()).unwrap_or(u64::MAX);
    // Fails only above what a histogram's index can be, far from LONGEST. (Its saturating_record would not grow the
    // range, and flatten every latency to the first range's end.)
    let _ = histogram.record(nanos.max(1));
}

#[cfg(test)]
mod tests {
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn times(start: Instant, done: Duration, latency: Duration) -> Times {
        let done = start + done;
        Times { intended: done - latency, sent: done - latency, done }
    }

    /// Nearest rank, from the definition, on the raw samples.
    fn percentile(sorted: &[u64], quantile: f64) -> u64 {
        let rank = (1..=sorted.len())
            .find(|rank| crate::report::as_f64(*rank as u64) >= quantile * crate::report::as_f64(sorted.len() as u64));
        sorted[rank.unwrap_or(sorted.len()) - 1]
    }

    #[test]
    fn percentiles_agree_with_those_of_the_raw_samples() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(11);
        for samples in [1, 10, 1_000, 100_000] {
            let recorder = Recorder::new(Duration::ZERO, None);
            let start = recorder.begin();
            // Latencies over five decades, as they come with a long tail.
            let mut raw: Vec<u64> =
                (0..samples).map(|_| 10_u64.pow(random.random_range(4..9)) + random.random_range(0..9_999)).collect();
            for nanos in &raw {
                let latency = Duration::from_nanos(*nanos);
                recorder.success(Kind::Trade, times(start, latency, latency));
            }
            raw.sort_unstable();
            let recorded = recorder.take();
            let histogram = &recorded.latencies[&Kind::Trade].intended;
            for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0] {
                let (expected, found) = (percentile(&raw, quantile), histogram.value_at_quantile(quantile));
                assert!(
                    found.abs_diff(expected) * 1_000 <= expected,
                    "{samples} samples, {quantile}: {expected}, {found}"
                );
            }
        }
    }

    #[test]
    fn the_longest_gap_lies_between_two_acknowledged_trades() {
        for (trades, expected) in
            [(vec![], None), (vec![5], None), (vec![5, 15], Some((10, 5))), (vec![100, 110, 150, 160], Some((40, 110)))]
        {
            let recorder = Recorder::new(Duration::ZERO, None);
            let start = recorder.begin();
            for at in &trades {
                recorder.success(Kind::Trade, times(start, Duration::from_millis(*at), Duration::ZERO));
                recorder.success(Kind::LookupHit, times(start, Duration::from_millis(at + 1), Duration::ZERO));
            }
            let gap = recorder.take().gap.map(|gap| (gap.length.as_millis(), gap.from.as_millis()));
            assert_eq!(gap, expected, "{trades:?}");
        }
    }

    #[test]
    fn what_should_start_in_the_warm_up_is_counted_and_not_measured() {
        let recorder = Recorder::new(Duration::from_secs(1), None);
        let start = recorder.begin();
        for millis in [999, 1_000, 1_001] {
            recorder.success(Kind::Trade, times(start, Duration::from_millis(millis), Duration::ZERO));
        }
        let recorded = recorder.take();
        assert_eq!(recorded.counts.trades, 3);
        assert_eq!(recorded.latencies[&Kind::Trade].sent.len(), 2);
    }

    #[test]
    fn a_timeline_has_a_column_for_each_width_of_time() {
        let recorder = Recorder::new(Duration::ZERO, Some(Duration::from_millis(100)));
        let start = recorder.begin();
        for millis in [50, 99, 100, 350] {
            recorder.success(Kind::Trade, times(start, Duration::from_millis(millis), Duration::from_millis(1)));
        }
        let timeline = recorder.take().timeline;
        assert_eq!(timeline.iter().map(|column| column.trades).collect::<Vec<_>>(), [2, 1, 0, 1]);
        assert_eq!(timeline[3].trade_micros, [1_000]);
    }

    #[test]
    fn causes_beyond_the_limit_are_counted_together() {
        let recorder = Recorder::new(Duration::ZERO, None);
        for number in 0..2 * MAX_CAUSES {
            recorder.error(ErrorKey { request: "trade", status: Some(500), cause: format!("cause {number}") });
        }
        let errors = recorder.take().errors;
        assert_eq!(errors.len(), MAX_CAUSES + 1);
        assert_eq!(errors.values().sum::<u64>(), 2 * MAX_CAUSES as u64);
    }
}
