//! Reading entries out of a journal that its replica goes on writing.
//!
//! The problem: what is to be handed out may begin anywhere in a log of gigabytes. The idea: lines stand in the order of
//! their numbers, so a place is found by halving, and from there on it is read in a row. The rules: the files are only read;
//! only entries are asked for that are released, which are never cut again; each line is checked along the chain.

use std::io;

use bytes::Bytes;
use tradenet_core::journal::{object, place, scan};
use tradenet_schemas::ids::{Position, SeqNum};

use crate::disk::segments::{Files, LogError, Segments};

/// How much of the file is read at once, in bytes; more only for a longer line.
const READ_BYTES: usize = 256 << 10;
/// A line that is longer than this is not a line.
const LINE_BYTES_MAX: usize = 4 << 20;

/// A journal, and how far it was read.
#[derive(Debug)]
pub(super) struct Entries {
    journal: Segments,
    /// Behind the entry at `position`.
    offset: u64,
    position: Position,
}

impl Entries {
    pub(super) fn open(journal: &Files) -> Result<Self, LogError> {
        Ok(Self { journal: Segments::open(journal)?, offset: 0, position: Position::default() })
    }

    /// The entries from `from` up to `until`, as their JSON objects: as many as one read gives, and at least one.
    ///
    /// # Errors
    /// The file can't be read, a line is damaged, or the first entry is not there.
    pub(super) fn read(&mut self, from: SeqNum, until: SeqNum) -> io::Result<Vec<Bytes>> {
        if self.position.seq.next() != from {
            (self.offset, self.position) = self.end_of(SeqNum(from.0.saturating_sub(1)))?;
        }
        let mut bytes_max = READ_BYTES;
        loop {
            let bytes = self.journal.read(self.offset, bytes_max)?;
            let mut entries = Vec::new();
            let mut used = 0;
            for scanned in scan(&bytes, self.position).take(count(from, until)) {
                let scanned = scanned.map_err(|bad| {
                    let (line, byte) = (self.position.seq.next(), self.offset);
                    io::Error::other(format!("the journal's line {line}, byte {byte}: {bad}"))
                })?;
                let line = &bytes[used..used + scanned.bytes];
                entries.extend(object(line).map(Bytes::from));
                used += scanned.bytes;
                (self.offset, self.position) = (self.offset + scanned.bytes as u64, scanned.position);
            }
            if !entries.is_empty() {
                return Ok(entries);
            }
            if bytes.len() < bytes_max || bytes_max > LINE_BYTES_MAX {
                return Err(io::Error::other(format!("entry {from} is not in the journal")));
            }
            bytes_max *= 2;
        }
    }

    /// Where the line of entry `seq` ends, and its position.
    fn end_of(&mut self, seq: SeqNum) -> io::Result<(u64, Position)> {
        if seq == SeqNum(0) {
            return Ok((0, Position::default()));
        }
        // Its line begins at `low` or behind it, and before `high`.
        let (mut low, mut high) = (0, self.journal.bytes()?);
        while low < high {
            let middle = low + (high - low) / 2;
            let begin = if middle == low { Some(low) } else { self.end_of_line(middle - 1)? };
            let end = match begin {
                Some(begin) => self.end_of_line(begin)?.map(|end| (begin, end)),
                None => None,
            };
            let Some((begin, end)) = end else {
                high = middle;
                continue;
            };
            let line = self.journal.read(begin, usize::try_from(end - begin).unwrap_or(usize::MAX))?;
            let Some(position) = place(&line) else {
                return Err(io::Error::other(format!("the journal's byte {begin} begins no line")));
            };
            match position.seq.cmp(&seq) {
                std::cmp::Ordering::Equal => return Ok((end, position)),
                std::cmp::Ordering::Less => low = end,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(io::Error::other(format!("entry {seq} is not in the journal")))
    }

    /// Behind the first line feed at `offset` or behind it.
    fn end_of_line(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let mut bytes_max = READ_BYTES / 64;
        loop {
            let bytes = self.journal.read(offset, bytes_max)?;
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(offset + end as u64 + 1));
            }
            if bytes.len() < bytes_max || bytes_max > LINE_BYTES_MAX {
                return Ok(None);
            }
            bytes_max *= 4;
        }
    }
}

fn count(from: SeqNum, until: SeqNum) -> usize {
    usize::try_from((until.0 + 1).saturating_sub(from.0)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use tradenet_core::journal::encode;
    use tradenet_schemas::ids::{Boot, Chain, Epoch};
    use tradenet_schemas::journal::{Entry, Event};

    use super::*;
    use crate::disk::segments::{JOURNAL, Journal};

    fn entry(seq: u64) -> Entry {
        // Lines of many lengths, a few longer than a read.
        let catalog = Boot(seq);
        let events = if seq % 100 == 7 { 9_000 } else { seq % 13 };
        let events = (0..events).map(|_| Event::Attached { catalog }).collect();
        Entry { seq: SeqNum(seq), epoch: Epoch(seq / 10), at: 0, key: None, events }
    }

    /// A journal in segments of about so many bytes.
    fn journal(last: u64, segment_bytes: u64) -> (tempfile::TempDir, Files) {
        let (mut bytes, mut chain) = (Vec::new(), Chain(0));
        (1..=last).for_each(|seq| chain = encode(&entry(seq), chain, &mut bytes));
        // A line that is just being written.
        bytes.extend_from_slice(&bytes.clone()[..40]);
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().to_owned(), None);
        Journal::open(&files, segment_bytes.try_into().unwrap()).unwrap().append(&bytes).unwrap();
        (dir, files)
    }

    #[test]
    fn entries_are_found_anywhere_and_read_in_a_row() {
        let (_dir, files) = journal(500, 10_000);
        let mut entries = Entries::open(&files).unwrap();
        let mut check = |from: u64, until: u64| {
            let mut next = from;
            while next <= until {
                for read in entries.read(SeqNum(next), SeqNum(until)).unwrap() {
                    assert_eq!(serde_json::from_slice::<Entry>(&read).unwrap(), entry(next));
                    next += 1;
                }
            }
            assert_eq!(next, until + 1, "no more than was asked for");
        };
        check(1, 500);
        (1..=500).rev().step_by(7).for_each(|seq| check(seq, seq));
        check(106, 108);
        check(400, 410);
        check(411, 500);
    }

    #[test]
    fn what_is_damaged_or_not_there_is_no_entry() {
        let (dir, files) = journal(30, 1_000_000);
        let check = |from: u64, expected: &str| {
            let mut entries = Entries::open(&files).unwrap();
            let error = entries.read(SeqNum(from), SeqNum(from)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(31, "entry 31 is not in the journal");
        check(40, "entry 39 is not in the journal");
        let path = dir.path().join(JOURNAL);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 60;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
        check(30, "the journal's line 30, byte ");
    }
}
