//! A burst of orders by a thousand accounts, with the leader and a frontend killed in its middle.
//!
//! `RING_BURST_ORDERS=100000` makes it as large as the exchange promises to bear; without, it is a tenth of that.

use std::thread;
use std::time::Duration;

use loadgen::market::{MarketOptions, market};

use crate::harness::Exchange;

const ORDERS: u64 = 10_000;
const ACCOUNTS: u32 = 1_000;
/// Entries that an account begins with: its opening and three deposits.
const ENTRIES_EACH: u64 = 4;

#[test]
fn a_burst_over_a_killed_leader_and_frontend_loses_no_order_no_cent_and_no_stock() {
    let orders = std::env::var("RING_BURST_ORDERS").map_or(ORDERS, |text| text.parse().unwrap());
    println!("RING_BURST_ORDERS={orders}");
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let mut run = exchange.load_options(1, 0);
    run.urls.push(exchange.url(2).parse().unwrap());
    (run.spread, run.exclusive, run.clients, run.think) = (true, true, 64, Duration::ZERO);
    let options = MarketOptions { run, accounts: ACCOUNTS, orders: Some(orders) };
    let load = thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(market(options)).unwrap()
    });
    // Of three entries, two are orders.
    let middle = u64::from(ACCOUNTS) * ENTRIES_EACH + orders * 3 / 4;
    exchange.until_committed(middle);
    exchange.kill("order-3");
    // Its clients must not know what became of their calls, and ask again elsewhere.
    exchange.kill("frontend-2");
    exchange.until_led(2, &[1, 2]);
    exchange.restart("frontend-2");
    let report = load.join().unwrap();
    println!("{report}");
    assert!(report.counts.retries > 0, "nobody asked again: {report}");
    assert!(report.ok() && report.verification.orders >= orders && report.verification.trades > 0, "{report}");
    exchange.restart("order-3");
    exchange.until_whole();
    exchange.stop_and_verify();
}
