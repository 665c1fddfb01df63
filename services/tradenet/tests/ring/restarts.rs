//! Everything goes down and comes up again, and a part of it over and over.

use std::time::Duration;

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order, until};

/// Every order of the replicas; the broker, the catalog and the frontend before, among and after them.
const ORDERS: [[&str; 6]; 6] = [
    ["nats", "catalog-1", "frontend-1", "order-1", "order-2", "order-3"],
    ["order-1", "order-3", "order-2", "frontend-1", "catalog-1", "nats"],
    ["order-2", "nats", "order-1", "catalog-1", "order-3", "frontend-1"],
    ["frontend-1", "order-2", "order-3", "nats", "order-1", "catalog-1"],
    ["catalog-1", "order-3", "frontend-1", "order-1", "nats", "order-2"],
    ["order-3", "order-2", "order-1", "nats", "frontend-1", "catalog-1"],
];

/// Starts one again. For a replica, returns when it has opened its directory: it does come before the next.
#[track_caller]
fn start(exchange: &mut Exchange, name: &str) {
    let opened =
        |exchange: &Exchange| exchange.log().matches(&format!("{}, boot", name.replace("order-", "replica "))).count();
    let before = opened(exchange);
    exchange.restart(name);
    if name.starts_with("order-") {
        until(&format!("{name} runs"), || opened(exchange) > before);
    }
}

#[test]
fn in_whatever_order_everything_starts_again_it_goes_on_where_it_was() {
    let mut exchange = Exchange::start(&[]);
    for (turn, names) in ORDERS.iter().enumerate() {
        let number = exchange.post(1, &order("GameStart", 1, "buy")).number();
        // Asked to leave, they hand over to each other, and the last one alone has everything; killed, they all have.
        let signal = if turn % 2 == 0 { Signal::Terminate } else { Signal::Kill };
        for name in names {
            exchange.end(name, signal);
        }
        for name in names {
            start(&mut exchange, name);
        }
        until("the frontend serves", || exchange.ready(1));
        exchange.until_whole();
        let volume = u64::try_from(turn).unwrap() + 1;
        assert_eq!(exchange.stock(1, "GameStart"), (100 - volume, volume), "{names:?}");
        assert_eq!((number, exchange.get(1, &format!("/orders/{number}")).status), (volume, 200), "{names:?}");
    }
    exchange.stop_and_verify();
}

#[test]
fn a_replica_that_falls_again_and_again_disturbs_ever_less() {
    const FALLS: u32 = 15;
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 32);
    for _ in 0..FALLS {
        exchange.kill("order-3");
        // These are no waits for a state: one fall every two seconds is what is tried.
        std::thread::sleep(Duration::from_secs(1));
        exchange.restart("order-3");
        std::thread::sleep(Duration::from_secs(1));
    }
    load.verified_without_an_error();
    let changes = exchange.log().lines().filter(|line| line.contains("] leader: order-")).count();
    println!("{changes} leaders over {FALLS} falls, epoch {}", exchange.cluster(1).epoch);
    assert!(changes <= 4, "{changes} changes of leader");
    exchange.until_cluster("all in sync again", |cluster| cluster.in_sync == [1, 2, 3]);
    exchange.stop_and_verify();
}
