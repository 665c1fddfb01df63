//! Orders by number: the newest of them, and how many there ever were.
//!
//! Problem: an order with the house can be looked up for ever, and there is no end of them.
//! Idea: only the newest are kept here. What an older one was stands in the journal, and whoever keeps that finds it by its
//! number. Accounts' orders are the market's; here they only have their numbers.
//! Rule kept: what is kept depends on the log alone, so every replica keeps the same; and a hash tells of all orders there
//! ever were, however many are kept.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tradenet_schemas::ids::{OrderNumber, SeqNum};
use tradenet_schemas::trade::{Quantity, Side};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many of the newest orders are kept: some seconds' at the highest rate, so that who asks for an order that was just made is
/// answered from memory.
pub const ORDERS_KEPT: usize = 65_536;

/// A number that was given.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Numbered {
    /// To a trade with the house, in 24 bytes.
    House(Filled),
    /// To an account's order: the market has it.
    Account,
}

/// A trade with the house.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Filled {
    pub(super) quantity: Quantity,
    pub(super) seq: SeqNum,
    /// Which listing.
    pub(super) listing: u32,
    pub(super) side: Side,
}

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    kept_max: usize,
    /// The last of them has the last number that was given.
    newest: VecDeque<Numbered>,
    count: u64,
    /// A hash of all orders with the house, each chained to the one before.
    hash: u64,
}

impl Orders {
    /// None so far; of those that come so many are kept.
    pub(super) fn keeping(kept_max: usize) -> Self {
        Self { kept_max, newest: VecDeque::new(), count: 0, hash: 0 }
    }

    /// The next number is a trade with the house.
    pub(super) fn push_house(&mut self, filled: Filled) {
        self.hash = filled.chained_hash(self.hash);
        self.push(Numbered::House(filled));
    }

    /// The next number is an account's order.
    pub(super) fn push_account(&mut self) {
        self.push(Numbered::Account);
    }

    fn push(&mut self, numbered: Numbered) {
        self.count += 1;
        // Room is made first, so that there is never more of it than for these.
        if self.newest.len() >= self.kept_max {
            self.newest.pop_front();
        }
        self.newest.push_back(numbered);
    }

    /// The trade with the house of that number, if it is kept.
    pub(super) fn house(&self, number: OrderNumber) -> Option<&Filled> {
        let index = usize::try_from(number.0.checked_sub(self.before() + 1)?).ok()?;
        match self.newest.get(index)? {
            Numbered::House(filled) => Some(filled),
            Numbered::Account => None,
        }
    }

    /// How many numbers were given before those that are kept.
    pub(super) fn before(&self) -> u64 {
        self.count - self.newest.len() as u64
    }

    /// How many numbers were given.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// See [`Exchange::digest`](super::Exchange::digest).
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

impl Filled {
    fn chained_hash(&self, prev: u64) -> u64 {
        let side = match self.side {
            Side::Buy => 0,
            Side::Sell => 1,
        };
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.seq.0.to_le_bytes());
        // A quantity is below 2^53: the side has room above it.
        bytes[8..16].copy_from_slice(&(self.quantity.get() | side << 63).to_le_bytes());
        bytes[16..].copy_from_slice(&self.listing.to_le_bytes());
        xxh3_64_with_seed(&bytes, prev)
    }
}
