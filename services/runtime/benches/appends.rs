//! Whether appends become slower as the log grows: what an order's line takes, million by million, on a real file system.
//!
//! `cargo bench -p tradenet-runtime --bench appends -- [MILLIONS] [DIR]` prints a table; without DIR the files are where temporary ones
//! are. Each batch of 256 lines is written and synced before the next, as a leader does it under load. No harness: one run takes
//! as long as its syncs.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tradenet_core::{DiskAnswer, DiskRequest};
use tradenet_runtime::disk::{Directory, Disk, LogOptions};
use tradenet_schemas::ids::ReplicaId;

/// A trade with the house, with a key that a frontend made, takes as much in the journal.
const LINE_BYTES: usize = 204;
const BATCH_LINES: u64 = 256;
const MILLION: u64 = 1_000_000;

fn main() {
    // Cargo's own arguments are neither.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let millions = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(2);
    let temporary = tempfile::TempDir::new().unwrap();
    let named = arguments.iter().find(|argument| argument.parse::<u64>().is_err()).map(PathBuf::from);
    let place = named.unwrap_or_else(|| temporary.path().to_owned());
    let opened = Directory::open(&place, ReplicaId::new(1).unwrap(), &LogOptions::default()).unwrap();
    let mut disk = Disk::start(opened.directory).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let took: Vec<Duration> = runtime.block_on(async {
        let mut took = Vec::new();
        for million in 1..=millions {
            took.push(append_a_million(&mut disk).await);
            println!("million {million:>3} {:>8.2} us a line", micros(took[took.len() - 1]));
        }
        took
    });
    let (first, last) = (took[0], took[took.len() - 1]);
    println!("the last to the first: {:.2}", last.as_secs_f64() / first.as_secs_f64());
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6 / MILLION as f64
}

async fn append_a_million(disk: &mut Disk) -> Duration {
    let line = format!("{}\n", "x".repeat(LINE_BYTES - 1));
    let began = Instant::now();
    for batch in 0..MILLION.div_ceil(BATCH_LINES) {
        let lines = BATCH_LINES.min(MILLION - batch * BATCH_LINES);
        let lines = Bytes::from(line.repeat(usize::try_from(lines).unwrap()));
        disk.ask(DiskRequest::Append { ticket: batch, lines }).await.unwrap();
        let answer = disk.answer().await.unwrap();
        assert!(matches!(answer, DiskAnswer::Done { .. }), "{answer:?}");
    }
    began.elapsed()
}
