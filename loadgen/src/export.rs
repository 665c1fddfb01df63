//! A report for programs: JSON, CSV and the HdrHistogram plotter's format.
//!
//! Each format serves one use and nothing else: JSON has everything of one run, CSV has one row per kind of request for
//! a spreadsheet, `.hgrm` has the whole distribution of one kind. Latencies are milliseconds in all of them, as in the
//! table.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::recorder::Kind;
use crate::report::{QUANTILES, Report, as_f64, millis};

/// Points per halving of the distance to 100 % in an `.hgrm` file, as HdrHistogram's own tools have it.
const TICKS_PER_HALF: u32 = 5;

impl Report {
    /// Everything of this report. Latencies, gaps and lag in milliseconds, other times in seconds.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let latencies = self.latencies.iter().map(|(kind, latency)| {
            let both = json!({"from_schedule": summary(&latency.intended), "from_send": summary(&latency.sent)});
            (kind.key().to_owned(), both)
        });
        let errors = self.errors.iter().map(
            |(key, count)| json!({"request": key.request, "status": key.status, "cause": key.cause, "count": count}),
        );
        let frontends = self
            .frontends
            .iter()
            .map(|known| json!({"url": known.url.to_string(), "round_trip_ms": known.round_trip.map(millis)}));
        let gap = self.longest_gap.map(|gap| json!({"ms": millis(gap.length), "from_s": gap.from.as_secs_f64()}));
        let lag = self.schedule_lag.as_ref().map(|lag| {
            json!({
                "generator": summary(&lag.generator),
                "waited": lag.waited,
                "longest_wait_ms": millis(lag.longest_wait),
            })
        });
        let mut verification = json!(self.verification);
        verification["ok"] = json!(self.verification.ok());
        json!({
            "ok": self.ok(),
            "seed": self.seed,
            "frontend": self.frontend,
            "frontends": frontends.collect::<Vec<_>>(),
            "spread": self.spread,
            "frontend_changes": self.frontend_changes,
            "clients": self.clients,
            "connections": self.connections,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "requests": self.requests,
            "requests_per_s": self.throughput(),
            "cache_hit_ratio": self.hit_ratio(),
            "latency_ms": latencies.collect::<serde_json::Map<_, _>>(),
            "counts": self.counts,
            "errors": errors.collect::<Vec<_>>(),
            "longest_gap": gap,
            "since_last_trade_ms": self.since_last_trade.map(millis),
            "gave_up": self.gave_up,
            "schedule_lag": lag,
            "generator_processor": self.processor,
            "generator_bound": self.is_generator_bound(),
            "verification": verification,
        })
    }

    /// One row per kind of request and start of its clock, with a header.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut csv = "request,clock,count,mean_ms".to_owned();
        for (name, _) in QUANTILES {
            let _ = write!(csv, ",{}_ms", name.replace('.', "_"));
        }
        csv.push_str(",max_ms\n");
        for (kind, latency) in &self.latencies {
            for (clock, histogram) in [("schedule", &latency.intended), ("send", &latency.sent)] {
                let _ = write!(csv, "{},{clock},{},{:.6}", kind.key(), histogram.len(), histogram.mean() / 1e6);
                for (_, quantile) in QUANTILES {
                    let _ = write!(csv, ",{:.6}", at(histogram, quantile));
                }
                let _ = writeln!(csv, ",{:.6}", as_f64(histogram.max()) / 1e6);
            }
        }
        csv
    }

    /// Writes one file per kind of request that has samples: `PREFIX-trade.hgrm` and so on, latencies counted from the
    /// schedule. Returns their names.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write_hgrm(&self, prefix: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for (kind, latency) in self.latencies.iter().filter(|(_, latency)| !latency.intended.is_empty()) {
            let path = hgrm_path(prefix, *kind);
            std::fs::write(&path, hgrm(&latency.intended))
                .with_context(|| format!("{}: cannot be written; does its directory exist?", path.display()))?;
            written.push(path);
        }
        Ok(written)
    }
}

fn hgrm_path(prefix: &Path, kind: Kind) -> PathBuf {
    let mut name = prefix.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{}.hgrm", kind.key()));
    prefix.with_file_name(name)
}

pub(crate) fn summary(histogram: &Histogram<u64>) -> Value {
    let mut summary = json!({"count": histogram.len(), "mean": histogram.mean() / 1e6});
    for (name, quantile) in QUANTILES {
        summary[name] = json!(at(histogram, quantile));
    }
    summary["max"] = json!(as_f64(histogram.max()) / 1e6);
    summary
}

fn at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    as_f64(histogram.value_at_quantile(quantile)) / 1e6
}

/// The percentile distribution as HdrHistogram's own tools print it.
fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (as_f64(step.value_iterated_to()) / 1e6, step.quantile_iterated_to());
        let _ = write!(text, "{value:>12.6} {quantile:>14.12} {count:>10}");
        // The last line has no finite distance to 100 %, and the format leaves it out there.
        let _ = if quantile < 1.0 { writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(text) };
    }
    let (mean, deviation) = (histogram.mean() / 1e6, histogram.stdev() / 1e6);
    let (max, total) = (as_f64(histogram.max()) / 1e6, histogram.len());
    let _ = writeln!(text, "#[Mean    = {mean:>12.6}, StdDeviation   = {deviation:>12.6}]");
    let _ = writeln!(text, "#[Max     = {max:>12.6}, Total count    = {total:>12}]");
    let _ = writeln!(text, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", histogram.buckets(), 2048);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_for_the_plotter_rises_to_the_maximum() {
        let mut histogram = Histogram::new(3).unwrap();
        for millis in 1..=1_000_u64 {
            histogram.record(millis * 1_000_000).unwrap();
        }
        let text = hgrm(&histogram);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1]), "{text}");
        let (first, last) = (&rows[0], &rows[rows.len() - 1]);
        assert!((first[0] - 1.0).abs() < 0.01 && (last[0] - 1_000.0).abs() < 1.0, "{text}");
        assert_eq!((last[1], last[2], last.len()), (1.0, 1_000.0, 3));
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((median[0] - 500.0).abs() < 1.0 && (median[3] - 2.0).abs() < 0.01, "{text}");
    }

    /// What plotFiles.html of HdrHistogram makes of a file: a point for each line of exactly four cells, two of them
    /// numbers, that is no comment.
    fn plotted(text: &str) -> Vec<(f64, f64)> {
        let cells = |line: &str| line.trim().split(' ').filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
        let lines =
            text.lines().map(cells).filter(|cells: &Vec<String>| cells.len() == 4 && !cells[0].starts_with('#'));
        lines.filter_map(|cells| Some((cells[3].parse().ok()?, cells[0].parse().ok()?))).collect()
    }

    #[test]
    fn the_plotter_finds_a_point_for_each_step_of_a_distribution() {
        let mut histogram = Histogram::new(3).unwrap();
        for millis in 1..=100_000_u64 {
            histogram.record(millis * 1_000_000).unwrap();
        }
        let points = plotted(&hgrm(&histogram));
        assert!(points.len() > 50, "{points:?}");
        // The axis is 1 / (1 - percentile): 2 is the median, 10000 the 99.99th.
        for (x, expected) in [(1.0, 1.0), (2.0, 50_000.0), (10_000.0, 99_990.0)] {
            let (_, found) = points.iter().find(|(found, _)| *found >= x).unwrap();
            assert!((found / expected - 1.0).abs() < 0.01, "{x}: {found}");
        }
        assert!(plotted(&hgrm(&Histogram::new(3).unwrap())).is_empty());
    }

    #[test]
    fn a_file_of_a_distribution_is_named_after_its_request() {
        assert_eq!(hgrm_path(Path::new("out/run"), Kind::LookupHit), Path::new("out/run-lookup_hit.hgrm"));
    }
}
