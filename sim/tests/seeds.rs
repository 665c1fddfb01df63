//! Seeds: every one that ever failed, some more, and that a seed is a seed.

use std::collections::BTreeSet;

use tradenet_sim::marks;
use tradenet_sim::run::run;
use tradenet_sim::trace::Detail;

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
        let seed = line.split(' ').next().and_then(|seed| seed.parse().ok()).unwrap();
        let verdict = run(seed, Detail::Fingerprint);
        assert_eq!(verdict.violation, None, "seed {line}");
    }
}

#[test]
fn a_standard_swarm_holds_and_reaches_every_rare_situation() {
    let mut reached = BTreeSet::new();
    for seed in 1_000_000..1_000_300 {
        let verdict = run(seed, Detail::Fingerprint);
        assert_eq!(verdict.violation, None, "seed {seed}: tradenet-sim run --seed {seed}");
        reached.extend(verdict.marks.into_keys());
    }
    let missed: Vec<_> = marks::all().filter(|mark| !reached.contains(mark)).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}
