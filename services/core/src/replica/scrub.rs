//! Scrubbing: the journal is read again and again, and what has gone bad in it is got back from another replica.
//!
//! Problem: a disk may lose a bit of what nobody has read for months; and once the others have lost theirs of the same line, it is
//! gone. Idea: while the replica runs, it reads the committed part of its journal a little at a time, and follows the chain
//! of checksums from one place that it knows to the next. Where the chain does not arrive, a line is written anew from memory, if
//! its entry is among the newest; else another replica is asked for the lines from the first bad one on, as by one that has missed them, and those that it gives take the place of the own; if
//! the chain breaks once more further on, the next is asked from there. What arrives where it should is written over what
//! was bad. What can't be read is mended like what has rotted; where it can't be written either, it is passed over until the next
//! round. Where nobody has a line, that is told, and all are asked again.
//! Rules kept: what is written there is, byte for byte, what was acknowledged there, or nothing is: the chain's end is known from
//! when the lines were first written or read. What may still be cut is not touched. And a replica goes on meanwhile: what it
//! has applied it has applied from good lines.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tradenet_schemas::ids::{Position, ReplicaId, SeqNum};
use tradenet_schemas::message::Message;
use tradenet_schemas::subjects::Peer;

use super::log::{Log, Place};
use super::{READS_MAX, ReadFor, Replica};
use crate::journal::{Followed, encode, follow, place};
use crate::{DiskRequest, DiskTicket, Mono, Output};

/// Between two parts that are read, of 64 KiB each: some 2.6 GiB a day.
const EVERY: Duration = Duration::from_secs(2);
/// When nobody had the lines, everybody is asked again so much later.
const AGAIN: Duration = Duration::from_secs(5);
/// So often in vain, people are told once more.
const TELL_EVERY: u32 = 60;
/// For so long after a part could not be read or written, look-ups in such parts don't have the scrub go back to them.
const LEFT_ALONE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Stage {
    /// The next part is read then.
    Resting(Mono),
    Reading,
    /// A replica was asked for lines that are bad here.
    Asking(Box<Mending>),
    /// What was given by that replica is being written.
    Writing {
        ticket: DiskTicket,
        giver: ReplicaId,
        to: Place,
    },
}

/// A part in which something is bad.
#[derive(Clone, Debug)]
struct Mending {
    /// Where it ends.
    to: Place,
    /// It, with what others have given.
    bytes: Vec<u8>,
    /// Which of it comes from others.
    given: Range<usize>,
    /// The last line before the first bad one, and where that ends.
    good: Position,
    good_bytes: usize,
    /// Who was asked for those behind it, and when.
    peer: ReplicaId,
    since: Mono,
}

impl Mending {
    /// Puts lines in the place of those behind the last good one, as many as are good there and as there is room for; whether that
    /// leads further.
    fn take(&mut self, lines: &[u8], log: &Log) -> bool {
        let start = self.good_bytes;
        let most = lines.len().min(self.bytes.len() - start);
        let taken = follow(&lines[..of_log(&lines[..most], self.good.seq, log)], self.good.chain).bytes;
        self.bytes[start..start + taken].copy_from_slice(&lines[..taken]);
        self.given.end = self.given.end.max(start + taken);
        let followed = follow(&self.bytes[start..], self.good.chain);
        (self.good, self.good_bytes) = (reached(log, self.good, &followed), start + followed.bytes);
        followed.bytes > 0
    }

    fn is_whole(&self) -> bool {
        self.good_bytes == self.bytes.len() && self.good.chain == self.to.position.chain
    }
}

/// How far the present round is. See the module.
#[derive(Clone, Debug)]
pub(super) struct Scrubbing {
    /// Everything before is good.
    from: Place,
    stage: Stage,
    /// How many were asked in vain for the lines behind `from`.
    tries: usize,
    /// How often nobody had them.
    vain: u32,
    /// The last line that people were told is bad.
    told: SeqNum,
    /// When the last part was passed over, and whether none was good since.
    passed: Option<Mono>,
    in_a_row: bool,
    pub(super) read_bytes: u64,
    pub(super) damages: u64,
    pub(super) repairs: u64,
}

impl Scrubbing {
    pub(super) fn new() -> Self {
        Self {
            from: Place::default(),
            stage: Stage::Resting(Mono(0)),
            tries: 0,
            vain: 0,
            told: SeqNum(0),
            passed: None,
            in_a_row: false,
            read_bytes: 0,
            damages: 0,
            repairs: 0,
        }
    }
}

impl Replica {
    /// Reads the next part when it is time, and asks the next one where an answer is overdue.
    pub(super) fn scrub_tick(&mut self) {
        let now = self.now.mono;
        match self.scrubbing.stage {
            Stage::Resting(until) if now >= until => self.scrub(),
            Stage::Asking(ref mending) if now.since(mending.since) > self.options.times.fetch => self.asked_in_vain(),
            _ => {}
        }
    }

    fn scrub(&mut self) {
        if self.leaving.is_some() || self.giving_up.is_some() || self.reads.len() >= READS_MAX {
            return;
        }
        let from = self.scrubbing.from;
        let Some(to) = self.log.part_behind(from, self.committed.min(self.durable())) else {
            // All of it is read. The next round begins.
            self.scrubbing.from = Place::default();
            self.scrubbing.stage = Stage::Resting(self.now.mono.after(EVERY));
            return;
        };
        self.scrubbing.stage = Stage::Reading;
        self.read(ReadFor::Scrub(to), from.end, length(from, to));
    }

    /// The lines between the last good place and `to`, as they are on the disk.
    pub(super) fn scrub_read(&mut self, to: Place, bytes: &[u8]) {
        let from = self.scrubbing.from;
        self.scrubbing.read_bytes += bytes.len() as u64;
        let followed = follow(bytes, from.position.chain);
        if arrives(&followed, from, to) {
            if self.scrubbing.told != SeqNum(0) {
                let text = format!("orders.jsonl is good again at line {}, by itself", self.scrubbing.told);
                self.outputs.push_back(Output::info(text));
                (self.scrubbing.tries, self.scrubbing.vain, self.scrubbing.told) = (0, 0, SeqNum(0));
            }
            self.scrubbing.in_a_row = false;
            self.go_on_behind(to);
            return;
        }
        let good = reached(&self.log, from.position, &followed);
        let (line, byte) = (good.seq.next(), from.end + followed.bytes as u64);
        if self.scrubbing.told != line {
            self.scrubbing.told = line;
            self.scrubbing.damages += 1;
            self.outputs.push_back(Output::warn(format!(
                "orders.jsonl has rotted at line {line}, byte {byte}: these are not the bytes that were written. They are got \
                 back, and trading goes on. Look at this disk"
            )));
        }
        self.mend(to, bytes, good, followed.bytes);
    }

    /// A part could not be read. It is written anew like what has rotted: a disk has another sector for a bad one that is written.
    pub(super) fn scrub_not_read(&mut self, to: Place, why: &str) {
        let Place { position: good, end: byte, .. } = self.scrubbing.from;
        let line = good.seq.next();
        if self.scrubbing.told != line {
            self.scrubbing.told = line;
            self.scrubbing.damages += 1;
            self.tell_of_row(format!(
                "orders.jsonl can't be read at line {line}, byte {byte}: {why}. What stands there is got back, and trading goes on. \
                 Look at this disk"
            ));
        }
        self.mend(to, &[], good, 0);
    }

    /// People are told of the first of several parts in a row: an archive that has gone is news once.
    fn tell_of_row(&mut self, text: String) {
        self.outputs.push_back(if self.scrubbing.in_a_row { Output::debug(text) } else { Output::warn(text) });
    }

    fn go_on_behind(&mut self, to: Place) {
        self.scrubbing.from = to;
        self.scrubbing.stage = Stage::Resting(self.now.mono.after(EVERY));
    }

    fn mend(&mut self, to: Place, bytes: &[u8], good: Position, good_bytes: usize) {
        let mut bytes = bytes.to_vec();
        // It may have lost its end.
        bytes.resize(length(self.scrubbing.from, to), 0);
        let (peer, since) = (self.options.id, self.now.mono);
        let mending = Mending { to, bytes, given: good_bytes..good_bytes, good, good_bytes, peer, since };
        self.mend_from_memory(Box::new(mending));
    }

    /// The newest entries are in memory, and an entry is one line and no other: so a line that nobody else has yet is not lost.
    fn mend_from_memory(&mut self, mut mending: Box<Mending>) {
        let mut line = Vec::new();
        while let Some(entry) = self.log.entry(mending.good.seq.next()) {
            line.clear();
            encode(entry, mending.good.chain, &mut line);
            if !mending.take(&line, &self.log) {
                break;
            }
            if mending.is_whole() {
                return self.rewrite(&mending, self.options.id);
            }
        }
        self.ask_for_lines(mending);
    }

    fn rewrite(&mut self, mending: &Mending, giver: ReplicaId) {
        let (ticket, offset) = (self.disk.ticket(), self.scrubbing.from.end + mending.given.start as u64);
        let lines = Bytes::copy_from_slice(&mending.bytes[mending.given.clone()]);
        self.scrubbing.stage = Stage::Writing { ticket, giver, to: mending.to };
        self.outputs.push_back(Output::Disk(DiskRequest::Rewrite { ticket, offset, lines }));
    }

    fn ask_for_lines(&mut self, mut mending: Box<Mending>) {
        let mut others = self.options.members.iter().filter(|&&id| id != self.options.id);
        let Some(&peer) = others.nth(self.scrubbing.tries) else {
            if self.scrubbing.vain.is_multiple_of(TELL_EVERY) {
                let (first, last) = (mending.good.seq.next(), mending.to.position.seq);
                self.outputs.push_back(Output::warn(format!(
                    "no other replica has line {first} of orders.jsonl whole at present, nor has this one; those behind it up to {last} \
                     are not known to be good. They are asked again and again; what this replica has applied is right, but do not stop it \
                     before its journal is repaired"
                )));
            }
            self.scrubbing.vain += 1;
            self.scrubbing.tries = 0;
            self.scrubbing.stage = Stage::Resting(self.now.mono.after(AGAIN));
            return;
        };
        (mending.peer, mending.since) = (peer, self.now.mono);
        self.send(Peer::Order(peer), Message::Fetch { from: mending.good, bytes_max: None });
        self.scrubbing.stage = Stage::Asking(mending);
    }

    /// Who was asked has nothing that helps.
    fn asked_in_vain(&mut self) {
        if let Some(mending) = self.stop_asking() {
            self.scrubbing.tries += 1;
            self.ask_for_lines(mending);
        }
    }

    fn stop_asking(&mut self) -> Option<Box<Mending>> {
        match std::mem::replace(&mut self.scrubbing.stage, Stage::Reading) {
            Stage::Asking(mending) => Some(mending),
            other => {
                self.scrubbing.stage = other;
                None
            }
        }
    }

    pub(super) fn scrub_peer_is_gone(&mut self, id: ReplicaId) {
        if matches!(&self.scrubbing.stage, Stage::Asking(mending) if mending.peer == id) {
            self.asked_in_vain();
        }
    }

    /// Lines that were asked for here; `false` if they are for somebody else.
    pub(super) fn scrub_chunk(&mut self, sender: ReplicaId, asked: Position, prev: Position, lines: &[u8]) -> bool {
        let Stage::Asking(mending) = &mut self.scrubbing.stage else { return false };
        if mending.peer != sender || asked != mending.good {
            return false;
        }
        if prev != asked || !mending.take(lines, &self.log) {
            self.asked_in_vain();
        } else if let Some(mending) = self.stop_asking() {
            if mending.is_whole() {
                self.rewrite(&mending, sender);
            } else {
                self.scrubbing.tries = 0;
                self.ask_for_lines(mending);
            }
        }
        true
    }

    /// The disk has done something; perhaps it has written good lines over bad ones. They are read once more before they count.
    pub(super) fn rewritten(&mut self, ticket: DiskTicket) {
        match self.scrubbing.stage {
            Stage::Writing { ticket: asked, giver: peer, .. } if asked == ticket => {
                self.scrubbing.repairs += 1;
                let line = self.scrubbing.told;
                let giver = if peer == self.options.id { "memory".to_owned() } else { format!("order-{peer}") };
                let text = format!("orders.jsonl is repaired at line {line}, from {giver}");
                self.outputs.push_back(Output::info(text));
                (self.scrubbing.tries, self.scrubbing.vain, self.scrubbing.told) = (0, 0, SeqNum(0));
                self.scrubbing.stage = Stage::Resting(self.now.mono.after(EVERY));
            }
            _ => {}
        }
    }

    /// What was got back can't be written where it belongs: an archive is away. The rest of the journal is not left alone for that.
    pub(super) fn not_rewritten(&mut self, ticket: DiskTicket, why: &str) {
        match self.scrubbing.stage {
            Stage::Writing { ticket: asked, to, .. } if asked == ticket => {
                self.tell_of_row(format!(
                    "what was got back of orders.jsonl at line {} can't be written: {why}. It is passed over, and so are others like \
                     it; they are tried again in the next round",
                    self.scrubbing.told
                ));
                (self.scrubbing.tries, self.scrubbing.vain, self.scrubbing.told) = (0, 0, SeqNum(0));
                (self.scrubbing.passed, self.scrubbing.in_a_row) = (Some(self.now.mono), true);
                self.go_on_behind(to);
            }
            _ => {}
        }
    }

    /// Somebody else could not read there. One that can't be mended now is left alone for a while, however often it is asked for.
    pub(super) fn scrub_unread(&mut self, byte: u64) {
        if self.scrubbing.passed.is_none_or(|passed| self.now.mono.since(passed) >= LEFT_ALONE) {
            self.scrub_from(byte);
        }
    }

    /// Somebody else has found bad lines. Whether they are repaired here: they are committed, so that others have them.
    pub(super) fn scrub_from(&mut self, byte: u64) -> bool {
        let safe = self.log.place_at_or_before(self.committed.min(self.durable()));
        if byte >= safe.end {
            return false;
        }
        if matches!(self.scrubbing.stage, Stage::Resting(_)) {
            self.scrubbing.from = self.log.mark_within(byte);
            self.scrubbing.stage = Stage::Resting(self.now.mono);
        }
        true
    }
}

fn length(from: Place, to: Place) -> usize {
    usize::try_from(to.end - from.end).unwrap_or(usize::MAX)
}

/// So many bytes of lines behind entry `from` are of the log's own epochs, and so of its entries (R2). Whoever was asked may have
/// others behind them, which were never committed and lead elsewhere.
fn of_log(lines: &[u8], from: SeqNum, log: &Log) -> usize {
    let of_log = |(line, seq): &(&[u8], u64)| place(line).is_some_and(|at| at.epoch == log.epoch(SeqNum(*seq)));
    lines.split_inclusive(|&byte| byte == b'\n').zip(from.0 + 1..).take_while(of_log).map(|(line, _)| line.len()).sum()
}

/// The last good line behind `from`.
fn reached(log: &Log, from: Position, followed: &Followed) -> Position {
    let seq = SeqNum(from.seq.0 + followed.lines);
    Position { epoch: log.epoch(seq), seq, chain: followed.chain }
}

/// Whether lines lead from one place to the other.
fn arrives(followed: &Followed, from: Place, to: Place) -> bool {
    followed.bytes == length(from, to) && followed.chain == to.position.chain
}
