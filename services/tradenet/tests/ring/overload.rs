//! Four times the load that the exchange serves, and what becomes of it.
//!
//! Problem: a load that is served says nothing of one that can't be. Idea: what clients get when they wait for each other's
//! answers is measured, four times that rate is offered over more connections than may have requests under way, and a
//! watcher reads an order all the while. Rules: whoever is not served is told so, and when to come back; every trade is decided in the
//! end and verified; memory has a bound.
//!
//! `RING_OVERLOAD_SECONDS=60` takes a minute; without, it is a few seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use loadgen::{Load, Report, RunOptions};

use crate::harness::{Exchange, Trading, order, request};

/// How many times the load that is served.
const TIMES: f64 = 4.0;
/// More than may have requests under way, fewer than may be open.
const CONNECTIONS: u32 = 3_000;
/// Longer, and a request that found no connection is not sent.
const LATE_MOST: Duration = Duration::from_millis(500);
/// No process may take more than that, in MiB.
const MEMORY_MOST: u64 = 512;
/// How often the watcher reads.
const LOOK: Duration = Duration::from_millis(50);

#[test]
fn four_times_the_load_costs_no_trade_and_no_memory_and_is_over_when_it_is_over() {
    let seconds = std::env::var("RING_OVERLOAD_SECONDS").map_or(5, |text| text.parse().unwrap());
    println!("RING_OVERLOAD_SECONDS={seconds}");
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).number(), 1);
    let load = |clients, load| {
        let options = RunOptions { clients, load, think: Duration::ZERO, ..exchange.load_options(1, 0) };
        RunOptions { exclusive: true, late_most: Some(LATE_MOST), ..options }
    };
    let served = verified(Exchange::generate(load(64, Load::ClosedFor(Duration::from_secs(5)))));
    let (rate, before) = (served.throughput() * TIMES, memory(&exchange));

    let watcher = Watcher::start(exchange.url(1));
    sleep(Duration::from_secs(1));
    let began = Instant::now();
    let flood = Load::Open { rate, duration: Duration::from_secs(seconds) };
    let flooded = verified(Exchange::generate(load(CONNECTIONS, flood)));
    let seen = watcher.stop(began, Duration::from_secs(seconds));
    let after = memory(&exchange);

    let attempts = flooded.requests + flooded.error_count();
    let rates = [served.throughput(), rate, per_second(attempts, &flooded), flooded.throughput()];
    println!("requests/s: {rates:.0?} (served alone, offered, attempts answered, served of them); {seen}");
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        println!("{name}: {before:.1} MiB before, {after:.1} MiB at most");
    }
    assert!(flooded.error_count() > 0, "nothing was refused: the load was none");
    for (error, count) in &flooded.errors {
        let told = matches!(error.status, Some(503 | 504)) && !error.cause.contains("without Retry-After");
        assert!(told, "{count} times: {error:?}");
    }
    for (name, most) in &after {
        assert!(*most < MEMORY_MOST as f64, "{name} took {most:.1} MiB");
    }
    exchange.load(&[1], 1).verified_without_an_error();
    exchange.stop_and_verify();
}

fn per_second(count: u64, report: &Report) -> f64 {
    count as f64 / report.elapsed.as_secs_f64()
}

#[track_caller]
fn verified(trading: Trading) -> Report {
    trading.verified().remove(0)
}

/// The most memory that each process has had so far, in MiB.
fn memory(exchange: &Exchange) -> Vec<(String, f64)> {
    let most = |name: &String| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", exchange.pid(name))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    exchange.names().iter().map(|name| (name.clone(), most(name))).collect()
}

/// Reads an order now and then, as one client among the many.
struct Watcher {
    over: Arc<AtomicBool>,
    looks: std::thread::JoinHandle<Vec<Look>>,
}

/// One answer: when it was asked for, how long it took, and whether it was the order.
struct Look {
    asked: Instant,
    took: Duration,
    served: bool,
}

impl Watcher {
    fn start(url: String) -> Self {
        let over = Arc::<AtomicBool>::default();
        let ends = Arc::clone(&over);
        let looks = spawn(move || {
            let mut looks = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let served = request(&url, "GET", "/orders/1", "", "").is_ok_and(|answer| answer.status == 200);
                looks.push(Look { asked, took: asked.elapsed(), served });
                sleep(LOOK);
            }
            looks
        });
        Self { over, looks }
    }

    /// What was seen of a flood that `began` then and lasted so long.
    fn stop(self, began: Instant, lasted: Duration) -> String {
        self.over.store(true, Ordering::Relaxed);
        let looks = self.looks.join().unwrap();
        let usual = looks.iter().filter(|look| look.asked < began).map(|look| look.took).max().unwrap_or_default();
        let end = began + lasted;
        let usual_again = |look: &&Look| look.served && look.took <= usual * 2;
        let last_unusual = looks.iter().rfind(|look| look.asked >= end && !usual_again(look));
        let normal =
            last_unusual.map_or(Duration::ZERO, |look| (look.asked + look.took).saturating_duration_since(end));
        let under_it = looks.iter().filter(|look| look.asked >= began && look.asked < end);
        let (served, all) = under_it.fold((0, 0), |(served, all), look| (served + u32::from(look.served), all + 1));
        format!(
            "a read took {usual:.1?} at most before; {served} of {all} were served under the load; as before {normal:.1?} after it"
        )
    }
}
