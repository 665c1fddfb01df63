//! What a replica knows of its log without reading the file: identity and place of every entry.
//!
//! Enough to compare logs (`(epoch, seq, chain)`), to cut them, and to find an entry in the file; the entries themselves
//! stay on disk, but for a bounded window of the newest.

use std::collections::VecDeque;

use tradenet_schemas::ids::{Chain, Epoch, Position, SeqNum};
use tradenet_schemas::journal::Entry;

/// How many of the newest entries are kept decoded.
const WINDOW_ENTRIES_MAX: usize = 8_192;

/// The log's index.
#[derive(Clone, Default, Debug)]
pub(super) struct Log {
    /// Chain and end offset of each entry, from sequence number 1.
    slots: Vec<(Chain, u64)>,
    /// Where each epoch begins, ascending.
    epochs: Vec<(Epoch, SeqNum)>,
    /// The newest entries, the last one at the tail.
    window: VecDeque<Entry>,
}

impl Log {
    /// The last entry's position.
    pub(super) fn tail(&self) -> Position {
        self.position(SeqNum(self.slots.len() as u64)).unwrap_or_default()
    }

    /// Where the file ends when all of the log is in it.
    pub(super) fn bytes(&self) -> u64 {
        self.slots.last().map_or(0, |slot| slot.1)
    }

    /// Where the entry behind `seq` begins in the file.
    pub(super) fn offset_behind(&self, seq: SeqNum) -> u64 {
        index(seq).and_then(|index| self.slots.get(index)).map_or(0, |slot| slot.1)
    }

    /// The position of an entry; the default one for 0.
    pub(super) fn position(&self, seq: SeqNum) -> Option<Position> {
        let Some(index) = index(seq) else {
            return Some(Position::default());
        };
        let (chain, _) = *self.slots.get(index)?;
        let epoch = self.epochs[self.epochs.partition_point(|(_, first)| *first <= seq) - 1].0;
        Some(Position { epoch, seq, chain })
    }

    /// Whether this very entry is in the log, and so everything before it.
    pub(super) fn contains(&self, position: Position) -> bool {
        self.position(position.seq) == Some(position)
    }

    /// The newest own entry that may be common with a log that has `other` but not our entry there: neither its number
    /// nor its epoch is higher. Each step down skips a whole epoch, so few are needed.
    pub(super) fn at_or_before(&self, other: Position) -> Position {
        let mut seq = other.seq.min(self.tail().seq);
        for &(epoch, first) in self.epochs.iter().rev() {
            if seq < first {
                continue;
            }
            if epoch <= other.epoch {
                return self.position(seq).unwrap_or_default();
            }
            seq = SeqNum(first.0 - 1);
        }
        Position::default()
    }

    /// Appends an entry of `bytes` bytes.
    pub(super) fn push(&mut self, entry: Entry, position: Position, bytes: usize) {
        assert_eq!(position.seq, self.tail().seq.next(), "the log has no gaps");
        assert!(position.epoch >= self.tail().epoch, "epochs never fall within a log");
        if self.epochs.last().is_none_or(|(epoch, _)| *epoch < position.epoch) {
            self.epochs.push((position.epoch, position.seq));
        }
        self.slots.push((position.chain, self.bytes() + bytes as u64));
        self.window.push_back(entry);
        if self.window.len() > WINDOW_ENTRIES_MAX {
            self.window.pop_front();
        }
    }

    /// Removes everything behind `seq`.
    pub(super) fn cut(&mut self, seq: SeqNum) {
        while self.tail().seq > seq {
            self.slots.pop();
            self.window.pop_back();
        }
        while self.epochs.last().is_some_and(|(_, first)| *first > seq) {
            self.epochs.pop();
        }
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

    fn log(epochs: &[u64]) -> Log {
        let mut log = Log::default();
        for (epoch, seq) in epochs.iter().zip(1..) {
            let entry = Entry { seq: SeqNum(seq), epoch: Epoch(*epoch), at: 0, key: None, events: vec![] };
            let position = Position { epoch: Epoch(*epoch), seq: SeqNum(seq), chain: Chain(epoch * 100 + seq) };
            log.push(entry, position, 10);
        }
        log
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
        log.cut(SeqNum(2));
        assert_eq!((log.tail().seq, log.tail().epoch, log.bytes()), (SeqNum(2), Epoch(1), 20));
        assert_eq!(log.entry(SeqNum(2)).map(|entry| entry.seq), Some(SeqNum(2)));
        assert_eq!(log.entry(SeqNum(3)), None);
        assert_eq!(log.offset_behind(SeqNum(1)), 10);
    }
}
