//! Four times the load that the exchange serves, and what becomes of it.
//!
//! Problem: a load that is served says nothing of one that can't be. Idea: what clients get when they wait for each other's
//! answers is measured, four times that rate is offered over more connections than may have requests under way, and a
//! watcher reads an order all the while, alone for some seconds after it. Rules: whoever is not served is told so, and when to come
//! back; every trade is decided in the end and verified; memory has a bound; nobody is refused once the load is over.
//!
//! `RING_OVERLOAD_SECONDS=60` takes a minute; without, it is a few seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use loadgen::{Load, Report, RunOptions};
use tradenet_runtime::process::raise_open_files;

use crate::harness::{Exchange, Trading, order, request, skipped};

/// How many times the load that is served.
const TIMES: f64 = 4.0;
/// More than may have requests under way, fewer than may be open.
const CONNECTIONS: u32 = 3_000;
/// For those, and for the watcher, in this process; a frontend needs more, and says so.
const OPEN_FILES_WANTED: u64 = 4_224;
/// Longer, and a request that found no connection is not sent.
const LATE_MOST: Duration = Duration::from_millis(500);
/// So many reads in a row that take no longer than they did before are what was usual.
const USUAL_READS: usize = 10;
/// No process may take more than that, in MiB.
const MEMORY_MOST: u64 = 512;
/// After the load nobody but the watcher asks for so long.
const REST: Duration = Duration::from_secs(6);
/// How often the watcher reads.
const LOOK: Duration = Duration::from_millis(50);

#[test]
fn four_times_the_load_costs_no_trade_and_no_memory_and_is_over_when_it_is_over() {
    let seconds = std::env::var("RING_OVERLOAD_SECONDS").map_or(5, |text| text.parse().unwrap());
    println!("RING_OVERLOAD_SECONDS={seconds}");
    let open_files = raise_open_files().unwrap();
    if open_files < OPEN_FILES_WANTED {
        return skipped(&format!(
            "overload: {OPEN_FILES_WANTED} open files are needed, {open_files} allowed (`ulimit -Hn`)"
        ));
    }
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).number(), 1);
    let load = |clients, load| {
        let options = RunOptions { clients, load, think: Duration::ZERO, ..exchange.load_options(1, 0) };
        RunOptions { exclusive: true, late_most: Some(LATE_MOST), rest: REST, ..options }
    };
    let served = verified(Exchange::generate(load(64, Load::ClosedFor(Duration::from_secs(5)))));
    let (rate, before) = (served.throughput() * TIMES, memory(&exchange));

    let watcher = Watcher::start(exchange.url(1));
    sleep(Duration::from_secs(1));
    let began = Instant::now();
    let flood = Load::Open { rate, duration: Duration::from_secs(seconds) };
    let flooded = verified(Exchange::generate(load(CONNECTIONS, flood)));
    let seen = watcher.stop(began, Duration::from_secs(seconds), flooded.elapsed);
    let after = memory(&exchange);

    let attempts = flooded.requests + flooded.error_count();
    let rates = [served.throughput(), rate, per_second(attempts, &flooded), flooded.throughput()];
    println!("requests/s: {rates:.0?} (served alone, offered, attempts answered, served of them)");
    let Seen { usual, served, all, normal, .. } = seen;
    println!(
        "a read took {usual:.1?} at most before; {served} of {all} were served under the load; as before after {normal:.1?}"
    );
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        println!("{name}: {before:.1} MiB before, {after:.1} MiB at most");
    }
    assert!(flooded.error_count() > 0, "nothing was refused: the load was none");
    for (error, count) in &flooded.errors {
        let told = matches!(error.status, Some(503 | 504)) && !error.cause.contains("without Retry-After");
        assert!(told, "{count} times: {error:?}");
    }
    assert!(seen.alone > 0 && seen.refused == 0, "{} of {} reads were refused after it", seen.refused, seen.alone);
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

    /// What was seen of a flood that `began` then, was `offered` for so long, and was over after `elapsed`, when nobody waited
    /// for an answer any more.
    fn stop(self, began: Instant, offered: Duration, elapsed: Duration) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        let looks = self.looks.join().unwrap();
        let usual = looks.iter().filter(|look| look.asked < began).map(|look| look.took).max().unwrap_or_default();
        let (end, rest) = (began + offered, began + elapsed);
        let under_it = looks.iter().filter(|look| look.asked >= began && look.asked < end);
        let (served, all) = under_it.fold((0, 0), |(served, all), look| (served + u32::from(look.served), all + 1));
        // Later the orders are read back, by many at once.
        let after: Vec<_> = looks.iter().filter(|look| look.asked >= end && look.asked < rest + REST).collect();
        let as_before = |looks: &[&Look]| looks.iter().all(|look| look.served && look.took <= usual * 2);
        let normal = after.windows(USUAL_READS).find(|looks| as_before(looks)).map(|looks| looks[0].asked - end);
        let refused = after.iter().filter(|look| look.asked >= rest && !look.served).count();
        Seen { usual, served, all, normal, refused, alone: after.iter().filter(|look| look.asked >= rest).count() }
    }
}

/// What became of the watcher's reads.
struct Seen {
    /// The longest before the load.
    usual: Duration,
    /// Of how many under the load how many were served.
    served: u32,
    all: u32,
    /// How long after the last request was due the first of [`USUAL_READS`] was asked that took as long as before.
    normal: Option<Duration>,
    /// Of how many when nobody else asked any more how many were not served.
    alone: usize,
    refused: usize,
}
