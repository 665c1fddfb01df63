//! The search against histories by hand, and against trying out all orders.

use fastrand::Rng;

use super::*;

const LISTED: Listed = Listed { price: 5, quantity: 10, volume: 0, order: OrderNumber(0) };

fn buy(number: u64, count: u64) -> OnStock {
    OnStock::Trade { number: Some(OrderNumber(number)), buys: true, count }
}

fn untold_buy(count: u64) -> OnStock {
    OnStock::Trade { number: None, buys: true, count }
}

fn shown(quantity: u64, volume: u64) -> OnStock {
    OnStock::Shown(Some((5, quantity, volume)))
}

fn told<E>(operations: impl IntoIterator<Item = (u64, u64, E)>) -> Vec<Told<E>> {
    operations.into_iter().map(|(called, returned, effect)| Told { called, returned, effect }).collect()
}

fn untold<E>(operations: impl IntoIterator<Item = (u64, E)>) -> Vec<Untold<E>> {
    operations.into_iter().map(|(called, effect)| Untold { called, effect }).collect()
}

/// Operations on a stock that is listed with ten, and whether there is an order of them.
fn check<const T: usize, const U: usize>(
    what: &str,
    operations: [(u64, u64, OnStock); T],
    perhaps: [(u64, OnStock); U],
    expected: bool,
) {
    let found = order(Some(LISTED), &told(operations), &untold(perhaps), 10_000);
    assert_eq!(found == Order::Found, expected, "{what}: {found:?}");
    assert_ne!(found, Order::Undecided, "{what}");
}

#[test]
fn reads_show_what_was_done_before_them_and_nothing_that_comes_after() {
    check("new after", [(0, 2, buy(1, 3)), (3, 4, shown(7, 3))], [], true);
    check("old after", [(0, 2, buy(1, 3)), (3, 4, shown(10, 0))], [], false);
    check("old meanwhile", [(0, 5, buy(1, 3)), (3, 4, shown(10, 0))], [], true);
    check("new meanwhile", [(0, 5, buy(1, 3)), (3, 4, shown(7, 3))], [], true);
    check("new before", [(3, 5, buy(1, 3)), (0, 2, shown(7, 3))], [], false);
    check("new, then old", [(0, 9, buy(1, 3)), (1, 2, shown(7, 3)), (3, 4, shown(10, 0))], [], false);
    check("never so", [(0, 2, buy(1, 3)), (3, 4, shown(8, 2))], [], false);
}

#[test]
fn numbers_grow_with_time() {
    check("in order", [(0, 2, buy(1, 3)), (3, 4, buy(2, 3))], [], true);
    check("out of order", [(0, 2, buy(2, 3)), (3, 4, buy(1, 3))], [], false);
    check("at once", [(0, 4, buy(2, 3)), (0, 4, buy(1, 3))], [], true);
}

#[test]
fn what_nobody_was_told_of_may_happen_at_any_time_since_or_never() {
    let perhaps = (2, untold_buy(3));
    check("never", [(3, 4, shown(10, 0))], [perhaps.clone()], true);
    check("at once", [(3, 4, shown(7, 3))], [perhaps.clone()], true);
    check("late", [(3, 4, shown(10, 0)), (50, 60, shown(7, 3))], [perhaps.clone()], true);
    check("and back", [(3, 4, shown(7, 3)), (50, 60, shown(10, 0))], [perhaps.clone()], false);
    check("before it was asked for", [(0, 1, shown(7, 3))], [perhaps.clone()], false);
    check("twice", [(3, 4, shown(4, 6))], [perhaps.clone()], false);
    check("both", [(3, 4, shown(4, 6))], [perhaps.clone(), perhaps], true);
}

#[test]
fn a_refusal_was_right_at_some_moment() {
    check("too few", [(0, 1, OnStock::TooFew(11))], [], true);
    check("enough", [(0, 1, OnStock::TooFew(10))], [], false);
    check("too few after a purchase", [(0, 1, buy(1, 1)), (2, 3, OnStock::TooFew(10))], [], true);
    check("never right", [(0, 1, OnStock::Never)], [], false);
    check("bought too many", [(0, 1, buy(1, 11))], [], false);
}

#[test]
fn the_table_of_orders_has_no_gaps() {
    let (made, looked) = (|number| OnOrders::Made(Some(OrderNumber(number))), OnOrders::Looked);
    let check = |operations: Vec<(u64, u64, OnOrders)>, perhaps: Vec<(u64, OnOrders)>, expected: bool| {
        let found = order(OrderNumber(0), &told(operations.clone()), &untold(perhaps), 10_000);
        assert_eq!(found == Order::Found, expected, "{operations:?}: {found:?}");
    };
    check(vec![(0, 1, made(1)), (0, 1, made(2))], vec![], true);
    check(vec![(0, 1, made(1)), (0, 1, made(3))], vec![], false);
    check(vec![(0, 1, made(1)), (0, 1, made(3))], vec![(0, OnOrders::Made(None))], true);
    check(vec![(0, 1, made(1)), (0, 1, made(3))], vec![(2, OnOrders::Made(None))], false);
    check(vec![(0, 1, made(1)), (2, 3, looked(OrderNumber(1), false))], vec![], false);
    check(vec![(0, 1, made(1)), (2, 3, looked(OrderNumber(2), true))], vec![], false);
    check(vec![(0, 1, made(2)), (2, 3, made(1))], vec![], false);
}

#[test]
fn a_search_that_takes_too_long_says_so() {
    let operations = told([(0, 9, buy(1, 1)), (0, 9, buy(2, 1))]);
    assert_eq!(order(Some(LISTED), &operations, &[], 1), Order::Undecided);
}

/// Whether some order of all told and some untold operations is possible, by trying all of them.
fn by_trying(state: &Option<Listed>, told: &[Told<OnStock>], untold: &[Untold<OnStock>]) -> bool {
    let until = told.iter().map(|operation| operation.returned).min().unwrap_or(0);
    let without = |at: usize| [&told[..at], &told[at + 1..]].concat();
    let next_told = told.iter().enumerate().any(|(at, operation)| {
        let after = operation.effect.after(state).filter(|_| operation.called <= until);
        after.is_some_and(|after| by_trying(&after, &without(at), untold))
    });
    let next_untold = || {
        untold.iter().enumerate().any(|(at, operation)| {
            let after = operation.effect.after(state).filter(|_| operation.called <= until);
            let rest = [&untold[..at], &untold[at + 1..]].concat();
            after.is_some_and(|after| by_trying(&after, told, &rest))
        })
    };
    told.is_empty() || next_told || next_untold()
}

#[test]
fn it_finds_an_order_exactly_where_trying_all_finds_one() {
    let mut rng = Rng::with_seed(1);
    let mut found = 0;
    for round in 0..3_000 {
        let mut numbers = 0;
        let mut draw = |rng: &mut Rng| match rng.u8(0..6) {
            0..2 => {
                numbers += 1;
                OnStock::Trade { number: Some(OrderNumber(numbers)), buys: rng.bool(), count: rng.u64(1..3) }
            }
            2 => OnStock::TooFew(rng.u64(8..12)),
            _ => shown(rng.u64(8..12), rng.u64(0..4)),
        };
        let operations: Vec<_> = (0..rng.usize(1..6))
            .map(|_| {
                let called = rng.u64(0..10);
                Told { called, returned: called + rng.u64(1..8), effect: draw(&mut rng) }
            })
            .collect();
        let perhaps: Vec<_> = (0..rng.usize(0..3))
            .map(|_| {
                let effect = OnStock::Trade { number: None, buys: rng.bool(), count: rng.u64(1..3) };
                Untold { called: rng.u64(0..10), effect }
            })
            .collect();
        let expected = by_trying(&Some(LISTED), &operations, &perhaps);
        let order = order(Some(LISTED), &operations, &perhaps, 100_000);
        assert_eq!(order == Order::Found, expected, "round {round}: {operations:?} {perhaps:?}: {order:?}");
        found += u32::from(expected);
    }
    assert!((300..2_700).contains(&found), "{found} of 3000 have an order: too one-sided to show anything");
}
