//! One request is followed by one id through the logs of all services that worked on it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::{Answer, Exchange, order, request, until};

/// Only what is told of followed requests, and of changes of state.
const FILTER: &str = "info,tradenet_runtime::trace=debug,tradenet_frontend::observer=debug";

/// The lines about a trace, by service.
fn lines(exchange: &Exchange, trace_id: &str) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in exchange.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if line["trace_id"] == trace_id {
            found.entry(line["service"].as_str().unwrap().to_owned()).or_default().push(line);
        }
    }
    found
}

/// Waits until these services have said these parts of a line about a trace, and no other service anything; their lines.
#[track_caller]
fn check(exchange: &Exchange, trace_id: &str, expected: &[(&str, &str)]) -> BTreeMap<String, Vec<Value>> {
    let said = |lines: &[Value], part: &str| {
        lines.iter().any(|line| line["message"].as_str().is_some_and(|message| message.contains(part)))
    };
    let mut found = BTreeMap::new();
    until(&format!("lines about {trace_id}: {expected:?}"), || {
        found = lines(exchange, trace_id);
        expected.iter().all(|(service, part)| found.get(*service).is_some_and(|lines| said(lines, part)))
    });
    let services: BTreeSet<&str> = expected.iter().map(|(service, _)| *service).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), services);
    found
}

fn ask(exchange: &Exchange, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    request(&exchange.url(1), method, path, headers, body).unwrap()
}

#[test]
fn a_request_is_found_by_its_id_wherever_it_was_worked_on() {
    let exchange = Exchange::start_in_json(FILTER);
    let id = |number: u8| format!("{number:032x}");
    let headers =
        |number| format!("traceparent: 00-{}-00000000000000aa-01\r\nx-request-id: r-{number}\r\n", id(number));

    let placed = ask(&exchange, "POST", "/orders", &headers(1), &order("GameStart", 1, "buy"));
    assert_eq!((placed.status, placed.header("x-request-id")), (200, Some("r-1")));
    let context = placed.header("traceparent").unwrap();
    assert!(context.starts_with(&format!("00-{}-", id(1))) && !context.contains("00000000000000aa"), "{context}");
    let replicated = "received tradenet.order.replicate.all";
    let expected = [
        ("frontend-1", "sent tradenet.order.submit.3"),
        ("order-3", "received tradenet.order.submit.3"),
        ("order-3", "sent tradenet.order.replicate.all"),
        ("order-1", replicated),
        ("order-2", replicated),
        ("catalog-1", replicated),
        ("order-3", "answered tradenet.frontend.reply."),
        ("frontend-1", "received tradenet.frontend.reply."),
        ("frontend-1", "answered"),
    ];
    let found = check(&exchange, &id(1), &expected);
    assert!(found.values().flatten().all(|line| line["request_id"] == "r-1" && line["level"] == "DEBUG"));

    // The trade has dropped the stock from the cache.
    assert_eq!(ask(&exchange, "GET", "/stocks/GameStart", &headers(2), "").header("x-cache"), Some("miss"));
    let lookup = [("frontend-1", "answered"), ("catalog-1", "received tradenet.catalog.lookup.")];
    check(&exchange, &id(2), &lookup);

    until("the stock to be served from the cache", || {
        ask(&exchange, "GET", "/stocks/GameStart", "", "").header("x-cache") == Some("hit")
    });
    assert_eq!(ask(&exchange, "GET", "/stocks/GameStart", &headers(3), "").header("x-cache"), Some("hit"));
    let found = check(&exchange, &id(3), &[("frontend-1", "answered")]);
    let line = &found["frontend-1"][0];
    assert_eq!((line["status"].as_u64(), line["route"].as_str()), (Some(200), Some("/stocks/{name}")));
    assert_eq!(line["cache"], "hit");

    // Errors have a name too, and who sends nothing gets one.
    let unknown = ask(&exchange, "GET", "/nothing", "", "");
    assert_eq!((unknown.status, unknown.header("traceparent")), (404, None));
    let name = unknown.header("x-request-id").unwrap();
    check(&exchange, name, &[("frontend-1", "answered")]);
}

#[test]
fn at_info_a_request_leaves_no_line() {
    let exchange = Exchange::start_in_json("info");
    // All has been said when the frontend has.
    until("the frontend to be ready", || exchange.ready(1));
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let before = exchange.log().lines().filter(|line| line.contains("trace_id")).count();
    for _ in 0..20 {
        assert_eq!(ask(&exchange, "POST", "/orders", parent, &order("GameStart", 1, "buy")).status, 200);
        assert_eq!(ask(&exchange, "GET", "/stocks/GameStart", parent, "").status, 200);
    }
    assert_eq!((before, lines(&exchange, "0af7651916cd43dd8448eb211c80319c").len()), (0, 0));
}
