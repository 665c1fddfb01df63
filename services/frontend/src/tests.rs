//! The edge over real sockets. Each test plays the core itself, at the far end of the desk's channel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tradenet_core::frontend::{Frontend, Options};
use tradenet_core::metrics::Readings;
use tradenet_core::times::Times;
use tradenet_core::{ClientAnswer, ClientRequest, Input, Ticket};
use tradenet_schemas::ids::{Boot, OrderNumber, ReplicaId};
use tradenet_schemas::trade::{Command, IdempotencyKey, Order, Outcome, Price, Quantity, Refusal, Side, Stock, Symbol};

use crate::desk::{Desk, Shared};
use crate::events::Feed;
use crate::limits::{HEAD_BYTES_MAX, Limits};
use crate::observer::Observer;
use crate::routes::Routes;
use crate::server;
use crate::standing::Standing;
use tradenet_runtime::clock::Clock;
use tradenet_runtime::whereabouts::Whereabouts;

/// Longer than anything here takes; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(20);

mod cost;
mod crowds;
mod document;
mod events;
mod market;
mod opening;
mod validators;

struct Served {
    address: SocketAddr,
    core: Shared,
    desk: Arc<Desk>,
    observer: Arc<Observer>,
    leave: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn serve(limits: Limits, answer_within: Duration) -> (Served, mpsc::Receiver<Input>) {
    let members = (1..=3).filter_map(ReplicaId::new).collect();
    let core = Frontend::new(Options { boot: Boot(7), members, times: Times::default(), cache_size: 5 });
    let core = Shared::new(core);
    let (desk, inputs) = Desk::new(core.clone(), Clock::new(), answer_within);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (leave, left) = oneshot::channel::<()>();
    let feed = Feed::new(Arc::clone(&desk), &limits);
    tokio::spawn(Arc::clone(&feed).follow());
    tokio::spawn(Arc::clone(&desk).end_long_waits());
    let standing = Arc::new(Standing::new("frontend-1".to_owned(), None, Whereabouts::here(None)));
    let (scraper, scrapes) = tradenet_runtime::metrics::scraper("frontend-1", "1");
    tokio::spawn(scrapes.answer_with(Readings::default));
    let routes = Routes::new(Arc::clone(&desk), Arc::clone(&feed), Arc::clone(&standing), &limits);
    let observer = Observer::new(routes, scraper, Arc::clone(&desk), feed, standing, &limits);
    let server = tokio::spawn(server::serve(listener, Arc::clone(&observer), limits, async move {
        let _ = left.await;
    }));
    (Served { address, core, desk, observer, leave, server }, inputs)
}

/// A whole exchange: answers every question by [`answer`].
async fn exchange() -> SocketAddr {
    let (served, mut inputs) = serve(Limits::default(), PATIENCE).await;
    let address = served.address;
    tokio::spawn(async move {
        // All of it, so that it stays open as long as the test runs.
        let served = served;
        while let Some(input) = inputs.recv().await {
            if let Input::Client(ticket, request) = input {
                served.desk.answer(ticket, answer(&request));
            }
        }
    });
    address
}

fn stock(name: &str, cents: u64) -> Stock {
    let symbol = Symbol::new(name).unwrap();
    let quantity = Quantity::new(100).unwrap();
    Stock { symbol, price: Price::from_cents(cents).unwrap(), quantity, volume: Quantity::ZERO }
}

/// What this exchange decides: by the stock's name for trades, so that a table of requests reads by itself.
fn answer(request: &ClientRequest) -> ClientAnswer {
    match request {
        ClientRequest::Stocks => ClientAnswer::Stocks(vec![stock("BoarCo", 1000), stock("GameStart", 1599)]),
        ClientRequest::Stock(symbol) => match symbol.as_str() {
            "GameStart" => ClientAnswer::Stock { stock: Some(stock("GameStart", 1599)), hit: false },
            "Cached" => ClientAnswer::Stock { stock: Some(stock("Cached", 5)), hit: true },
            "Down" => ClientAnswer::Unavailable("no catalog".to_owned()),
            _ => ClientAnswer::Stock { stock: None, hit: false },
        },
        ClientRequest::Order(number) if number.0 == 42 => ClientAnswer::Order(Some(Order {
            number: *number,
            symbol: Symbol::new("GameStart").unwrap(),
            side: Side::Buy,
            quantity: Quantity::new(1).unwrap(),
        })),
        ClientRequest::Order(_) => ClientAnswer::Order(None),
        ClientRequest::Command(key, Command::Trade { symbol, .. }) => {
            let replayed = *key == Some(IdempotencyKey::new("again").unwrap());
            match symbol.as_str() {
                "GameStart" => ClientAnswer::Outcome(Outcome::Accepted { order: OrderNumber(42), replayed }),
                "Empty" => ClientAnswer::Outcome(Outcome::Refused(Refusal::NotEnoughStocks)),
                "Full" => ClientAnswer::Outcome(Outcome::Refused(Refusal::TooManyStocks)),
                "Reused" => ClientAnswer::Outcome(Outcome::Refused(Refusal::KeyReused)),
                "Down" => ClientAnswer::Unavailable("no leader".to_owned()),
                "Lost" => ClientAnswer::Unknown,
                _ => ClientAnswer::Outcome(Outcome::Refused(Refusal::UnknownSymbol)),
            }
        }
        ClientRequest::Command(_, command) => market::done(command),
        ClientRequest::Market(query) => ClientAnswer::Market(market::answer(query)),
    }
}

struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Reads one answer; its body by its length, except for `HEAD`, whose answer has none.
async fn read(client: &mut TcpStream, with_body: bool) -> Response {
    tokio::time::timeout(PATIENCE, async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = client.read_u8().await;
            head.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&head))));
        }
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut response = Response { status, head, body: String::new() };
        let length: usize = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if with_body { length } else { 0 }];
        client.read_exact(&mut body).await.unwrap();
        response.body = String::from_utf8(body).unwrap();
        response
    })
    .await
    .unwrap()
}

async fn ask(address: SocketAddr, request: &[u8]) -> Response {
    let mut client = connect(address).await;
    // A refused client may be cut off while it still writes; what counts is what it reads.
    let _ = client.write_all(request).await;
    read(&mut client, !request.starts_with(b"HEAD")).await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn post(body: &str, headers: &str) -> String {
    format!("POST /orders HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn order(name: &str) -> String {
    format!(r#"{{"name":"{name}","quantity":1,"type":"buy"}}"#)
}

/// `expected` is the whole body of a success, or the message of an error.
async fn check(address: SocketAddr, request: impl AsRef<[u8]>, status: u16, expected: &str) -> Response {
    let response = ask(address, request.as_ref()).await;
    let shown = String::from_utf8_lossy(request.as_ref()).chars().take(300).collect::<String>();
    let body = if status < 400 {
        expected.to_owned()
    } else {
        let message = serde_json::Value::from(expected);
        format!(r#"{{"error":{{"code":{status},"message":{message}}}}}"#)
    };
    assert_eq!((response.status, response.body.as_str()), (status, body.as_str()), "{shown}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{shown}");
    assert_eq!(response.header("retry-after"), (status == 503).then_some("1"), "{shown}");
    assert!(response.header("x-request-id").is_some_and(|id| id.len() == 32), "{shown}: {}", response.head);
    response
}

#[tokio::test]
async fn stocks_are_shown_with_two_decimals_and_where_they_came_from() {
    let at = exchange().await;
    let game = r#"{"name":"GameStart","price":15.99,"quantity":100,"volume":0}"#;
    let all = format!(r#"{{"data":[{{"name":"BoarCo","price":10.00,"quantity":100,"volume":0}},{game}]}}"#);
    let one = format!(r#"{{"data":{game}}}"#);
    check(at, get("/stocks"), 200, &all).await;
    check(at, get("/stocks?page=2"), 200, &all).await;
    for path in ["/stocks/GameStart", "/stocks/Game%53tart", "/stocks/GameStart?a=%zz", "http://x/stocks/GameStart"] {
        assert_eq!(check(at, get(path), 200, &one).await.header("x-cache"), Some("miss"));
    }
    let cached = r#"{"data":{"name":"Cached","price":0.05,"quantity":100,"volume":0}}"#;
    assert_eq!(check(at, get("/stocks/Cached"), 200, cached).await.header("x-cache"), Some("hit"));
    for unknown in ["Nope", "gamestart", "a.b", "%20", "Caf%C3%A9", "a%2Fb", "%00", &"x".repeat(33)] {
        let response = check(at, get(&format!("/stocks/{unknown}")), 404, "stock not found").await;
        assert_eq!(response.header("x-cache"), Some("miss"));
    }
    check(at, get("/stocks/Down"), 503, "no catalog").await;
    for malformed in ["%", "%4", "%zz", "%FF", "%C3", "A%+1"] {
        let message = "the path must be percent-encoded UTF-8, %25 for a %";
        check(at, get(&format!("/stocks/{malformed}")), 400, message).await;
    }
}

#[tokio::test]
async fn an_order_is_found_by_its_number_and_by_nothing_else() {
    let at = exchange().await;
    let found = r#"{"data":{"order_num":42,"name":"GameStart","type":"buy","quantity":1}}"#;
    check(at, get("/orders/42"), 200, found).await;
    for number in ["1", "0", "-1", "+42", "4.2", "42.0", "abc", "0x2A", "99999999999999999999", "%20", "4%202"] {
        check(at, get(&format!("/orders/{number}")), 404, "transaction number not found").await;
    }
}

#[tokio::test]
async fn an_order_is_placed_whatever_else_its_body_and_headers_say() {
    let at = exchange().await;
    let placed = r#"{"data":{"transaction_number":42}}"#;
    let body = order("GameStart");
    for headers in [
        "",
        "content-type: application/json\r\n",
        "content-type: application/json; charset=utf-8\r\n",
        "content-type: text/plain\r\n",
        "expect: 200-maybe\r\n",
        "idempotency-key: k\r\n",
    ] {
        assert_eq!(check(at, post(&body, headers), 200, placed).await.header("idempotent-replayed"), None);
    }
    for body in [
        r#"{"name":"GameStart","quantity":1.0,"type":"sell"}"#,
        r#"{"name":"GameStart","quantity":9007199254740991,"type":"sell"}"#,
        r#" {"more":[{"a":null}],"type":"buy","quantity":1,"name":"GameStart","name2":1} "#,
    ] {
        check(at, post(body, ""), 200, placed).await;
    }
    let chunked = format!(
        "POST /orders HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &body[..5],
        body.len() - 5,
        &body[5..]
    );
    check(at, chunked, 200, placed).await;
}

#[tokio::test]
async fn a_key_is_the_same_in_quotes_and_a_replay_says_so() {
    let at = exchange().await;
    for key in ["again", "\"again\"", "  again  "] {
        let request = post(&order("GameStart"), &format!("Idempotency-Key: {key}\r\n"));
        let response = check(at, request, 200, r#"{"data":{"transaction_number":42}}"#).await;
        assert_eq!(response.header("idempotent-replayed"), Some("true"), "{key}");
    }
    let longest = "k".repeat(255);
    for key in [&longest, &format!("\"{longest}\""), "\"", "a\"b", "~!"] {
        let request = post(&order("GameStart"), &format!("Idempotency-Key: {key}\r\n"));
        check(at, request, 200, r#"{"data":{"transaction_number":42}}"#).await;
    }
    let message = "Idempotency-Key must have 1 to 255 visible ASCII characters";
    for key in ["", "\"\"", "a b", "a\tb", "caf\u{e9}", &"k".repeat(256)] {
        check(at, post(&order("GameStart"), &format!("Idempotency-Key: {key}\r\n")), 400, message).await;
    }
    let twice = post(&order("GameStart"), "Idempotency-Key: a\r\nidempotency-key: a\r\n");
    check(at, twice, 400, "Idempotency-Key must be sent at most once").await;
}

#[tokio::test]
async fn a_refusal_is_told_in_the_contracts_words() {
    let at = exchange().await;
    let check = async |name: &str, status, message| check(at, post(&order(name), ""), status, message).await;
    check("Nope", 404, "stock not found").await;
    check("", 404, "stock not found").await;
    check("a*b", 404, "stock not found").await;
    check("Empty", 409, "not enough stocks left to buy").await;
    let many = "too many stocks: the quantity and the volume of a stock stay below 2^53, so trade fewer";
    check("Full", 409, many).await;
    check("Reused", 422, "this Idempotency-Key was used for another request; send a new one").await;
    check("Down", 503, "no leader").await;
}

#[tokio::test]
async fn an_unknown_outcome_tells_how_to_learn_it() {
    let at = exchange().await;
    let keyed = "this may or may not have been done: retry with the same Idempotency-Key to learn which";
    check(at, post(&order("Lost"), "Idempotency-Key: k\r\n"), 504, keyed).await;
    let bare = "this may or may not have been done, and without a key a retry may do it twice: send an Idempotency-Key \
                with each request that changes something, then retry with the same Idempotency-Key";
    check(at, post(&order("Lost"), ""), 504, bare).await;
}

#[tokio::test]
async fn a_body_that_is_no_order_is_refused() {
    let at = exchange().await;
    let check = async |body: &str, status, message: &str| check(at, post(body, ""), status, message).await;
    for kind in [r#""give""#, r#""BUY""#, r#""buy ""#, "null", "1", "[\"buy\"]"] {
        let body = format!(r#"{{"name":"GameStart","quantity":1,"type":{kind}}}"#);
        check(&body, 400, "invalid transaction type").await;
    }
    check(r#"{"name":"GameStart","quantity":1}"#, 400, "invalid transaction type").await;
    check("{}", 400, "invalid transaction type").await;
    for quantity in
        ["0", "-1", "1.5", "\"1\"", "null", "true", "[1]", "{}", "1e400", "-0", "0.0", "1e-1", "18446744073709551616"]
    {
        let body = format!(r#"{{"name":"GameStart","quantity":{quantity},"type":"buy"}}"#);
        check(&body, 400, "quantity must be a positive whole number").await;
    }
    check(r#"{"name":"GameStart","type":"buy"}"#, 400, "quantity must be a positive whole number").await;
    let over = r#"{"name":"GameStart","quantity":9007199254740992,"type":"buy"}"#;
    check(over, 409, "not enough stocks left to buy").await;
    for name in ["null", "1", "[\"GameStart\"]"] {
        let body = format!(r#"{{"name":{name},"quantity":1,"type":"buy"}}"#);
        check(&body, 400, "name must be the name of a stock, as text").await;
    }
    check(r#"{"quantity":1,"type":"buy"}"#, 400, "name must be the name of a stock, as text").await;
}

#[tokio::test]
async fn a_body_that_is_no_object_is_malformed() {
    let at = exchange().await;
    let deep = format!("{{\"a\":{}", "[".repeat(10_000));
    let twice = r#"{"name":"A","name":"B","quantity":1,"type":"buy"}"#;
    let bodies: [&[u8]; 14] = [
        b"",
        b"   ",
        b"null",
        b"1",
        b"\"buy\"",
        br#"["GameStart",1,"buy"]"#,
        br#"{"name":"GameStart","quantity":1,"type":"buy"} x"#,
        br#"{"name":"GameStart","quantity":1,"type":"buy""#,
        br#"{"name":"GameStart","quantity":NaN,"type":"buy"}"#,
        br#"{"name":"GameStart","quantity":01,"type":"buy"}"#,
        br#"{'name':"GameStart"}"#,
        b"{\"name\":\"\xff\",\"quantity\":1,\"type\":\"buy\"}",
        twice.as_bytes(),
        deep.as_bytes(),
    ];
    for body in bodies {
        let head = format!("POST /orders HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len());
        let response = ask(at, &[head.as_bytes(), body].concat()).await;
        let shown = String::from_utf8_lossy(body);
        let start = r#"{"error":{"code":400,"message":"the body must be a JSON object such as "#;
        assert_eq!(response.status, 400, "{shown}");
        assert!(response.body.starts_with(start), "{shown}: {}", response.body);
    }
}

#[tokio::test]
async fn an_oversized_body_is_refused_however_it_comes() {
    let at = exchange().await;
    let message = "the body must have at most 16384 bytes";
    let fits = order("GameStart") + &" ".repeat(16_384 - order("GameStart").len());
    check(at, post(&fits, ""), 200, r#"{"data":{"transaction_number":42}}"#).await;
    check(at, post(&format!("{fits} "), ""), 413, message).await;
    check(at, post(&" ".repeat(900_000), ""), 413, message).await;
    // Not a byte of it needs to come.
    check(at, "POST /orders HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n", 413, message)
        .await;
    let chunk = format!("{:x}\r\n{fits} \r\n", fits.len() + 1);
    check(at, format!("POST /orders HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"), 413, message).await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_taken_is_told_in_the_envelope() {
    let at = exchange().await;
    for path in ["/stock", "/stocks/", "/stocks/GameStart/", "/stocks/GameStart/bock", "/STOCKS", "//stocks", "*"] {
        check(at, get(path), 404, &format!("{path} is not here; see GET /stocks")).await;
    }
    for (method, path, allow) in [
        ("POST", "/stocks", "GET,HEAD"),
        ("DELETE", "/stocks/GameStart", "GET,HEAD"),
        ("GET", "/orders", "POST"),
        ("PUT", "/orders", "POST"),
        ("OPTIONS", "/orders", "POST"),
        ("POST", "/orders/1", "GET,HEAD"),
        ("BREW", "/healthz", "GET,HEAD"),
        ("POST", "/cluster", "GET,HEAD"),
    ] {
        let message = format!("{path} does not take {method}; the Allow header names what it takes");
        let response = check(at, format!("{method} {path} HTTP/1.1\r\n\r\n"), 405, &message).await;
        assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
    }
    check(at, "OPTIONS * HTTP/1.1\r\n\r\n", 404, "* is not here; see GET /stocks").await;
    let connect = ask(at, b"CONNECT x:80 HTTP/1.1\r\n\r\n").await;
    assert!(connect.status >= 400 && connect.body.starts_with(r#"{"error":{"code":4"#), "{}", connect.body);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let at = exchange().await;
    for path in ["/stocks", "/stocks/GameStart", "/orders/42", "/healthz", "/readyz", "/stocks/Nope", "/nope"] {
        let full = ask(at, get(path).as_bytes()).await;
        let head = ask(at, get(path).replacen("GET", "HEAD", 1).as_bytes()).await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (full.status, full.header("content-length")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_head_that_is_no_request_is_refused_in_the_envelope() {
    let at = exchange().await;
    let long = "x".repeat(HEAD_BYTES_MAX);
    let too_long = "the URL and the headers together must have at most 16384 bytes";
    let malformed = "this is not an HTTP/1.1 request";
    check(at, "hello\r\n\r\n", 400, malformed).await;
    check(at, "GET /stocks\r\n\r\n", 400, malformed).await;
    check(at, "GET /stocks HTTP/3.7\r\n\r\n", 400, malformed).await;
    check(at, "GET /st ocks HTTP/1.1\r\n\r\n", 400, malformed).await;
    check(at, "GET /stocks HTTP/1.1\r\nno colon\r\n\r\n", 400, malformed).await;
    check(at, "POST /orders HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400, malformed).await;
    check(at, "POST /orders HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, malformed).await;
    check(at, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "only HTTP/1.1 is spoken here").await;
    check(at, get(&format!("/{long}")), 431, too_long).await;
    check(at, format!("GET /stocks HTTP/1.1\r\nx: {long}\r\n\r\n"), 431, too_long).await;
    check(at, format!("GET /stocks HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(101)), 431, too_long).await;
    let broken = "POST /orders HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n";
    let response = ask(at, broken.as_bytes()).await;
    assert_eq!(response.status, 400);
    assert!(response.body.contains("the body could not be read"), "{}", response.body);
}

#[tokio::test]
async fn a_good_request_is_answered_before_the_bad_one_that_follows_it() {
    let at = exchange().await;
    let mut client = connect(at).await;
    client.write_all(format!("{}{}garbage\r\n\r\n", get("/healthz"), get("/orders/42")).as_bytes()).await.unwrap();
    for status in [200, 200, 400] {
        assert_eq!(read(&mut client, true).await.status, status);
    }
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_that_trickles_in_is_given_up_and_an_idle_client_is_closed_in_silence() {
    let short = Duration::from_millis(50);
    let (served, _inputs) = serve(Limits { head_read: short, body_read: short, ..Limits::default() }, PATIENCE).await;
    check(
        served.address,
        "GET /stocks HTTP/1.1\r\n",
        408,
        "the headers did not arrive in time; send the request again",
    )
    .await;
    let body = "POST /orders HTTP/1.1\r\ncontent-length: 10\r\n\r\n{";
    check(served.address, body, 408, "the body did not arrive within 50 ms").await;
    let mut idle = connect(served.address).await;
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    let mut idle = connect(served.address).await;
    idle.write_all(get("/healthz").as_bytes()).await.unwrap();
    assert_eq!(read(&mut idle, true).await.status, 200);
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_may_pause_before_each_request_and_is_closed_when_it_pauses_too_long() {
    // Far from each other, so that it takes a very slow machine to pause too long; only all pauses together are longer.
    let (pause, head_read) = (Duration::from_millis(500), Duration::from_millis(1_250));
    let (served, _inputs) = serve(Limits { head_read, ..Limits::default() }, PATIENCE).await;
    let mut client = connect(served.address).await;
    for _ in 0..3 {
        tokio::time::sleep(pause).await;
        client.write_all(get("/healthz").as_bytes()).await.unwrap();
        assert_eq!(read(&mut client, true).await.status, 200);
    }
    let answered = Instant::now();
    let closed = tokio::time::timeout(PATIENCE, client.read(&mut [0])).await.unwrap();
    assert_eq!(closed.unwrap(), 0);
    assert!(answered.elapsed() > pause, "{:?}", answered.elapsed());
}

#[tokio::test]
async fn a_body_may_come_in_pieces_after_its_head() {
    let at = exchange().await;
    let request = post(&order("GameStart"), "");
    let mut client = connect(at).await;
    client.set_nodelay(true).unwrap();
    // The head, and two pieces of the body.
    let body = request.find('{').unwrap();
    for piece in [&request[..body], &request[body..body + 9], &request[body + 9..]] {
        client.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let response = read(&mut client, true).await;
    assert_eq!((response.status, response.body.as_str()), (200, r#"{"data":{"transaction_number":42}}"#));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let limits = Limits { write_stall: Duration::from_millis(50), drain: 2 * PATIENCE, ..Limits::default() };
    let (served, mut inputs) = serve(limits, PATIENCE).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(served.address).await.unwrap();
    client.write_all(get("/stocks").as_bytes()).await.unwrap();
    let Some(Input::Client(ticket, _)) = inputs.recv().await else { panic!("no request") };
    // More than the kernel keeps for a client that does not read.
    served.desk.answer(ticket, ClientAnswer::Stocks(vec![stock("GameStart", 1599); 200_000]));
    served.leave.send(()).unwrap();
    tokio::time::timeout(PATIENCE, served.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn without_an_answer_a_read_is_unavailable_and_an_order_unknown() {
    let (served, mut inputs) = serve(Limits::default(), Duration::from_millis(50)).await;
    let at = served.address;
    check(at, get("/orders/1"), 503, "no answer in time; try again").await;
    assert!(matches!(inputs.recv().await, Some(Input::Client(Ticket(0), _))));
    assert!(matches!(inputs.recv().await, Some(Input::ClientGone(Ticket(0)))));
    let keyed = "this may or may not have been done: retry with the same Idempotency-Key to learn which";
    check(at, post(&order("GameStart"), "Idempotency-Key: k\r\n"), 504, keyed).await;
    drop(inputs);
    check(at, get("/stocks"), 503, "this frontend is leaving: use another one").await;
}

#[tokio::test]
async fn the_core_hears_of_a_client_that_goes_and_its_answer_is_dropped() {
    let (served, mut inputs) = serve(Limits::default(), PATIENCE).await;
    let mut client = connect(served.address).await;
    client.write_all(post(&order("GameStart"), "").as_bytes()).await.unwrap();
    let Some(Input::Client(ticket, request)) = inputs.recv().await else { panic!("no request") };
    assert!(matches!(request, ClientRequest::Command(None, _)));
    drop(client);
    let gone = inputs.recv().await;
    assert!(matches!(gone, Some(Input::ClientGone(gone)) if gone == ticket), "{gone:?}");
    served.desk.answer(ticket, ClientAnswer::Unknown);
}

/// Polls once.
async fn is_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn health_is_told_apart_from_readiness() {
    let at = exchange().await;
    check(at, get("/healthz"), 200, r#"{"data":{"status":"alive"}}"#).await;
    let ready = ask(at, get("/readyz").as_bytes()).await;
    assert_eq!((ready.status, ready.header("retry-after")), (503, Some("1")), "{}", ready.body);
    let cluster = ask(at, get("/cluster").as_bytes()).await;
    assert!(
        cluster.body.starts_with(r#"{"data":{"epoch":0,"leader":null,"in_sync":[],"ready":false"#),
        "{}",
        cluster.body
    );
}

#[tokio::test]
async fn leaving_closes_idle_connections_and_answers_what_is_under_way() {
    let (served, mut inputs) = serve(Limits::default(), PATIENCE).await;
    let mut idle = connect(served.address).await;
    idle.write_all(get("/healthz").as_bytes()).await.unwrap();
    read(&mut idle, true).await;
    let mut busy = connect(served.address).await;
    busy.write_all(post(&order("GameStart"), "").as_bytes()).await.unwrap();
    let Some(Input::Client(ticket, _)) = inputs.recv().await else { panic!("no request") };
    served.desk.leave();
    check(served.address, get("/readyz"), 503, "this frontend is leaving: use another one").await;
    served.leave.send(()).unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    served.desk.answer(ticket, answer(&ClientRequest::Order(OrderNumber(1))));
    // Even an answer to another question ends as an answer.
    let response = read(&mut busy, true).await;
    assert_eq!((response.status, response.header("connection")), (500, Some("close")));
    drop(busy);
    tokio::time::timeout(PATIENCE, served.server).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused_and_one_that_was_just_left_is_not() {
    let first = crate::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    assert_eq!(crate::listen(address).err().map(|error| error.kind()), Some(std::io::ErrorKind::AddrInUse));
    let client = connect(address).await;
    // The side that closes first keeps the address for a while.
    drop(first.accept().await.unwrap());
    drop((first, client));
    crate::listen(address).unwrap();
}

#[test]
fn others_are_told_an_address_that_they_can_use_or_none() {
    fn check(advertise: Option<&str>, listen: &str, expected: Option<&str>) {
        let told = crate::reached_at(advertise.map(str::to_owned), listen.parse().unwrap());
        assert_eq!(told.as_deref(), expected, "{advertise:?} {listen}");
    }
    check(None, "127.0.0.1:8080", Some("http://127.0.0.1:8080"));
    check(None, "[::1]:8080", Some("http://[::1]:8080"));
    check(None, "0.0.0.0:8080", None);
    check(None, "[::]:8080", None);
    check(Some("http://shop.example:80"), "0.0.0.0:8080", Some("http://shop.example:80"));
    check(Some("http://shop.example:80"), "127.0.0.1:8080", Some("http://shop.example:80"));
}

#[test]
fn what_is_advertised_is_an_address_without_a_path() {
    for (text, expected) in [
        ("http://203.0.113.7:8080", Some("http://203.0.113.7:8080")),
        ("https://shop.example/", Some("https://shop.example")),
        ("shop.example:80", None),
        ("http://", None),
        ("http://shop.example/stocks", None),
        ("http://shop.example?x=1", None),
        ("nats://shop.example", None),
    ] {
        assert_eq!(crate::advertised(text).ok().as_deref(), expected, "{text}");
    }
}
