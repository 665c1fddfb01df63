//! Streams of events. Each test plays the leader, at the far end of the desk's channel.

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;
use tradenet_core::{Decider as _, Packet};
use tradenet_schemas::account::{Book, Level, Trade};
use tradenet_schemas::feed::{Fact, PublicEvent};
use tradenet_schemas::ids::{ClusterId, Epoch, EventNumber, Leader, Member, Node, Nonce, SeqNum, StoreId, TradeNumber};
use tradenet_schemas::message::{Answer, Configuration, Envelope, Message, Query};

use super::*;

/// What there is to tell.
#[derive(Clone, Default)]
struct Told {
    /// So many events are forgotten.
    before: u64,
    events: Vec<PublicEvent>,
}

impl Told {
    fn last(&self) -> EventNumber {
        EventNumber(self.before + self.events.len() as u64)
    }
    fn behind(&self, after: EventNumber) -> Option<Answer> {
        let after = after.max(EventNumber(self.before));
        let skipped = usize::try_from(after.0 - self.before).unwrap();
        (after < self.last()).then(|| Answer::Events { after, events: self.events[skipped..].to_vec() })
    }
}

/// A frontend before a leader that tells what it is told to.
struct Market {
    served: Served,
    told: watch::Sender<Told>,
    /// Whether a question waits for events.
    asked: watch::Receiver<bool>,
}

async fn market(limits: Limits, before: u64, events: u64) -> Market {
    let (served, mut inputs) = serve(limits, PATIENCE).await;
    let (told, mut news) = watch::channel(Told { before, events: (1..=events).map(sold).collect() });
    let (asks, asked) = watch::channel(false);
    let desk = Arc::clone(&served.desk);
    tokio::spawn(async move {
        let mut waiting = None;
        loop {
            tokio::select! {
                Some(input) = inputs.recv() => match input {
                    Input::Client(ticket, ClientRequest::Market(Query::Events(after))) => waiting = Some((ticket, after)),
                    Input::Client(ticket, request) => {
                        let last = ClientAnswer::Market(Answer::LastEvent(news.borrow().last()));
                        desk.answer(ticket, if request == last_event() { last } else { answer(&request) });
                    }
                    Input::ClientGone(ticket) => waiting = waiting.filter(|(waits, _)| *waits != ticket),
                    other => panic!("{other:?}"),
                },
                Ok(()) = news.changed() => {}
                else => return,
            }
            if let Some((ticket, after)) = waiting
                && let Some(events) = news.borrow().behind(after)
            {
                desk.answer(ticket, ClientAnswer::Market(events));
                waiting = None;
            }
            asks.send_replace(waiting.is_some());
        }
    });
    Market { served, told, asked }
}

fn last_event() -> ClientRequest {
    ClientRequest::Market(Query::LastEvent)
}

impl Market {
    fn tell(&self, event: PublicEvent) {
        self.told.send_modify(|told| told.events.push(event));
    }

    async fn asked(&mut self, expected: bool) {
        tokio::time::timeout(PATIENCE, self.asked.wait_for(|asked| *asked == expected)).await.unwrap().unwrap();
    }
}

/// The house sold some: an event that is easily told from others.
fn sold(number: u64) -> PublicEvent {
    let mut stock = stock("GameStart", 1599);
    stock.volume = Quantity::new(number).unwrap();
    PublicEvent { seq: SeqNum(100 + number), fact: Fact::StockChanged(stock) }
}

/// A client of `GET /events`, by HTTP/1.0, so that its text comes without chunks in between.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn open(market: &Market, path: &str, headers: &str) -> Self {
        let mut stream = connect(market.served.address).await;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let mut client = Self(BufReader::new(stream));
        let head = client.block().await;
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/event-stream\r\n") && head.contains("no-store"), "{head}");
        client
    }

    /// Everything up to the next empty line; empty at the end.
    async fn block(&mut self) -> String {
        let mut text = String::new();
        let read = async {
            while self.0.read_line(&mut text).await.unwrap() > 0 && !text.ends_with("\n\n") && !text.ends_with("\n\r\n")
            {
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap();
        text
    }

    /// Kind and id of the next message.
    async fn next(&mut self) -> (String, u64) {
        let block = self.block().await;
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {block:?}")).to_owned()
        };
        (field("event: "), field("id: ").parse().unwrap())
    }

    async fn check(&mut self, kind: &str, id: u64) {
        assert_eq!(self.next().await, (kind.to_owned(), id));
    }
}

#[tokio::test]
async fn a_stream_begins_now_and_tells_each_kind_of_event_in_the_contracts_words() {
    let mut market = market(Limits::default(), 0, 3).await;
    assert!(!*market.asked.borrow(), "without a stream nobody is asked");
    let mut client = Client::open(&market, "/events", "").await;
    let beginning = "retry: 1000\nevent: cluster\nid: 3\ndata: {\"epoch\":0,\"leader\":null,\"in_sync\":[]}\n\n";
    assert_eq!(client.block().await, beginning);
    let (symbol, count) = (Symbol::new("GameStart").unwrap(), |count| Quantity::new(count).unwrap());
    let price = Price::from_cents(1500).unwrap();
    let trade = Trade { number: TradeNumber(7), price, quantity: count(6), side: Side::Buy, at: 1_790_000_000_000 };
    let sequence = SeqNum(42);
    let book = Book { symbol: symbol.clone(), sequence, bids: vec![Level(price, count(2))], asks: vec![] };
    let facts = [Fact::Traded(symbol, trade), Fact::BookChanged(book), Fact::StockChanged(stock("GameStart", 1599))];
    facts.into_iter().for_each(|fact| market.tell(PublicEvent { seq: sequence, fact }));
    for expected in [
        "event: trade\nid: 4\ndata: {\"sequence\":42,\"name\":\"GameStart\",\"trade\":7,\"price\":15.00,\"quantity\":6,\
         \"side\":\"buy\",\"at\":1790000000000}\n\n",
        "event: book\nid: 5\ndata: {\"name\":\"GameStart\",\"sequence\":42,\"bids\":[[15.00,2]],\"asks\":[]}\n\n",
        "event: stock\nid: 6\ndata: {\"sequence\":42,\"name\":\"GameStart\",\"price\":15.99,\"quantity\":100,\
         \"volume\":0}\n\n",
    ] {
        assert_eq!(client.block().await, expected);
    }
    market.asked(true).await;
    drop(client);
    market.asked(false).await;
}

#[test]
fn a_client_goes_on_behind_the_last_event_it_has() {
    #[track_caller]
    fn check(path: &str, headers: &str, expected: &[(&str, u64)]) {
        let run = async {
            let market = market(Limits::default(), 10, 5).await;
            let mut client = Client::open(&market, path, headers).await;
            let mut found = Vec::new();
            while found.len() < expected.len() {
                found.push(client.next().await);
            }
            let expected: Vec<_> = expected.iter().map(|(kind, id)| ((*kind).to_owned(), *id)).collect();
            assert_eq!(found, expected, "{path} {headers}");
            market.tell(sold(6));
            client.check("stock", 16).await;
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run);
    }
    let last_two = [("cluster", 13), ("stock", 14), ("stock", 15)];
    check("/events", "", &[("cluster", 15)]);
    check("/events", "last-event-id: 15\r\n", &[("cluster", 15)]);
    check("/events", "last-event-id: 13\r\n", &last_two);
    check("/events?last_event_id=13", "", &last_two);
    check("/events?last_event_id=10", "last-event-id: 13\r\n", &last_two);
    // What is forgotten, and what can't be.
    let all = [("stock", 11), ("stock", 12), ("stock", 13), ("stock", 14), ("stock", 15)];
    check("/events", "last-event-id: 9\r\n", &[&[("cluster", 9), ("gap", 10)], &all[..]].concat());
    check("/events?last_event_id=0", "", &[&[("cluster", 0), ("gap", 10)], &all[..]].concat());
    check("/events", "last-event-id: 16\r\n", &[("cluster", 15), ("gap", 15)]);
    check("/events", "last-event-id: 9007199254740991\r\n", &[("cluster", 15), ("gap", 15)]);
}

#[tokio::test]
async fn what_is_no_id_is_refused() {
    let market = market(Limits::default(), 0, 3).await;
    let at = market.served.address;
    let message = "Last-Event-ID must be the id of an event, or 0 for the oldest that is remembered";
    for id in ["x", "-1", "+1", "1.0", "", "9007199254740992", "99999999999999999999"] {
        check(at, format!("GET /events HTTP/1.1\r\nhost: x\r\nlast-event-id: {id}\r\n\r\n"), 400, message).await;
        check(at, get(&format!("/events?last_event_id={}", id.replace('+', "%2B"))), 400, message).await;
    }
    let both = "GET /events?last_event_id=-1 HTTP/1.1\r\nhost: x\r\nlast-event-id: 1\r\n\r\n";
    check(at, both.to_owned(), 400, message).await;
    check(at, get("/events?since=1"), 400, "\"since\" is not known here; known are last_event_id").await;
}

#[tokio::test]
async fn who_falls_behind_is_told_what_is_missing() {
    let limits = Limits { feed_bytes_max: 200, ..Limits::default() };
    let market = market(limits, 0, 0).await;
    let mut client = Client::open(&market, "/events", "").await;
    client.check("cluster", 0).await;
    market.told.send_modify(|told| told.events = (1..=100).map(sold).collect());
    assert_eq!(client.block().await, "event: gap\nid: 99\ndata: {\"after\":0,\"next\":100}\n\n");
    client.check("stock", 100).await;
    // The leader has forgotten some too.
    market.told.send_modify(|told| *told = Told { before: 200, events: vec![sold(201)] });
    client.check("gap", 200).await;
    client.check("stock", 201).await;
}

#[tokio::test]
async fn streams_have_a_limit_and_give_their_place_back() {
    let limits = Limits { streams_max: 1, ..Limits::default() };
    let mut market = market(limits, 0, 0).await;
    let mut client = Client::open(&market, "/events", "").await;
    client.check("cluster", 0).await;
    let full = "1 clients follow the events of this frontend; try another one";
    check(market.served.address, get("/events"), 503, full).await;
    drop(client);
    market.asked(false).await;
    Client::open(&market, "/events", "").await.check("cluster", 0).await;
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_lives() {
    let limits = Limits { keep_alive: Duration::from_millis(1), ..Limits::default() };
    let market = market(limits, 0, 0).await;
    let mut client = Client::open(&market, "/events", "").await;
    client.check("cluster", 0).await;
    assert_eq!(client.block().await, ": nothing new\n\n");
}

#[tokio::test]
async fn a_change_of_the_cluster_is_told() {
    let mut market = market(Limits::default(), 0, 4).await;
    let mut client = Client::open(&market, "/events", "").await;
    client.check("cluster", 4).await;
    let [one, two] = [1, 2].map(|id| ReplicaId::new(id).unwrap());
    let configuration = Configuration {
        cluster: ClusterId(1),
        epoch: Epoch(9),
        nonce: Nonce(1),
        leader: Leader { id: two, boot: Boot(2) },
        in_sync: vec![Member { id: one, store: StoreId(1) }, Member { id: two, store: StoreId(2) }],
        members: vec![one, two],
        follows: Vec::new(),
        by: Node::Order(two, Boot(2)),
        why: String::new(),
        at: 0,
    };
    let (from, body) = (configuration.by, Message::Announce(Box::new(configuration)));
    let envelope = Envelope { cluster: Some(ClusterId(1)), epoch: Epoch(9), from, body };
    let packet = Packet::new(envelope, axum::body::Bytes::new());
    market.served.core.handle(Clock::new().now(), Input::Received { packet, reply: None });
    let expected = "event: cluster\nid: 4\ndata: {\"epoch\":9,\"leader\":null,\"in_sync\":[1,2]}\n\n";
    assert_eq!(client.block().await, expected);
}

#[tokio::test]
async fn a_stream_ends_in_good_order_when_the_frontend_leaves() {
    let hour = Duration::from_secs(3_600);
    // Whoever waits for an hour waits longer than the test.
    let market = market(Limits { drain: hour, keep_alive: hour, ..Limits::default() }, 0, 2).await;
    let mut stream = connect(market.served.address).await;
    stream.write_all(get("/events").as_bytes()).await.unwrap();
    let mut client = Client(BufReader::new(stream));
    assert!(client.block().await.contains("transfer-encoding: chunked"));
    client.check("cluster", 2).await;
    market.served.desk.leave();
    market.served.leave.send(()).unwrap();
    client.check("end", 2).await;
    let mut rest = String::new();
    client.0.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "\r\n0\r\n\r\n", "the end of the last chunk, and of all");
    drop(client);
    tokio::time::timeout(PATIENCE, market.served.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let hour = Duration::from_secs(3_600);
    let limits = Limits { drain: hour, write_stall: hour, leave_stall: Duration::from_millis(1), ..Limits::default() };
    let mut market = market(limits, 0, 0).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(market.served.address).await.unwrap();
    stream.write_all(get("/events").as_bytes()).await.unwrap();
    market.asked(true).await;
    // More than the kernel keeps for anybody.
    let level = Level(Price::from_cents(1).unwrap(), Quantity::new(1).unwrap());
    let symbol = Symbol::new("GameStart").unwrap();
    let book = Book { symbol, sequence: SeqNum(1), bids: vec![level; 20_000], asks: vec![] };
    let event = PublicEvent { seq: SeqNum(1), fact: Fact::BookChanged(book) };
    market.told.send_modify(|told| told.events = vec![event; 60]);
    market.asked(true).await;
    market.served.desk.leave();
    market.served.leave.send(()).unwrap();
    tokio::time::timeout(PATIENCE, market.served.server).await.unwrap().unwrap();
    drop(stream);
}
