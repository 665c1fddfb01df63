//! The broker and the lines to it.
//!
//! Problem: a broker loses messages to slow consumers, holds them back and delivers them after a reconnect, and says that
//! nobody listens when the listener is only away.
//! Idea: every message goes up one line, is routed by who is subscribed at that moment, and goes down another line. A line
//! keeps the order; lines differ in delay, so messages of two senders overtake each other. A cut line holds messages back
//! until it heals or is given up; a client that is not connected sends what it wanted to say when it is again.
//! Rule kept: what core sees is what the real client shows it: topics, reply subjects, "no responders".

use std::sync::Arc;

use tradenet_core::{Input, Output, Packet, RegisterAnswer, RegisterRequest, ReplyTo};
use tradenet_schemas::message::Message;
use tradenet_schemas::subjects::{Peer, Topic};

use crate::machine::Who;
use crate::marks;
use crate::world::{Event, World};

/// Messages a client holds back while it is not connected.
const HELD_MAX: usize = 2_000;
/// A second copy of a message comes at most so much later.
const COPY_LATE_US: u64 = 10_000_000;
/// How long a client waits for the register.
const REGISTER_PATIENCE_US: u64 = 1_000_000;

/// What travels up a line.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// A message on a subject.
    Publish {
        /// Of which run.
        incarnation: u32,
        /// To whom.
        to: Peer,
        /// What.
        packet: Packet,
    },
    /// An answer.
    Reply {
        /// Where to.
        to: ReplyTo,
        /// What.
        packet: Packet,
    },
    /// A request to the register.
    Register {
        /// Of which run.
        incarnation: u32,
        /// What.
        request: RegisterRequest,
    },
}

/// How the network behaves.
#[derive(Clone, Debug)]
pub struct Weather {
    /// The least delay of a line, in microseconds.
    pub delay_us: u64,
    /// How much more it may be.
    pub jitter_us: u64,
    /// Of a million messages down a line, so many are lost.
    pub loss_ppm: u64,
    /// Of a million messages, so many are overtaken by later ones on the same line.
    pub overtaken_ppm: u64,
    /// Of a million messages, so many come twice.
    pub twice_ppm: u64,
    /// Of a million requests to the register, so many get no answer: half of them took effect.
    pub register_lost_ppm: u64,
    /// Of a million reads of the register, so many are answered by a copy that lags behind.
    pub register_stale_ppm: u64,
    /// How long the register takes at most.
    pub register_us: u64,
    /// Every message is encoded and decoded on its way.
    pub encodes: bool,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay_us: 50,
            jitter_us: 100,
            loss_ppm: 0,
            overtaken_ppm: 0,
            twice_ppm: 0,
            register_lost_ppm: 0,
            register_stale_ppm: 0,
            register_us: 2_000,
            encodes: true,
        }
    }
}

/// Whether a process of that kind subscribes to the topic for everybody.
fn hears_all(who: Who, topic: Topic) -> bool {
    match topic {
        Topic::Announce => true,
        Topic::Replicate => !matches!(who, Who::Frontend(_)),
        Topic::Commit => matches!(who, Who::Catalog(_)),
        _ => false,
    }
}

impl World {
    // ------------------------------------------------------------ up

    /// A process sends something.
    pub(crate) fn put_on_line(&mut self, from: usize, parcel: Parcel) {
        let link = &mut self.machines[from].link;
        if !link.up || link.cut_up {
            if link.held_up.len() < HELD_MAX {
                link.held_up.push_back(parcel);
            }
            return;
        }
        let delay = self.delay(from);
        let link = &mut self.machines[from].link;
        link.free_up = link.free_up.max(self.now + delay);
        let at = link.free_up;
        self.at(at, Event::AtBroker { from, parcel });
    }

    fn delay(&mut self, machine: usize) -> u64 {
        let jitter = self.rng.u64(0..=self.weather.jitter_us);
        self.weather.delay_us + jitter + self.machines[machine].lag_us
    }

    /// An output of a process that goes to the broker.
    pub(crate) fn say(&mut self, from: usize, output: Output) {
        let incarnation = self.machines[from].incarnation;
        match output {
            // Whoever follows the market is outside: that the events are right is all there is to see, and nothing is lost on
            // the way, so nothing is drawn for it.
            Output::Send { to, packet } if Topic::of(packet.body()) == Some(Topic::Events) => {
                self.check_published(&packet);
                if !self.followed {
                    self.put_in(from, Input::NobodyThere(to));
                }
            }
            Output::Send { to, packet } => {
                self.check_sent(from, &packet);
                self.put_on_line(from, Parcel::Publish { incarnation, to, packet });
            }
            Output::Reply { to, packet } => self.put_on_line(from, Parcel::Reply { to, packet }),
            Output::Register(request) => {
                let ticket = ticket_of(&request);
                if let Some(process) = &mut self.machines[from].process {
                    process.register_waits.insert(ticket, ());
                }
                let late = Event::RegisterLate { machine: from, incarnation, ticket };
                self.at(self.now + REGISTER_PATIENCE_US, late);
                self.put_on_line(from, Parcel::Register { incarnation, request });
            }
            _ => {}
        }
    }

    // ------------------------------------------------------------ at the broker

    pub(crate) fn at_broker(&mut self, from: usize, parcel: Parcel) {
        if !self.broker_up {
            return;
        }
        match parcel {
            Parcel::Publish { incarnation, to, packet } => self.publish(from, incarnation, to, packet),
            Parcel::Reply { to, packet } => {
                let Some((machine, incarnation)) = parse_reply(&to) else { return };
                if self.machines[machine].incarnation == incarnation && !self.are_apart(from, machine) {
                    let packet = self.through_the_wire(packet);
                    self.down(machine, Input::Received { packet, reply: None });
                }
            }
            Parcel::Register { incarnation, request } => self.register_asked(from, incarnation, request),
        }
    }

    fn publish(&mut self, from: usize, incarnation: u32, to: Peer, packet: Packet) {
        let Some(topic) = Topic::of(packet.body()) else { return };
        if let (Some(copies), Message::Submit(_)) = (&mut self.copies, packet.body()) {
            copies.push((from, Parcel::Publish { incarnation, to, packet: packet.clone() }));
        }
        let wants = Topic::wants_answer(packet.body());
        let reply = wants.then(|| ReplyTo(Arc::from(format!("{from}.{incarnation}"))));
        let listeners: Vec<usize> = (0..self.machines.len()).filter(|&m| self.listens(m, topic, to)).collect();
        if listeners.is_empty() && wants {
            if self.machines[from].incarnation == incarnation {
                self.mark(marks::NOBODY);
                self.down(from, Input::NobodyThere(to));
            }
            return;
        }
        let packet = self.through_the_wire(packet);
        for listener in listeners {
            if self.are_apart(from, listener) {
                continue;
            }
            let input = Input::Received { packet: packet.clone(), reply: reply.clone() };
            self.down(listener, input);
        }
    }

    fn listens(&self, machine: usize, topic: Topic, to: Peer) -> bool {
        let machine = &self.machines[machine];
        let ghost = self.now < machine.ghost_until && machine.id.is_some_and(|id| to == Peer::Order(id));
        let Some(process) = machine.process.as_ref().filter(|_| machine.link.up) else {
            return ghost;
        };
        match to {
            Peer::All => hears_all(machine.who, topic),
            Peer::Order(id) => machine.id == Some(id),
            Peer::Catalog(boot) => matches!(machine.who, Who::Catalog(_)) && process.boot == boot,
            Peer::Frontend(boot) => matches!(machine.who, Who::Frontend(_)) && process.boot == boot,
        }
    }

    fn through_the_wire(&mut self, packet: Packet) -> Packet {
        if !self.weather.encodes {
            return packet;
        }
        let bytes = packet.encode();
        match Packet::decode(&bytes) {
            Ok(decoded) => {
                if decoded != packet {
                    self.violated("wire", format!("{packet:?} arrives as {decoded:?}"));
                }
                decoded
            }
            Err(error) => {
                self.violated("wire", format!("{packet:?} can't be read: {error}"));
                packet
            }
        }
    }

    // ------------------------------------------------------------ down

    /// The broker sends something to a process.
    pub(crate) fn down(&mut self, to: usize, input: Input) {
        let link = &mut self.machines[to].link;
        if !link.up {
            return;
        }
        if self.weather.loss_ppm > 0
            && matches!(input, Input::Received { .. })
            && self.rng.u64(0..1_000_000) < self.weather.loss_ppm
        {
            self.line_of_message(to, "lost", &input, String::new);
            return self.mark(marks::LOST);
        }
        if self.machines[to].link.cut_down {
            self.machines[to].link.held_down.push_back(input);
            return;
        }
        if self.weather.twice_ppm > 0 && self.rng.u64(0..1_000_000) < self.weather.twice_ppm {
            self.mark(marks::TWICE);
            // At once, somewhat later, or when nobody thinks of it any more.
            match [0, 300_000, COPY_LATE_US][self.rng.usize(0..3)] {
                0 => self.down_once(to, input.clone()),
                most => {
                    if most == COPY_LATE_US {
                        self.mark(marks::COPY_LATE);
                    }
                    let (at, connection) = (self.now + self.rng.u64(0..most), self.machines[to].link.connection);
                    self.last_copy = self.last_copy.max(at);
                    let later = at - self.now;
                    self.line_of_message(to, "twice", &input, || format!("again in {later} us: "));
                    self.at(at, Event::Arrive { to, connection, input: input.clone() });
                }
            }
        }
        self.down_once(to, input);
    }

    fn down_once(&mut self, to: usize, input: Input) {
        let delay = self.delay(to);
        if self.weather.overtaken_ppm > 0 && self.rng.u64(0..1_000_000) < self.weather.overtaken_ppm {
            self.mark(marks::OVERTAKEN);
            let (at, connection) = (self.now + delay + self.rng.u64(0..300_000), self.machines[to].link.connection);
            let later = at - self.now;
            self.line_of_message(to, "delayed", &input, || format!("comes in {later} us: "));
            return self.at(at, Event::Arrive { to, connection, input });
        }
        let link = &mut self.machines[to].link;
        link.free_down = link.free_down.max(self.now + delay);
        let (at, connection) = (link.free_down, link.connection);
        self.at(at, Event::Arrive { to, connection, input });
    }

    pub(crate) fn arrived(&mut self, to: usize, connection: u32, input: Input) {
        let machine = &self.machines[to];
        if machine.link.connection != connection || !machine.link.up {
            return;
        }
        if let Input::Register(answer) = &input {
            let ticket = answer.ticket();
            let waits = self.machines[to].process.as_mut().and_then(|process| process.register_waits.remove(&ticket));
            if waits.is_none() {
                return;
            }
        }
        self.put_in(to, input);
    }

    // ------------------------------------------------------------ the register

    /// Whether a split of the broker's cluster is between two machines.
    fn are_apart(&self, one: usize, other: usize) -> bool {
        self.split.get(one) != self.split.get(other)
    }

    fn register_asked(&mut self, from: usize, incarnation: u32, request: RegisterRequest) {
        if self.split.get(from) == Some(&true) {
            return; // The register is on the other side.
        }
        let lost = self.rng.u64(0..1_000_000) < self.weather.register_lost_ppm;
        if lost && self.rng.bool() {
            return self.mark(marks::UNHEARD);
        }
        let took = 100 + self.rng.u64(0..=self.weather.register_us);
        let event = Event::AtRegister { from, incarnation, request, answers: !lost };
        self.register_free = self.register_free.max(self.now + took);
        self.at(self.register_free, event);
    }

    pub(crate) fn at_register(&mut self, from: usize, incarnation: u32, request: RegisterRequest, answers: bool) {
        if !self.broker_up {
            return;
        }
        let name = self.machines[from].name.clone();
        let asked = self.trace.wants_text().then(|| format!("{request:?}"));
        let writes = !matches!(request, RegisterRequest::Read { .. });
        let configuration = matches!(request, RegisterRequest::Write { .. });
        if writes && self.machines[from].id.is_none() {
            return self.violated("only replicas write", format!("{name}: {request:?}"));
        }
        let stale = self.weather.register_stale_ppm > 0 && self.rng.u64(0..1_000_000) < self.weather.register_stale_ppm;
        let behind = if stale { self.rng.usize(1..4) } else { 0 };
        if stale && !writes {
            self.mark(marks::STALE);
        }
        let answer = self.register.serve_behind(request, behind);
        if let Some(asked) = asked.filter(|_| writes) {
            let lost = if answers { "" } else { " (the answer is lost)" };
            let now = self.now;
            self.trace.line(now, &name, "register", || format!("{asked} -> {answer:?}{lost}"));
        }
        if writes && matches!(answer, RegisterAnswer::Written { .. }) {
            if !answers {
                self.mark(marks::UNTOLD_WRITE);
            }
            self.check_register(configuration);
        }
        if answers && self.machines[from].incarnation == incarnation {
            self.down(from, Input::Register(answer));
        }
    }

    pub(crate) fn register_late(&mut self, machine: usize, incarnation: u32, ticket: u64) {
        if self.machines[machine].incarnation != incarnation {
            return;
        }
        let waits = self.machines[machine].process.as_mut().and_then(|process| process.register_waits.remove(&ticket));
        if waits.is_some() {
            let why = "no answer within 1 s".to_owned();
            self.put_in(machine, Input::Register(RegisterAnswer::Unknown { ticket, why }));
        }
    }

    // ------------------------------------------------------------ lines

    /// Cuts the line in one direction or both; after a while it is given up.
    pub(crate) fn cut_line(&mut self, machine: usize, up: bool, down: bool) {
        let link = &mut self.machines[machine].link;
        link.cut_up |= up;
        link.cut_down |= down;
        let connection = link.connection;
        let at = self.now + self.rng.u64(500_000..3_000_000);
        self.at(at, Event::GiveUp { machine, connection });
    }

    pub(crate) fn given_up(&mut self, machine: usize, connection: u32) {
        let link = &self.machines[machine].link;
        if link.connection == connection && link.up && (link.cut_up || link.cut_down) {
            self.disconnect(machine, true);
        }
    }

    /// The line works again.
    pub(crate) fn mend_line(&mut self, machine: usize) {
        let link = &self.machines[machine].link;
        if link.cut_up || link.cut_down {
            self.line_of(machine, "mended", || "its line".to_owned());
        }
        let link = &mut self.machines[machine].link;
        link.cut_up = false;
        link.cut_down = false;
        let held = !link.held_up.is_empty() || !link.held_down.is_empty();
        if link.up {
            if held {
                self.mark(marks::HELD);
            }
            self.flush_line(machine);
        }
    }

    fn flush_line(&mut self, machine: usize) {
        let up = std::mem::take(&mut self.machines[machine].link.held_up);
        let down = std::mem::take(&mut self.machines[machine].link.held_down);
        up.into_iter().for_each(|parcel| self.put_on_line(machine, parcel));
        down.into_iter().for_each(|input| self.down_once(machine, input));
    }

    /// The connection is gone; the process comes back by itself.
    pub(crate) fn disconnect(&mut self, machine: usize, comes_back: bool) {
        let link = &mut self.machines[machine].link;
        if !link.up {
            return;
        }
        link.up = false;
        link.connection += 1;
        link.held_down.clear();
        self.line_of(machine, "offline", || "its connection is gone".to_owned());
        if comes_back {
            self.put_in(machine, Input::Disconnected);
            let incarnation = self.machines[machine].incarnation;
            let at = self.now + self.rng.u64(1_000..400_000);
            self.at(at, Event::Connect { machine, incarnation });
        } else {
            self.machines[machine].link.held_up.clear();
        }
    }

    pub(crate) fn connect(&mut self, machine: usize, incarnation: u32) {
        let broker_up = self.broker_up;
        let place = &mut self.machines[machine];
        if place.incarnation != incarnation || place.process.is_none() || place.link.up {
            return;
        }
        if !broker_up || place.link.cut_up || place.link.cut_down {
            let at = self.now + self.rng.u64(50_000..250_000);
            return self.at(at, Event::Connect { machine, incarnation });
        }
        place.link.up = true;
        place.link.connection += 1;
        (place.link.free_up, place.link.free_down) = (0, 0);
        let held = self.machines[machine].link.held_up.len();
        self.line_of(machine, "online", || format!("it is connected, and sends {held} messages that waited"));
        if held > 0 {
            self.mark(marks::LATE);
        }
        self.put_in(machine, Input::Connected);
        self.flush_line(machine);
    }
}

fn ticket_of(request: &RegisterRequest) -> u64 {
    match request {
        RegisterRequest::Read { ticket }
        | RegisterRequest::Write { ticket, .. }
        | RegisterRequest::Floor { ticket, .. } => *ticket,
    }
}

fn parse_reply(to: &ReplyTo) -> Option<(usize, u32)> {
    let (machine, incarnation) = to.0.split_once('.')?;
    Some((machine.parse().ok()?, incarnation.parse().ok()?))
}
