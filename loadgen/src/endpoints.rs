//! Which of several frontends is used.
//!
//! The nearest frontend is the one with the lowest measured round trip, not the first of a list. It is measured at the
//! start and again when the chosen one fails; clients that notice the same failure share one new measurement, which a
//! generation number makes sure of.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use tokio::task::JoinSet;

use crate::connection::{Call, Connection};
use crate::url::BaseUrl;

/// Round trips measured for each frontend; the lowest counts, for it has the least of other things in it.
const PROBES: u32 = 5;
/// A frontend that answers later than this is not chosen while another one answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The frontend in use, and how often it was chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    /// Rises with each new choice.
    pub(crate) generation: u64,
}

/// All frontends of a run.
pub(crate) struct Endpoints {
    urls: Vec<BaseUrl>,
    choice: Mutex<Choice>,
    /// Held while measuring, so that one client measures and the others wait for its result.
    measuring: tokio::sync::Mutex<()>,
}

impl Endpoints {
    /// Measures all of `urls` and chooses. With one there is nothing to measure.
    pub(crate) async fn choose(urls: Vec<BaseUrl>) -> Self {
        let endpoints = Self {
            urls,
            choice: Mutex::new(Choice { index: 0, generation: 0 }),
            measuring: tokio::sync::Mutex::new(()),
        };
        endpoints.failed(0).await;
        endpoints
    }

    /// The frontend to use now.
    pub(crate) fn current(&self) -> Choice {
        *self.choice()
    }

    /// The address of a choice.
    pub(crate) fn url(&self, choice: Choice) -> &BaseUrl {
        &self.urls[choice.index]
    }

    /// Says that the frontend of `generation` failed: measures anew, unless somebody has already.
    pub(crate) async fn failed(&self, generation: u64) {
        if self.urls.len() < 2 {
            return;
        }
        let _measuring = self.measuring.lock().await;
        if self.current().generation != generation {
            return;
        }
        // At the same time, so that one that hangs costs its time-out once and not the sum.
        let mut trips = JoinSet::new();
        for (index, url) in self.urls.iter().cloned().enumerate() {
            trips.spawn(async move { round_trip(&url).await.map(|trip| (trip, index)) });
        }
        let best = trips.join_all().await.into_iter().flatten().min();
        let mut choice = self.choice();
        // None answers: the next in turn, so that the one that comes back first is found.
        let index = best.map_or((choice.index + 1) % self.urls.len(), |(_, index)| index);
        *choice = Choice { index, generation: generation + 1 };
    }

    fn choice(&self) -> MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lowest round trip to a frontend that is ready for trades; none where it is not.
async fn round_trip(url: &BaseUrl) -> Option<Duration> {
    let mut connection = Connection::new(url.clone());
    let call = Call { method: Method::GET, path: "/readyz", key: None, body: Bytes::new() };
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
