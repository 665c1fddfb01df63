//! Disks that are emptied, torn and changed.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, order, tradenet, until, verify};

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

#[test]
fn when_all_disks_but_one_are_emptied_that_one_trades_on_and_fills_the_others() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let load = exchange.load(&[1], 6);
    exchange.until_trading();
    exchange.signal("order-2", Signal::Kill);
    exchange.kill("order-3");
    exchange.until_led(1, &[1]);
    for id in [2, 3] {
        std::fs::remove_dir_all(exchange.disk(id)).unwrap();
    }
    exchange.restart("order-3");
    exchange.restart("order-2");
    load.verified_without_an_error();
    exchange.until_whole();
    exchange.stop_and_verify();
}

fn trades(exchange: &Exchange, count: u32) {
    for _ in 0..count {
        exchange.post(1, &order("GameStart", 1, "buy")).number();
    }
}

/// Harms the disk of a follower and of the leader in turn, each while it is down: both must have all orders again. What was
/// logged since each came back.
fn harmed_in_turn(harm: impl Fn(&Exchange, u8)) -> Vec<String> {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    trades(&exchange, 5);
    let mut logs = Vec::new();
    for (id, leader, others) in [(1, 3, &[2, 3][..]), (3, 2, &[1, 2])] {
        let name = format!("order-{id}");
        exchange.kill(&name);
        exchange.until_led(leader, others);
        harm(&exchange, id);
        trades(&exchange, 1);
        let before = exchange.log().len();
        exchange.restart(&name);
        exchange.until_whole();
        logs.push(exchange.log().split_off(before));
    }
    exchange.stop_and_verify();
    logs
}

#[test]
fn a_torn_last_line_is_cut_and_the_replica_is_in_sync_again() {
    harmed_in_turn(|exchange, id| {
        let journal = std::fs::read_to_string(exchange.journal(id)).unwrap();
        let line = journal.lines().last().unwrap();
        let mut file = std::fs::File::options().append(true).open(exchange.journal(id)).unwrap();
        file.write_all(&line.as_bytes()[..line.len() / 2]).unwrap();
        let (ok, text) = verify(&exchange.disk(id));
        assert!(!ok && text.contains("torn"), "{text}");
    });
}

#[test]
fn a_flipped_bit_is_told_of_with_its_place_and_repaired_from_a_peer() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    trades(&exchange, 5);
    exchange.kill("order-1");
    exchange.until_led(3, &[2, 3]);
    let path = exchange.journal(1);
    let mut journal = std::fs::read(&path).unwrap();
    let third = line_begins(&journal, 3);
    journal[third + 20] ^= 1;
    std::fs::write(&path, &journal).unwrap();
    trades(&exchange, 1);
    exchange.restart("order-1");
    exchange.until_whole();
    let log = exchange.log();
    let told = format!("orders.jsonl is damaged at line 3, byte {third}");
    assert!(log.contains(&told), "{told:?} is not in {log}");
    assert_eq!(std::fs::read(exchange.disk(1).join("orders.jsonl.damaged")).unwrap(), journal);
    exchange.stop_and_verify();
}

/// Where a line of a journal begins, in bytes.
fn line_begins(journal: &[u8], line: usize) -> usize {
    journal.split_inclusive(|byte| *byte == b'\n').take(line - 1).map(<[u8]>::len).sum()
}

/// Changes one bit of a line under a replica that runs.
fn rot(exchange: &Exchange, id: u8, line: usize) {
    let begins = line_begins(&std::fs::read(exchange.journal(id)).unwrap(), line);
    let file = std::fs::File::options().read(true).write(true).open(exchange.journal(id)).unwrap();
    let (at, mut byte) = (begins as u64 + 40, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn what_rots_under_running_replicas_is_named_and_got_back_from_a_peer_while_trading_goes_on() {
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    trades(&exchange, 10);
    exchange.until_quiet();
    let load = exchange.load(&[1], 6);
    exchange.until_trading();
    for (id, line) in [(3, 5), (1, 7), (2, 5)] {
        rot(&exchange, id, line);
    }
    until("each has its lines back", || exchange.log().matches("orders.jsonl is repaired at line ").count() == 3);
    load.verified_without_an_error();
    let log = exchange.log();
    for (id, line) in [(3, 5), (1, 7), (2, 5)] {
        let told = |line: &&str| line.starts_with(&format!("order-{id}"));
        let byte = line_begins(&std::fs::read(exchange.journal(id)).unwrap(), line);
        let wanted = format!("orders.jsonl has rotted at line {line}, byte {byte}: ");
        assert!(log.lines().filter(told).any(|said| said.contains(&wanted)), "{wanted:?} is not in {log}");
    }
    assert_eq!(exchange.cluster(1).in_sync, [1, 2, 3]);
    exchange.stop_and_verify();
}

#[test]
fn a_new_line_that_has_rotted_everywhere_is_written_again_from_memory() {
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    trades(&exchange, 10);
    exchange.until_quiet();
    (1..=3).for_each(|id| rot(&exchange, id, 6));
    until("each has it back", || exchange.log().matches("is repaired at line 6, from memory").count() == 3);
    trades(&exchange, 1);
    exchange.stop_and_verify();
}

/// Changes one bit of a file, which must be told of.
fn check_flipped(file: &str, byte: impl Fn(&[u8]) -> usize, told: &str) {
    let logs = harmed_in_turn(|exchange, id| {
        let path = exchange.disk(id).join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let place = byte(&bytes);
        bytes[place] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
    });
    for log in logs {
        assert!(log.contains(told), "{told:?} is not in {log}");
    }
}

#[test]
fn a_flipped_bit_in_the_last_record_is_told_of_and_the_record_is_had_again() {
    check_flipped("orders.jsonl", |bytes| bytes.len() - 20, "damaged");
}

#[test]
fn a_flipped_bit_in_the_configuration_makes_an_empty_disk_that_is_filled() {
    check_flipped("configuration.json", |bytes| bytes.len() / 2, "set aside with the journal");
}

#[test]
fn files_that_went_bad_on_every_disk_mend_each_other_and_the_exchange_goes_on() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    exchange.load(&[1], 1).verified_without_an_error();
    exchange.until_quiet();
    exchange.stop_all();
    let files = |exchange: &Exchange| [1, 2, 3].map(|id| std::fs::read(exchange.journal(id)).unwrap());
    let before = files(&exchange);
    for (id, good) in (1..).zip(&before) {
        let mut bad = good.clone();
        let at = good.len() / 5 * usize::from(id);
        bad[at] ^= 2;
        std::fs::write(exchange.journal(id), bad).unwrap();
    }
    let (ok, text) = verify(&exchange.data());
    assert!(!ok && text.matches("DAMAGED").count() == 3, "{text}");
    let repair = || {
        let output = tradenet().arg("repair").arg(exchange.data()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = repair();
    assert_eq!((code, text.matches("every byte as it was").count()), (Some(0), 3), "{text}");
    assert!(files(&exchange) == before, "{text}");
    let (code, text) = repair();
    assert_eq!((code, text.matches("nothing to mend").count()), (Some(0), 3), "{text}");
    exchange.start_again();
    exchange.until_whole();
    assert_eq!(exchange.get(1, "/orders/1").status, 200);
    exchange.stop_and_verify();
}
