//! The newest public events, for whoever follows them.
//!
//! Problem: many clients read the same events at their own pace, some come back after a while, and nobody may make memory
//! grow. Idea: events are numbered without gaps; the newest are kept, up to a number of bytes, and a reader is no more than
//! the number of the last event that it has. Whoever needs older ones than are kept is told so.
//! Rule kept: what is read behind a number is what follows it, whole and in order, or nothing.
//!
//! A replica keeps the events themselves ([`PublicEvent`]), from which a leader answers frontends; a frontend keeps them as the
//! text that its clients get.

use std::collections::VecDeque;
use std::mem::size_of;

use serde::{Deserialize, Serialize};
use tradenet_schemas::account::Level;
use tradenet_schemas::feed::{Fact, PublicEvent};
use tradenet_schemas::ids::EventNumber;

/// What a [`Window`] counts.
pub trait Weigh {
    /// How much memory it takes, in bytes.
    fn bytes(&self) -> usize;
}

impl Weigh for PublicEvent {
    fn bytes(&self) -> usize {
        let levels = match &self.fact {
            Fact::BookChanged(book) => book.bids.len() + book.asks.len(),
            Fact::Traded(..) | Fact::StockChanged(_) => 0,
        };
        size_of::<Self>() + levels * size_of::<Level>()
    }
}

/// The newest of a sequence of events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window<T> {
    /// The number before that of the oldest.
    before: EventNumber,
    kept: VecDeque<T>,
    bytes: usize,
    bytes_max: usize,
}

impl<T: Weigh> Window<T> {
    /// Before the first event; up to `bytes_max` will be kept.
    pub fn new(bytes_max: usize) -> Self {
        Self { before: EventNumber(0), kept: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// The last event that is not kept any more; 0 if all are.
    pub fn before(&self) -> EventNumber {
        self.before
    }

    /// The newest event; 0 for none.
    pub fn last(&self) -> EventNumber {
        EventNumber(self.before.0 + self.kept.len() as u64)
    }

    /// Adds the next event, and drops the oldest ones to make room.
    pub fn push(&mut self, event: T) {
        self.bytes += event.bytes();
        self.kept.push_back(event);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.before = self.before.next();
        }
    }

    /// Drops everything: the next event is the one behind `number`.
    pub fn skip_to(&mut self, number: EventNumber) {
        *self = Self { before: number, ..Self::new(self.bytes_max) };
    }

    /// The events behind `number`, oldest first; none if it is behind the last, or before what is kept.
    pub fn behind(&self, number: EventNumber) -> impl Iterator<Item = &T> {
        let skipped = number.0.checked_sub(self.before.0).and_then(|skipped| usize::try_from(skipped).ok());
        self.kept.iter().skip(skipped.unwrap_or(usize::MAX))
    }

    /// The last event of those at the beginning for which `holds`.
    pub fn last_of(&self, holds: impl FnMut(&T) -> bool) -> EventNumber {
        EventNumber(self.before.0 + self.kept.partition_point(holds) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for u64 {
        fn bytes(&self) -> usize {
            10
        }
    }

    #[test]
    fn what_is_read_behind_a_number_is_what_follows_it_or_nothing() {
        let mut window = Window::new(30);
        for event in 1..=5_u64 {
            window.push(event);
        }
        assert_eq!((window.before(), window.last()), (EventNumber(2), EventNumber(5)));
        let check = |number, expected: &[u64]| {
            assert_eq!(window.behind(EventNumber(number)).copied().collect::<Vec<_>>(), expected, "behind {number}");
        };
        check(2, &[3, 4, 5]);
        check(4, &[5]);
        check(5, &[]);
        check(9, &[]);
        check(1, &[]);
        assert_eq!(window.last_of(|event| *event <= 4), EventNumber(4));
        assert_eq!(window.last_of(|event| *event <= 1), EventNumber(2), "what is gone counts");
        window.skip_to(EventNumber(8));
        window.push(9);
        assert_eq!(window.behind(EventNumber(8)).copied().collect::<Vec<_>>(), [9]);
    }
}
