//! A backup is taken of an exchange that trades, and another exchange goes on from it.

use std::path::Path;

use tempfile::TempDir;

use crate::harness::{Exchange, order, tradenet, verify};

/// Runs a command; whether it succeeded, and all that it said.
fn run(arguments: &[&str], path: &Path, more: &[&str]) -> (bool, String) {
    let output = tradenet().args(arguments).arg(path).args(more).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn what_is_backed_up_while_it_trades_goes_on_elsewhere_and_shows_the_same() {
    let (first, mut second) = Exchange::start_two();
    first.until_whole();
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    let data = first.data();
    let backup = |name: &str| run(&["backup"], &path(name), &["--data-dir", data.to_str().unwrap()]);

    // While it trades: nothing that was acknowledged before is missing, and nothing is in it that is not in every journal.
    let number = first.post_with_key(1, &order("GameStart", 2, "buy"), "before").number();
    let load = first.load(&[1], 4);
    first.until_committed(200);
    let (ok, text) = backup("live");
    assert!(ok && text.contains("read back and the same"), "{text}");
    load.verified_without_an_error();
    first.until_quiet();
    let live = std::fs::read(path("live").join("orders.jsonl")).unwrap();
    assert!(live.len() > 200 * 100);
    for id in 1..=3 {
        assert!(std::fs::read(first.journal(id)).unwrap().starts_with(&live), "order-{id} has what was backed up");
    }

    // When it is quiet: the other exchange shows just what the first one does.
    let (ok, text) = backup("quiet");
    assert!(ok, "{text}");
    second.stop_all();
    std::fs::remove_dir_all(second.data()).unwrap();
    let restored = second.data();
    let restore = |name: &str| run(&["restore"], &path(name), &["--data-dir", restored.to_str().unwrap()]);
    let (ok, text) = restore("quiet");
    assert!(ok && text.contains("for each of 3 replicas"), "{text}");
    let (ok, text) = verify(&second.data());
    assert!(ok && text.contains("all 3 journals are the same"), "{text}");
    second.start_again();
    second.until_whole();
    assert_eq!(first.get(1, "/stocks").body, second.get(1, "/stocks").body);
    let quiet = std::fs::read(path("quiet").join("orders.jsonl")).unwrap();
    assert!(std::fs::read(second.journal(1)).unwrap().starts_with(&quiet));
    for at in (1..).step_by(7) {
        let (one, other) = (first.get(1, &format!("/orders/{at}")), second.get(1, &format!("/orders/{at}")));
        assert_eq!((one.status, &one.body), (other.status, &other.body), "order {at}");
        if one.status == 404 {
            break;
        }
    }
    // A key that was used before is known in the other one, too; and from here on they go apart.
    let again = second.post_with_key(1, &order("GameStart", 2, "buy"), "before");
    assert_eq!((again.number(), again.header("idempotent-replayed")), (number, Some("true")));
    let next = second.post(1, &order("GameStart", 1, "sell")).number();
    assert_eq!(first.get(1, &format!("/orders/{next}")).status, 404);

    // Nothing is written over, and what is not whole is not restored.
    let (ok, text) = backup("quiet");
    assert!(!ok && text.contains("is not empty"), "{text}");
    let (ok, text) = run(&["backup"], &data, &["--data-dir", data.to_str().unwrap()]);
    assert!(!ok && text.contains("is not empty"), "a backup is no part of an exchange: {text}");
    let (ok, text) = restore("quiet");
    assert!(!ok && text.contains("is there already"), "{text}");
    let elsewhere = path("elsewhere");
    let lines = quiet.iter().rposition(|&byte| byte == b'{').unwrap();
    for (bytes, says) in [(lines, "it is not whole"), (lines - 5, "it is not whole"), (0, "it is not whole")] {
        std::fs::write(path("quiet").join("orders.jsonl"), &quiet[..bytes]).unwrap();
        let (ok, text) = run(&["restore"], &path("quiet"), &["--data-dir", elsewhere.to_str().unwrap()]);
        assert!(!ok && text.contains(says), "{bytes} of {} bytes: {text}", quiet.len());
    }
    let mut flipped = quiet.clone();
    flipped[quiet.len() / 2] ^= 1;
    std::fs::write(path("quiet").join("orders.jsonl"), &flipped).unwrap();
    let (ok, text) = run(&["restore"], &path("quiet"), &["--data-dir", elsewhere.to_str().unwrap()]);
    assert!(!ok && text.contains("byte "), "{text}");
    assert!(!elsewhere.exists(), "nothing is made of it");
    first.stop_and_verify();
    second.stop_and_verify();
}
