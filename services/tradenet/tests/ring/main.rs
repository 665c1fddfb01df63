//! The ring of tests: the real program, a real broker, real disks, real kills.
//!
//! Problem: what the simulator shows of the core says nothing of processes that are killed, paused and restarted, of files
//! that are torn, and of a broker that goes away. Idea: each test runs `tradenet dev` on a directory and ports of its own,
//! harms a part of it as an operator or an accident would, mostly under load, and lets the load generator verify every
//! order that was acknowledged. Rule: no test waits for a state by sleeping, and no process outlives its test.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used)]

mod harness;

mod backup;
mod broker;
mod browser;
mod burst;
mod caches;
mod cli;
mod contract;
mod disks;
mod documents;
mod drills;
mod events;
mod examples;
mod feed;
mod figures;
mod follow;
mod forms;
mod frontends;
mod fuzz;
mod kills;
mod ledger;
mod loss;
mod market;
mod nonsense;
mod observe;
mod operator;
mod overload;
mod page;
mod pauses;
mod proxy;
mod restarts;
mod segments;
mod supervisor;
mod trading;
