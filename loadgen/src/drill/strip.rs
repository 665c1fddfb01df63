//! A drill's timeline for a terminal: a line for each second, in it a character for each column.
//!
//! Two strips side by side: how much was served, from none (a dot) to the most of any column, and the 99th percentile of
//! trades, in steps of half a power of ten, for a stall lifts it a thousandfold.

use std::fmt;

use super::timeline::p99;
use super::{COLUMN, Event};
use crate::recorder::Column;
use crate::report::as_f64;

/// From least to most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The upper ends of all bars of a percentile but the highest, in milliseconds.
const P99_ENDS_MS: [f64; 7] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0];
/// Columns of a line.
const WIDTH: usize = 10;
/// Most lines that are printed; a longer drill has its timeline in the file.
const MAX_LINES: usize = 600;

/// Writes all lines, with the faults beside the seconds in which they began and were healed.
pub(super) fn write(f: &mut fmt::Formatter<'_>, columns: &[Column], events: &[Event]) -> fmt::Result {
    let most = columns.iter().map(served).max().unwrap_or(0);
    writeln!(
        f,
        "{:>5}  {:<WIDTH$} {:>9}  {:<WIDTH$} {:>9} {:>7}",
        "s", "served", "per s", "p99", "worst ms", "errors"
    )?;
    for (second, line) in columns.chunks(WIDTH).enumerate().take(MAX_LINES) {
        let throughput: String = line.iter().map(|column| share(served(column), most)).collect();
        let latency: String = line.iter().map(|column| step(p99(column))).collect();
        let worst = line.iter().map(p99).fold(f64::NAN, f64::max);
        let worst = if worst.is_nan() { "-".to_owned() } else { format!("{worst:.1}") };
        let rate = as_f64(line.iter().map(served).sum()) / (as_f64(line.len() as u64) * COLUMN.as_secs_f64());
        let errors: u64 = line.iter().map(|column| u64::from(column.errors)).sum();
        let marks = marks(events, second as u64);
        let text =
            format!("{second:>5}  {throughput:<WIDTH$} {rate:>9.0}  {latency:<WIDTH$} {worst:>9} {errors:>7}  {marks}");
        writeln!(f, "{}", text.trim_end())?;
    }
    if columns.len() > MAX_LINES * WIDTH {
        writeln!(f, "      and {} s more in timeline.csv", columns.len() / WIDTH - MAX_LINES)?;
    }
    writeln!(f)
}

fn served(column: &Column) -> u64 {
    u64::from(column.lookups) + u64::from(column.trades)
}

fn share(value: u64, most: u64) -> char {
    // Anything at all shows.
    let height = (value * BARS.len() as u64).div_ceil(most.max(1));
    height.checked_sub(1).map_or('·', |height| BARS[usize::try_from(height).unwrap_or(usize::MAX).min(BARS.len() - 1)])
}

fn step(millis: f64) -> char {
    if millis.is_nan() { '·' } else { BARS[P99_ENDS_MS.partition_point(|end| *end < millis)] }
}

/// What happened within this second.
fn marks(events: &[Event], second: u64) -> String {
    let began = events.iter().zip(1..).filter(|(event, _)| event.at.as_secs() == second);
    let healed = events.iter().zip(1..).filter(|(event, _)| event.healed.as_secs() == second);
    let began = began.map(|(event, number)| format!("<- {number} {}", event.label));
    let healed = healed.map(|(_, number)| format!("<- {number} healed"));
    began.chain(healed).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_stands_for_a_share_or_a_step_and_a_dot_for_nothing() {
        for (value, expected) in [(0, '·'), (1, '▁'), (100, '▁'), (101, '▂'), (400, '▄'), (799, '█'), (800, '█')]
        {
            assert_eq!(share(value, 800), expected, "{value}");
        }
        assert_eq!(share(0, 0), '·');
        for (millis, expected) in [(f64::NAN, '·'), (0.2, '▁'), (1.0, '▁'), (2.0, '▂'), (170.0, '▆'), (5_000.0, '█')]
        {
            assert_eq!(step(millis), expected, "{millis}");
        }
    }
}
