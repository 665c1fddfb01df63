//! A trivial stock exchange in memory, to measure what `loadgen` itself can offer at most, and to try its options on.
//!
//! `cargo run --release -p loadgen --example stub` prints its address. Nothing is kept and nothing is replicated.
//! `STUB_STALL=1` makes it answer nothing for the last second of every ten.

#[path = "../tests/stub/mod.rs"]
mod stub;

use std::time::Duration;

use stub::{Behaviour, Stub};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let stall = std::env::var_os("STUB_STALL").map(|_| (Duration::from_secs(10), Duration::from_secs(1)));
    let behaviour = Behaviour { quantity: 1_000_000_000, cache: true, stall, ..Behaviour::default() };
    let stub = Stub::start(behaviour).await;
    println!("{}", stub.url);
    std::future::pending::<()>().await;
}
