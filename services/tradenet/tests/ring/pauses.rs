//! SIGSTOP for some seconds, then SIGCONT: whoever was away must not act on what it knew before.

use std::time::Duration;

use tradenet_runtime::process::Signal;

use crate::harness::Exchange;

/// Pauses a part for so long under load through the frontend that stays, and resumes it. Longer than every lease, suspicion
/// and eviction; what is tried is the pause itself.
fn check(name: &str, pause_s: u64, meanwhile: impl FnOnce(&Exchange)) {
    let exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let load = exchange.load(&[1], pause_s + 3);
    exchange.until_trading();
    // The frontend that may be paused has something to be stale with.
    let names = ["GameStart", "GameStart"];
    let _ = names.map(|name| exchange.stock(2, name));
    exchange.signal(name, Signal::Pause);
    std::thread::sleep(Duration::from_secs(pause_s));
    meanwhile(&exchange);
    // Volumes only grow, so what anybody has read is the least that everybody reads from then on.
    let (_, volume) = exchange.stock(1, "GameStart");
    exchange.signal(name, Signal::Resume);
    for _ in 0..20 {
        let (_, found) = exchange.stock(2, "GameStart");
        assert!(found >= volume, "stale: {found} after {volume}");
    }
    load.verified_without_an_error();
    exchange.until_whole();
    assert_eq!(exchange.stock(1, "GameStart"), exchange.stock(2, "GameStart"));
    exchange.stop_and_verify();
}

#[test]
fn a_leader_that_was_paused_for_ten_seconds_finds_another_one_and_follows_it() {
    check("order-3", 10, |exchange| {
        exchange.until_led(2, &[1, 2]);
    });
}

#[test]
fn a_follower_that_was_paused_is_left_out_and_comes_back() {
    check("order-1", 3, |exchange| {
        exchange.until_led(3, &[2, 3]);
    });
}

#[test]
fn a_catalog_that_was_paused_shows_nothing_old() {
    check("catalog-1", 3, |exchange| {
        exchange.until_trading();
    });
}

#[test]
fn a_frontend_that_was_paused_with_a_full_cache_shows_nothing_old() {
    check("frontend-2", 5, |exchange| {
        exchange.until_trading();
    });
}
