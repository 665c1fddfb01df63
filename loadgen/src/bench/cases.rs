//! What is measured, in which exchange, and against which floor.

use super::system::{Floor, Shape};

/// What a client asks for, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// One stock at that path.
    Stock(&'static str),
    /// An order; every turn another one.
    Order,
    /// A trade with the house, buying and selling in turn so that no stock runs out.
    Trade,
    /// A stock; every fifth time a trade after it.
    Mix,
}

/// What is traded.
pub(super) const STOCK: &str = "GameStart";

impl Ask {
    /// The requests of one turn.
    pub(super) fn requests(self, turn: usize) -> Vec<String> {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        let trade = || {
            let side = if turn.is_multiple_of(2) { "buy" } else { "sell" };
            let body = format!(r#"{{"name":"{STOCK}","type":"{side}","quantity":1}}"#);
            let length = body.len();
            format!(
                "POST /orders HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        };
        match self {
            Self::Stock(path) => vec![get(&format!("{path}/{STOCK}"))],
            Self::Order => vec![get(&format!("/orders/{}", 1 + turn))],
            Self::Trade => vec![trade()],
            Self::Mix if turn % 5 == 4 => vec![get(&format!("/stocks/{STOCK}")), trade()],
            Self::Mix => vec![get(&format!("/stocks/{STOCK}"))],
        }
    }
}

/// How a load is paced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rate {
    /// A closed loop.
    Closed,
    /// An open one, at this share of what the closed loop of as many connections has reached.
    Share(f64),
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) ask: Ask,
    pub(super) connections: usize,
    /// Connections besides, on which nothing is asked.
    pub(super) idle: usize,
    pub(super) rate: Rate,
    pub(super) shape: Shape,
    /// What it is divided by, and what that is asked.
    pub(super) floor: Option<(Floor, Ask)>,
}

const STOCKS: Ask = Ask::Stock("/stocks");

fn count(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

/// The usual exchange.
const USUAL: Shape = Shape { frontends: 1, replicas: 3, cache: 5, more_stocks: 0 };
/// The trade path in this design.
const STAGED: Floor = Floor::Staged { followers: 2, frontends: 1 };

impl Case {
    fn of(name: impl Into<String>, ask: Ask, connections: usize, shape: Shape) -> Self {
        Self { name: name.into(), ask, connections, idle: 0, rate: Rate::Closed, shape, floor: None }
    }

    fn against(self, floor: Floor, ask: Ask) -> Self {
        Self { floor: Some((floor, ask)), ..self }
    }
}

/// All of them, those of one exchange next to each other.
pub(super) fn all() -> Vec<Case> {
    let mut cases = vec![
        Case::of("cached read, 16 clients", STOCKS, 16, USUAL).against(Floor::Web, STOCKS),
        Case { idle: 1_000, ..Case::of("cached read, 16 clients beside 1,000 idle ones", STOCKS, 16, USUAL) }
            .against(Floor::Web, STOCKS),
        Case::of("order read, 1 client", Ask::Order, 1, USUAL),
        Case::of("order read, 16 clients", Ask::Order, 16, USUAL),
    ];
    let trade = |clients, shape| Case::of(format!("trade, {}", count(clients)), Ask::Trade, clients, shape);
    let against = |case: Case, floor| case.against(floor, Ask::Trade);
    cases.extend([1, 16, 64, 256].map(|clients| against(trade(clients, USUAL), STAGED)));
    for share in [0.5, 0.8] {
        let name = format!("trade, open loop at {:.0} % of 64 clients' rate", share * 100.0);
        let open = Case { rate: Rate::Share(share), ..Case::of(name, Ask::Trade, 64, USUAL) };
        cases.push(against(open, STAGED));
    }
    for (clients, replicas, batches) in [(1, 3, true), (64, 3, true), (64, 1, false)] {
        let log = if batches { "batches" } else { "a message an order" };
        let name = format!("trade, {}, against JetStream R{replicas} as the log, {log}", count(clients));
        cases.push(against(Case { name, ..trade(clients, USUAL) }, Floor::JetStream { replicas, batches }));
    }
    cases.push(Case::of("mix with p = 0.2, 16 clients", Ask::Mix, 16, USUAL));
    let uncached = Case::of("uncached read, 1 client", STOCKS, 1, Shape { cache: 0, ..USUAL });
    cases.push(uncached.against(STAGED, Ask::Stock("/uncached")));
    for clients in [1, 64] {
        let name = format!("trade, 2 frontends, {}", count(clients));
        let floor = Floor::Staged { followers: 2, frontends: 2 };
        cases.push(against(Case { name, ..trade(clients, Shape { frontends: 2, ..USUAL }) }, floor));
    }
    for clients in [1, 64] {
        let name = format!("trade, 10 frontends and 1,000 stocks, {}", count(clients));
        let shape = Shape { frontends: 10, more_stocks: 1_000, ..USUAL };
        cases.push(against(Case { name, ..trade(clients, shape) }, Floor::Staged { followers: 2, frontends: 10 }));
    }
    for replicas in [1, 2] {
        for clients in [1, 64] {
            let name = format!("trade, {replicas} in sync, {}", count(clients));
            let floor = Floor::Staged { followers: replicas - 1, frontends: 1 };
            cases.push(against(Case { name, ..trade(clients, Shape { replicas, ..USUAL }) }, floor));
        }
    }
    cases
}
