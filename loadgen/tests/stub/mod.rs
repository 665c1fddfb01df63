//! A stock exchange in memory that breaks the contract on request.
//!
//! The real exchange is not to lose orders, so a test of what finds lost orders needs one that does. It serves the part
//! of the contract that a load generator uses, on a free port, and harms the trades that its faults name.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "this is test code, though not within a #[test]")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Json, Path, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use loadgen::BaseUrl;
use serde_json::{Value, json};

/// What happens to a trade, counted from 1 in the order of arrival of their keys' first attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// 503 at the first attempt, nothing carried out.
    NoLeader,
    /// 504 at the first attempt, yet carried out.
    UnknownOutcome,
    /// Carried out, then the connection breaks.
    AnswerLost,
    /// Carried out, and never answered.
    NeverAnswered,
    /// Broken off before anything is carried out.
    Reset,
    /// The answer is no JSON.
    Garbled,
    /// Acknowledged, not kept.
    Lost,
    /// Acknowledged with the number of the trade before.
    Doubled,
    /// Kept with another quantity.
    Changed,
    /// Carried out, then the connection breaks, and the key is forgotten: the retry is carried out again.
    CarriedOutTwice,
    /// 503 for ever.
    Down,
    /// 400, as if the request were wrong.
    Rejected,
}

struct Stock {
    quantity: i64,
    volume: u64,
}

#[derive(Default)]
struct Book {
    stocks: BTreeMap<String, Stock>,
    orders: BTreeMap<u64, Value>,
    next: u64,
    keys: HashMap<String, u64>,
    /// The place in the order of arrival of each key ever seen, and whether this is its first attempt.
    arrived: HashMap<String, usize>,
    cached: HashMap<String, bool>,
    /// Stocks as they were first looked up.
    first: HashMap<String, Value>,
    /// Orders that have been read.
    read: HashSet<u64>,
}

/// How the stub behaves.
#[derive(Clone, Default)]
pub(crate) struct Behaviour {
    /// Faults of the trades with these places.
    pub(crate) faults: HashMap<usize, Fault>,
    /// Quantity of each of the ten stocks at the start; 100 where 0.
    pub(crate) quantity: i64,
    /// Answers lookups as misses first and as hits until the next trade.
    pub(crate) cache: bool,
    /// Every request that arrives within the second duration of each first duration waits for its end.
    pub(crate) stall: Option<(Duration, Duration)>,
    /// Fails lookups with 503.
    pub(crate) lookups_fail: bool,
    /// A cache that no trade invalidates.
    pub(crate) stale: bool,
    /// The first read of each order finds nothing.
    pub(crate) appears_late: bool,
}

/// A running stub, which ends with its runtime.
pub(crate) struct Stub {
    pub(crate) url: BaseUrl,
    shared: Arc<Shared>,
    requests: Arc<AtomicUsize>,
}

struct Shared {
    book: Mutex<Book>,
    behaviour: Behaviour,
    start: Instant,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

impl Stub {
    /// Listens on a free port.
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let quantity = if behaviour.quantity == 0 { 100 } else { behaviour.quantity };
        let stocks = (0..10).map(|n| (format!("Stock {n}"), Stock { quantity, volume: 0 })).collect();
        let book = Mutex::new(Book { stocks, next: 1, ..Book::default() });
        let shared = Arc::new(Shared { book, behaviour, start: Instant::now() });
        Self::serve(shared, 0..0).await
    }

    /// A second frontend of the same exchange, which answers 503 to those of its requests whose places, from 0, are in
    /// `fails`.
    pub(crate) async fn beside(&self, fails: Range<usize>) -> Self {
        Self::serve(Arc::clone(&self.shared), fails).await
    }

    async fn serve(shared: Arc<Shared>, fails: Range<usize>) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let failing = middleware::from_fn(move |request: Request, next: Next| {
            let fails = fails.contains(&count.fetch_add(1, Ordering::Relaxed));
            async move { if fails { error(503, "frontend is away") } else { next.run(request).await } }
        });
        let router = Router::new()
            .route("/stocks", get(stocks_list))
            .route("/stocks/{name}", get(lookup))
            .route("/orders", post(trade))
            .route("/orders/{number}", get(order))
            .route("/cluster", get(async || answer(200, &json!({"data": {"leader": 2, "in_sync": [1, 2, 3]}}))))
            .route("/readyz", get(async || "ready"))
            .layer(failing)
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared, requests }
    }

    /// Requests that this frontend has had.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Orders there are.
    pub(crate) fn orders(&self) -> usize {
        self.shared.book().orders.len()
    }

    /// The stocks asked for, in order, of all orders that were kept.
    pub(crate) fn order_names(&self) -> Vec<String> {
        self.shared.book().orders.values().map(|order| order["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn answer(status: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn error(status: u16, message: &str) -> Response<Body> {
    let mut response = answer(status, &json!({"error": {"code": status, "message": message}}));
    if status == 503 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// An answer whose body ends in an error, upon which the server ends the connection.
fn broken() -> Response<Body> {
    struct Failing;
    impl axum::body::HttpBody for Failing {
        type Data = axum::body::Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Ready(Some(Err(std::io::Error::other("cut off"))))
        }
    }
    Response::new(Body::new(Failing))
}

async fn stall(shared: &Shared) {
    let Some((period, pause)) = shared.behaviour.stall else {
        return;
    };
    let nanos = shared.start.elapsed().as_nanos() % period.as_nanos();
    let into = Duration::from_nanos(u64::try_from(nanos).unwrap());
    // The stall is the end of each period, so that a run does not begin in one.
    if into > period - pause {
        tokio::time::sleep(period - into).await;
    }
}

fn stock_json(name: &str, stock: &Stock) -> Value {
    json!({"name": name, "price": 15.99, "quantity": stock.quantity, "volume": stock.volume})
}

async fn stocks_list(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let list: Vec<Value> = shared.book().stocks.iter().map(|(name, stock)| stock_json(name, stock)).collect();
    answer(200, &json!({"data": list}))
}

async fn lookup(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response<Body> {
    stall(&shared).await;
    if shared.behaviour.lookups_fail {
        return error(503, "no leader");
    }
    let mut book = shared.book();
    let Some(stock) = book.stocks.get(&name) else {
        return error(404, "stock not found");
    };
    let mut shown = stock_json(&name, stock);
    if shared.behaviour.stale {
        shown = book.first.entry(name.clone()).or_insert(shown).clone();
    }
    let mut response = answer(200, &json!({"data": shown}));
    let hit = book.cached.insert(name, true).unwrap_or(false) && shared.behaviour.cache;
    response.headers_mut().insert("x-cache", if hit { "hit" } else { "miss" }.parse().unwrap());
    response
}

async fn trade(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<Value>) -> Response<Body> {
    stall(&shared).await;
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let (first, fault) = {
        let mut book = shared.book();
        let place = book.arrived.len() + 1;
        let first = !book.arrived.contains_key(&key);
        let place = *book.arrived.entry(key.clone()).or_insert(place);
        (first, shared.behaviour.faults.get(&place).copied())
    };
    match fault {
        Some(Fault::Down) => return error(503, "no leader"),
        Some(Fault::NoLeader) if first => return error(503, "no leader"),
        Some(Fault::Reset) if first => return broken(),
        Some(Fault::Rejected) => return error(400, "invalid transaction type"),
        _ => {}
    }
    let response = carry_out(&mut shared.book(), &key, &body, fault);
    if !first {
        return response;
    }
    match fault {
        Some(Fault::UnknownOutcome) => error(504, "outcome unknown: retry with the same Idempotency-Key"),
        Some(Fault::AnswerLost) => broken(),
        Some(Fault::NeverAnswered) => std::future::pending().await,
        Some(Fault::Garbled) => Response::new(Body::from("{")),
        Some(Fault::CarriedOutTwice) => {
            shared.book().keys.remove(&key);
            broken()
        }
        _ => response,
    }
}

fn carry_out(book: &mut Book, key: &str, body: &Value, fault: Option<Fault>) -> Response<Body> {
    if let Some(number) = book.keys.get(key) {
        let mut response = answer(200, &json!({"data": {"transaction_number": number}}));
        response.headers_mut().insert("idempotent-replayed", "true".parse().unwrap());
        return response;
    }
    let (name, quantity) = (body["name"].as_str().unwrap().to_owned(), body["quantity"].as_i64().unwrap());
    let Some(stock) = book.stocks.get_mut(&name) else {
        return error(404, "stock not found");
    };
    let sign = if body["type"] == "buy" { -1 } else { 1 };
    if stock.quantity + sign * quantity < 0 {
        return error(409, "not enough stocks left to buy");
    }
    stock.quantity += sign * quantity;
    stock.volume += quantity.unsigned_abs();
    book.cached.remove(&name);
    if fault == Some(Fault::Doubled) {
        book.next -= 1;
    }
    let number = book.next;
    book.next += 1;
    let kept = if fault == Some(Fault::Changed) { quantity + 1 } else { quantity };
    if fault != Some(Fault::Lost) {
        let order = json!({"order_num": number, "name": name, "type": body["type"], "quantity": kept});
        book.orders.insert(number, order);
    }
    book.keys.insert(key.to_owned(), number);
    answer(200, &json!({"data": {"transaction_number": number}}))
}

async fn order(State(shared): State<Arc<Shared>>, Path(number): Path<u64>) -> Response<Body> {
    let mut book = shared.book();
    if shared.behaviour.appears_late && book.read.insert(number) {
        return error(404, "transaction number not found");
    }
    match book.orders.get(&number) {
        Some(order) => answer(200, &json!({"data": order})),
        None => error(404, "transaction number not found"),
    }
}
