//! A stock's book: price levels in order, first in first out within a level.
//!
//! Problem: orders come and go millions of times; the best price must be at hand, the oldest order at a price must be
//! first, and an order in the middle must be taken out without a search.
//! Idea: each side is a sorted map from price to level; a level is a doubly linked list through one array of nodes, whose
//! free places are kept in a list of their own. Whoever placed an order keeps its place in the array.
//! Rule kept: price-time priority. Resting and cancelling cost a look-up of the price, meeting the best order costs none
//! but that of the best level; nothing is allocated but to grow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tradenet_schemas::account::Level as Shown;
use tradenet_schemas::ids::{OrderNumber, SeqNum};
use tradenet_schemas::trade::{Price, Quantity, Side};

use crate::bugs::{Bug, bug};

/// No node.
const NONE: u32 = u32::MAX;

/// Where an order rests in the book's array.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place(u32);

/// An order that rests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resting {
    /// Its number.
    pub order: OrderNumber,
    /// The account that placed it.
    pub holder: u32,
    /// The price it asks for.
    pub price: Price,
    /// How many are left.
    pub left: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Node {
    resting: Resting,
    side: Side,
    before: u32,
    behind: u32,
}

/// All orders at one price.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Level {
    first: u32,
    last: u32,
    left: u64,
}

/// The book of one stock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Book {
    bids: BTreeMap<Price, Level>,
    asks: BTreeMap<Price, Level>,
    nodes: Vec<Node>,
    /// The first of the free nodes, which are linked by `behind`.
    free: u32,
    /// The last entry that changed it.
    pub changed: SeqNum,
}

impl Default for Book {
    fn default() -> Self {
        Self { bids: BTreeMap::new(), asks: BTreeMap::new(), nodes: Vec::new(), free: NONE, changed: SeqNum(0) }
    }
}

impl Book {
    fn levels(&mut self, side: Side) -> &mut BTreeMap<Price, Level> {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// Puts an order behind all others of its side and price.
    pub fn rest(&mut self, side: Side, resting: Resting) -> Place {
        if bug(Bug::NewestFirst) {
            return self.rest_first(side, resting);
        }
        let at = match self.free {
            NONE => u32::try_from(self.nodes.len()).expect("there are not that many orders"),
            free => free,
        };
        let level = self.levels(side).entry(resting.price).or_insert(Level { first: at, last: NONE, left: 0 });
        let before = level.last;
        level.last = at;
        level.left += resting.left;
        let node = Node { resting, side, before, behind: NONE };
        if before != NONE {
            self.nodes[before as usize].behind = at;
        }
        match self.nodes.get_mut(at as usize) {
            Some(free) => {
                self.free = free.behind;
                *free = node;
            }
            None => self.nodes.push(node),
        }
        Place(at)
    }

    /// For [`Bug::NewestFirst`].
    fn rest_first(&mut self, side: Side, resting: Resting) -> Place {
        let at = u32::try_from(self.nodes.len()).expect("there are not that many orders");
        let level = self.levels(side).entry(resting.price).or_insert(Level { first: NONE, last: at, left: 0 });
        let behind = level.first;
        level.first = at;
        level.left += resting.left;
        if behind != NONE {
            self.nodes[behind as usize].before = at;
        }
        self.nodes.push(Node { resting, side, before: NONE, behind });
        Place(at)
    }

    /// Takes so many of the order at `place`, which leaves when none are left.
    ///
    /// # Panics
    /// It has fewer.
    pub fn take(&mut self, place: Place, quantity: u64) {
        let Node { resting, side, before, behind } = self.nodes[place.0 as usize];
        let left = resting.left.checked_sub(quantity).expect("no more is taken of an order than is left");
        self.nodes[place.0 as usize].resting.left = left;
        let gone = left == 0;
        let level = self.levels(side).get_mut(&resting.price).expect("an order that rests has a level");
        level.left -= quantity;
        if !gone {
            return;
        }
        if before == NONE {
            level.first = behind;
        }
        if behind == NONE {
            level.last = before;
        }
        if level.first == NONE {
            self.levels(side).remove(&resting.price);
        }
        if before != NONE {
            self.nodes[before as usize].behind = behind;
        }
        if behind != NONE {
            self.nodes[behind as usize].before = before;
        }
        self.nodes[place.0 as usize].behind = self.free;
        self.free = place.0;
    }

    /// The order at `place`.
    pub fn resting(&self, place: Place) -> Resting {
        self.nodes[place.0 as usize].resting
    }

    /// The order that an order of `side` meets first.
    pub fn best(&self, side: Side) -> Option<Place> {
        let level = match side {
            Side::Buy => self.asks.first_key_value(),
            Side::Sell => self.bids.last_key_value(),
        };
        level.map(|(_, level)| Place(level.first))
    }

    /// The orders that an order of `side` meets, one after the other.
    pub fn facing(&self, side: Side) -> impl Iterator<Item = Resting> + '_ {
        let mut levels = self.best_levels(side.other());
        let mut at = NONE;
        std::iter::from_fn(move || {
            if at == NONE {
                at = levels.next()?.1.first;
            }
            let node = self.nodes[at as usize];
            at = node.behind;
            Some(node.resting)
        })
    }

    /// The levels of `side`, best first.
    fn best_levels(&self, side: Side) -> impl Iterator<Item = (&Price, &Level)> + '_ {
        let (bids, asks) = match side {
            Side::Buy => (Some(self.bids.iter().rev()), None),
            Side::Sell => (None, Some(self.asks.iter())),
        };
        bids.into_iter().flatten().chain(asks.into_iter().flatten())
    }

    /// How many stand on `side` at that price.
    pub fn standing(&self, side: Side, price: Price) -> u64 {
        let levels = if side == Side::Buy { &self.bids } else { &self.asks };
        levels.get(&price).map_or(0, |level| level.left)
    }

    /// What stands on `side`, best price first, at most so many prices.
    pub fn depth(&self, side: Side, levels: usize) -> Vec<Shown> {
        let shown = |(price, level): (&Price, &Level)| {
            Shown(*price, Quantity::new(level.left).expect("no more can be ordered than there is"))
        };
        self.best_levels(side).take(levels).map(shown).collect()
    }
}
