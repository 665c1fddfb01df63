//! Snapshots: what one holds is what its journal says, whatever happens to its file.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod history;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use history::{History, id};
use tradenet_core::exchange::{Exchange, ORDERS_KEPT};
use tradenet_core::replica::snapshot::{BadSnapshot, FORMAT, Header, MakeError, Making, Snapshot};
use tradenet_core::replica::{CATCH_UP_BYTES_PER_S, FAR_BEHIND_ENTRIES, Options, Replica};
use tradenet_core::times::Times;
use tradenet_core::{Decider, DiskAnswer, DiskRequest, Input, Mono, Now, Output, Packet, ReplyTo, Stop};
use tradenet_schemas::ids::{
    Boot, Chain, ClusterId, Epoch, Leader, Member, Node, Nonce, Position, ReplicaId, SeqNum, StoreId,
};
use tradenet_schemas::message::{Configuration, Envelope, Message};
use tradenet_schemas::subjects::Peer;
use xxhash_rust::xxh3::xxh3_64;

const NOW: Now = Now { mono: Mono(1), wall_ms: 0 };

#[test]
fn a_snapshot_of_any_entry_is_the_same_in_however_many_steps_it_is_made_and_goes_on_as_the_journal_does() {
    let history = History::of(1, 400);
    assert!(history.entries.len() > 150, "{}", history.entries.len());
    let (mut replayed, mut before) = (Exchange::new(), None::<Vec<u8>>);
    // Few orders, so that most are too old to be kept.
    let made = |before, until| history.make(Making::keeping(before, until, 7)).unwrap();
    for (entry, end) in history.entries.iter().zip(&history.ends) {
        replayed.apply(entry);
        let whole = made(None, *end);
        let step = before.map(|file| Snapshot::decode(&file).unwrap());
        let stepped = made(step, *end);
        let file = whole.encode();
        assert_eq!(file, stepped.encode(), "entry {}", entry.seq);
        let read = Snapshot::decode(&file).unwrap();
        assert_eq!(read.encode(), file, "what is read is what was written");
        assert_eq!((read.position().seq, read.bytes()), (entry.seq, *end));
        assert_eq!(read.exchange().digest(), replayed.digest(), "entry {}", entry.seq);
        // Asserts each start of an epoch against the state, too.
        let mut goes_on = read.exchange().clone();
        history.entries[usize::try_from(entry.seq.0).unwrap()..].iter().for_each(|later| goes_on.apply(later));
        assert_eq!(goes_on.digest(), history.exchange.digest(), "from entry {}", entry.seq);
        before = Some(file);
    }
}

#[test]
fn a_snapshot_ends_with_the_first_entry_that_reaches_the_byte() {
    let history = History::of(2, 20);
    let (second, third) = (history.ends[1], history.ends[2]);
    let seq = |until| history.snapshot(None, until).unwrap().position().seq;
    assert_eq!((seq(second), seq(second + 1), seq(third)), (SeqNum(2), SeqNum(3), SeqNum(3)));
    let beyond = history.bytes.len() as u64 + 1;
    assert_eq!(history.snapshot(None, beyond).unwrap_err(), MakeError::Short(beyond));
}

#[test]
fn a_flipped_bit_is_found_in_every_byte_of_a_snapshot_and_of_what_it_is_made_of() {
    let history = History::of(3, 60);
    let end = *history.ends.last().unwrap();
    let file = history.snapshot(None, end).unwrap().encode();
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1 << (at % 8);
        assert_eq!(Snapshot::decode(&bad).unwrap_err(), BadSnapshot::Damaged, "byte {at}");
        assert_eq!(Snapshot::decode(&file[..at]).unwrap_err(), BadSnapshot::Damaged, "cut at {at}");
    }
    for at in 0..history.bytes.len() {
        let mut bad = History { bytes: history.bytes.clone(), ..History::default() };
        bad.bytes[at] ^= 1 << (at % 8);
        let line = history.ends.partition_point(|end| *end <= at as u64);
        let begins = line.checked_sub(1).map_or(0, |before| history.ends[before]);
        match bad.snapshot(None, end).unwrap_err() {
            MakeError::Rotten { byte, .. } => assert_eq!(byte, begins, "byte {at}"),
            // The last line feed: nothing says that there was to be one.
            MakeError::Short(_) => assert_eq!(at + 1, history.bytes.len()),
            other => panic!("byte {at}: {other}"),
        }
    }
}

/// Whoever changes what is in a snapshot finds out here: give it another [`FORMAT`], and then this other numbers.
#[test]
fn a_change_of_what_is_in_a_snapshot_has_another_form() {
    let history = History::of(4, 300);
    let file = history.snapshot(None, *history.ends.last().unwrap()).unwrap().encode();
    assert_eq!(Header::read(&file).unwrap().snapshot, FORMAT);
    assert_eq!((FORMAT, file.len(), format!("{:016x}", xxh3_64(&file))), golden());
}

/// Whoever takes over a snapshot has lines that it has not read: one of an older release must not, where they say what it does not
/// know. So all that is new in a line is a new [`FORMAT`], too: a kind of event, a field, a value.
#[test]
fn what_a_line_may_say_has_another_form() {
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.remove("description");
                fields.values_mut().for_each(strip);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut schema = serde_json::from_str(include_str!("../../../schemas/journal/Entry.json")).unwrap();
    strip(&mut schema);
    let print = format!("{:016x}", xxh3_64(schema.to_string().as_bytes()));
    assert_eq!((FORMAT, print.as_str()), (3, "88947282fbc080c9"));
}

#[test]
fn a_snapshot_of_another_form_or_journal_is_told_apart() {
    let (history, other) = (History::of(5, 30), History::of(6, 30));
    let snapshot = history.snapshot(None, history.ends[9]).unwrap();
    let (offset, length) = snapshot.last_line();
    let line = |history: &History| {
        let start = usize::try_from(offset).unwrap();
        history.bytes[start..(start + length).min(history.bytes.len())].to_vec()
    };
    assert!(snapshot.is_of(&line(&history)));
    assert!(!snapshot.is_of(&line(&other)));
    assert!(!snapshot.is_of(b""));
    let text = String::from_utf8(snapshot.encode()[..13].to_vec()).unwrap();
    assert_eq!(text, format!("{{\"snapshot\":{FORMAT}"));
    let mut newer = snapshot.encode();
    newer.truncate(newer.len() - 8);
    newer[12] += 1;
    newer.extend_from_slice(&xxh3_64(&newer).to_le_bytes());
    assert_eq!(Snapshot::decode(&newer).unwrap_err(), BadSnapshot::OtherForm(FORMAT + 1));
}

/// A replica's directory, and what is asked of it beside.
#[derive(Clone)]
struct Place {
    journal: Vec<u8>,
    /// Newest first.
    snapshots: Vec<Vec<u8>>,
    notices: Vec<String>,
    asked: Vec<DiskRequest>,
    stopped: Option<Stop>,
    replies: Vec<Packet>,
    bytes_read: usize,
    /// The other replicas' journals.
    others: Vec<(u8, Vec<u8>)>,
}

impl Place {
    fn new(journal: &[u8], snapshots: Vec<Vec<u8>>) -> Self {
        let (notices, asked, replies) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            journal: journal.to_vec(),
            snapshots,
            notices,
            asked,
            stopped: None,
            replies,
            bytes_read: 0,
            others: Vec::new(),
        }
    }

    /// A replica that was in sync starts here, and reads all that it wants to.
    fn start(&mut self) -> Replica {
        let leader = Leader { id: id(1), boot: Boot(1) };
        let configuration = Configuration {
            cluster: ClusterId(1),
            epoch: Epoch(2),
            nonce: Nonce(1),
            leader,
            in_sync: vec![Member { id: id(1), store: StoreId(1) }],
            members: vec![id(1)],
            follows: Vec::new(),
            by: Node::Frontend(Boot(1)),
            why: String::new(),
            at: 0,
        };
        let mut replica = Replica::new(Options {
            id: id(1),
            boot: Boot(77),
            store: StoreId(1),
            members: std::iter::once(id(1)).chain(self.others.iter().map(|(other, _)| id(*other))).collect(),
            times: Times::default(),
            configuration: Some(configuration),
            journal_bytes: self.journal.len() as u64,
            snapshot_every_bytes: 1 << 40,
            orders_kept: ORDERS_KEPT,
            far_behind_entries: FAR_BEHIND_ENTRIES,
            catch_up_bytes_per_s: CATCH_UP_BYTES_PER_S,
        });
        self.settle(&mut replica);
        replica
    }

    /// So much later than [`NOW`] something is looked at.
    fn pass(&mut self, replica: &mut Replica, later: Duration) {
        replica.handle(Now { mono: NOW.mono.after(later), ..NOW }, Input::Timer);
        self.settle(replica);
    }

    /// What another replica answers that has that journal.
    fn answer(&self, of: ReplicaId, asked: Position) -> Input {
        let (_, journal) = self.others.iter().find(|(other, _)| id(*other) == of).unwrap();
        let (tail, committed) = (SeqNum(25), SeqNum(25));
        let mut scan = tradenet_core::journal::scan(journal, Position::default());
        while scan.position() != asked && scan.next().is_some() {}
        let lines = Bytes::copy_from_slice(scan.rest());
        let body = Message::Chunk { asked, prev: asked, tail, committed };
        let envelope = Envelope { cluster: Some(ClusterId(1)), epoch: Epoch(2), from: Node::Order(of, Boot(9)), body };
        Input::Received { packet: Packet::new(envelope, lines), reply: None }
    }

    fn settle(&mut self, replica: &mut Replica) {
        while let Some(output) = replica.poll_output() {
            match output {
                Output::Disk(request) => {
                    if let Some(answer) = self.perform(&request) {
                        replica.handle(NOW, Input::Disk(answer));
                    }
                    self.asked.push(request);
                }
                Output::Notice(notice) => self.notices.push(notice.text),
                Output::Stop(stop) => self.stopped = Some(stop),
                Output::Reply { packet, .. } => self.replies.push(packet),
                Output::Send { to: Peer::Order(of), packet } => {
                    if let Message::Fetch { from, .. } = packet.body() {
                        replica.handle(NOW, self.answer(of, *from));
                    }
                }
                _ => {}
            }
        }
    }

    /// What a peer gets that asks for the entries behind `from`.
    fn fetch(&mut self, replica: &mut Replica, from: Position) -> Option<Packet> {
        let (cluster, epoch) = (Some(ClusterId(1)), Epoch(2));
        let asks = Envelope {
            cluster,
            epoch,
            from: Node::Order(id(1), Boot(3)),
            body: Message::Fetch { from, bytes_max: None },
        };
        let (packet, reply) = (Packet::new(asks, Bytes::new()), Some(ReplyTo(Arc::from("peer"))));
        replica.handle(NOW, Input::Received { packet, reply });
        self.settle(replica);
        self.replies.pop()
    }

    fn perform(&mut self, request: &DiskRequest) -> Option<DiskAnswer> {
        Some(match *request {
            DiskRequest::Read { ticket, offset, bytes_max } => {
                let rest = &self.journal[usize::try_from(offset).unwrap()..];
                let bytes = Bytes::copy_from_slice(&rest[..rest.len().min(bytes_max)]);
                self.bytes_read += bytes.len();
                DiskAnswer::Read { ticket, bytes }
            }
            DiskRequest::LoadSnapshot { ticket, skip } => {
                let file = self.snapshots.get(skip).map(|file| (format!("snapshot-{skip}"), file.clone().into()));
                DiskAnswer::Loaded { ticket, file }
            }
            DiskRequest::Rewrite { ticket, offset, ref lines } => {
                let start = usize::try_from(offset).unwrap();
                self.journal[start..start + lines.len()].copy_from_slice(lines);
                DiskAnswer::Done { ticket, took: Duration::ZERO }
            }
            DiskRequest::GiveUp { ticket, .. } | DiskRequest::DropSnapshots { ticket, .. } => {
                DiskAnswer::Done { ticket, took: Duration::ZERO }
            }
            _ => return None,
        })
    }
}

#[test]
fn a_start_takes_the_newest_snapshot_that_is_good_and_none_that_is_not() {
    let history = History::of(7, 200);
    let whole = history.bytes.len();
    let at = |entry: usize| history.snapshot(None, history.ends[entry - 1]).unwrap().encode();
    let flipped = |mut file: Vec<u8>| {
        let at = file.len() / 2;
        file[at] ^= 4;
        file
    };
    let other = History::of(8, 200);
    let of_other = other.snapshot(None, other.ends[49]).unwrap().encode();
    let check = |snapshots: Vec<Vec<u8>>, from: usize, passed_over: usize| {
        let mut place = Place::new(&history.bytes, snapshots);
        let replica = place.start();
        assert_eq!(replica.tail().seq, history.exchange.applied(), "{:?}", place.notices);
        assert_eq!(replica.committed(), SeqNum(from as u64), "what is in a snapshot is committed");
        assert_eq!(replica.exchange().applied(), SeqNum(from as u64));
        let mut state = replica.exchange().clone();
        history.entries[from..].iter().for_each(|entry| state.apply(entry));
        assert_eq!(state.digest(), history.exchange.digest());
        assert_eq!(place.notices.iter().filter(|text| text.contains("is passed over")).count(), passed_over);
        let line = |end: usize| usize::try_from(history.ends[end]).unwrap();
        let read = if from == 0 { whole } else { whole - line(from - 1) };
        assert!(place.bytes_read < read + 2_000, "{} bytes were read where {read} are new", place.bytes_read);
    };
    check(vec![], 0, 0);
    check(vec![at(60)], 60, 0);
    check(vec![at(60), at(30)], 60, 0);
    check(vec![flipped(at(60)), at(30)], 30, 1);
    check(vec![flipped(at(60)), flipped(at(30))], 0, 2);
    check(vec![of_other, at(30)], 30, 1);
    check(vec![Vec::new(), b"{}\n".to_vec()], 0, 2);
    check(vec![at(history.entries.len())], history.entries.len(), 0);
}

#[test]
fn a_journal_that_ends_before_a_snapshot_does_is_read_from_its_beginning() {
    let history = History::of(9, 100);
    let snapshot = history.snapshot(None, history.ends[40]).unwrap().encode();
    let mut place = Place::new(&history.bytes[..usize::try_from(history.ends[20]).unwrap()], vec![snapshot]);
    assert_eq!(place.start().tail().seq, SeqNum(21));
    assert!(place.notices.iter().any(|text| text.contains("does not hold the entry")), "{:?}", place.notices);
}

#[test]
fn damage_behind_a_snapshot_is_found_at_the_start_and_the_rest_is_given_up() {
    let mut history = History::of(10, 200);
    let snapshot = history.snapshot(None, history.ends[40]).unwrap().encode();
    let start = history.ends[50];
    history.bytes[usize::try_from(start).unwrap() + 70] ^= 1;
    let mut place = Place::new(&history.bytes, vec![snapshot]);
    assert_eq!(place.start().tail().seq, SeqNum(51));
    let gave_up = |request: &DiskRequest| matches!(request, DiskRequest::GiveUp { bytes, .. } if *bytes == start);
    assert!(place.asked.iter().any(gave_up), "{:?}", place.asked);
}

#[test]
fn a_peer_gets_entries_from_before_the_snapshot_and_none_that_went_bad() {
    let history = History::of(11, 200);
    let snapshot = history.snapshot(None, history.ends[60]).unwrap().encode();
    let line = |entry: usize| usize::try_from(history.ends[entry - 1]).unwrap();
    let mut scan = tradenet_core::journal::scan(&history.bytes, Position::default());
    let position = scan.find_map(|line| line.ok().map(|line| line.position).filter(|at| at.seq == SeqNum(20))).unwrap();
    let mut place = Place::new(&history.bytes, vec![snapshot.clone()]);
    let mut replica = place.start();
    let check = |packet: Option<Packet>, from: Position, lines: &[u8]| {
        let packet = packet.unwrap();
        match packet.body() {
            Message::Chunk { asked, prev, .. } => assert_eq!((*asked, *prev), (position, from)),
            other => panic!("{other:?}"),
        }
        assert!(packet.lines == lines);
    };
    check(place.fetch(&mut replica, position), position, &history.bytes[line(20)..]);
    // One that says the same but for the chain can't be: it is sent down to where the logs agree.
    let asked = Position { chain: Chain(1), ..position };
    let sent_down = place.fetch(&mut replica, asked).unwrap();
    assert!(matches!(sent_down.body(), Message::Chunk { prev, .. } if *prev == Position::default()));
    assert_eq!(place.stopped, None);

    let mut bad = history.bytes.clone();
    bad[line(10) + 90] ^= 1;
    let mut place = Place::new(&bad, vec![snapshot]);
    let mut replica = place.start();
    assert_eq!(replica.tail().seq, history.exchange.applied(), "the start had no need to look there");
    assert!(place.fetch(&mut replica, position).is_none(), "nothing is given of what is damaged");
    place.pass(&mut replica, Duration::from_secs(1));
    assert!(place.notices.iter().any(|text| text.contains("rotted at line 11, ")), "{:?}", place.notices);
    assert!(place.notices.iter().any(|text| text.contains("no other replica has line 11 of ")), "{:?}", place.notices);
    assert_eq!(place.stopped, None, "what it has applied is right");
}

#[test]
fn every_bit_that_rots_under_a_running_replica_is_found_and_got_back_from_another() {
    let history = History::of(12, 25);
    let snapshot = history.snapshot(None, *history.ends.last().unwrap()).unwrap().encode();
    let mut first = Place::new(&history.bytes, vec![snapshot]);
    first.others = vec![(2, vec![0; 9]), (3, history.bytes.clone())];
    let replica = first.start();
    for byte in 0..history.bytes.len() {
        let (mut place, mut replica) = (first.clone(), replica.clone());
        place.journal[byte] ^= 1 << (byte % 8);
        for second in 0..4 {
            place.pass(&mut replica, Duration::from_secs(second * 3));
        }
        assert!(place.journal == history.bytes, "byte {byte}: {:?}", place.notices);
        let line = 1 + history.ends.partition_point(|end| *end <= byte as u64);
        let found = format!("rotted at line {line}, ");
        let told = |wanted: &str| place.notices.iter().filter(|text| text.contains(wanted)).count();
        assert_eq!((told(&found), told("is repaired at line"), told("from order-3")), (1, 1, 1), "{:?}", place.notices);
        assert_eq!(place.stopped, None);
    }
}

#[test]
fn rot_is_mended_by_one_who_has_the_line_and_behind_it_others_that_were_never_committed() {
    let history = History::of(13, 25);
    let snapshot = history.snapshot(None, *history.ends.last().unwrap()).unwrap().encode();
    let (astray, common) = history.astray();
    let end = |entry: usize| usize::try_from(history.ends[entry - 1]).unwrap();
    let check = |byte: usize, mended: bool| {
        let mut place = Place::new(&history.bytes, vec![snapshot.clone()]);
        place.others = vec![(2, astray.clone())];
        let mut replica = place.start();
        place.journal[byte] ^= 4;
        place.pass(&mut replica, Duration::from_secs(3));
        assert_eq!(place.journal == history.bytes, mended, "byte {byte}: {:?}", place.notices);
    };
    for entry in 1..=common {
        check(end(entry) - 20, true);
    }
    check(end(common + 1) - 20, false);
}

/// Form, length and checksum of a snapshot.
fn golden() -> (u32, usize, String) {
    (3, 11_588, "dd6c1b58b023e562".to_owned())
}
