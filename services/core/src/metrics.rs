//! What a state machine counts, and how it is read.
//!
//! Problem: people want to see what the exchange does, but counting must not decide anything, cost anything, or make two
//! runs differ.
//! Idea: a decider counts in plain fields that it owns, and shows them only when it is asked: [`Decider::observe`] puts
//! [`Readings`] together, each of a [`Metric`] that stands in a table. The table is the one place for name, kind, labels
//! and help; `docs/metrics.md`, the dashboard and the alerts are checked against it.
//! Rule kept: no decision reads a count. [`Aside`] hides counts from `Debug`, so that a checker which tells states apart by
//! their text sees none. Labels have few values, all of them the program's own: never what a user wrote.
//!
//! [`Decider::observe`]: crate::Decider::observe

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// The most buckets that a histogram has, the one without an upper bound included.
pub const BUCKETS_MAX: usize = 20;
/// Upper bounds for durations, in microseconds: from a cached look-up to a request's deadline.
pub const DURATION_BOUNDS_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];
/// Upper bounds for what a batch holds, in entries.
pub const ENTRY_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];
/// Upper bounds for sizes, in bytes.
pub const SIZE_BOUNDS_BYTES: &[u64] = &[256, 1_024, 4_096, 16_384, 65_536, 262_144];

/// What kind of number a metric is, in the words of OpenMetrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows while the process lives; shown with `_total` behind its name.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values fell into which bucket.
    Histogram,
    /// What does not change while the process lives, as labels; shown with `_info` behind its name.
    Info,
}

/// One metric: a row of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    /// Its name with the unit (`_seconds`, `_bytes`) at its end, without `_total` or `_info`.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// What a metric reads.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a gauge, or of a counter of seconds.
    Level(f64),
    /// Of a histogram.
    Spread(Box<Histogram>),
}

/// One metric as it reads now, for one set of labels.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    /// Which metric.
    pub metric: &'static Metric,
    /// The values of its labels, in the table's order.
    pub labels: Vec<Cow<'static, str>>,
    /// What it reads.
    pub value: Value,
}

/// What is read in one look. Made only when somebody asks, so it may allocate.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Readings(pub Vec<Reading>);

impl Readings {
    /// A counter.
    pub fn count(&mut self, metric: &'static Metric, labels: &[&'static str], value: u64) {
        self.put(metric, labels, Value::Count(value));
    }
    /// A gauge.
    #[allow(clippy::cast_precision_loss, reason = "beyond 2^53 a graph shows no difference")]
    pub fn level(&mut self, metric: &'static Metric, labels: &[&'static str], value: u64) {
        self.put(metric, labels, Value::Level(value as f64));
    }
    /// A gauge that is 1 or 0.
    pub fn flag(&mut self, metric: &'static Metric, labels: &[&'static str], value: bool) {
        self.level(metric, labels, u64::from(value));
    }
    /// A histogram.
    pub fn spread(&mut self, metric: &'static Metric, labels: &[&'static str], value: &Histogram) {
        self.put(metric, labels, Value::Spread(Box::new(value.clone())));
    }
    /// A queue: how many wait in it, and how many may.
    pub fn queue(&mut self, name: &'static str, depth: usize, limit: usize) {
        self.level(&QUEUE_DEPTH, &[name], depth as u64);
        self.level(&QUEUE_LIMIT, &[name], limit as u64);
    }
    /// Anything.
    pub fn put(&mut self, metric: &'static Metric, labels: &[&'static str], value: Value) {
        let labels = labels.iter().map(|label| Cow::Borrowed(*label)).collect();
        self.0.push(Reading { metric, labels, value });
    }
}

/// How often values fell into which bucket. Plain numbers, of one owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: [u64; BUCKETS_MAX],
    sum: u64,
}

impl Histogram {
    /// One with these upper bounds, each included in its bucket; fewer than [`BUCKETS_MAX`].
    ///
    /// # Panics
    /// The table of bounds is too long: a defect.
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() < BUCKETS_MAX, "a histogram has room for the bucket without a bound");
        Self { bounds, counts: [0; BUCKETS_MAX], sum: 0 }
    }
    /// One that was counted elsewhere. `counts` has one more than `bounds`, and is cut to [`BUCKETS_MAX`].
    pub fn counted(bounds: &'static [u64], counts: impl IntoIterator<Item = u64>, sum: u64) -> Self {
        let mut histogram = Self { sum, ..Self::new(bounds) };
        for (bucket, count) in histogram.counts.iter_mut().zip(counts) {
            *bucket = count;
        }
        histogram
    }
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(self.bounds, value)] += 1;
        self.sum = self.sum.saturating_add(value);
    }
    /// Counts a duration, in microseconds.
    pub fn record_duration(&mut self, took: Duration) {
        self.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
    /// Upper bound and count of each bucket; the last has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        self.bounds.iter().copied().map(Some).chain([None]).zip(self.counts.iter().copied())
    }
    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

/// The bucket that a value belongs to.
pub fn bucket(bounds: &[u64], value: u64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

/// Counts that a decider keeps and no decision reads. `Debug` says nothing of them: states that differ in them alone are
/// the same to a checker.
#[derive(Clone, Default)]
pub struct Aside<T>(T);

impl<T> Deref for Aside<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Aside<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> fmt::Debug for Aside<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

/// Writes a table of metrics: `ID = Kind "name" [labels], "help";`, below the name of the whole.
#[macro_export]
macro_rules! metric_table {
    ($(#[$doc:meta])* $table:ident; $($vis:vis $id:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(
            $vis static $id: $crate::metrics::Metric = $crate::metrics::Metric {
                name: $name,
                kind: $crate::metrics::Kind::$kind,
                labels: &$labels,
                help: $help,
            };
        )*
        $(#[$doc])*
        pub static $table: &[&$crate::metrics::Metric] = &[$(&$id),*];
    };
}

/// How many wait.
pub static QUEUE_DEPTH: Metric = Metric {
    name: "tradenet_queue_depth",
    kind: Kind::Gauge,
    labels: &["queue"],
    help: "How many wait in a queue, or hold one of a bounded number of places.",
};
/// How many may wait.
pub static QUEUE_LIMIT: Metric = Metric {
    name: "tradenet_queue_limit",
    kind: Kind::Gauge,
    labels: &["queue"],
    help: "How many may wait in that queue; what comes beyond is refused or dropped, and sent again.",
};
/// The newest epoch that the process knows.
pub static EPOCH: Metric = Metric {
    name: "tradenet_epoch",
    kind: Kind::Gauge,
    labels: &[],
    help: "The newest epoch that this process has adopted; 0 before the first.",
};

/// What every decider may show.
pub static SHARED: &[&Metric] = &[&QUEUE_DEPTH, &QUEUE_LIMIT, &EPOCH];

/// All tables of this crate.
pub fn tables() -> impl Iterator<Item = &'static Metric> {
    let own = [crate::replica::METRICS, crate::catalog::METRICS, crate::frontend::METRICS];
    SHARED.iter().copied().chain(own.into_iter().flatten().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_reaches_it() {
        let check = |value, expected: &[u64]| {
            let mut histogram = Histogram::new(&[1, 2, 4]);
            histogram.record(value);
            let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
            assert_eq!(counts, expected, "{value}");
            assert_eq!((histogram.count(), histogram.sum()), (1, value));
        };
        check(0, &[1, 0, 0, 0]);
        check(1, &[1, 0, 0, 0]);
        check(2, &[0, 1, 0, 0]);
        check(3, &[0, 0, 1, 0]);
        check(4, &[0, 0, 1, 0]);
        check(5, &[0, 0, 0, 1]);
    }

    #[test]
    fn counts_are_no_part_of_what_a_checker_sees() {
        let text = |count: u64| format!("{:?}", Aside(count));
        assert_eq!(text(1), text(2));
    }
}
