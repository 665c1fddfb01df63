//! A drill's result: each fault beside what clients noticed of it.
//!
//! The time from a fault to the next one is the fault's. Its cost is the longest time without an acknowledged trade that
//! reaches into that time, counted from the last trade before, which may be older than the fault, up to the next fault at
//! most. A gap that nobody ended counts up to the end of the load.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{COLUMN, Drill, Event, Journals, strip};
use crate::plot::{Figure, Mark, Panel, Point, Series};
use crate::recorder::Column;
use crate::report::{Report, as_f64, millis};
use crate::sweep::write_files;

/// Fills in what the load noticed of each fault.
pub(super) fn sum_up(mut events: Vec<Event>, left_running: Vec<String>, journals: Journals, report: Report) -> Drill {
    let starts: Vec<Duration> = events.iter().map(|event| event.at).collect();
    for (index, event) in events.iter_mut().enumerate() {
        let until = starts.get(index + 1).copied().unwrap_or(report.elapsed);
        event.longest_gap = longest_gap(&report.trade_times, event.at, until, report.elapsed);
        event.errors = within(&report.error_times, event.at, until);
    }
    Drill { events, left_running, journals, report }
}

/// The longest time between neighbours of `times` (rising) that reaches into `from..until`; `end` ends the last. What it
/// has of the time after `until` is the next fault's.
fn longest_gap(times: &[Duration], from: Duration, until: Duration, end: Duration) -> Duration {
    let next = times.iter().skip(1).copied().chain([end]);
    let gaps = times.iter().zip(next).filter(|(last, next)| *next > from && **last < until);
    let lengths = gaps.map(|(last, next)| next.min(until).saturating_sub(*last));
    lengths.max().unwrap_or(until.saturating_sub(from))
}

/// How many of `times` (rising) lie in `from..until`.
fn within(times: &[Duration], from: Duration, until: Duration) -> u64 {
    let before = |end: Duration| times.partition_point(|time| *time < end);
    (before(until) - before(from)) as u64
}

/// The 99th percentile of a column's trades, in milliseconds; not a number where there are none.
pub(super) fn p99(column: &Column) -> f64 {
    let mut micros = column.trade_micros.clone();
    micros.sort_unstable();
    let rank = (micros.len() * 99).div_ceil(100);
    rank.checked_sub(1).and_then(|index| micros.get(index)).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
}

impl Drill {
    /// Whether all was verified, the order files are not known to differ, and every fault was done and healed.
    #[must_use]
    pub fn ok(&self) -> bool {
        let differ = matches!(self.journals, Journals::Differ(_));
        self.report.ok() && !differ && self.events.iter().all(|event| event.trouble.is_none())
    }

    /// The timeline: one row per 100 ms.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut csv = "from_s,lookups_per_s,trades_per_s,errors_per_s,trade_p99_ms\n".to_owned();
        let per_second = |count: u32| f64::from(count) / COLUMN.as_secs_f64();
        for (index, column) in self.report.timeline.iter().enumerate() {
            let from = as_f64(index as u64) * COLUMN.as_secs_f64();
            let p99 = p99(column);
            let p99 = if p99.is_nan() { String::new() } else { format!("{p99:.3}") };
            let (lookups, trades, errors) = (column.lookups, column.trades, column.errors);
            let rates = [lookups, trades, errors].map(|count| format!("{:.0}", per_second(count))).join(",");
            let _ = writeln!(csv, "{from:.1},{rates},{p99}");
        }
        csv
    }

    /// The faults: one row each.
    #[must_use]
    pub fn events_csv(&self) -> String {
        let mut csv = "fault,at_s,healed_s,whole_s,longest_gap_ms,errors,trouble\n".to_owned();
        for event in &self.events {
            let whole = event.whole.map(|whole| format!("{:.3}", whole.as_secs_f64())).unwrap_or_default();
            let trouble = event.trouble.as_deref().unwrap_or_default().replace('"', "'");
            let (at, healed) = (event.at.as_secs_f64(), event.healed.as_secs_f64());
            let gap = millis(event.longest_gap);
            let _ =
                writeln!(csv, "{},{at:.3},{healed:.3},{whole},{gap:.1},{},\"{trouble}\"", event.label, event.errors);
        }
        csv
    }

    /// Throughput and p99 over time, with each fault marked for as long as it lasted.
    #[must_use]
    pub fn plot(&self) -> String {
        let line = |name: &str, value: &dyn Fn(&Column) -> f64| {
            let point = |(index, column): (usize, &Column)| {
                let y = value(column);
                Point { x: as_f64(index as u64) * COLUMN.as_secs_f64(), low: y, y, high: y }
            };
            Series { name: name.to_owned(), points: self.report.timeline.iter().enumerate().map(point).collect() }
        };
        let rate = |count: u32| f64::from(count) / COLUMN.as_secs_f64();
        let throughput = vec![
            line("lookups", &|column| rate(column.lookups)),
            line("trades", &|column| rate(column.trades)),
            line("failed attempts", &|column| rate(column.errors)),
        ];
        let mark = |event: &Event| Mark {
            x: event.at.as_secs_f64(),
            end: event.healed.as_secs_f64(),
            label: event.label.clone(),
        };
        Figure {
            title: format!("A drill under {} clients", self.report.clients),
            x_title: "time (s); shaded: from a fault until it was healed".to_owned(),
            x_range: None,
            spread: String::new(),
            panels: vec![
                Panel { y_title: "per second, each 100 ms".to_owned(), logarithmic: false, series: throughput },
                Panel {
                    y_title: "p99 of trades (ms), each 100 ms".to_owned(),
                    logarithmic: true,
                    series: vec![line("trades", &p99)],
                },
            ],
            marks: self.events.iter().map(mark).collect(),
        }
        .svg()
    }

    /// Writes `timeline.csv`, `faults.csv` and `timeline.svg` into `directory`, which is made where it is missing.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let files =
            vec![("timeline.csv", self.to_csv()), ("faults.csv", self.events_csv()), ("timeline.svg", self.plot())];
        write_files(directory, files)
    }
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        strip::write(f, &self.report.timeline, &self.events)?;
        writeln!(
            f,
            "{:<4}{:<34}{:>9}{:>11}{:>9}{:>12}{:>9}",
            "", "fault", "at s", "healed s", "whole s", "gap ms", "errors"
        )?;
        for (index, event) in self.events.iter().enumerate() {
            let whole = event.whole.map_or("never".to_owned(), |whole| format!("{:.2}", whole.as_secs_f64()));
            writeln!(
                f,
                "{:<4}{:<34}{:>9.2}{:>11.2}{whole:>9}{:>12.1}{:>9}",
                index + 1,
                event.label,
                event.at.as_secs_f64(),
                event.healed.as_secs_f64(),
                millis(event.longest_gap),
                event.errors
            )?;
            if let Some(trouble) = &event.trouble {
                writeln!(f, "    {trouble}")?;
            }
        }
        if !self.left_running.is_empty() {
            writeln!(f, "started again and left running: {}", self.left_running.join(", "))?;
        }
        write!(f, "\n{}\n{}", self.report, self.journals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_costs_the_longest_gap_that_reaches_into_its_time() {
        let ms = Duration::from_millis;
        let check = |times: &[u64], from, until, expected| {
            let times: Vec<Duration> = times.iter().copied().map(ms).collect();
            assert_eq!(longest_gap(&times, ms(from), ms(until), ms(1_000)), ms(expected), "{times:?} {from}..{until}");
        };
        check(&[10, 20, 90, 100], 30, 500, 400);
        check(&[10, 20, 90, 100], 30, 1_000, 900);
        check(&[10, 20, 90, 100], 30, 95, 70);
        check(&[10, 20, 90, 100, 990], 25, 60, 40);
        check(&[10, 20, 90, 100, 990], 60, 95, 70);
        check(&[100, 200, 300, 990], 250, 310, 100);
        check(&[], 250, 310, 60);
    }

    #[test]
    fn the_percentile_of_a_column_is_that_of_its_trades() {
        let column = |micros: Vec<u32>| Column { trade_micros: micros, ..Column::default() };
        assert!(p99(&column(vec![])).is_nan());
        assert_eq!(p99(&column(vec![7_000])).to_string(), "7");
        assert_eq!(p99(&column((1..=100).map(|n| n * 1_000).rev().collect())).to_string(), "99");
    }

    #[test]
    fn errors_belong_to_the_fault_before_them() {
        let times: Vec<Duration> = [5, 10, 10, 20].map(Duration::from_millis).to_vec();
        for (from, until, expected) in [(0, 30, 4), (10, 20, 2), (11, 20, 0), (20, 1_000, 1)] {
            assert_eq!(within(&times, Duration::from_millis(from), Duration::from_millis(until)), expected);
        }
    }
}
