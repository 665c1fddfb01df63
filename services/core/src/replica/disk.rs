//! What a replica has asked of its disk and not yet heard of.
//!
//! Problem: "durable" must mean what the disk has confirmed of the log *as it is now*; confirmations of lines that were
//! cut since must not count, and a disk that was full must get the same lines again, because others may have them.
//! Idea: appended lines are kept until they are confirmed, each with the file offset it ends at. A cut removes what it
//! cuts. After "full" nothing is sent until the retry, which cuts the file to what is confirmed and sends the rest again.
//! Rule kept: the confirmed end never passes the end of the log, and never skips a line.

use std::collections::VecDeque;

use bytes::Bytes;
use tradenet_schemas::ids::StoreId;

use crate::{DiskRequest, DiskTicket};

/// Lines on their way to the disk.
#[derive(Clone, Debug)]
struct Pending {
    ticket: DiskTicket,
    end: u64,
    lines: Bytes,
}

/// The replica's view of its journal file.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    next: DiskTicket,
    /// Everything up to here is on disk.
    confirmed: u64,
    pending: VecDeque<Pending>,
    full: bool,
}

impl Disk {
    /// A file that holds `bytes` bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Self { next: 1, confirmed: bytes, pending: VecDeque::new(), full: false }
    }

    /// The name of the next operation.
    pub(super) fn ticket(&mut self) -> DiskTicket {
        self.next += 1;
        self.next - 1
    }

    /// Everything up to this byte is on disk.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Whether the disk had no room when last asked.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// How many appends wait for the disk.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Appends lines; the request to make, unless the disk is full.
    pub(super) fn append(&mut self, lines: Bytes) -> Option<DiskRequest> {
        let ticket = self.ticket();
        let end = self.pending.back().map_or(self.confirmed, |last| last.end) + lines.len() as u64;
        self.pending.push_back(Pending { ticket, end, lines: lines.clone() });
        (!self.full).then_some(DiskRequest::Append { ticket, lines })
    }

    /// Cuts the file to `bytes`; the request to make. Appends that were confirmed or asked before no longer count behind it.
    pub(super) fn cut(&mut self, bytes: u64) -> DiskRequest {
        while self.pending.back().is_some_and(|last| last.end > bytes) {
            if let Some(mut last) = self.pending.pop_back() {
                let start = last.end - last.lines.len() as u64;
                if start < bytes {
                    last.lines.truncate(usize::try_from(bytes - start).unwrap_or(usize::MAX));
                    last.end = bytes;
                    self.pending.push_back(last);
                }
            }
        }
        self.confirmed = self.confirmed.min(bytes);
        // What found no room is not in the file, so there is nothing of it to cut.
        let bytes = if self.full { self.confirmed } else { bytes };
        DiskRequest::Cut { ticket: self.ticket(), bytes }
    }

    /// Cuts a file that is damaged behind `bytes`, under another name; the request to make.
    pub(super) fn give_up(&mut self, store: StoreId, bytes: u64) -> DiskRequest {
        self.confirmed = self.confirmed.min(bytes);
        DiskRequest::GiveUp { ticket: self.ticket(), store, bytes }
    }

    /// The operation is done; whether that made more of the log durable.
    pub(super) fn done(&mut self, ticket: DiskTicket) -> bool {
        let before = self.confirmed;
        // Only its own: while the disk is full, other operations succeed and say nothing of the appends before them.
        if self.pending.front().is_some_and(|first| first.ticket == ticket) {
            self.confirmed = self.pending.pop_front().map_or(self.confirmed, |first| first.end);
        }
        self.confirmed > before
    }

    /// An append found no room; whether that is news.
    pub(super) fn had_no_room(&mut self, ticket: DiskTicket) -> bool {
        let news = !self.full && self.pending.iter().any(|pending| pending.ticket == ticket);
        self.full |= news;
        news
    }

    /// Tries again what found no room.
    pub(super) fn retry(&mut self) -> Vec<DiskRequest> {
        self.full = false;
        let ticket = self.ticket();
        let mut requests = vec![DiskRequest::Cut { ticket, bytes: self.confirmed }];
        for index in 0..self.pending.len() {
            let ticket = self.ticket();
            let pending = &mut self.pending[index];
            pending.ticket = ticket;
            requests.push(DiskRequest::Append { ticket, lines: pending.lines.clone() });
        }
        requests
    }
}
