//! Latencies second by second, in the log format of HdrHistogram's tools.
//!
//! A distribution of a whole run does not say when it was slow. The interval log does: a line for each second and kind of
//! request, which HistogramLogAnalyzer and HistogramLogProcessor read. A second is written as text as soon as it is over,
//! so that a long run keeps a few hundred bytes of it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::recorder::{Kind, empty, record};

/// The log of a run.
#[derive(Default)]
pub(crate) struct IntervalLog {
    text: Vec<u8>,
    second: u64,
    current: BTreeMap<Kind, Histogram<u64>>,
}

impl IntervalLog {
    /// A request of `kind` ended now, `at` since the beginning, and took `latency`.
    pub(crate) fn record(&mut self, kind: Kind, at: Duration, latency: Duration) {
        if self.text.is_empty() {
            self.head(SystemTime::now() - at);
        }
        if at.as_secs() > self.second {
            self.close();
            self.second = at.as_secs();
        }
        record(self.current.entry(kind).or_insert_with(empty), latency);
    }

    /// The whole log.
    pub(crate) fn end(mut self) -> String {
        self.close();
        // The format is ASCII.
        String::from_utf8_lossy(&self.text).into_owned()
    }

    fn head(&mut self, start: SystemTime) {
        let mut head = IntervalLogWriterBuilder::new();
        head.add_comment("[Latencies in nanoseconds, counted from the schedule; tags are kinds of requests]");
        head.with_start_time(start).with_base_time(start);
        // Writing to memory does not fail.
        let _ = head.begin_log_with(&mut self.text, &mut V2DeflateSerializer::new());
    }

    /// Writes the current second.
    fn close(&mut self) {
        let (from, one) = (Duration::from_secs(self.second), Duration::from_secs(1));
        let (lines, mut serializer) = (IntervalLogWriterBuilder::new(), V2DeflateSerializer::new());
        let Ok(mut log) = lines.begin_log_with(&mut self.text, &mut serializer) else { return };
        for (kind, histogram) in std::mem::take(&mut self.current) {
            // Nor does this: no histogram here is larger than the format allows.
            let _ = log.write_histogram(&histogram, from, one, Tag::new(kind.key()));
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn a_log_is_read_back_second_by_second() {
        let mut log = IntervalLog::default();
        let ms = Duration::from_millis;
        for (kind, at, latency) in [
            (Kind::Trade, 100, 7),
            (Kind::LookupHit, 200, 1),
            (Kind::Trade, 900, 9),
            // Nothing in the second from 1 to 2.
            (Kind::Trade, 2_500, 3),
        ] {
            log.record(kind, ms(at), ms(latency));
        }
        let text = log.end();
        assert!(text.contains("#[StartTime: ") && text.contains("#[BaseTime: "), "{text}");
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let bytes = BASE64_STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                let tag = interval.tag().unwrap().as_str().to_owned();
                found.push((interval.start_timestamp().as_secs(), tag, histogram.len(), histogram.max() / 1_000_000));
            }
        }
        let expected = [(0, "lookup_hit", 1, 1), (0, "trade", 2, 9), (2, "trade", 1, 3)]
            .map(|(at, tag, n, max)| (at, tag.to_owned(), n, max));
        assert_eq!(found, expected);
    }
}
