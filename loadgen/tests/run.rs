//! A run against an exchange that keeps its contract, and against ones that break it.

#![allow(clippy::unwrap_used, reason = "this is test code, though not all of it within a #[test]")]

mod stub;

use std::collections::HashMap;
use std::time::Duration;

use loadgen::{Kind, Load, Probability, Report, RunOptions, Sides, run};
use stub::{Behaviour, Fault, Stub};

/// One client, so that the place of a trade in a run is known.
fn options(stub: &Stub) -> RunOptions {
    let mut options = RunOptions::new(stub.url.clone());
    options.clients = 1;
    options.load = Load::Iterations(40);
    options.exclusive = true;
    options.request_timeout = Duration::from_millis(200);
    options.deadline = Duration::from_secs(20);
    options
}

async fn run_with(faults: &[(usize, Fault)], change: impl FnOnce(&mut RunOptions)) -> (Stub, Report) {
    let faults: HashMap<usize, Fault> = faults.iter().copied().collect();
    let stub = Stub::start(Behaviour { faults, cache: true, ..Behaviour::default() }).await;
    let mut options = options(&stub);
    change(&mut options);
    let report = run(options).await.unwrap();
    (stub, report)
}

#[tokio::test]
async fn an_exchange_that_keeps_its_contract_is_verified() {
    let (stub, report) = run_with(&[], |options| options.clients = 5).await;
    assert!(report.ok(), "{report}");
    assert_eq!(report.counts.lookups, 200);
    assert_eq!(report.counts.trades, stub.orders() as u64);
    assert_eq!(report.verification.read, report.counts.trades);
    assert_eq!(report.error_count(), 0);
    assert_eq!(report.connections, 10, "one of each client for the load and one for the comparison");
    assert!(report.longest_gap.is_some());
    let hits = report.hit_ratio().unwrap();
    assert!(hits > 0.0 && hits < 1.0, "{hits}");
}

#[tokio::test]
async fn faults_with_a_known_cure_are_retried_until_the_outcome_is_known() {
    for (fault, errors, replayed) in [
        (Fault::NoLeader, 1, 0),
        (Fault::UnknownOutcome, 1, 1),
        (Fault::AnswerLost, 1, 1),
        (Fault::NeverAnswered, 1, 1),
        (Fault::Reset, 1, 0),
        (Fault::Garbled, 1, 1),
    ] {
        let (_stub, report) = run_with(&[(5, fault)], |_| {}).await;
        assert!(report.ok(), "{fault:?}: {report}");
        assert_eq!(report.error_count(), errors, "{fault:?}: {report}");
        assert_eq!(report.counts.replayed, replayed, "{fault:?}: {report}");
        assert_eq!(report.counts.retries, 1, "{fault:?}: {report}");
    }
}

#[tokio::test]
async fn what_the_exchange_did_wrong_is_listed_by_number() {
    type Lists = (Vec<u64>, Vec<u64>, Vec<u64>, Vec<u64>);
    let cases: [(Fault, Lists); 4] = [
        (Fault::Lost, (vec![5], vec![], vec![], vec![])),
        // The second of two orders with number 4 overwrote the first, but for the stub they differ by stock only.
        (Fault::Doubled, (vec![], vec![4], vec![4], vec![])),
        (Fault::Changed, (vec![], vec![], vec![5], vec![])),
        (Fault::CarriedOutTwice, (vec![], vec![], vec![], vec![5])),
    ];
    for (fault, expected) in cases {
        let (_stub, report) = run_with(&[(5, fault)], |_| {}).await;
        let found = &report.verification;
        let changed = found.changed.iter().map(|changed| changed.number).collect();
        let lists = (found.lost.clone(), found.doubled.clone(), changed, found.extra.clone());
        assert_eq!(lists, expected, "{fault:?}: {report}");
        assert!(!report.ok());
    }
}

#[tokio::test]
async fn a_trade_carried_out_twice_shows_in_the_stock_as_well() {
    let (_stub, report) = run_with(&[(5, Fault::CarriedOutTwice)], |_| {}).await;
    assert_eq!(report.verification.moved.len(), 1, "{report}");
    assert!(report.verification.moved[0].contains("volume"), "{report}");
}

#[tokio::test]
async fn an_outcome_unknown_at_the_deadline_is_reported_with_its_key() {
    let (_stub, report) = run_with(&[(5, Fault::Down)], |options| {
        options.deadline = Duration::from_millis(300);
    })
    .await;
    assert!(!report.ok());
    let [unknown] = report.verification.unknown.as_slice() else { panic!("{report}") };
    assert!(unknown.key.ends_with("-0-4"), "{unknown:?}");
    assert_eq!(unknown.cause, "no leader");
}

#[tokio::test]
async fn a_trade_rejected_without_cause_fails_the_run() {
    let (_stub, report) = run_with(&[(5, Fault::Rejected)], |_| {}).await;
    assert_eq!(report.verification.rejected.len(), 1, "{report}");
    assert!(!report.ok());
}

#[tokio::test]
async fn sold_out_stocks_are_a_refusal_and_no_error() {
    let stub = Stub::start(Behaviour { quantity: 2, ..Behaviour::default() }).await;
    let mut options = options(&stub);
    options.clients = 4;
    options.load = Load::Iterations(100);
    options.quantity = 2;
    let report = run(options).await.unwrap();
    assert!(report.ok(), "{report}");
    assert_eq!(report.counts.trades, 10, "{report}");
    assert!(report.counts.sold_out > 0, "{report}");
    assert_eq!(report.error_count(), 0, "{report}");
}

#[tokio::test]
async fn buys_and_sells_mixed_go_on_after_the_stocks_ran_out() {
    let (_stub, report) = run_with(&[], |options| {
        options.sides = Sides::Mix;
        options.load = Load::Iterations(300);
    })
    .await;
    assert!(report.ok(), "{report}");
    assert!(report.counts.trades > 100, "{report}");
}

#[tokio::test]
async fn the_same_seed_places_the_same_orders_and_never_meets_the_keys_of_the_run_before() {
    let mut names = Vec::new();
    for _ in 0..2 {
        let (stub, report) = run_with(&[], |options| options.seed = 7).await;
        assert!(report.ok(), "{report}");
        names.push(stub.order_names());
        let mut again = options(&stub);
        again.seed = 7;
        let report = run(again).await.unwrap();
        assert!(report.ok() && report.counts.replayed == 0, "{report}");
    }
    assert_eq!(names[0], names[1]);
}

#[tokio::test]
async fn an_exchange_whose_lookups_fail_for_a_whole_deadline_ends_the_run() {
    let stub = Stub::start(Behaviour { lookups_fail: true, ..Behaviour::default() }).await;
    let mut options = options(&stub);
    options.deadline = Duration::from_millis(300);
    let report = run(options).await.unwrap();
    assert!(report.gave_up && !report.ok(), "{report}");
    assert!(report.counts.lookups_failed > 1, "{report}");
}

#[tokio::test]
async fn an_exchange_that_is_not_there_is_an_error_that_says_what_to_do() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let mut options = RunOptions::new(url);
    options.deadline = Duration::from_millis(100);
    let error = run(options).await.unwrap_err().to_string();
    assert!(error.contains("connection refused") && error.contains("/readyz"), "{error}");
}

#[tokio::test]
async fn a_frontend_that_is_away_is_replaced_by_one_that_answers() {
    let stub = Stub::start(Behaviour::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let mut options = options(&stub);
    options.urls = vec![away, stub.url.clone()];
    let report = run(options).await.unwrap();
    assert!(report.ok(), "{report}");
    assert_eq!(report.frontend, stub.url.to_string());
}

/// As many connections as make a stall felt by few requests: those that it catches on their way.
fn open(stub: &Stub, rate: f64, duration: Duration) -> RunOptions {
    let mut options = options(stub);
    options.clients = 4;
    options.load = Load::Open { rate, duration };
    options.request_timeout = Duration::from_secs(5);
    options
}

#[tokio::test]
async fn an_open_loop_sends_rate_times_duration_requests_and_verifies_them() {
    let stub = Stub::start(Behaviour { cache: true, ..Behaviour::default() }).await;
    let report = run(open(&stub, 500.0, Duration::from_secs(1))).await.unwrap();
    assert!(report.ok(), "{report}");
    assert_eq!(report.requests, 500, "{report}");
    assert_eq!(report.counts.trades, stub.orders() as u64);
    let lag = report.schedule_lag.as_ref().unwrap();
    assert_eq!(lag.generator.len() + lag.waited, 500);
}

#[tokio::test]
async fn a_stall_shows_in_the_latencies_counted_from_the_schedule() {
    let stall = Some((Duration::from_secs(1), Duration::from_millis(300)));
    let stub = Stub::start(Behaviour { stall, ..Behaviour::default() }).await;
    let report = run(open(&stub, 300.0, Duration::from_secs(3))).await.unwrap();
    assert!(report.ok(), "{report}");
    let latency = &report.latencies[&Kind::LookupMiss];
    let millis = |histogram: &hdrhistogram::Histogram<u64>| histogram.value_at_quantile(0.9) / 1_000_000;
    // Three of ten requests fall into a stall and wait half of it on the mean; of those sent, hardly one in a hundred.
    assert!(millis(&latency.intended) >= 100, "{report}");
    assert!(millis(&latency.sent) < 100, "{report}");
    assert!(report.schedule_lag.as_ref().unwrap().waited > 100, "{report}");
}

#[tokio::test]
async fn an_open_loop_against_an_exchange_that_never_answers_ends() {
    let faults = (1..=1_000).map(|place| (place, Fault::Down)).collect();
    let stub = Stub::start(Behaviour { faults, ..Behaviour::default() }).await;
    let mut options = open(&stub, 200.0, Duration::from_millis(500));
    options.deadline = Duration::from_millis(200);
    let report = run(options).await.unwrap();
    assert!(!report.ok(), "{report}");
    assert!(!report.verification.unknown.is_empty() && report.counts.trades == 0, "{report}");
}

#[tokio::test]
async fn a_warm_up_is_verified_and_not_measured() {
    let (stub, report) = run_with(&[], |options| {
        options.warmup = Duration::from_millis(200);
        options.sides = Sides::Mix;
    })
    .await;
    assert!(report.ok(), "{report}");
    let measured: u64 = [Kind::LookupHit, Kind::LookupMiss].iter().map(|kind| report.latencies[kind].sent.len()).sum();
    assert_eq!(measured, 40, "{report}");
    assert!(report.counts.lookups > 40, "{report}");
    assert_eq!(report.verification.read, stub.orders() as u64);
}

#[tokio::test]
async fn a_report_for_programs_has_what_the_table_has() {
    let (_stub, report) = run_with(&[(5, Fault::Lost), (7, Fault::NoLeader)], |_| {}).await;
    let json = report.to_json();
    assert_eq!(json["verification"]["lost"][0], 5);
    assert_eq!(json["ok"], false);
    assert_eq!(json["errors"][0]["status"], 503);
    assert_eq!(json["latency_ms"]["trade"]["from_send"]["count"], report.counts.trades);
    let csv = report.to_csv();
    let rows: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(rows, [10; 9], "{csv}");
}

#[tokio::test]
async fn a_frontend_that_fails_in_the_middle_of_a_run_is_replaced_by_the_other() {
    let exchange = Stub::start(Behaviour::default()).await;
    // The second is not ready when the run begins, and the first one fails for ever later on.
    let (first, second) = (exchange.beside(50..usize::MAX).await, exchange.beside(0..1).await);
    let mut options = options(&exchange);
    options.clients = 3;
    options.urls = vec![first.url.clone(), second.url.clone()];
    let report = run(options).await.unwrap();
    assert!(report.ok(), "{report}");
    assert_eq!(report.frontend, second.url.to_string());
    assert_eq!(report.frontend_changes, 2, "the first choice and one more, whoever noticed");
    assert!(report.error_count() >= 1, "{report}");
}

#[tokio::test]
async fn a_lookup_that_is_older_than_what_was_acknowledged_fails_the_run() {
    let stub = Stub::start(Behaviour { stale: true, ..Behaviour::default() }).await;
    let report = run(options(&stub)).await.unwrap();
    assert!(!report.ok(), "{report}");
    let stale = &report.verification.stale;
    assert!(stale.iter().all(|one| one.volume == 0 && one.least > 0), "{report}");
    assert!(report.to_string().contains("stale look-up ("), "{report}");
    assert_eq!(report.to_json()["verification"]["stale"][0]["volume"], 0);
}

#[tokio::test]
async fn an_order_that_is_not_there_on_the_way_is_lost_though_it_is_there_at_the_end() {
    let stub = Stub::start(Behaviour { appears_late: true, ..Behaviour::default() }).await;
    let mut options = options(&stub);
    options.reread = Probability::new(1.0).unwrap();
    options.exclusive = false;
    let report = run(options.clone()).await.unwrap();
    assert!(!report.ok() && !report.verification.lost.is_empty(), "{report}");
    let (_stub, report) = run_with(&[], |with| with.reread = options.reread).await;
    assert!(report.ok() && report.verification.reread == report.counts.trades, "{report}");
}

#[tokio::test]
async fn clients_are_spread_over_all_frontends_and_move_on_when_theirs_fails() {
    for (fails, second_serves) in [(0..0, true), (0..usize::MAX, false)] {
        let first = Stub::start(Behaviour::default()).await;
        let second = first.beside(fails).await;
        let mut options = options(&first);
        options.clients = 2;
        options.spread = true;
        options.urls.push(second.url.clone());
        let report = run(options).await.unwrap();
        assert!(report.ok(), "{report}");
        assert_eq!(second.requests() > 20, second_serves, "{}", second.requests());
        assert_eq!(report.error_count() == 0, second_serves, "{report}");
        assert!(report.to_string().contains(&format!("clients spread over {}", first.url)), "{report}");
    }
}

#[tokio::test]
async fn an_interval_log_has_the_kinds_of_requests_that_there_were() {
    let (_stub, report) = run_with(&[], |options| options.interval_log = true).await;
    for tag in ["Tag=lookup_hit,0.0", "Tag=trade,0.0", "Tag=order_read,0.0"] {
        assert!(report.interval_log.contains(tag), "{tag}: {}", report.interval_log);
    }
    let (_stub, report) = run_with(&[], |_| {}).await;
    assert_eq!(report.interval_log, "");
}
