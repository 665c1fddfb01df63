//! Prices over time: first, highest, lowest and last of each second, minute and hour in which there was a trade.
//!
//! Problem: whoever draws a chart wants hundreds of periods at once, and there may be a million trades in one of them.
//! Idea: each trade is added to the newest period of each length when it is applied, so a chart is read and not worked out.
//! Rule kept: a trade is in one period of each length. The time is that of the leader which decided it; where a new leader's
//! clock is behind, its trades count for the time of the last one before, so periods stay in order.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tradenet_schemas::account::{Candle, Interval};
use tradenet_schemas::limits::CANDLES_MAX;
use tradenet_schemas::trade::{Price, Quantity};

/// The periods of one stock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Candles {
    seconds: VecDeque<Candle>,
    minutes: VecDeque<Candle>,
    hours: VecDeque<Candle>,
}

impl Candles {
    /// Adds a trade at `at`, in milliseconds since 1970, which is not before the last one.
    pub(super) fn add(&mut self, at: u64, price: Price, quantity: Quantity) {
        for interval in [Interval::Second, Interval::Minute, Interval::Hour] {
            let begins = at - at % interval.ms();
            let candles = self.of_mut(interval);
            match candles.back_mut().filter(|last| last.at == begins) {
                Some(last) => {
                    (last.high, last.low) = (last.high.max(price), last.low.min(price));
                    last.close = price;
                    last.quantity = last.quantity.checked_add(quantity).expect("a volume is within its bound");
                    last.trades += 1;
                }
                None => {
                    let (open, high, low, close) = (price, price, price, price);
                    candles.push_back(Candle { at: begins, open, high, low, close, quantity, trades: 1 });
                }
            }
            if candles.len() > CANDLES_MAX {
                candles.pop_front();
            }
        }
    }

    /// The last periods, newest first.
    pub(super) fn last(&self, interval: Interval, limit: usize) -> Vec<Candle> {
        let candles = match interval {
            Interval::Second => &self.seconds,
            Interval::Minute => &self.minutes,
            Interval::Hour => &self.hours,
        };
        candles.iter().rev().take(limit).copied().collect()
    }

    fn of_mut(&mut self, interval: Interval) -> &mut VecDeque<Candle> {
        match interval {
            Interval::Second => &mut self.seconds,
            Interval::Minute => &mut self.minutes,
            Interval::Hour => &mut self.hours,
        }
    }
}
