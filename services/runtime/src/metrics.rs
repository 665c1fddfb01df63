//! `/metrics`: how a service stands, in the text of OpenMetrics 1.0.
//!
//! The problem: numbers that are worth a graph belong to the decider, which one task owns, and a scrape must neither lock
//! it nor slow it down. The idea: a scrape is a question to that task ([`Scraper`], [`Scrapes`]), answered between two
//! rounds from plain fields; whoever asked makes the text of it. The rules: a scrape is answered within [`ANSWER_WAIT_MS`]
//! or refused, so that a service that stands still shows as one that is down; few scrapes wait at once; what is shown
//! stands in a table ([`tradenet_core::metrics`]), and each label has few values.

mod process;
pub mod serve;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tradenet_core::metric_table;
use tradenet_core::metrics::{BUCKETS_MAX, Histogram, Kind, Metric, Reading, Readings, Value, bucket};

/// How many scrapes wait for the service at once; the next is refused.
const SCRAPES_MAX: usize = 4;
/// How long the service may take to answer a scrape, in milliseconds.
const ANSWER_WAIT_MS: u64 = 1_000;
/// What the text is, for `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

metric_table! {
    /// What every process shows of itself and of its connections.
    METRICS;
    BUILD = Info "tradenet_build" ["service", "version"], "What this process is.";
    STARTED = Gauge "process_start_time_seconds" [], "When the process was started, in seconds since 1970.";
    CPU = Counter "process_cpu_seconds" [], "Time that the process has spent on processors.";
    RESIDENT = Gauge "process_resident_memory_bytes" [], "Memory that the process holds.";
    OPEN_FDS = Gauge "process_open_fds" [], "Files and sockets that the process has open.";
    MAX_FDS = Gauge "process_max_fds" [], "How many files and sockets the process may have open.";
    pub(crate) CONNECTED = Gauge "tradenet_broker_connected" ["connection"],
        "1 while the broker can be reached; bulk: the connection for catching up.";
    pub(crate) CONNECTS = Counter "tradenet_broker_connects" ["connection"],
        "How often the connection to the broker was made; one is the start, the others are reconnects.";
    pub(crate) SLOW = Counter "tradenet_broker_slow_consumer" ["connection"],
        "Times that the client reported a full subscription, whose message it dropped; the protocol asks again.";
    pub(crate) DENIED = Counter "tradenet_broker_denied" ["connection"],
        "Publishes and subscriptions that the broker refused for want of a permission.";
    pub(crate) SENT_BYTES = Counter "tradenet_broker_sent_bytes" ["connection"], "Payload sent to the broker.";
    pub(crate) RECEIVED_BYTES = Counter "tradenet_broker_received_bytes" ["connection"],
        "Payload received from the broker.";
    pub(crate) RECEIVED = Counter "tradenet_messages_received" ["topic"],
        "Messages that arrived, by topic; reply: answers to this process.";
    pub(crate) REJECTED = Counter "tradenet_messages_rejected" ["topic"],
        "Messages that were dropped unread: malformed, or not of that topic.";
    pub(crate) SENT = Counter "tradenet_messages_sent" ["connection"], "Messages handed to the broker's client.";
    pub(crate) UNSENT = Counter "tradenet_messages_unsent" ["connection", "reason"],
        "Messages that were dropped instead of sent: the broker was away, or took nothing.";
    pub(crate) SYNC = Histogram "tradenet_journal_sync_duration_seconds" [],
        "Writing appended entries to the journal and syncing it (fdatasync); one sync may carry several batches.";
    pub(crate) FED = Gauge "tradenet_feed_stream_last" [],
        "The last entry that this replica knows to be in the feed's stream; 0 for none. Only with --feed-stream.";
    pub(crate) FEED_FAILURES = Counter "tradenet_feed_stream_failures" [],
        "Requests to the feed's stream that failed; they are made again. Only with --feed-stream.";
}

/// The tables of this crate and of core.
pub fn tables() -> impl Iterator<Item = &'static Metric> {
    tradenet_core::metrics::tables().chain(METRICS.iter().copied())
}

/// Why there is no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// Others wait already.
    #[error("{SCRAPES_MAX} scrapes wait already; scrape less often")]
    Crowded,
    /// It does not get to it, or it has ended.
    #[error("the service did not answer within {ANSWER_WAIT_MS} ms; it stands still, or is leaving")]
    NoAnswer,
}

/// Asks a service how it stands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scraper {
    service: Cow<'static, str>,
    version: &'static str,
    ask: mpsc::Sender<oneshot::Sender<Readings>>,
}

/// The service's end of its [`Scraper`]s.
#[derive(Debug)]
pub struct Scrapes {
    pub(crate) asked: mpsc::Receiver<oneshot::Sender<Readings>>,
    /// One more of them, for whoever answers on the service's behalf.
    pub(crate) scraper: Scraper,
}

impl Scrapes {
    /// Answers every scrape with what `read` gives, for whoever is no driver.
    pub async fn answer_with(mut self, mut read: impl FnMut() -> Readings) {
        while let Some(scrape) = self.asked.recv().await {
            // Whoever asked may have gone.
            let _ = scrape.send(read());
        }
    }
}

/// Both ends, for a service of that name (such as `order-3`) and version.
#[must_use]
pub fn scraper(service: impl Into<Cow<'static, str>>, version: &'static str) -> (Scraper, Scrapes) {
    process::started();
    let (ask, asked) = mpsc::channel(SCRAPES_MAX);
    let scraper = Scraper { service: service.into(), version, ask };
    (scraper.clone(), Scrapes { asked, scraper })
}

impl Scraper {
    /// What the service's decider and its driver read now.
    ///
    /// # Errors
    /// The service does not answer now.
    pub(crate) async fn readings(&self) -> Result<Readings, ScrapeError> {
        let (answer, answered) = oneshot::channel();
        self.ask.try_send(answer).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => ScrapeError::Crowded,
            mpsc::error::TrySendError::Closed(_) => ScrapeError::NoAnswer,
        })?;
        let answered = timeout(Duration::from_millis(ANSWER_WAIT_MS), answered).await;
        answered.ok().and_then(Result::ok).ok_or(ScrapeError::NoAnswer)
    }

    /// The text; `more` adds what somebody else counts.
    ///
    /// # Errors
    /// The service does not answer now.
    pub async fn text(&self, more: impl FnOnce(&mut Readings)) -> Result<String, ScrapeError> {
        let mut readings = self.readings().await?;
        more(&mut readings);
        let labels = vec![self.service.clone(), Cow::Borrowed(self.version)];
        readings.0.push(Reading { metric: &BUILD, labels, value: Value::Level(1.0) });
        process::observe(&mut readings);
        Ok(exposition(readings))
    }
}

/// Readings as OpenMetrics 1.0 has them.
#[must_use]
pub fn exposition(mut readings: Readings) -> String {
    // Those of one metric have to stand together; where they come from several places they do not.
    readings.0.sort_by_key(|reading| reading.metric.name);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(readings)));
    let mut out = String::new();
    // Writing into memory does not fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Snapshot(Readings);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for of_one in self.0.0.chunk_by(|one, other| one.metric.name == other.metric.name) {
            let Some(metric) = of_one.first().map(|reading| reading.metric) else { continue };
            let (name, unit) = split(metric.name);
            let mut encoder = encoder.encode_descriptor(name, metric.help, unit.as_ref(), kind(metric.kind))?;
            for reading in of_one {
                let labels = reading.labels.iter().map(AsRef::<str>::as_ref);
                let labels: Vec<(&str, &str)> = metric.labels.iter().copied().zip(labels).collect();
                match metric.kind {
                    Kind::Info => encoder.encode_info(&labels)?,
                    _ if labels.is_empty() => value(&mut encoder, metric, &reading.value)?,
                    _ => value(&mut encoder.encode_family(&labels)?, metric, &reading.value)?,
                }
            }
        }
        Ok(())
    }
}

/// The name without its unit, and the unit.
fn split(name: &str) -> (&str, Option<Unit>) {
    let seconds = name.strip_suffix("_seconds").map(|name| (name, Some(Unit::Seconds)));
    let bytes = name.strip_suffix("_bytes").map(|name| (name, Some(Unit::Bytes)));
    seconds.or(bytes).unwrap_or((name, None))
}

fn kind(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    }
}

#[allow(clippy::cast_precision_loss, reason = "beyond 2^53 a graph shows no difference")]
fn value(encoder: &mut MetricEncoder<'_>, metric: &Metric, value: &Value) -> Result<(), fmt::Error> {
    const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;
    match (metric.kind, value) {
        (Kind::Counter, Value::Count(count)) => encoder.encode_counter(count, NO_EXEMPLAR),
        (Kind::Counter, Value::Level(level)) => encoder.encode_counter(level, NO_EXEMPLAR),
        (_, Value::Count(count)) => encoder.encode_gauge(&(*count as f64)),
        (_, Value::Level(level)) => encoder.encode_gauge(level),
        (_, Value::Spread(histogram)) => {
            // Durations are counted in microseconds and shown in seconds.
            let scale = if metric.name.ends_with("_seconds") { 1e6 } else { 1.0 };
            let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / scale);
            let buckets: Vec<_> = histogram.buckets().map(|(upper, count)| (bound(upper), count)).collect();
            encoder.encode_histogram::<NoLabelSet>(histogram.sum() as f64 / scale, histogram.count(), &buckets, None)
        }
    }
}

/// A histogram that several tasks or threads count in, such as one whose owner is not the driver.
#[derive(Debug)]
pub struct Shared {
    bounds: &'static [u64],
    counts: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

impl Shared {
    /// One with these upper bounds.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: [const { AtomicU64::new(0) }; BUCKETS_MAX], sum: AtomicU64::new(0) }
    }
    /// Counts a duration, in microseconds.
    pub fn record(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(self.bounds, took)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(took, Ordering::Relaxed);
    }
    /// What was counted.
    #[must_use]
    pub fn read(&self) -> Histogram {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Histogram::counted(self.bounds, counts, self.sum.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    metric_table! {
        /// For these tests.
        TABLE;
        ROLE = Gauge "test_role" ["role"], "A role.";
        GOOD = Counter "test_good" [], "Good things.";
        TOOK = Histogram "test_took_seconds" [], "How long.";
    }

    #[test]
    fn the_text_is_what_openmetrics_says() {
        let mut readings = Readings::default();
        readings.flag(&ROLE, &["leader"], true);
        readings.count(&GOOD, &[], 7);
        readings.flag(&ROLE, &["fol\"low"], false);
        let mut took = Histogram::new(&[1_000, 2_000_000]);
        took.record(1_000);
        took.record(3_000_000);
        readings.spread(&TOOK, &[], &took);
        let labels = vec!["order-1".into(), "1".into()];
        readings.0.push(Reading { metric: &BUILD, labels, value: Value::Level(1.0) });
        let expected = "\
# HELP test_good Good things.
# TYPE test_good counter
test_good_total 7
# HELP test_role A role.
# TYPE test_role gauge
test_role{role=\"leader\"} 1.0
test_role{role=\"fol\\\"low\"} 0.0
# HELP test_took_seconds How long.
# TYPE test_took_seconds histogram
# UNIT test_took_seconds seconds
test_took_seconds_sum 3.001
test_took_seconds_count 2
test_took_seconds_bucket{le=\"0.001\"} 1
test_took_seconds_bucket{le=\"2.0\"} 1
test_took_seconds_bucket{le=\"+Inf\"} 2
# HELP tradenet_build What this process is.
# TYPE tradenet_build info
tradenet_build_info{service=\"order-1\",version=\"1\"} 1
# EOF
";
        assert_eq!(exposition(readings), expected);
        assert_eq!(TABLE.len(), 3);
    }

    #[test]
    fn the_process_shows_what_the_system_knows_of_it() {
        let mut readings = Readings::default();
        process::started();
        process::observe(&mut readings);
        let read = |metric: &'static Metric| match readings.0.iter().find(|reading| reading.metric == metric) {
            Some(Reading { value: Value::Level(level), .. }) => *level,
            other => panic!("{}: {other:?}", metric.name),
        };
        assert!(read(&STARTED) > 1e9);
        assert!(read(&RESIDENT) > 1e5);
        assert!(read(&OPEN_FDS) >= 3.0);
        assert!(read(&MAX_FDS) >= read(&OPEN_FDS));
        assert!(read(&CPU) >= 0.0);
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_is_not_waited_for_by_many() {
        let (scraper, scrapes) = scraper("order-1", "1");
        let waiting: Vec<_> = (0..SCRAPES_MAX)
            .map(|_| {
                let scraper = scraper.clone();
                tokio::spawn(async move { scraper.text(|_| {}).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(scraper.text(|_| {}).await, Err(ScrapeError::Crowded));
        drop(scrapes);
        for scrape in waiting {
            assert_eq!(scrape.await.unwrap(), Err(ScrapeError::NoAnswer));
        }
    }
}
