//! What cannot be shown to be whole is not served, until somebody says so.

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order};

/// Stops 1 and 2, has a trade made by 3 alone, and ends that as well.
fn only_three_has_every_order(exchange: &mut Exchange) -> u64 {
    exchange.until_whole();
    exchange.end("order-1", Signal::Terminate);
    exchange.until_led(3, &[2, 3]);
    exchange.end("order-2", Signal::Terminate);
    exchange.until_led(3, &[3]);
    let number = exchange.post(1, &order("GameStart", 1, "buy")).number();
    exchange.kill("order-3");
    number
}

#[test]
fn the_last_one_that_was_in_sync_is_waited_for_by_name() {
    let mut exchange = Exchange::start(&[]);
    let number = only_three_has_every_order(&mut exchange);
    exchange.restart("order-1");
    exchange.restart("order-2");
    exchange.until_cluster("1 and 2 live, nobody leads", |cluster| {
        cluster.leader.is_none() && cluster.replicas[..2].iter().all(|replica| replica.alive)
    });
    let refused = exchange.post(1, &order("GameStart", 1, "buy"));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.message().contains("order-3"), "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    exchange.restart("order-3");
    exchange.until_whole();
    assert_eq!(exchange.get(1, &format!("/orders/{number}")).status, 200);
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).number(), number + 1);
    exchange.stop_and_verify();
}

#[test]
fn orders_that_only_a_lost_disk_had_are_given_up_by_the_operator_only() {
    let mut exchange = Exchange::start(&[]);
    exchange.post(1, &order("GameStart", 1, "buy")).number();
    only_three_has_every_order(&mut exchange);
    std::fs::remove_dir_all(exchange.disk(3)).unwrap();
    for name in ["order-1", "order-2", "order-3"] {
        exchange.restart(name);
    }
    exchange.until_cluster("all live, nobody leads", |cluster| {
        cluster.leader.is_none() && cluster.replicas.iter().all(|replica| replica.alive)
    });
    let refused = exchange.post(1, &order("GameStart", 1, "buy"));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(exchange.operate(&["status"]).status.code(), Some(3));

    let shown = exchange.operate(&["recover"]);
    let text = String::from_utf8([shown.stdout, shown.stderr].concat()).unwrap();
    assert_eq!(shown.status.code(), Some(1), "{text}");
    assert!(text.contains("order-2 would lead") && text.contains("--accept-loss"), "{text}");
    assert!(exchange.cluster(1).leader.is_none(), "it did what it only shows");
    let done = exchange.operate(&["recover", "--accept-loss"]);
    assert!(done.status.success(), "{done:?}");
    exchange.until_whole();
    // The order that only the lost disk had is lost, and its number is used again.
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).number(), 2);
    let again = exchange.operate(&["recover", "--accept-loss"]);
    assert!(!again.status.success(), "{again:?}");
    exchange.stop_and_verify();
}
