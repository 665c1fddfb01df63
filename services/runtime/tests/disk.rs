//! A replica's directory on a real file system: what is answered as done is in the files, and files that are not what was
//! written are refused.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::timeout;
use tradenet_core::journal::encode;
use tradenet_core::replica::snapshot::SnapshotPart;
use tradenet_core::{DiskAnswer, DiskRequest};
use tradenet_runtime::disk::{Directory, DirectoryError, Disk, JOURNAL, Lock, LogOptions, Opened, snapshots};
use tradenet_schemas::ids::{Boot, Chain, ClusterId, Epoch, Leader, Member, Node, Nonce, ReplicaId, SeqNum, StoreId};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::message::Configuration;
use tradenet_schemas::trade::{Price, Quantity, Symbol};

const PATIENCE: Duration = Duration::from_secs(30);

fn id() -> ReplicaId {
    ReplicaId::new(3).unwrap()
}

fn configuration(epoch: u64) -> Box<Configuration> {
    Box::new(Configuration {
        cluster: ClusterId(1),
        epoch: Epoch(epoch),
        nonce: Nonce(2),
        leader: Leader { id: id(), boot: Boot(7) },
        in_sync: vec![Member { id: id(), store: StoreId(3) }],
        members: vec![id()],
        follows: Vec::new(),
        by: Node::Frontend(Boot(9)),
        why: "a \"reason\"\nwith lines".to_owned(),
        at: 5,
    })
}

fn append(ticket: u64, lines: &str) -> DiskRequest {
    DiskRequest::Append { ticket, lines: Bytes::copy_from_slice(lines.as_bytes()) }
}

fn read(ticket: u64, offset: u64, bytes_max: usize) -> DiskRequest {
    DiskRequest::Read { ticket, offset, bytes_max }
}

/// What an answer says, and to which ticket.
async fn next(disk: &mut Disk) -> (u64, String) {
    match timeout(PATIENCE, disk.answer()).await.unwrap().unwrap() {
        DiskAnswer::Done { ticket, .. } => (ticket, "done".to_owned()),
        DiskAnswer::Read { ticket, bytes } => (ticket, String::from_utf8(bytes.to_vec()).unwrap()),
        DiskAnswer::Full { ticket } => (ticket, "full".to_owned()),
        DiskAnswer::Failed { ticket, why } => (ticket, format!("failed: {why}")),
        DiskAnswer::Broken { ticket, why } => (ticket, format!("broken: {why}")),
        DiskAnswer::Loaded { ticket, file } => {
            (ticket, file.map_or("none".to_owned(), |(name, bytes)| format!("{name}: {} bytes", bytes.len())))
        }
        DiskAnswer::SnapshotRead { ticket, part } => {
            let told = part.map_or("no part".to_owned(), |SnapshotPart { header, size_bytes, bytes }| {
                format!("part of {}, {size_bytes} bytes: {:?}", header.seq, &bytes[..])
            });
            (ticket, told)
        }
        DiskAnswer::SnapshotMade { ticket, seq, .. } => (ticket, format!("made {seq}")),
        DiskAnswer::NoSnapshot { ticket, error } => (ticket, format!("not made: {error}")),
    }
}

async fn ask(disk: &mut Disk, request: DiskRequest) -> String {
    disk.ask(request).await.unwrap();
    next(disk).await.1
}

/// Opens it; a program that another test starts in this moment has a copy of its lock until it runs.
fn try_to_open(data_dir: &Path) -> Result<Opened, DirectoryError> {
    try_to_open_by(data_dir, &LogOptions::default())
}

fn try_to_open_by(data_dir: &Path, options: &LogOptions) -> Result<Opened, DirectoryError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Directory::open(data_dir, id(), options) {
            Err(DirectoryError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

fn open(data_dir: &Path) -> Opened {
    try_to_open(data_dir).unwrap()
}

/// Files as release 0.1 wrote them. They are never changed, only joined by those of later forms.
#[test]
fn a_directory_of_every_released_form_is_opened() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("order-3");
    fs::create_dir(&dir).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/order-2");
    for file in ["configuration.json", "store.json"] {
        fs::copy(golden.join(file), dir.join(file)).unwrap();
    }
    let opened = open(home.path());
    assert_eq!(opened.store, StoreId(0x55cf_c28f_0f0b_5e28));
    let configuration = opened.configuration.unwrap();
    assert_eq!((configuration.epoch, configuration.leader.boot), (Epoch(2), Boot(0x35eb_0ede_c910_2fa4)));
    assert_eq!(configuration.in_sync.len(), 2);
}

fn refusal(data_dir: &Path) -> String {
    one_line(&try_to_open(data_dir).unwrap_err())
}

fn one_line(error: &DirectoryError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[tokio::test]
async fn what_is_done_is_in_the_files_and_there_again_when_they_are_opened() {
    let dir = TempDir::new().unwrap();
    let data_dir = dir.path().join("made/on/the/way");
    let first = open(&data_dir);
    assert_eq!((first.configuration, first.journal_bytes), (None, 0));
    let mut disk = Disk::start(first.directory).unwrap();
    let requests = [
        DiskRequest::Persist { ticket: 1, configuration: configuration(1) },
        append(2, "one\n"),
        append(3, "two\n"),
        read(4, 0, 100),
        append(5, "three\n"),
        DiskRequest::Cut { ticket: 6, bytes: 8 },
        append(7, "four\n"),
        read(8, 4, 6),
        read(9, 13, 100),
        DiskRequest::Persist { ticket: 10, configuration: configuration(2) },
    ];
    for request in requests {
        disk.ask(request).await.unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(next(&mut disk).await);
    }
    let is_read = |ticket: u64| [4, 8, 9].contains(&ticket);
    let in_order =
        |reads: bool| answers.iter().map(|(ticket, _)| *ticket).filter(move |ticket| is_read(*ticket) == reads);
    assert!(in_order(false).is_sorted() && in_order(true).is_sorted(), "{answers:?}");
    answers.sort();
    let said = answers.iter().map(|(_, said)| said.as_str()).collect::<Vec<_>>();
    assert!(answers.iter().map(|(ticket, _)| *ticket).eq(1..=10), "{answers:?}");
    assert_eq!(said, ["done", "done", "done", "one\ntwo\n", "done", "done", "done", "two\nfo", "", "done"]);
    disk.close(PATIENCE).await;

    assert_eq!(fs::read_to_string(data_dir.join("order-3").join(JOURNAL)).unwrap(), "one\ntwo\nfour\n");
    let again = open(&data_dir);
    assert_eq!((again.store, again.journal_bytes), (first.store, 13));
    assert_eq!(again.configuration, Some(*configuration(2)));
}

#[tokio::test]
async fn a_queue_of_appends_is_written_in_order_and_answered_one_by_one() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::start(open(dir.path()).directory).unwrap();
    let lines = |ticket: u64| format!("{{\"number\":{ticket}}}\n");
    let asked = 10_000;
    for ticket in 1..=asked {
        disk.ask(append(ticket, &lines(ticket))).await.unwrap();
    }
    for ticket in 1..=asked {
        assert_eq!(next(&mut disk).await, (ticket, "done".to_owned()));
    }
    let expected: String = (1..=asked).map(lines).collect();
    assert!(ask(&mut disk, read(0, 0, usize::MAX >> 1)).await == expected);
}

#[tokio::test]
async fn a_cut_that_makes_no_sense_breaks_the_disk_but_not_what_is_on_it() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::start(open(dir.path()).directory).unwrap();
    assert_eq!(ask(&mut disk, append(1, "one\n")).await, "done");
    assert!(ask(&mut disk, DiskRequest::Cut { ticket: 2, bytes: 5 }).await.contains("cannot cut"));
    assert!(ask(&mut disk, append(3, "two\n")).await.starts_with("broken"));
    assert_eq!(ask(&mut disk, read(4, 0, 10)).await, "one\n");
}

#[test]
fn a_second_process_is_refused_and_told_who_is_there() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    let text = one_line(&Directory::open(dir.path(), id(), &LogOptions::default()).unwrap_err());
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    assert!(text.contains("order-3") && text.contains("--data-dir"), "{text}");
    drop(first);
    open(dir.path());
    let _lock = Lock::take(&dir.path().join("catalog-1")).unwrap();
    assert!(Lock::take(&dir.path().join("catalog-1")).is_err());
}

#[tokio::test]
async fn files_that_are_not_what_was_written_are_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::start(open(dir.path()).directory).unwrap();
    let configuration = configuration(1);
    assert_eq!(ask(&mut disk, DiskRequest::Persist { ticket: 1, configuration }).await, "done");
    assert_eq!(ask(&mut disk, append(2, "one\n")).await, "done");
    disk.close(PATIENCE).await;
    let file = |name: &str| dir.path().join("order-3").join(name);

    let whole = fs::read(file("store.json")).unwrap();
    for flipped in flips(&whole) {
        fs::write(file("store.json"), &flipped).unwrap();
        let text = refusal(dir.path());
        assert!(text.contains("store.json") && text.contains("move the directory away"), "{text}");
    }
    fs::write(file("store.json"), &whole[..whole.len() / 2]).unwrap();
    assert!(refusal(dir.path()).contains("is damaged"));
    fs::write(file("store.json"), &whole).unwrap();
    for name in ["store.json", "configuration.json"] {
        let whole = fs::read(file(name)).unwrap();
        fs::remove_file(file(name)).unwrap();
        assert!(refusal(dir.path()).contains(&format!("{name} is missing")));
        fs::write(file(name), &whole).unwrap();
    }
    assert_eq!(open(dir.path()).journal_bytes, 4);
}

/// A file with one bit flipped in each byte in turn, but for the line feed at its end: what becomes of it may be harmless.
fn flips(whole: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..whole.len() - 1).map(|at| {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1;
        flipped
    })
}

#[tokio::test]
async fn a_directory_whose_configuration_is_damaged_is_another_one_and_empty() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::start(open(dir.path()).directory).unwrap();
    assert_eq!(ask(&mut disk, DiskRequest::Persist { ticket: 1, configuration: configuration(1) }).await, "done");
    disk.close(PATIENCE).await;
    let file = |name: &str| dir.path().join("order-3").join(name);
    let whole = fs::read(file("configuration.json")).unwrap();
    let half = whole[..whole.len() / 2].to_vec();
    let mut store = open(dir.path()).store;
    for damaged in flips(&whole).chain([half]) {
        fs::write(file("configuration.json"), &damaged).unwrap();
        fs::write(file(JOURNAL), "one\n").unwrap();
        let opened = open(dir.path());
        assert_eq!((opened.configuration, opened.journal_bytes), (None, 0));
        assert_ne!(std::mem::replace(&mut store, opened.store), opened.store, "another name each time");
        assert_eq!(fs::read(file("configuration.json.damaged")).unwrap(), damaged);
        assert_eq!(fs::read(file("orders.jsonl.damaged")).unwrap(), b"one\n");
    }
}

#[tokio::test]
async fn a_disk_that_is_given_up_has_another_name_and_its_good_part() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    let mut disk = Disk::start(first.directory).unwrap();
    assert_eq!(ask(&mut disk, DiskRequest::Persist { ticket: 1, configuration: configuration(1) }).await, "done");
    assert_eq!(ask(&mut disk, append(2, "one\ntwo\n")).await, "done");
    let store = StoreId(first.store.0 ^ 1);
    assert_eq!(ask(&mut disk, DiskRequest::GiveUp { ticket: 3, store, bytes: 4 }).await, "done");
    assert_eq!(ask(&mut disk, append(4, "2\n")).await, "done");
    disk.close(PATIENCE).await;
    let again = open(dir.path());
    assert_eq!((again.store, again.journal_bytes), (store, 6));
    let file = |name: &str| fs::read_to_string(dir.path().join("order-3").join(name)).unwrap();
    assert_eq!((file(JOURNAL).as_str(), file("orders.jsonl.damaged").as_str()), ("one\n2\n", "one\ntwo\n"));
}

#[tokio::test]
async fn good_lines_are_written_over_bad_ones_and_nowhere_else() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::start(open(dir.path()).directory).unwrap();
    let path = dir.path().join("order-3").join(JOURNAL);
    assert_eq!(ask(&mut disk, append(1, "one\ntwo\nthree\n")).await, "done");
    fs::write(&path, "one\nt.o\nthree\n").unwrap();
    let rewrite = |ticket, offset, lines: &'static str| DiskRequest::Rewrite { ticket, offset, lines: lines.into() };
    assert_eq!(ask(&mut disk, rewrite(2, 4, "two\n")).await, "done");
    assert_eq!(ask(&mut disk, append(3, "four\n")).await, "done");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\nfour\n");
    let refused = ask(&mut disk, rewrite(4, 14, "four\nfive\n")).await;
    assert!(refused.contains("10 bytes at 14 are not within the journal"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\nfour\n");
    disk.close(PATIENCE).await;
}

/// A journal of some entries, and where each ends.
fn listings(count: u64) -> (String, Vec<u64>) {
    let (mut lines, mut ends, mut chain) = (Vec::new(), Vec::new(), Chain::default());
    for seq in 1..=count {
        let (price, quantity) = (Price::from_cents(seq).unwrap(), Quantity::new(seq).unwrap());
        let events = vec![Event::Listed { symbol: Symbol::new(&format!("Stock{seq}")).unwrap(), price, quantity }];
        let entry = Entry { seq: SeqNum(seq), epoch: Epoch(1), at: 0, key: None, events };
        chain = encode(&entry, chain, &mut lines);
        ends.push(lines.len() as u64);
    }
    (String::from_utf8(lines).unwrap(), ends)
}

#[tokio::test]
async fn a_snapshot_is_made_of_the_journal_and_the_one_before_and_two_are_kept() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::start(open(dir.path()).directory).unwrap();
    let (journal, ends) = listings(4);
    let line = ends[0];
    assert_eq!(ask(&mut disk, append(1, &journal)).await, "done");
    let load = |skip| DiskRequest::LoadSnapshot { ticket: 9, skip };
    assert_eq!(ask(&mut disk, load(0)).await, "none");
    let path = dir.path().join("order-3");
    let names = || snapshots::files(&path).unwrap().iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
    let make = |until| DiskRequest::MakeSnapshot { ticket: 2, until };
    assert_eq!(ask(&mut disk, make(line)).await, "made 1");
    assert_eq!(ask(&mut disk, make(line + 1)).await, "made 2");
    assert_eq!(names(), [2, 1]);
    // One that went bad is not built on, and makes room.
    let mut bytes = fs::read(path.join("snapshot-2")).unwrap();
    bytes[150] ^= 1;
    fs::write(path.join("snapshot-2"), &bytes).unwrap();
    assert_eq!(ask(&mut disk, make(line * 3)).await, "made 3");
    assert_eq!(names(), [3, 1]);
    assert_eq!(ask(&mut disk, make(line * 4)).await, "made 4");
    assert_eq!(names(), [4, 3]);
    let sizes = [3, 4].map(|seq| fs::metadata(path.join(format!("snapshot-{seq}"))).unwrap().len());
    assert_eq!(ask(&mut disk, load(0)).await, format!("snapshot-4: {} bytes", sizes[1]));
    assert_eq!(ask(&mut disk, load(1)).await, format!("snapshot-3: {} bytes", sizes[0]));
    assert_eq!(ask(&mut disk, load(2)).await, "none");
    assert_eq!(ask(&mut disk, make(line * 5)).await, format!("not made: orders.jsonl ends before byte {}", line * 5));
    assert_eq!(ask(&mut disk, DiskRequest::DropSnapshots { ticket: 5, bytes: line * 3 }).await, "done");
    assert_eq!(names(), [3]);
    let store = StoreId(7);
    assert_eq!(ask(&mut disk, DiskRequest::GiveUp { ticket: 6, store, bytes: line }).await, "done");
    assert_eq!(names(), [0; 0], "nor is one left of what is given up");
    disk.close(PATIENCE).await;
}

#[tokio::test]
async fn a_snapshot_is_given_in_parts_and_kept_by_who_takes_it_over() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::start(open(dir.path()).directory).unwrap();
    let (journal, ends) = listings(4);
    assert_eq!(ask(&mut disk, append(1, &journal)).await, "done");
    let part = |seq: Option<u64>, offset, bytes_max| DiskRequest::ReadSnapshot {
        ticket: 9,
        seq: seq.map(SeqNum),
        offset,
        bytes_max,
    };
    assert_eq!(ask(&mut disk, part(None, 0, 50)).await, "no part");
    for end in [0, 2] {
        ask(&mut disk, DiskRequest::MakeSnapshot { ticket: 2, until: ends[end] }).await;
    }
    let path = dir.path().join("order-3");
    let files = [1, 3].map(|seq| fs::read(path.join(format!("snapshot-{seq}"))).unwrap());
    let given = |seq: u64, size: usize, bytes: &[u8]| format!("part of {seq}, {size} bytes: {bytes:?}");
    let (first, newest) = (&files[0], &files[1]);
    assert_eq!(ask(&mut disk, part(None, 0, 50)).await, given(3, newest.len(), &newest[..50]));
    assert_eq!(ask(&mut disk, part(Some(1), 70, 30)).await, given(1, first.len(), &first[70..100]));
    let end = first.len() - 5;
    assert_eq!(ask(&mut disk, part(Some(1), end as u64, 30)).await, given(1, first.len(), &first[end..]));
    assert_eq!(ask(&mut disk, part(Some(1), 1 << 40, 30)).await, given(1, first.len(), &[]));
    assert_eq!(ask(&mut disk, part(Some(2), 0, 50)).await, "no part");
    fs::write(path.join("snapshot-4"), "no snapshot").unwrap();
    assert_eq!(ask(&mut disk, part(None, 0, 50)).await, "no part");
    let save = |seq, file: &[u8]| DiskRequest::SaveSnapshot { ticket: 3, seq: SeqNum(seq), file: file.to_vec().into() };
    assert_eq!(ask(&mut disk, save(4, newest)).await, "done");
    assert_eq!(fs::read(path.join("snapshot-4")).unwrap(), *newest);
    let names = snapshots::files(&path).unwrap().iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
    assert_eq!(names, [4, 3], "two are kept");
    disk.close(PATIENCE).await;
}

/// Names and contents of a journal's files, and of those that were set aside.
fn journal_files(dir: &Path) -> Vec<(String, String)> {
    let files = fs::read_dir(dir).into_iter().flatten().map(|file| file.unwrap().path());
    let files = files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    let files = files.filter(|(name, _)| name.starts_with("orders"));
    let mut files: Vec<_> = files.map(|(name, path)| (name, fs::read_to_string(path).unwrap())).collect();
    files.sort();
    files
}

#[tokio::test]
async fn an_archive_that_hangs_keeps_no_snapshot_from_being_made() {
    let dir = TempDir::new().unwrap();
    let archive = dir.path().join("archive");
    let pipe = archive.join("order-3/orders-000000000000000.jsonl");
    fs::create_dir_all(archive.join("order-3")).unwrap();
    let (lines, ends) = listings(8);
    let options = LogOptions { segment_bytes: ends[0].try_into().unwrap(), archive_dir: Some(archive) };
    let mut disk = Disk::start(try_to_open_by(dir.path(), &options).unwrap().directory).unwrap();
    assert_eq!(ask(&mut disk, append(1, &lines)).await, "done");
    // What is there is compared with what is to be moved.
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (end, made) in [(2, "made 3"), (4, "made 5"), (6, "made 7")] {
        assert_eq!(ask(&mut disk, DiskRequest::MakeSnapshot { ticket: 3, until: ends[end] }).await, made);
    }
    // Whoever moves segments holds the directory until it has ended.
    let _goes_on = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    disk.close(PATIENCE).await;
}

/// An archive of which nothing can be known but that it does not answer: opening a pipe waits for somebody who writes to it.
#[tokio::test]
async fn an_archive_that_hangs_or_has_gone_keeps_nobody_waiting_but_those_who_read_it() {
    let dir = TempDir::new().unwrap();
    let archive = dir.path().join("archive");
    fs::create_dir(&archive).unwrap();
    let options = LogOptions { segment_bytes: 8.try_into().unwrap(), archive_dir: Some(archive.clone()) };
    let mut disk = Disk::start(try_to_open_by(dir.path(), &options).unwrap().directory).unwrap();
    assert_eq!(ask(&mut disk, DiskRequest::Persist { ticket: 1, configuration: configuration(1) }).await, "done");
    assert_eq!(ask(&mut disk, append(2, "one\ntwo\nthree\nfour\nfive\n")).await, "done");
    let (name, away) = ("orders-000000000000000.jsonl", archive.join("order-3"));
    let (segment, kept) = (away.join(name), away.join("kept"));
    fs::create_dir(&away).unwrap();
    fs::rename(dir.path().join("order-3").join(name), &kept).unwrap();
    assert!(Command::new("mkfifo").arg(&segment).status().unwrap().success());

    let requests = [read(3, 0, 100), append(4, "six\n"), read(5, 8, 100), append(6, "seven\n")];
    for request in requests {
        disk.ask(request).await.unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(next(&mut disk).await);
    }
    assert_eq!(answers.pop().unwrap(), (3, "failed: the archive does not answer within 1000 ms".to_owned()));
    answers.sort();
    let rest = "three\nfour\nfive\nsix\n";
    assert_eq!(
        answers.iter().map(|(ticket, said)| (*ticket, said.as_str())).collect::<Vec<_>>(),
        [(4, "done"), (5, rest), (6, "done")]
    );
    // It is not waited for anew, nor for what is both there and here.
    let rewrite = |ticket, lines: &'static str| DiskRequest::Rewrite { ticket, offset: 0, lines: lines.into() };
    assert!(ask(&mut disk, rewrite(7, "1ne\ntwo\nTHREE\n")).await.starts_with("failed: the archive does not answer"));
    assert_eq!(ask(&mut disk, read(8, 8, 6)).await, "THREE\n");

    // Whoever hung goes on, and finds that it has read nothing.
    fs::rename(&segment, away.join("pipe")).unwrap();
    let writer = tokio::task::spawn_blocking({
        let pipe = away.join("pipe");
        move || fs::OpenOptions::new().write(true).open(pipe)
    });
    timeout(PATIENCE, writer).await.unwrap().unwrap().unwrap();
    fs::rename(&away, archive.join("aside")).unwrap();
    let said = until(&mut disk, |said| !said.contains("does not answer")).await;
    assert!(said.starts_with("failed:") && said.contains("is not there"), "{said}");
    fs::rename(archive.join("aside"), &away).unwrap();
    fs::rename(&kept, &segment).unwrap();
    assert_eq!(ask(&mut disk, read(9, 0, 14)).await, "one\ntwo\nTHREE\n");
    assert_eq!(ask(&mut disk, rewrite(10, "uno\n")).await, "done");
    assert_eq!(fs::read_to_string(&segment).unwrap(), "uno\ntwo\n");
    // What can't be read is no file at all.
    fs::rename(&segment, &kept).unwrap();
    disk.close(PATIENCE).await;
    fs::create_dir(&segment).unwrap();
    let mut disk = Disk::start(try_to_open_by(dir.path(), &options).unwrap().directory).unwrap();
    assert!(ask(&mut disk, read(1, 0, 4)).await.starts_with("failed: Is a directory"));
    assert_eq!(ask(&mut disk, append(2, "eight\n")).await, "done", "nothing else is wrong");
}

/// Reads the first byte until the answer is such a one.
async fn until(disk: &mut Disk, good: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = ask(disk, read(99, 0, 1)).await;
        if good(&said) {
            return said;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
}

#[tokio::test]
async fn what_is_given_up_over_several_segments_is_kept_for_people() {
    let dir = TempDir::new().unwrap();
    let options = LogOptions { segment_bytes: 8.try_into().unwrap(), archive_dir: None };
    let opened = try_to_open_by(dir.path(), &options).unwrap();
    let mut disk = Disk::start(opened.directory).unwrap();
    assert_eq!(ask(&mut disk, DiskRequest::Persist { ticket: 1, configuration: configuration(1) }).await, "done");
    assert_eq!(ask(&mut disk, append(2, "one\ntwo\nthree\nfour\nfive\nsix\n")).await, "done");
    assert_eq!(ask(&mut disk, read(3, 2, 15)).await, "e\ntwo\nthree\nfou");
    let store = StoreId(opened.store.0 ^ 1);
    assert_eq!(ask(&mut disk, DiskRequest::GiveUp { ticket: 4, store, bytes: 4 }).await, "done");
    assert_eq!(ask(&mut disk, append(5, "2\n")).await, "done");
    disk.close(PATIENCE).await;
    let place = dir.path().join("order-3");
    let file = |name: &str, content: &str| (name.to_owned(), content.to_owned());
    let aside = [
        file("orders-000000000000000.jsonl.damaged", "one\ntwo\n"),
        file("orders-000000000000008.jsonl.damaged", "three\nfour\n"),
        file("orders-000000000000019.jsonl.damaged", "five\n"),
    ];
    let newest = [file("orders.jsonl", "one\n2\n"), file("orders.jsonl.damaged", "six\n")];
    assert_eq!(journal_files(&place), [&aside[..], &newest].concat());

    // A damaged configuration takes all of it out of the log.
    fs::write(place.join("configuration.json"), "{").unwrap();
    fs::rename(place.join("orders-000000000000008.jsonl.damaged"), place.join("orders-000000000000006.jsonl")).unwrap();
    assert_eq!(try_to_open_by(dir.path(), &options).unwrap().journal_bytes, 0);
    assert!(journal_files(&place).iter().all(|(name, content)| name.ends_with(".damaged") || content.is_empty()));
}

#[tokio::test]
async fn what_is_before_both_snapshots_is_moved_to_the_archive_which_must_be_there() {
    let dir = TempDir::new().unwrap();
    let archive = dir.path().join("archive");
    let (lines, ends) = listings(8);
    let options = LogOptions { segment_bytes: ends[0].try_into().unwrap(), archive_dir: Some(archive.clone()) };
    let text = one_line(&try_to_open_by(dir.path(), &options).unwrap_err());
    assert!(text.contains("is not there: mount or make that directory"), "{text}");
    fs::create_dir(&archive).unwrap();
    let mut disk = Disk::start(try_to_open_by(dir.path(), &options).unwrap().directory).unwrap();
    assert_eq!(ask(&mut disk, DiskRequest::Persist { ticket: 1, configuration: configuration(1) }).await, "done");
    assert_eq!(ask(&mut disk, append(2, &lines)).await, "done");
    let make = |end: usize| DiskRequest::MakeSnapshot { ticket: 3, until: ends[end] };
    assert_eq!(ask(&mut disk, make(2)).await, "made 3");
    assert_eq!(ask(&mut disk, make(5)).await, "made 6");
    assert_eq!(ask(&mut disk, read(4, 0, lines.len())).await, lines);
    assert_eq!(ask(&mut disk, make(6)).await, "made 7");
    let places = [archive.join("order-3"), dir.path().join("order-3")];
    let segments = |dir: &PathBuf| {
        let names = fs::read_dir(dir).into_iter().flatten().map(|file| file.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().ends_with(".jsonl")).count()
    };
    let counts = || [0, 1].map(|place| segments(&places[place]));
    let deadline = Instant::now() + PATIENCE;
    while counts() != [6, 3] {
        assert!(Instant::now() < deadline, "moved: {:?}", counts());
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&mut disk, read(6, 0, lines.len())).await, lines);
    disk.close(PATIENCE).await;
    let text = one_line(&try_to_open_by(dir.path(), &LogOptions::default()).unwrap_err());
    assert!(text.contains("--archive-dir"), "{text}");
    assert_eq!(try_to_open_by(dir.path(), &options).unwrap().journal_bytes, lines.len() as u64);
    // A new disk does not go on with the archive of the old one.
    fs::remove_dir_all(dir.path().join("order-3")).unwrap();
    let text = one_line(&try_to_open_by(dir.path(), &options).unwrap_err());
    assert!(text.contains("move that archive away"), "{text}");
}

#[test]
fn what_a_crash_leaves_half_written_does_not_matter() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).store;
    for name in ["store.json.new", "configuration.json.new", "reserve", "snapshot.new"] {
        fs::write(dir.path().join("order-3").join(name), "{").unwrap();
    }
    assert_eq!(open(dir.path()).store, store);
    assert!(!dir.path().join("order-3/snapshot.new").exists());
}

/// A file system with room for 256 KiB; none where the machine does not let us have one.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path) -> Option<Self> {
        let path = dir.join("small");
        fs::create_dir(&path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&path).output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(Self(path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// How many bytes of a journal are in a replica's directory.
fn journal_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let files = files.filter(|file| file.file_name().to_str().unwrap().ends_with(".jsonl"));
    files.map(|file| file.metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn a_full_disk_takes_nothing_until_it_is_cut_and_can_still_follow_an_epoch() {
    check_full(LogOptions::default()).await;
}

/// What has found no room is cut off again, over the ends of segments too.
#[tokio::test]
async fn a_disk_that_is_full_of_small_segments_does_the_same() {
    check_full(LogOptions { segment_bytes: 70_000.try_into().unwrap(), archive_dir: None }).await;
    check_full(LogOptions { segment_bytes: 10_000.try_into().unwrap(), archive_dir: None }).await;
}

async fn check_full(options: LogOptions) {
    let dir = TempDir::new().unwrap();
    let Some(small) = Small::mount(dir.path()) else {
        eprintln!("SKIPPED: no small file system can be mounted here, so a full disk is not tested");
        return;
    };
    let mut disk = Disk::start(try_to_open_by(&small.0, &options).unwrap().directory).unwrap();
    // Three lines at once, so that some of them find room.
    let line = format!("{0}\n{0}\n{0}\n", "x".repeat(10_000));
    let mut ticket = 0;
    let mut whole = 0;
    loop {
        ticket += 1;
        match ask(&mut disk, append(ticket, &line)).await.as_str() {
            "done" => whole += 1,
            "full" => break,
            said => panic!("{said}"),
        }
    }
    assert!(whole > 0);
    let bytes = whole * line.len() as u64;
    assert_eq!(journal_bytes(&small.0.join("order-3")), bytes, "nothing of it is there");
    assert_eq!(ask(&mut disk, append(ticket + 1, "small\n")).await, "full", "or the journal would have a hole");
    fs::write(small.0.join("filler"), "y".repeat(300_000)).unwrap_err();
    assert_eq!(ask(&mut disk, DiskRequest::Persist { ticket: 100, configuration: configuration(4) }).await, "done");
    assert_eq!(ask(&mut disk, read(101, bytes - 2, 10)).await, "x\n");
    fs::remove_file(small.0.join("filler")).unwrap();
    assert_eq!(ask(&mut disk, DiskRequest::Cut { ticket: 102, bytes: line.len() as u64 }).await, "done");
    assert_eq!(ask(&mut disk, append(103, "small\n")).await, "done");
    disk.close(PATIENCE).await;
    let again = try_to_open_by(&small.0, &options).unwrap();
    assert_eq!((again.journal_bytes, again.configuration), (line.len() as u64 + 6, Some(*configuration(4))));
}

#[tokio::test]
async fn one_file_that_finds_no_room_to_be_split_stays_whole_until_there_is_some() {
    let dir = TempDir::new().unwrap();
    let Some(small) = Small::mount(dir.path()) else {
        eprintln!("SKIPPED: no small file system can be mounted here, so a full disk is not tested");
        return;
    };
    let mut disk = Disk::start(open(&small.0).directory).unwrap();
    assert_eq!(ask(&mut disk, DiskRequest::Persist { ticket: 1, configuration: configuration(1) }).await, "done");
    let lines: String = (0..130).map(|line| format!("{line:999}\n")).collect();
    assert_eq!(ask(&mut disk, append(2, &lines)).await, "done");
    disk.close(PATIENCE).await;
    let place = small.0.join("order-3");
    fs::write(small.0.join("filler"), "y".repeat(300_000)).unwrap_err();
    let options = LogOptions { segment_bytes: 30_000.try_into().unwrap(), archive_dir: None };
    let text = one_line(&try_to_open_by(&small.0, &options).unwrap_err());
    assert!(text.contains("has no room for one more segment of the log: make room"), "{text}");
    let log = |place: &Path| journal_files(place).into_iter().map(|(_, content)| content).collect::<String>();
    assert!(log(&place) == lines);
    fs::remove_file(small.0.join("filler")).unwrap();
    assert_eq!(try_to_open_by(&small.0, &options).unwrap().journal_bytes, 130_000);
    assert_eq!((journal_files(&place).len(), log(&place) == lines), (5, true));
}
