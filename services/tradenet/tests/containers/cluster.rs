//! `compose.cluster.yaml`: no single process whose loss stops trading.

use serde_json::Value;

use crate::engine::{Exchange, Image, docker, run, until};

pub(crate) fn each_broker_in_turn(image: &Image) {
    let exchange = Exchange::up_cluster(image);
    let faults =
        ["kill:nats-1", "kill:nats-2", "kill:nats-3", "kill:catalog-1", "kill:frontend-1", "kill:leader", "cut:nats-2"];
    exchange.drill(2, 3, &faults);
    exchange.until_whole();
    exchange.stop_and_verify(image);
}

/// A look-up by somebody who is in the container of frontend-1: status, and the stock's volume where there is one.
#[track_caller]
fn look_up_inside(exchange: &Exchange) -> (u64, Option<u64>) {
    let script = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /stocks/GameStart HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let said = exchange.compose(&["exec", "-T", "frontend-1", "bash", "-c", script]);
    let status = said.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    let body: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_default();
    (status, body["data"]["volume"].as_u64())
}

pub(crate) fn a_cut_off_frontend(image: &Image) {
    let exchange = Exchange::up_cluster(image);
    let container = exchange.compose(&["ps", "--quiet", "frontend-1"]).trim().to_owned();
    let network = exchange.network();
    exchange.buy();
    assert_eq!(look_up_inside(&exchange), (200, Some(1)), "its cache holds it");
    run(&mut docker(&["network", "disconnect", &network, &container]));
    // Answered by the other one, so what the cache holds is old from here on.
    exchange.buy_through(2);
    for _ in 0..10 {
        assert_eq!(look_up_inside(&exchange), (503, None));
    }
    run(&mut docker(&["network", "connect", "--alias", "frontend-1", &network, &container]));
    until("frontend-1 serves", || match look_up_inside(&exchange) {
        (200, volume) => {
            assert_eq!(volume, Some(2));
            true
        }
        (status, _) => {
            assert_eq!(status, 503);
            false
        }
    });
    exchange.stop_and_verify(image);
}
