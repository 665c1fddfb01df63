//! Up, down, and what containers are allowed.

use serde_json::Value;

use crate::engine::{Exchange, Image, docker, run};

pub(crate) fn down_and_up(image: &Image) {
    let exchange = Exchange::up(image);
    let load = exchange.trade(2);
    assert!(load.ok(), "{load}");
    let last = exchange.buy();
    exchange.compose(&["down"]);
    exchange.start();
    let order = exchange.ask(&format!("/orders/{last}"), None).unwrap();
    assert_eq!(order["data"]["order_num"], last, "{order}");
    assert_eq!(exchange.buy(), last + 1);
    let status = exchange.compose(&["run", "--rm", "--no-deps", "operator", "status"]);
    assert!(status.contains("trades are served"), "{status}");

    exchange.compose(&["down", "--volumes"]);
    exchange.start();
    assert_eq!(exchange.buy(), 1, "a fresh exchange");
    exchange.stop_and_verify(image);
}

pub(crate) fn locked_down(image: &Image) {
    let exchange = Exchange::up(image);
    let containers = exchange.compose(&["ps", "--quiet"]);
    let containers: Vec<_> = containers.lines().collect();
    assert_eq!(containers.len(), 6);
    let mut published = Vec::new();
    for container in containers {
        let described: Value = serde_json::from_str(&run(&mut docker(&["inspect", container]))).unwrap();
        let (name, config, host) = (&described[0]["Name"], &described[0]["Config"], &described[0]["HostConfig"]);
        assert_eq!(config["User"], "10001:10001", "{name}");
        assert_eq!(host["ReadonlyRootfs"], true, "{name}");
        assert_eq!(host["CapDrop"][0], "ALL", "{name}");
        assert_eq!(host["Privileged"], false, "{name}");
        assert!(host["Memory"].as_u64() > Some(0), "{name} has a limit");
        assert_eq!(host["LogConfig"]["Config"]["max-file"], "3", "{name}");
        assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped", "{name}");
        assert_eq!(described[0]["State"]["Health"]["Status"], "healthy", "{name}");
        let ports = host["PortBindings"].as_object().into_iter().flatten().map(|(port, _)| port.clone());
        published.extend(ports);
        let processes = run(&mut docker(&["top", container]));
        assert!(!processes.contains("change-me"), "no password among a container's processes: {processes}");
    }
    assert_eq!(published, ["8080/tcp"], "only the frontend's port is published");
    assert!(!exchange.compose(&["logs"]).contains("change-me"), "no password in any log");
    let image = run(&mut docker(&["image", "inspect", &image.name]))
        + &run(&mut docker(&["history", "--no-trunc", &image.name]));
    assert!(!image.contains("change-me"), "no password in the image");
}
