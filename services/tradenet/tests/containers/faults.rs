//! Every fault of every service, under load.

use crate::engine::{Exchange, Image};

pub(crate) fn every_fault_under_load(image: &Image) {
    let exchange = Exchange::up(image);
    let drill = exchange.drill(
        1,
        &[
            "stop:leader",
            "kill:leader",
            "pause:leader",
            "cut:leader",
            "stop:follower",
            "kill:follower",
            "pause:follower",
            "cut:follower",
            "stop:catalog",
            "kill:catalog",
            "pause:catalog",
            "cut:catalog",
            "stop:frontend",
            "kill:frontend",
            "pause:frontend",
            "cut:frontend",
            "restart:nats",
        ],
    );
    assert_eq!(drill.events.len(), 17);
    exchange.until_whole();
    exchange.stop_and_verify(image);
}
