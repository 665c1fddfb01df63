//! What a leader answered without an entry.
//!
//! Problem: a command that was refused or turned away leaves nothing in the log, so a late copy of it looks like a new command;
//! done after all, it would break what its client was told.
//! Idea: the answers of this leadership are remembered by frontend and request; of each frontend whose oldest ones had to be
//! forgotten, the newest of them. Requests of a frontend are numbered in order, so what is above that number was not forgotten.
//! A copy for an earlier leadership is told by its epoch, so the next leader needs none of this.
//! Rule kept: a client that was told "nothing was done" stays right, and memory stays within a limit.

use std::collections::{BTreeMap, VecDeque};

use tradenet_schemas::ids::Boot;

/// How many answers of a kind are remembered.
const REMEMBERED_MAX: usize = 16_384;
/// Of how many frontends it is remembered up to where answers were forgotten. A frontend that starts again is another one.
const FRONTENDS_MAX: usize = 1_024;

/// A frontend's request.
pub(super) type Request = (Boot, u64);

/// Answers of a kind, by frontend and request, the newest [`REMEMBERED_MAX`].
#[derive(Clone, Debug)]
pub(super) struct Remembered<T> {
    known: BTreeMap<Request, T>,
    oldest: VecDeque<Request>,
    /// The newest request of a frontend whose answer was forgotten.
    forgotten: BTreeMap<Boot, u64>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), oldest: VecDeque::new(), forgotten: BTreeMap::new() }
    }
}

impl<T> Remembered<T> {
    pub(super) fn remember(&mut self, request: Request, answer: T) {
        if self.known.insert(request, answer).is_none() {
            self.oldest.push_back(request);
        }
        if self.oldest.len() > REMEMBERED_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.known.remove(&oldest);
            self.forget(oldest);
        }
    }

    fn forget(&mut self, (frontend, number): Request) {
        let newest = self.forgotten.entry(frontend).or_default();
        *newest = number.max(*newest);
        if self.forgotten.len() > FRONTENDS_MAX {
            // Not the one of just now: that one is alive.
            let other = self.forgotten.keys().copied().find(|other| *other != frontend);
            other.and_then(|other| self.forgotten.remove(&other));
        }
    }

    pub(super) fn get(&self, request: Request) -> Option<&T> {
        self.known.get(&request)
    }

    /// Whether it may have been answered so, and that is not known any more.
    pub(super) fn may_be_forgotten(&self, (frontend, number): Request) -> bool {
        let forgotten = self.forgotten.get(&frontend);
        forgotten.is_some_and(|newest| number <= *newest) && !self.known.contains_key(&(frontend, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_is_told_from_what_never_was_by_its_number() {
        let mut remembered = Remembered::default();
        let (busy, calm) = (Boot(1), Boot(2));
        remembered.remember((calm, 1), 0);
        let last = REMEMBERED_MAX as u64 + 3;
        (1..=last).for_each(|number| remembered.remember((busy, number), number));
        let check = |request: Request, known: Option<u64>, forgotten: bool| {
            assert_eq!((remembered.get(request).copied(), remembered.may_be_forgotten(request)), (known, forgotten));
        };
        check((busy, 1), None, true);
        check((busy, 3), None, true);
        check((busy, 4), Some(4), false);
        check((busy, last), Some(last), false);
        check((busy, last + 1), None, false);
        check((calm, 1), None, true);
        check((calm, 2), None, false);
        assert_eq!(remembered.known.len(), REMEMBERED_MAX);
    }

    #[test]
    fn of_many_frontends_the_one_that_forgets_just_now_is_kept() {
        let mut remembered = Remembered::default();
        let frontends = (REMEMBERED_MAX + 2 * FRONTENDS_MAX) as u64;
        for number in 1..=frontends {
            remembered.remember((Boot(number), 1), ());
            let forgets = number.checked_sub(REMEMBERED_MAX as u64).filter(|forgets| *forgets > 0);
            assert!(forgets.is_none_or(|forgets| remembered.may_be_forgotten((Boot(forgets), 1))));
        }
        assert_eq!(remembered.forgotten.len(), FRONTENDS_MAX);
    }
}
