//! Which of several frontends a client uses.
//!
//! The nearest frontend is the one with the lowest measured round trip, not the first of a list. It is measured at the
//! start and again when the chosen one fails; clients that notice the same failure share one new measurement, which a
//! generation number makes sure of. Where none of the known ones answers, the broker, if there is one to ask, is asked for
//! others. Or else clients are spread over all frontends, which is what shows whether what one of them acknowledged is
//! read through another; then each client moves on to the next in the list when its own fails.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::connection::{Call, Connection};
use crate::discover::Discovery;
use crate::options::RunOptions;
use crate::url::BaseUrl;

/// Round trips measured for each frontend; the lowest counts, for it has the least of other things in it.
const PROBES: u32 = 5;
/// A frontend that answers later than this is not chosen while another one answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The frontend that a client uses, and how often it was chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    /// Rises with each new choice.
    pub(crate) generation: u64,
}

/// A frontend, and what its round trip was when it was last measured.
#[derive(Clone, Debug)]
pub struct Frontend {
    /// Where it is.
    pub url: BaseUrl,
    /// None where it was not measured or did not answer.
    pub round_trip: Option<Duration>,
}

/// All frontends of a run.
pub(crate) struct Endpoints {
    discovery: Option<Discovery>,
    /// Each client has its own, instead of all the nearest.
    spread: bool,
    state: Mutex<State>,
    /// Held while measuring, so that one client measures and the others wait for its result.
    measuring: tokio::sync::Mutex<()>,
}

struct State {
    /// Only ever grows, so that an index stays valid.
    known: Vec<Frontend>,
    /// The nearest. Where clients are spread, it counts how often one of them moved on.
    choice: Choice,
}

impl Endpoints {
    /// Takes the frontends of `options`, and those that the broker knows of, and chooses. With one there is nothing to
    /// measure.
    ///
    /// # Errors
    /// No broker answers, or there is no frontend at all.
    pub(crate) async fn choose(options: &RunOptions) -> anyhow::Result<Self> {
        let discovery = match &options.discover {
            Some(connection) => Some(Discovery::open(connection).await?),
            None => None,
        };
        let known = options.urls.iter().cloned().map(|url| Frontend { url, round_trip: None }).collect();
        let endpoints = Self {
            discovery,
            spread: options.spread,
            state: Mutex::new(State { known, choice: Choice { index: 0, generation: 0 } }),
            measuring: tokio::sync::Mutex::new(()),
        };
        endpoints.discover().await?;
        anyhow::ensure!(
            !endpoints.state().known.is_empty(),
            "the broker knows no frontend: start one, with --advertise URL if it listens on every address"
        );
        if !endpoints.spread {
            endpoints.measure(0).await;
        }
        Ok(endpoints)
    }

    /// What client `number` uses at first.
    pub(crate) fn first(&self, number: u32) -> Choice {
        let state = self.state();
        if !self.spread {
            return state.choice;
        }
        Choice { index: number as usize % state.known.len(), generation: 0 }
    }

    /// What a client uses now that used `choice` before.
    pub(crate) fn now(&self, choice: Choice) -> Choice {
        if self.spread { choice } else { self.state().choice }
    }

    /// What a client uses next for which `choice` has failed. The nearest is measured anew, unless somebody has already.
    pub(crate) async fn failed(&self, choice: Choice) -> Choice {
        if self.spread {
            let mut state = self.state();
            state.choice.generation += 1;
            return Choice { index: (choice.index + 1) % state.known.len(), generation: choice.generation + 1 };
        }
        self.measure(choice.generation).await;
        self.state().choice
    }

    /// The address of a choice.
    pub(crate) fn url(&self, choice: Choice) -> BaseUrl {
        self.state().known[choice.index].url.clone()
    }

    /// All that are known.
    pub(crate) fn known(&self) -> Vec<Frontend> {
        self.state().known.clone()
    }

    /// The nearest, and how often it was chosen; where clients are spread, how often one moved on.
    pub(crate) fn choice(&self) -> Choice {
        self.state().choice
    }

    async fn measure(&self, generation: u64) {
        if self.discovery.is_none() && self.state().known.len() < 2 {
            return;
        }
        let _measuring = self.measuring.lock().await;
        if self.state().choice.generation != generation {
            return;
        }
        let mut nearest = self.measure_all().await;
        // A broker that is away knows of no others.
        if nearest.is_none() && self.discover().await.unwrap_or(false) {
            nearest = self.measure_all().await;
        }
        let mut state = self.state();
        // None answers: the next in turn, so that the one that comes back first is found.
        let index = nearest.unwrap_or((state.choice.index + 1) % state.known.len());
        state.choice = Choice { index, generation: generation + 1 };
    }

    /// Measures all, and returns the nearest of those that answer.
    async fn measure_all(&self) -> Option<usize> {
        // At the same time, so that one that hangs costs its time-out once and not the sum.
        let mut trips = JoinSet::new();
        for (index, known) in self.known().into_iter().enumerate() {
            trips.spawn(async move { (index, round_trip(&known.url).await) });
        }
        let trips = trips.join_all().await;
        let mut state = self.state();
        for (index, trip) in &trips {
            state.known[*index].round_trip = *trip;
        }
        trips.into_iter().filter_map(|(index, trip)| Some((trip?, index))).min().map(|(_, index)| index)
    }

    /// Asks the broker, if there is one to ask, for frontends; whether there are new ones.
    async fn discover(&self) -> anyhow::Result<bool> {
        let Some(discovery) = &self.discovery else { return Ok(false) };
        let found = discovery.frontends().await?;
        let mut state = self.state();
        let before = state.known.len();
        for url in found {
            if state.known.iter().all(|known| known.url != url) {
                state.known.push(Frontend { url, round_trip: None });
            }
        }
        Ok(state.known.len() > before)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lowest round trip to a frontend that is ready for trades; none where it is not.
async fn round_trip(url: &BaseUrl) -> Option<Duration> {
    let mut connection = Connection::new(url.clone());
    let call = Call::get("/readyz");
    let mut lowest = None;
    for _ in 0..PROBES {
        let start = Instant::now();
        let answer = connection.call(&call, PROBE_TIMEOUT).await.ok()?;
        if answer.status.is_server_error() {
            return None;
        }
        let trip = start.elapsed();
        lowest = Some(lowest.map_or(trip, |other: Duration| other.min(trip)));
    }
    lowest
}
