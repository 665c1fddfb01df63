//! How latency depends on the share of trades, with a cache and without.
//!
//! Machines drift: what runs first runs cooler, or later with warmer caches. So the runs to be compared are interleaved
//! and not grouped, each is repeated, and what is plotted is the median of the repetitions with their whole spread. Both
//! exchanges get the same seeds, so that they are asked for the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::options::{Probability, RunOptions};
use crate::plot::{Figure, Panel, Point, Series};
use crate::recorder::{Kind, Latency};
use crate::report::{Report, as_f64};
use crate::url::BaseUrl;

/// Most repetitions of a sweep.
pub const MAX_REPEATS: u32 = 1_000;

/// An exchange that is swept.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What its line is called.
    pub name: String,
    /// Its frontends.
    pub urls: Vec<BaseUrl>,
}

/// What a sweep does.
#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// Everything but the frontends and the probability.
    pub run: RunOptions,
    /// The exchanges to compare.
    pub variants: Vec<Variant>,
    /// The probabilities, in the order of the plots.
    pub probabilities: Vec<Probability>,
    /// Runs of each exchange with each probability.
    pub repeats: u32,
}

/// One run of a sweep.
#[derive(Debug)]
pub struct SweepRun {
    /// The name of the exchange.
    pub variant: String,
    /// Which repetition, from 1.
    pub repeat: u32,
    /// The probability of a trade.
    pub p: f64,
    /// What the run found.
    pub report: Report,
}

/// The result of a sweep.
#[derive(Debug)]
pub struct Sweep {
    /// All runs, in the order they were made.
    pub runs: Vec<SweepRun>,
}

/// Makes all runs, one after the other. `done` is told of each.
///
/// # Errors
/// Where the options cannot be run or an exchange is away. Runs whose comparison failed are part of the result.
pub async fn sweep(options: &SweepOptions, mut done: impl FnMut(&SweepRun)) -> anyhow::Result<Sweep> {
    anyhow::ensure!(!options.variants.is_empty(), "no frontend given: pass --with-cache URL, --without-cache URL");
    anyhow::ensure!(!options.probabilities.is_empty(), "no probabilities: --to is below --from");
    let repeats = options.repeats;
    anyhow::ensure!((1..=MAX_REPEATS).contains(&repeats), "--repeats is {repeats}: choose 1 to {MAX_REPEATS}");
    let mut runs = Vec::new();
    for repeat in 1..=repeats {
        for p in &options.probabilities {
            let mut variants: Vec<&Variant> = options.variants.iter().collect();
            // Neither is always the one that runs after the other.
            if repeat % 2 == 0 {
                variants.reverse();
            }
            for variant in variants {
                let mut run = options.run.clone();
                run.urls.clone_from(&variant.urls);
                run.trade_probability = *p;
                run.seed = options.run.seed.wrapping_add(u64::from(repeat));
                let report = Box::pin(crate::run(run)).await.with_context(|| format!("{}, p = {p}", variant.name))?;
                let run = SweepRun { variant: variant.name.clone(), repeat, p: p.value(), report };
                done(&run);
                runs.push(run);
            }
        }
    }
    Ok(Sweep { runs })
}

/// The probabilities `from`, `from + step`, … up to and including `to`.
///
/// # Errors
/// Where `step` is not above 0.
pub fn probabilities(from: Probability, to: Probability, step: f64) -> anyhow::Result<Vec<Probability>> {
    anyhow::ensure!(step >= 0.001, "--step is {step}: choose 0.001 or more");
    let mut all = Vec::new();
    for index in 0_u32.. {
        // Rounded, for three times 0.2 is not 0.6 in binary, and would be printed like that.
        let p = ((from.value() + f64::from(index) * step) * 1e6).round() / 1e6;
        if p > to.value() {
            break;
        }
        all.push(Probability::new(p).map_err(anyhow::Error::msg)?);
    }
    Ok(all)
}

/// A value of a run that is plotted.
type Measure = fn(&Report) -> Option<f64>;

impl Sweep {
    /// Whether every run was verified.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.runs.iter().all(|run| run.report.ok())
    }

    /// One row per run and kind of request; `lookup` is hits and misses together. Latencies in milliseconds.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut csv = "variant,repeat,p,request,count,mean_ms,p50_ms,p90_ms,p99_ms,p99_9_ms,max_ms,cache_hit_ratio,\
                       requests_per_s,verified\n"
            .to_owned();
        for SweepRun { variant, repeat, p, report } in &self.runs {
            let ratio = report.hit_ratio().map(|ratio| format!("{ratio:.4}")).unwrap_or_default();
            let kinds = Kind::ALL.into_iter().map(|kind| (kind.key(), merged(report, &[kind])));
            for (key, histogram) in [("lookup", lookups(report))].into_iter().chain(kinds) {
                let _ = write!(csv, "{variant},{repeat},{p},{key},{},{:.6}", histogram.len(), histogram.mean() / 1e6);
                for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
                    let _ = write!(csv, ",{:.6}", as_f64(histogram.value_at_quantile(quantile)) / 1e6);
                }
                let _ = writeln!(csv, ",{ratio},{:.1},{}", report.throughput(), report.ok());
            }
        }
        csv
    }

    /// The plots: a name of a file, and what stands in it.
    #[must_use]
    pub fn plots(&self) -> Vec<(&'static str, String)> {
        let plots: [(&str, &str, &str, Measure); 5] = [
            ("lookup-mean.svg", "Lookup latency", "mean latency (ms)", |report| mean(&lookups(report))),
            ("lookup-p99.svg", "Lookup latency, slowest 1 %", "p99 latency (ms)", |report| p99(&lookups(report))),
            ("trade-mean.svg", "Trade latency", "mean latency (ms)", |report| mean(&trades(report))),
            ("trade-p99.svg", "Trade latency, slowest 1 %", "p99 latency (ms)", |report| p99(&trades(report))),
            ("hit-ratio.svg", "Lookups answered from the cache", "hit ratio (%)", |report| {
                report.hit_ratio().map(|ratio| ratio * 100.0)
            }),
        ];
        plots.into_iter().map(|(file, title, y_title, measure)| (file, self.plot(title, y_title, measure))).collect()
    }

    fn plot(&self, title: &str, y_title: &str, measure: Measure) -> String {
        let mut names: Vec<&String> = Vec::new();
        for run in &self.runs {
            if !names.contains(&&run.variant) {
                names.push(&run.variant);
            }
        }
        let series = names.into_iter().map(|name| self.series(name, measure)).collect();
        let first = self.runs.first();
        let (clients, repeats) =
            (first.map_or(0, |run| run.report.clients), self.runs.iter().map(|run| run.repeat).max().unwrap_or(0));
        Figure {
            title: format!("{title}, {clients} clients"),
            x_title: "p, the probability that a lookup is followed by a trade".to_owned(),
            // The same for all plots, also where p = 0 has nothing to show.
            x_range: self.runs.iter().map(|run| (run.p, run.p)).reduce(|(a, b), (p, _)| (a.min(p), b.max(p))),
            spread: format!("median of {repeats} runs, bars: least to most"),
            panels: vec![Panel { y_title: y_title.to_owned(), logarithmic: false, series }],
            marks: Vec::new(),
        }
        .svg()
    }

    fn series(&self, name: &str, measure: Measure) -> Series {
        let mut values: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for run in self.runs.iter().filter(|run| run.variant == name) {
            // Bits of numbers from 0 to 1 sort like the numbers.
            values.entry(run.p.to_bits()).or_default().extend(measure(&run.report));
        }
        let points = values.into_iter().filter_map(|(p, values)| spread(f64::from_bits(p), values));
        Series { name: name.to_owned(), points: points.collect() }
    }

    /// Writes the CSV and the plots into `directory`, which is made where it is missing. Returns the files' names.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = vec![("sweep.csv", self.to_csv())];
        files.extend(self.plots());
        write_files(directory, files)
    }
}

/// Writes files into `directory`, which is made where it is missing.
pub(crate) fn write_files(directory: &Path, files: Vec<(&str, String)>) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = |path: &Path| format!("{}: cannot be written; choose another --out", path.display());
    std::fs::create_dir_all(directory).with_context(|| cannot(directory))?;
    let mut written = Vec::new();
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| cannot(&path))?;
        written.push(path);
    }
    Ok(written)
}

fn spread(x: f64, mut values: Vec<f64>) -> Option<Point> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (*values.first()?, *values.last()?);
    let (left, right) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
    Some(Point { x, low, y: f64::midpoint(*left, *right), high })
}

fn merged(report: &Report, kinds: &[Kind]) -> Histogram<u64> {
    let mut all = Latency::new().intended;
    for latency in kinds.iter().filter_map(|kind| report.latencies.get(kind)) {
        // Adding fails only where the range cannot grow, and this one can.
        let _ = all.add(&latency.intended);
    }
    all
}

fn lookups(report: &Report) -> Histogram<u64> {
    merged(report, &[Kind::LookupHit, Kind::LookupMiss])
}

fn trades(report: &Report) -> Histogram<u64> {
    merged(report, &[Kind::Trade])
}

fn mean(histogram: &Histogram<u64>) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.mean() / 1e6)
}

fn p99(histogram: &Histogram<u64>) -> Option<f64> {
    (!histogram.is_empty()).then(|| as_f64(histogram.value_at_quantile(0.99)) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probabilities_are_those_a_person_would_write() {
        let p = |value| Probability::new(value).unwrap();
        for (from, to, step, expected) in [
            (0.0, 0.8, 0.2, vec![0.0, 0.2, 0.4, 0.6, 0.8]),
            (0.5, 0.5, 0.1, vec![0.5]),
            (0.6, 0.5, 0.1, vec![]),
            (0.0, 1.0, 0.3, vec![0.0, 0.3, 0.6, 0.9]),
        ] {
            let found: Vec<f64> =
                probabilities(p(from), p(to), step).unwrap().into_iter().map(Probability::value).collect();
            assert_eq!(found, expected);
        }
        assert!(probabilities(p(0.0), p(1.0), 0.0).is_err());
    }

    #[test]
    fn a_point_is_the_median_of_its_runs_and_their_whole_spread() {
        for (values, expected) in [
            (vec![], None),
            (vec![3.0], Some((3.0, 3.0, 3.0))),
            (vec![3.0, 1.0, 9.0], Some((1.0, 3.0, 9.0))),
            (vec![4.0, 1.0, 2.0, 8.0], Some((1.0, 3.0, 8.0))),
        ] {
            let found = spread(0.0, values).map(|point| (point.low, point.y, point.high));
            assert_eq!(found, expected);
        }
    }
}
