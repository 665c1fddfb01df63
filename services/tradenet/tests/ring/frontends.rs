//! Several frontends: found by way of the broker, used in turn, and all as fresh as each other.

use std::time::Duration;

use clap::Parser as _;
use loadgen::{RunOptions, Sides};
use tradenet_runtime::nats::ConnectArgs;
use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order, until};
use crate::proxy::{Fate, Proxy};

/// What only the answer to a lookup holds.
const FOUND: &[u8] = b"\"found\"";

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    connect: ConnectArgs,
}

#[test]
fn load_finds_the_frontends_by_the_broker_and_goes_on_through_the_other_when_one_is_killed() {
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let mut options = exchange.load_options(1, 10);
    options.urls.clear();
    options.discover = Some(Line::parse_from(["x", "--nats-url", &exchange.nats_url()]).connect);
    let load = Exchange::generate(options);
    // Whichever it has chosen, it has to change.
    exchange.until_trading();
    exchange.kill("frontend-2");
    exchange.until_trading();
    exchange.restart("frontend-2");
    until("frontend-2 serves", || exchange.ready(2));
    exchange.kill("frontend-1");
    let [report] = &load.verified()[..] else { panic!("one report each generator") };
    assert_eq!(report.frontends.len(), 2, "{report}");
    assert!(report.frontend_changes >= 2, "{report}");
    assert_eq!(report.frontend, exchange.url(2));
    exchange.restart("frontend-1");
    until("frontend-1 serves", || exchange.ready(1));
    exchange.stop_and_verify();
}

/// Every lookup's reply to the second frontend is 300 ms late, and everything else is not: invalidations overtake it.
#[test]
fn a_lookup_reply_that_an_invalidation_overtakes_is_never_served_to_a_later_lookup() {
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let proxy = Proxy::start(&exchange.nats_url(), |_, holds| {
        let answers_a_lookup = holds.windows(FOUND.len()).any(|part| part == FOUND);
        if answers_a_lookup { Fate::Late(Duration::from_millis(300)) } else { Fate::AsItIs }
    });
    exchange.end("frontend-2", Signal::Terminate);
    exchange.restart_with("frontend-2", &[("--nats-url", &proxy.url())]);
    until("frontend-2 serves", || exchange.ready(2));

    // Half of the clients trade through each, and every lookup is compared with what was acknowledged through either.
    let mut options = RunOptions { clients: 8, ..exchange.load_options(1, 6) };
    options.urls.push(exchange.url(2).parse().unwrap());
    options.spread = true;
    options.exclusive = true;
    options.sides = Sides::Mix;
    let [report] = &Exchange::generate(options).verified()[..] else { panic!("one report each generator") };

    let cache = exchange.cluster(2).frontend.cache;
    println!("{} replies held back; {cache:?}; {} stale look-ups", proxy.changed(), report.verification.stale.len());
    // It did happen.
    assert!(proxy.changed() > 20 && cache.stale_fills > 0, "{} {cache:?}", proxy.changed());
    exchange.stop_and_verify();
}

#[test]
fn three_frontends_replace_a_killed_leader_in_one_or_two_epochs_and_agree() {
    let mut exchange = Exchange::start(&["--frontends", "3"]);
    let before = exchange.until_whole();
    exchange.kill("order-3");
    let after = exchange.until_led(2, &[1, 2]);
    let epochs = after.epoch - before.epoch;
    assert!((1..=2).contains(&epochs), "{before:?} {after:?}");
    for frontend in 1..=3 {
        until(&format!("frontend-{frontend} agrees"), || {
            let cluster = exchange.cluster(frontend);
            (cluster.epoch, cluster.leader, cluster.ready) == (after.epoch, Some(2), true)
        });
        exchange.post(frontend, &order("GameStart", 1, "sell")).number();
    }
    assert_eq!(exchange.cluster(1).epoch, after.epoch, "nobody has elected again");
}
