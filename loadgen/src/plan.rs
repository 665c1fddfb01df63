//! Which stock next, and whether to trade it.
//!
//! A run must be repeatable from its printed seed, whatever the exchange answers. So every iteration draws the same
//! number of random values, used or not, from a generator whose algorithm is named (Xoshiro256++), and each client has
//! its own stream.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use crate::options::{Probability, Sides};
use crate::wire::Side;

/// One iteration: look up a stock, and perhaps trade it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Index into the list of stocks.
    pub(crate) stock: usize,
    /// The trade to make if the stock has a quantity above 0.
    pub(crate) trade: Option<Side>,
}

/// An endless, repeatable sequence of steps.
pub(crate) struct Plan {
    random: Xoshiro256PlusPlus,
    stocks: usize,
    probability: Probability,
    sides: Sides,
}

impl Plan {
    /// The plan of client number `client`. `stocks` is above 0.
    pub(crate) fn new(seed: u64, client: u32, stocks: usize, probability: Probability, sides: Sides) -> Self {
        Self { random: Xoshiro256PlusPlus::seed_from_u64(stream(seed, client)), stocks, probability, sides }
    }

    /// The next iteration.
    pub(crate) fn step(&mut self) -> Step {
        let stock = self.random.random_range(0..self.stocks as u64);
        let trades = self.random.random_bool(self.probability.value());
        let heads = self.random.random_bool(0.5);
        let side = match self.sides {
            Sides::Buy => Side::Buy,
            Sides::Sell => Side::Sell,
            Sides::Mix if heads => Side::Buy,
            Sides::Mix => Side::Sell,
        };
        Step { stock: usize::try_from(stock).unwrap_or(0), trade: trades.then_some(side) }
    }
}

/// Which of its orders a client reads back on the way. A sequence of its own: what is read must not change what is asked
/// for.
pub(crate) struct Chance(Xoshiro256PlusPlus);

impl Chance {
    /// The sequence of client number `client`.
    pub(crate) fn new(seed: u64, client: u32) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(!stream(seed, client)))
    }

    /// With `probability` one of `all`.
    pub(crate) fn pick<T: Copy>(&mut self, probability: Probability, all: &[T]) -> Option<T> {
        let picks = self.0.random_bool(probability.value()) && !all.is_empty();
        picks.then(|| all[self.0.random_range(0..all.len())])
    }
}

/// Where the sequence of a client begins.
pub(crate) fn stream(seed: u64, client: u32) -> u64 {
    // seed_from_u64 spreads neighbouring seeds over the whole state, so that clients' streams are unrelated; the odd
    // factor keeps client 1 of seed 7 apart from client 0 of seed 8.
    seed.wrapping_add(u64::from(client).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(seed: u64, client: u32, p: f64) -> Vec<Step> {
        let mut plan = Plan::new(seed, client, 10, Probability::new(p).unwrap(), Sides::Mix);
        (0..1_000).map(|_| plan.step()).collect()
    }

    #[test]
    fn the_same_seed_asks_for_the_same_again() {
        assert_eq!(steps(7, 0, 0.6), steps(7, 0, 0.6));
        assert_ne!(steps(7, 0, 0.6), steps(8, 0, 0.6));
    }

    #[test]
    fn clients_of_one_seed_do_not_move_together() {
        assert_ne!(steps(7, 0, 0.6), steps(7, 1, 0.6));
        assert_ne!(steps(7, 1, 0.6), steps(8, 0, 0.6));
    }

    #[test]
    fn trades_happen_with_the_probability_asked_for() {
        for (p, least, most) in [(0.0, 0, 0), (0.6, 540, 660), (1.0, 1_000, 1_000)] {
            let trades = steps(3, 0, p).iter().filter(|step| step.trade.is_some()).count();
            assert!((least..=most).contains(&trades), "p={p}: {trades}");
        }
    }

    #[test]
    fn every_stock_is_asked_for() {
        let seen: std::collections::BTreeSet<usize> = steps(3, 0, 0.5).iter().map(|step| step.stock).collect();
        assert_eq!(seen.len(), 10);
    }
}
