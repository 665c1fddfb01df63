//! Load for a stock exchange, with latency that can be trusted and every order verified.
//!
//! Most load generators count answers. This one keeps each acknowledged trade, reads it back at the end and compares,
//! so that a run under failures says whether the exchange lost, doubled or changed anything. The command `loadgen` is a
//! thin shell around this library; tests of other crates call [`run`] directly:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let mut options = loadgen::RunOptions::new("http://127.0.0.1:8080".parse()?);
//! options.exclusive = true; // nobody else trades: orders never acknowledged are found as well
//! let report = loadgen::run(options).await?;
//! assert!(report.ok(), "{report}");
//! # Ok(()) }
//! ```

mod bench;
mod closed;
mod connection;
mod discover;
mod endpoints;
mod exchange;
mod export;
mod fresh;
mod hlog;
mod open;
mod options;
mod plan;
mod plot;
mod progress;
mod recorder;
mod report;
mod run;
mod sweep;
mod url;
mod verify;
mod wire;

pub mod cli;
pub mod drill;
pub mod market;

pub use bench::{BenchOptions, bench};
pub use endpoints::Frontend;
pub use fresh::{MAX_STALE, Stale};
pub use options::{Load, MAX_CLIENTS, MAX_RATE, MAX_TRADES, Probability, RunOptions, Sides};
pub use recorder::{Column, Counts, ErrorKey, Gap, Kind, Latency, ScheduleLag};
pub use report::Report;
pub use run::run;
pub use sweep::{MAX_REPEATS, Sweep, SweepOptions, SweepRun, Variant, probabilities, sweep};
pub use url::{BadUrl, BaseUrl};
pub use verify::{Changed, Unplaced, Unreadable, Verification};
pub use wire::Side;
