//! What a start costs: from the journal's first byte, and from a snapshot with 64 MiB of journal behind it; what orders cost in
//! memory and in a snapshot, were all of them kept and as they are; and what it costs to look an old one up.
//!
//! `cargo bench -p tradenet-core --bench restart -- [MILLIONS] [accounts]` prints a table, of orders with the house or of orders of
//! ten accounts that trade with each other; with `--write FILE` it only writes that journal, for a start of real processes
//! (`docs/performance.md`). A follower starts on a journal in memory, and has
//! started when it has applied all that its leader calls committed: the disk's part is left out. No harness: one start takes seconds.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

use std::sync::Arc;
use std::time::Instant;

use allocation_counter::measure;
use bytes::Bytes;
use tradenet_core::exchange::{Decision, Exchange, ORDERS_KEPT};
use tradenet_core::replica::snapshot::{Making, SNAPSHOT_EVERY_BYTES, Snapshot};
use tradenet_core::replica::{CATCH_UP_BYTES_PER_S, FAR_BEHIND_ENTRIES, Options, Replica};
use tradenet_core::times::Times;
use tradenet_core::{
    Decider, DiskAnswer, DiskRequest, Input, Mono, Now, Output, Packet, RegisterAnswer, RegisterRequest, ReplyTo, Slot,
    journal,
};
use tradenet_schemas::account::{
    Account, AccountAnswer, AccountQuery, Asset, Cash, Credentials, Instruction, NewOrder, TimeInForce, TokenHash,
};
use tradenet_schemas::ids::{
    Boot, Chain, ClusterId, Epoch, Leader, Member, Node, Nonce, OrderNumber, ReplicaId, SeqNum, StoreId,
};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::IDEMPOTENCY_KEYS_MAX;
use tradenet_schemas::message::{Answer, Configuration, Envelope, Floor, Message, Query, RecordId};
use tradenet_schemas::trade::{Command, CommandKey, Price, Quantity, Side, Stock, Symbol};

const NOW: Now = Now { mono: Mono(1_000_000), wall_ms: 0 };
const LOOK_UPS: u64 = 1_000;

fn main() {
    // Cargo's own arguments are no numbers.
    let millions = std::env::args().find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(1.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of orders")]
    let orders = (millions * 1e6) as u64;
    let of = if std::env::args().any(|argument| argument == "accounts") { Of::Accounts } else { Of::House };
    let journal = journal_of(orders, of, ORDERS_KEPT);
    let length = journal.len() as u64;
    println!("{orders} orders: {} MB of journal", length / 1_000_000);
    if let Some(file) = std::env::args().skip_while(|argument| argument != "--write").nth(1) {
        return std::fs::write(file, journal).unwrap();
    }
    for (name, kept) in [("all orders kept", usize::MAX), ("the newest kept", ORDERS_KEPT)] {
        let mut made = None;
        let journal = journal_of(orders, of, kept);
        let length = journal.len() as u64;
        println!("{name}             {:>8} MB of journal", length / 1_000_000);
        let memory = measure(|| {
            let read = &mut |offset, bytes_max| Ok(piece(&journal, offset, bytes_max).to_vec());
            made = Some(Making::keeping(None, length, kept).run(read).unwrap());
        });
        let file = made.map(|made| made.encode().len()).unwrap_or_default();
        let memory = memory.bytes_current as f64 / 1e6;
        println!("{name}             {memory:>8.1} MB of memory, a snapshot of {:.2} MB", file as f64 / 1e6);
    }
    let mut leading = start(&journal, None);
    lead(&mut leading, &journal);
    for (name, last) in [("one that is kept", orders), ("an old one", orders.saturating_sub(ORDERS_KEPT as u64))] {
        // Spread over the journal; each part is read once for one look-up.
        let numbers = (1..=LOOK_UPS).map(|at| if last == orders { orders - at } else { last * at / LOOK_UPS });
        let (took, ()) = timed(|| numbers.for_each(|number| look_up(&mut leading, &journal, number, of)));
        println!("looking up {name:<17}{:>8.1} us", took * 1e6 / LOOK_UPS as f64);
    }
    let (whole, _) = timed(|| start(&journal, None));
    println!("from the first byte         {whole:>8.2} s");
    let until = (length.saturating_sub(SNAPSHOT_EVERY_BYTES)) / SNAPSHOT_EVERY_BYTES * SNAPSHOT_EVERY_BYTES;
    if until == 0 {
        return println!("no snapshot: the journal is shorter than {} MB", 2 * SNAPSHOT_EVERY_BYTES / 1_000_000);
    }
    let read = |offset, bytes_max| Ok(piece(&journal, offset, bytes_max).to_vec());
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

/// Whose orders they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    House,
    Accounts,
}

const ACCOUNTS: u64 = 10;

fn account(number: u64) -> Credentials {
    let name = format!("account-{}", number % ACCOUNTS);
    Credentials { account: Account::new(&name).unwrap(), token: TokenHash([7; 32]) }
}

/// Who places an order: each second one meets the one before.
fn placer(order: u64) -> Credentials {
    account(order / 2 + order % 2)
}

/// What comes before the first order.
fn preparations(of: Of, stocks: &[Stock]) -> Vec<Command> {
    if of == Of::House {
        return Vec::new();
    }
    let of_one = |number| {
        let caller = account(number);
        let open = Command::Open { account: caller.account.clone(), token: caller.token };
        let assets = stocks.iter().map(|stock| Asset::Stock(stock.symbol.clone(), Quantity::new(1 << 40).unwrap()));
        let assets = assets.chain([Asset::Cash(Cash::from_cents(1 << 48).unwrap())]);
        let brings = move |asset| Command::Account { caller: caller.clone(), instruction: Instruction::Deposit(asset) };
        [open].into_iter().chain(assets.map(brings).collect::<Vec<_>>())
    };
    (0..ACCOUNTS).flat_map(of_one).collect()
}

/// A journal as a leader writes it that keeps so many orders.
fn journal_of(orders: u64, of: Of, kept: usize) -> Vec<u8> {
    let exchange = Exchange::keeping(IDEMPOTENCY_KEYS_MAX, kept);
    let (mut exchange, mut bytes, mut chain) = (exchange, Vec::new(), Chain::default());
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
    let ordered = (0..orders).map(|number| {
        let side = if number.is_multiple_of(2) { Side::Buy } else { Side::Sell };
        let quantity = Quantity::new(1).unwrap();
        match of {
            Of::House => Command::Trade { symbol: symbol(number % 10), side, quantity },
            Of::Accounts => Command::Account {
                caller: placer(number),
                instruction: Instruction::Place(NewOrder {
                    symbol: symbol(number / 2 % 10),
                    side,
                    quantity,
                    price: Price::from_cents(1_599),
                    time_in_force: TimeInForce::Gtc,
                    post_only: false,
                }),
            },
        }
    });
    for (command, number) in preparations(of, &stocks).into_iter().chain(ordered).zip(0..) {
        let key = CommandKey::generated(Boot(0x0123_4567_89ab_cdef), number);
        let Decision::Accept(events) = exchange.decide(&key, &command) else { panic!("it can be done") };
        enter(&mut exchange, Some(key), events);
        while let Some(statement) = exchange.statement_due() {
            enter(&mut exchange, None, vec![statement]);
        }
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
        follows: Vec::new(),
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
        orders_kept: ORDERS_KEPT,
        far_behind_entries: FAR_BEHIND_ENTRIES,
        catch_up_bytes_per_s: CATCH_UP_BYTES_PER_S,
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

/// The other leader has gone.
fn lead(replica: &mut Replica, journal: &[u8]) {
    let value = Configuration {
        cluster: ClusterId(1),
        epoch: Epoch(2),
        nonce: Nonce(2),
        leader: Leader { id: id(1), boot: Boot(1) },
        in_sync: vec![Member { id: id(1), store: StoreId(1) }],
        members: vec![id(1), id(2)],
        follows: vec![RecordId { epoch: Epoch(1), nonce: Nonce(1) }],
        by: Node::Frontend(Boot(1)),
        why: String::new(),
        at: 0,
    };
    hear(replica, Node::Order(id(2), Boot(2)), Message::Announce(Box::new(value.clone())));
    let mut floor = Floor::Number(Epoch(1));
    while let Some(output) = replica.poll_output() {
        let input = match output {
            Output::Register(RegisterRequest::Read { ticket }) => {
                let configuration = Slot::Present { value: value.clone(), revision: 1 };
                let floor = Slot::Present { value: floor.clone(), revision: 1 };
                Input::Register(RegisterAnswer::Read { ticket, configuration, floor })
            }
            Output::Register(RegisterRequest::Floor { ticket, floor: taken, .. }) => {
                floor = Floor::Record(taken);
                Input::Register(RegisterAnswer::Written { ticket })
            }
            Output::Disk(DiskRequest::Append { ticket, .. } | DiskRequest::Persist { ticket, .. }) => {
                Input::Disk(DiskAnswer::Done { ticket, took: std::time::Duration::ZERO })
            }
            Output::Disk(DiskRequest::Read { ticket, offset, bytes_max }) => {
                Input::Disk(DiskAnswer::Read { ticket, bytes: piece(journal, offset, bytes_max) })
            }
            _ => continue,
        };
        replica.handle(NOW, input);
    }
    assert!(replica.serves_in().is_some());
}

fn hear(replica: &mut Replica, from: Node, body: Message) {
    let envelope = Envelope { cluster: Some(ClusterId(1)), epoch: Epoch(2), from, body };
    let (packet, reply) = (Packet::new(envelope, Bytes::new()), Some(ReplyTo(Arc::from("frontend"))));
    replica.handle(NOW, Input::Received { packet, reply });
}

fn look_up(replica: &mut Replica, journal: &[u8], number: u64, of: Of) {
    let query = match of {
        Of::House => Query::Order(OrderNumber(number)),
        Of::Accounts => Query::Account(placer(number - 1), AccountQuery::Order(OrderNumber(number))),
    };
    hear(replica, Node::Frontend(Boot(5)), Message::Read { request: number, query });
    let mut found = false;
    while let Some(output) = replica.poll_output() {
        match output {
            Output::Disk(DiskRequest::Read { ticket, offset, bytes_max }) => {
                let bytes = piece(journal, offset, bytes_max);
                replica.handle(NOW, Input::Disk(DiskAnswer::Read { ticket, bytes }));
            }
            Output::Reply { packet, .. } => {
                let order = |answer: &Answer| match answer {
                    Answer::Order(Some(order)) => order.number.0 == number,
                    Answer::Account(answer) => {
                        matches!(&**answer, AccountAnswer::Order(Some(order)) if order.number.0 == number)
                    }
                    _ => false,
                };
                found |= matches!(packet.body(), Message::Answer { answer, .. } if order(answer));
            }
            _ => {}
        }
    }
    assert!(found, "order {number}");
}

fn piece(journal: &[u8], offset: u64, bytes_max: usize) -> Bytes {
    let rest = &journal[usize::try_from(offset).unwrap()..];
    Bytes::copy_from_slice(&rest[..rest.len().min(bytes_max)])
}

fn settle(replica: &mut Replica, journal: &[u8], snapshot: &mut Option<Vec<u8>>) {
    while let Some(output) = replica.poll_output() {
        let answer = match output {
            Output::Disk(DiskRequest::Read { ticket, offset, bytes_max }) => {
                DiskAnswer::Read { ticket, bytes: piece(journal, offset, bytes_max) }
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
