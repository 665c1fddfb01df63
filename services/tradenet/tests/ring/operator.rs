//! The operator's commands, and what the program refuses.

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, tradenet};

#[test]
fn status_says_who_leads_and_fails_where_nobody_does() {
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let status = exchange.operate(&["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(0), "{text}");
    for part in ["leader order-3", "in sync [1, 2, 3]", "catalog-1", "frontend-1", "frontend-2", &exchange.url(2)] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    let json = |exchange: &Exchange, code: i32| -> serde_json::Value {
        let status = exchange.operate(&["status", "--json"]);
        assert_eq!(status.status.code(), Some(code), "{status:?}");
        serde_json::from_slice(&status.stdout).unwrap()
    };
    let view = json(&exchange, 0);
    assert_eq!((&view["leader"], &view["ready"]), (&3.into(), &true.into()));
    for name in ["order-1", "order-2", "order-3"] {
        exchange.signal(name, Signal::Kill);
    }
    exchange.until_cluster("nobody lives", |cluster| cluster.replicas.iter().all(|replica| !replica.alive));
    let view = json(&exchange, 3);
    assert_eq!((&view["leader"], &view["ready"]), (&serde_json::Value::Null, &false.into()));
    exchange.kill("nats");
    let status = exchange.operate(&["status"]);
    let text = String::from_utf8(status.stderr).unwrap();
    assert_eq!((status.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("no broker answers"), "{text}");
}

#[test]
fn a_second_supervisor_and_a_second_replica_on_the_same_files_are_refused_in_one_line() {
    let exchange = Exchange::start(&[]);
    let check = |arguments: &[&str], expected: &str| {
        let output = tradenet().args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().last().unwrap().contains(expected), "{text}");
    };
    let (data, url) = (exchange.data(), exchange.url(1));
    let data = data.to_str().unwrap();
    check(&["dev", "--port", "0", "--data-dir", data], "another `tradenet dev` runs");
    check(&["order", "--id", "2", "--data-dir", data, "--nats-url", &exchange.nats_url()], "order-2");
    let address = url.trim_start_matches("http://");
    check(
        &["frontend", "--listen", address, "--nats-url", &exchange.nats_url()],
        &format!("cannot listen on {address}"),
    );
    assert_eq!(exchange.get(1, "/readyz").status, 200);
}
