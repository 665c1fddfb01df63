//! What a market run found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::export::summary;
use crate::market::Market;
use crate::market::verify::Verification;
use crate::recorder::{Counts, ErrorKey, Gap, Kind, Latency, Recorded};
use crate::report::{millis, per_second, write_errors, write_table};

/// The result of one market run.
#[derive(Clone, Debug)]
pub struct MarketReport {
    /// The seed to repeat it with.
    pub seed: u64,
    /// Accounts that traded.
    pub accounts: u32,
    /// Clients, each with one connection.
    pub clients: u32,
    /// Duration of the trading, without the opening of accounts and the comparison.
    pub elapsed: Duration,
    /// Orders that were placed.
    pub orders: u64,
    /// Latencies by kind of call, from the first attempt until the answer.
    pub latencies: BTreeMap<Kind, Latency>,
    /// Numbers of things that happened.
    pub counts: Counts,
    /// Failed attempts, by call, status and cause.
    pub errors: BTreeMap<ErrorKey, u64>,
    /// The longest time between two orders that were placed, whoever placed them.
    pub longest_gap: Option<Gap>,
    /// A client ended early, because nothing was answered for a whole deadline.
    pub gave_up: bool,
    /// Processor time of this process per second of trading.
    pub processor: f64,
    /// What became of all of it.
    pub verification: Verification,
}

impl MarketReport {
    pub(crate) fn new(
        market: &Market,
        recorded: Recorded,
        (elapsed, processor): (Duration, f64),
        gave_up: bool,
        verification: Verification,
    ) -> Self {
        let filled = |(_, latency): &(Kind, Latency)| !latency.sent.is_empty();
        Self {
            seed: market.options.run.seed,
            accounts: market.options.accounts,
            clients: market.options.run.clients.min(market.options.accounts),
            elapsed,
            orders: market.orders.load(Ordering::Relaxed),
            latencies: recorded.latencies.into_iter().filter(filled).collect(),
            counts: recorded.counts,
            errors: recorded.errors,
            longest_gap: recorded.gap,
            gave_up,
            processor,
            verification,
        }
    }

    /// Whether all of it adds up and no client had to give up. Errors that were retried away do not count.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.verification.ok() && !self.gave_up
    }

    /// Orders placed a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        per_second(self.orders, self.elapsed)
    }

    /// Everything of this report. Latencies and gaps in milliseconds, other times in seconds.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let latencies = self.latencies.iter().map(|(kind, latency)| (kind.key().to_owned(), summary(&latency.sent)));
        let errors = self.errors.iter().map(
            |(key, count)| json!({"request": key.request, "status": key.status, "cause": key.cause, "count": count}),
        );
        let gap = self.longest_gap.map(|gap| json!({"ms": millis(gap.length), "from_s": gap.from.as_secs_f64()}));
        json!({
            "ok": self.ok(),
            "seed": self.seed,
            "accounts": self.accounts,
            "clients": self.clients,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "orders": self.orders,
            "orders_per_s": self.rate(),
            "latency_ms": latencies.collect::<serde_json::Map<_, _>>(),
            "retries": self.counts.retries,
            "replayed": self.counts.replayed,
            "errors": errors.collect::<Vec<_>>(),
            "longest_gap": gap,
            "gave_up": self.gave_up,
            "generator_processor": self.processor,
            "verification": self.verification,
        })
    }
}

impl fmt::Display for MarketReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, accounts, clients, orders, .. } = self;
        writeln!(f, "{accounts} accounts, {clients} clients, seed {seed}\n")?;
        write_table(f, &self.latencies, false)?;
        writeln!(f, "\n{orders} orders placed in {:.2} s: {:.0}/s", self.elapsed.as_secs_f64(), self.rate())?;
        writeln!(f, "retries {}, replayed {}", self.counts.retries, self.counts.replayed)?;
        if let Some(gap) = self.longest_gap {
            let (length, from) = (millis(gap.length), gap.from.as_secs_f64());
            writeln!(f, "longest time without an order placed: {length:.1} ms, from {from:.2} s on")?;
        }
        writeln!(f, "generator: {:.0} % of one processor", self.processor * 100.0)?;
        write_errors(f, &self.errors)?;
        if self.gave_up {
            writeln!(f, "GAVE UP: nothing was answered for a whole deadline")?;
        }
        write!(f, "{}", self.verification)
    }
}
