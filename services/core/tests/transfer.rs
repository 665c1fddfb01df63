//! A replica that is far behind takes over a peer's snapshot, and is then what one is that read every line.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod history;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use history::{History, id};
use tradenet_core::exchange::ORDERS_KEPT;
use tradenet_core::replica::snapshot::{Header, SnapshotPart};
use tradenet_core::replica::{Options, Replica};
use tradenet_core::times::Times;
use tradenet_core::{Decider, DiskAnswer, DiskRequest, Input, Mono, Now, Output, Packet, ReplyTo, Stop};
use tradenet_schemas::ids::{Boot, Chain, ClusterId, Epoch, Leader, Member, Node, Nonce, Position, SeqNum, StoreId};
use tradenet_schemas::message::{Configuration, Envelope, Message};
use tradenet_schemas::subjects::Peer;

const LEARNER: u8 = 1;
const LEADER: u8 = 3;
/// As long as a replica needs that has to give up one way and try the other.
const TICKS: u64 = 400;
const TICK: Duration = Duration::from_millis(25);

fn configuration() -> Configuration {
    let member = |n: u8| Member { id: id(n), store: StoreId(n.into()) };
    Configuration {
        cluster: ClusterId(1),
        epoch: Epoch(2),
        nonce: Nonce(1),
        leader: leader(),
        in_sync: vec![member(2), member(3)],
        members: vec![id(1), id(2), id(3)],
        follows: Vec::new(),
        by: Node::Frontend(Boot(1)),
        why: String::new(),
        at: 0,
    }
}

fn leader() -> Leader {
    Leader { id: id(LEADER), boot: Boot(u64::from(LEADER)) }
}

fn said_by_leader(epoch: u64, body: Message) -> Input {
    let from = Node::Order(leader().id, leader().boot);
    let envelope = Envelope { cluster: Some(ClusterId(1)), epoch: Epoch(epoch), from, body };
    Input::Received { packet: Packet::new(envelope, Bytes::new()), reply: None }
}

/// A replica and its directory.
struct Place {
    number: u8,
    journal: Vec<u8>,
    /// Newest first.
    snapshots: Vec<Vec<u8>>,
    replica: Replica,
    notices: Vec<String>,
    stopped: Option<Stop>,
    /// It does not answer so many requests for lines.
    deaf: usize,
    /// It answers so many requests for a snapshot.
    gives: usize,
}

impl Place {
    fn new(number: u8, journal: &[u8], snapshots: Vec<Vec<u8>>, rate: u64) -> Self {
        let replica = Replica::new(Options {
            id: id(number),
            boot: Boot(number.into()),
            store: StoreId(if number == LEARNER { 77 } else { number.into() }),
            members: vec![id(1), id(2), id(3)],
            times: Times::default(),
            configuration: Some(configuration()),
            journal_bytes: journal.len() as u64,
            snapshot_every_bytes: 1 << 40,
            orders_kept: ORDERS_KEPT,
            far_behind_entries: 20,
            catch_up_bytes_per_s: rate,
        });
        let (journal, notices, stopped) = (journal.to_vec(), Vec::new(), None);
        Self { number, journal, snapshots, replica, notices, stopped, deaf: 0, gives: usize::MAX }
    }

    fn perform(&mut self, request: DiskRequest) -> Option<DiskAnswer> {
        let place = |offset: u64| usize::try_from(offset).unwrap();
        let done = |ticket| DiskAnswer::Done { ticket, took: Duration::ZERO };
        Some(match request {
            DiskRequest::Read { ticket, offset, bytes_max } => {
                let rest = &self.journal[place(offset)..];
                DiskAnswer::Read { ticket, bytes: Bytes::copy_from_slice(&rest[..rest.len().min(bytes_max)]) }
            }
            DiskRequest::LoadSnapshot { ticket, skip } => {
                let file = self.snapshots.get(skip).map(|file| (format!("snapshot-{skip}"), file.clone().into()));
                DiskAnswer::Loaded { ticket, file }
            }
            DiskRequest::ReadSnapshot { ticket, seq, offset, bytes_max } => {
                let header = |file: &Vec<u8>| Header::read(file).unwrap();
                let mut files = self.snapshots.iter();
                let part = files.find(|file| seq.is_none_or(|seq| header(file).seq == seq)).map(|file| {
                    let rest = &file[place(offset).min(file.len())..];
                    let bytes = Bytes::copy_from_slice(&rest[..rest.len().min(bytes_max)]);
                    SnapshotPart { header: header(file), size_bytes: file.len() as u64, bytes }
                });
                DiskAnswer::SnapshotRead { ticket, part }
            }
            DiskRequest::SaveSnapshot { ticket, file, .. } => {
                self.snapshots.insert(0, file.to_vec());
                done(ticket)
            }
            DiskRequest::Append { ticket, lines } => {
                self.journal.extend_from_slice(&lines);
                done(ticket)
            }
            DiskRequest::Cut { ticket, bytes } => {
                self.journal.truncate(place(bytes));
                done(ticket)
            }
            DiskRequest::Persist { ticket, .. } => done(ticket),
            _ => return None,
        })
    }
}

/// Some replicas between which every message arrives.
struct Exchange {
    places: Vec<Place>,
    now: Now,
    /// So many more requests of the learner to its disk are carried out.
    left: usize,
}

impl Exchange {
    fn at(&mut self, number: u8) -> &mut Place {
        self.places.iter_mut().find(|place| place.number == number).unwrap()
    }

    fn give(&mut self, to: u8, input: Input) {
        let mut waiting = VecDeque::from([(to, input)]);
        while let Some((to, input)) = waiting.pop_front() {
            let now = self.now;
            let place = self.at(to);
            let lines =
                matches!(&input, Input::Received { packet, .. } if matches!(packet.body(), Message::Fetch { .. }));
            if lines && place.deaf > 0 {
                place.deaf -= 1;
                continue;
            }
            if matches!(&input, Input::Received { packet, .. } if matches!(packet.body(), Message::FetchSnapshot { .. }))
            {
                match place.gives.checked_sub(1) {
                    Some(left) => place.gives = left,
                    None => continue,
                }
            }
            place.replica.handle(now, input);
            while let Some(output) = self.at(to).replica.poll_output() {
                match output {
                    Output::Disk(request) => {
                        if to == LEARNER {
                            match self.left.checked_sub(1) {
                                Some(left) => self.left = left,
                                None => return, // It is killed.
                            }
                        }
                        let place = self.at(to);
                        if let Some(answer) = place.perform(request) {
                            place.replica.handle(now, Input::Disk(answer));
                        }
                    }
                    Output::Notice(notice) => self.at(to).notices.push(notice.text),
                    Output::Stop(stop) => self.at(to).stopped = Some(stop),
                    Output::Send { to: Peer::Order(peer), packet } if to == LEARNER => {
                        let reply = Some(ReplyTo(Arc::from("learner")));
                        waiting.push_back((peer.get(), Input::Received { packet, reply }));
                    }
                    Output::Reply { packet, .. } => {
                        waiting.push_back((LEARNER, Input::Received { packet, reply: None }));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The leader says where its log ends, again and again; time passes.
    fn catch_up(&mut self, end: Position) {
        for _ in 0..TICKS {
            self.now = Now { mono: self.now.mono.after(TICK), ..self.now };
            let body =
                Message::Append { leader: leader(), configuration: None, prev: end, committed: end.seq, round: 1 };
            self.give(LEARNER, said_by_leader(2, body));
            self.give(LEARNER, Input::Timer);
            if self.left == 0 {
                return;
            }
        }
    }
}

fn end_of(journal: &[u8]) -> Position {
    tradenet_core::journal::scan(journal, Position::default()).last().unwrap().unwrap().position
}

/// What the replicas have: their journals and snapshots, the newest first; and how many requests for lines each leaves without an
/// answer.
#[derive(Clone)]
struct Have {
    learner: Vec<u8>,
    two: (Vec<u8>, Vec<Vec<u8>>, usize),
    leader: (Vec<u8>, Vec<Vec<u8>>, usize),
    rate: u64,
}

impl Have {
    /// The learner nothing, the others everything, and a snapshot of all but the last entries; it takes its time.
    fn nearly_all(history: &History) -> Self {
        let end = history.ends[history.entries.len() - 11];
        let whole = (history.bytes.clone(), vec![history.snapshot(None, end).unwrap().encode()], 0);
        Self { learner: Vec::new(), two: whole.clone(), leader: whole, rate: 100_000 }
    }

    fn exchange(&self) -> Exchange {
        let place = |number, (journal, snapshots, deaf): &(Vec<u8>, Vec<Vec<u8>>, usize)| Place {
            deaf: *deaf,
            ..Place::new(number, journal, snapshots.clone(), self.rate)
        };
        let learner = Place::new(LEARNER, &self.learner, Vec::new(), self.rate);
        let places = vec![learner, place(2, &self.two), place(LEADER, &self.leader)];
        let mut exchange = Exchange { places, now: Now { mono: Mono(1), wall_ms: 0 }, left: usize::MAX };
        (1..=3).for_each(|number| exchange.give(number, Input::Connected));
        exchange
    }
}

fn is_whole(exchange: &mut Exchange, history: &History, what: &str) {
    let end = end_of(&history.bytes);
    let learner = exchange.at(LEARNER);
    assert_eq!(learner.stopped, None, "{what}: {:?}", learner.notices);
    assert_eq!(learner.replica.tail(), end, "{what}: {:?}", learner.notices);
    assert!(learner.journal == history.bytes, "{what}");
    assert_eq!(learner.replica.exchange().applied(), end.seq, "{what}: {:?}", learner.notices);
    assert_eq!(learner.replica.exchange().digest(), history.exchange.digest(), "{what}");
}

#[test]
fn who_is_far_behind_takes_over_a_snapshot_that_is_good_and_no_other() {
    let history = History::of(21, 400);
    let (astray, common) = history.astray();
    let at = |entry: usize| history.snapshot(None, history.ends[entry - 1]).unwrap().encode();
    let up_to = |entry: usize| history.bytes[..usize::try_from(history.ends[entry - 1]).unwrap()].to_vec();
    let whole = || history.bytes.clone();
    let (late, early) = (history.entries.len() - 10, history.entries.len() - 60);
    let damaged = |mut file: Vec<u8>| {
        let middle = file.len() / 2;
        file[middle] ^= 4;
        file
    };
    let other = History::of(22, 400);
    let of_other = other.snapshot(None, other.ends[other.entries.len() - 5]).unwrap().encode();
    let usual = Have {
        learner: Vec::new(),
        two: (whole(), vec![at(late), at(early)], 0),
        leader: (whole(), vec![at(late)], 0),
        rate: 64 << 20,
    };
    // A learner's journal may go back to before what the others forget, and a follower's may be shorter than the leader's.
    // The newest that was taken over last is the first that the next start looks at.
    let check = |what: &str, have: Have, takes: &[usize]| {
        let mut exchange = have.exchange();
        exchange.catch_up(end_of(&history.bytes));
        is_whole(&mut exchange, &history, what);
        let learner = exchange.at(LEARNER);
        let kept: Vec<_> =
            learner.snapshots.iter().map(|file| usize::try_from(Header::read(file).unwrap().seq.0).unwrap()).collect();
        assert_eq!(kept, takes, "{what}: {:?}", learner.notices);
        assert!(learner.snapshots.iter().zip(takes).all(|(file, entry)| *file == at(*entry)), "{what}");
    };
    check("an empty one", usual.clone(), &[late]);
    check("slowly, in many parts", Have { rate: 40_000, ..usual.clone() }, &[late]);
    check("one that was away", Have { learner: up_to(50), ..usual.clone() }, &[late]);
    check("one that missed little", Have { learner: up_to(late - 5), ..usual.clone() }, &[]);
    check(
        "nobody has a snapshot",
        Have { two: (whole(), vec![], 0), leader: (whole(), vec![], 0), ..usual.clone() },
        &[],
    );
    check("only the leader has one", Have { two: (whole(), vec![], 0), ..usual.clone() }, &[late]);
    check("a damaged one", Have { two: (whole(), vec![damaged(at(late))], 0), ..usual.clone() }, &[late]);
    let newer = |mut file: Vec<u8>| {
        file[12] += 1;
        file
    };
    let both = |file: &dyn Fn(Vec<u8>) -> Vec<u8>| Have {
        two: (whole(), vec![file(at(late))], 0),
        leader: (whole(), vec![file(at(late))], 0),
        ..usual.clone()
    };
    check("two damaged ones", both(&damaged), &[]);
    check("two of another release", both(&newer), &[]);
    check("one of another journal", Have { two: (whole(), vec![of_other], 0), ..usual.clone() }, &[late]);
    check("a follower that is behind", Have { two: (up_to(early + 5), vec![at(early)], 0), ..usual.clone() }, &[early]);
    check("a follower that answers late", Have { two: (whole(), vec![at(late)], 1), ..usual.clone() }, &[late]);
    // The leader misses the first requests for lines, so that the other is asked, which has others.
    let strays = (astray.clone(), vec![], 0);
    check(
        "lines that were never committed",
        Have { two: strays, leader: (whole(), vec![at(late)], 1), ..usual.clone() },
        &[late],
    );
    // Only the leader may say that what is there goes.
    let own = astray[..astray.len() / 2].to_vec();
    assert!(common < history.entries.len() / 2 + 60, "it has lines that the leader does not have");
    check("own lines that were never committed", Have { learner: own, ..usual }, &[late]);
}

#[test]
fn who_is_killed_while_it_takes_a_snapshot_over_goes_on_with_what_it_has() {
    let history = History::of(23, 300);
    let have = Have::nearly_all(&history);
    let mut lives = 0;
    for requests in 0.. {
        let mut exchange = have.exchange();
        exchange.left = requests;
        exchange.catch_up(end_of(&history.bytes));
        let done = exchange.left > 0;
        exchange.left = usize::MAX;
        let Place { journal, snapshots, notices, .. } = exchange.at(LEARNER);
        let (journal, snapshots) = (std::mem::take(journal), std::mem::take(snapshots));
        assert!(history.bytes.starts_with(&journal), "what is copied is a good beginning: {notices:?}");
        let had = journal.len();
        *exchange.at(LEARNER) = Place::new(LEARNER, &journal, snapshots, have.rate);
        exchange.give(LEARNER, Input::Connected);
        exchange.catch_up(end_of(&history.bytes));
        is_whole(&mut exchange, &history, &format!("killed at request {requests}, with {had} bytes"));
        lives += usize::from(had > 0 && had < history.bytes.len());
        if done {
            break;
        }
    }
    assert!(lives > 5, "it was killed with a part of the journal {lives} times");
}

#[test]
fn who_gives_no_snapshot_or_no_more_of_it_is_not_waited_for() {
    let history = History::of(26, 400);
    let have = Have::nearly_all(&history);
    let check = |two: usize, leader: usize, takes: bool| {
        let mut exchange = have.exchange();
        exchange.at(2).gives = two;
        exchange.at(LEADER).gives = leader;
        exchange.catch_up(end_of(&history.bytes));
        is_whole(&mut exchange, &history, &format!("{two} and {leader} parts"));
        assert_eq!(!exchange.at(LEARNER).snapshots.is_empty(), takes, "{two} and {leader} parts");
    };
    // Those of older releases drop what they do not know.
    check(0, 0, false);
    check(2, 0, false);
    check(2, 1, false);
    check(0, usize::MAX, true);
    check(2, usize::MAX, true);
}

/// An operator has accepted that what only others had is lost.
#[test]
fn who_copies_what_the_leader_has_no_more_follows_the_leader() {
    let history = History::of(27, 400);
    let (astray, common) = history.astray();
    let mut have = Have { leader: (astray.clone(), vec![], 0), ..Have::nearly_all(&history) };
    have.two.2 = 3;
    let mut exchange = have.exchange();
    exchange.catch_up(end_of(&astray));
    let learner = exchange.at(LEARNER);
    let told = |text: &str| learner.notices.iter().any(|notice| notice.contains(text));
    assert!(told("the leader's log is another one"), "it had copied up to {common}: {:?}", learner.notices);
    assert!(learner.journal == astray && learner.stopped.is_none(), "{:?}", learner.notices);
}

/// Such as where the register was lost with all records, and an operator had it written anew.
#[test]
fn who_is_counted_on_while_it_copies_ends_and_reads_what_it_has_at_the_next_start() {
    let history = History::of(25, 300);
    let have = Have::nearly_all(&history);
    let mut exchange = have.exchange();
    exchange.left = 8;
    exchange.catch_up(end_of(&history.bytes));
    let copied = exchange.at(LEARNER).journal.clone();
    assert!(!copied.is_empty() && copied.len() < history.bytes.len());
    exchange.left = usize::MAX;
    let mut newer = Configuration { epoch: Epoch(3), nonce: Nonce(2), ..configuration() };
    newer.in_sync.push(Member { id: id(LEARNER), store: StoreId(77) });
    exchange.give(LEARNER, said_by_leader(3, Message::Announce(Box::new(newer))));
    let learner = exchange.at(LEARNER);
    assert!(
        matches!(&learner.stopped, Some(Stop::Broken(why)) if why.contains("Start it again")),
        "{:?}",
        learner.stopped
    );
    assert!(learner.journal == copied, "what is copied is committed, and stays");
    let mut next = Place::new(LEARNER, &copied, Vec::new(), have.rate);
    std::mem::swap(exchange.at(LEARNER), &mut next);
    exchange.give(LEARNER, Input::Connected);
    assert_eq!(
        usize::try_from(exchange.at(LEARNER).replica.tail().seq.0).unwrap(),
        history.ends.partition_point(|end| *end <= copied.len() as u64)
    );
}

#[test]
fn a_peer_gives_no_part_of_a_snapshot_that_is_not_of_its_journal() {
    let history = History::of(24, 200);
    let snapshot = history.snapshot(None, history.ends[99]).unwrap();
    let check = |journal: &[u8], of: Option<Position>, given: bool| {
        let mut place = Place::new(2, journal, vec![snapshot.encode()], 1);
        let mut reply = None;
        let body = Message::FetchSnapshot { of, offset: 7, bytes_max: 100 };
        let from = Node::Order(id(1), Boot(9));
        let envelope = Envelope { cluster: Some(ClusterId(1)), epoch: Epoch(2), from, body };
        let packet = Packet::new(envelope, Bytes::new());
        let asks = Input::Received { packet, reply: Some(ReplyTo(Arc::from("peer"))) };
        for input in [Input::Connected, asks] {
            place.replica.handle(Now { mono: Mono(1), wall_ms: 0 }, input);
            while let Some(output) = place.replica.poll_output() {
                match output {
                    Output::Disk(request) => {
                        let answer = place.perform(request).unwrap();
                        place.replica.handle(Now { mono: Mono(1), wall_ms: 0 }, Input::Disk(answer));
                    }
                    Output::Reply { packet, .. } => reply = Some(packet),
                    _ => {}
                }
            }
        }
        let reply = reply.unwrap();
        let Message::SnapshotPart { of, size_bytes, offset: 7 } = *reply.body() else { panic!("{reply:?}") };
        let file = snapshot.encode();
        let expected = match given {
            true => (Some(snapshot.position()), file.len() as u64, &file[7..107]),
            false => (None, 0, &[][..]),
        };
        assert_eq!((of, size_bytes, &reply.lines[..]), expected);
    };
    let shorter = &history.bytes[..usize::try_from(history.ends[98]).unwrap()];
    check(&history.bytes, None, true);
    check(&history.bytes, Some(snapshot.position()), true);
    check(&history.bytes, Some(Position { chain: Chain(1), ..snapshot.position() }), false);
    check(&history.bytes, Some(Position { seq: SeqNum(7), ..snapshot.position() }), false);
    check(shorter, None, false);
}
