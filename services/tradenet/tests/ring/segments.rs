//! The log in many small files, some of them in an archive.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use tradenet_core::exchange::ORDERS_KEPT;

use crate::harness::{Exchange, order, tradenet, until, verify};

/// A segment every few hundred orders, and a snapshot as often.
const SMALL: [(&str, &str); 2] = [("--segment-bytes", "20000"), ("--snapshot-every-bytes", "20000")];

/// Starts all replicas again, one after the other, with these options.
fn restart_all(exchange: &mut Exchange, options: &[(&str, &str)]) {
    exchange.until_whole();
    for id in 1..=3 {
        let name = format!("order-{id}");
        exchange.kill(&name);
        exchange.restart_with(&name, options);
    }
    exchange.until_whole();
}

/// The journal's files in a directory, and what they hold.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = names.map(|file| file.file_name().into_string().unwrap());
    let names = names.filter(|name| name.starts_with("orders") && name.ends_with(".jsonl"));
    // One may get another name between the two.
    names.filter_map(|name| Some((name.clone(), std::fs::read(dir.join(name)).ok()?))).collect()
}

fn lines_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// Waits until all replicas have the same files.
fn until_same(exchange: &Exchange) -> BTreeMap<String, Vec<u8>> {
    until("all have the same files", || {
        let [one, two, three] = [1, 2, 3].map(|id| files(&exchange.disk(id)));
        one == two && two == three
    });
    files(&exchange.disk(1))
}

/// Runs a command; all that it wrote.
fn run(arguments: &[&str], paths: &[&Path], more: &[&str]) -> (bool, String) {
    let output = tradenet().args(arguments).args(paths).args(more).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn flip(path: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn replicas_have_the_same_files_whatever_is_killed_and_get_back_what_is_lost_of_one() {
    let mut exchange = Exchange::start(&[]);
    restart_all(&mut exchange, &SMALL);
    let load = exchange.load(&[1], 6);
    exchange.until_trading();
    exchange.kill("order-2");
    exchange.until_led(3, &[1, 3]);
    exchange.restart_with("order-2", &SMALL);
    load.verified_without_an_error();
    exchange.until_whole();
    let before = until_same(&exchange);
    assert!(before.len() > 4, "{:?}", before.keys());
    assert!(before.iter().all(|(name, bytes)| name == "orders.jsonl" || (15_000..25_000).contains(&bytes.len())));

    // Under a running replica a bit is flipped in one, and another one is gone.
    let mut names = before.keys();
    let (rotten, gone) = (names.next().unwrap(), names.next().unwrap());
    flip(&exchange.disk(1).join(rotten));
    std::fs::remove_file(exchange.disk(1).join(gone)).unwrap();
    let (ok, text) = verify(&exchange.disk(1));
    assert!(!ok && text.contains(&format!(" of {rotten}): ")), "the file is named: {text}");
    let disk = exchange.disk(1);
    let is_as_before = |name: &String| std::fs::read(disk.join(name)).is_ok_and(|now| now == before[name]);
    until("it is as it was", || is_as_before(rotten) && is_as_before(gone));

    // A follower that comes back without one starts from its snapshot, names it, and has it again.
    exchange.kill("order-1");
    std::fs::remove_file(exchange.disk(1).join(gone)).unwrap();
    exchange.restart_with("order-1", &SMALL);
    exchange.until_whole();
    until("it is there again", || is_as_before(gone));
    assert!(exchange.log().contains(&format!("{gone} is missing")));
    until_same(&exchange);

    // One that has no snapshot either gives up what is behind it, keeps that for people, and is filled again.
    let epoch = exchange.until_whole().epoch;
    exchange.kill("order-1");
    for (_, snapshot) in tradenet_runtime::disk::snapshots::files(&exchange.disk(1)).unwrap() {
        std::fs::remove_file(snapshot).unwrap();
    }
    std::fs::remove_file(exchange.disk(1).join(gone)).unwrap();
    exchange.restart_with("order-1", &SMALL);
    // It is another disk now: taken out, and in again.
    exchange.until_cluster("it is taken out", |cluster| cluster.epoch > epoch);
    exchange.until_whole();
    until_same(&exchange);
    assert!(is_as_before(gone));
    assert!(exchange.disk(1).join("orders.jsonl.damaged").exists());
    assert!(exchange.log().contains(&format!("is damaged at line {}", lines_in(&before[rotten]) + 1)));

    // Tools read all of it; what is made of a backup has the files of this release.
    let data = exchange.data();
    let lines = |name: &str| run(&[name, "--json", "--data-dir"], &[&data], &[]).1.lines().count();
    let log: Vec<u8> = files(&exchange.disk(1)).into_values().flatten().collect();
    assert_eq!(lines("log"), lines_in(&log));
    let backup = data.with_file_name("backup");
    let (ok, text) = run(&["backup"], &[&backup], &["--data-dir", data.to_str().unwrap()]);
    assert!(ok && text.contains("read back and the same"), "{text}");
    let elsewhere = data.with_file_name("elsewhere");
    let (ok, text) = run(&["restore"], &[&backup], &["--data-dir", elsewhere.to_str().unwrap()]);
    assert!(ok, "{text}");
    assert_eq!(files(&elsewhere.join("order-2")), BTreeMap::from([("orders.jsonl".to_owned(), log)]));
    exchange.stop_and_verify();
}

#[test]
fn old_segments_are_read_from_the_archive_and_without_it_nobody_starts() {
    let mut exchange = Exchange::start(&[]);
    let archive = exchange.data().with_file_name("archive");
    std::fs::create_dir(&archive).unwrap();
    let of = |id: u8| archive.join(format!("order-{id}"));
    let options = [&SMALL[..], &[("--archive-dir", archive.to_str().unwrap())]].concat();
    restart_all(&mut exchange, &options);
    exchange.load(&[1], 5).verified_without_an_error();
    until("each has moved some", || (1..=3).all(|id| files(&of(id)).len() > 2));

    // Its log is filled again from what the others have moved.
    exchange.kill("order-1");
    exchange.until_led(3, &[2, 3]);
    std::fs::remove_dir_all(exchange.disk(1)).unwrap();
    exchange.restart_with("order-1", &options);
    assert_eq!(exchange.await_end("order-1"), Some(1), "the archive is another disk's");
    assert!(exchange.log().contains("move that archive away"));
    std::fs::remove_dir_all(of(1)).unwrap();
    exchange.restart_with("order-1", &options);
    exchange.until_whole();

    // What rots there is got back.
    let (name, bytes) = files(&of(2)).pop_first().unwrap();
    flip(&of(2).join(&name));
    until("it is as it was", || std::fs::read(of(2).join(&name)).unwrap() == bytes);

    // Where the archive is not there, who needs it does not start, and tools say what they miss.
    exchange.kill("order-2");
    let away = archive.with_file_name("away");
    std::fs::rename(&archive, &away).unwrap();
    exchange.restart_with("order-2", &options);
    assert_eq!(exchange.await_end("order-2"), Some(1));
    assert!(exchange.log().contains("is not there: mount or make that directory"));
    exchange.restart_with("order-2", &SMALL);
    assert_eq!(exchange.await_end("order-2"), Some(1));
    assert!(exchange.log().contains("name the directory to which they were moved with --archive-dir"));
    std::fs::rename(&away, &archive).unwrap();
    exchange.restart_with("order-2", &options);
    exchange.until_whole();
    let (ok, text) = verify(&exchange.data());
    assert!(!ok && text.contains("--archive-dir"), "{text}");
    let with = ["--archive-dir", archive.to_str().unwrap()];
    until("all are the same", || {
        let (ok, text) = run(&["verify"], &[&exchange.data()], &with);
        ok && text.contains("all 3 journals are the same, byte for byte")
    });
    exchange.stop_all();
    let (ok, text) = run(&["verify"], &[&exchange.data()], &with);
    assert!(ok, "{text}");
}

/// The first order with the house in a file.
fn first_order(bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    let (_, behind) = text.split_once("\"order\":").unwrap();
    behind.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// Opening a pipe takes until somebody writes to it: a file on a disk that hangs.
#[test]
fn an_archive_that_hangs_or_has_gone_keeps_no_trade_waiting() {
    let mut exchange = Exchange::start(&[]);
    let archive = exchange.data().with_file_name("archive");
    std::fs::create_dir(&archive).unwrap();
    let sizes = [("--segment-bytes", "150000"), ("--snapshot-every-bytes", "600000")];
    restart_all(&mut exchange, &[&sizes[..], &[("--archive-dir", archive.to_str().unwrap())]].concat());
    let of = archive.join("order-3");
    let kept = u64::try_from(ORDERS_KEPT).unwrap();
    let newest = || exchange.post(1, &order("GameStart", 1, "sell")).number();
    let mut seeds = 100..;
    while newest() < kept + 8_000 {
        exchange.crowd_of(64, 4, seeds.next().unwrap()).verified();
    }
    until("the leader has moved some", || files(&of).len() > 8);
    let (names, orders): (Vec<_>, Vec<_>) =
        files(&of).into_iter().map(|(name, bytes)| (name, first_order(&bytes))).unzip();
    let before: Vec<_> = orders[..8].iter().map(|order| exchange.get(1, &format!("/orders/{order}")).body).collect();
    assert!(orders[7] + kept < newest() && before.iter().all(|body| body["data"].is_object()), "{before:?}");
    let epoch = exchange.until_whole().epoch;

    // Four others were read since, and no more are held open.
    let (segment, aside, pipe) = (of.join(&names[1]), of.join("aside"), of.join("pipe"));
    let path = format!("/orders/{}", orders[1]);
    std::fs::rename(&segment, &aside).unwrap();
    assert!(Command::new("mkfifo").arg(&segment).status().unwrap().success());
    let load = exchange.load(&[1], 5);
    exchange.until_trading();
    for _ in 0..20 {
        let answer = exchange.get(1, &path);
        assert!(answer.status == 503 && answer.message().contains("try again"), "{answer:?}");
        assert!(answer.message().contains("can't read its journal"), "{answer:?}");
        exchange.until_trading();
    }
    load.verified_without_an_error();

    // It goes on, and old orders are there again by themselves.
    std::fs::rename(&segment, &pipe).unwrap();
    std::fs::rename(&aside, &segment).unwrap();
    std::fs::File::options().write(true).open(&pipe).unwrap();
    std::fs::remove_file(&pipe).unwrap();
    until("the old order is read", || exchange.get(1, &path).body == before[1]);

    // The same when it has gone: what is not there is not taken for lost.
    let away = archive.with_file_name("away");
    std::fs::rename(&archive, &away).unwrap();
    let load = exchange.load(&[1], 3);
    exchange.until_trading();
    let answer = exchange.get(1, &format!("/orders/{}", orders[6]));
    assert!(answer.status == 503 && answer.message().contains("can't read its journal"), "{answer:?}");
    load.verified_without_an_error();
    std::fs::rename(&away, &archive).unwrap();
    let again: Vec<_> = orders[..8].iter().map(|order| exchange.get(1, &format!("/orders/{order}")).body).collect();
    assert_eq!(again, before);
    assert_eq!(exchange.until_whole().epoch, epoch, "nobody has noticed");
    exchange.stop_all();
    let (ok, text) = run(&["verify"], &[&exchange.data()], &["--archive-dir", archive.to_str().unwrap()]);
    assert!(ok, "{text}");
}
