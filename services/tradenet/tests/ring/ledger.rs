//! The durable feed: the stream of JetStream that others read the log from.

use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Config;
use futures::StreamExt as _;
use tokio::runtime::Runtime;
use tradenet_core::journal::object;
use tradenet_schemas::journal::{Entry, Event};

use crate::harness::{Exchange, example, order, until};

const STREAM: &str = "tradenet-entries";
const FED: [&str; 2] = ["--feed-stream", STREAM];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn jetstream(exchange: &Exchange) -> Context {
    async_nats::jetstream::new(async_nats::connect(exchange.nats_url()).await.unwrap())
}

/// The last entry that the stream holds; 0 if there is no stream.
async fn last(context: &Context) -> u64 {
    match context.get_stream(STREAM).await {
        Ok(stream) => stream.cached_info().state.last_sequence,
        Err(_) => 0,
    }
}

/// Waits until the stream has all of the log, and compares them, byte by byte. The entries.
#[track_caller]
fn until_fed(exchange: &Exchange) -> Vec<Entry> {
    let journal = exchange.until_quiet();
    let lines: Vec<_> = journal.split_inclusive(|byte| *byte == b'\n').map(|line| object(line).unwrap()).collect();
    let held = runtime().block_on(async {
        let context = jetstream(exchange).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while last(&context).await < lines.len() as u64 {
            assert!(tokio::time::Instant::now() < deadline, "{} of {} entries", last(&context).await, lines.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let stream = context.get_stream(STREAM).await.unwrap();
        let mut messages = stream.create_consumer(OrderedConfig::default()).await.unwrap().messages().await.unwrap();
        let mut held = Vec::new();
        while held.len() < lines.len() {
            let message = messages.next().await.unwrap().unwrap();
            let number = message.info().unwrap().stream_sequence;
            let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id")).unwrap();
            assert_eq!(id.as_str(), number.to_string());
            held.push((number, message.payload.to_vec()));
        }
        held
    });
    assert_eq!(held, (1..).zip(lines).collect::<Vec<_>>(), "the stream against the log");
    held.iter().map(|(_, entry)| serde_json::from_slice(entry).unwrap()).collect()
}

/// What the example `volume` counts: trades and quantity.
fn counted(exchange: &Exchange) -> (u64, u64) {
    let mut command = Command::new(example("volume"));
    command.arg("--once").env("NATS_URL", exchange.nats_url()).env_remove("NATS_USER").env_remove("NATS_CA");
    let output = command.env("TRADENET_FEED_STREAM", STREAM).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    // Behind date and time.
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().skip(2).map(|cell| cell.parse::<u64>()));
    rows.fold((0, 0), |(trades, quantity), mut row| {
        (trades + row.next().unwrap().unwrap(), quantity + row.next().unwrap().unwrap())
    })
}

#[test]
fn the_stream_is_the_log_whatever_is_killed_meanwhile_and_the_example_counts_every_trade_once() {
    let mut exchange = Exchange::start(&[&["--frontends", "2"], &FED[..]].concat());
    exchange.until_whole();
    let load = exchange.load(&[1, 2], 10);
    exchange.until_trading();
    exchange.kill("order-3");
    exchange.until_trading();
    exchange.restart("order-3");
    exchange.kill("nats");
    exchange.restart("nats");
    exchange.until_trading();
    exchange.kill("order-2");
    exchange.until_trading();
    exchange.restart("order-2");
    load.verified();
    exchange.until_whole();
    let entries = until_fed(&exchange);
    let traded = entries.iter().flat_map(|entry| &entry.events).filter_map(|event| match event {
        Event::Traded { quantity, .. } | Event::Matched { quantity, .. } => Some(quantity.get()),
        _ => None,
    });
    let expected = traded.fold((0, 0), |(trades, sum), quantity| (trades + 1, sum + quantity));
    assert!(expected.0 > 10, "{expected:?}");
    assert_eq!(counted(&exchange), expected);
    exchange.stop_and_verify();
}

#[test]
fn a_stream_that_was_removed_is_made_again_with_all_of_the_log() {
    let exchange = Exchange::start(&FED);
    exchange.until_whole();
    exchange.post(1, &order("GameStart", 1, "buy")).number();
    until_fed(&exchange);
    runtime().block_on(async { jetstream(&exchange).await.delete_stream(STREAM).await.unwrap() });
    exchange.post(1, &order("GameStart", 1, "buy")).number();
    until_fed(&exchange);
    exchange.stop_and_verify();
}

#[test]
fn the_stream_of_another_exchange_is_named_and_left_alone_and_trading_goes_on() {
    let exchange = Exchange::start(&FED);
    exchange.until_whole();
    until_fed(&exchange);
    runtime().block_on(async {
        let context = jetstream(&exchange).await;
        context.delete_stream(STREAM).await.unwrap();
        let subject = "tradenet.feed.entries.all";
        let config = Config { name: STREAM.into(), subjects: vec![subject.into()], ..Config::default() };
        context.create_stream(config).await.unwrap();
        context.publish(subject, "another's".into()).await.unwrap().await.unwrap();
    });
    exchange.post(1, &order("GameStart", 1, "buy")).number();
    until("it is told", || exchange.log().contains("its entry 1 is not this exchange's"));
    exchange.post(1, &order("GameStart", 1, "buy")).number();
    assert_eq!(runtime().block_on(async { last(&jetstream(&exchange).await).await }), 1);
    exchange.stop_and_verify();
}
