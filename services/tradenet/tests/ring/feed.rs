//! Following the market on the broker: the example `feed` beside a real exchange.

use std::io::{self, BufRead as _, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::{Exchange, example, request, until};

/// Stands before the broker, and can cut off who comes through it.
struct Gate {
    url: String,
    /// Both ends of each connection; none while it is shut.
    through: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Gate {
    fn before(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let (through, broker) =
            (Arc::new(Mutex::new(Some(Vec::new()))), broker.trim_start_matches("nats://").to_owned());
        let open = Arc::clone(&through);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let mut open = open.lock().unwrap();
                let Some(open) = open.as_mut() else { continue };
                let Ok(broker) = TcpStream::connect(&broker) else { return };
                for (from, to) in [(&client, &broker), (&broker, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // However it ends, the other side is to see it.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                open.extend([client, broker]);
            }
        });
        Self { url, through }
    }

    fn shut(&self) {
        for stream in self.through.lock().unwrap().take().into_iter().flatten() {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn open(&self) {
        *self.through.lock().unwrap() = Some(Vec::new());
    }
}

/// The running example and what it has printed.
struct Follower {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Follower {
    #[track_caller]
    fn start(exchange: &Exchange, nats_url: &str) -> Self {
        let mut command = Command::new(example("feed"));
        command.env("NATS_URL", nats_url).env_remove("NATS_USER").env_remove("NATS_CA");
        command.env("TRADENET_URL", format!("{},{}", exchange.url(1), exchange.url(2))).env_remove("TRADENET_PREFIX");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (output, lines) = (child.stdout.take().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let into = Arc::clone(&lines);
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| into.lock().unwrap().push(line));
        });
        let follower = Self { child, lines };
        until("the example hears the leader", || follower.lines().iter().any(|line| line.starts_with("told by")));
        follower
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The numbers of the trades that it has printed, in its order.
    fn trades(&self) -> Vec<u64> {
        let lines = self.lines();
        let numbers = lines.iter().filter_map(|line| line.strip_prefix("trade ")?.split(' ').next()?.parse().ok());
        numbers.collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the example printed {:#?}", self.lines());
        }
    }
}

/// An account that trades with itself not at all, and with another one at each call.
struct Pair {
    tokens: [String; 2],
    traded: u64,
}

impl Pair {
    fn open(exchange: &Exchange) -> Self {
        let url = exchange.url(1);
        let tokens = ["ann", "bob"].map(|name| {
            let opened = request(&url, "POST", "/accounts", "", &json!({"account": name}).to_string()).unwrap();
            let token = opened.body["data"]["token"].as_str().unwrap().to_owned();
            let headers = format!("Authorization: Bearer {token}\r\n");
            for asset in [json!({"amount": 100_000}), json!({"name": "GameStart", "quantity": 1_000})] {
                let deposited =
                    request(&url, "POST", &format!("/accounts/{name}/deposits"), &headers, &asset.to_string());
                assert_eq!(deposited.unwrap().status, 200);
            }
            token
        });
        Self { tokens, traded: 0 }
    }

    /// One sells to the other, again and again until it is done, whoever leads.
    #[track_caller]
    fn trade(&mut self, exchange: &Exchange, times: u64) {
        for _ in 0..times {
            self.traded += 1;
            for (name, token, side) in [("ann", &self.tokens[0], "sell"), ("bob", &self.tokens[1], "buy")] {
                let order = json!({"name": "GameStart", "side": side, "quantity": 1, "price": 12.34}).to_string();
                let headers = format!("Authorization: Bearer {token}\r\nIdempotency-Key: {}\r\n", self.traded);
                let path = format!("/accounts/{name}/orders");
                until("an order is answered", || {
                    request(&exchange.url(1), "POST", &path, &headers, &order).is_ok_and(|answer| answer.status == 200)
                });
            }
        }
    }
}

#[test]
fn the_example_prints_every_trade_once_through_a_killed_leader_and_a_broken_connection() {
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let gate = Gate::before(&exchange.nats_url());
    let follower = Follower::start(&exchange, &gate.url);
    let mut pair = Pair::open(&exchange);
    pair.trade(&exchange, 5);
    until("the trades are told", || follower.trades().len() == 5);
    exchange.kill("order-3");
    pair.trade(&exchange, 5);
    until("the next leader tells", || follower.trades().len() == 10);
    exchange.restart("order-3");
    // What is published meanwhile is gone.
    gate.shut();
    pair.trade(&exchange, 5);
    gate.open();
    until("the gap is filled", || follower.trades().len() == 15);
    pair.trade(&exchange, 5);
    until("it goes on", || follower.trades().len() == 20);
    assert_eq!(follower.trades(), (1..=20).collect::<Vec<_>>());
    let lines = follower.lines();
    for wanted in [
        "told by Order(order-3",
        "told by Order(order-2",
        "gap: events",
        "filled in",
        "trade 1 of GameStart: 1 at 12.34",
    ] {
        assert!(lines.iter().any(|line| line.contains(wanted)), "no line with {wanted:?}: {lines:#?}");
    }
    println!("{lines:#?}");
    drop(follower);
    exchange.until_whole();
    exchange.stop_and_verify();
}
