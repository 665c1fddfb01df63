//! Trading as a client has it, and that it goes on where it was.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order, until};

#[test]
fn a_first_trade_is_read_back_and_everything_goes_on_where_it_was_after_a_stop() {
    let mut exchange = Exchange::start(&[]);
    let looked_up = |exchange: &Exchange, expected: &str, quantity: u64, volume: u64| {
        let answer = exchange.get(1, "/stocks/GameStart");
        assert_eq!(answer.header("x-cache"), Some(expected), "{answer:?}");
        let stock = serde_json::json!({"name": "GameStart", "price": 15.99, "quantity": quantity, "volume": volume});
        assert_eq!(answer.body["data"], stock);
    };
    looked_up(&exchange, "miss", 100, 0);
    looked_up(&exchange, "hit", 100, 0);
    let one = order("GameStart", 1, "buy");
    assert_eq!(exchange.post_with_key(1, &one, "first").number(), 1);
    looked_up(&exchange, "miss", 99, 1);
    looked_up(&exchange, "hit", 99, 1);
    assert_eq!(exchange.post(1, &order("GameStart", 2, "sell")).number(), 2);
    assert_eq!(exchange.post(1, &order("GameStart", 1_000, "buy")).status, 409);
    assert_eq!(exchange.get(1, "/orders/3").status, 404);

    let the_same_again = |exchange: &Exchange| {
        let read = exchange.get(1, "/orders/1").body["data"].clone();
        let expected = serde_json::json!({"order_num": 1, "name": "GameStart", "type": "buy", "quantity": 1});
        assert_eq!(read, expected);
        for key in ["first", "\"first\""] {
            let again = exchange.post_with_key(1, &one, key);
            assert_eq!((again.number(), again.header("idempotent-replayed")), (1, Some("true")));
        }
        assert_eq!(exchange.post_with_key(1, &order("GameStart", 2, "buy"), "first").status, 422);
        assert_eq!(exchange.stock(1, "GameStart"), (101, 3));
    };
    the_same_again(&exchange);
    exchange.stop_all();
    exchange.start_again();
    the_same_again(&exchange);
    assert_eq!(exchange.post_with_key(1, &one, "second").number(), 3);
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn many_clients_at_once_cost_one_sync_a_batch() {
    let exchange = Exchange::start_logging("info,tradenet_runtime::disk=debug");
    exchange.until_whole();
    let reports = exchange.crowd(64, 3).verified();
    let log = exchange.log();
    let syncs = log.lines().filter(|line| line.starts_with("order-3 ") && line.contains(" synced ")).count();
    let trades = reports[0].verification.read;
    println!("{trades} trades, {syncs} syncs by the leader");
    assert!(syncs > 0 && syncs as u64 * 4 < trades, "{trades} trades, {syncs} syncs");
}

#[test]
fn a_request_repeated_a_hundred_times_while_the_leader_is_killed_happens_once() {
    let exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let (one, answered) = (order("GameStart", 1, "buy"), AtomicU32::new(0));
    let repeat = &|frontend: usize| {
        let answer = exchange.post_with_key(frontend, &one, "again-and-again");
        // Whoever is told to come again comes again; nobody is told anything else than the one number.
        if matches!(answer.status, 503 | 504) {
            return false;
        }
        assert_eq!(answer.number(), 1);
        answered.fetch_add(1, Ordering::SeqCst);
        true
    };
    std::thread::scope(|scope| {
        for client in 0..10 {
            scope.spawn(move || {
                for _ in 0..10 {
                    while !repeat(1 + client % 2) {}
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        until("some have their answer", || answered.load(Ordering::SeqCst) >= 20);
        exchange.signal("order-3", Signal::Kill);
    });
    exchange.until_led(2, &[1, 2]);
    assert_eq!(answered.load(Ordering::SeqCst), 100);
    assert_eq!(exchange.stock(1, "GameStart"), (99, 1));
}
