//! An entry as a line of text, chained by checksum.
//!
//! Problem: a file is only worth something if every later reader can tell whether it still holds what was written, and
//! two files that should be the same must be comparable by people with `cmp`, `diff` and `jq`.
//! Idea: JSON Lines, one [`Entry`] a line, behind a checksum that is seeded with the one before it:
//!
//! ```text
//! {"chain":"<16 hex digits>","seq":1,"epoch":1,"at":1700000000000,"key":"c:k","events":[…]}\n
//! ```
//!
//! `chain` is `xxh3_64`, seeded with the chain of the entry before (0 before the first), over the entry's own JSON object:
//! the line without its line feed and with `{` in place of everything up to and including the first comma. So equal
//! `(epoch, seq, chain)` means equal files up to there. There is no IO here; services read and write, [`Scan`] judges.
//! Rule kept: nothing is taken for an entry that [`encode`] did not write, in this place of this log.
//!
//! Canonical bytes: [`decode`] does not encode again to compare. The checksum covers the bytes and not their meaning, and
//! only [`encode`] makes checksums, so bytes that pass are those that the deciding leader wrote; every replica appends
//! them unchanged.
//!
//! New forms: a version that adds events keeps the opening and the checksum as they are, so that an older one can tell an
//! entry that it does not understand ([`BadLine::UnknownForm`]: stop, never cut) from a damaged one. How events evolve is in
//! `docs/adr/0007-how-events-evolve.md`.

mod traded;

use std::fmt;
use std::str::FromStr;

use memchr::memchr;
use tradenet_schemas::ids::{Chain, Epoch, Position, SeqNum};
use tradenet_schemas::journal::Entry;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How every line begins. A `"` within a JSON string is escaped, so these bytes stand nowhere else in a line.
const OPENING: &[u8] = b"{\"chain\":\"";
/// Where the hexadecimal digits of the chain end.
const CHAIN_END: usize = OPENING.len() + 16;
/// Where the comma behind the chain stands, and in the checksummed bytes the opening brace of the entry.
const BRACE: usize = CHAIN_END + 1;

/// A line that is not the next entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// It does not begin with a chain.
    NotALine,
    /// It is not what was written, or not behind this entry.
    Checksum,
    /// It is whole, but not the next one.
    OutOfOrder {
        /// The sequence number that follows.
        expected: SeqNum,
        /// The one in the line.
        found: SeqNum,
    },
    /// It is whole, but its epoch is older than that of the entry before.
    StaleEpoch {
        /// The epoch of the entry before.
        before: Epoch,
        /// The one in the line.
        found: Epoch,
    },
    /// It is whole, but this version can't read it: newer software wrote it. Holds the parser's reason.
    UnknownForm(String),
}

impl BadLine {
    /// Whether these are not the bytes that were written. Where the checksum is right they are, and must stay.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NotALine | Self::Checksum)
    }
    /// Whether a newer release wrote it: nothing is wrong with the line, but this program must not go on without it.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::UnknownForm(_))
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotALine => f.write_str("not a journal line: it does not begin with a chain"),
            Self::Checksum => {
                f.write_str("the checksum does not match: these are not the bytes that were written here")
            }
            Self::OutOfOrder { expected, found } => write!(f, "entry {found} stands where entry {expected} should"),
            Self::StaleEpoch { before, found } => write!(f, "an entry of epoch {found} stands behind one of {before}"),
            Self::UnknownForm(why) => {
                write!(
                    f,
                    "a newer release of Trade-Net wrote this entry: run that one, or a newer one, here (the checksum is right, but \
                     release {} does not know: {why})",
                    env!("CARGO_PKG_VERSION")
                )
            }
        }
    }
}

impl std::error::Error for BadLine {}

/// Appends the line of `entry`, with its line feed, to `out`; `prev` is the chain of the entry before it. Gives the chain
/// of this one.
pub fn encode(entry: &Entry, prev: Chain, out: &mut Vec<u8>) -> Chain {
    let start = out.len();
    out.extend_from_slice(OPENING);
    out.extend_from_slice(b"................\"");
    if !traded::write(entry, out) {
        serde_json::to_writer(&mut *out, entry).expect("plain data serializes into memory");
    }
    let chain = chain_of(&out[start + BRACE..], prev);
    out[start + OPENING.len()..start + CHAIN_END].copy_from_slice(chain.digits().as_bytes());
    // The entry's brace becomes the comma between the chain and its first field.
    out[start + BRACE] = b',';
    out.push(b'\n');
    chain
}

/// The entry's own JSON object in a line with or without its line feed, as whoever reads the log elsewhere gets it; nothing if it
/// does not begin as a line does. Nothing else is checked: [`decode`] does that.
pub fn object(line: &[u8]) -> Option<Vec<u8>> {
    let mut json = Vec::new();
    open(&mut json, line.strip_suffix(b"\n").unwrap_or(line)).map(|_| json)
}

/// Where a line says that it stands, as [`object`] unchecked: to find a place in a file, from which on lines are [`decode`]d.
pub fn place(line: &[u8]) -> Option<Position> {
    #[derive(serde::Deserialize)]
    struct Place {
        seq: SeqNum,
        epoch: Epoch,
    }
    let mut json = Vec::new();
    let chain = open(&mut json, line)?;
    let Place { seq, epoch } = serde_json::from_slice(&json).ok()?;
    Some(Position { epoch, seq, chain })
}

/// The chain that a line says it has, unchecked; its entry's bytes are in `json` then.
fn open(json: &mut Vec<u8>, line: &[u8]) -> Option<Chain> {
    if !line.starts_with(OPENING) || line.get(CHAIN_END..=BRACE) != Some(b"\",") {
        return None;
    }
    let digits = std::str::from_utf8(&line[OPENING.len()..CHAIN_END]).ok()?;
    let chain = Chain::from_str(digits).ok()?;
    json.clear();
    json.extend_from_slice(&line[BRACE..]);
    json[0] = b'{';
    Some(chain)
}

/// The entry in `line`, which comes without its line feed, and its position; `prev` is that of the entry before.
///
/// # Errors
/// The line is not the entry behind `prev`; the first of the reasons in the order of [`BadLine`], except that a line whose
/// form is not known has no number to check.
pub fn decode(line: &[u8], prev: Position) -> Result<(Entry, Position), BadLine> {
    decode_by(&mut Vec::new(), line, prev)
}

/// The chain of a line that is what was written behind `prev`; its entry's bytes are in `json` then.
fn checked(json: &mut Vec<u8>, line: &[u8], prev: Chain) -> Result<Chain, BadLine> {
    let chain = open(json, line).ok_or(BadLine::NotALine)?;
    if chain_of(json, prev) == chain { Ok(chain) } else { Err(BadLine::Checksum) }
}

/// As [`decode`], with room for the checksummed bytes, which stand nowhere in the line.
fn decode_by(json: &mut Vec<u8>, line: &[u8], prev: Position) -> Result<(Entry, Position), BadLine> {
    let chain = checked(json, line, prev.chain)?;
    // Once for all: read as bytes, each string in it is checked by itself, which takes several times as long.
    let text = std::str::from_utf8(json).map_err(|error| BadLine::UnknownForm(error.to_string()))?;
    let read = traded::read(text).map_or_else(|| serde_json::from_str(text), Ok);
    let entry: Entry = read.map_err(|error| BadLine::UnknownForm(error.to_string()))?;
    if prev.seq.0.checked_add(1) != Some(entry.seq.0) {
        let expected = SeqNum(prev.seq.0.saturating_add(1));
        return Err(BadLine::OutOfOrder { expected, found: entry.seq });
    }
    if entry.epoch < prev.epoch {
        return Err(BadLine::StaleEpoch { before: prev.epoch, found: entry.epoch });
    }
    let position = Position { epoch: entry.epoch, seq: entry.seq, chain };
    Ok((entry, position))
}

/// How far a chain goes on. Made by [`follow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Followed {
    /// So many whole, good lines,
    pub lines: u64,
    /// of so many bytes,
    pub bytes: usize,
    /// with this chain at their end.
    pub chain: Chain,
}

/// Follows the chain through whole lines, from `prev` on, up to the first that is not what was written there; what they say is
/// not read, which takes a tenth of the time of [`scan`].
pub fn follow(bytes: &[u8], prev: Chain) -> Followed {
    let mut scan = scan(bytes, Position { chain: prev, ..Position::default() });
    scan.pass_over(|_| true);
    let Position { seq, chain, .. } = scan.position();
    Followed { lines: seq.0, bytes: bytes.len() - scan.rest().len(), chain }
}

/// An entry that was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The entry.
    pub entry: Entry,
    /// Its position.
    pub position: Position,
    /// The length of its line in bytes, line feed included.
    pub bytes: usize,
}

/// Goes through the whole lines of `bytes`, which stand behind the entry at `prev`; for a file in pieces, put
/// [`Scan::rest`] before the next piece and go on from [`Scan::position`].
pub fn scan(bytes: &[u8], prev: Position) -> Scan<'_> {
    Scan { rest: bytes, prev, bad: None, json: Vec::new() }
}

/// Entries in a row; ends behind the first [`BadLine`] or with the last whole line. Made by [`scan`].
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    rest: &'a [u8],
    prev: Position,
    bad: Option<BadLine>,
    /// See [`decode_by`].
    json: Vec<u8>,
}

impl<'a> Scan<'a> {
    /// What has not been consumed: an incomplete last line, or everything from the bad line on.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    /// Where the last good entry stands.
    pub fn position(&self) -> Position {
        self.prev
    }
    /// Passes over the next lines as long as `passes` holds of their entry's bytes. Their checksums are compared, and no more,
    /// which takes a tenth of the time: the epoch of [`Scan::position`] is that of the last line that was decoded.
    pub fn pass_over(&mut self, mut passes: impl FnMut(&[u8]) -> bool) {
        while self.bad.is_none()
            && let Some(end) = memchr(b'\n', self.rest)
            && let Ok(chain) = checked(&mut self.json, &self.rest[..end], self.prev.chain)
            && passes(&self.json)
        {
            self.prev = Position { seq: self.prev.seq.next(), chain, ..self.prev };
            self.rest = &self.rest[end + 1..];
        }
    }
    /// Once the iterator has ended at the end of a file: whether the rest can be cut, see [`is_torn_tail`]. `false` if
    /// nothing is left.
    pub fn is_torn(&self) -> bool {
        !self.rest.is_empty() && is_torn_tail(self.rest, self.prev)
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Scanned, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bad.is_some() {
            return None;
        }
        let end = memchr(b'\n', self.rest)?;
        match decode_by(&mut self.json, &self.rest[..end], self.prev) {
            Ok((entry, position)) => {
                self.prev = position;
                self.rest = &self.rest[end + 1..];
                Some(Ok(Scanned { entry, position, bytes: end + 1 }))
            }
            Err(bad) => {
                self.bad = Some(bad.clone());
                Some(Err(bad))
            }
        }
    }
}

/// Whether `rest`, the end of a file behind the entry at `prev`, is what a crash left of an append, and so may be cut;
/// otherwise it is damage, and acknowledged entries may be missing.
///
/// An append is one or more lines that nobody was told about before it was synced. A crash keeps any part of it: the file
/// ends at any byte, and blocks that were allocated but not written read as NULs. So torn is: one line that was begun, and
/// nothing behind it but NULs. What has a line feed was whole once, and a second line's beginning means that the line feed
/// before it is what is damaged; so does a whole line with one other byte in its place. This errs on the side of damage: a
/// batch whose *middle* was not written is torn in truth, but looks just like a bad sector among acknowledged entries.
pub fn is_torn_tail(rest: &[u8], prev: Position) -> bool {
    let whole_once = rest.contains(&b'\n');
    let second_opening = rest.iter().skip(1).zip(1..).any(|(&b, at)| b == b'{' && rest[at..].starts_with(OPENING));
    let stray = rest.split_last().is_some_and(|(&last, line)| last != 0 && decode(line, prev).is_ok());
    let in_text = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    !whole_once && !second_opening && !stray && rest[in_text..].iter().all(|&byte| byte == 0)
}

fn chain_of(json: &[u8], prev: Chain) -> Chain {
    Chain(xxh3_64_with_seed(json, prev.0))
}
