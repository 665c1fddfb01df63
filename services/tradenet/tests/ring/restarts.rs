//! Everything goes down and comes up again, and a part of it over and over.

use std::time::Duration;

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order, until, verify};

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
fn a_replica_starts_from_its_newest_good_snapshot_and_goes_on_as_the_others_do() {
    const OFTEN: [(&str, &str); 1] = [("--snapshot-every-bytes", "30000")];
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    exchange.kill("order-1");
    exchange.restart_with("order-1", &OFTEN);
    exchange.until_whole();
    exchange.load(&[1], 3).verified_without_an_error();
    let newest = |exchange: &Exchange| {
        let files = tradenet_runtime::disk::snapshots::files(&exchange.disk(1)).unwrap();
        (files.len() == 2).then(|| files[0].clone())
    };
    until("two snapshots", || newest(&exchange).is_some());
    // What is in them is the same as in the journal: a start from one, and one from the other.
    for (flipped, says) in [(false, "starting from the snapshot of entry"), (true, "is passed over: it is damaged")] {
        exchange.kill("order-1");
        let (_, file) = newest(&exchange).unwrap();
        if flipped {
            let mut bytes = std::fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 16;
            std::fs::write(&file, bytes).unwrap();
            let (ok, text) = verify(&exchange.disk(1));
            assert!(!ok && text.contains("it is damaged: remove it"), "{text}");
        }
        let before = exchange.log().matches(says).count();
        exchange.restart_with("order-1", &OFTEN);
        until(says, || exchange.log().matches(says).count() > before);
        exchange.until_whole();
    }
    // It leads with what it has read, and answers orders from before and after the snapshot.
    exchange.kill("order-3");
    exchange.kill("order-2");
    exchange.until_led(1, &[1]);
    assert_eq!(exchange.get(1, "/orders/1").status, 200);
    let number = exchange.post(1, &order("GameStart", 1, "sell")).number();
    assert_eq!(exchange.get(1, &format!("/orders/{}", number - 1)).status, 200);
    exchange.restart("order-2");
    exchange.restart("order-3");
    exchange.until_whole();
    exchange.load(&[1], 1).verified_without_an_error();
    until("the damaged one makes room", || verify(&exchange.disk(1)).0);
    exchange.stop_and_verify();
}

#[test]
fn a_replica_without_a_disk_takes_over_a_snapshot_goes_on_where_it_was_killed_and_is_as_good_as_the_others() {
    const OFTEN: [(&str, &str); 1] = [("--snapshot-every-bytes", "30000")];
    const FAR: [(&str, &str); 2] = [("--far-behind-entries", "100"), ("--catch-up-rate", "1048576")];
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    for name in ["order-2", "order-3"] {
        exchange.kill(name);
        exchange.restart_with(name, &OFTEN);
        exchange.until_whole();
    }
    let journal = |exchange: &Exchange, id| std::fs::metadata(exchange.journal(id)).map_or(0, |file| file.len());
    // So much that copying it takes a while, however little the machine trades in a second.
    while journal(&exchange, 3) < 500_000 {
        exchange.load(&[1], 2).verified_without_an_error();
    }
    let taken = |exchange: &Exchange| exchange.log().matches("took over the snapshot of entry").count();
    let given = |exchange: &Exchange| tradenet_runtime::disk::snapshots::files(&exchange.disk(2)).unwrap().len();
    until("somebody has a snapshot", || given(&exchange) > 0);
    exchange.kill("order-1");
    std::fs::remove_dir_all(exchange.disk(1)).unwrap();
    let load = exchange.load(&[1], 4);
    // Killed as soon as it has a part, and once more; what it has it keeps.
    let mut had = 0;
    for _ in 0..2 {
        exchange.restart_with("order-1", &FAR);
        until("it has copied something", || journal(&exchange, 1) > had);
        exchange.kill("order-1");
        assert!(journal(&exchange, 1) > had);
        had = journal(&exchange, 1);
    }
    exchange.restart_with("order-1", &FAR);
    exchange.until_whole();
    load.verified_without_an_error();
    assert!(taken(&exchange) > 0, "it took over a snapshot");
    // It leads with what it has taken over, and has the orders that it never read.
    exchange.kill("order-3");
    exchange.kill("order-2");
    exchange.until_led(1, &[1]);
    assert_eq!(exchange.get(1, "/orders/1").status, 200);
    exchange.restart("order-2");
    exchange.restart("order-3");
    exchange.until_whole();
    exchange.load(&[1], 1).verified_without_an_error();
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
