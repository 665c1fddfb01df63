//! Everything that can happen to a small exchange, and that it would be seen if a rule were missing.

use tradenet_sim::explore::{Bounds, explore};

#[test]
fn everything_that_can_happen_to_two_replicas_holds() {
    let explored = explore(Bounds::TEST);
    assert_eq!(explored.violation, None);
    assert!(explored.complete, "{explored:?}");
    assert!(explored.epochs > 1 && explored.situations > 1_000, "too little happened: {explored:?}");
}

#[cfg(feature = "bugs")]
#[test]
fn a_missing_rule_is_seen() {
    use tradenet_sim::bugs::{Bug, notices};
    for bug in [Bug::CommitWithoutTheLastFollower, Bug::CommitBeforeShrink, Bug::TrustPublishes] {
        let noticed = notices(bug, || explore(Bounds::TEST).violation.map(|(violation, _)| violation.invariant));
        assert!(noticed.is_some(), "{bug:?}");
    }
}
