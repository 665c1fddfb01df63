//! What a run found, for people and for programs.
//!
//! Averages hide what matters, so the core of a report is a table of percentiles per kind of request, in milliseconds,
//! with the number of samples above it: a p99.99 of 500 samples is its maximum, and the reader should see that.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::endpoints::Frontend;
use crate::recorder::{Column, Counts, ErrorKey, Gap, Kind, Latency, ScheduleLag};
use crate::verify::Verification;

/// The result of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed to repeat it with.
    pub seed: u64,
    /// All frontends that were known, with their round trips when these were last measured.
    pub frontends: Vec<Frontend>,
    /// The one in use at the end; the first, where clients were spread over all.
    pub frontend: String,
    /// How often a frontend was chosen anew after a failure, the first choice included where there are several.
    pub frontend_changes: u64,
    /// Clients were spread over all frontends.
    pub spread: bool,
    /// Clients, each with one connection at a time.
    pub clients: u32,
    /// TCP connections opened by all of them: as many as clients (twice, with the comparison) where none broke.
    pub connections: u64,
    /// Duration of the load, without warm-up and comparison.
    pub elapsed: Duration,
    /// Lookups and trades answered with success in that time.
    pub requests: u64,
    /// Latencies by kind of request.
    pub latencies: BTreeMap<Kind, Latency>,
    /// Numbers of things that happened, warm-up included, the comparison's reads not.
    pub counts: Counts,
    /// Failed attempts, by request, status and cause.
    pub errors: BTreeMap<ErrorKey, u64>,
    /// The longest time between two acknowledged trades, whoever made them. None with fewer than two.
    pub longest_gap: Option<Gap>,
    /// From the last acknowledged trade to the end of the load.
    pub since_last_trade: Option<Duration>,
    /// A client ended early, because nothing was answered for a whole deadline.
    pub gave_up: bool,
    /// Throughput over time, where the options asked for it.
    pub timeline: Vec<Column>,
    /// When each trade was acknowledged, since the start of the run; kept with the timeline only.
    pub trade_times: Vec<Duration>,
    /// When each attempt failed, in the same way.
    pub error_times: Vec<Duration>,
    /// How late requests started; open loops only.
    pub schedule_lag: Option<ScheduleLag>,
    /// Processor time of this process per second of load: near 1.0, the generator's one thread was the bottleneck.
    pub processor: f64,
    /// Latencies of each second in the log format of HdrHistogram's tools; empty unless the options asked for it.
    pub interval_log: String,
    /// What became of the acknowledged trades.
    pub verification: Verification,
}

/// The rows of the table: a name and a quantile.
pub(crate) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// A generator that starts this late with one request of a hundred measures itself.
const LAG_MOST: Duration = Duration::from_millis(1);
/// The same for its share of the one processor that its thread can use.
const PROCESSOR_MOST: f64 = 0.9;

impl Report {
    /// Whether every acknowledged trade was verified and no client had to give up. Errors that were retried away do not
    /// count.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.verification.ok() && !self.gave_up
    }

    /// Successful requests a second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        per_second(self.requests, self.elapsed)
    }

    /// Share of the measured lookups that the frontend answered from its cache; none without lookups.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let count = |kind| self.latencies.get(&kind).map_or(0, |latency| latency.sent.len());
        let (hits, misses) = (count(Kind::LookupHit), count(Kind::LookupMiss));
        (hits + misses > 0).then(|| as_f64(hits) / as_f64(hits + misses))
    }

    /// Whether this generator was what limited the run: then the figures are its own and not the exchange's.
    #[must_use]
    pub fn is_generator_bound(&self) -> bool {
        let late = |lag: &ScheduleLag| lag.generator.value_at_quantile(0.99);
        self.processor > PROCESSOR_MOST
            || self.schedule_lag.as_ref().is_some_and(|lag| u128::from(late(lag)) > LAG_MOST.as_nanos())
    }

    /// Failed attempts in all.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, clients, connections, .. } = self;
        writeln!(f, "{}", self.where_to())?;
        writeln!(f, "{clients} clients, {connections} keep-alive connections, seed {seed}\n")?;
        write_table(f, &self.latencies, self.schedule_lag.is_some())?;
        let trades = self.latencies.get(&Kind::Trade).map_or(0, |latency| latency.sent.len());
        writeln!(
            f,
            "\n{} requests in {:.2} s: {:.0}/s, of which {:.0} trades/s",
            self.requests,
            self.elapsed.as_secs_f64(),
            self.throughput(),
            per_second(trades, self.elapsed)
        )?;
        if let Some(ratio) = self.hit_ratio() {
            writeln!(f, "cache hit ratio {:.1} %", ratio * 100.0)?;
        }
        let Counts { refused, sold_out, retries, replayed, .. } = self.counts;
        writeln!(
            f,
            "trades refused {refused}, not tried as sold out {sold_out}; retries {retries}, replayed {replayed}"
        )?;
        if let Some(gap) = self.longest_gap {
            let (length, from) = (millis(gap.length), gap.from.as_secs_f64());
            writeln!(f, "longest time without an acknowledged trade: {length:.1} ms, from {from:.2} s on")?;
        }
        self.write_lag(f)?;
        write_errors(f, &self.errors)?;
        if self.gave_up {
            writeln!(f, "GAVE UP: nothing was answered for a whole deadline")?;
        }
        write!(f, "{}", self.verification)
    }
}

impl Report {
    /// Which frontend was used, and why that one.
    fn where_to(&self) -> String {
        let trip = |known: &Frontend| match known.round_trip {
            Some(trip) => format!("{} ({:.3} ms)", known.url, millis(trip)),
            None => known.url.to_string(),
        };
        let list = |all: &mut dyn Iterator<Item = &Frontend>| all.map(trip).collect::<Vec<_>>().join(", ");
        let changes = match self.frontend_changes {
            0 | 1 => String::new(),
            more => format!("; chosen {more} times"),
        };
        match self.frontends.as_slice() {
            [one] => format!("frontend {}", one.url),
            all if self.spread => format!("clients spread over {}", list(&mut all.iter())),
            all => {
                let (used, others): (Vec<_>, Vec<_>) =
                    all.iter().partition(|known| known.url.to_string() == self.frontend);
                let (used, others) = (list(&mut used.into_iter()), list(&mut others.into_iter()));
                format!("frontend {used}, nearer than {others}{changes}")
            }
        }
    }

    fn write_lag(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generator: {:.0} % of one processor", self.processor * 100.0)?;
        self.write_schedule_lag(f)?;
        if self.is_generator_bound() {
            writeln!(f, "THE GENERATOR WAS THE BOTTLENECK: ask for less, or run it on another machine")?;
        }
        Ok(())
    }

    fn write_schedule_lag(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(lag) = &self.schedule_lag else {
            return writeln!(f);
        };
        let at = |quantile| as_f64(lag.generator.value_at_quantile(quantile)) / 1e6;
        writeln!(f, "; started late by {:.3} ms (p50), {:.3} ms (p99), {:.3} ms (max)", at(0.5), at(0.99), at(1.0))?;
        if lag.waited > 0 {
            let (waited, longest) = (lag.waited, millis(lag.longest_wait));
            writeln!(
                f,
                "{waited} requests waited for a free connection, {longest:.1} ms at most: the exchange is slower \
                         than the rate, or --clients too few"
            )?;
        }
        if self.counts.unsent > 0 {
            writeln!(f, "{} requests were never sent", self.counts.unsent)?;
        }
        Ok(())
    }
}

pub(crate) fn write_errors(f: &mut fmt::Formatter<'_>, errors: &BTreeMap<ErrorKey, u64>) -> fmt::Result {
    if errors.is_empty() {
        return writeln!(f, "errors: none");
    }
    writeln!(f, "errors: {} attempts", errors.values().sum::<u64>())?;
    for (key, count) in errors {
        writeln!(f, "  {count:>8}  {key}")?;
    }
    Ok(())
}

/// Width of a cell of the table.
const CELL: usize = 14;

/// Percentiles down, kinds of requests across, in an open loop each twice. Kinds without samples are left out.
pub(crate) fn write_table(f: &mut fmt::Formatter<'_>, latencies: &BTreeMap<Kind, Latency>, open: bool) -> fmt::Result {
    let mut columns: Vec<&Histogram<u64>> = Vec::new();
    let (mut kinds, mut starts) = (format!("{:<8}", "ms"), " ".repeat(8));
    for (kind, latency) in latencies.iter().filter(|(_, latency)| !latency.sent.is_empty()) {
        let name = kind.name();
        // The comparison at the end is a closed loop always.
        if open && *kind != Kind::OrderRead {
            columns.extend([&latency.intended, &latency.sent]);
            let _ = write!(kinds, "{name:>width$}", width = 2 * CELL);
            let _ = write!(starts, "{:>CELL$}{:>CELL$}", "from schedule", "from send");
        } else {
            columns.push(&latency.sent);
            let _ = write!(kinds, "{name:>CELL$}");
            let _ = write!(starts, "{:>CELL$}", "from send");
        }
    }
    writeln!(f, "{kinds}")?;
    if open {
        writeln!(f, "{starts}")?;
    }
    let mut row = |name: &str, cell: &dyn Fn(&Histogram<u64>) -> String| {
        write!(f, "{name:<8}")?;
        for histogram in &columns {
            write!(f, "{:>CELL$}", cell(histogram))?;
        }
        writeln!(f)
    };
    row("count", &|histogram| histogram.len().to_string())?;
    row("mean", &|histogram| format!("{:.3}", histogram.mean() / 1e6))?;
    for (name, quantile) in QUANTILES {
        row(name, &|histogram| format!("{:.3}", as_f64(histogram.value_at_quantile(quantile)) / 1e6))?;
    }
    row("max", &|histogram| format!("{:.3}", as_f64(histogram.max()) / 1e6))
}

/// `duration` in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A count as a number to calculate with. Counts of a run are far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53, which takes years to count to")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { as_f64(count) / elapsed.as_secs_f64() }
}
