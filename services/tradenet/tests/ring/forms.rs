//! Entries that a newer release has written: an old replica stops and says so, nothing is cut, and the others go on.

use std::io::Write as _;

use serde_json::Value;
use tradenet_core::journal;
use tradenet_runtime::process::Signal;
use tradenet_schemas::ids::{Chain, Position};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::documents::record;
use crate::harness::{Exchange, gone, order, tradenet, until};
use crate::proxy::{Fate, Proxy};

const REPLICATE: &str = "tradenet.order.replicate.all";
/// How the first entry of an epoch begins.
const EPOCH_START: &[u8] = b"\"epoch_start\"";
const SAYS: &str =
    "can't be followed: a newer release of Trade-Net wrote this entry: run that one, or a newer one, here";

/// Where a journal ends.
fn end_of(journal: &[u8]) -> Position {
    let mut scan = journal::scan(journal, Position::default());
    assert!(scan.by_ref().all(|line| line.is_ok()));
    scan.position()
}

/// The line of an entry that this release does not know, behind that position.
fn newer_line(Position { epoch, seq, chain }: Position) -> Vec<u8> {
    let json = format!("{{\"seq\":{},\"epoch\":{epoch},\"at\":1,\"events\":[{{\"split\":{{\"by\":2}}}}]}}", seq.next());
    let chain = Chain(xxh3_64_with_seed(json.as_bytes(), chain.0));
    format!("{{\"chain\":\"{chain}\",{}\n", &json[1..]).into_bytes()
}

/// Says something on the broker, as anybody can where there are no users.
fn publish(url: &str, subject: &'static str, bytes: Vec<u8>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        client.publish(subject, bytes.into()).await.unwrap();
        client.flush().await.unwrap();
    });
}

#[test]
fn whoever_follows_a_leader_of_a_newer_release_stops_at_its_first_new_entry_and_says_what_to_do() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).status, 200);
    let before = exchange.until_quiet();
    // What the leader says all the time, with an entry that only a newer one could have written.
    let recorded = record(&exchange.nats_url());
    let mut said = None;
    until("the leader says something", || {
        let is_append = |(subject, _): &&(String, Vec<u8>)| subject == REPLICATE;
        said = recorded.lock().unwrap().iter().find(is_append).map(|(_, bytes)| bytes.clone());
        said.is_some()
    });
    let mut message: Value = serde_json::from_slice(&said.unwrap()).unwrap();
    let end = end_of(&before);
    message["body"]["append"]["prev"] = serde_json::to_value(end).unwrap();
    publish(&exchange.nats_url(), REPLICATE, [message.to_string().as_bytes(), b"\n", &newer_line(end)].concat());

    let old = ["order-1", "order-2", "catalog-1"];
    for name in old {
        until(&format!("the end of {name}"), || gone(exchange.pid(name)));
    }
    until("each of them says so", || exchange.log().lines().filter(|line| line.contains(SAYS)).count() == old.len());
    for id in [1, 2] {
        assert_eq!(std::fs::read(exchange.journal(id)).unwrap(), before, "nothing of it is on the disk of order-{id}");
    }
    for name in old {
        exchange.restart(name);
    }
    exchange.until_whole();
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).status, 200);
    exchange.stop_and_verify();
}

/// What the leader says of an entry, had a newer release written that entry; none of what holds no entry.
fn in_a_newer_form(subject: &str, said: &[u8]) -> Option<Vec<u8>> {
    let head = said.iter().position(|&byte| byte == b'\n')? + 1;
    // That an epoch starts is said as ever: a replica that comes back is told so first.
    let starts = said[head..].windows(EPOCH_START.len()).any(|part| part == EPOCH_START);
    if subject != REPLICATE || said.len() == head || starts {
        return None;
    }
    let message: Value = serde_json::from_slice(&said[..head]).unwrap();
    let before = serde_json::from_value(message["body"]["append"]["prev"].clone()).unwrap();
    Some([&said[..head], &newer_line(before)].concat())
}

#[test]
fn the_only_old_replica_stops_at_the_first_new_entry_of_a_running_leader_and_the_others_trade_on() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    // Each of the leader's next entries is a newer release's to order-1, and one that they know to all others.
    let proxy = Proxy::start(&exchange.nats_url(), |subject, said| {
        in_a_newer_form(subject, said).map_or(Fate::AsItIs, Fate::Instead)
    });
    exchange.end("order-1", Signal::Terminate);
    exchange.restart_with("order-1", &[("--nats-url", &proxy.url())]);
    exchange.until_whole();
    let (before, others) = (exchange.until_quiet(), ["order-2", "order-3", "catalog-1", "frontend-1"]);
    assert_eq!((proxy.changed(), std::fs::read(exchange.journal(1)).unwrap()), (0, before.clone()));
    let pids = others.map(|name| exchange.pid(name));

    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).status, 200);
    assert_eq!(exchange.await_end("order-1"), Some(1));
    let log = exchange.log();
    let [line] = &log.lines().filter(|line| line.contains(SAYS)).collect::<Vec<_>>()[..] else { panic!("{log}") };
    assert!(line.contains(&format!("entry {} can't", end_of(&before).seq.next())) && line.contains("split"), "{line}");
    assert_eq!(proxy.changed(), 1, "one was enough");
    assert_eq!(std::fs::read(exchange.journal(1)).unwrap(), before, "nothing of it is on its disk");
    exchange.until_led(3, &[2, 3]);
    for _ in 0..3 {
        assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).status, 200);
    }
    assert_eq!(exchange.stock(1, "GameStart"), (96, 4));
    assert_eq!(others.map(|name| exchange.pid(name)), pids);
    assert!(!pids.into_iter().any(gone), "nobody else minds");

    // A release that knows the entry goes on where the old one stopped.
    exchange.restart("order-1");
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn an_old_replica_stops_at_an_entry_of_a_newer_release_and_says_what_to_do() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).status, 200);
    exchange.end("order-1", Signal::Terminate);
    exchange.until_led(3, &[2, 3]);
    let file = exchange.journal(1);
    let before = std::fs::read(&file).unwrap();
    let newer = newer_line(end_of(&before));
    std::fs::File::options().append(true).open(&file).unwrap().write_all(&newer).unwrap();

    exchange.restart("order-1");
    assert_eq!(exchange.await_end("order-1"), Some(1));
    let says = "a newer release of Trade-Net wrote this entry: run that one, or a newer one, here";
    until("the log says so", || exchange.log().contains(says));
    let (log, line) = (exchange.log(), before.iter().filter(|&&byte| byte == b'\n').count() + 1);
    let last = log.lines().rev().find(|text| text.contains(says)).unwrap();
    assert!(last.contains(&format!("line {line}, byte {}", before.len())) && last.contains("split"), "{last}");
    assert_eq!(std::fs::read(&file).unwrap(), [before.clone(), newer].concat(), "nothing is cut");
    let verified = tradenet().arg("verify").arg(exchange.disk(1)).output().unwrap();
    let report = String::from_utf8_lossy(&verified.stdout);
    assert!(!verified.status.success() && report.contains("NEWER than this program"), "{report}");
    // The others never were in need of it.
    assert_eq!(exchange.post(1, &order("GameStart", 1, "buy")).status, 200);

    // With the file as the others know it, it takes part again.
    std::fs::write(&file, before).unwrap();
    exchange.restart("order-1");
    exchange.until_whole();
    exchange.stop_and_verify();
}
