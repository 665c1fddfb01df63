//! What the path of a trade costs in core, one thread: an exchange of five deciders, wired together in memory.
//!
//! Disks and broker answer at once here, so what is measured is what the machine computes: decisions, journal lines, and
//! messages as bytes, since every one of them is encoded and decoded as on the way. `cargo bench -p tradenet-core --bench path`
//! measures; allocations are counted and printed first.

#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on ends")]

mod counting;

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use counting::count;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tradenet_core::cache::Cache;
use tradenet_core::catalog::{self, Catalog};
use tradenet_core::exchange::ORDERS_KEPT;
use tradenet_core::frontend::{self, Frontend};
use tradenet_core::replica::snapshot::{MakeError, SNAPSHOT_EVERY_BYTES};
use tradenet_core::replica::{self, CATCH_UP_BYTES_PER_S, FAR_BEHIND_ENTRIES, Replica};
use tradenet_core::times::Times;
use tradenet_core::{
    ClientAnswer, ClientRequest, Decider, DiskAnswer, DiskRequest, Input, Mono, Now, Output, Packet, RegisterAnswer,
    RegisterRequest, ReplyTo, Revision, Slot, Ticket, journal,
};
use tradenet_schemas::ids::{Boot, Chain, Node, Position, ReplicaId, SeqNum, StoreId};
use tradenet_schemas::journal::Entry;
use tradenet_schemas::message::{Configuration, Floor};
use tradenet_schemas::subjects::{Topic, heard_by};
use tradenet_schemas::trade::{Command, Outcome, Price, Quantity, Side, Stock, Symbol};

/// Where the deciders stand in the table: first the replicas by id.
const REPLICAS: usize = 3;
const CATALOG: usize = 3;
const FRONTEND: usize = 4;
/// Time that passes with each batch.
const BATCH_TAKES_US: u64 = 1_000;

fn boot(at: usize) -> Boot {
    Boot(at as u64 + 1)
}

fn node(at: usize) -> Node {
    match at {
        CATALOG => Node::Catalog(boot(at)),
        FRONTEND => Node::Frontend(boot(at)),
        replica => Node::Order(ReplicaId::new(u8::try_from(replica + 1).unwrap()).unwrap(), boot(at)),
    }
}

/// An exchange. See the module.
struct World {
    now: Now,
    deciders: [Box<dyn Decider>; 5],
    journals: [Vec<u8>; REPLICAS],
    configuration: Option<(Configuration, Revision)>,
    floor: Option<(Floor, Revision)>,
    /// Under way: to whom, what, and who has sent it.
    messages: VecDeque<(usize, Bytes, usize)>,
    tickets: u64,
    accepted: u64,
}

impl World {
    /// One that has elected its leader, attached its catalog and listed its stock.
    fn open() -> Self {
        let (times, members) = (Times::default(), (1..=3).map(|id| ReplicaId::new(id).unwrap()).collect::<Vec<_>>());
        let replica = |at: usize| -> Box<dyn Decider> {
            Box::new(Replica::new(replica::Options {
                id: members[at],
                boot: boot(at),
                store: StoreId(at as u64 + 1),
                members: members.clone(),
                times,
                configuration: None,
                journal_bytes: 0,
                snapshot_every_bytes: SNAPSHOT_EVERY_BYTES,
                orders_kept: ORDERS_KEPT,
                far_behind_entries: FAR_BEHIND_ENTRIES,
                catch_up_bytes_per_s: CATCH_UP_BYTES_PER_S,
            }))
        };
        let listed = catalog::Options { boot: boot(CATALOG), members: members.clone(), times, stocks: vec![stock()] };
        let asked = frontend::Options { boot: boot(FRONTEND), members: members.clone(), times, cache_size: 5 };
        let deciders: [Box<dyn Decider>; 5] =
            [replica(0), replica(1), replica(2), Box::new(Catalog::new(listed)), Box::new(Frontend::new(asked))];
        let mut world = Self {
            now: Now { mono: Mono(60_000_000), wall_ms: 0 },
            deciders,
            journals: Default::default(),
            configuration: None,
            floor: None,
            messages: VecDeque::new(),
            tickets: 0,
            accepted: 0,
        };
        (0..world.deciders.len()).for_each(|at| world.handle(at, Input::Connected));
        let deadline = world.now.mono.after(Duration::from_secs(60));
        while world.accepted == 0 {
            assert!(world.now.mono < deadline, "no leader, no catalog or no stock");
            world.trade(1);
        }
        world
    }

    fn handle(&mut self, at: usize, input: Input) {
        self.deciders[at].handle(self.now, input);
    }

    /// As many trades as there are clients, which come together; until every client has its answer.
    fn trade(&mut self, clients: u64) {
        self.now.mono = Mono(self.now.mono.0 + BATCH_TAKES_US);
        for _ in 0..clients {
            self.tickets += 1;
            let side = if self.tickets.is_multiple_of(2) { Side::Buy } else { Side::Sell };
            let command = Command::Trade { symbol: symbol(), side, quantity: Quantity::new(1).unwrap() };
            self.handle(FRONTEND, Input::Client(Ticket(self.tickets), ClientRequest::Command(None, command)));
        }
        for at in 0..self.deciders.len() {
            if self.deciders[at].poll_timeout().is_some_and(|due| due <= self.now.mono) {
                self.handle(at, Input::Timer);
            }
        }
        self.settle();
    }

    /// Carries out everything until nobody wants anything any more.
    fn settle(&mut self) {
        loop {
            for at in 0..self.deciders.len() {
                while let Some(output) = self.deciders[at].poll_output() {
                    self.carry_out(at, output);
                }
            }
            if self.messages.is_empty() {
                return;
            }
            // What has arrived together is handled together.
            for (to, bytes, from) in std::mem::take(&mut self.messages) {
                let (packet, reply) = (Packet::decode(&bytes).unwrap(), ReplyTo(Arc::from(from.to_string())));
                self.handle(to, Input::Received { packet, reply: Some(reply) });
            }
        }
    }

    fn carry_out(&mut self, from: usize, output: Output) {
        match output {
            Output::Send { to, packet } => {
                let bytes = packet.encode();
                let topic = Topic::of(packet.body()).unwrap();
                let hears = |at: &usize| *at != from && heard_by(node(*at)).contains(&(topic, to));
                let heard: Vec<_> = (0..self.deciders.len()).filter(hears).collect();
                if heard.is_empty() && Topic::wants_answer(packet.body()) {
                    self.handle(from, Input::NobodyThere(to));
                }
                self.messages.extend(heard.into_iter().map(|at| (at, bytes.clone(), from)));
            }
            Output::Reply { to, packet } => self.messages.push_back((to.0.parse().unwrap(), packet.encode(), from)),
            Output::Register(request) => {
                let answer = self.register(request);
                self.handle(from, Input::Register(answer));
            }
            Output::Disk(request) => {
                let answer = perform(&mut self.journals[from], request);
                self.handle(from, Input::Disk(answer));
            }
            Output::Answer(_, answer) => {
                self.accepted += u64::from(matches!(answer, ClientAnswer::Outcome(Outcome::Accepted { .. })));
            }
            Output::Notice(_) => {}
            Output::Stop(why) => panic!("a decider stopped: {why:?}"),
        }
    }

    fn register(&mut self, request: RegisterRequest) -> RegisterAnswer {
        match request {
            RegisterRequest::Read { ticket } => {
                RegisterAnswer::Read { ticket, configuration: slot(&self.configuration), floor: slot(&self.floor) }
            }
            RegisterRequest::Write { ticket, configuration, expected } => {
                write(ticket, &mut self.configuration, *configuration, expected)
            }
            RegisterRequest::Floor { ticket, floor, expected } => {
                write(ticket, &mut self.floor, Floor::Record(floor), expected)
            }
        }
    }

    /// The last entry in the leader's journal, and the one before it.
    fn last_entry(&self) -> (Entry, Position, Vec<u8>) {
        let mut last = None;
        let mut scan = journal::scan(&self.journals[2], Position::default());
        let (mut before, mut line) = (scan.position(), scan.rest());
        while let Some(found) = scan.next() {
            let found = found.unwrap();
            last = Some((found.entry, before, line[..found.bytes - 1].to_vec()));
            (before, line) = (scan.position(), scan.rest());
        }
        last.unwrap()
    }
}

fn slot<T: Clone>(record: &Option<(T, Revision)>) -> Slot<T> {
    record.clone().map_or(Slot::KeyMissing, |(value, revision)| Slot::Present { value, revision })
}

fn write<T>(ticket: u64, record: &mut Option<(T, Revision)>, value: T, expected: Option<Revision>) -> RegisterAnswer {
    let revision = record.as_ref().map(|(_, revision)| *revision);
    if revision != expected {
        return RegisterAnswer::Conflict { ticket };
    }
    *record = Some((value, revision.unwrap_or(0) + 1));
    RegisterAnswer::Written { ticket }
}

/// A disk that syncs at once.
fn perform(journal: &mut Vec<u8>, request: DiskRequest) -> DiskAnswer {
    let took = Duration::ZERO;
    match request {
        DiskRequest::Append { ticket, lines } => {
            journal.extend_from_slice(&lines);
            DiskAnswer::Done { ticket, took }
        }
        DiskRequest::Cut { ticket, bytes } | DiskRequest::GiveUp { ticket, bytes, .. } => {
            journal.truncate(usize::try_from(bytes).unwrap());
            DiskAnswer::Done { ticket, took }
        }
        DiskRequest::LoadSnapshot { ticket, .. } => DiskAnswer::Loaded { ticket, file: None },
        DiskRequest::ReadSnapshot { ticket, .. } => DiskAnswer::SnapshotRead { ticket, part: None },
        DiskRequest::SaveSnapshot { ticket, .. } | DiskRequest::MakeSnapshot { ticket, .. } => {
            DiskAnswer::NoSnapshot { ticket, error: MakeError::Given }
        }
        DiskRequest::Persist { ticket, .. }
        | DiskRequest::Rewrite { ticket, .. }
        | DiskRequest::DropSnapshots { ticket, .. } => DiskAnswer::Done { ticket, took },
        DiskRequest::Read { ticket, offset, bytes_max } => {
            let rest = &journal[usize::try_from(offset).unwrap()..];
            DiskAnswer::Read { ticket, bytes: Bytes::copy_from_slice(&rest[..rest.len().min(bytes_max)]) }
        }
    }
}

fn symbol() -> Symbol {
    Symbol::new("GameStart").unwrap()
}

fn stock() -> Stock {
    let (price, quantity) = (Price::from_cents(1_599).unwrap(), Quantity::new(1 << 30).unwrap());
    Stock { symbol: symbol(), price, quantity, volume: Quantity::ZERO }
}

/// A cache that holds the stock, under a lease.
fn cache(now: Mono) -> Cache {
    let (mut cache, catalog) = (Cache::new(5), Boot(1));
    cache.lease(now, catalog, 1, now, Duration::from_secs(1), 0);
    cache.ask(1, &symbol());
    cache.fill(1, catalog, 1, SeqNum(1), stock());
    cache
}

fn trades(criterion: &mut Criterion) {
    let mut world = World::open();
    let before = world.tickets - world.accepted;
    let mut group = criterion.benchmark_group("trade");
    for clients in [1, 64, 256] {
        let name = format!("batch of {clients}");
        count(&format!("trade: {name}"), 10_000 / clients, || world.trade(clients));
        group.throughput(Throughput::Elements(clients));
        group.bench_function(&name, |bench| bench.iter(|| world.trade(clients)));
    }
    group.finish();
    assert_eq!(world.tickets - world.accepted, before, "a trade that is refused or lost costs less");
}

fn lines(criterion: &mut Criterion) {
    let (entry, before, line) = World::open().last_entry();
    let mut out = Vec::with_capacity(line.len() + 1);
    let mut encode = || -> Chain {
        out.clear();
        journal::encode(black_box(&entry), before.chain, &mut out)
    };
    let decode = || journal::decode(black_box(&line), before).unwrap();
    count("journal: encode", 10_000, || _ = encode());
    count("journal: decode", 10_000, || _ = decode());
    let mut group = criterion.benchmark_group("journal");
    group.bench_function("encode a trade", |bench| bench.iter(&mut encode));
    group.bench_function("decode a trade", |bench| bench.iter(decode));
    group.finish();
}

fn look_ups(criterion: &mut Criterion) {
    let now = Mono(1_000_000);
    let (mut cache, symbol) = (cache(now), symbol());
    let mut get = || cache.get(now, black_box(&symbol)).unwrap().0.clone();
    count("cache: get", 10_000, || _ = get());
    criterion.bench_function("cache: get", |bench| bench.iter(&mut get));
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = lines, look_ups, trades
}
criterion_main!(benches);
