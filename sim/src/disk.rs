//! The disk of a replica.
//!
//! Problem: what a process wrote and what is there after a crash are two things; the protocol rests on the difference.
//! Idea: requests wait in order and take effect when they are done. A crash keeps any number of the waiting ones whole, and
//! of the next append any prefix of bytes, or zeros in place of the rest.
//! Snapshots are made beside the other requests, by core's own code, and a crash leaves one whole or not at all. A read begins when
//! what was asked for before it is done, and is answered before or after what comes behind it.
//! The journal is one file here. That the runtime keeps it in segments shows in nothing but what can be lost of it: one of them, or the end of
//! one. A segment's place is known from the next one's name, so what is missing reads as NUL bytes; only the last before the newest has no
//! such neighbour, and what is behind it comes nearer when the files are opened again.
//! Rule kept: what was answered with "done" survives every crash (invariant S7 is checked against exactly that).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tradenet_core::journal::follow;
use tradenet_core::replica::snapshot::{Header, MakeError, Making, SNAPSHOTS_MAX, Snapshot, SnapshotPart};
use tradenet_core::{DiskAnswer, DiskRequest};
use tradenet_schemas::ids::{Chain, Epoch, Position, SeqNum, StoreId};
use tradenet_schemas::message::Configuration;

use crate::marks;

/// How long a read takes at least, and one in eight at most, in microseconds.
const READING_US: std::ops::Range<u64> = 30..30_000;
/// How long it takes at most to make a snapshot, but for its syncs, in microseconds.
const MAKING_US_MAX: u64 = 50_000;

/// A whole line of the journal.
#[derive(Clone, Copy, Debug)]
struct Line {
    end: usize,
    position: Position,
}

/// What the next operation of a kind comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fails {
    /// A write, or its sync: so many bytes of it are in the file.
    Write {
        /// At most.
        kept: usize,
    },
    /// A read.
    Read,
}

/// One directory on one disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The directory's identity.
    pub store: StoreId,
    /// How many of the newest orders a snapshot has.
    orders_kept: usize,
    /// The journal.
    pub file: Vec<u8>,
    /// The snapshots' files, by their last entries.
    pub snapshots: BTreeMap<u64, Vec<u8>>,
    /// The configuration file.
    pub configuration: Option<Configuration>,
    /// No append finds room.
    pub full: bool,
    /// The next operation of that kind fails.
    pub fails: Option<Fails>,
    /// A bit of the journal was flipped, in this byte.
    pub flipped: Option<usize>,
    /// What the last segment before the newest has lost: its end.
    shortened: Option<Range<usize>>,
    /// A bit of the configuration file was flipped.
    pub configuration_flipped: bool,
    /// How long a sync takes, in microseconds.
    pub sync_us: u64,
    /// Appends fail until the next cut, as the file's end is not known.
    refusing: bool,
    /// A sync has failed: nothing more is done for this process.
    broken: bool,
    lines: Vec<Line>,
    waiting: VecDeque<(u64, DiskRequest)>,
    /// What is done beside them, and when.
    beside: VecDeque<(u64, DiskRequest)>,
    /// What is read beside them, when, and how many of them are to be done before.
    reads: Vec<(u64, usize, DiskRequest)>,
    busy_until: u64,
}

impl Disk {
    /// An empty directory.
    pub fn new(store: StoreId, sync_us: u64, orders_kept: usize) -> Self {
        Self {
            store,
            orders_kept,
            file: Vec::new(),
            snapshots: BTreeMap::new(),
            configuration: None,
            full: false,
            fails: None,
            flipped: None,
            shortened: None,
            configuration_flipped: false,
            sync_us,
            refusing: false,
            broken: false,
            lines: Vec::new(),
            waiting: VecDeque::new(),
            beside: VecDeque::new(),
            reads: Vec::new(),
            busy_until: 0,
        }
    }

    /// The position of an entry that is on disk.
    pub fn position(&self, seq: SeqNum) -> Option<Position> {
        let index = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.lines.get(index).map(|line| line.position)
    }

    /// The journal up to and including that entry.
    pub fn journal_up_to(&self, seq: SeqNum) -> Option<&[u8]> {
        let index = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.lines.get(index).map(|line| &self.file[..line.end])
    }

    /// How many entries are on disk.
    pub fn entries(&self) -> SeqNum {
        SeqNum(self.lines.len() as u64)
    }

    /// Takes a request, which may be a read that is carried out beside others; when it will be done.
    pub fn ask_beside(&mut self, now: u64, request: DiskRequest, rng: &mut Rng) -> u64 {
        if !is_read(&request) {
            return self.ask(now, request, rng);
        }
        let took = if rng.u8(..) < 32 { rng.u64(READING_US) } else { READING_US.start };
        let due = self.busy_until.max(now) + took;
        self.reads.push((due, self.waiting.len(), request));
        due
    }

    /// Takes a request, and has it carried out in its turn; when it will be done.
    pub fn ask(&mut self, now: u64, request: DiskRequest, rng: &mut Rng) -> u64 {
        let idle = self.busy_until <= now;
        if matches!(
            request,
            DiskRequest::MakeSnapshot { .. } | DiskRequest::SaveSnapshot { .. } | DiskRequest::DropSnapshots { .. }
        ) {
            let before = self.beside.back().map_or(now, |(due, _)| *due);
            let due = before.max(now) + self.sync_us * 2 + rng.u64(0..MAKING_US_MAX);
            self.beside.push_back((due, request));
            return due;
        }
        let took = match &request {
            read if is_read(read) => 30,
            // Behind another append it shares the sync.
            DiskRequest::Append { .. } if !idle => self.sync_us / 4 + rng.u64(1..50),
            _ => self.sync_us + rng.u64(0..=self.sync_us / 2 + 1),
        };
        self.busy_until = self.busy_until.max(now) + took;
        self.waiting.push_back((now, request));
        self.busy_until
    }

    /// Nothing is wrong with it any more; when each of the requests that wait will be done.
    pub fn mend(&mut self, now: u64, sync_us: u64) -> Vec<u64> {
        (self.full, self.fails, self.sync_us) = (false, None, sync_us);
        let done: Vec<u64> = (1..).take(self.waiting.len()).map(|turn| now + turn * sync_us).collect();
        self.busy_until = done.last().copied().unwrap_or(now);
        done
    }

    /// Carries out the oldest request, or what is due beside those.
    pub fn carry_out(&mut self, now: u64) -> Option<DiskAnswer> {
        if let Some((_, request)) = self.beside.pop_front_if(|(due, _)| *due <= now) {
            return Some(self.do_beside(&request));
        }
        if let Some(index) = self.reads.iter().position(|(due, behind, _)| *due <= now && *behind == 0) {
            let (_, _, request) = self.reads.remove(index);
            return Some(self.read(&request));
        }
        let (asked, request) = self.waiting.pop_front()?;
        for (_, behind, _) in &mut self.reads {
            *behind = behind.saturating_sub(1);
        }
        let took = Duration::from_micros(now.saturating_sub(asked));
        Some(match request {
            ref read if is_read(read) => self.read(read),
            DiskRequest::Append { ticket, .. }
            | DiskRequest::Cut { ticket, .. }
            | DiskRequest::GiveUp { ticket, .. }
            | DiskRequest::Rewrite { ticket, .. }
            | DiskRequest::Persist { ticket, .. }
                if self.broken =>
            {
                let why = "not tried: an earlier sync has failed".to_owned();
                DiskAnswer::Broken { ticket, why }
            }
            DiskRequest::Append { ticket, .. } if self.full || self.refusing => {
                self.refusing = true;
                DiskAnswer::Full { ticket }
            }
            ref failed @ (DiskRequest::Append { ticket, .. }
            | DiskRequest::Cut { ticket, .. }
            | DiskRequest::GiveUp { ticket, .. }
            | DiskRequest::Rewrite { ticket, .. }
            | DiskRequest::Persist { ticket, .. })
                if let Some(Fails::Write { kept }) = self.fails =>
            {
                self.fails = None;
                self.broken = true;
                match failed {
                    DiskRequest::Append { lines, .. } => self.append(&lines[..kept.min(lines.len())]),
                    DiskRequest::Rewrite { offset, lines, .. } => {
                        self.rewrite(*offset, &lines[..kept.min(lines.len())]);
                    }
                    _ => {}
                }
                let why = "fdatasync: Input/output error (os error 5)".to_owned();
                DiskAnswer::Broken { ticket, why }
            }
            request => {
                let ticket = self.take_effect(&request);
                DiskAnswer::Done { ticket, took }
            }
        })
    }

    fn read(&mut self, request: &DiskRequest) -> DiskAnswer {
        match *request {
            DiskRequest::Read { ticket, .. }
            | DiskRequest::LoadSnapshot { ticket, .. }
            | DiskRequest::ReadSnapshot { ticket, .. }
                if self.fails == Some(Fails::Read) =>
            {
                self.fails = None;
                DiskAnswer::Failed { ticket, why: "Input/output error (os error 5)".to_owned() }
            }
            DiskRequest::Read { ticket, offset, bytes_max } => {
                let bytes = Bytes::copy_from_slice(piece(&self.file, offset, bytes_max));
                DiskAnswer::Read { ticket, bytes }
            }
            DiskRequest::LoadSnapshot { ticket, skip } => {
                let file = self.snapshots.iter().rev().nth(skip);
                let file = file.map(|(seq, file)| (format!("snapshot-{seq}"), Bytes::copy_from_slice(file)));
                DiskAnswer::Loaded { ticket, file }
            }
            DiskRequest::ReadSnapshot { ticket, seq, offset, bytes_max } => {
                let newest = || self.snapshots.last_key_value().map(|(_, file)| file);
                let file = seq.map_or_else(newest, |seq| self.snapshots.get(&seq.0));
                let part = file.and_then(|file| {
                    let bytes = Bytes::copy_from_slice(piece(file, offset, bytes_max));
                    Header::read(file).map(|header| SnapshotPart { header, size_bytes: file.len() as u64, bytes })
                });
                DiskAnswer::SnapshotRead { ticket, part }
            }
            _ => unreachable!("nothing else is only read"),
        }
    }

    fn take_effect(&mut self, request: &DiskRequest) -> u64 {
        match request {
            DiskRequest::Append { ticket, lines } => {
                self.append(lines);
                *ticket
            }
            DiskRequest::Cut { ticket, bytes } => {
                self.refusing = false;
                self.cut(usize::try_from(*bytes).unwrap_or(usize::MAX));
                *ticket
            }
            DiskRequest::GiveUp { ticket, store, bytes } => {
                self.store = *store;
                self.drop_snapshots(*bytes);
                self.cut(usize::try_from(*bytes).unwrap_or(usize::MAX));
                *ticket
            }
            DiskRequest::Rewrite { ticket, offset, lines } => {
                self.rewrite(*offset, lines);
                *ticket
            }
            DiskRequest::Persist { ticket, configuration } => {
                self.configuration_flipped = false;
                self.configuration = Some((**configuration).clone());
                *ticket
            }
            DiskRequest::Read { ticket, .. }
            | DiskRequest::LoadSnapshot { ticket, .. }
            | DiskRequest::ReadSnapshot { ticket, .. }
            | DiskRequest::SaveSnapshot { ticket, .. }
            | DiskRequest::MakeSnapshot { ticket, .. }
            | DiskRequest::DropSnapshots { ticket, .. } => *ticket,
        }
    }

    fn do_beside(&mut self, request: &DiskRequest) -> DiskAnswer {
        match *request {
            DiskRequest::SaveSnapshot { ticket, seq, ref file } => {
                if self.full || self.broken {
                    let error = MakeError::Io("No space left on device (os error 28)".to_owned());
                    return DiskAnswer::NoSnapshot { ticket, error };
                }
                self.keep(seq, file.to_vec());
                DiskAnswer::Done { ticket, took: Duration::ZERO }
            }
            DiskRequest::DropSnapshots { ticket, bytes } => {
                self.drop_snapshots(bytes);
                DiskAnswer::Done { ticket, took: Duration::ZERO }
            }
            DiskRequest::MakeSnapshot { ticket, until } => match self.make_snapshot(until) {
                Ok((seq, size_bytes)) => DiskAnswer::SnapshotMade { ticket, seq, size_bytes, took: Duration::ZERO },
                Err(error) => DiskAnswer::NoSnapshot { ticket, error },
            },
            _ => unreachable!("nothing else is done beside"),
        }
    }

    /// As the runtime does it.
    fn make_snapshot(&mut self, until: u64) -> Result<(SeqNum, u64), MakeError> {
        if self.full || self.broken {
            return Err(MakeError::Io("No space left on device (os error 28)".to_owned()));
        }
        let range = |offset: u64, bytes_max: usize| piece(&self.file, offset, bytes_max).to_vec();
        let of_journal = |snapshot: &Snapshot| {
            let (offset, length) = snapshot.last_line();
            snapshot.is_of(&range(offset, length))
        };
        let mut bad = Vec::new();
        let mut before = None;
        for (seq, file) in self.snapshots.iter().rev() {
            match Snapshot::decode(file).ok().filter(of_journal) {
                Some(good) if before.is_none() && good.bytes() < until => before = Some(good),
                Some(_) => {}
                None => bad.push(*seq),
            }
        }
        let making = Making::keeping(before, until, self.orders_kept);
        let made = making.run(&mut |offset, bytes_max| Ok(range(offset, bytes_max)))?;
        self.snapshots.retain(|seq, _| !bad.contains(seq));
        let (seq, file) = (made.position().seq, made.encode());
        let size = file.len() as u64;
        self.keep(seq, file);
        Ok((seq, size))
    }

    fn keep(&mut self, seq: SeqNum, file: Vec<u8>) {
        self.snapshots.insert(seq.0, file);
        while self.snapshots.len() > SNAPSHOTS_MAX {
            self.snapshots.pop_first();
        }
    }

    fn drop_snapshots(&mut self, bytes: u64) {
        self.snapshots.retain(|_, file| Header::read(file).is_some_and(|header| header.bytes <= bytes));
    }

    fn append(&mut self, bytes: &[u8]) {
        self.file.extend_from_slice(bytes);
        self.index();
    }

    fn rewrite(&mut self, offset: u64, lines: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        self.file[start..start + lines.len()].copy_from_slice(lines);
        // One flip is known of several.
        let good = follow(&self.file, Chain(0)).bytes;
        self.flipped = self.flipped.map(|_| good).filter(|&at| self.lines.last().is_some_and(|line| at < line.end));
    }

    /// Cuts the file, as a request or a repairing hand would.
    pub fn cut(&mut self, bytes: usize) {
        self.file.truncate(bytes);
        self.flipped = self.flipped.filter(|&at| at < bytes);
        self.shortened = self.shortened.take().filter(|lost| lost.end <= bytes);
        while self.lines.last().is_some_and(|line| line.end > self.file.len()) {
            self.lines.pop();
        }
    }

    /// Whether everything in it is as it was written.
    pub fn is_good(&self) -> bool {
        self.flipped.is_none() && !self.configuration_flipped
    }

    /// A bit goes bad: in the last record, in any, or in the configuration file. `false` if there is nothing to harm.
    pub fn flip(&mut self, rng: &mut Rng) -> bool {
        let kind = rng.u8(0..3);
        if kind == 2 {
            self.configuration_flipped = self.configuration.is_some();
            return self.configuration_flipped;
        }
        let line = if kind == 0 { self.lines.len().saturating_sub(1) } else { rng.usize(0..self.lines.len().max(1)) };
        let Some(end) = self.lines.get(line).map(|line| line.end) else { return false };
        let start = line.checked_sub(1).map_or(0, |before| self.lines[before].end);
        let at = rng.usize(start..end);
        self.file[at] ^= 1 << rng.u8(0..8);
        self.rots(at);
        true
    }

    /// Of all that has rotted the first byte is known.
    fn rots(&mut self, at: usize) {
        self.flipped = Some(self.flipped.map_or(at, |known| known.min(at)));
    }

    /// Where the segments behind the newest are, if one ends with the line that reaches the next multiple of so many bytes.
    fn segments(&self, every: usize) -> Vec<Range<usize>> {
        let (mut segments, mut start, mut before) = (Vec::new(), 0, 0);
        for line in &self.lines {
            if before / every != line.end / every {
                segments.push(start..line.end);
                start = line.end;
            }
            before = line.end;
        }
        segments
    }

    /// A segment is lost, or the end of one; which bytes. Only one behind which there is a committed line: else what is lost would look as
    /// if it had never been written. `None` if there is none.
    pub fn lose_segment(&mut self, every: usize, committed: SeqNum, rng: &mut Rng) -> Option<Range<usize>> {
        let committed = self.journal_up_to(committed)?.len();
        let segments = self.segments(every);
        let safe = segments.iter().filter(|segment| segment.end < committed).count();
        let which = rng.usize(0..safe.max(1));
        let Range { start, end } = segments[..safe].get(which)?.clone();
        let lost = if rng.bool() { start } else { rng.usize(start..end) }..end;
        self.file[lost.clone()].fill(0);
        self.rots(lost.start);
        self.shortened = (which + 1 == segments.len()).then(|| lost.clone());
        Some(lost)
    }

    /// A process opens the files; whether it finds the last segment before the newest without its end, and what is behind nearer by that.
    pub fn open(&mut self, every: usize) -> bool {
        let Some(lost) = self.shortened.take() else { return false };
        let is_last = self.segments(every).last().is_some_and(|segment| segment.end == lost.end);
        // What was got back meanwhile is there.
        let missing = self.file[lost.clone()].iter().rev().take_while(|byte| **byte == 0).count();
        if is_last && missing > 0 {
            self.file.drain(lost.end - missing..lost.end);
        }
        is_last && missing > 0
    }

    /// A bit of a snapshot goes bad, of which nothing can be lost. `false` if there is none.
    pub fn flip_snapshot(&mut self, rng: &mut Rng) -> bool {
        let which = rng.usize(0..self.snapshots.len().max(1));
        let Some(file) = self.snapshots.values_mut().nth(which) else { return false };
        let at = rng.usize(0..file.len());
        file[at] ^= 1 << rng.u8(0..8);
        true
    }

    /// Finds the whole lines behind the last known one. Only what a replica wrote is looked at, so little is checked.
    fn index(&mut self) {
        let mut start = self.lines.last().map_or(0, |line| line.end);
        while let Some(length) = self.file[start..].iter().position(|&byte| byte == b'\n') {
            let end = start + length + 1;
            let Some(position) = position_of(&self.file[start..end]) else { return };
            if position.seq.0 != self.lines.len() as u64 + 1 {
                return;
            }
            self.lines.push(Line { end, position });
            start = end;
        }
    }

    /// What it carries out next.
    pub fn next(&self) -> Option<&DiskRequest> {
        self.waiting.front().map(|(_, request)| request)
    }

    /// The process is killed: all of what it asked for has happened, or nothing of it.
    pub fn crash_with(&mut self, all: bool) {
        let waiting = std::mem::take(&mut self.waiting);
        self.busy_until = 0;
        self.beside.clear();
        self.reads.clear();
        for (_, request) in waiting.iter().filter(|_| all) {
            self.take_effect(request);
        }
        self.refusing = false;
    }

    /// The machine loses power, or the process is killed: of what was not answered yet any part has happened. What was lost,
    /// by its mark.
    pub fn crash(&mut self, rng: &mut Rng) -> Option<&'static str> {
        for (_, request) in std::mem::take(&mut self.beside) {
            if rng.bool() {
                self.do_beside(&request);
            }
        }
        self.reads.clear();
        let whole = rng.usize(0..=self.waiting.len());
        let mut waiting = std::mem::take(&mut self.waiting);
        self.busy_until = 0;
        let idle = self.full || self.refusing || matches!(self.fails, Some(Fails::Write { .. })) || self.broken;
        (self.fails, self.broken) = (None, false);
        if idle {
            self.refusing = false;
            return None;
        }
        for (_, request) in waiting.drain(..whole) {
            self.take_effect(&request);
        }
        self.refusing = false;
        let mut lost = (!waiting.is_empty()).then_some(marks::UNSYNCED);
        if let Some((_, DiskRequest::Append { lines, .. })) = waiting.pop_front() {
            let kept = rng.usize(0..lines.len());
            self.append(&lines[..kept]);
            if kept > 0 {
                lost = Some(marks::TORN);
            }
            if rng.u8(..) < 40 {
                // Blocks that were allocated but never written.
                let zeros = rng.usize(0..=lines.len() - kept);
                self.file.resize(self.file.len() + zeros, 0);
                lost = Some(marks::ZEROS);
            }
        }
        lost
    }
}

/// So many bytes of a file, or as many as there are.
fn piece(file: &[u8], offset: u64, bytes_max: usize) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
    &file[start..start.saturating_add(bytes_max).min(file.len())]
}

/// Whether nothing is changed by it.
pub fn is_read(request: &DiskRequest) -> bool {
    matches!(request, DiskRequest::Read { .. } | DiskRequest::LoadSnapshot { .. } | DiskRequest::ReadSnapshot { .. })
}

/// Reads what stands at the start of a line: see `tradenet_core::journal`.
fn position_of(line: &[u8]) -> Option<Position> {
    let text = std::str::from_utf8(line).ok()?;
    let rest = text.strip_prefix("{\"chain\":\"")?;
    let chain = u64::from_str_radix(rest.get(..16)?, 16).ok()?;
    let (seq, rest) = number(rest.get(16..)?.strip_prefix("\",\"seq\":")?)?;
    let (epoch, _) = number(rest.strip_prefix(",\"epoch\":")?)?;
    Some(Position { epoch: Epoch(epoch), seq: SeqNum(seq), chain: Chain(chain) })
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, &text[end..]))
}
