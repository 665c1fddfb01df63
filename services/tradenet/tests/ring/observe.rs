//! What people see of a running exchange: metrics of every service.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tradenet_core::metrics::{Kind, Metric};
use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order, until};

/// What is served at an address such as `http://127.0.0.1:9100/metrics`: the head and the body.
fn fetch(url: &str) -> Option<(String, String)> {
    let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_ascii_lowercase(), body.to_owned()))
}

/// A service's samples, by name with labels as they stand in the text.
type Samples = BTreeMap<String, f64>;

fn scrape_one(url: &str) -> Samples {
    let (head, body) = fetch(url).unwrap_or_else(|| panic!("nothing is shown at {url}"));
    assert!(head.starts_with("http/1.1 200 "), "{url}: {head}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(body.ends_with("\n# EOF\n"), "{url}: {body}");
    let samples = body.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        (sample.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}

/// All services' samples, by service.
fn scrape(exchange: &Exchange) -> BTreeMap<String, Samples> {
    exchange.metrics().into_iter().map(|(name, url)| (name, scrape_one(&url))).collect()
}

/// What one of a metric's samples is called.
fn sample_of(metric: &Metric) -> String {
    let suffix = match metric.kind {
        Kind::Counter => "_total",
        Kind::Gauge => "",
        Kind::Histogram => "_count",
        Kind::Info => "_info",
    };
    format!("{}{suffix}", metric.name)
}

#[test]
fn every_service_shows_how_it_stands() {
    let exchange = Exchange::start(&["--feed-stream", "tradenet-entries"]);
    for _ in 0..3 {
        assert_eq!(exchange.get(1, "/stocks/GameStart").status, 200);
    }
    assert_eq!(exchange.get(1, "/stocks/Nothing").status, 404);
    assert_eq!(exchange.get(1, "/stocks/Nowhere").status, 404);
    for _ in 0..5 {
        exchange.post(1, &order("GameStart", 1, "buy")).number();
    }
    assert_eq!(exchange.post(1, &order("GameStart", 1_000, "buy")).status, 409);
    until("all followers to know that everything is committed", || {
        let scraped = scrape(&exchange);
        let committed = |id: u8| scraped[&format!("order-{id}")]["tradenet_log_committed"];
        let tails = (1..=3).map(|id| scraped[&format!("order-{id}")]["tradenet_log_tail"]);
        let committed = tails
            .into_iter()
            .all(|tail| tail == committed(1) && tail == committed(2) && tail == committed(3) && tail > 5.0);
        committed && scraped["order-3"]["tradenet_feed_stream_last"] == scraped["order-3"]["tradenet_log_tail"]
    });

    let scraped = scrape(&exchange);
    let read = |service: &str, sample: &str| scraped[service].get(sample).copied();
    let requests = |method: &str, route: &str, status: u16| {
        let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        read("frontend-1", &format!("tradenet_http_requests_total{labels}"))
    };
    assert_eq!(requests("GET", "/stocks/{name}", 200), Some(3.0));
    assert_eq!(requests("GET", "/stocks/{name}", 404), Some(2.0));
    assert_eq!(requests("POST", "/orders", 200), Some(5.0));
    assert_eq!(requests("POST", "/orders", 409), Some(1.0));
    assert_eq!(read("frontend-1", "tradenet_ready"), Some(1.0));
    assert!(read("frontend-1", "tradenet_elections_total{outcome=\"written\"}") >= Some(1.0));
    assert!(read("frontend-1", "tradenet_cache_hits_total") >= Some(1.0), "{:?}", scraped["frontend-1"]);
    let leader = "order-3";
    assert_eq!(read(leader, "tradenet_replica_role{role=\"leader\"}"), Some(1.0));
    assert_eq!(read("order-1", "tradenet_replica_role{role=\"follower\"}"), Some(1.0));
    assert_eq!(read(leader, "tradenet_in_sync_replicas"), Some(3.0));
    assert_eq!(read(leader, "tradenet_commands_total{outcome=\"accepted\"}"), Some(5.0));
    assert_eq!(read(leader, "tradenet_commands_total{outcome=\"refused\"}"), Some(1.0));
    assert!(read(leader, "tradenet_batch_entries_count") >= Some(5.0));
    assert!(read("order-1", "tradenet_journal_sync_duration_seconds_count") >= Some(5.0));
    assert_eq!(read("catalog-1", "tradenet_catalog_authority"), Some(1.0));
    for (service, samples) in &scraped {
        assert!(samples["process_resident_memory_bytes"] > 1e6, "{service}");
        let depths = samples.iter().filter(|(sample, _)| sample.starts_with("tradenet_queue_depth"));
        for (sample, depth) in depths {
            let limit = samples[&sample.replace("_depth", "_limit")];
            assert!(*depth <= limit && limit > 0.0, "{service}: {sample}");
        }
    }

    // Every row of the table is shown by somebody, and nothing else is.
    let table = || tradenet_runtime::metrics::tables().chain(tradenet_frontend::METRICS.iter().copied());
    let expected: BTreeSet<String> = table().map(sample_of).collect();
    let shown: BTreeSet<String> = scraped
        .values()
        .flat_map(BTreeMap::keys)
        .filter_map(|sample| sample.split('{').next())
        .filter(|name| !name.ends_with("_bucket") && !name.ends_with("_sum"))
        .map(str::to_owned)
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn what_frontends_see_of_the_in_sync_set_is_shown() {
    let exchange = Exchange::start(&[]);
    let (_, url) = exchange.metrics().into_iter().find(|(name, _)| name == "order-1").unwrap();
    let health = url.replace("/metrics", "/healthz");
    assert!(fetch(&health).is_some_and(|(head, body)| head.starts_with("http/1.1 200") && body == "alive\n"));
    let (head, _) = fetch(&url.replace("/metrics", "/nothing")).unwrap();
    assert!(head.starts_with("http/1.1 404"), "{head}");
    exchange.signal("order-1", Signal::Pause);
    let seen = || scrape_one(&format!("{}/metrics", exchange.url(1)))["tradenet_frontend_in_sync_replicas"];
    until("the frontend to see two in sync", || seen() == 2.0);
    exchange.signal("order-1", Signal::Resume);
    until("the frontend to see three in sync", || seen() == 3.0);
}
