//! Where a process runs: a clock, a disk, a connection to the broker.

use std::collections::{BTreeMap, VecDeque};

use tradenet_core::catalog::Catalog;
use tradenet_core::frontend::Frontend;
use tradenet_core::replica::Replica;
use tradenet_core::{Decider, Input, Mono, Now, Output};
use tradenet_schemas::ids::{Boot, Epoch, Node, Position, ReplicaId, SeqNum};

use crate::bus::Parcel;
use crate::clock::Clock;
use crate::disk::Disk;

/// A place in the exchange, by the name a story calls it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// An order replica.
    Order(u8),
    /// A catalog.
    Catalog(u8),
    /// A frontend.
    Frontend(u8),
    /// Another machine, with a disk of its own, on which somebody starts an order replica of that id a second time.
    Twin(u8),
}

/// The order replica of that id.
pub fn order(id: u8) -> Who {
    Who::Order(id)
}

/// The catalog of that number.
pub fn catalog(number: u8) -> Who {
    Who::Catalog(number)
}

/// The frontend of that number.
pub fn frontend(number: u8) -> Who {
    Who::Frontend(number)
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Order(id) => write!(f, "order-{id}"),
            Self::Catalog(id) => write!(f, "catalog-{id}"),
            Self::Frontend(id) => write!(f, "frontend-{id}"),
            Self::Twin(id) => write!(f, "order-{id}-twin"),
        }
    }
}

/// Any of core's deciders.
#[derive(Clone, Debug)]
pub enum Decided {
    /// An order replica.
    Replica(Box<Replica>),
    /// A catalog.
    Catalog(Box<Catalog>),
    /// A frontend.
    Frontend(Box<Frontend>),
}

impl Decided {
    /// See [`Decider::handle`].
    pub fn handle(&mut self, now: Now, input: Input) {
        match self {
            Self::Replica(decider) => decider.handle(now, input),
            Self::Catalog(decider) => decider.handle(now, input),
            Self::Frontend(decider) => decider.handle(now, input),
        }
    }
    /// See [`Decider::poll_output`].
    pub fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Replica(decider) => decider.poll_output(),
            Self::Catalog(decider) => decider.poll_output(),
            Self::Frontend(decider) => decider.poll_output(),
        }
    }
    /// See [`Decider::poll_timeout`].
    pub fn poll_timeout(&self) -> Option<Mono> {
        match self {
            Self::Replica(decider) => decider.poll_timeout(),
            Self::Catalog(decider) => decider.poll_timeout(),
            Self::Frontend(decider) => decider.poll_timeout(),
        }
    }
}

/// What the invariants last saw of a replica, to look only at what is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastSeen {
    /// The end of its log.
    pub tail: Position,
    /// What it knows to be committed.
    pub committed: SeqNum,
    /// What it has applied.
    pub applied: SeqNum,
    /// The epoch it serves in, if it does.
    pub serves_in: Option<Epoch>,
}

impl LastSeen {
    /// What is to be seen of a replica now.
    pub fn of(replica: &Replica) -> Self {
        Self {
            tail: replica.tail(),
            committed: replica.committed(),
            applied: replica.exchange().applied(),
            serves_in: replica.serves_in().map(|held| held.epoch),
        }
    }
}

/// A replica's place as the invariants look at it: its disk, and the process that runs on it, if one does.
#[derive(Clone, Copy)]
pub struct Holder<'a> {
    /// Which replica.
    pub id: ReplicaId,
    /// Its name, for people.
    pub name: &'a str,
    /// The process.
    pub boot: Option<Boot>,
    /// Its disk.
    pub disk: &'a Disk,
}

/// A running process.
pub struct Process {
    /// The state machine.
    pub decider: Decided,
    /// This run.
    pub boot: Boot,
    /// What waits to be handled.
    pub inbox: VecDeque<Input>,
    /// When a wake is due.
    pub wake_at: Option<u64>,
    /// When its timer is due.
    pub timer_at: Option<u64>,
    /// Requests to the register without an answer.
    pub register_waits: BTreeMap<u64, ()>,
    /// See there.
    pub last_seen: LastSeen,
}

/// The connection between a process and the broker.
#[derive(Default)]
pub struct Link {
    /// Counts connections: what was on its way to an earlier one is lost.
    pub connection: u32,
    /// The client is connected, and subscribed.
    pub up: bool,
    /// Nothing gets from the process to the broker.
    pub cut_up: bool,
    /// Nothing gets from the broker to the process.
    pub cut_down: bool,
    /// What the client holds back until it is connected again.
    pub held_up: VecDeque<Parcel>,
    /// What the broker holds back while the line is cut but not given up.
    pub held_down: VecDeque<Input>,
    /// Messages keep their order on a connection.
    pub free_up: u64,
    /// The same, downwards.
    pub free_down: u64,
}

/// A machine: one place, with or without a process.
pub struct Machine {
    /// Which place.
    pub who: Who,
    /// The replica's id, for a replica.
    pub id: Option<ReplicaId>,
    /// Its name, for the trace.
    pub name: String,
    /// Its clock.
    pub clock: Clock,
    /// Its disk; of no use but to a replica.
    pub disk: Disk,
    /// Counts processes.
    pub incarnation: u32,
    /// The process, if one runs.
    pub process: Option<Process>,
    /// Its connection.
    pub link: Link,
    /// It does nothing until then.
    pub paused_until: Option<u64>,
    /// Why the last process ended by itself.
    pub ended: Option<String>,
    /// The machine is gone, but until then the broker takes the process for alive, and nobody is told otherwise.
    pub ghost_until: u64,
    /// Extra delay of its messages, in microseconds.
    pub lag_us: u64,
}

impl Machine {
    /// The place as the invariants look at it, for a replica.
    pub fn holder(&self) -> Option<Holder<'_>> {
        let boot = self.process.as_ref().map(|process| process.boot);
        self.id.map(|id| Holder { id, name: &self.name, boot, disk: &self.disk })
    }
    /// The running replica.
    pub fn replica(&self) -> Option<&Replica> {
        match &self.process.as_ref()?.decider {
            Decided::Replica(replica) => Some(replica),
            _ => None,
        }
    }
    /// The running catalog.
    pub fn catalog(&self) -> Option<&Catalog> {
        match &self.process.as_ref()?.decider {
            Decided::Catalog(catalog) => Some(catalog),
            _ => None,
        }
    }
    /// The running frontend.
    pub fn frontend(&self) -> Option<&Frontend> {
        match &self.process.as_ref()?.decider {
            Decided::Frontend(frontend) => Some(frontend),
            _ => None,
        }
    }
    /// Whether this is a replica's own machine.
    pub fn is_replica(&self) -> bool {
        matches!(self.who, Who::Order(_))
    }
    /// Whether a process runs that is not paused.
    pub fn is_running(&self) -> bool {
        self.process.is_some() && self.paused_until.is_none()
    }
    /// As whom the process speaks.
    pub fn node(&self) -> Option<Node> {
        let boot = self.process.as_ref()?.boot;
        Some(match (self.who, self.id) {
            (_, Some(id)) => Node::Order(id, boot),
            (Who::Catalog(_), _) => Node::Catalog(boot),
            _ => Node::Frontend(boot),
        })
    }
}
