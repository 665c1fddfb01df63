//! Disks that are emptied, torn and changed.

use std::io::Write as _;

use crate::harness::{Exchange, order, verify};

/// Deletes the directory of one replica while it is down, under load, and has it filled again.
fn check_refilled(id: u8, leader: u8, in_sync: &[u8]) {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 5);
    exchange.until_trading();
    let name = format!("order-{id}");
    exchange.kill(&name);
    exchange.until_led(leader, in_sync);
    std::fs::remove_dir_all(exchange.disk(id)).unwrap();
    exchange.restart(&name);
    load.verified_without_an_error();
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn an_emptied_follower_is_filled_by_a_peer() {
    check_refilled(1, 3, &[2, 3]);
}

#[test]
fn an_emptied_leader_is_filled_by_a_peer_before_it_leads_again() {
    check_refilled(3, 2, &[1, 2]);
}

fn trades(exchange: &Exchange, count: u32) {
    for _ in 0..count {
        exchange.post(1, &order("GameStart", 1, "buy")).number();
    }
}

#[test]
fn a_torn_last_line_is_cut_and_the_replica_is_in_sync_again() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    trades(&exchange, 5);
    for (id, leader, others) in [(1, 3, &[2, 3][..]), (3, 2, &[1, 2])] {
        let name = format!("order-{id}");
        exchange.kill(&name);
        exchange.until_led(leader, others);
        let journal = std::fs::read_to_string(exchange.journal(id)).unwrap();
        let line = journal.lines().last().unwrap();
        let mut file = std::fs::File::options().append(true).open(exchange.journal(id)).unwrap();
        file.write_all(&line.as_bytes()[..line.len() / 2]).unwrap();
        let (ok, text) = verify(&exchange.disk(id));
        assert!(!ok && text.contains("torn"), "{text}");
        trades(&exchange, 1);
        exchange.restart(&name);
        exchange.until_whole();
    }
    exchange.stop_and_verify();
}

#[test]
fn a_flipped_byte_in_the_middle_is_refused_with_its_place() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    trades(&exchange, 5);
    exchange.kill("order-1");
    exchange.until_led(3, &[2, 3]);
    let path = exchange.journal(1);
    let whole = std::fs::read(&path).unwrap();
    let mut lines = whole.split_inclusive(|byte| *byte == b'\n');
    let third: usize = lines.by_ref().take(2).map(<[u8]>::len).sum();
    let mut flipped = whole.clone();
    flipped[third + 20] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    exchange.restart("order-1");
    assert_eq!(exchange.await_end("order-1"), Some(1));
    let log = exchange.log();
    let error = log.lines().rev().find(|line| line.starts_with("tradenet: error:")).unwrap();
    for part in [&*exchange.disk(1).display().to_string(), "orders.jsonl", "line 3", &format!("byte {third}")] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    // Nothing was written; as it was, it is taken again.
    assert_eq!(std::fs::read(&path).unwrap(), flipped);
    trades(&exchange, 1);
    std::fs::write(&path, whole).unwrap();
    exchange.restart("order-1");
    exchange.until_whole();
    exchange.stop_and_verify();
}
