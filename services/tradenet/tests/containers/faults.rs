//! Every fault of every service, under load.
//!
//! A replica that falls again and again waits longer each time before it is taken in again, so no test harms one of them
//! more often than twice.

use crate::engine::{Exchange, Image};

#[track_caller]
fn check(image: &Image, down_s: u64, faults: &[&str]) {
    let exchange = Exchange::up(image);
    exchange.drill(1, down_s, faults);
    exchange.until_whole();
    exchange.stop_and_verify(image);
}

pub(crate) fn of_the_leader(image: &Image) {
    check(image, 3, &["stop:leader", "kill:leader", "pause:leader"]);
}

pub(crate) fn of_followers(image: &Image) {
    check(image, 3, &["stop:order-1", "kill:order-2", "pause:order-1"]);
}

pub(crate) fn of_the_others(image: &Image) {
    let of_each = |service: &str| ["stop", "kill", "pause"].map(|action| format!("{action}:{service}"));
    let faults: Vec<_> = of_each("catalog").into_iter().chain(of_each("frontend")).collect();
    let faults: Vec<_> = faults.iter().map(String::as_str).chain(["restart:nats"]).collect();
    check(image, 3, &faults);
}

/// Long enough for the broker to give up who is silent, and for every lease, suspicion and eviction.
pub(crate) fn of_the_network(image: &Image) {
    check(image, 30, &["cut:leader", "cut:order-1", "cut:catalog", "cut:frontend"]);
}
