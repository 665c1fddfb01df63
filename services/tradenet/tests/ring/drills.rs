//! `loadgen drill` against the real exchange.

use std::time::Duration;

use loadgen::drill::{DrillOptions, Journals, Services, drill};
use loadgen::{Probability, RunOptions};

use crate::harness::Exchange;

#[test]
fn a_drill_finds_everything_in_order_after_the_leader_and_then_everything_was_killed() {
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    let reread = Probability::new(0.1).unwrap();
    let options = DrillOptions {
        run: RunOptions { exclusive: true, reread, urls: Vec::new(), ..exchange.load_options(1, 0) },
        services: Services::Dev(exchange.data().join("dev.json")),
        faults: ["kill:leader", "pause:leader", "kill:everything"].map(|fault| fault.parse().unwrap()).to_vec(),
        random: None,
        quiet: Duration::from_secs(1),
        down: Duration::from_secs(1),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(drill(options, std::future::pending(), |line| println!("{line}"))).unwrap();
    println!("{result}");
    assert!(result.ok() && result.report.verification.reread > 0, "{result}");
    assert!(matches!(&result.journals, Journals::Same(text) if text.contains("all 3 journals")), "{result}");
    assert!(result.events.iter().all(|event| event.whole.is_some()), "{result}");
    exchange.until_whole();
    exchange.stop_and_verify();
}
