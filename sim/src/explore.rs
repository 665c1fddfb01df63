//! All ways that a small exchange can go, within bounds.
//!
//! Problem: seeds find what is likely. A rule that matters only after a handful of particular steps may never be tried.
//! Idea: the same deciders as everywhere, in a world without chance. Whatever may happen next is a [`Move`]: a message
//! arrives or is lost, a disk syncs, the register answers or its answer is lost, a replica crashes, comes back or is cut off,
//! time passes, a client asks. All of them are gone through depth first, and a situation that was reached before, in
//! whatever way, is not gone through again. The invariants are those of every other run.
//! Rule kept: what was not gone through is said: [`Explored::complete`] is `false` where a bound on situations ended it.
//!
//! Coarser than the real thing: time passes in jumps, for everybody at once, and only when everything under way has come
//! about or is held up by a cut. What goes to or from the frontend, heartbeats, pre-votes and their answers travel at once. A
//! line keeps its order; what is said twice in a row on it arrives once. A crash leaves all of what waited for the disk, or
//! none of it. Where overtaking is bounded ([`Bounds::overtakes`]), what has been able to happen for longest happens first but
//! for so many times, as in delay-bounded scheduling (Emmi, Qadeer, Rakamarić 2011): with more than two replicas the orders of
//! independent steps are too many to go through all of them. There is no catalog, one frontend, and clients ask one thing after the other. Situations are told apart by a
//! 64-bit hash, so one in about 2^64 / situations may be taken for another.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hasher;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tradenet_core::exchange::ORDERS_KEPT;
use tradenet_core::replica::{CATCH_UP_BYTES_PER_S, FAR_BEHIND_ENTRIES, Replica};
use tradenet_core::times::Times;
use tradenet_core::{
    ClientRequest, DiskRequest, Input, Mono, Now, Output, Packet, RegisterAnswer, RegisterRequest, ReplyTo, Stop,
    Ticket, frontend, replica,
};
use tradenet_schemas::ids::{Boot, Epoch, Node, ReplicaId, StoreId};
use tradenet_schemas::message::{Envelope, Message};
use tradenet_schemas::subjects::{Peer, Topic};

use crate::auditor::{Auditor, Op};
use crate::disk::{Disk, is_read};
use crate::invariants::{Invariants, Verdict, Violation, acknowledgement};
use crate::machine::{Decided, Holder, LastSeen};
use crate::register::Register;
use crate::tell::buy;
use crate::world::{Answered, stocks, symbol};

/// How much time passes at once: enough to suspect a leader and to take a follower out.
const JUMP_US: u64 = 600_000;
/// In steps of which nobody takes the jump for a pause of its own.
const STEP_US: u64 = 200_000;
/// When the world begins; zero means "never" in places.
const BEGINNING_US: u64 = 1_000_000;
/// A place whose hash is not known any more.
const TOUCHED: u64 = 0;

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Replicas, all of them in sync at first.
    pub replicas: u8,
    /// Purchases, each under a key of its own.
    pub purchases: u8,
    /// Reads of the stock, asked for after them.
    pub reads: u8,
    /// Crashes of replicas.
    pub crashes: u8,
    /// Messages, or answers of the register, that get lost.
    pub losses: u8,
    /// Times that a replica is cut off.
    pub cuts: u8,
    /// Times that time passes.
    pub jumps: u8,
    /// Times that something arrives, is synced or answered before what has been able to for longer; none: without a limit.
    pub overtakes: Option<u8>,
    /// Situations to go through at most.
    pub situations_max: usize,
}

impl Bounds {
    /// Two replicas, one order and one crash: small enough for a test.
    pub const TEST: Self = Self {
        replicas: 2,
        purchases: 1,
        reads: 0,
        crashes: 1,
        losses: 0,
        cuts: 0,
        jumps: 1,
        overtakes: None,
        situations_max: 1_000_000,
    };
}

/// Something that may happen next. Replicas are counted from 0; the frontend comes behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// The oldest message on a line arrives.
    Deliver(usize, usize),
    /// The oldest message on a line is lost.
    Lose(usize, usize),
    /// A disk carries out the oldest of what it was asked.
    Sync(usize),
    /// The register carries out the oldest of what it was asked by this one.
    Register(usize),
    /// It carries it out, and the answer is lost.
    RegisterUntold(usize),
    /// A replica crashes; what waited for its disk is on it, or is not.
    Crash(usize, bool),
    /// It starts again.
    Start(usize),
    /// A replica is cut off: nothing gets to it or away from it.
    Cut(usize),
    /// It is connected again.
    Mend(usize),
    /// A client asks the next thing.
    Ask,
    /// Time passes.
    Pass,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different situations.
    pub situations: usize,
    /// Moves made between them.
    pub moves: u64,
    /// The longest way, in moves.
    pub deepest: usize,
    /// The highest epoch reached.
    pub epochs: u64,
    /// Whether everything within the bounds was gone through.
    pub complete: bool,
    /// What does not hold, and the way that leads there.
    pub violation: Option<(Violation, Vec<Move>)>,
}

/// A replica or the frontend, with what belongs to it.
#[derive(Clone, Debug)]
struct Place {
    id: Option<ReplicaId>,
    name: String,
    incarnation: u32,
    decider: Option<Decided>,
    last_seen: LastSeen,
    disk: Disk,
    asked: VecDeque<(u32, RegisterRequest)>,
    cut: bool,
}

impl Place {
    fn boot(&self, index: usize) -> Boot {
        Boot((index as u64 + 1) << 32 | u64::from(self.incarnation))
    }
    fn replica(&self) -> Option<&Replica> {
        match self.decider.as_ref()? {
            Decided::Replica(replica) => Some(replica),
            _ => None,
        }
    }
}

/// Everything that decides what may come.
#[derive(Clone)]
struct Situation {
    now: u64,
    places: Vec<Rc<Place>>,
    /// Hashes of the places, or [`TOUCHED`].
    prints: Vec<u64>,
    lines: BTreeMap<(usize, usize), VecDeque<Input>>,
    /// What may happen where nothing goes wrong, longest first; only where overtaking is bounded.
    waiting: Vec<Move>,
    register: Register,
    invariants: Invariants,
    auditor: Auditor,
    requests: VecDeque<ClientRequest>,
    calls: BTreeMap<Ticket, Op>,
    left: Bounds,
    violation: Option<Violation>,
}

/// Goes through everything within the bounds, or up to the first thing that does not hold.
pub fn explore(bounds: Bounds) -> Explored {
    let start = Situation::begun(bounds);
    let mut explored = Explored { situations: 0, moves: 0, deepest: 0, epochs: 0, complete: false, violation: None };
    let mut seen = HashSet::new();
    // The situations on the way, each with the moves that were not tried yet; and the moves that led from one to the next.
    let mut way: Vec<(Situation, Vec<Move>)> = Vec::new();
    let mut taken: Vec<Move> = Vec::new();
    let mut reached = Some(start);
    loop {
        if let Some(mut situation) = reached.take() {
            if let Some(violation) = situation.violation.take() {
                explored.violation = Some((violation, taken));
                break;
            }
            if !seen.insert(situation.fingerprint()) {
                taken.pop();
            } else if seen.len() > bounds.situations_max {
                break;
            } else {
                explored.note(&situation, taken.len());
                let moves = situation.moves();
                way.push((situation, moves));
            }
        }
        let Some((situation, moves)) = way.last_mut() else {
            explored.complete = true;
            break;
        };
        match moves.pop() {
            Some(next) => {
                let mut situation = situation.clone();
                situation.make(next);
                explored.moves += 1;
                taken.push(next);
                reached = Some(situation);
            }
            None => {
                way.pop();
                taken.pop();
            }
        }
    }
    explored
}

impl Explored {
    fn note(&mut self, situation: &Situation, depth: usize) {
        self.situations += 1;
        self.deepest = self.deepest.max(depth);
        self.epochs = self.epochs.max(situation.epoch().0);
    }
}

/// Times under which members come back and hand-overs happen within few jumps.
fn times() -> Times {
    Times { readd: Duration::ZERO, handover: Duration::from_millis(300), ..Times::default() }
}

impl Situation {
    // ------------------------------------------------------------ the beginning

    /// All replicas in sync, the highest leads, one stock is listed, nothing is under way.
    fn begun(bounds: Bounds) -> Self {
        let count = usize::from(bounds.replicas);
        let place = |index: usize| {
            let id = u8::try_from(index + 1).ok().and_then(ReplicaId::new).filter(|_| index < count);
            let name = id.map_or_else(|| "frontend".to_owned(), |id| format!("order-{id}"));
            let disk = Disk::new(StoreId(index as u64 + 1), 0, ORDERS_KEPT);
            let (asked, last_seen) = (VecDeque::new(), LastSeen::default());
            Rc::new(Place { id, name, incarnation: 0, decider: None, last_seen, disk, asked, cut: false })
        };
        let mut situation = Self {
            now: BEGINNING_US,
            places: (0..=count).map(place).collect(),
            prints: vec![TOUCHED; count + 1],
            lines: BTreeMap::new(),
            waiting: Vec::new(),
            register: Register::new(),
            invariants: Invariants::new(),
            auditor: Auditor::new(),
            requests: VecDeque::new(),
            calls: BTreeMap::new(),
            left: Bounds {
                purchases: 0,
                reads: 0,
                crashes: 0,
                losses: 0,
                cuts: 0,
                jumps: 0,
                overtakes: None,
                ..bounds
            },
            violation: None,
        };
        (0..=count).for_each(|place| situation.start(place));
        situation.settle();
        situation.list();
        situation.settle();
        let purchases = (1..=bounds.purchases).map(|number| buy("HOT", 1, &format!("k{number}")));
        let reads = (0..bounds.reads).map(|_| ClientRequest::Stock(symbol("HOT")));
        situation.requests.extend(purchases.chain(reads));
        situation.left = bounds;
        situation
    }

    /// Everything goes its ordinary way until nothing is under way and somebody leads.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            match self.ordinary().first() {
                Some(next) => self.make(*next),
                None if self.leader().is_some() || self.violation.is_some() => return,
                None => self.pass(STEP_US),
            }
        }
        panic!("nobody ever leads, though nothing goes wrong");
    }

    fn leader(&self) -> Option<usize> {
        self.places.iter().position(|place| place.replica().is_some_and(|replica| replica.serves_in().is_some()))
    }

    /// Lists a stock, as a catalog would ask for it.
    fn list(&mut self) {
        let stocks = stocks().into_iter().take(1).collect();
        let from = Node::Catalog(Boot(u64::MAX));
        let envelope = Envelope { cluster: None, epoch: Epoch(0), from, body: Message::List { stocks } };
        let packet = Packet::new(envelope, Bytes::new());
        if let Some(leader) = self.leader() {
            self.give(leader, Input::Received { packet, reply: Some(ReplyTo(Arc::from("nobody"))) });
        }
    }

    // ------------------------------------------------------------ moves

    /// All that may happen next; the last one is tried first.
    fn moves(&self) -> Vec<Move> {
        let mut moves = match self.left.overtakes {
            None => self.ordinary(),
            Some(0) => self.waiting.first().copied().into_iter().collect(),
            Some(_) => self.waiting.clone(),
        };
        // Lateness costs a cut: else everything that can happen does before time passes.
        let idle = moves.is_empty();
        self.add_faults(&mut moves);
        if !self.requests.is_empty() {
            moves.push(Move::Ask);
        }
        if idle && self.left.jumps > 0 {
            moves.push(Move::Pass);
        }
        moves
    }

    /// What happens where nothing goes wrong.
    fn ordinary(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (&(from, to), _) in self.lines.iter().filter(|((from, to), _)| !self.are_apart(*from, *to)) {
            moves.push(Move::Deliver(from, to));
        }
        for (index, place) in self.places.iter().enumerate() {
            if !place.asked.is_empty() && !place.cut {
                moves.push(Move::Register(index));
            }
            if place.decider.is_some() && place.disk.next().is_some() {
                moves.push(Move::Sync(index));
            }
        }
        moves
    }

    fn add_faults(&self, moves: &mut Vec<Move>) {
        let left = &self.left;
        if left.losses > 0 {
            let lost = moves.clone().into_iter().filter_map(|ordinary| match ordinary {
                Move::Deliver(from, to) => Some(Move::Lose(from, to)),
                Move::Register(place) => Some(Move::RegisterUntold(place)),
                _ => None,
            });
            moves.extend(lost);
        }
        for place in (0..self.places.len()).filter(|&place| self.places[place].id.is_some()) {
            let Place { decider, disk, cut, .. } = &*self.places[place];
            if decider.is_none() {
                moves.push(Move::Start(place));
            } else if left.crashes > 0 {
                moves.push(Move::Crash(place, false));
                if disk.next().is_some() {
                    moves.push(Move::Crash(place, true));
                }
            }
            if *cut {
                moves.push(Move::Mend(place));
            } else if left.cuts > 0 && decider.is_some() {
                moves.push(Move::Cut(place));
            }
        }
    }

    fn are_apart(&self, one: usize, other: usize) -> bool {
        self.places[one].cut || self.places[other].cut
    }

    fn make(&mut self, next: Move) {
        let overtakes = self.waiting.iter().skip(1).any(|waiting| *waiting == next);
        if let Some(left) = self.left.overtakes.as_mut().filter(|_| overtakes) {
            *left -= 1;
        }
        self.make_it_happen(next);
        if self.left.overtakes.is_some() {
            self.line_up(next);
        }
    }

    /// What is able to happen since `made` comes behind what has been able to before.
    fn line_up(&mut self, made: Move) {
        let done = match made {
            Move::Lose(from, to) => Move::Deliver(from, to),
            Move::RegisterUntold(place) => Move::Register(place),
            made => made,
        };
        let able = self.ordinary();
        self.waiting.retain(|waiting| *waiting != done && able.contains(waiting));
        let new: Vec<_> = able.into_iter().filter(|able| !self.waiting.contains(able)).collect();
        self.waiting.extend(new);
    }

    fn make_it_happen(&mut self, next: Move) {
        match next {
            Move::Deliver(from, to) => {
                if let Some(input) = self.take_from_line(from, to) {
                    self.give(to, input);
                }
            }
            Move::Lose(from, to) => {
                self.left.losses -= 1;
                self.take_from_line(from, to);
            }
            Move::Sync(place) => self.sync(place),
            Move::Register(place) => self.register(place, true),
            Move::RegisterUntold(place) => {
                self.left.losses -= 1;
                self.register(place, false);
            }
            Move::Crash(place, keeps) => {
                self.left.crashes -= 1;
                self.end(place, keeps);
            }
            Move::Start(place) => self.start(place),
            Move::Cut(place) => {
                self.left.cuts -= 1;
                self.place(place).cut = true;
            }
            Move::Mend(place) => self.place(place).cut = false,
            Move::Ask => self.ask(),
            Move::Pass => {
                self.left.jumps -= 1;
                self.pass(JUMP_US);
            }
        }
    }

    fn place(&mut self, place: usize) -> &mut Place {
        self.prints[place] = TOUCHED;
        Rc::make_mut(&mut self.places[place])
    }

    fn take_from_line(&mut self, from: usize, to: usize) -> Option<Input> {
        let line = self.lines.get_mut(&(from, to))?;
        let input = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&(from, to));
        }
        input
    }

    fn pass(&mut self, jump_us: u64) {
        for _ in 0..jump_us / STEP_US {
            self.now += STEP_US;
            (0..self.places.len()).for_each(|place| self.give(place, Input::Timer));
        }
    }

    fn ask(&mut self) {
        let Some(request) = self.requests.pop_front() else { return };
        let ticket = Ticket(self.requests.len() as u64);
        self.calls.insert(ticket, self.auditor.begin(&request));
        self.give(self.places.len() - 1, Input::Client(ticket, request));
    }

    fn start(&mut self, index: usize) {
        let members: Vec<_> = self.places.iter().filter_map(|place| place.id).collect();
        let place = self.place(index);
        place.incarnation += 1;
        place.last_seen = LastSeen::default();
        let boot = place.boot(index);
        let decider = match place.id {
            Some(id) => Decided::Replica(Box::new(Replica::new(replica::Options {
                id,
                boot,
                store: place.disk.store,
                members,
                times: times(),
                configuration: place.disk.configuration.clone(),
                journal_bytes: place.disk.file.len() as u64,
                snapshot_every_bytes: u64::MAX,
                orders_kept: ORDERS_KEPT,
                far_behind_entries: FAR_BEHIND_ENTRIES,
                catch_up_bytes_per_s: CATCH_UP_BYTES_PER_S,
            }))),
            None => {
                let options = frontend::Options { boot, members, times: times(), cache_size: 0 };
                Decided::Frontend(Box::new(frontend::Frontend::new(options)))
            }
        };
        place.decider = Some(decider);
        self.give(index, Input::Connected);
    }

    /// The process at that place is no more.
    fn end(&mut self, index: usize, keeps: bool) {
        let place = self.place(index);
        place.decider = None;
        place.disk.crash_with(keeps);
        self.lines.retain(|(_, to), _| *to != index);
        let verdict = self.invariants.disk_changed(&holders(&self.places), &self.register);
        self.verdict(verdict);
    }

    fn sync(&mut self, index: usize) {
        let now = self.now;
        let entries = self.places[index].disk.entries();
        let Some(answer) = self.place(index).disk.carry_out(now) else { return };
        if self.places[index].disk.entries() < entries {
            let verdict = self.invariants.disk_changed(&holders(&self.places), &self.register);
            self.verdict(verdict);
        }
        self.give(index, Input::Disk(answer));
    }

    fn register(&mut self, index: usize, told: bool) {
        let Some((incarnation, request)) = self.place(index).asked.pop_front() else { return };
        let configuration = matches!(request, RegisterRequest::Write { .. });
        let mut answer = self.register.serve(request);
        if matches!(answer, RegisterAnswer::Written { .. }) {
            let verdict = self.invariants.register_written(&holders(&self.places), &self.register, configuration);
            self.verdict(verdict);
        }
        if !told {
            answer = RegisterAnswer::Unknown { ticket: answer.ticket(), why: "no answer".to_owned() };
        }
        if self.places[index].incarnation == incarnation {
            self.give(index, Input::Register(answer));
        }
    }

    // ------------------------------------------------------------ what deciders do

    /// Hands something to a decider, and carries out what it wants; and so on with whoever is heard at once.
    fn give(&mut self, to: usize, input: Input) {
        let mut work = VecDeque::from([(to, input)]);
        while let Some((index, input)) = work.pop_front() {
            let now = Now { mono: Mono(self.now), wall_ms: self.now / 1_000 };
            let Some(decider) = self.place(index).decider.as_mut() else { continue };
            decider.handle(now, input);
            let mut outputs = Vec::new();
            while let Some(output) = decider.poll_output() {
                outputs.push(output);
            }
            self.look_at(index);
            for output in outputs {
                self.carry_out(index, output, &mut work);
            }
        }
    }

    fn look_at(&mut self, index: usize) {
        let place = &self.places[index];
        let Some(replica) = place.replica() else { return };
        let (seen, now_seen) = (place.last_seen, LastSeen::of(replica));
        let holders = holders(&self.places);
        let Some(me) = holders.iter().copied().find(|holder| Some(holder.id) == place.id) else {
            return;
        };
        if now_seen != seen {
            let verdict = self.invariants.replica_stepped(replica, (seen, now_seen), me, &holders, &self.register);
            self.verdict(verdict);
            self.place(index).last_seen = now_seen;
        }
    }

    fn verdict(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violation.get_or_insert(violation);
        }
    }

    fn carry_out(&mut self, from: usize, output: Output, work: &mut VecDeque<(usize, Input)>) {
        match output {
            Output::Send { to, packet } => self.send(from, to, &packet, work),
            Output::Reply { to, packet } => {
                let to = to.0.split_once('.').and_then(|(to, run)| Some((to.parse().ok()?, run.parse().ok()?)));
                let alive = |(to, run): &(usize, u32)| self.places[*to].incarnation == *run;
                if let Some((to, _)) = to.filter(alive) {
                    self.put_on_line(from, to, Input::Received { packet, reply: None }, work);
                }
            }
            Output::Register(request) => {
                let place = self.place(from);
                place.asked.push_back((place.incarnation, request));
            }
            Output::Disk(request) => self.ask_disk(from, request, work),
            Output::Answer(ticket, answer) => {
                if let Some(op) = self.calls.remove(&ticket) {
                    let verdict = self.auditor.end(&op, &Answered::With(answer), &self.invariants.truth);
                    self.verdict(verdict);
                }
            }
            Output::Notice(_) => {}
            Output::Stop(Stop::Broken(why)) if why.contains("must not happen") => {
                self.verdict(Err(Violation::new("S14 no repair cuts what is committed", why)));
            }
            Output::Stop(_) => self.end(from, true),
        }
    }

    fn send(&mut self, from: usize, to: Peer, packet: &Packet, work: &mut VecDeque<(usize, Input)>) {
        if let (Message::Ack { store, durable, .. }, Some(me)) = (packet.body(), holder(&self.places[from], from)) {
            let verdict = acknowledgement::check(me, packet.envelope.epoch, *store, *durable);
            self.verdict(verdict);
        }
        // Whoever follows the market is outside.
        let Some(topic) = Topic::of(packet.body()).filter(|topic| *topic != Topic::Events) else { return };
        let wants = Topic::wants_answer(packet.body());
        let run = self.places[from].incarnation;
        let reply = wants.then(|| ReplyTo(Arc::from(format!("{from}.{run}"))));
        let hears = |index: usize| {
            let place = &self.places[index];
            index != from
                && place.decider.is_some()
                && match to {
                    Peer::Order(id) => place.id == Some(id),
                    Peer::All => topic == Topic::Announce || topic == Topic::Replicate && place.id.is_some(),
                    Peer::Catalog(_) | Peer::Frontend(_) => false,
                }
        };
        let listeners: Vec<_> = (0..self.places.len()).filter(|&index| hears(index)).collect();
        if listeners.is_empty() && wants && !self.places[from].cut {
            work.push_back((from, Input::NobodyThere(to)));
        }
        for listener in listeners {
            let input = Input::Received { packet: packet.clone(), reply: reply.clone() };
            self.put_on_line(from, listener, input, work);
        }
    }

    fn put_on_line(&mut self, from: usize, to: usize, input: Input, work: &mut VecDeque<(usize, Input)>) {
        let frontend = self.places.len() - 1;
        let at_once = from == frontend || to == frontend || is_heartbeat(&input);
        match (at_once, self.are_apart(from, to)) {
            (true, false) => return work.push_back((to, input)),
            (true, true) if is_heartbeat(&input) => return,
            _ => {}
        }
        let line = self.lines.entry((from, to)).or_default();
        if is_keep_alive(&input) && line.back().is_some_and(is_keep_alive) {
            line.pop_back();
        }
        if !line.back().is_some_and(|last| is_the_same(last, &input)) {
            line.push_back(input);
        }
    }

    /// What is only read is read at once.
    fn ask_disk(&mut self, from: usize, request: DiskRequest, work: &mut VecDeque<(usize, Input)>) {
        let now = self.now;
        let disk = &mut self.place(from).disk;
        disk.ask(now, request, &mut Rng::with_seed(0));
        while disk.next().is_some_and(is_read) {
            work.extend(disk.carry_out(now).map(|answer| (from, Input::Disk(answer))));
        }
    }

    // ------------------------------------------------------------ which situation it is

    fn epoch(&self) -> Epoch {
        self.invariants.newest.as_ref().map(|newest| newest.epoch).unwrap_or_default()
    }

    fn fingerprint(&mut self) -> u64 {
        for (place, print) in self.places.iter().zip(&mut self.prints) {
            if *print == TOUCHED {
                *print = hash_of(place);
            }
        }
        let under_way = (&self.lines, &self.waiting, &self.requests, &self.calls, &self.left, self.now);
        hash_of(&(&self.prints, under_way, &self.register, &self.invariants, &self.auditor))
    }
}

/// A heartbeat or a pre-vote, or its answer.
fn is_heartbeat(input: &Input) -> bool {
    let Input::Received { packet, .. } = input else { return false };
    matches!(
        packet.body(),
        Message::Heartbeat { .. } | Message::PreVote { .. } | Message::Status(_) | Message::Vote { .. }
    )
}

fn is_keep_alive(input: &Input) -> bool {
    let Input::Received { packet, .. } = input else { return false };
    matches!(packet.body(), Message::Append { configuration: None, .. }) && packet.lines.is_empty()
}

/// Said twice in a row, by who sends it again: the second tells nothing.
fn is_the_same(one: &Input, other: &Input) -> bool {
    match (one, other) {
        (Input::Received { packet: one, reply: _ }, Input::Received { packet: other, reply: _ }) => one == other,
        _ => false,
    }
}

fn holder(place: &Place, index: usize) -> Option<Holder<'_>> {
    let boot = place.decider.as_ref().map(|_| place.boot(index));
    place.id.map(|id| Holder { id, name: &place.name, boot, disk: &place.disk })
}

fn holders(places: &[Rc<Place>]) -> Vec<Holder<'_>> {
    places.iter().enumerate().filter_map(|(index, place)| holder(place, index)).collect()
}

/// A hash of all that the value's text says.
fn hash_of(value: &impl Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(format!("{value:?}").as_bytes());
    hasher.finish()
}
