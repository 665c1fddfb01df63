//! Commands that wait to be decided, and which keys are among them.
//!
//! Problem: who is turned away must not have a copy in the queue, and under overload each of many is compared with a queue of
//! thousands: that work grows with both, in just the moment in which there is none to spare.
//! Idea: an index of the keys that wait. It is made when it is first asked for and kept up to date until the queue is empty,
//! so a leader that turns nobody away pays nothing for it.
//! Rule kept: the index, where there is one, says exactly what is in the queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use tradenet_schemas::ids::Boot;
use tradenet_schemas::message::Submission;
use tradenet_schemas::trace::Trace;
use tradenet_schemas::trade::CommandKey;

use crate::ReplyTo;

/// A command that waits to be decided.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) from: Boot,
    pub(super) submission: Submission,
    pub(super) reply: ReplyTo,
    /// If it is followed.
    pub(super) trace: Option<Arc<Trace>>,
}

/// First in, first out.
#[derive(Clone, Default, Debug)]
pub(super) struct Queue {
    commands: VecDeque<Queued>,
    /// How many of them have that key: copies of a command may wait together.
    keys: OnceLock<BTreeMap<CommandKey, usize>>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn push(&mut self, queued: Queued) {
        if let Some(keys) = self.keys.get_mut() {
            *keys.entry(queued.submission.key.clone()).or_default() += 1;
        }
        self.commands.push_back(queued);
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.commands.pop_front();
        if let (Some(keys), Some(Queued { submission: Submission { key, .. }, .. })) = (self.keys.get_mut(), &queued)
            && let Some(count) = keys.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                keys.remove(key);
            }
        }
        if self.commands.is_empty() {
            self.keys.take();
        }
        queued
    }

    /// Whether a command with that key waits.
    pub(super) fn holds(&self, key: &CommandKey) -> bool {
        let keys = self.keys.get_or_init(|| {
            let mut keys = BTreeMap::new();
            for queued in &self.commands {
                *keys.entry(queued.submission.key.clone()).or_default() += 1;
            }
            keys
        });
        keys.contains_key(key)
    }
}

impl IntoIterator for Queue {
    type Item = Queued;
    type IntoIter = std::collections::vec_deque::IntoIter<Queued>;

    fn into_iter(self) -> Self::IntoIter {
        self.commands.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradenet_schemas::ids::SeqNum;
    use tradenet_schemas::trade::{Command, Quantity, Side, Symbol};

    fn key(number: u64) -> CommandKey {
        CommandKey::generated(Boot::default(), number)
    }

    fn queued(number: u64) -> Queued {
        let (symbol, quantity) = (Symbol::new("A").unwrap(), Quantity::new(1).unwrap());
        let command = Command::Trade { symbol, side: Side::Buy, quantity };
        let submission = Submission { request: number, key: key(number), command, known: SeqNum(0), again: false };
        Queued { from: Boot::default(), submission, reply: ReplyTo("reply".into()), trace: None }
    }

    /// `steps`: keys that come, 0 for one that is taken; asked for all keys before the first step if `early`.
    #[track_caller]
    fn check(steps: &[u64], early: bool, held: &[u64]) {
        let mut queue = Queue::default();
        if early {
            queue.push(queued(9));
            assert!(queue.holds(&key(9)));
        }
        for step in steps {
            match step {
                0 => assert!(queue.pop().is_some()),
                number => queue.push(queued(*number)),
            }
        }
        let held_now: Vec<_> = (1..10).filter(|number| queue.holds(&key(*number))).collect();
        assert_eq!(held_now, held, "{steps:?}");
    }

    #[test]
    fn it_is_known_which_commands_wait_however_early_somebody_asks() {
        check(&[], false, &[]);
        check(&[1, 2, 3, 0], false, &[2, 3]);
        check(&[1, 2, 0], true, &[1, 2]);
        check(&[1, 1, 0, 0], true, &[1]);
        check(&[1, 1, 0, 0, 0], true, &[]);
        check(&[0, 1, 2], true, &[1, 2]);
    }
}
