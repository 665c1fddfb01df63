//! What a start costs: from the journal's first byte, and from a snapshot with 64 MiB of journal behind it.
//!
//! `cargo bench -p tradenet-core --bench restart -- [MILLIONS]` prints a table. A follower starts on a journal in memory, and has
//! started when it has applied all that its leader calls committed: the disk's part is left out. No harness: one start takes seconds.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

use std::time::Instant;

use bytes::Bytes;
use tradenet_core::exchange::{Decision, Exchange};
use tradenet_core::replica::snapshot::{Making, SNAPSHOT_EVERY_BYTES, Snapshot};
use tradenet_core::replica::{Options, Replica};
use tradenet_core::times::Times;
use tradenet_core::{Decider, DiskAnswer, DiskRequest, Input, Mono, Now, Output, Packet, journal};
use tradenet_schemas::ids::{Boot, Chain, ClusterId, Epoch, Leader, Member, Node, Nonce, ReplicaId, SeqNum, StoreId};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::message::{Configuration, Envelope, Message};
use tradenet_schemas::trade::{Command, CommandKey, Price, Quantity, Side, Stock, Symbol};

const NOW: Now = Now { mono: Mono(1_000_000), wall_ms: 0 };

fn main() {
    // Cargo's own arguments are no numbers.
    let millions = std::env::args().find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(1.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of orders")]
    let orders = (millions * 1e6) as u64;
    let journal = journal_of(orders);
    let length = journal.len() as u64;
    println!("{orders} orders: {} MB of journal", length / 1_000_000);
    let (whole, _) = timed(|| start(&journal, None));
    println!("from the first byte         {whole:>8.2} s");
    let until = (length.saturating_sub(SNAPSHOT_EVERY_BYTES)) / SNAPSHOT_EVERY_BYTES * SNAPSHOT_EVERY_BYTES;
    if until == 0 {
        return println!("no snapshot: the journal is shorter than {} MB", 2 * SNAPSHOT_EVERY_BYTES / 1_000_000);
    }
    let read = |offset: u64, bytes_max: usize| {
        let rest = &journal[usize::try_from(offset).unwrap()..];
        Ok(rest[..rest.len().min(bytes_max)].to_vec())
    };
    let before = Making::new(None, until).run(&mut |offset, max| read(offset, max)).unwrap().encode();
    let (making, file) = timed(|| {
        let before = Snapshot::decode(&before).unwrap();
        Making::new(Some(before), until + SNAPSHOT_EVERY_BYTES)
            .run(&mut |offset, max| read(offset, max))
            .unwrap()
            .encode()
    });
    println!("making the next snapshot    {making:>8.2} s, {} MB", file.len() / 1_000_000);
    let (decoding, _) = timed(|| Snapshot::decode(&before).unwrap());
    println!("reading a snapshot          {decoding:>8.2} s");
    // The worst there is: the next one is not there yet.
    let (from_snapshot, _) = timed(|| start(&journal, Some(before.clone())));
    println!("from the snapshot           {from_snapshot:>8.2} s, with {} MB behind it", (length - until) / 1_000_000);
    println!("ratio                       {:>8.2}", whole / from_snapshot);
}

fn timed<T>(act: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let done = act();
    (began.elapsed().as_secs_f64(), done)
}

fn journal_of(orders: u64) -> Vec<u8> {
    let (mut exchange, mut bytes, mut chain) = (Exchange::new(), Vec::new(), Chain::default());
    let symbol = |stock: u64| Symbol::new(&format!("Stock{stock}")).unwrap();
    let stocks: Vec<_> = (0..10)
        .map(|stock| Stock {
            symbol: symbol(stock),
            price: Price::from_cents(1_599).unwrap(),
            quantity: Quantity::new(1 << 40).unwrap(),
            volume: Quantity::ZERO,
        })
        .collect();
    let mut enter = |exchange: &mut Exchange, key, events| {
        let seq = exchange.applied().next();
        let entry = Entry { seq, epoch: Epoch(1), at: 1_700_000_000_000 + seq.0, key, events };
        exchange.apply(&entry);
        chain = journal::encode(&entry, chain, &mut bytes);
    };
    let start = Event::EpochStart { leader: leader(), digest: exchange.digest() };
    enter(&mut exchange, None, vec![start]);
    let listed = exchange.list(&stocks);
    enter(&mut exchange, None, listed);
    for number in 0..orders {
        let side = if number.is_multiple_of(2) { Side::Buy } else { Side::Sell };
        let command = Command::Trade { symbol: symbol(number % 10), side, quantity: Quantity::new(1).unwrap() };
        let key = CommandKey::generated(Boot(0x0123_4567_89ab_cdef), number);
        let Decision::Accept(events) = exchange.decide(&key, &command) else { panic!("it can be done") };
        enter(&mut exchange, Some(key), events);
    }
    bytes
}

fn id(id: u8) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

fn leader() -> Leader {
    Leader { id: id(2), boot: Boot(2) }
}

/// A follower that starts, and hears its leader.
fn start(journal: &[u8], mut snapshot: Option<Vec<u8>>) -> Replica {
    let configuration = Configuration {
        cluster: ClusterId(1),
        epoch: Epoch(1),
        nonce: Nonce(1),
        leader: leader(),
        in_sync: [1, 2].map(|n| Member { id: id(n), store: StoreId(n.into()) }).to_vec(),
        members: vec![id(1), id(2)],
        by: Node::Frontend(Boot(1)),
        why: String::new(),
        at: 0,
    };
    let mut replica = Replica::new(Options {
        id: id(1),
        boot: Boot(1),
        store: StoreId(1),
        members: vec![id(1), id(2)],
        times: Times::default(),
        configuration: Some(configuration),
        journal_bytes: journal.len() as u64,
        snapshot_every_bytes: u64::MAX,
    });
    settle(&mut replica, journal, &mut snapshot);
    let tail = replica.tail();
    let (cluster, from) = (Some(ClusterId(1)), Node::Order(id(2), Boot(2)));
    let body = Message::Append { leader: leader(), configuration: None, prev: tail, committed: tail.seq, round: 1 };
    let packet = Packet::new(Envelope { cluster, epoch: Epoch(1), from, body }, Bytes::new());
    replica.handle(NOW, Input::Received { packet, reply: None });
    settle(&mut replica, journal, &mut snapshot);
    assert_eq!(replica.exchange().applied(), tail.seq);
    assert!(tail.seq > SeqNum(1));
    replica
}

fn settle(replica: &mut Replica, journal: &[u8], snapshot: &mut Option<Vec<u8>>) {
    while let Some(output) = replica.poll_output() {
        let answer = match output {
            Output::Disk(DiskRequest::Read { ticket, offset, bytes_max }) => {
                let rest = &journal[usize::try_from(offset).unwrap()..];
                DiskAnswer::Read { ticket, bytes: Bytes::copy_from_slice(&rest[..rest.len().min(bytes_max)]) }
            }
            Output::Disk(DiskRequest::LoadSnapshot { ticket, .. }) => {
                let file = snapshot.take().map(|file| ("snapshot-1".to_owned(), file.into()));
                DiskAnswer::Loaded { ticket, file }
            }
            _ => continue,
        };
        replica.handle(NOW, Input::Disk(answer));
    }
}
