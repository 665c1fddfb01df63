//! The made-up world: machines, processes, one queue of events.
//!
//! Problem: to try an order of messages, crashes and timers twice, nothing may happen but what the world decides.
//! Idea: everything that takes time is an event at a time; events of one time happen in the order in which they were
//! caused. A process is woken when something waits for it, handles it, and its outputs become events.
//! Rule kept: same seed, same events. After every event that can matter the invariants look at what is new; the first one
//! that does not hold ends the run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use fastrand::Rng;
use tradenet_core::times::Times;
use tradenet_core::{
    ClientAnswer, ClientRequest, DiskRequest, Input, Output, RegisterRequest, Stop, Ticket, catalog, frontend, replica,
};
use tradenet_schemas::ids::{Boot, ReplicaId, StoreId};
use tradenet_schemas::message::{Message, Role};
use tradenet_schemas::trade::{Price, Quantity, Stock, Symbol};

use crate::auditor::{Auditor, Op};
use crate::bus::{Parcel, Weather};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::history::History;
use crate::invariants::{Invariants, Violation};
use crate::linear::Checked;
use crate::machine::{Decided, LastSeen, Link, Machine, Process, Who};
use crate::nemesis::{Fault, WALL_MS_MAX};
use crate::register::Register;
use crate::trace::{Detail, Trace};
use crate::workload::Client;

/// How soon a supervisor starts a process again that has ended, in microseconds.
const RESTARTS_AFTER_US: u64 = 200_000;
/// More than any journal here has.
pub(crate) const SEGMENT_BYTES: usize = 64 << 20;

/// How much of the journal there is from one snapshot to the next, by the seed: so little that runs have some. To make one takes as long
/// as hundreds of steps, so few runs make many.
fn snapshot_every_bytes(seed: u64) -> u64 {
    [1_500, 40_000, 6_000, 20_000, 40_000, 6_000, 20_000, 40_000][usize::from(seed.to_le_bytes()[0] % 8)]
}

/// How many of the newest orders replicas keep in memory, by the seed: so few that most runs look some up in the journal, and some at
/// times none that is committed.
fn orders_kept(seed: u64) -> usize {
    [3, 1, 10, 2][usize::from(seed.to_le_bytes()[0] / 8 % 4)]
}

/// How much of the journal is in a segment, by the seed; in half of them more than there ever is.
fn segment_bytes(seed: u64) -> usize {
    // Seeds side by side differ.
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    [2_000, 8_000, SEGMENT_BYTES, SEGMENT_BYTES][usize::from(mixed % 4)]
}

/// How many entries a replica must have missed to look for a snapshot, by the seed.
fn far_behind_entries(seed: u64) -> u64 {
    [5, 40, 15, 10_000][usize::from(seed.to_le_bytes()[0] / 32 % 4)]
}

/// How much it copies in a second at most, by the seed: as little as may be asked for, or the usual.
fn catch_up_bytes_per_s(seed: u64) -> u64 {
    [1 << 20, 64 << 20][usize::from(seed.to_le_bytes()[0] / 128)]
}

/// How large the exchange is.
#[derive(Clone, Debug)]
pub struct Size {
    /// Order replicas.
    pub orders: u8,
    /// Catalogs.
    pub catalogs: u8,
    /// Frontends.
    pub frontends: u8,
    /// How many stocks a frontend caches.
    pub cache_size: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { orders: 3, catalogs: 1, frontends: 2, cache_size: 3 }
    }
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    AtBroker {
        from: usize,
        parcel: Parcel,
    },
    Arrive {
        to: usize,
        connection: u32,
        input: Input,
    },
    AtRegister {
        from: usize,
        incarnation: u32,
        request: RegisterRequest,
        answers: bool,
    },
    RegisterLate {
        machine: usize,
        incarnation: u32,
        ticket: u64,
    },
    GiveUp {
        machine: usize,
        connection: u32,
    },
    Connect {
        machine: usize,
        incarnation: u32,
    },
    BrokerUp,
    Wake {
        machine: usize,
        incarnation: u32,
    },
    Timer {
        machine: usize,
        incarnation: u32,
        at: u64,
    },
    Disk {
        machine: usize,
        incarnation: u32,
    },
    Start {
        machine: usize,
    },
    Resume {
        machine: usize,
    },
    Asked {
        call: u64,
    },
    Answered {
        call: u64,
        answer: Answered,
    },
    Client {
        client: usize,
    },
    Fault(Fault),
    /// So that time passes where nothing else happens.
    Nothing,
}

impl Event {
    fn kind(&self) -> (u8, usize) {
        match self {
            Self::AtBroker { from, .. } => (1, *from),
            Self::Arrive { to, .. } => (2, *to),
            Self::AtRegister { from, .. } => (3, *from),
            Self::RegisterLate { machine, .. } => (4, *machine),
            Self::GiveUp { machine, .. } => (5, *machine),
            Self::Connect { machine, .. } => (6, *machine),
            Self::BrokerUp => (7, 0),
            Self::Wake { machine, .. } => (8, *machine),
            Self::Timer { machine, .. } => (9, *machine),
            Self::Disk { machine, .. } => (10, *machine),
            Self::Start { machine } => (11, *machine),
            Self::Resume { machine } => (12, *machine),
            Self::Asked { call } => (13, usize::try_from(*call).unwrap_or(0)),
            Self::Answered { call, .. } => (14, usize::try_from(*call).unwrap_or(0)),
            Self::Client { client } => (15, *client),
            Self::Fault(_) => (16, 0),
            Self::Nothing => (17, 0),
        }
    }
}

/// What will happen, by time, and of one time by when it was caused.
///
/// An event is large, and a heap moves what is in it many times: so events stay where they are, and the heap orders places.
#[derive(Default)]
struct Queue {
    /// When, the how manieth, and where it is.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    places: Vec<Option<Event>>,
    free: Vec<usize>,
    numbers: u64,
}

impl Queue {
    fn push(&mut self, at: u64, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(event);
        self.numbers += 1;
        self.order.push(Reverse((at, self.numbers, place)));
    }

    fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        self.places[place].take().map(|event| (at, event))
    }
}

/// What a client got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answered {
    /// An answer.
    With(ClientAnswer),
    /// Nobody took the request.
    Refused,
    /// The connection broke after the request was sent.
    Broken,
}

/// A request of a client, from when it is made until it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) machine: usize,
    pub(crate) incarnation: u32,
    pub(crate) request: ClientRequest,
    pub(crate) op: Op,
    pub(crate) client: Option<usize>,
}

/// The world. See the module.
pub struct World {
    /// Microseconds since it began.
    pub(crate) now: u64,
    queue: Queue,
    /// All chance in it.
    pub(crate) rng: Rng,
    pub(crate) size: Size,
    pub(crate) times: Times,
    pub(crate) machines: Vec<Machine>,
    /// So many of them are the exchange's; the others are for [`Who::Twin`]s.
    pub(crate) crew: usize,
    pub(crate) register: Register,
    pub(crate) register_free: u64,
    pub(crate) broker_up: bool,
    /// Somebody outside follows the market.
    pub followed: bool,
    /// On which side of a split each machine is; empty while there is none.
    pub(crate) split: Vec<bool>,
    /// Second copies of commands, from whom, while a story keeps them to be delivered late.
    pub(crate) copies: Option<Vec<(usize, Parcel)>>,
    /// Disks that were taken away, and from where.
    pub(crate) attic: Vec<(usize, Disk)>,
    pub(crate) weather: Weather,
    pub(crate) trace: Trace,
    pub(crate) invariants: Invariants,
    pub(crate) auditor: Auditor,
    pub(crate) history: History,
    pub(crate) checked: Checked,
    pub(crate) calls: BTreeMap<u64, Call>,
    /// Answers to calls of stories.
    pub(crate) answers: BTreeMap<u64, Answered>,
    boots: u64,
    /// When a process was started last.
    pub(crate) last_start: u64,
    /// When a configuration was written last.
    pub(crate) last_record: u64,
    /// When the last second copy arrives, of those that come late.
    pub(crate) last_copy: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) nemesis: crate::nemesis::Nemesis,
    pub(crate) violation: Option<Violation>,
    pub(crate) drift_ppm: i64,
    /// How much of the journal there is from one snapshot to the next.
    snapshot_every_bytes: u64,
    /// How many of the newest orders replicas keep in memory.
    pub(crate) orders_kept: usize,
    /// How much of it is in a segment.
    pub(crate) segment_bytes: usize,
    far_behind_entries: u64,
    catch_up_bytes_per_s: u64,
    pub(crate) sync_us: u64,
    /// Named rare situations, counted.
    pub(crate) marks: BTreeMap<&'static str, u64>,
}

/// The stocks that are listed: a hot one, an average one, one of which there are few, and a cold one.
pub const STOCKS: [(&str, u64, u64); 4] =
    [("HOT", 15_990, 1_000_000), ("MILD", 5_025, 1_000_000), ("FEW", 100, 40), ("COLD", 99_999, 1_000_000)];

/// The symbol of that name.
///
/// # Panics
/// It is no name of a stock.
pub fn symbol(name: &str) -> Symbol {
    Symbol::new(name).expect("a stock's name")
}

/// What catalogs list.
pub(crate) fn stocks() -> Vec<Stock> {
    let stock = |(name, price, quantity)| Stock {
        symbol: symbol(name),
        price: Price::from_cents(price).unwrap_or_else(|| unreachable!("in bounds")),
        quantity: Quantity::new(quantity).unwrap_or_default(),
        volume: Quantity::ZERO,
    };
    STOCKS.map(stock).to_vec()
}

impl World {
    /// A world in which nothing runs yet.
    pub fn empty(seed: u64, size: Size, detail: Detail) -> Self {
        let mut world = Self {
            now: 0,
            queue: Queue::default(),
            rng: Rng::with_seed(seed),
            times: Times::default(),
            machines: Vec::new(),
            crew: 0,
            register: Register::new(),
            register_free: 0,
            broker_up: true,
            followed: true,
            split: Vec::new(),
            copies: None,
            attic: Vec::new(),
            weather: Weather::default(),
            trace: Trace::new(detail),
            invariants: Invariants::new(),
            auditor: Auditor::new(),
            history: History::default(),
            checked: Checked::default(),
            calls: BTreeMap::new(),
            answers: BTreeMap::new(),
            boots: seed.wrapping_mul(0x2545_f491_4f6c_dd1d) & 0xffff_ffff,
            last_start: 0,
            last_record: 0,
            last_copy: 0,
            clients: Vec::new(),
            nemesis: crate::nemesis::Nemesis::asleep(),
            violation: None,
            drift_ppm: 0,
            snapshot_every_bytes: snapshot_every_bytes(seed),
            orders_kept: orders_kept(seed),
            segment_bytes: segment_bytes(seed),
            far_behind_entries: far_behind_entries(seed),
            catch_up_bytes_per_s: catch_up_bytes_per_s(seed),
            sync_us: 800,
            marks: BTreeMap::new(),
            size,
        };
        let (orders, catalogs, frontends) = (world.size.orders, world.size.catalogs, world.size.frontends);
        (1..=orders).for_each(|id| world.add_machine(Who::Order(id)));
        (1..=catalogs).for_each(|id| world.add_machine(Who::Catalog(id)));
        (1..=frontends).for_each(|id| world.add_machine(Who::Frontend(id)));
        world.crew = world.machines.len();
        (1..=orders).for_each(|id| world.add_machine(Who::Twin(id)));
        world
    }

    /// An exchange of three replicas, one catalog and two frontends that is up and idle.
    pub fn up(seed: u64) -> Self {
        let mut world = Self::empty(seed, Size::default(), Detail::Text);
        world.start_all();
        world.run_until(|world| world.is_whole(), "the exchange is up");
        world
    }

    fn add_machine(&mut self, who: Who) {
        let id = match who {
            Who::Order(id) | Who::Twin(id) => ReplicaId::new(id),
            _ => None,
        };
        let store = StoreId(self.fresh());
        self.machines.push(Machine {
            who,
            id,
            name: who.to_string(),
            clock: Clock::new(0, 0, 0, 1_700_000_000_000),
            disk: Disk::new(store, self.sync_us, self.orders_kept),
            incarnation: 0,
            process: None,
            link: Link::default(),
            paused_until: None,
            ended: None,
            ghost_until: 0,
            lag_us: 0,
        });
    }

    /// A number that was never used before.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.boots += 1;
        // Spread over all digits, and never the same twice: multiplication by an odd number is a bijection.
        self.boots.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The machine at that place.
    pub(crate) fn index(&self, who: Who) -> usize {
        self.machines.iter().position(|machine| machine.who == who).unwrap_or_else(|| panic!("there is no {who}"))
    }

    // ------------------------------------------------------------ events

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.queue.push(at.max(self.now), event);
    }

    /// Lets the next event happen; `false` if there is none or an invariant was violated.
    pub fn step(&mut self) -> bool {
        if self.violation.is_some() {
            return false;
        }
        let Some((at, event)) = self.queue.pop() else {
            return false;
        };
        self.now = at;
        let (kind, machine) = event.kind();
        self.trace.step(at, kind, machine);
        self.happen(event);
        self.violation.is_none()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::AtBroker { from, parcel } => self.at_broker(from, parcel),
            Event::Arrive { to, connection, input } => self.arrived(to, connection, input),
            Event::AtRegister { from, incarnation, request, answers } => {
                self.at_register(from, incarnation, request, answers);
            }
            Event::RegisterLate { machine, incarnation, ticket } => self.register_late(machine, incarnation, ticket),
            Event::GiveUp { machine, connection } => self.given_up(machine, connection),
            Event::Connect { machine, incarnation } => self.connect(machine, incarnation),
            Event::BrokerUp => {
                self.broker_up = true;
                self.trace.line(self.now, "broker", "up", String::new);
            }
            Event::Wake { machine, incarnation } => self.woken(machine, incarnation),
            Event::Timer { machine, incarnation, at } => self.timer(machine, incarnation, at),
            Event::Disk { machine, incarnation } => self.disk_done(machine, incarnation),
            // Who runs a twin has stopped it for good when everything was mended.
            Event::Start { machine } if machine >= self.crew && self.nemesis.asleep => {}
            Event::Start { machine } => self.start_machine(machine),
            Event::Resume { machine } => self.resume_machine(machine),
            Event::Asked { call } => self.asked(call),
            Event::Answered { call, answer } => self.answered(call, answer),
            Event::Client { client } => self.client_acts(client),
            Event::Fault(fault) => self.strike(fault),
            Event::Nothing => {}
        }
    }

    pub(crate) fn violated(&mut self, invariant: &'static str, text: String) {
        let now = self.now;
        self.trace.line(now, "world", "VIOLATED", || format!("{invariant}: {text}"));
        self.violation.get_or_insert(Violation::new(invariant, text));
    }

    /// A line about a machine.
    pub(crate) fn line_of(&mut self, machine: usize, what: &str, details: impl FnOnce() -> String) {
        self.trace.line(self.now, &self.machines[machine].name, what, details);
    }

    /// A line about what the broker does with a message to a machine.
    pub(crate) fn line_of_message(&mut self, to: usize, what: &str, input: &Input, how: impl FnOnce() -> String) {
        if let Input::Received { packet, .. } = input
            && !is_quiet(packet.body())
        {
            let (now, name) = (self.now, &self.machines[to].name);
            self.trace.line(now, "broker", what, || format!("to {name}: {}{}", how(), short(packet)));
        }
    }

    pub(crate) fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    // ------------------------------------------------------------ processes

    pub(crate) fn start_machine(&mut self, machine: usize) {
        if self.machines[machine].process.is_some() {
            return;
        }
        self.last_start = self.now;
        let boot = Boot(self.fresh());
        if self.machines[machine].disk.configuration_flipped {
            // The runtime sets such a directory aside and begins with an empty one.
            self.wipe_disk(machine);
        }
        if self.machines[machine].disk.open(self.segment_bytes) {
            self.mark(crate::marks::SHORT);
        }
        let decider = self.decider(machine, boot);
        let ppm = self.rng.i64(-self.drift_ppm..=self.drift_ppm);
        // The runtime counts from the start of the process.
        let base = if self.rng.bool() { 0 } else { self.rng.u64(0..5_000_000) };
        let wall = self.rng.u64(0..WALL_MS_MAX);
        let now = self.now;
        let place = &mut self.machines[machine];
        place.clock = Clock::new(now, base, ppm, wall);
        place.incarnation += 1;
        place.paused_until = None;
        place.ended = None;
        place.link.up = false;
        place.link.held_up.clear();
        place.link.held_down.clear();
        place.process = Some(Process {
            decider,
            boot,
            inbox: std::collections::VecDeque::new(),
            wake_at: None,
            timer_at: None,
            register_waits: BTreeMap::new(),
            last_seen: LastSeen::default(),
        });
        let incarnation = place.incarnation;
        let name = place.name.clone();
        self.trace.line(now, &name, "start", || format!("boot {boot}"));
        let connects = self.now + self.rng.u64(500..20_000);
        self.at(connects, Event::Connect { machine, incarnation });
        self.wake_soon(machine);
    }

    fn decider(&self, machine: usize, boot: Boot) -> Decided {
        let members: Vec<_> = (1..=self.size.orders).filter_map(ReplicaId::new).collect();
        let times = self.times;
        let place = &self.machines[machine];
        match (place.who, place.id) {
            (_, Some(id)) => Decided::Replica(Box::new(replica::Replica::new(replica::Options {
                id,
                boot,
                store: place.disk.store,
                members,
                times,
                configuration: place.disk.configuration.clone(),
                journal_bytes: place.disk.file.len() as u64,
                snapshot_every_bytes: self.snapshot_every_bytes,
                orders_kept: self.orders_kept,
                far_behind_entries: self.far_behind_entries,
                catch_up_bytes_per_s: self.catch_up_bytes_per_s,
            }))),
            (Who::Catalog(_), _) => Decided::Catalog(Box::new(catalog::Catalog::new(catalog::Options {
                boot,
                members,
                times,
                stocks: stocks(),
            }))),
            _ => Decided::Frontend(Box::new(frontend::Frontend::new(frontend::Options {
                boot,
                members,
                times,
                cache_size: self.size.cache_size,
            }))),
        }
    }

    /// Ends a process at once. `host`: the machine with it, so that nobody is told.
    pub(crate) fn kill_machine(&mut self, machine: usize, host: bool) {
        if self.machines[machine].process.is_none() {
            return;
        }
        let (now, name) = (self.now, self.machines[machine].name.clone());
        self.trace.line(now, &name, "killed", String::new);
        self.disconnect(machine, false);
        let ghost = if host { self.rng.u64(500_000..3_000_000) } else { 0 };
        let place = &mut self.machines[machine];
        place.ghost_until = self.now + ghost;
        place.process = None;
        place.paused_until = None;
        place.incarnation += 1;
        self.crash_disk(machine);
        self.break_calls(machine);
        self.check_disk(machine);
    }

    fn crash_disk(&mut self, machine: usize) {
        if let Some(lost) = self.machines[machine].disk.crash(&mut self.rng) {
            self.mark(lost);
            self.line_of(machine, "loses", || format!("of its disk ({lost})"));
        }
    }

    fn break_calls(&mut self, machine: usize) {
        let calls: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.machine == machine).map(|(number, _)| *number).collect();
        for call in calls {
            let at = self.now + self.rng.u64(50..2_000);
            let answer = Answered::Broken;
            self.at(at, Event::Answered { call, answer });
        }
    }

    pub(crate) fn pause_machine(&mut self, machine: usize, until: u64) {
        let now = self.now;
        let place = &mut self.machines[machine];
        if place.process.is_some() {
            place.paused_until = Some(place.paused_until.unwrap_or(0).max(until));
            let name = place.name.clone();
            self.trace.line(now, &name, "paused", || format!("for {} ms", (until - now) / 1_000));
            if until < u64::MAX {
                self.at(until, Event::Resume { machine });
            }
        }
    }

    pub(crate) fn resume_machine(&mut self, machine: usize) {
        if self.machines[machine].paused_until.is_some_and(|until| until <= self.now) {
            self.machines[machine].paused_until = None;
            let (now, name) = (self.now, self.machines[machine].name.clone());
            self.trace.line(now, &name, "resumed", String::new);
            self.wake_soon(machine);
        }
    }

    /// Something waits for the process.
    pub(crate) fn put_in(&mut self, machine: usize, input: Input) {
        if let Some(process) = &mut self.machines[machine].process {
            process.inbox.push_back(input);
            self.wake_soon(machine);
        }
    }

    fn wake_soon(&mut self, machine: usize) {
        let at = self.now + self.rng.u64(2..25);
        let place = &mut self.machines[machine];
        let incarnation = place.incarnation;
        let Some(process) = place.process.as_mut().filter(|process| process.wake_at.is_none()) else {
            return;
        };
        process.wake_at = Some(at);
        self.at(at, Event::Wake { machine, incarnation });
    }

    fn timer(&mut self, machine: usize, incarnation: u32, at: u64) {
        let place = &mut self.machines[machine];
        let Some(process) = place.process.as_mut().filter(|_| place.incarnation == incarnation) else {
            return;
        };
        if process.timer_at == Some(at) {
            process.timer_at = None;
            process.inbox.push_back(Input::Timer);
            self.wake_soon(machine);
        }
    }

    fn woken(&mut self, machine: usize, incarnation: u32) {
        let paused = self.machines[machine].paused_until.is_some();
        let place = &mut self.machines[machine];
        let Some(mut process) = place.process.take_if(|_| place.incarnation == incarnation) else {
            return;
        };
        process.wake_at = None;
        if paused {
            place.process = Some(process);
            return;
        }
        // All that waits at once, as a loaded driver does it, or one after the other.
        let one_by_one = self.rng.bool();
        let local = place.clock.local(self.now);
        let mut outputs = Vec::new();
        let inputs = process.inbox.len();
        while let Some(input) = process.inbox.pop_front() {
            process.decider.handle(local, input);
            if one_by_one || process.inbox.is_empty() {
                while let Some(output) = process.decider.poll_output() {
                    outputs.push(output);
                }
            }
        }
        while let Some(output) = process.decider.poll_output() {
            outputs.push(output);
        }
        self.machines[machine].process = Some(process);
        self.look_at(machine);
        self.check_shown(machine, &outputs, inputs);
        for output in outputs {
            self.carry_out(machine, output);
        }
        self.set_timer(machine);
    }

    /// A timer that was set by the old rate is set anew.
    pub(crate) fn clock_has_jumped(&mut self, machine: usize) {
        if let Some(process) = &mut self.machines[machine].process {
            process.timer_at = None;
        }
        self.set_timer(machine);
    }

    fn set_timer(&mut self, machine: usize) {
        let now = self.now;
        let place = &mut self.machines[machine];
        let incarnation = place.incarnation;
        let Some(process) = &mut place.process else { return };
        let Some(deadline) = process.decider.poll_timeout() else {
            return;
        };
        let at = place.clock.world_time(deadline).max(now + 1);
        if process.timer_at.is_none_or(|set| set <= now || set > at) {
            process.timer_at = Some(at);
            self.at(at, Event::Timer { machine, incarnation, at });
        }
    }

    fn carry_out(&mut self, machine: usize, output: Output) {
        match output {
            Output::Disk(request) => self.ask_disk(machine, request),
            Output::Answer(ticket, answer) => {
                let at = self.now + self.rng.u64(30..300);
                let answer = Answered::With(answer);
                self.at(at, Event::Answered { call: ticket.0, answer });
            }
            Output::Notice(notice) => {
                self.count_notice(machine, &notice.text);
                let (now, name) = (self.now, self.machines[machine].name.clone());
                self.trace.line(now, &name, "says", || notice.text);
            }
            Output::Stop(why) => self.ended(machine, why),
            sent => {
                if self.trace.wants_text() {
                    self.trace_sent(machine, &sent);
                }
                self.say(machine, sent);
            }
        }
    }

    /// Rare situations that core tells people of.
    fn count_notice(&mut self, machine: usize, text: &str) {
        for (part, name) in crate::marks::NOTICES {
            if text.contains(part) {
                self.mark(name);
            }
        }
        let replica = self.machines[machine].replica();
        let ahead = replica.is_some_and(|replica| replica.tail().seq > replica.committed());
        if ahead && text.contains("no leader any more") {
            self.mark(crate::marks::DEPOSED_AHEAD);
        }
    }

    fn trace_sent(&mut self, machine: usize, output: &Output) {
        let (now, name) = (self.now, self.machines[machine].name.clone());
        match output {
            Output::Send { to, packet } if !is_quiet(packet.body()) => {
                self.trace.line(now, &name, "sends", || format!("to {to}: {}", short(packet)));
            }
            Output::Reply { to, packet } if !is_quiet(packet.body()) => {
                self.trace.line(now, &name, "replies", || format!("to {}: {}", to.0, short(packet)));
            }
            Output::Register(request) => {
                self.trace.line(now, &name, "asks", || format!("{request:?}"));
            }
            _ => {}
        }
    }

    fn ended(&mut self, machine: usize, why: Stop) {
        let (now, name) = (self.now, self.machines[machine].name.clone());
        self.trace.line(now, &name, "ends", || format!("{why:?}"));
        self.disconnect(machine, false);
        let place = &mut self.machines[machine];
        place.process = None;
        place.incarnation += 1;
        // What was asked of the disk before is still done by nobody: the process closes its files.
        self.crash_disk(machine);
        self.break_calls(machine);
        match why {
            Stop::Left => self.machines[machine].ended = Some("left".to_owned()),
            Stop::Broken(text) if text.contains("must not happen") => {
                self.violated("S14 no repair cuts what is committed", format!("{name}: {text}"));
            }
            Stop::Broken(text) => self.machines[machine].ended = Some(text),
        }
        if self.nemesis.supervised {
            self.at(now + RESTARTS_AFTER_US, Event::Start { machine });
        }
        self.check_disk(machine);
    }

    // ------------------------------------------------------------ disks

    fn ask_disk(&mut self, machine: usize, request: DiskRequest) {
        let now = self.now;
        let place = &mut self.machines[machine];
        let incarnation = place.incarnation;
        let at = place.disk.ask_beside(now, request, &mut self.rng);
        self.at(at, Event::Disk { machine, incarnation });
    }

    /// Also what waits for a slow disk is done soon.
    pub(crate) fn mend_disk(&mut self, machine: usize) {
        let (now, sync_us) = (self.now, self.sync_us);
        let disk = &self.machines[machine].disk;
        if disk.full || disk.fails.is_some() || disk.sync_us != sync_us {
            self.line_of(machine, "well", || "its disk, with all that waits for it".to_owned());
        }
        let place = &mut self.machines[machine];
        let incarnation = place.incarnation;
        for at in place.disk.mend(now, sync_us) {
            self.at(at, Event::Disk { machine, incarnation });
        }
    }

    fn disk_done(&mut self, machine: usize, incarnation: u32) {
        let now = self.now;
        let place = &mut self.machines[machine];
        if place.incarnation != incarnation {
            return;
        }
        let entries = place.disk.entries();
        if let Some(answer) = place.disk.carry_out(now) {
            if place.disk.entries() < entries {
                self.check_disk(machine);
            }
            self.put_in(machine, Input::Disk(answer));
        }
    }

    // ------------------------------------------------------------ clients

    /// A client asks a frontend; the number of the call.
    pub(crate) fn call(&mut self, machine: usize, request: ClientRequest, client: Option<usize>) -> u64 {
        let call = self.history.asked(self.now, request.clone());
        let op = self.auditor.begin(&request);
        let (now, name) = (self.now, self.machines[machine].name.clone());
        self.trace.line(now, "client", "asks", || format!("{name} call {call}: {request:?}"));
        self.calls.insert(call, Call { machine, incarnation: self.machines[machine].incarnation, request, op, client });
        let at = self.now + self.rng.u64(30..300);
        self.at(at, Event::Asked { call });
        call
    }

    fn asked(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let machine = call.machine;
        let running = self.machines[machine].process.is_some();
        call.incarnation = self.machines[machine].incarnation;
        let request = call.request.clone();
        if running {
            self.put_in(machine, Input::Client(Ticket(number), request));
        } else {
            let at = self.now + self.rng.u64(30..300);
            let answer = Answered::Refused;
            self.at(at, Event::Answered { call: number, answer });
        }
    }

    fn answered(&mut self, number: u64, answer: Answered) {
        let Some(call) = self.calls.remove(&number) else { return };
        let now = self.now;
        self.trace.line(now, "client", "gets", || format!("call {number}: {answer:?}"));
        self.history.got(number, now, &answer);
        if let Err(violation) = self.auditor.end(&call.op, &answer, &self.invariants.truth) {
            self.violated(violation.invariant, violation.text);
        }
        match call.client {
            Some(client) => self.client_got(client, &call.request, &answer),
            None => {
                self.answers.insert(number, answer);
            }
        }
    }

    // ------------------------------------------------------------ what it is like

    /// The replica that serves as leader of the newest epoch, if one does.
    pub fn leader(&self) -> Option<Who> {
        let serving = self.machines.iter().filter(|machine| machine.is_running());
        let epoch = |machine: &Machine| machine.replica()?.serves_in().map(|held| held.epoch);
        serving.filter_map(|machine| epoch(machine).map(|epoch| (epoch, machine.who))).max().map(|(_, who)| who)
    }

    /// Whether everything runs, is in sync, and the highest id leads, with a catalog that answers for it.
    pub fn is_whole(&self) -> bool {
        let highest = Who::Order(self.size.orders);
        let listed = self.size.catalogs == 0 || self.invariants.truth.symbols().count() == STOCKS.len();
        listed
            && self.leader() == Some(highest)
            && self.all_in_sync()
            && self.catalog_answers()
            && self.frontends_ready()
    }

    /// Whether every replica is in sync by the record that the register holds, and knows it. That is the newest one but where the
    /// register went back before anybody took a newer one up.
    pub fn all_in_sync(&self) -> bool {
        let Some(newest) = self.register.configuration.value() else {
            return false;
        };
        let mut orders = self.machines.iter().filter(|machine| machine.is_replica());
        orders.all(|machine| {
            let status = machine.replica().map(replica::Replica::status);
            status.is_some_and(|status| {
                let takes_part = matches!(status.role, Role::Leader | Role::Follower);
                takes_part && status.configuration.is_some_and(|held| held.nonce == newest.nonce)
            }) && machine.id.is_some_and(|id| newest.is_in_sync(id, machine.disk.store))
        })
    }

    /// Whether a catalog may answer look-ups.
    pub fn catalog_answers(&self) -> bool {
        self.machines.iter().any(|machine| {
            let now = machine.clock.local(self.now).mono;
            machine.catalog().is_some_and(|catalog| catalog.has_authority(now))
        })
    }

    /// Whether every frontend takes trades.
    pub fn frontends_ready(&self) -> bool {
        let mut frontends = self.machines.iter().filter(|m| matches!(m.who, Who::Frontend(_)));
        frontends.all(|machine| {
            let now = machine.clock.local(self.now);
            machine.frontend().is_some_and(|frontend| frontend.ready(now).is_ok())
        })
    }
}

/// Left out of the trace.
fn is_quiet(message: &Message) -> bool {
    matches!(message, Message::Heartbeat { .. } | Message::Status(_))
}

/// A packet on one line of the trace.
fn short(packet: &tradenet_core::Packet) -> String {
    let lines = packet.lines.iter().filter(|&&byte| byte == b'\n').count();
    let mut body = format!("{:?}", packet.body());
    if body.len() > 300 {
        body.truncate(300);
        body.push('…');
    }
    format!("e{} {body} +{lines} lines", packet.envelope.epoch)
}
