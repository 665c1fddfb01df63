//! `kill -9`, under load.

use std::time::Duration;

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order};

#[test]
fn a_killed_leader_is_replaced_by_the_next_highest_and_leads_again_when_it_is_back() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 8);
    exchange.until_trading();
    exchange.kill("order-3");
    exchange.until_led(2, &[1, 2]);
    exchange.until_trading();
    exchange.restart("order-3");
    for report in load.verified() {
        assert_eq!(report.error_count(), 0, "{report}");
        let gap = report.longest_gap.unwrap().length;
        println!("longest time without a trade: {} ms", gap.as_millis());
        assert!(gap < Duration::from_secs(5));
    }
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn trading_goes_on_with_one_replica_and_all_come_back() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 10);
    exchange.until_trading();
    exchange.kill("order-3");
    exchange.until_led(2, &[1, 2]);
    exchange.until_trading();
    exchange.kill("order-2");
    exchange.until_led(1, &[1]);
    exchange.until_trading();
    exchange.restart("order-2");
    exchange.restart("order-3");
    load.verified_without_an_error();
    exchange.until_whole();
    exchange.stop_and_verify();
}

/// Kills two replicas in the same moment, under load.
fn check_two_killed(killed: [u8; 2], left: u8) {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 6);
    exchange.until_trading();
    let names = killed.map(|id| format!("order-{id}"));
    exchange.signal(&names[0], Signal::Kill);
    exchange.kill(&names[1]);
    exchange.until_led(left, &[left]);
    exchange.until_trading();
    load.verified_without_an_error();
    for name in &names {
        exchange.restart(name);
    }
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn two_replicas_killed_at_once_under_load_leave_the_third_trading() {
    check_two_killed([2, 3], 1);
}

#[test]
fn both_followers_killed_at_once_under_load_leave_the_leader_trading() {
    check_two_killed([1, 2], 3);
}

#[test]
fn a_replica_that_is_asked_to_leave_leaves_at_once_and_trading_goes_on() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 6);
    exchange.until_trading();
    for (name, leader, left) in [("order-1", 3, &[2, 3][..]), ("order-3", 2, &[2])] {
        exchange.end(name, Signal::Terminate);
        crate::harness::until("its exit status", || exchange.log().contains(&format!("{name} died (exit status: 0)")));
        exchange.until_led(leader, left);
        exchange.until_trading();
    }
    load.verified_without_an_error();
    exchange.restart("order-1");
    exchange.restart("order-3");
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn a_killed_catalog_is_missed_for_a_moment_only() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 6);
    exchange.until_trading();
    exchange.kill("catalog-1");
    exchange.until_cluster("no catalog", |cluster| cluster.catalog.is_none());
    exchange.until_trading();
    load.verified_without_an_error();
    let (quantity, volume) = exchange.stock(1, "GameStart");
    exchange.post(1, &order("GameStart", 1, "sell")).number();
    assert_eq!(exchange.stock(1, "GameStart"), (quantity + 1, volume + 1));
    exchange.restart("catalog-1");
    exchange.until_cluster("a catalog", |cluster| cluster.catalog.is_some());
    assert_eq!(exchange.stock(1, "GameStart"), (quantity + 1, volume + 1));
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn of_two_catalogs_the_other_one_takes_over() {
    let mut exchange = Exchange::start(&["--catalogs", "2"]);
    exchange.until_whole();
    let attached = exchange.until_cluster("a catalog", |cluster| cluster.catalog.is_some()).catalog;
    // `/cluster` has a catalog's boot id, and status knows whose it is.
    let status: serde_json::Value = serde_json::from_slice(&exchange.operate(&["status", "--json"]).stdout).unwrap();
    let catalogs = status["catalogs"].as_array().unwrap();
    let name = catalogs.iter().find(|catalog| catalog["attached"] == true).unwrap()["name"].as_str().unwrap();
    let load = exchange.load(&[1], 5);
    exchange.until_trading();
    exchange.kill(name);
    exchange.until_cluster("the other catalog", |cluster| cluster.catalog.is_some() && cluster.catalog != attached);
    exchange.until_trading();
    load.verified_without_an_error();
    exchange.until_whole();
    exchange.stop_and_verify();
}
