//! What a run is asked to do.
//!
//! Options come from a command line or from a test of another crate. Each value that can be wrong is a type whose
//! constructor refuses it, so that a run never starts on nonsense; what only makes sense together is checked once, by
//! [`RunOptions::check`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tradenet_runtime::nats::ConnectArgs;

use crate::url::BaseUrl;

/// Most clients (connections) of a run. Above it, the machine's ports and this tool's own queue are measured instead.
pub const MAX_CLIENTS: u32 = 4_096;
/// Most trades whose answers are kept for the comparison at the end: about 60 bytes each.
pub const MAX_TRADES: u64 = 20_000_000;
/// Most requests a second an open loop is asked for.
pub const MAX_RATE: f64 = 1_000_000.0;

/// A probability, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Probability(f64);

impl Probability {
    /// `value`, where it is between 0 and 1.
    ///
    /// # Errors
    /// A text that says what is allowed.
    pub fn new(value: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&value) { Ok(Self(value)) } else { Err(format!("{value} is not between 0 and 1")) }
    }

    /// The number, 0 to 1.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

impl FromStr for Probability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(text.parse().map_err(|_| format!("`{text}` is not a number between 0 and 1"))?)
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which trades are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sides {
    /// Only buys. Stocks run out after a while; later lookups then find nothing to trade.
    #[default]
    Buy,
    /// Only sells.
    Sell,
    /// Buys and sells with equal chance, so that the stocks last for ever.
    Mix,
}

/// How requests follow one another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Closed loop: each client does this many iterations, the next one when the last is answered.
    Iterations(u64),
    /// Closed loop, as many iterations as fit in this time. Ends early when [`MAX_TRADES`] are kept.
    ClosedFor(Duration),
    /// Open loop: requests start on a schedule, whether or not earlier ones are answered.
    Open {
        /// Requests a second, over all clients.
        rate: f64,
        /// How long requests are started.
        duration: Duration,
    },
}

/// Everything [`crate::run`] is told. `RunOptions::new` fills in what the command line defaults to.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Frontends; the one with the lowest measured round trip is used, and chosen anew when it fails.
    pub urls: Vec<BaseUrl>,
    /// A broker that is asked for more of them.
    pub discover: Option<ConnectArgs>,
    /// Each client uses the frontend with its number instead, round and round, and the next one when that fails.
    pub spread: bool,
    /// Clients, each with one keep-alive connection. In an open loop: connections that serve the schedule.
    pub clients: u32,
    /// Closed or open loop, and how much of it.
    pub load: Load,
    /// Chance that a lookup which finds a quantity above 0 is followed by a trade.
    pub trade_probability: Probability,
    /// Buy, sell or both.
    pub sides: Sides,
    /// How many stocks each trade asks for, 1 or more.
    pub quantity: u32,
    /// Requests that start earlier than this are sent and verified, but not measured.
    pub warmup: Duration,
    /// Pause of a client between two iterations of a closed loop.
    pub think: Duration,
    /// A request of an open loop that finds no connection for so long is left out, so that the load is over when it was to
    /// be. Without it, it is sent however late.
    pub late_most: Option<Duration>,
    /// Between the last outcome and the comparison nothing is asked for so long: who watches sees the exchange come to rest.
    pub rest: Duration,
    /// Decides which stocks, which trades and in which order. The same seed asks for the same again.
    pub seed: u64,
    /// How long one attempt waits for its answer.
    pub request_timeout: Duration,
    /// How long a trade is retried with its key until its outcome is unknown; the same for each read at the end.
    pub deadline: Duration,
    /// Chance that a client of a closed loop reads one of its orders back after each trade, while the load goes on. At
    /// the end all are read back anyway.
    pub reread: Probability,
    /// Nobody else trades meanwhile: orders that this run did not place, and a volume that does not match the
    /// acknowledged trades, are then failures of the exchange.
    pub exclusive: bool,
    /// Keeps the latencies of each second for [`crate::Report::interval_log`].
    pub interval_log: bool,
    /// Width of one column of [`crate::Report::timeline`]; none is kept without.
    pub timeline: Option<Duration>,
    /// Shows a progress line on standard error where that is a terminal.
    pub progress: bool,
}

impl RunOptions {
    /// The options of `loadgen run --url URL` without any other.
    #[must_use]
    pub fn new(url: BaseUrl) -> Self {
        Self {
            urls: vec![url],
            discover: None,
            spread: false,
            clients: 5,
            load: Load::Iterations(200),
            trade_probability: Probability(0.6),
            sides: Sides::Buy,
            quantity: 1,
            warmup: Duration::ZERO,
            think: Duration::ZERO,
            late_most: None,
            rest: Duration::ZERO,
            seed: 1,
            request_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(60),
            reread: Probability(0.0),
            exclusive: false,
            interval_log: false,
            timeline: None,
            progress: false,
        }
    }

    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// A sentence naming the option and its limit.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.urls.is_empty() || self.discover.is_some(),
            "no frontend given: pass --url http://127.0.0.1:8080, or --discover"
        );
        anyhow::ensure!(
            (1..=MAX_CLIENTS).contains(&self.clients),
            "--clients is {}: choose 1 to {MAX_CLIENTS}",
            self.clients
        );
        anyhow::ensure!(self.quantity > 0, "--quantity is 0: a trade needs at least 1");
        anyhow::ensure!(!self.request_timeout.is_zero(), "--timeout is 0: no request could be answered in time");
        anyhow::ensure!(
            self.timeline.is_none_or(|width| width >= Duration::from_millis(1)),
            "the timeline's columns are narrower than 1 ms: choose 100 ms"
        );
        match self.load {
            Load::Iterations(iterations) => anyhow::ensure!(
                iterations.saturating_mul(u64::from(self.clients)) <= MAX_TRADES,
                "--clients times --iterations is above {MAX_TRADES}: run it in parts"
            ),
            Load::ClosedFor(_) => {}
            Load::Open { rate, duration } => {
                anyhow::ensure!(rate > 0.0 && rate <= MAX_RATE, "--rate is {rate}: choose above 0, at most {MAX_RATE}");
                anyhow::ensure!(self.think.is_zero(), "--think has no place in an open loop: the rate decides");
                anyhow::ensure!(
                    rate * (duration + self.warmup).as_secs_f64() <= crate::report::as_f64(MAX_TRADES),
                    "--rate times --duration is above {MAX_TRADES}: run it in parts"
                );
            }
        }
        Ok(())
    }
}
