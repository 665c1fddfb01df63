//! The broker goes away and comes back.

use std::time::Duration;

use crate::harness::Exchange;

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
