//! Checks: the whole exchange in one process, in virtual time, under faults drawn from one seed.
//!
//! Problem: the bugs that lose an order need three faults in the right order within milliseconds; no hand-written test
//! finds them, and real processes reach them once in months.
//! Idea: the very state machines that the services run ([`tradenet_core`]) are put into a made-up world whose network,
//! disks, clocks, register and clients are driven by one queue of events and one random generator. A run is a pure function of
//! its seed, so whatever it finds can be looked at again.
//! Rule kept: nothing here reads a real clock, a hash map's order or any randomness but the seed's.
//!
//! - [`world`]: machines, processes and the queue of events; what stories are told with. [`bus`], [`disk`], [`clock`] and
//!   [`register`] are what a process stands on, [`machine`] is where it runs.
//! - [`workload`]: clients. [`auditor`]: what they were promised (`feed`: of public events). [`invariants`]: S1 to S16 of `docs/protocol.md`.
//! - [`market`]: accounts and books a second time, by naive code, for the auditor and the ledger.
//! - [`history`]: what clients saw; [`linear`] searches an order of it, [`ledger`] compares it with a journal's bytes.
//! - [`explore`]: all ways that a small exchange can go.
//! - [`nemesis`]: faults. [`drill`]: one more, alone, and how long anybody waits for it. [`marks`]: rare situations, counted. [`run`]: one seed, from start to verdict. [`stories`]: faults by hand, one at a time.

pub mod auditor;
#[cfg(feature = "bugs")]
pub mod bugs;
pub mod bus;
pub mod clock;
pub mod disk;
pub mod drill;
pub mod explore;
mod feed;
pub mod history;
pub mod invariants;
pub mod ledger;
pub mod linear;
pub mod machine;
pub mod market;
pub mod marks;
pub mod nemesis;
pub mod register;
pub mod run;
pub mod stories;
pub mod tell;
pub mod trace;
pub mod workload;
pub mod world;

pub use machine::{Who, catalog, frontend, order};
pub use world::World;
