//! Every rule that is left out on purpose is noticed: without this, seeds that hold would mean nothing.
#![cfg(feature = "bugs")]

use tradenet_sim::bugs::{Bug, hunt_all};

/// Seeds in which a bug must be noticed at least once, unless a story notices it.
const SEEDS: u64 = 600;
/// So many must be noticed by seeds; the others are left to stories.
const BY_SEEDS_MIN: usize = 30;

#[test]
fn every_rule_left_out_is_noticed() {
    let all =
        hunt_all(Bug::ALL, SEEDS, true, |found| eprintln!("{:?}: {:?} {:?}", found.bug, found.first, found.story));
    let missed: Vec<_> = all.iter().filter(|found| !found.is_noticed()).map(|found| found.bug).collect();
    assert!(missed.is_empty(), "noticed by no story and none of {SEEDS} seeds: {missed:?}");
    let by_seeds = all.iter().filter(|found| found.first.is_some()).count();
    assert!(by_seeds >= BY_SEEDS_MIN, "only {by_seeds} of {} were noticed by seeds", all.len());
}
