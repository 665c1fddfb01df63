//! Is any look-up older than what was acknowledged before it began?
//!
//! A stock's volume only ever rises, by every trade, whoever makes it. So what this run had acknowledged and what any of
//! its clients had read is the least that a look-up may show which begins later, through whichever frontend. That needs
//! no other knowledge of the exchange, and holds while others trade as well. The rule: what is expected is noted before
//! the look-up is sent; what becomes known while it is under way, it need not show.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::wire::Stock;

/// Stale look-ups that are kept.
pub const MAX_STALE: usize = 10_000;
/// Rises of a stock's volume that are kept, to say since when a stale look-up is behind.
const MAX_RISES: usize = 4_096;

/// A look-up that showed less than was known before it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// The stock.
    pub name: String,
    /// The volume that it showed.
    pub volume: u64,
    /// The least that it should have shown.
    pub least: u64,
    /// When it began, in milliseconds since the start of the run.
    pub at_ms: u64,
    /// For how long what it did not show had been known when it began, in milliseconds.
    pub behind_ms: u64,
}

/// What is known of every stock.
pub(crate) struct Freshness {
    start: Instant,
    state: Mutex<State>,
}

struct State {
    stocks: Vec<Known>,
    stale: Vec<Stale>,
}

struct Known {
    name: String,
    /// The volume at the start and all that was acknowledged since.
    own: u64,
    /// Rising volumes, and since when each is known. Never empty.
    rises: VecDeque<(u64, Instant)>,
}

/// What was known when a look-up began.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    stock: usize,
    least: u64,
    at: Instant,
}

impl Freshness {
    /// Knows `stocks` as they were listed at `start`.
    pub(crate) fn new(stocks: &[Stock], start: Instant) -> Self {
        let known = |stock: &Stock| Known {
            name: stock.name.clone(),
            own: stock.volume,
            rises: VecDeque::from([(stock.volume, start)]),
        };
        let state = State { stocks: stocks.iter().map(known).collect(), stale: Vec::new() };
        Self { start, state: Mutex::new(state) }
    }

    /// A look-up of `stock` begins.
    pub(crate) fn asked(&self, stock: usize) -> Asked {
        Asked { stock, least: self.state().stocks[stock].least(), at: Instant::now() }
    }

    /// It was answered with `volume`.
    pub(crate) fn answered(&self, asked: Asked, volume: u64) {
        let mut state = self.state();
        let State { stocks, stale } = &mut *state;
        let known = &mut stocks[asked.stock];
        if volume < asked.least && stale.len() < MAX_STALE {
            let missed = known.rises.partition_point(|(risen, _)| *risen <= volume);
            let since = known.rises.get(missed).map_or(asked.at, |(_, since)| *since);
            let millis =
                |from: Instant| u64::try_from(asked.at.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX);
            stale.push(Stale {
                name: known.name.clone(),
                volume,
                least: asked.least,
                at_ms: millis(self.start),
                behind_ms: millis(since),
            });
        }
        known.rise(volume);
    }

    /// A trade of so many was acknowledged.
    pub(crate) fn acknowledged(&self, stock: usize, quantity: u32) {
        let known = &mut self.state().stocks[stock];
        known.own += u64::from(quantity);
        known.rise(known.own);
    }

    /// The look-ups that were stale, at most [`MAX_STALE`], in the order of their answers.
    pub(crate) fn stale(&self) -> Vec<Stale> {
        self.state().stale.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn least(&self) -> u64 {
        self.rises.back().map_or(0, |(volume, _)| *volume)
    }

    fn rise(&mut self, volume: u64) {
        if volume > self.least() {
            self.rises.push_back((volume, Instant::now()));
            if self.rises.len() > MAX_RISES {
                self.rises.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Step {
        /// A look-up begins.
        Ask,
        /// The one that began first is answered with this volume.
        Answer(u64),
        /// A trade of two is acknowledged.
        Trade,
    }
    use Step::{Answer, Ask, Trade};

    #[test]
    fn a_lookup_shows_at_least_what_was_known_when_it_began() {
        for (steps, expected) in [
            (vec![Ask, Answer(10)], vec![]),
            (vec![Ask, Answer(9)], vec![(9, 10)]),
            (vec![Trade, Ask, Answer(12)], vec![]),
            (vec![Trade, Ask, Answer(11)], vec![(11, 12)]),
            (vec![Trade, Ask, Answer(10)], vec![(10, 12)]),
            // Not known before it began.
            (vec![Ask, Trade, Answer(10)], vec![]),
            // Somebody else traded, and one of us has seen it.
            (vec![Ask, Answer(17), Ask, Answer(16)], vec![(16, 17)]),
            (vec![Ask, Answer(17), Trade, Ask, Answer(17)], vec![]),
            // An answer that is late may be older than one that overtook it.
            (vec![Ask, Ask, Answer(17), Answer(10)], vec![]),
        ] {
            let stock = Stock { name: "A".to_owned(), quantity: 100, volume: 10 };
            let fresh = Freshness::new(&[stock], Instant::now());
            let mut asked = VecDeque::new();
            for step in steps {
                match step {
                    Ask => asked.push_back(fresh.asked(0)),
                    Answer(volume) => fresh.answered(asked.pop_front().unwrap(), volume),
                    Trade => fresh.acknowledged(0, 2),
                }
            }
            let found: Vec<_> = fresh.stale().iter().map(|stale| (stale.volume, stale.least)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_behind_counts_from_the_first_trade_that_is_missing() {
        let stock = Stock { name: "A".to_owned(), quantity: 100, volume: 0 };
        let start = Instant::now();
        let fresh = Freshness::new(&[stock], start);
        for _ in 0..3 {
            fresh.acknowledged(0, 1);
        }
        let rises = fresh.state().stocks[0].rises.clone();
        let at = start + std::time::Duration::from_secs(9);
        fresh.answered(Asked { stock: 0, least: 3, at }, 1);
        let expected = u64::try_from((at - rises[2].1).as_millis()).unwrap();
        let [stale] = &fresh.stale()[..] else { panic!("{:?}", fresh.stale()) };
        assert_eq!((stale.at_ms, stale.behind_ms), (9_000, expected));
    }
}
