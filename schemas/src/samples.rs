//! One message of each kind, as an exchange sends it: the examples in the schemas, by which the documents also know on which
//! topic a message travels.
//!
//! Only in builds with the feature `json-schema`.

use crate::account::{Book, Candle, Level, Trade};
use crate::feed::{Fact, PublicEvent};
use crate::ids::{
    Boot, Chain, ClusterId, Epoch, EventNumber, Leader, Member, Node, Nonce, OrderNumber, Position, Question,
    ReplicaId, SeqNum, StoreId, TradeNumber,
};
use crate::message::{Answer, Configuration, Envelope, Message, Query, RecordId, Role, Status, Submission, Verdict};
use crate::trade::{Command, CommandKey, IdempotencyKey, Outcome, Price, Quantity, Side, Stock, Symbol};

/// In milliseconds since 1970.
const AT: u64 = 1_795_284_102_795;

/// Messages that answer a request of that name. All others are answered by nobody.
pub(crate) fn answers(request: &str) -> &'static [&'static str] {
    match request {
        "Heartbeat" => &["Status"],
        "PreVote" => &["Vote"],
        "Propose" => &["Proposed"],
        "Submit" => &["Outcomes", "NotLeader", "Overloaded", "Unavailable"],
        "Read" => &["Answer", "NotLeader", "Overloaded", "Unavailable"],
        "Fetch" => &["Chunk"],
        "FetchSnapshot" => &["SnapshotPart"],
        "Authority" => &["Grant", "Snapshot", "NotLeader"],
        "List" => &["Listed", "NotLeader"],
        "Renew" => &["Lease", "NotLeader"],
        "Lookup" => &["Found", "NotLeader"],
        _ => &[],
    }
}

fn replica(id: u8) -> ReplicaId {
    ReplicaId::new(id).expect("an id of a replica")
}

fn leader() -> Leader {
    Leader { id: replica(3), boot: Boot(0x3a11) }
}

fn configuration() -> Configuration {
    let member = |id| Member { id: replica(id), store: StoreId(0x5701 + u64::from(id)) };
    Configuration {
        cluster: ClusterId(0xc1),
        epoch: Epoch(7),
        nonce: Nonce(0x42),
        leader: leader(),
        in_sync: vec![member(1), member(2), member(3)],
        members: vec![replica(1), replica(2), replica(3)],
        follows: vec![RecordId { epoch: Epoch(6), nonce: Nonce(0x41) }],
        by: Node::Order(replica(3), Boot(0x3a11)),
        why: "order-2 has caught up".to_owned(),
        at: AT,
    }
}

fn position(seq: u64) -> Position {
    Position { epoch: Epoch(7), seq: SeqNum(seq), chain: Chain(0x44c1_7902_1f97_d442) }
}

fn status() -> Box<Status> {
    Box::new(Status {
        id: replica(3),
        boot: Boot(0x3a11),
        store: StoreId(0x5704),
        role: Role::Leader,
        configuration: Some(configuration()),
        tail: position(42),
        durable: SeqNum(42),
        committed: SeqNum(42),
        applied: SeqNum(42),
        released: SeqNum(42),
        catalog: Some(Boot(0xca7a)),
        leaving: false,
        contested: false,
        answers: Some(Question(0x9e)),
        written_by: None,
        unlisted: false,
        trouble: None,
    })
}

fn symbol() -> Symbol {
    Symbol::new("GameStart").expect("a symbol")
}

fn quantity(count: u64) -> Quantity {
    Quantity::new(count).expect("a quantity")
}

fn price(cents: u64) -> Price {
    Price::from_cents(cents).expect("a price")
}

fn stock() -> Stock {
    Stock { symbol: symbol(), price: price(1599), quantity: quantity(99), volume: quantity(1) }
}

/// The messages, each from who sends it.
pub fn messages() -> Vec<Envelope> {
    let order = Node::Order(replica(3), Boot(0x3a11));
    let follower = Node::Order(replica(1), Boot(0x1a11));
    let (catalog, frontend) = (Node::Catalog(Boot(0xca7a)), Node::Frontend(Boot(0xf0f0)));
    let trade = Command::Trade { symbol: symbol(), side: Side::Buy, quantity: quantity(1) };
    let key = CommandKey::of_client(&IdempotencyKey::new("a5-7").expect("a key"));
    let submission = Submission { request: 11, key, command: trade, known: SeqNum(41), again: true };
    let accepted = Outcome::Accepted { order: OrderNumber(5), replayed: false };
    let traded = Trade { number: TradeNumber(1), price: price(1450), quantity: quantity(3), side: Side::Buy, at: AT };
    let book =
        Book { symbol: symbol(), sequence: SeqNum(42), bids: vec![], asks: vec![Level(price(1450), quantity(2))] };
    let facts = [Fact::Traded(symbol(), traded), Fact::BookChanged(book), Fact::StockChanged(stock())];
    let events = facts.map(|fact| PublicEvent { seq: SeqNum(42), fact }).to_vec();
    let candle = Candle {
        at: AT,
        open: price(1450),
        high: price(1500),
        low: price(1450),
        close: price(1475),
        quantity: quantity(9),
        trades: 4,
    };
    let all = [
        (frontend, Message::Heartbeat { question: None }),
        (order, Message::Status(status())),
        (frontend, Message::PreVote { suspect: leader() }),
        (order, Message::Vote { willing: true, status: status() }),
        (order, Message::Announce(Box::new(configuration()))),
        (frontend, Message::Propose { configuration: Box::new(configuration()), expected: Some(6) }),
        (order, Message::Proposed { nonce: Nonce(0x42), verdict: Verdict::Written }),
        (frontend, Message::Submit(vec![submission])),
        (order, Message::Outcomes { seq: SeqNum(42), outcomes: vec![(11, accepted)], before: vec![] }),
        (frontend, Message::Read { request: 12, query: Query::Book(symbol(), 10) }),
        (order, Message::Answer { request: 12, seq: SeqNum(42), answer: Answer::Candles(Some(vec![candle])) }),
        (
            follower,
            Message::NotLeader {
                requests: vec![11],
                configuration: Some(Box::new(configuration())),
                catalog: Some(Boot(0xca7a)),
            },
        ),
        (order, Message::Overloaded { requests: vec![11] }),
        (order, Message::Unavailable { requests: vec![11], why: "the leader's disk is full".to_owned() }),
        (
            order,
            Message::Append {
                leader: leader(),
                configuration: None,
                prev: position(41),
                committed: SeqNum(41),
                round: 977,
            },
        ),
        (order, Message::Commit { leader: leader(), at: position(42), committed: SeqNum(42) }),
        (order, Message::Events { after: EventNumber(100), events }),
        (follower, Message::Ack { store: StoreId(0x5702), durable: SeqNum(42), round: 977, leaving: false }),
        (order, Message::Fenced(Box::new(configuration()))),
        (follower, Message::Fetch { from: position(40), bytes_max: Some(65_536) }),
        (order, Message::Chunk { asked: position(40), prev: position(40), tail: SeqNum(42), committed: SeqNum(42) }),
        (follower, Message::FetchSnapshot { of: Some(position(40)), offset: 524_288, bytes_max: 524_288 }),
        (order, Message::SnapshotPart { of: Some(position(40)), size_bytes: 6_500_000, offset: 524_288 }),
        (catalog, Message::Authority { request: 3, following: true, staged: SeqNum(42) }),
        (order, Message::Grant { request: 3, valid_ms: 1_000, released: SeqNum(42) }),
        (order, Message::Snapshot { leader: leader(), at: position(42), stocks: vec![stock()] }),
        (catalog, Message::Staged { seq: SeqNum(42) }),
        (catalog, Message::List { stocks: vec![stock()] }),
        (order, Message::Listed {}),
        (catalog, Message::Relinquish {}),
        (frontend, Message::Renew { request: 13, session: 2, confirmed: 8 }),
        (catalog, Message::Lease { request: 13, session: 2, valid_ms: 500, invalidation: 8, committed: SeqNum(42) }),
        (catalog, Message::Invalidate { session: 2, number: 9, symbols: vec![symbol()] }),
        (frontend, Message::Confirm { session: 2, number: 9 }),
        (frontend, Message::Lookup { request: 14, session: 2, symbol: Some(symbol()) }),
        (
            catalog,
            Message::Found {
                request: 14,
                session: 2,
                invalidation: 9,
                cacheable: true,
                version: SeqNum(42),
                stocks: vec![stock()],
            },
        ),
    ];
    let (cluster, epoch) = (Some(ClusterId(0xc1)), Epoch(7));
    all.map(|(from, body)| Envelope { cluster, epoch, from, body }).to_vec()
}
