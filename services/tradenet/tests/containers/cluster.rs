//! `compose.cluster.yaml`: no single process whose loss stops trading.

use crate::engine::{Exchange, Image};

pub(crate) fn each_broker_in_turn(image: &Image) {
    let exchange = Exchange::up_cluster(image);
    let faults =
        ["kill:nats-1", "kill:nats-2", "kill:nats-3", "kill:catalog-1", "kill:frontend-1", "kill:leader", "cut:nats-2"];
    let drill = exchange.drill(2, &faults);
    assert_eq!(drill.events.len(), faults.len());
    exchange.until_whole();
    exchange.stop_and_verify(image);
}
