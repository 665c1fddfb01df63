//! Snapshots kept: which one a start begins with, and when the next is made.
//!
//! Problem: a start must not take longer each day, and must not believe a file that is not what it seems.
//! Idea: at the start the newest snapshot is read, and the line of the journal with which it ends; where either is not as it
//! should be, the one before, and in the end the journal from its first byte. While the replica runs, the disk is asked for
//! the next snapshot as soon as the committed part of the journal has passed a multiple of
//! [`Options::snapshot_every_bytes`](super::Options::snapshot_every_bytes), and makes it beside everything else.
//! Rules kept: nothing waits for a snapshot but a start. What is in one is committed and on this disk, so it is never cut. And
//! where the journal proves to be damaged before a snapshot's end, that snapshot is removed before the process ends, so that
//! the next start reads what is damaged, and gives it up (rule R9).

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use tradenet_schemas::ids::{Position, SeqNum};

use super::snapshot::{BadSnapshot, MakeError, Snapshot};
use super::{READ_BYTES_MAX, ReadFor, Replica};
use crate::{DiskRequest, DiskTicket, Output};

/// What is under way, and known, of snapshots.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    every_bytes: u64,
    /// Up to this byte of the journal there is a snapshot, or it was tried.
    tried: u64,
    making: Option<DiskTicket>,
    /// One that was taken over from a peer is being written.
    saving: Option<(DiskTicket, SeqNum, u64)>,
    /// The snapshots that can't be right any more are being removed; then the process ends, for this reason.
    dropping: Option<(DiskTicket, String)>,
    newest: SeqNum,
    size_bytes: u64,
    faults: u64,
}

impl Keeping {
    pub(super) fn new(every_bytes: u64) -> Self {
        assert!(every_bytes > 0, "a snapshot is made for some bytes of the journal");
        let (newest, size_bytes, faults) = (SeqNum(0), 0, 0);
        Self { every_bytes, tried: 0, making: None, saving: None, dropping: None, newest, size_bytes, faults }
    }

    /// The last entry in the newest snapshot.
    pub(super) fn newest(&self) -> SeqNum {
        self.newest
    }

    /// The size of the last one that was made.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How many could not be used or made.
    pub(super) fn faults(&self) -> u64 {
        self.faults
    }
}

impl Replica {
    /// Looks for a snapshot that spares reading the journal.
    pub(super) fn load_snapshot(&mut self, skip: usize) {
        let ticket = self.disk.ticket();
        self.reads.push((ticket, ReadFor::Snapshot(skip)));
        self.outputs.push_back(Output::Disk(DiskRequest::LoadSnapshot { ticket, skip }));
    }

    pub(super) fn looks_for_snapshot(&self) -> bool {
        self.reads.iter().any(|(_, why)| matches!(why, ReadFor::Snapshot(_) | ReadFor::LastLine(..)))
    }

    pub(super) fn snapshot_loaded(&mut self, ticket: DiskTicket, file: Option<(String, Bytes)>) {
        let Some(index) = self.reads.iter().position(|(asked, _)| *asked == ticket) else { return };
        let ReadFor::Snapshot(skip) = self.reads.swap_remove(index).1 else { return };
        let Some((name, bytes)) = file else {
            return self.go_on_without();
        };
        match Snapshot::decode(&bytes) {
            Ok(snapshot) if snapshot.bytes() > self.disk.confirmed() => {
                self.pass_over(&name, &BadSnapshot::OtherJournal, skip);
            }
            Ok(snapshot) => {
                let (offset, length) = snapshot.last_line();
                self.read(ReadFor::LastLine(Box::new(snapshot), skip), offset, length);
            }
            Err(why) => self.pass_over(&name, &why, skip),
        }
    }

    pub(super) fn last_line_read(&mut self, snapshot: Snapshot, skip: usize, line: &[u8]) {
        if !snapshot.is_of(line) {
            return self.pass_over(&snapshot.name(), &BadSnapshot::OtherJournal, skip);
        }
        let (position, bytes) = (snapshot.position(), snapshot.bytes());
        if self.starting.is_some() {
            self.outputs.push_back(Output::info(format!("starting from the snapshot of entry {}", position.seq)));
            (self.log, self.state) = snapshot.into_parts();
            self.committed = position.seq;
            self.starting = Some((bytes, Vec::new()));
            (self.keeping.newest, self.keeping.tried) = (position.seq, bytes - bytes % self.keeping.every_bytes);
            self.read(ReadFor::Start, bytes, READ_BYTES_MAX);
        } else if self.log.contains(position) && self.state.exchange.applied() < position.seq {
            self.outputs.push_back(Output::debug(format!("going back to the snapshot of entry {}", position.seq)));
            (_, self.state) = snapshot.into_parts();
            self.dirty = true;
        }
    }

    /// The directory can't be looked at. Without any it takes longer, no more.
    pub(super) fn snapshots_not_read(&mut self, why: &str) {
        self.keeping.faults += 1;
        self.outputs
            .push_back(Output::warn(format!("snapshots can't be looked for: {why}. Nothing is lost, only time")));
        self.go_on_without();
    }

    pub(super) fn pass_over(&mut self, name: &str, why: &impl Display, skip: usize) {
        self.keeping.faults += 1;
        self.outputs.push_back(Output::warn(format!("{name} is passed over: {why}. Nothing is lost, only time")));
        self.load_snapshot(skip + 1);
    }

    /// There is no (other) snapshot: from the first byte.
    fn go_on_without(&mut self) {
        if self.starting.is_some() {
            self.read(ReadFor::Start, 0, READ_BYTES_MAX);
        }
        self.dirty = true;
    }

    /// Asks for the next snapshot when it is due.
    pub(super) fn keep_on(&mut self) {
        let every = self.keeping.every_bytes;
        if self.log.bytes() - self.keeping.tried.min(self.log.bytes()) < every || self.keeping.making.is_some() {
            return;
        }
        let safe = self.log.place_at_or_before(self.committed.min(self.durable())).end;
        let until = safe - safe % every;
        if until > self.keeping.tried && self.keeping.dropping.is_none() {
            let ticket = self.disk.ticket();
            (self.keeping.making, self.keeping.tried) = (Some(ticket), until);
            self.outputs.push_back(Output::Disk(DiskRequest::MakeSnapshot { ticket, until }));
        }
    }

    pub(super) fn snapshot_made(&mut self, ticket: DiskTicket, seq: SeqNum, size_bytes: u64, took: Duration) {
        if self.keeping.making != Some(ticket) {
            return;
        }
        self.keeping.making = None;
        (self.keeping.newest, self.keeping.size_bytes) = (self.keeping.newest.max(seq), size_bytes);
        self.outputs.push_back(Output::info(format!(
            "made the snapshot of entry {seq}: {size_bytes} bytes, in {} ms",
            took.as_millis()
        )));
        self.dirty = true;
    }

    /// A peer's snapshot is this replica's state now: its next start begins with it, too.
    pub(super) fn keep_taken(&mut self, snapshot: &Snapshot, file: Bytes) {
        let (ticket, seq, bytes) = (self.disk.ticket(), snapshot.position().seq, snapshot.bytes());
        let keeping = &mut self.keeping;
        if keeping.dropping.is_some() {
            return;
        }
        keeping.saving = Some((ticket, seq, file.len() as u64));
        keeping.tried = keeping.tried.max(bytes - bytes % keeping.every_bytes);
        self.outputs.push_back(Output::Disk(DiskRequest::SaveSnapshot { ticket, seq, file }));
    }

    pub(super) fn taken_snapshot_saved(&mut self, ticket: DiskTicket) {
        if let Some((_, seq, size_bytes)) = self.keeping.saving.take_if(|(asked, ..)| *asked == ticket) {
            (self.keeping.newest, self.keeping.size_bytes) = (seq, size_bytes);
        }
    }

    pub(super) fn no_snapshot(&mut self, ticket: DiskTicket, error: &MakeError) {
        if self.keeping.saving.take_if(|(asked, ..)| *asked == ticket).is_some() {
            self.keeping.faults += 1;
            let text = format!("the snapshot that was taken over was not kept: {error}. Nothing is lost, only time");
            return self.outputs.push_back(Output::warn(text));
        }
        if self.keeping.making != Some(ticket) {
            return;
        }
        self.keeping.making = None;
        self.keeping.faults += 1;
        match error {
            // It is made at the next turn.
            MakeError::Rotten { byte, .. } if self.scrub_from(*byte) => {}
            MakeError::Rotten { byte, .. } => self.end_for_rot(*byte, error.to_string()),
            MakeError::Given => {}
            MakeError::Short(_) | MakeError::Io(_) => self.outputs.push_back(Output::warn(format!(
                "no snapshot was made: {error}. It is tried again when the journal has grown by {} bytes more; until then a \
                 start takes longer",
                self.keeping.every_bytes
            ))),
        }
    }

    /// The journal is not what was written behind `good`, which the start did not see.
    pub(super) fn gone_bad(&mut self, good: Position, why: &str) {
        let (line, byte) = (good.seq.next(), self.log.place_at_or_before(good.seq).end);
        if self.scrub_from(byte) {
            return;
        }
        self.end_for_rot(byte, format!("orders.jsonl has gone bad at line {line}: {why}"));
    }

    /// Ends the process when no snapshot is left that the next start could begin with behind `byte`: it finds the damage then.
    fn end_for_rot(&mut self, byte: u64, why: String) {
        if self.keeping.dropping.is_some() {
            return;
        }
        self.outputs.push_back(Output::warn(format!("{why}. Ending, to begin again with what is good")));
        let ticket = self.disk.ticket();
        self.keeping.dropping = Some((ticket, why));
        self.outputs.push_back(Output::Disk(DiskRequest::DropSnapshots { ticket, bytes: byte }));
    }

    pub(super) fn snapshots_dropped(&mut self, ticket: DiskTicket) {
        if let Some((_, why)) = self.keeping.dropping.take_if(|(asked, _)| *asked == ticket) {
            self.broken(format!("{why}. Start it again: it keeps what is good, and is filled again by the others"));
        }
    }
}
