//! Which commands were done already.
//!
//! Problem: a client or frontend that got no answer asks again, and must not trade twice, long after and with another
//! leader; but nothing may grow without a bound.
//! Idea: a table from key to what was done, first in, first out: what is forgotten depends on the log alone, so every replica
//! forgets the same.
//! Rule kept: the last [`Keys::capacity`] keys are known, in a fixed order, and no more than those.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tradenet_schemas::account::Balance;
use tradenet_schemas::ids::{OrderNumber, SeqNum};
use tradenet_schemas::limits::RECEIPT_HOLDINGS_MAX;
use tradenet_schemas::trade::{CommandKey, Quantity, Side};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What a command was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Deed {
    /// A trade with the house: all that it said.
    Trade { listing: u32, side: Side, quantity: Quantity },
    /// Any other: its fingerprint.
    Command(u64),
}

/// What was done under a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Done {
    /// The order that it made; 0 for none.
    pub(super) order: OrderNumber,
    /// What the command was, to tell it from another under the same key.
    pub(super) deed: Deed,
    /// The entry.
    pub(super) seq: SeqNum,
}

/// A key with its place in the table before it, so that a look-up compares numbers and need not visit the text of every key on
/// its way. Equal places fall back to the text, so a client that makes them collide gains nothing.
///
/// Keys that end in a number, as made ones do and most of clients', are neighbours of those with the number before and after:
/// the newest and the oldest keys, which alone are touched, lie together, and stay in the processor's cache.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Placed {
    place: u64,
    key: CommandKey,
}

impl Placed {
    fn new(key: &CommandKey) -> Self {
        let text = key.as_str();
        let name = text.trim_end_matches(|digit: char| digit.is_ascii_digit());
        let digits = text[name.len()..].bytes().map(|digit| u64::from(digit - b'0'));
        let number = digits.fold(0_u64, |number, digit| number.wrapping_mul(10).wrapping_add(digit));
        Self { place: xxh3_64(name.as_bytes()).wrapping_add(number), key: key.clone() }
    }
}

/// A bounded table of keys, the oldest of which goes first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Listed", into = "Listed")]
pub(super) struct Keys {
    capacity: usize,
    done: BTreeMap<Placed, Done>,
    /// The same keys, oldest first.
    queue: VecDeque<Placed>,
    /// See [`Keys::digest`].
    sum: u64,
}

/// The same as a snapshot holds it: each key once, oldest first.
#[derive(Serialize, Deserialize)]
struct Listed {
    capacity: usize,
    keys: Vec<(CommandKey, Done)>,
}

impl From<Keys> for Listed {
    fn from(keys: Keys) -> Self {
        let Keys { capacity, mut done, queue, sum: _ } = keys;
        let listed = queue.into_iter().map(|placed| {
            let done = done.remove(&placed).expect("the queue and the table hold the same keys");
            (placed.key, done)
        });
        Self { capacity, keys: listed.collect() }
    }
}

impl From<Listed> for Keys {
    fn from(listed: Listed) -> Self {
        let mut keys = Self::with_capacity(listed.capacity);
        for (key, done) in listed.keys {
            let sum = keys.sum.wrapping_add(share(&key, done));
            let placed = Placed::new(&key);
            keys.done.insert(placed.clone(), done);
            keys.queue.push_back(placed);
            keys.sum = sum;
        }
        keys
    }
}

impl Keys {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { capacity, done: BTreeMap::new(), queue: VecDeque::new(), sum: 0 }
    }

    /// What was done under `key`, if that is remembered.
    pub(super) fn get(&self, key: &CommandKey) -> Option<Done> {
        self.done.get(&Placed::new(key)).copied()
    }

    /// Remembers a key and forgets the oldest where there is no room. Gives `false`, and changes nothing, if it is known.
    #[must_use]
    pub(super) fn remember(&mut self, key: &CommandKey, done: Done) -> bool {
        let placed = Placed::new(key);
        match self.done.entry(placed.clone()) {
            Entry::Occupied(_) => return false,
            Entry::Vacant(place) => place.insert(done),
        };
        self.sum = self.sum.wrapping_add(share(key, done));
        self.queue.push_back(placed);
        while self.queue.len() > self.capacity {
            self.forget_oldest();
        }
        true
    }

    fn forget_oldest(&mut self) {
        let oldest = self.queue.pop_front().expect("only called with keys in the queue");
        let done = self.done.remove(&oldest).expect("the queue and the table hold the same keys");
        self.sum = self.sum.wrapping_sub(share(&oldest.key, done));
    }

    /// A hash of what is remembered: the sum of a hash of each key with what was done. Entries have their numbers in the
    /// order in which keys come in, so that the set of pairs is the whole state.
    pub(super) fn digest(&self) -> u64 {
        self.sum
    }
}

/// What accounts had when their keyed deposits and withdrawals were done, by entry: a repeated one is answered as the first.
///
/// Bounded by [`RECEIPT_HOLDINGS_MAX`]; the oldest goes first, so that every replica keeps the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Receipts {
    kept: BTreeMap<SeqNum, Balance>,
    size: usize,
}

impl Receipts {
    pub(super) fn keep(&mut self, seq: SeqNum, balance: Balance) {
        self.size += size(&balance);
        self.kept.insert(seq, balance);
        while self.size > RECEIPT_HOLDINGS_MAX {
            let (_, oldest) = self.kept.pop_first().expect("what has a size is kept");
            self.size -= size(&oldest);
        }
    }

    pub(super) fn get(&self, seq: SeqNum) -> Option<&Balance> {
        self.kept.get(&seq)
    }
}

/// Money counts as one holding.
fn size(balance: &Balance) -> usize {
    1 + balance.holdings.len()
}

fn share(key: &CommandKey, done: Done) -> u64 {
    let Done { order, deed, seq } = done;
    let command = match deed {
        // Of the orders there is a hash beside this one.
        Deed::Trade { .. } => 0,
        Deed::Command(fingerprint) => fingerprint.wrapping_add(1),
    };
    let text = xxh3_64(key.as_str().as_bytes());
    [order.0, command, seq.0].iter().fold(text, |hash, number| xxh3_64_with_seed(&number.to_le_bytes(), hash))
}

#[cfg(test)]
mod tests {
    use tradenet_schemas::account::{Account, Cash};

    use super::*;

    #[test]
    fn of_many_receipts_the_oldest_goes_first() {
        let mut receipts = Receipts::default();
        let account = Account::new("ann").expect("a name");
        let balance = Balance { account, cash: Cash::ZERO, reserved_cash: Cash::ZERO, holdings: vec![] };
        let last = RECEIPT_HOLDINGS_MAX as u64 + 1;
        for seq in 1..=last {
            receipts.keep(SeqNum(seq), balance.clone());
        }
        let kept = |seq| receipts.get(SeqNum(seq)).is_some();
        assert_eq!((kept(1), kept(2), kept(last)), (false, true, true));
    }
}
