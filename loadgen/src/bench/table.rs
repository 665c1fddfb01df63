//! What was measured, for people: one row a case.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::cases::Case;
use super::{BenchOptions, Outcome, Row};

/// A line for one window and its floor's.
pub(super) fn line(round: usize, case: &Case, outcome: &Outcome, floor: Option<&Outcome>) -> String {
    let one = |outcome: &Outcome| {
        let Outcome { p50_us, p99_us, per_s, foreign, .. } = outcome;
        let (cpu_us, foreign) = (outcome.cpu_us(), foreign * 100.0);
        format!("p50 {p50_us:.0} p99 {p99_us:.0} us, {per_s:.0}/s, CPU {cpu_us:.1} us, others {foreign:.0} %")
    };
    let floor = floor.map(|floor| format!("; floor {}", one(floor))).unwrap_or_default();
    format!("{round} {}: {}{floor}", case.name, one(outcome))
}

/// All rows, as Markdown.
pub(super) fn table(rows: &[Row], options: &BenchOptions) -> String {
    let place = options.core.map_or_else(|| "all cores".to_owned(), |core| format!("core {core} for everything"));
    let seconds = options.window.1.as_secs_f64();
    let mut text = format!(
        "Medians of {} windows of {seconds} s, {place}; ratios are to the floor of the same round, with the extremes.\n\n\
         | case | p50 µs | p99 µs | per s | CPU µs/op | p50 ratio | rate ratio | CPU ratio | others' CPU | CPU µs/op by process |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        options.rounds
    );
    for Row { case, outcomes } in rows {
        let of = |value: &dyn Fn(&Outcome) -> f64| median(outcomes.iter().map(|(outcome, _)| value(outcome)).collect());
        let ratio = |value: &dyn Fn(&Outcome) -> f64| {
            let pairs = outcomes.iter().filter_map(|(outcome, floor)| Some(value(outcome) / value(floor.as_ref()?)));
            with_extremes(pairs.collect())
        };
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.0} | {:.1} | {} | {} | {} | {:.0} % | {} |",
            case.name,
            of(&|outcome| outcome.p50_us),
            of(&|outcome| outcome.p99_us),
            of(&|outcome| outcome.per_s),
            of(&Outcome::cpu_us),
            ratio(&|outcome| outcome.p50_us),
            ratio(&|outcome| outcome.per_s),
            ratio(&Outcome::cpu_us),
            of(&|outcome| outcome.foreign) * 100.0,
            by_process(outcomes),
        );
    }
    text
}

/// The medians by process, and behind them those of the floor.
fn by_process(outcomes: &[(Outcome, Option<Outcome>)]) -> String {
    fn medians<'a>(windows: impl Iterator<Item = &'a Outcome>) -> String {
        let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, us) in windows.flat_map(|outcome| &outcome.cpu_us) {
            all.entry(name).or_default().push(*us);
        }
        let medians = all.into_iter().map(|(name, values)| format!("{name} {:.1}", median(values)));
        medians.collect::<Vec<_>>().join(", ")
    }
    let own = medians(outcomes.iter().map(|(outcome, _)| outcome));
    let floor = medians(outcomes.iter().filter_map(|(_, floor)| floor.as_ref()));
    if floor.is_empty() { own } else { format!("{own}; floor: {floor}") }
}

fn with_extremes(values: Vec<f64>) -> String {
    let lowest = values.iter().copied().reduce(f64::min);
    let highest = values.iter().copied().reduce(f64::max);
    match (lowest, highest) {
        (Some(lowest), Some(highest)) => format!("{:.2} ({lowest:.2}–{highest:.2})", median(values)),
        _ => "–".to_owned(),
    }
}

/// The middle value; of an even number of them, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_string(), "2");
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]).to_string(), "2.5");
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_ratio_shows_its_spread() {
        assert_eq!(with_extremes(vec![1.0, 1.5, 1.2]), "1.20 (1.00–1.50)");
        assert_eq!(with_extremes(vec![]), "–");
    }
}
