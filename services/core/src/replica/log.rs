//! What a replica knows of its log without reading the file.
//!
//! Problem: enough must be at hand to compare logs (`(epoch, seq, chain)`), to cut them, and to find an entry in the file; but
//! the log grows without end, and memory must not grow with each entry.
//! Idea: identity and place of the newest entries, and the newest entries themselves; of all before those, one *mark* for each
//! [`MARK_EVERY_BYTES`] of the file, from which reading can begin, and where each epoch begins. A place tells how many orders
//! there are up to it, so that an order's number leads to the part of the file in which it stands.
//! Rule kept: what can still be cut is among the newest. A leader decides the next batch when the one before is committed, so
//! all but the last of the newest are committed. Of an older entry the epoch says which one it is: one process leads in an
//! epoch, and numbers its entries once (rule R2).
//!
//! Where the marks are depends on the bytes of the log alone, so equal logs have equal ones, however they were read.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tradenet_schemas::ids::{Chain, Epoch, OrderNumber, Position, SeqNum};
use tradenet_schemas::journal::Entry;

use crate::exchange::Exchange;

/// How many of the newest entries are kept decoded, each with its place.
const NEWEST_MAX: usize = 8_192;
/// The first entry that ends behind a multiple of this, in bytes of the file, gets a mark.
pub(super) const MARK_EVERY_BYTES: usize = 64 * 1024;

/// An entry, where it ends in the file, and how many orders there are up to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) position: Position,
    pub(super) end: u64,
    pub(super) orders: u64,
}

/// Which line of the file is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Line {
    /// The one that made that order.
    Order(OrderNumber),
    /// That entry's.
    Entry(SeqNum),
}

impl Line {
    /// Whether it is not behind that place.
    pub(super) fn is_up_to(self, place: &Place) -> bool {
        match self {
            Self::Order(number) => number.0 <= place.orders,
            Self::Entry(seq) => seq <= place.position.seq,
        }
    }
}

/// The part of the index that grows with the log.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Marks {
    /// Ascending.
    places: Vec<Place>,
    /// Where each epoch begins, ascending.
    epochs: Vec<(Epoch, SeqNum)>,
}

impl Marks {
    /// The next entry ends at `place`; the one before it at `start`.
    fn push(&mut self, place: Place, start: u64) {
        if self.epochs.last().is_none_or(|(epoch, _)| *epoch < place.position.epoch) {
            self.epochs.push((place.position.epoch, place.position.seq));
        }
        let part = |end| end / MARK_EVERY_BYTES as u64;
        if part(start) != part(place.end) {
            self.places.push(place);
        }
    }

    /// Removes everything behind `seq`.
    fn cut(&mut self, seq: SeqNum) {
        while self.places.last().is_some_and(|place| place.position.seq > seq) {
            self.places.pop();
        }
        while self.epochs.last().is_some_and(|(_, first)| *first > seq) {
            self.epochs.pop();
        }
    }

    /// The last mark that is not behind `seq`; the beginning where there is none.
    fn at_or_before(&self, seq: SeqNum) -> Place {
        self.last_of(|place| place.position.seq <= seq)
    }

    fn last_of(&self, holds: impl FnMut(&Place) -> bool) -> Place {
        let behind = self.places.partition_point(holds);
        behind.checked_sub(1).map_or_else(Place::default, |at| self.places[at])
    }

    /// The first mark behind that byte.
    fn behind(&self, end: u64) -> Option<Place> {
        self.places.get(self.places.partition_point(|place| place.end <= end)).copied()
    }

    /// The epoch of an entry that is in the log.
    pub(super) fn epoch(&self, seq: SeqNum) -> Epoch {
        let behind = self.epochs.partition_point(|(_, first)| *first <= seq);
        behind.checked_sub(1).map_or(Epoch(0), |at| self.epochs[at].0)
    }
}

/// What is kept of a new entry beside itself; see [`Place`].
#[derive(Clone, Copy, Debug)]
struct Newest {
    chain: Chain,
    end: u64,
    orders: u64,
}

/// The log's index.
#[derive(Clone, Default, Debug)]
pub(super) struct Log {
    marks: Marks,
    /// The entry before the newest.
    base: Place,
    /// The newest entries.
    newest: VecDeque<Newest>,
    /// The entries themselves.
    window: VecDeque<Entry>,
}

impl Log {
    /// A log up to `base`, of which nothing but the marks is known.
    pub(super) fn behind(base: Place, marks: Marks) -> Self {
        Self { marks, base, ..Self::default() }
    }

    /// What a snapshot of all of it holds.
    pub(super) fn into_marks(self) -> Marks {
        self.marks
    }

    /// The last entry's position.
    pub(super) fn tail(&self) -> Position {
        match self.newest.back() {
            None => self.base.position,
            Some(Newest { chain, .. }) => {
                let seq = SeqNum(self.base.position.seq.0 + self.newest.len() as u64);
                Position { epoch: self.marks.epoch(seq), seq, chain: *chain }
            }
        }
    }

    /// How many orders there are.
    pub(super) fn orders(&self) -> u64 {
        self.newest.back().map_or(self.base.orders, |newest| newest.orders)
    }

    /// Where the file ends when all of the log is in it.
    pub(super) fn bytes(&self) -> u64 {
        self.newest.back().map_or(self.base.end, |newest| newest.end)
    }

    /// An entry among the newest, or the one before them.
    fn recent(&self, seq: SeqNum) -> Option<Place> {
        let Some(index) = index(SeqNum(seq.0.checked_sub(self.base.position.seq.0)?)) else { return Some(self.base) };
        Some(self.place(seq, *self.newest.get(index)?))
    }

    fn place(&self, seq: SeqNum, Newest { chain, end, orders }: Newest) -> Place {
        Place { position: Position { epoch: self.marks.epoch(seq), seq, chain }, end, orders }
    }

    /// The last entry up to `seq` behind which the file can be read; the default one for the beginning.
    pub(super) fn place_at_or_before(&self, seq: SeqNum) -> Place {
        self.recent(seq.min(self.tail().seq)).unwrap_or_else(|| self.marks.at_or_before(seq))
    }

    /// The position of an entry, if that is kept; the default one for 0.
    pub(super) fn position(&self, seq: SeqNum) -> Option<Position> {
        if let Some(recent) = self.recent(seq) {
            return Some(recent.position);
        }
        let mark = self.marks.at_or_before(seq).position;
        (mark.seq == seq).then_some(mark)
    }

    /// The last entry that ends at or before that byte, or one that is a little older.
    pub(super) fn last_within(&self, bytes: u64) -> SeqNum {
        if bytes < self.base.end {
            return self.marks.last_of(|place| place.end <= bytes).position.seq;
        }
        let within = self.newest.partition_point(|newest| newest.end <= bytes);
        SeqNum(self.base.position.seq.0 + within as u64)
    }

    /// The epoch of an entry that is in the log.
    pub(super) fn epoch(&self, seq: SeqNum) -> Epoch {
        self.marks.epoch(seq)
    }

    /// The last mark that is not behind that byte; the beginning where there is none.
    pub(super) fn mark_within(&self, byte: u64) -> Place {
        self.marks.last_of(|place| place.end <= byte)
    }

    /// Up to where the file is read next by one who has read it up to `from`: the next mark, or the last known place up to entry
    /// `safe`, if that comes first. None if there is nothing behind `from`.
    pub(super) fn part_behind(&self, from: Place, safe: SeqNum) -> Option<Place> {
        let last = self.place_at_or_before(safe);
        let next = self.marks.behind(from.end).filter(|mark| mark.end < last.end);
        Some(next.unwrap_or(last)).filter(|to| to.end > from.end)
    }

    /// Between which places the file is read to find that line: one part, in which the lines behind the first up to the
    /// second stand. None if it is not in entries up to `safe`.
    pub(super) fn part_with(&self, line: Line, safe: SeqNum) -> Option<(Place, Place)> {
        let from = self.marks.last_of(|place| !line.is_up_to(place));
        self.part_behind(from, safe).filter(|to| line.is_up_to(to)).map(|to| (from, to))
    }

    /// Whether this very entry is in the log, and so everything before it.
    pub(super) fn contains(&self, position: Position) -> bool {
        match self.position(position.seq) {
            Some(own) => own == position,
            None => position.seq <= self.tail().seq && self.marks.epoch(position.seq) == position.epoch,
        }
    }

    /// A new own entry that may be common with a log that has `other` but not our entry there: neither its number nor its
    /// epoch is higher. Each step down skips a whole epoch, so few are needed.
    pub(super) fn at_or_before(&self, other: Position) -> Position {
        let mut seq = other.seq.min(self.tail().seq);
        for &(epoch, first) in self.marks.epochs.iter().rev() {
            if seq < first {
                continue;
            }
            if epoch <= other.epoch {
                return self.place_at_or_before(seq).position;
            }
            seq = SeqNum(first.0 - 1);
        }
        Position::default()
    }

    /// Appends an entry of `bytes` bytes.
    pub(super) fn push(&mut self, entry: Entry, position: Position, bytes: usize) {
        self.push_place(position, bytes, Exchange::orders_made(&entry));
        self.window.push_back(entry);
        if self.window.len() > NEWEST_MAX {
            self.window.pop_front();
        }
    }

    /// The same where nobody will ask for the entry itself, which makes so many orders.
    pub(super) fn push_place(&mut self, position: Position, bytes: usize, orders_made: u64) {
        let (tail, start, orders) = (self.tail(), self.bytes(), self.orders() + orders_made);
        assert_eq!(position.seq, tail.seq.next(), "the log has no gaps");
        assert!(position.epoch >= tail.epoch, "epochs never fall within a log");
        let end = start + bytes as u64;
        self.marks.push(Place { position, end, orders }, start);
        self.newest.push_back(Newest { chain: position.chain, end, orders });
        if self.newest.len() > NEWEST_MAX
            && let Some(oldest) = self.newest.pop_front()
        {
            self.base = self.place(self.base.position.seq.next(), oldest);
        }
    }

    /// Removes everything behind `seq`; `false` where that is no longer among the newest, and nothing is removed.
    #[must_use]
    pub(super) fn cut(&mut self, seq: SeqNum) -> bool {
        if seq < self.base.position.seq {
            return false;
        }
        while self.tail().seq > seq {
            self.newest.pop_back();
            self.window.pop_back();
        }
        self.marks.cut(seq);
        true
    }

    /// A decoded entry, if it is among the newest.
    pub(super) fn entry(&self, seq: SeqNum) -> Option<&Entry> {
        let behind = usize::try_from(self.tail().seq.0.checked_sub(seq.0)?).ok()?;
        self.window.get(self.window.len().checked_sub(behind + 1)?)
    }
}

fn index(seq: SeqNum) -> Option<usize> {
    usize::try_from(seq.0.checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry for each of `epochs`, of ten bytes.
    fn log(epochs: &[u64]) -> Log {
        let mut log = Log::default();
        for (epoch, seq) in epochs.iter().zip(1..) {
            push(&mut log, *epoch, seq, 10);
        }
        log
    }

    fn push(log: &mut Log, epoch: u64, seq: u64, bytes: usize) {
        let entry = Entry { seq: SeqNum(seq), epoch: Epoch(epoch), at: 0, key: None, events: vec![] };
        log.push(entry, at(epoch, seq), bytes);
    }

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq: SeqNum(seq), chain: Chain(epoch * 100_000 + seq) }
    }

    #[test]
    fn the_newest_common_entry_is_found_epoch_by_epoch() {
        let check = |own: &[u64], other: (u64, u64), found: u64| {
            let other = Position { epoch: Epoch(other.0), seq: SeqNum(other.1), chain: Chain(0) };
            assert_eq!(log(own).at_or_before(other).seq, SeqNum(found), "{own:?} against {other:?}");
        };
        check(&[1, 1, 2, 2], (3, 9), 4);
        check(&[1, 1, 2, 2], (1, 9), 2);
        check(&[1, 1, 2, 2], (1, 1), 1);
        check(&[2, 2, 3], (1, 3), 0);
        check(&[], (1, 3), 0);
    }

    #[test]
    fn a_cut_log_grows_again_from_where_it_was_cut() {
        let mut log = log(&[1, 1, 2, 2]);
        assert!(log.cut(SeqNum(2)));
        assert_eq!((log.tail().seq, log.tail().epoch, log.bytes()), (SeqNum(2), Epoch(1), 20));
        assert_eq!(log.entry(SeqNum(2)).map(|entry| entry.seq), Some(SeqNum(2)));
        assert_eq!(log.entry(SeqNum(3)), None);
        assert_eq!(log.place_at_or_before(SeqNum(1)).end, 10);
        assert_eq!(log.last_within(19), SeqNum(1));
    }

    /// Entries of 1,000 bytes, of which 65 or 66 are between two marks.
    #[test]
    fn of_old_entries_only_some_places_are_kept_and_memory_with_them() {
        let (mut log, count) = (Log::default(), 3 * NEWEST_MAX as u64);
        (1..=count).for_each(|seq| push(&mut log, 1 + seq / 10_000, seq, 1_000));
        let first_kept = count - NEWEST_MAX as u64;
        assert_eq!((log.newest.len(), log.window.len()), (NEWEST_MAX, NEWEST_MAX));
        assert_eq!(log.marks.places.len() as u64, count * 1_000 / MARK_EVERY_BYTES as u64);
        assert_eq!((log.position(SeqNum(0)), log.position(SeqNum(66))), (Some(Position::default()), Some(at(1, 66))));
        assert_eq!((log.position(SeqNum(65)), log.position(SeqNum(first_kept - 1))), (None, None));
        assert_eq!(log.position(SeqNum(first_kept)), Some(at(2, first_kept)));
        assert_eq!(log.place_at_or_before(SeqNum(65)), Place::default());
        assert_eq!(log.place_at_or_before(SeqNum(100)), Place { position: at(1, 66), end: 66_000, orders: 0 });
        assert_eq!(log.last_within(131_000), SeqNum(66), "a mark is as good as it gets");
        assert!(log.contains(at(1, 65)), "by its epoch");
        assert!(!log.contains(at(2, 65)));
        assert!(!log.contains(Position { chain: Chain(1), ..at(1, 66) }));
        assert!(!log.cut(SeqNum(first_kept - 1)), "what is committed is not cut");
        assert!(log.cut(SeqNum(first_kept)));
        assert_eq!(log.tail(), at(2, first_kept));
    }

    #[test]
    fn a_log_that_begins_with_a_snapshot_has_the_marks_of_one_that_was_read_whole() {
        let mut whole = Log::default();
        (1..=200).for_each(|seq| push(&mut whole, 1 + seq / 50, seq, 1_000));
        let mut first = Log::default();
        (1..=120).for_each(|seq| push(&mut first, 1 + seq / 50, seq, 1_000));
        let base = Place { position: first.tail(), end: first.bytes(), orders: first.orders() };
        let mut again = Log::behind(base, first.into_marks());
        assert_eq!((again.tail(), again.bytes()), (at(3, 120), 120_000));
        (121..=200).for_each(|seq| push(&mut again, 1 + seq / 50, seq, 1_000));
        assert_eq!((again.tail(), again.bytes(), &again.marks), (whole.tail(), whole.bytes(), &whole.marks));
        assert_eq!(again.position(SeqNum(119)), None);
        assert!(again.contains(at(3, 119)));
    }
}
