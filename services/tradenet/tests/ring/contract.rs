//! The contract to the letter: what real processes answer, compared with a naive model of it.
//!
//! A seeded walk asks for everything that the contract knows, sensible and not, through two frontends in turn, over a killed
//! leader and a restart of everything. Each answer is compared whole: status, data, message, and headers. `RING_CONTRACT_SEED`
//! takes another walk, and `RING_CONTRACT_STEPS` a longer one.

mod model;

use std::collections::BTreeMap;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use self::model::{Ask, Asset, Expected, Model, New, Request, decimal};
use crate::harness::{Answer, Exchange, request};

const SEED: u64 = 1;
const STEPS: u64 = 3_000;
const STOCKS: [(&str, u64, u64); 3] = [("Alpha", 1_000, 20), ("beta-2", 2, 5), ("Zoo", 1_000_000, 0)];
/// Two that can't be: one that is not listed, one that no stock can be called.
const NAMES: [&str; 5] = ["Alpha", "beta-2", "Zoo", "Nope", "a b"];
const PEOPLE: [&str; 4] = ["ann", "bob", "cy_-9", "d"];

/// What is drawn from the seed.
struct Draw(Xoshiro256PlusPlus);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    fn one<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()].clone()
    }
    fn maybe<T>(&mut self, percent: u64, value: T) -> Option<T> {
        self.chance(percent).then_some(value)
    }

    /// Mostly what is listed.
    fn stock(&mut self) -> &'static str {
        if self.chance(4) { self.one(&NAMES) } else { self.one(&NAMES[..2]) }
    }

    fn request(&mut self, orders: u64) -> Request {
        let account = self.one(&PEOPLE).to_owned();
        let token_of = match self.below(40) {
            0 => None,
            1 => Some(self.one(&PEOPLE).to_owned()),
            _ => Some(account.clone()),
        };
        // Few keys, so that they are used again, also for something else.
        let key = match self.below(10) {
            0..2 => Some(format!("k{}", self.below(60))),
            _ => None,
        };
        Request { account, token_of, key, ask: self.ask(orders) }
    }

    fn ask(&mut self, orders: u64) -> Ask {
        let limit = self.one(&[1, 2, 3, 4, 5]);
        let limit = self.maybe(50, limit);
        let number = self.below(orders + 3);
        match self.below(100) {
            0..2 => Ask::Open { name: self.one(&PEOPLE).to_owned() },
            2..10 => Ask::Balance,
            10..15 => Ask::Deposit(self.asset()),
            15..19 => Ask::Withdraw(self.asset()),
            19..60 => Ask::Place(self.new_order()),
            60..66 => {
                let (before, status) = (self.maybe(40, number + 1), self.one(&["open", "filled", "cancelled"]));
                Ask::Orders { status: self.maybe(60, status), limit, before }
            }
            66..70 => Ask::Order(number),
            70..80 => Ask::Cancel(orders.saturating_sub(self.below(12))),
            80..86 => Ask::Book { name: self.stock(), depth: limit },
            86..90 => Ask::Trades { name: self.stock(), limit },
            90..92 => Ask::Stocks,
            92..94 => Ask::Stock(self.stock()),
            94..98 => Ask::HouseTrade { name: self.stock(), buy: self.chance(60), quantity: self.below(9) + 1 },
            _ => Ask::HouseOrder(number),
        }
    }

    fn asset(&mut self) -> Asset {
        if self.chance(50) {
            Asset::Cents(self.below(20_000) + 1)
        } else {
            Asset::Stock(self.stock(), self.below(15) + 1)
        }
    }

    fn new_order(&mut self) -> New {
        // A handful of prices, so that orders meet, and queue at one price.
        let cents = 1_000 + self.below(9);
        let (time_in_force, post_only) = (self.one(&["gtc", "ioc", "fok"]), self.chance(50));
        New {
            name: self.stock(),
            buy: self.chance(50),
            quantity: self.below(8) + 1,
            cents: self.maybe(85, cents),
            time_in_force: self.maybe(50, time_in_force),
            post_only: self.maybe(20, post_only),
        }
    }
}

/// The exchange, and what a client of it remembers.
struct Walk {
    exchange: Exchange,
    model: Model,
    tokens: BTreeMap<String, String>,
    sequences: BTreeMap<String, u64>,
    done: Vec<String>,
}

fn asset(asset: &Asset) -> Value {
    match asset {
        Asset::Cents(cents) => json!({"amount": decimal(*cents)}),
        Asset::Stock(name, quantity) => json!({"name": name, "quantity": quantity}),
    }
}

fn new_order(new: &New) -> Value {
    let side = if new.buy { "buy" } else { "sell" };
    let mut body = json!({"name": new.name, "side": side, "quantity": new.quantity});
    for (field, value) in [
        ("price", new.cents.map(decimal)),
        ("time_in_force", new.time_in_force.map(Value::from)),
        ("post_only", new.post_only.map(Value::from)),
    ] {
        if let Some(value) = value {
            body[field] = value;
        }
    }
    body
}

fn query(pairs: &[(&str, Option<String>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    let text = given.collect::<Vec<_>>().join("&");
    if text.is_empty() { text } else { format!("?{text}") }
}

/// Method, path and body.
fn call(account: &str, ask: &Ask) -> (&'static str, String, Option<Value>) {
    let own = |rest: &str| format!("/accounts/{account}{rest}");
    let text = |number: &Option<usize>| number.map(|number| number.to_string());
    let stock = |name: &str, rest: &str| format!("/stocks/{}{rest}", name.replace(' ', "%20"));
    match ask {
        Ask::Open { name } => ("POST", "/accounts".to_owned(), Some(json!({"account": name}))),
        Ask::Balance => ("GET", own(""), None),
        Ask::Deposit(what) => ("POST", own("/deposits"), Some(asset(what))),
        Ask::Withdraw(what) => ("POST", own("/withdrawals"), Some(asset(what))),
        Ask::Place(new) => ("POST", own("/orders"), Some(new_order(new))),
        Ask::Orders { status, limit, before } => {
            let (status, before) = (status.map(str::to_owned), before.map(|before| before.to_string()));
            let query = query(&[("status", status), ("limit", text(limit)), ("before", before)]);
            ("GET", own(&format!("/orders{query}")), None)
        }
        Ask::Order(number) => ("GET", own(&format!("/orders/{number}")), None),
        Ask::Cancel(number) => ("DELETE", own(&format!("/orders/{number}")), None),
        Ask::Book { name, depth } => ("GET", stock(name, &format!("/book{}", query(&[("depth", text(depth))]))), None),
        Ask::Trades { name, limit } => {
            ("GET", stock(name, &format!("/trades{}", query(&[("limit", text(limit))]))), None)
        }
        Ask::Stocks => ("GET", "/stocks".to_owned(), None),
        Ask::Stock(name) => ("GET", stock(name, ""), None),
        Ask::HouseTrade { name, buy, quantity } => {
            let side = if *buy { "buy" } else { "sell" };
            ("POST", "/orders".to_owned(), Some(json!({"name": name, "quantity": quantity, "type": side})))
        }
        Ask::HouseOrder(number) => ("GET", format!("/orders/{number}"), None),
    }
}

impl Walk {
    /// Asks the exchange and the model, and compares.
    fn step(&mut self, frontend: usize, asked: &Request) {
        let (method, path, body) = call(&asked.account, &asked.ask);
        let mut headers = match &asked.token_of {
            None => format!("Authorization: Bearer {}.{}\r\n", asked.account, "ab".repeat(32)),
            Some(owner) => match self.tokens.get(owner) {
                Some(token) => format!("Authorization: Bearer {token}\r\n"),
                None => String::new(),
            },
        };
        if let Some(key) = &asked.key {
            headers += &format!("Idempotency-Key: {key}\r\n");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let expected = self.model.answer(asked);
        let answer = request(&self.exchange.url(frontend), method, &path, &headers, &body).unwrap();
        self.done.push(format!("{method} {path} {headers:?} {body}\n    {} {}", answer.status, answer.body));
        let found = self.found(&answer);
        let open_words = expected.content.is_null() && found.status >= 400;
        let found = if open_words { Expected { content: Value::Null, ..found } } else { found };
        assert_eq!(found, expected, "the last steps:\n{}", self.done[self.done.len().saturating_sub(12)..].join("\n"));
        assert_money_has_two_decimals(&answer.text);
    }

    /// The answer without what nobody can know beforehand, which is looked at by itself.
    fn found(&mut self, answer: &Answer) -> Expected {
        let replayed = answer.header("idempotent-replayed") == Some("true");
        if answer.status >= 400 {
            assert_eq!(answer.body["error"]["code"], answer.status, "{answer:?}");
            assert!(!answer.message().is_empty(), "{answer:?}");
            return Expected { status: answer.status, content: json!(answer.message()), replayed };
        }
        let mut data = answer.body["data"].clone();
        if let Some(token) = data.as_object_mut().and_then(|opened| opened.remove("token")) {
            let owner = data["account"].as_str().unwrap().to_owned();
            self.tokens.insert(owner, token.as_str().unwrap().to_owned());
        }
        if let Some(sequence) = data.as_object_mut().and_then(|book| book.remove("sequence")) {
            let last = self.sequences.entry(data["name"].as_str().unwrap().to_owned()).or_default();
            let sequence = sequence.as_u64().unwrap();
            assert!(sequence >= *last, "the book went back: {answer:?}");
            *last = sequence;
        }
        for trade in data.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            if trade.contains_key("trade") {
                assert!(trade.remove("at").is_some_and(|at| at.is_u64()), "{answer:?}");
            }
        }
        Expected { status: answer.status, content: data, replayed }
    }
}

/// Every amount of money, wherever it stands.
fn assert_money_has_two_decimals(text: &str) {
    let after = |field: &'static str| text.match_indices(field).map(move |(at, _)| &text[at + field.len()..]);
    let amounts = ["\"price\":", "\"cash\":", "\"reserved_cash\":"].into_iter().flat_map(after);
    let levels = text.contains("\"bids\"").then(|| text.match_indices('[').map(|(at, _)| &text[at + 1..]));
    for rest in amounts.chain(levels.into_iter().flatten().filter(|rest| !rest.starts_with(['[', ']']))) {
        let number = &rest[..rest.find([',', '}']).unwrap_or(rest.len())];
        let decimals = number.split_once('.').map(|(_, decimals)| decimals.len());
        assert!(decimals == Some(2) || number == "null", "{number} in {text}");
    }
}

#[test]
fn every_answer_is_the_contracts() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("RING_CONTRACT_SEED").unwrap_or(SEED);
    let steps = number("RING_CONTRACT_STEPS").unwrap_or(STEPS);
    println!("RING_CONTRACT_SEED={seed} RING_CONTRACT_STEPS={steps}");
    let stocks = tempfile::NamedTempFile::new().unwrap();
    let lines = STOCKS.map(|(name, cents, quantity)| format!("{name},{}.{:02},{quantity}\n", cents / 100, cents % 100));
    std::fs::write(stocks.path(), format!("name,price,quantity\n{}", lines.concat())).unwrap();
    let exchange = Exchange::start(&["--frontends", "2", "--stocks", stocks.path().to_str().unwrap()]);
    exchange.until_whole();
    let mut walk = Walk {
        exchange,
        model: Model::new(&STOCKS),
        tokens: BTreeMap::new(),
        sequences: BTreeMap::new(),
        done: Vec::new(),
    };
    let mut draw = Draw(Xoshiro256PlusPlus::seed_from_u64(seed));
    for step in 0..steps {
        if step == steps / 3 {
            walk.exchange.kill("order-3");
        }
        if step == steps / 3 * 2 {
            walk.exchange.stop_all();
            walk.exchange.start_again();
            walk.exchange.until_whole();
        }
        let request = draw.request(walk.model.orders());
        walk.step(usize::try_from(step % 2).unwrap() + 1, &request);
    }
    walk.exchange.stop_and_verify();
}
