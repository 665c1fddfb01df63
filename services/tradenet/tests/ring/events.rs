//! `GET /events`: the same for everybody, whatever is killed meanwhile, and enough to keep a book by.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tradenet_core::exchange::Exchange as State;
use tradenet_core::journal;
use tradenet_runtime::process::Signal;
use tradenet_schemas::feed::Fact;
use tradenet_schemas::ids::Position;
use tradenet_schemas::rest::feed::{StockChanged, Traded};
use tradenet_schemas::rest::market::Book;

use crate::harness::{Exchange, request, until};

/// A message of a stream.
#[derive(Clone, Debug, PartialEq)]
struct Message {
    kind: String,
    id: u64,
    data: Value,
}

/// A client that follows the events, one connection at a time.
struct Follower {
    got: Arc<Mutex<Vec<Message>>>,
    line: Option<(TcpStream, JoinHandle<()>)>,
}

impl Follower {
    /// Begins now, at that frontend.
    #[track_caller]
    fn begin(exchange: &Exchange, frontend: usize) -> Self {
        let mut follower = Self { got: Arc::default(), line: None };
        follower.connect(&exchange.url(frontend), None);
        follower
    }

    /// Ends the connection in the middle of whatever it carries, and goes on at another frontend with the last id.
    #[track_caller]
    fn hop(&mut self, exchange: &Exchange, frontend: usize) {
        self.disconnect();
        let last = self.got().last().map(|message| message.id);
        self.connect(&exchange.url(frontend), last);
    }

    /// Returns once the stream has begun.
    #[track_caller]
    fn connect(&mut self, url: &str, last: Option<u64>) {
        let had = self.got().len();
        let address = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        write!(stream, "GET /events HTTP/1.0\r\n{last}\r\n").unwrap();
        let (reading, got) = (stream.try_clone().unwrap(), Arc::clone(&self.got));
        self.line = Some((stream, std::thread::spawn(move || listen(reading, &got))));
        until("the stream begins", || self.got().len() > had);
        assert_eq!(self.got()[had].kind, "cluster");
    }

    fn disconnect(&mut self) {
        if let Some((stream, reader)) = self.line.take() {
            // It may have ended already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            reader.join().unwrap();
        }
    }

    fn got(&self) -> Vec<Message> {
        self.got.lock().unwrap().clone()
    }

    /// What it heard of the market.
    fn market(&self) -> Vec<Message> {
        self.got().into_iter().filter(|message| ["trade", "book", "stock"].contains(&message.kind.as_str())).collect()
    }

    #[track_caller]
    fn until_last(&self, id: u64) {
        until("all events are told", || self.market().last().is_some_and(|last| last.id >= id));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Reads messages until the connection ends. What it ends in the middle of is not a message.
fn listen(stream: TcpStream, got: &Mutex<Vec<Message>>) {
    let mut block = Vec::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if !line.is_empty() {
            block.push(line);
            continue;
        }
        let field = |name: &str| block.iter().find_map(|line| line.strip_prefix(name));
        if let (Some(kind), Some(id), Some(data)) = (field("event: "), field("id: "), field("data: ")) {
            let (kind, id, data) = (kind.to_owned(), id.parse().unwrap(), serde_json::from_str(data).unwrap());
            got.lock().unwrap().push(Message { kind, id, data });
        }
        block.clear();
    }
}

/// The market's events by the journal, read once more from the start.
fn by_the_journal(exchange: &Exchange) -> Vec<Message> {
    let bytes = std::fs::read(exchange.journal(1)).unwrap();
    let mut state = State::new();
    let mut told = Vec::new();
    for scanned in journal::scan(&bytes, Position::default()) {
        let entry = scanned.unwrap().entry;
        state.apply(&entry);
        for event in state.public_events(&entry) {
            let (kind, data) = match &event.fact {
                Fact::Traded(symbol, trade) => ("trade", serde_json::to_value(Traded::new(event.seq, symbol, trade))),
                Fact::BookChanged(book) => ("book", serde_json::to_value(Book::from(book))),
                Fact::StockChanged(stock) => ("stock", serde_json::to_value(StockChanged::new(event.seq, stock))),
            };
            told.push(Message { kind: kind.to_owned(), id: told.len() as u64 + 1, data: data.unwrap() });
        }
    }
    told
}

/// Accounts and the house trade through both frontends, until it is told to stop; what fails is tried elsewhere.
struct Trading {
    over: Arc<AtomicBool>,
    done: Arc<Mutex<u64>>,
    thread: Option<JoinHandle<()>>,
}

impl Trading {
    fn start(exchange: &Exchange) -> Self {
        let urls = [exchange.url(1), exchange.url(2)];
        let owners = ["ann", "bob"].map(|name| (name, open(&urls[0], name)));
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let (ends, counts) = (Arc::clone(&over), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            for number in 0_u64.. {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (name, token) = &owners[usize::from(number % 2 == 1)];
                let side = if number % 3 == 0 { "sell" } else { "buy" };
                let price = 10.0 + ((number * 7) % 5) as f64 / 10.0;
                let order = json!({"name": "GameStart", "side": side, "quantity": 1 + number % 4, "price": price});
                let (path, body) = match number % 10 {
                    9 => ("/orders".to_owned(), crate::harness::order("GameStart", 1, "sell")),
                    _ => (format!("/accounts/{name}/orders"), order.to_string()),
                };
                let headers = format!("Authorization: Bearer {token}\r\nIdempotency-Key: {number}\r\n");
                let mut turn = number;
                let mut try_once = || {
                    turn += 1;
                    let answer = request(&urls[usize::from(turn % 2 == 1)], "POST", &path, &headers, &body);
                    answer.is_ok_and(|answer| answer.status < 500)
                };
                until("an order is answered", &mut try_once);
                *counts.lock().unwrap() += 1;
            }
        });
        Self { over, done, thread: Some(thread) }
    }

    /// Waits for so many more orders.
    #[track_caller]
    fn until_more(&self, orders: u64) {
        let before = *self.done.lock().unwrap();
        until("trading goes on", || *self.done.lock().unwrap() >= before + orders);
    }

    fn stop(mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Opens an account that can trade all day.
fn open(url: &str, name: &str) -> String {
    let opened = request(url, "POST", "/accounts", "", &json!({"account": name}).to_string()).unwrap();
    let token = opened.body["data"]["token"].as_str().unwrap().to_owned();
    let headers = format!("Authorization: Bearer {token}\r\n");
    for asset in [json!({"amount": 1_000_000}), json!({"name": "GameStart", "quantity": 100_000})] {
        let path = format!("/accounts/{name}/deposits");
        assert_eq!(request(url, "POST", &path, &headers, &asset.to_string()).unwrap().status, 200);
    }
    token
}

#[test]
fn every_stream_tells_what_the_journal_says_through_a_killed_leader_and_a_change_of_frontends() {
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let steady = Follower::begin(&exchange, 2);
    let first = steady.got()[0].clone();
    assert_eq!(first.data, json!({"epoch": exchange.cluster(2).epoch, "leader": 3, "in_sync": [1, 2, 3]}));
    let trading = Trading::start(&exchange);
    let mut hopping = Follower::begin(&exchange, 1);
    trading.until_more(20);
    exchange.kill("order-3");
    hopping.hop(&exchange, 2);
    trading.until_more(20);
    hopping.hop(&exchange, 1);
    exchange.restart("order-3");
    trading.until_more(20);
    // The replica that was killed has read its journal, and leads again.
    exchange.until_whole();
    hopping.hop(&exchange, 2);
    trading.until_more(20);
    let mut late = Follower { got: Arc::default(), line: None };
    late.connect(&exchange.url(1), Some(0));
    trading.stop();

    let expected = by_the_journal(&exchange);
    let last = expected.last().unwrap().id;
    for (who, follower) in [("steady", &steady), ("hopping", &hopping), ("late", &late)] {
        follower.until_last(last);
        let found = follower.market();
        let skipped = usize::try_from(follower.got()[0].id).unwrap();
        assert!(found == expected[skipped..], "{who}, from {skipped}: {found:#?} is not {:#?}", &expected[skipped..]);
        assert!(follower.got().iter().all(|message| message.kind != "gap"), "{who}");
    }
    assert_eq!(late.got()[0].id, 0, "what happened before it came is remembered");
    let led: Vec<_> = steady.got().into_iter().filter(|message| message.kind == "cluster").collect();
    assert!(led.iter().any(|message| message.data["leader"] == 2), "{led:?}");
    assert!(led.is_sorted_by_key(|message| message.data["epoch"].as_u64()), "{led:?}");
    let kinds: BTreeMap<_, usize> = expected.iter().fold(BTreeMap::new(), |mut kinds, message| {
        *kinds.entry(message.kind.clone()).or_default() += 1;
        kinds
    });
    println!("{last} events: {kinds:?}");
    assert!(kinds.values().all(|count| *count > 10) && kinds.len() == 3, "{kinds:?}");
    drop((steady, hopping, late));
    exchange.stop_and_verify();
}

/// Bids and asks by price, as it is written.
type Levels = [BTreeMap<String, u64>; 2];

fn apply(levels: &mut Levels, book: &Value) {
    for (side, name) in levels.iter_mut().zip(["bids", "asks"]) {
        for level in book[name].as_array().unwrap() {
            let price = level[0].to_string();
            match level[1].as_u64().unwrap() {
                0 => drop(side.remove(&price)),
                count => drop(side.insert(price, count)),
            }
        }
    }
}

#[test]
fn a_book_kept_from_a_snapshot_and_events_is_the_book() {
    let exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let trading = Trading::start(&exchange);
    trading.until_more(20);
    let follower = Follower::begin(&exchange, 1);
    trading.until_more(10);
    let snapshot = exchange.get(2, "/stocks/GameStart/book?depth=500").body["data"].clone();
    trading.until_more(20);
    trading.stop();

    let book = exchange.get(2, "/stocks/GameStart/book?depth=500").body["data"].clone();
    assert!(book["sequence"].as_u64() > snapshot["sequence"].as_u64());
    let changes = || follower.market().into_iter().filter(|message| message.kind == "book").map(|message| message.data);
    until("the last change is told", || changes().next_back().is_some_and(|last| last["sequence"] == book["sequence"]));
    let mut kept = Levels::default();
    apply(&mut kept, &snapshot);
    let newer = changes().filter(|change| change["sequence"].as_u64() > snapshot["sequence"].as_u64());
    newer.for_each(|change| apply(&mut kept, &change));
    let mut shown = Levels::default();
    apply(&mut shown, &book);
    assert_eq!(kept, shown);
    drop(follower);
    exchange.stop_and_verify();
}

#[test]
fn a_frontend_that_leaves_ends_its_streams_and_another_one_goes_on_with_them() {
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let mut follower = Follower::begin(&exchange, 1);
    assert_eq!(exchange.post(2, &crate::harness::order("GameStart", 1, "buy")).status, 200);
    until("the trade is told", || follower.market().len() == 1);
    exchange.end("frontend-1", Signal::Terminate);
    until("the end is told", || follower.got().last().is_some_and(|last| last.kind == "end"));
    assert_eq!(exchange.post(2, &crate::harness::order("GameStart", 1, "buy")).status, 200);
    follower.hop(&exchange, 2);
    until("the trade is told", || follower.market().len() == 2);
    let volumes: Vec<_> = follower.market().into_iter().map(|message| message.data["volume"].clone()).collect();
    assert_eq!(volumes, [1, 2]);
    drop(follower);
    exchange.restart("frontend-1");
    until("frontend-1 serves", || exchange.ready(1));
    exchange.stop_and_verify();
}
