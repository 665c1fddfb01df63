//! Snapshots: the state behind an entry of the log, in a file beside the journal.
//!
//! Problem: a replica that reads its whole journal to start takes longer each day.
//! Idea: a file holds what reading the journal up to some byte comes to: the state of the exchange, the newest public events,
//! and the log's marks. A start reads the newest one, and the journal from there on. It is made beside the live work, of the
//! snapshot before it and the journal's lines since ([`Making`]), so whoever trades notices nothing.
//! Rules kept: a snapshot is a copy of what the journal says, and no more than that: where it is damaged, or not of this
//! journal, the one before it or the journal's first byte takes its place, with the same outcome. Equal journals make equal
//! bytes, on every replica, whenever and in how many steps they are made. It ends with an entry that is committed and on disk,
//! so nothing in it is ever cut.
//!
//! ```text
//! {"snapshot":3,"seq":290123,"epoch":4,"chain":"44c179021f97d442","bytes":67108911}\n
//! the body (postcard)
//! xxh3_64 of all bytes before, 8 bytes, the lowest first
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tradenet_schemas::ids::{Chain, Epoch, Position, SeqNum};
use xxhash_rust::xxh3::xxh3_64;

use super::feed::State;
use super::log::{Log, Marks, Place};
use crate::exchange::{Exchange, ORDERS_KEPT};
use crate::journal::{self, BadLine};

/// The number of the form that this release writes and reads. Every change of what is in the body is a new one: a snapshot of
/// another form is passed over, and made again of the journal. So is all that is new in a line of it: who takes over a snapshot has not
/// read the lines that it is of ([`transfer`](super::transfer)), and must be able to.
pub const FORMAT: u32 = 3;
/// A snapshot is made for each so many bytes of the journal: what a start reads at most, but for what came in while the last
/// one was made.
pub const SNAPSHOT_EVERY_BYTES: u64 = 64 << 20;
/// How many snapshots are kept: should the newest go bad, a start takes the one before.
pub const SNAPSHOTS_MAX: usize = 2;
/// Longest header, in bytes.
const HEADER_BYTES_MAX: usize = 512;
/// How much of the journal is read at once to make one.
const READ_BYTES_MAX: usize = 1 << 20;
/// The length of the checksum.
const CHECKSUM_BYTES: usize = 8;

/// The first line of a snapshot's file, for people and for who looks only for the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The [form](FORMAT).
    pub snapshot: u32,
    /// The last entry in it.
    pub seq: SeqNum,
    /// The entry's epoch.
    pub epoch: Epoch,
    /// The entry's chain: names everything up to it.
    pub chain: Chain,
    /// Where that entry ends in the journal, in bytes.
    pub bytes: u64,
}

impl Header {
    /// The last entry in it.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq, chain: self.chain }
    }

    /// Reads the beginning of a snapshot's file; nothing if it is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().take(HEADER_BYTES_MAX).position(|&byte| byte == b'\n')?;
        serde_json::from_slice(&bytes[..end]).ok()
    }
}

/// A part of a snapshot's file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotPart {
    /// How that file begins.
    pub header: Header,
    /// The size of the whole file, in bytes.
    pub size_bytes: u64,
    /// The part.
    pub bytes: Bytes,
}

/// Why a file can't be used as a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSnapshot {
    /// These are not the bytes that were written.
    #[error("it is damaged")]
    Damaged,
    /// Another release wrote it.
    #[error("it has form {0}, and this release reads form {FORMAT}")]
    OtherForm(u32),
    /// It was made of another journal, or the journal has lost what it was made of.
    #[error("the journal does not hold the entry with which it ends")]
    OtherJournal,
}

/// Why no snapshot could be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MakeError {
    /// The journal is not what was written.
    #[error("orders.jsonl is damaged at line {}, byte {byte}: {why}", seq)]
    Rotten {
        /// The entry that is not there.
        seq: SeqNum,
        /// Where it should begin.
        byte: u64,
        /// What is wrong with it.
        why: BadLine,
    },
    /// The journal ends before that byte.
    #[error("orders.jsonl ends before byte {0}")]
    Short(u64),
    /// The journal can't be read, or the snapshot not written.
    #[error("{0}")]
    Io(String),
    /// The process ends.
    #[error("the process ends")]
    Given,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Body {
    /// The entry before the last one, to check that one's line in the journal.
    before: Position,
    /// The length of that line, in bytes.
    line_bytes: u64,
    marks: Marks,
    state: State,
}

/// What the journal comes to up to some entry.
#[derive(Clone, Debug)]
pub struct Snapshot {
    end: Place,
    body: Body,
}

impl Snapshot {
    /// Reads a file.
    ///
    /// # Errors
    /// It is damaged, or of another release.
    pub fn decode(file: &[u8]) -> Result<Self, BadSnapshot> {
        let (content, checksum) = file.split_last_chunk::<CHECKSUM_BYTES>().ok_or(BadSnapshot::Damaged)?;
        if xxh3_64(content) != u64::from_le_bytes(*checksum) {
            return Err(BadSnapshot::Damaged);
        }
        let header = Header::read(content).ok_or(BadSnapshot::Damaged)?;
        if header.snapshot != FORMAT {
            return Err(BadSnapshot::OtherForm(header.snapshot));
        }
        let begins = content.iter().position(|&byte| byte == b'\n').map_or(content.len(), |end| end + 1);
        let (body, rest): (Body, _) =
            postcard::take_from_bytes(&content[begins..]).map_err(|_| BadSnapshot::Damaged)?;
        if !rest.is_empty() || body.state.exchange.applied() != header.seq {
            return Err(BadSnapshot::Damaged);
        }
        let orders = body.state.exchange.orders();
        Ok(Self { end: Place { position: header.position(), end: header.bytes, orders }, body })
    }

    /// The bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let Position { epoch, seq, chain } = self.end.position;
        let header = Header { snapshot: FORMAT, seq, epoch, chain, bytes: self.end.end };
        let mut file = serde_json::to_vec(&header).expect("plain data serializes into memory");
        file.push(b'\n');
        let mut file = postcard::to_extend(&self.body, file).expect("plain data serializes into memory");
        let checksum = xxh3_64(&file);
        file.extend_from_slice(&checksum.to_le_bytes());
        file
    }

    /// What its file is called.
    pub(super) fn name(&self) -> String {
        format!("snapshot-{}", self.end.position.seq)
    }

    /// The last entry in it.
    pub fn position(&self) -> Position {
        self.end.position
    }

    /// Where that entry ends in the journal, in bytes.
    pub fn bytes(&self) -> u64 {
        self.end.end
    }

    /// The state behind that entry.
    pub fn exchange(&self) -> &Exchange {
        &self.body.state.exchange
    }

    /// Which bytes of the journal [`Snapshot::is_of`] wants: where they begin, and how many.
    pub fn last_line(&self) -> (u64, usize) {
        let length = self.body.line_bytes.min(self.end.end);
        (self.end.end - length, usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Whether it was made of the journal that has this line at [`Snapshot::last_line`]: the chain says that everything before
    /// was the same, too.
    pub fn is_of(&self, line: &[u8]) -> bool {
        let (_, length) = self.last_line();
        let whole = line.strip_suffix(b"\n").filter(|_| line.len() == length);
        let read = whole.map(|line| journal::decode(line, self.body.before));
        matches!(read, Some(Ok((_, position))) if position == self.end.position)
    }

    /// The epoch of an entry in it.
    pub(super) fn epoch(&self, seq: SeqNum) -> Epoch {
        self.body.marks.epoch(seq)
    }

    pub(super) fn into_parts(self) -> (Log, State) {
        (Log::behind(self.end, self.body.marks), self.body.state)
    }
}

/// A snapshot being made.
///
/// Ask [`Making::wants`] for the bytes of the journal that it wants next, and give them to [`Making::take`], until that gives
/// the snapshot.
#[derive(Clone, Debug)]
pub struct Making {
    until: u64,
    log: Log,
    state: State,
    last: Option<(Position, u64)>,
}

impl Making {
    /// Of the first entry that ends at byte `until` of the journal or behind it, and all before; `before`: an older snapshot of
    /// the same journal to go on from, or none to begin with the first byte.
    pub fn new(before: Option<Snapshot>, until: u64) -> Self {
        Self::keeping(before, until, ORDERS_KEPT)
    }

    /// The same where so many orders are kept in the state: any number but [`ORDERS_KEPT`] is for tests.
    pub fn keeping(before: Option<Snapshot>, until: u64, orders: usize) -> Self {
        let (log, state) = before
            .filter(|before| before.bytes() < until)
            .map_or_else(|| (Log::default(), State::keeping(orders)), Snapshot::into_parts);
        Self { until, log, state, last: None }
    }

    /// From which byte of the journal on it wants to read, and how many bytes at most.
    pub fn wants(&self) -> (u64, usize) {
        (self.log.bytes(), READ_BYTES_MAX)
    }

    /// Takes what was read; the snapshot when there is enough.
    ///
    /// # Errors
    /// The bytes are damaged, or there are none.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Snapshot>, MakeError> {
        let before = self.log.bytes();
        for scanned in journal::scan(bytes, self.log.tail()) {
            let good = scanned.map_err(|why| {
                let seq = self.log.tail().seq.next();
                MakeError::Rotten { seq, byte: self.log.bytes(), why }
            })?;
            self.last = Some((self.log.tail(), good.bytes as u64));
            self.log.push_place(good.position, good.bytes, Exchange::orders_made(&good.entry));
            self.state.apply(&good.entry);
            if self.log.bytes() >= self.until {
                return Ok(Some(self.done()));
            }
        }
        if self.log.bytes() == before {
            return Err(MakeError::Short(self.until));
        }
        Ok(None)
    }

    fn done(&mut self) -> Snapshot {
        let (log, nothing) = (std::mem::take(&mut self.log), State::keeping(ORDERS_KEPT));
        let state = std::mem::replace(&mut self.state, nothing);
        let (before, line_bytes) = self.last.unwrap_or_default();
        let end = Place { position: log.tail(), end: log.bytes(), orders: log.orders() };
        assert_eq!(end.orders, state.exchange.orders(), "the index and the state know of the same orders");
        Snapshot { end, body: Body { before, line_bytes, marks: log.into_marks(), state } }
    }

    /// The whole of it: the file's bytes, and what is in them.
    ///
    /// # Errors
    /// The journal is damaged or too short, or `read` fails.
    pub fn run(
        mut self,
        read: &mut dyn FnMut(u64, usize) -> Result<Vec<u8>, MakeError>,
    ) -> Result<Snapshot, MakeError> {
        loop {
            let (offset, bytes_max) = self.wants();
            if let Some(made) = self.take(&read(offset, bytes_max)?)? {
                return Ok(made);
            }
        }
    }
}
