//! The REST client of `examples/`, as somebody who reads it would run it, while the leader is killed.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use crate::harness::{Exchange, skipped};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/rest_client.py");
const BUYS: u64 = 40;
/// Bought before the leader is killed.
const BEFORE: usize = 5;

#[test]
fn the_example_buys_each_of_its_orders_once_over_a_killed_leader() {
    if Command::new("python3").arg("--version").output().is_err() {
        return skipped("there is no python3 for the example");
    }
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let before = exchange.stock(1, "GameStart");
    let mut client = Command::new("python3")
        .arg(CLIENT)
        .args([exchange.url(1), exchange.url(2)])
        .args(["--buys", &BUYS.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said: Vec<String> = lines.by_ref().take(BEFORE).collect();
    exchange.kill("order-3");
    said.extend(lines);
    let mut complaints = String::new();
    client.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    let said = said.join("\n");
    println!("{said}");
    assert!(client.wait().unwrap().success(), "{said}\n{complaints}");
    assert_eq!(said.matches("bought 1 GameStart once").count() as u64, BUYS, "{said}");
    exchange.until_led(2, &[1, 2]);
    assert_eq!(exchange.stock(2, "GameStart"), (before.0 - BUYS, before.1 + BUYS));
    exchange.restart("order-3");
    exchange.until_whole();
    exchange.stop_and_verify();
}
