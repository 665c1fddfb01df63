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

const STOCK: &str = "GameStart";

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
    pub(super) rate: Rate,
    pub(super) shape: Shape,
    /// What it is divided by, and what that is asked.
    pub(super) floor: Option<(Floor, Ask)>,
}

const STOCKS: Ask = Ask::Stock("/stocks");

fn count(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

/// All of them, those of one exchange next to each other.
pub(super) fn all() -> Vec<Case> {
    let usual = Shape { frontends: 1, replicas: 3, cache: 5 };
    let mut cases = Vec::new();
    let mut add = |name: String, ask, connections, rate, shape, floor| {
        cases.push(Case { name, ask, connections, rate, shape, floor });
    };
    let trade = |followers| Some((Floor::Staged { followers }, Ask::Trade));
    add("cached read, 16 clients".into(), STOCKS, 16, Rate::Closed, usual, Some((Floor::Web, STOCKS)));
    add("order read, 1 client".into(), Ask::Order, 1, Rate::Closed, usual, None);
    add("order read, 16 clients".into(), Ask::Order, 16, Rate::Closed, usual, None);
    for clients in [1, 16, 64, 256] {
        add(format!("trade, {}", count(clients)), Ask::Trade, clients, Rate::Closed, usual, trade(2));
    }
    for share in [0.5, 0.8] {
        let name = format!("trade, open loop at {:.0} % of 64 clients' rate", share * 100.0);
        add(name, Ask::Trade, 64, Rate::Share(share), usual, None);
    }
    add("mix with p = 0.2, 16 clients".into(), Ask::Mix, 16, Rate::Closed, usual, None);
    let uncached = Some((Floor::Staged { followers: 2 }, Ask::Stock("/uncached")));
    add("uncached read, 1 client".into(), STOCKS, 1, Rate::Closed, Shape { cache: 0, ..usual }, uncached);
    for clients in [1, 64] {
        let shape = Shape { frontends: 2, ..usual };
        add(format!("trade, 2 frontends, {}", count(clients)), Ask::Trade, clients, Rate::Closed, shape, trade(2));
    }
    for replicas in [1, 2] {
        // A floor without any follower would not tell its catalog anything.
        let floor = trade(replicas - 1).filter(|_| replicas > 1);
        for clients in [1, 64] {
            let name = format!("trade, {} in sync, {}", replicas, count(clients));
            add(name, Ask::Trade, clients, Rate::Closed, Shape { replicas, ..usual }, floor);
        }
    }
    cases
}
