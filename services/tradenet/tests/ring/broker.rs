//! The broker goes away and comes back, with its files, without them, or with changed ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order, until};

#[test]
fn trading_resumes_by_itself_when_a_killed_broker_is_back() {
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let load = exchange.load(&[1, 2], 10);
    exchange.until_trading();
    for _ in 0..2 {
        exchange.kill("nats");
        // Long enough for everybody to notice.
        std::thread::sleep(Duration::from_secs(1));
        exchange.restart("nats");
        exchange.until_trading();
    }
    load.verified();
    let cluster = exchange.cluster(1);
    assert_eq!(cluster.in_sync, [1, 2, 3], "evicted for the broker's absence: {cluster:?}");
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn while_the_broker_is_away_nothing_is_answered_from_a_cache_and_clients_are_told_to_come_again() {
    let mut exchange = Exchange::start(&[]);
    let before = exchange.until_whole();
    until("a look-up from the cache", || exchange.get(1, "/stocks/GameStart").header("x-cache") == Some("hit"));
    exchange.end("nats", Signal::Terminate);
    until("the lease of the cache runs out", || exchange.get(1, "/stocks/GameStart").status == 503);
    let refused = exchange.post(1, &order("GameStart", 1, "buy"));
    assert!(refused.status == 503 && refused.header("retry-after").is_some(), "{refused:?}");
    // The broker's absence itself is what is tried: longer than every suspicion, lease and deadline.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(exchange.get(1, "/stocks/GameStart").status, 503);
    assert_eq!(exchange.get(1, "/readyz").status, 503);
    exchange.restart("nats");
    until("trades are served", || exchange.ready(1));
    exchange.post(1, &order("GameStart", 1, "buy")).number();
    let after = exchange.cluster(1);
    assert_eq!((after.leader, after.in_sync), (before.leader, before.in_sync), "evicted for the broker's absence");
    exchange.stop_and_verify();
}

#[test]
fn a_broker_that_falls_again_and_again_costs_nobody_his_place() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 8);
    exchange.until_trading();
    for _ in 0..10 {
        exchange.kill("nats");
        exchange.restart("nats");
        // No wait for a state: one fall every half a second is what is tried.
        std::thread::sleep(Duration::from_millis(500));
    }
    until("trades are served", || exchange.ready(1));
    let cluster = exchange.cluster(1);
    assert_eq!(cluster.in_sync, [1, 2, 3], "evicted for the broker's absence: {cluster:?}");
    load.verified();
    exchange.until_whole();
    exchange.stop_and_verify();
}

/// Where the broker keeps the stream of the configuration.
fn register(exchange: &Exchange) -> PathBuf {
    exchange.data().join("nats/jetstream/$G/streams/KV_tradenet-configuration")
}

/// Kills the broker and deletes all that it had on its disk.
fn wipe(exchange: &mut Exchange) {
    exchange.kill("nats");
    assert!(register(exchange).exists(), "{} is where the register was", register(exchange).display());
    std::fs::remove_dir_all(exchange.data().join("nats/jetstream")).unwrap();
}

#[test]
fn a_broker_that_has_lost_its_files_has_its_register_back_from_all_replicas() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let number = exchange.post(1, &order("GameStart", 1, "buy")).number();
    let before = exchange.cluster(1).epoch;
    wipe(&mut exchange);
    exchange.restart("nats");
    exchange.until_cluster("it is written anew", |cluster| cluster.ready && cluster.epoch > before);
    assert!(exchange.log().contains("the register is empty: to be written anew from what all replicas hold"));
    // Its use: another one is elected.
    exchange.kill("order-3");
    exchange.until_led(2, &[1, 2]);
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).number(), number + 1);
    exchange.restart("order-3");
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn a_lost_register_is_not_written_anew_while_a_replica_is_missing() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let number = exchange.post(1, &order("GameStart", 1, "buy")).number();
    for name in ["order-1", "order-2", "order-3"] {
        exchange.kill(name);
    }
    wipe(&mut exchange);
    for name in ["nats", "order-2", "order-3"] {
        exchange.restart(name);
    }
    exchange.until_cluster("it says who is missing", |cluster| {
        cluster.trouble.as_ref().is_some_and(|trouble| trouble.contains("start order-1"))
    });
    let refused = exchange.post(1, &order("GameStart", 1, "buy"));
    assert!(refused.status == 503 && refused.message().contains("start order-1"), "{refused:?}");
    exchange.restart("order-1");
    exchange.until_whole();
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).number(), number + 1);
    exchange.stop_and_verify();
}

#[test]
fn a_flipped_bit_in_the_register_is_noticed_and_the_record_written_anew() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    exchange.kill("order-3");
    exchange.until_led(2, &[1, 2]);
    let number = exchange.post(1, &order("GameStart", 1, "buy")).number();
    let before = exchange.cluster(1);
    exchange.end("nats", Signal::Terminate);
    flip_the_last_record(&register(&exchange).join("msgs/1.blk"));
    exchange.restart("order-3");
    exchange.restart("nats");
    until("it is repaired", || exchange.log().contains(": to be written anew from what all replicas hold"));
    exchange.until_whole();
    assert!(exchange.cluster(1).epoch > before.epoch);
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).number(), number + 1);
    exchange.stop_and_verify();
}

/// Changes a bit in the newest record of a stream's file.
#[track_caller]
fn flip_the_last_record(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let newest = bytes.windows(9).rposition(|part| part == b"\"cluster\"").unwrap();
    bytes[newest + 20] ^= 1;
    std::fs::write(path, bytes).unwrap();
}
