//! Every rule that is left out on purpose is noticed: without this, seeds that hold would mean nothing.
#![cfg(feature = "bugs")]

use tradenet_sim::bugs::{Bug, hunt_all};

/// Seeds in which a bug must be noticed at least once, unless a story notices it. `docs/testing.md` has in how many each is.
const SEEDS: u64 = 5_000;

#[test]
fn every_rule_left_out_is_noticed() {
    let all =
        hunt_all(Bug::ALL, SEEDS, true, |found| eprintln!("{:?}: {:?} {:?}", found.bug, found.first, found.story));
    let missed: Vec<_> = all.iter().filter(|found| !found.is_noticed()).map(|found| found.bug).collect();
    assert!(missed.is_empty(), "noticed by no story and none of {SEEDS} seeds: {missed:?}");
}
