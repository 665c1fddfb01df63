//! Seeds: every one that ever failed, some more, and that a seed is a seed.

use std::collections::BTreeSet;

use tradenet_sim::marks;
use tradenet_sim::run::{Verdict, run};
use tradenet_sim::trace::Detail;

/// How to run a seed again; said if the test fails while it runs, by its verdict or by an assertion of core.
struct Command(u64);

impl Drop for Command {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat: cargo run --release -p tradenet-sim -- run --seed {}", self.0);
        }
    }
}

fn holds(seed: u64, why: &str) -> Verdict {
    let _said = Command(seed);
    let verdict = run(seed, Detail::Fingerprint);
    assert_eq!(verdict.violation, None, "seed {seed} {why}");
    verdict
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_by_byte() {
    for seed in [1, 6] {
        let (first, again) = (run(seed, Detail::Text), run(seed, Detail::Text));
        assert!(first.trace.len() > 500, "{} lines", first.trace.len());
        assert_eq!(first.trace, again.trace);
        assert_eq!(first.fingerprint, again.fingerprint);
        let silent = run(seed, Detail::Fingerprint);
        assert_eq!(silent.fingerprint, first.fingerprint, "text changes nothing");
    }
}

#[test]
fn seeds_that_failed_once_hold_now() {
    let listed = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    for line in listed {
        let (seed, why) = line.split_once(' ').unwrap();
        holds(seed.parse().unwrap(), why);
    }
}

#[test]
fn a_standard_swarm_holds_and_reaches_every_rare_situation() {
    let mut reached = BTreeSet::new();
    for seed in 1_000_000..1_000_300 {
        reached.extend(holds(seed, "").marks.into_keys());
    }
    let missed: Vec<_> = marks::all().filter(|mark| !reached.contains(mark)).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}
