//! The commands for people: what they print, with which code they end, and that nobody's leaving makes them fall over.

use std::fs::File;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{Exchange, order, tradenet, until};

/// Runs the program and compares its code, and that all of `parts` stand in what it says.
#[track_caller]
fn check(command: &mut Command, code: i32, parts: &[&str]) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{command:?}: {out}{err}");
    let said = if code == 0 { &out } else { &err };
    for part in parts {
        assert!(said.contains(part), "{command:?}: {part:?} is not in {said:?}");
    }
    if code == 1 || code == 3 {
        assert_eq!(err.lines().count(), 1, "{command:?}: one line says what to do, not {err:?}");
    }
    assert!(!out.contains('\x1b') || format!("{command:?}").contains("always"), "colours in a pipe: {out:?}");
    out
}

fn cli(exchange: &Exchange, arguments: &[&str]) -> Command {
    let mut command = tradenet();
    command.args(arguments).env("TRADENET_DATA_DIR", exchange.data());
    command
}

#[test]
fn people_trade_and_look_things_up() {
    let exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let done = |arguments: &[&str], expected: &str| {
        assert_eq!(check(&mut cli(&exchange, arguments), 0, &[]), expected, "{arguments:?}");
    };
    let refused = |arguments: &[&str], code: i32, part: &str| {
        check(&mut cli(&exchange, arguments), code, &[part]);
    };
    done(&["buy", "GameStart", "2"], "order 1: bought 2 GameStart at 15.99, 31.98 in all\n");
    done(&["sell", "GameStart", "1", "--key", "k"], "order 2: sold 1 GameStart at 15.99, 15.99 in all\n");
    let again = "order 2: sold 1 GameStart at 15.99, 15.99 in all (this key had done it before)\n";
    done(&["sell", "GameStart", "1", "--key", "k"], again);
    // The frontend that is gone is passed over.
    let urls = format!("http://127.0.0.1:1,{}", exchange.url(2));
    done(&["buy", "GameStart", "1", "--url", &urls], "order 3: bought 1 GameStart at 15.99, 15.99 in all\n");
    done(&["order", "1", "--url", &urls], "order  side  quantity  name\n    1  buy          2  GameStart\n");
    done(&["order", "2", "--json"], "{\"order_num\":2,\"name\":\"GameStart\",\"type\":\"sell\",\"quantity\":1}\n");
    done(&["book", "GameStart"], "nobody bids or asks for GameStart\n");
    done(&["trades", "GameStart"], "accounts have not traded GameStart yet\n");
    let stocks = check(&mut cli(&exchange, &["stocks"]), 0, &[]);
    let rows: Vec<Vec<&str>> = stocks.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["name", "price", "quantity", "volume"], "{stocks}");
    assert!(rows.contains(&vec!["GameStart", "15.99", "98", "4"]), "{stocks}");
    assert!(stocks.lines().all(|line| line.len() == stocks.lines().next().unwrap().len()), "{stocks}");
    let bought = check(&mut cli(&exchange, &["buy", "GameStart", "1", "--json", "--key", "j"]), 0, &[]);
    let bought: Value = serde_json::from_str(&bought).unwrap();
    assert_eq!((&bought["transaction_number"], &bought["key"]), (&4.into(), &"j".into()), "{bought}");
    assert_eq!((&bought["price"], &bought["replayed"]), (&15.99.into(), &false.into()), "{bought}");

    refused(&["sell", "GameStart", "2", "--key", "k"], 1, "leave --key out for another trade");
    refused(&["buy", "GameStart", "100000"], 1, "not enough stocks left to buy");
    refused(&["buy", "Nothing", "1"], 1, "stock not found: Nothing; `tradenet stocks` lists them");
    refused(&["order", "99"], 1, "order 99: transaction number not found");
    refused(&["stocks", "--url", "http://127.0.0.1:1"], 1, "no frontend answers at http://127.0.0.1:1");
    refused(&["buy", "GameStart", "1", "--url", "http://127.0.0.1:1"], 1, "nothing was done: no frontend answers");
    refused(&["status", "--nats-url", "nats://127.0.0.1:1"], 1, "no broker answers at nats://127.0.0.1:1");
    refused(&["log", "--data-dir", "/nowhere"], 1, "/nowhere can't be read; name the directory of a replica");
    refused(&["log", "--replica", "9"], 1, "holds no order-9");
    refused(&["verify", "/nowhere"], 1, "/nowhere can't be read");
    for (arguments, part) in [
        (&["buy", "GameStart", "0"][..], "0 is not in 1..="),
        (&["buy", "GameStart"], "<QUANTITY>"),
        (&["buy", "a/b", "1"], "a stock's name has 1 to 32"),
        (&["buy", "GameStart", "1", "--key", "a b"], "a key has 1 to 255"),
        (&["order"], "--id <N>"),
        (&["order", "4", "--id", "3"], "give one of them"),
        (&["stocks", "--url", "https://127.0.0.1"], "plain HTTP"),
        (&["status", "--color", "sometimes"], "possible values"),
        (&["export", "everything"], "possible values"),
        (&["log", "--from", "1000000"], "is beyond the end"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&[], "Usage: tradenet"),
    ] {
        refused(arguments, 2, part);
    }
    check(&mut cli(&exchange, &["stocks", "--color", "always"]), 0, &["\x1b[1mname\x1b[0m"]);
    for shell in ["bash", "zsh", "fish"] {
        check(&mut cli(&exchange, &["completions", shell]), 0, &["healthcheck", "follow"]);
    }
    exchange.stop_and_verify();
}

#[test]
fn what_is_exported_adds_up_to_what_the_exchange_says() {
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    exchange.load(&[1], 2).verified();
    exchange.until_cluster("all is committed everywhere", |cluster| {
        let tail = cluster.replicas[0].tail;
        cluster.replicas.iter().all(|replica| (replica.tail, replica.committed) == (tail, tail))
    });
    let export = |what: &str| -> Vec<Vec<String>> {
        let text = check(&mut cli(&exchange, &["export", what, "--csv"]), 0, &["\r\n"]);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(reader.headers().unwrap().get(0), Some("seq"));
        reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
    };
    let (trades, orders) = (export("trades"), export("orders"));
    assert!(trades.len() > 100, "{} trades", trades.len());
    // Only the house trades here: an order each, numbered without a gap.
    let numbers: Vec<_> = trades.iter().map(|trade| trade[4].parse::<usize>().unwrap()).collect();
    assert_eq!(numbers, (1..=trades.len()).collect::<Vec<_>>());
    assert_eq!(numbers.len(), orders.len());
    for stock in exchange.get(1, "/stocks").body["data"].as_array().unwrap() {
        let sum = |side: &str| -> i64 {
            let own = trades.iter().filter(|trade| trade[6] == stock["name"] && trade[7] == side);
            own.map(|trade| trade[8].parse::<i64>().unwrap()).sum()
        };
        let (bought, sold) = (sum("buy"), sum("sell"));
        assert_eq!(stock["volume"], bought + sold, "{stock}");
        assert_eq!(stock["quantity"], 100 - bought + sold, "{stock}");
    }
    let log = check(&mut cli(&exchange, &["log"]), 0, &["order-3 leads", "listed: 100 GameStart at 15.99"]);
    assert_eq!(log.lines().filter(|line| line.contains(" the house at ")).count(), trades.len());
    let last = check(&mut cli(&exchange, &["log", "--json", "--from", &trades.last().unwrap()[0]]), 0, &[]);
    let last: Value = serde_json::from_str(last.lines().next().unwrap()).unwrap();
    assert_eq!(last["events"][0]["traded"]["order"], trades.len());

    // Whoever stops reading is no accident; a disk that is full is one.
    for arguments in [&["log"][..], &["export"], &["stocks"], &["completions", "bash"]] {
        let mut child = cli(&exchange, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}: {output:?}");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = cli(&exchange, arguments);
        check(command.stdout(full), 1, &["standard output can't be written"]);
    }
    exchange.stop_and_verify();
}

/// A command that goes on, and what it has said so far.
struct Following {
    child: std::process::Child,
    file: std::path::PathBuf,
}

impl Following {
    fn start(exchange: &Exchange, arguments: &[&str]) -> Self {
        let file = exchange.data().join(arguments.join(""));
        let child = cli(exchange, arguments).stdout(File::create(&file).unwrap()).spawn().unwrap();
        Self { child, file }
    }

    #[track_caller]
    fn until(&self, part: &str) -> String {
        let said = || std::fs::read_to_string(&self.file).unwrap();
        until(&format!("{part:?} in what it says"), || said().contains(part));
        said()
    }

    /// Ctrl-C.
    #[track_caller]
    fn interrupt(mut self) {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn whoever_watches_sees_changes_and_whoever_asks_nobody_is_told_so() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let watch = Following::start(&exchange, &["status", "--watch"]);
    let json = Following::start(&exchange, &["status", "--watch", "--json"]);
    let log = Following::start(&exchange, &["log", "--follow", "--replica", "1"]);
    watch.until("leader order-3   in sync [1, 2, 3]");
    log.until("order-3 leads");
    exchange.post(1, &order("GameStart", 3, "buy"));
    log.until("order 1: buy 3 GameStart from the house at 15.99");
    exchange.kill("order-3");
    let said = watch.until("leader order-2   in sync [1, 2]");
    assert!(said.lines().filter(|line| line.contains("leader order-3")).count() < 5, "only changes: {said}");
    log.until("order-2 leads");
    json.until("\"leader\":2");
    let view = json.until("\n");
    view.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
    log.interrupt();
    json.interrupt();
    for name in ["order-1", "order-2"] {
        exchange.kill(name);
    }
    exchange.until_cluster("nobody leads", |cluster| {
        cluster.leader.is_none() && cluster.replicas.iter().all(|replica| !replica.alive)
    });
    watch.until("leader none");
    check(&mut cli(&exchange, &["status"]), 3, &["start"]);
    check(&mut cli(&exchange, &["buy", "GameStart", "1"]), 3, &["nothing was done: "]);
    check(&mut cli(&exchange, &["order", "1"]), 3, &["order-"]);
    exchange.kill("nats");
    watch.until("no broker answers at");
    check(&mut cli(&exchange, &["status"]), 1, &["no broker answers at"]);
    watch.interrupt();
}
