//! Catching up from far behind, with a peer's snapshot.
//!
//! Problem: a replica that is empty, or was away for long, reads, decodes and applies every entry that it missed, and whoever gives it
//! those decodes them too; until it is through, the exchange has one disk less, and both have less time for orders.
//! Idea: it takes the newest snapshot of a peer, of a follower before the leader, and copies the journal's lines up to that snapshot's
//! last entry without reading what they say: the chain of checksums vouches for them. When the lines are on its disk, the
//! snapshot is its state. What came meanwhile is fetched as ever ([`follow`](super::follow)). All of it is asked for no faster than
//! [`Options::catch_up_bytes_per_s`](super::Options::catch_up_bytes_per_s), so that trading does not notice.
//! Rules kept: a snapshot is a copy of what the journal says (ADR 8), so nothing of it counts before the own journal holds every
//! line that it is of: a replica is in sync with a whole log, however it caught up. What is copied is committed, so it stays whoever
//! leads, and whatever happens to this process: it is a journal's good beginning, from which the next start goes on. Until all of it
//! is there nothing else is appended, and nothing of it is acknowledged or shown.

use std::time::Duration;

use bytes::Bytes;
use tradenet_schemas::ids::{Epoch, Leader, Position, ReplicaId, SeqNum};
use tradenet_schemas::limits::CHUNK_BYTES_MAX;
use tradenet_schemas::message::Message;
use tradenet_schemas::subjects::Peer;

use super::snapshot::{FORMAT, Header, Snapshot, SnapshotPart};
use super::{READS_MAX, ReadFor, Replica};
use crate::bugs::{Bug, bug};
use crate::journal::{follow, place};
use crate::ticks::TICK;
use crate::{DiskRequest, DiskTicket, Mono, Output, ReplyTo};

/// A replica that is so many entries behind looks for a snapshot.
pub const FAR_BEHIND_ENTRIES: u64 = 10_000;
/// How much is copied in a second at most, in bytes, if nothing else is wanted: a million orders in some four seconds.
pub const CATCH_UP_BYTES_PER_S: u64 = 64 << 20;
/// Largest snapshot that is taken from a peer, in bytes. It is in memory until the lines are there that it is of.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// How much is asked for at once, in bytes.
const PART_BYTES_MIN: u64 = 4 * 1024;
const PART_BYTES_MAX: u64 = CHUNK_BYTES_MAX as u64;
/// How many copied parts may wait for the disk.
const WRITES_MAX: usize = 8;
/// For so long what might have been asked for is saved up: timers are looked at less often than parts arrive.
const BURST: Duration = Duration::from_millis(50);
/// So often everybody is asked in vain for a part of a snapshot before another one is looked for.
const ROUNDS: u32 = 2;
/// Each time so much more has been copied, a follower is asked again before the leader, in bytes.
const FOLLOWERS_AGAIN_BYTES: u64 = 16 << 20;
/// When it came to nothing, entries are fetched one by one for so long, and twice as long each time.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_DOUBLED_MAX: u32 = 6;

/// How far it is.
#[derive(Clone, Debug)]
enum Stage {
    /// Who has a snapshot that is worth it?
    Asking,
    /// That one's file is being fetched.
    Snapshot { of: Position, file: Vec<u8> },
    /// The journal's lines up to there are being copied; the own journal has them up to `at`, which ends at that byte.
    Lines { snapshot: Box<Snapshot>, file: Bytes, at: Position, end: u64 },
}

/// A transfer under way.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    stage: Stage,
    /// Who was asked for the next part, and when.
    asked: Option<(ReplicaId, Mono)>,
    /// How much is asked for at once, in bytes.
    most: u64,
    /// Whose turn it is to be asked.
    turn: usize,
    /// How many were asked in vain since the last part arrived, or since that were all; and how often that were all.
    vain: usize,
    rounds: u32,
    /// How many snapshots came to nothing.
    bad: usize,
    /// Nobody is asked before.
    rests_until: Mono,
    /// How many bytes may be asked for, and when that was reckoned. Overdrawn by a part, it is below zero.
    allowance: i64,
    reckoned: Mono,
    began: Mono,
    bytes: u64,
}

impl Transfer {
    fn new(now: Mono, bytes_per_s: u64) -> Self {
        Self {
            stage: Stage::Asking,
            asked: None,
            most: part_bytes(bytes_per_s),
            turn: 0,
            vain: 0,
            rounds: 0,
            bad: 0,
            rests_until: now,
            allowance: 1,
            reckoned: now,
            began: now,
            bytes: 0,
        }
    }

    fn asks(&self, peer: ReplicaId) -> bool {
        self.asked.is_some_and(|(asked, _)| asked == peer)
    }

    /// Whether something may be asked for at this rate.
    fn may_ask(&mut self, now: Mono, bytes_per_s: u64) -> bool {
        let gained = at_rate(bytes_per_s, now.since(self.reckoned));
        if gained > 0 {
            self.reckoned = now;
            self.allowance = self.allowance.saturating_add(gained).min(at_rate(bytes_per_s, BURST).max(1));
        }
        self.allowance > 0
    }

    fn got(&mut self, bytes: usize) {
        self.allowance = self.allowance.saturating_sub_unsigned(bytes as u64);
        self.bytes += bytes as u64;
        (self.asked, self.vain, self.rounds) = (None, 0, 0);
    }

    fn in_vain(&mut self) {
        self.asked = None;
        self.turn += 1;
        self.vain += 1;
    }

    /// Another snapshot is looked for: this one is not what it should be, or gone.
    fn anew(&mut self) {
        self.stage = Stage::Asking;
        (self.asked, self.vain, self.rounds) = (None, 0, 0);
        self.turn += 1;
        self.bad += 1;
    }

    /// Nobody had the next part: it rests, and goes on with another snapshot where this one seems to be gone. Lines are asked for
    /// again and again: who leads has them.
    fn all_in_vain(&mut self, rests_until: Mono) {
        (self.vain, self.rounds, self.rests_until) = (0, self.rounds + 1, rests_until);
        if matches!(self.stage, Stage::Snapshot { .. }) && self.rounds >= ROUNDS {
            self.anew();
        }
    }

    /// Whether it comes to nothing.
    fn is_given_up(&self, peers: usize) -> bool {
        matches!(self.stage, Stage::Asking) && (self.rounds > 0 || self.bad >= peers)
    }
}

impl Replica {
    /// Whether so much is missing here that a snapshot may spare most of the way.
    pub(super) fn is_far_behind(&self) -> bool {
        let missing = self.following.leader_tail().0.saturating_sub(self.log.tail().seq.0);
        !self.is_in_sync() && missing > self.options.far_behind_entries
    }

    /// Whether catching up is left to a transfer, which is begun if need be.
    pub(super) fn transfers(&mut self) -> bool {
        if self.transfer.is_some() {
            return true;
        }
        let may = self.disk.waiting() == 0 && !self.disk.is_full() && self.leaving.is_none();
        if !may || !self.is_far_behind() || self.now.mono < self.transfer_after {
            return false;
        }
        self.transfer = Some(Transfer::new(self.now.mono, self.options.catch_up_bytes_per_s));
        self.transfer_on();
        self.transfer.is_some()
    }

    /// Asks for the next part when it is time; takes the snapshot over when all of its lines are on the disk.
    pub(super) fn transfer_on(&mut self) {
        if self.transfer.is_none() || self.leaving.is_some() || !self.connected {
            return;
        }
        let peers = self.followers_then_leader();
        let (now, times, rate) = (self.now.mono, self.options.times, self.options.catch_up_bytes_per_s);
        let Some(transfer) = &mut self.transfer else { return };
        if transfer.asked.is_some_and(|(_, since)| now.since(since) > times.fetch) {
            transfer.in_vain();
        }
        if transfer.asked.is_some() {
            return;
        }
        if transfer.vain >= peers.len() {
            transfer.all_in_vain(now.after(times.fetch));
        }
        if transfer.is_given_up(peers.len()) {
            return self.end_transfer("nobody has what it takes");
        }
        let waiting = self.disk.waiting();
        if let Stage::Lines { snapshot, end, .. } = &transfer.stage
            && *end == snapshot.bytes()
        {
            if waiting == 0 {
                self.take_over();
            }
            return;
        }
        let rests = now < transfer.rests_until || !transfer.may_ask(now, rate);
        if rests || waiting >= WRITES_MAX || self.disk.is_full() || peers.is_empty() {
            return;
        }
        let bytes_max = transfer.most;
        let body = match &transfer.stage {
            Stage::Asking => Message::FetchSnapshot { of: None, offset: 0, bytes_max },
            Stage::Snapshot { of, file } => {
                Message::FetchSnapshot { of: Some(*of), offset: file.len() as u64, bytes_max }
            }
            Stage::Lines { at, .. } => Message::Fetch { from: *at, bytes_max: Some(bytes_max) },
        };
        let peer = peers[transfer.turn % peers.len()];
        transfer.asked = Some((peer, now));
        self.send(Peer::Order(peer), body);
    }

    pub(super) fn transfer_peer_is_gone(&mut self, peer: ReplicaId) {
        if self.transfer.as_ref().is_some_and(|transfer| transfer.asks(peer)) {
            self.transfer_in_vain();
        }
    }

    fn transfer_in_vain(&mut self) {
        if let Some(transfer) = &mut self.transfer {
            transfer.in_vain();
        }
        self.transfer_on();
    }

    /// A part of a snapshot, or the news that there is none.
    pub(super) fn snapshot_part_arrived(
        &mut self,
        sender: ReplicaId,
        epoch: Epoch,
        of: Option<Position>,
        size_bytes: u64,
        offset: u64,
        part: &Bytes,
    ) {
        let Some(transfer) = self.transfer.as_ref().filter(|transfer| transfer.asks(sender)) else { return };
        let (wanted, begins) = match &transfer.stage {
            Stage::Asking => (None, 0),
            Stage::Snapshot { of, file } => (Some(*of), file.len() as u64),
            Stage::Lines { .. } => return,
        };
        let is_late = offset != begins || wanted.is_some_and(|wanted| of.is_some_and(|of| of != wanted));
        // Of an epoch that is not on disk here nothing is taken (rule R4): it is asked for again.
        if is_late || epoch > self.epoch() {
            return;
        }
        let good = |of: &Position| !part.is_empty() && (begins > 0 || self.is_worth_it(*of, size_bytes, part));
        let Some(of) = of.filter(good) else {
            // None, or no more the one that was begun: others may still have that.
            return self.transfer_in_vain();
        };
        self.counts.copied_bytes += part.len() as u64;
        let (tail, end) = (self.log.tail(), self.log.bytes());
        let Some(transfer) = &mut self.transfer else { return };
        let mut file = match std::mem::replace(&mut transfer.stage, Stage::Asking) {
            Stage::Snapshot { file, .. } => file,
            _ => Vec::with_capacity(usize::try_from(size_bytes).unwrap_or_default()),
        };
        file.extend_from_slice(part);
        transfer.got(part.len());
        if (file.len() as u64) < size_bytes {
            if begins == 0 {
                let text =
                    format!("catching up with order-{sender}'s snapshot of entry {}, {size_bytes} bytes", of.seq);
                self.outputs.push_back(Output::debug(text));
            }
            transfer.stage = Stage::Snapshot { of, file };
            return self.transfer_on();
        }
        match Snapshot::decode(&file).map(Box::new) {
            Ok(snapshot) if snapshot.position() == of && snapshot.bytes() > end => {
                transfer.stage = Stage::Lines { snapshot, file: file.into(), at: tail, end };
                transfer.turn = 0;
                if bug(Bug::TakeOverAtOnce) {
                    return self.take_over();
                }
            }
            _ => {
                transfer.anew();
                self.outputs.push_back(Output::warn(format!("order-{sender} gave a snapshot that is damaged")));
            }
        }
        self.transfer_on();
    }

    /// Whether a snapshot that begins like this can be used here, and is less than what it spares.
    fn is_worth_it(&self, of: Position, size_bytes: u64, part: &[u8]) -> bool {
        let far = of.seq.0 > self.log.tail().seq.0.saturating_add(self.options.far_behind_entries);
        let spares = |header: Header| header.bytes.saturating_sub(self.log.bytes());
        let header = Header::read(part).filter(|header| header.snapshot == FORMAT && header.position() == of);
        far && size_bytes <= SNAPSHOT_BYTES_MAX && header.is_some_and(|header| size_bytes < spares(header))
    }

    /// Lines that were asked for here; `false` if they are for somebody else.
    pub(super) fn transfer_chunk(
        &mut self,
        sender: Leader,
        epoch: Epoch,
        asked: Position,
        prev: Position,
        lines: &Bytes,
    ) -> bool {
        let own = self.epoch();
        let leads =
            epoch >= self.following.since() && self.configuration.as_ref().is_some_and(|held| held.leader == sender);
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.asks(sender.id)) else { return false };
        let Stage::Lines { snapshot, at, end, .. } = &mut transfer.stage else { return false };
        if *at != asked {
            return false;
        }
        // Of an epoch that is not on disk here nothing is taken (rule R4): it is asked for again.
        if epoch > own {
            return true;
        }
        let left = usize::try_from(snapshot.bytes() - *end).unwrap_or(usize::MAX);
        let followed = follow(&lines[..lines.len().min(left)], at.chain);
        if prev == asked && followed.bytes == 0 && transfer.most < PART_BYTES_MAX {
            // A line that is longer than what was asked for.
            (transfer.asked, transfer.most) = (None, PART_BYTES_MAX);
            self.transfer_on();
            return true;
        }
        let seq = SeqNum(at.seq.0 + followed.lines);
        let reached = Position { epoch: snapshot.epoch(seq), seq, chain: followed.chain };
        let taken = lines.slice(..followed.bytes);
        // Who gives them may itself have others there that were never committed. Of an epoch there is one entry of each number
        // (rule R2), so where the last is the snapshot's, all before it are.
        let fits = last_line(&taken).and_then(place) == Some(reached);
        if leads && (prev != asked || followed.bytes > 0 && !fits) {
            // Only the leader may have it cut what is there: an operator has accepted a loss.
            self.end_transfer("the leader's log is another one");
            return true;
        }
        if prev != asked || !fits {
            self.transfer_in_vain();
            return true;
        }
        (*at, *end) = (reached, *end + followed.bytes as u64);
        let differs = *end == snapshot.bytes() && reached != snapshot.position();
        let copied = transfer.bytes;
        transfer.got(followed.bytes);
        if copied / FOLLOWERS_AGAIN_BYTES != transfer.bytes / FOLLOWERS_AGAIN_BYTES {
            transfer.turn = 0;
        }
        transfer.most = part_bytes(self.options.catch_up_bytes_per_s);
        self.counts.copied_bytes += followed.bytes as u64;
        if differs {
            self.end_transfer("the snapshot is not of this log");
            return true;
        }
        self.append_lines(taken);
        self.transfer_on();
        true
    }

    /// All lines that the snapshot is of are on the disk.
    fn take_over(&mut self) {
        let Some(transfer) = self.transfer.take() else { return };
        let Stage::Lines { snapshot, file, .. } = transfer.stage else { return };
        let position = snapshot.position();
        self.outputs.push_back(Output::info(format!(
            "took over the snapshot of entry {} and the lines up to it: {} bytes, in {} ms",
            position.seq,
            transfer.bytes,
            self.now.mono.since(transfer.began).as_millis()
        )));
        self.counts.taken_over += 1;
        self.keep_taken(&snapshot, file);
        (self.log, self.state) = snapshot.into_parts();
        self.ends_by_it = false;
        self.committed = self.committed.max(position.seq);
        (self.transfer_after, self.transfers_in_vain) = (self.now.mono.after(AGAIN), 0);
        self.dirty = true;
        self.fetch(self.log.tail());
    }

    /// This replica is counted on from now on, with what it has. What was copied and not read is part of that: it is read at the
    /// start.
    pub(super) fn is_counted_on(&mut self) {
        match &self.transfer {
            Some(Transfer { stage: Stage::Lines { end, .. }, .. }) if *end > self.log.bytes() => {
                self.broken("counted on while it was catching up, with entries that it has not read. Start it again: it reads them");
            }
            Some(_) => self.end_transfer("it is in sync"),
            None => {}
        }
    }

    /// It comes to nothing: entries are fetched one by one. Lines that were copied are not the leader's, and go.
    pub(super) fn end_transfer(&mut self, why: &str) {
        let Some(transfer) = self.transfer.take() else { return };
        let wait = AGAIN * 2u32.pow(self.transfers_in_vain.min(AGAIN_DOUBLED_MAX));
        let wait = wait.max(self.now.mono.since(transfer.began));
        self.transfers_in_vain = self.transfers_in_vain.saturating_add(1);
        self.transfer_after = self.now.mono.after(wait);
        self.outputs.push_back(Output::debug(format!("catching up without a snapshot: {why}")));
        if let Stage::Lines { end, .. } = transfer.stage
            && end > self.log.bytes()
        {
            let request = self.disk.cut(self.log.bytes());
            self.outputs.push_back(Output::Disk(request));
        }
    }

    // ------------------------------------------------------------ giving

    /// A peer wants a part of a snapshot.
    pub(super) fn snapshot_asked(&mut self, reply: ReplyTo, of: Option<Position>, offset: u64, bytes_max: u64) {
        if self.reads.len() >= READS_MAX {
            return; // It asks again, or somebody else.
        }
        let ticket = self.disk.ticket();
        self.reads.push((ticket, ReadFor::PeerSnapshot { reply, of, offset }));
        let (seq, bytes_max) =
            (of.map(|of| of.seq), usize::try_from(bytes_max).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX));
        self.outputs.push_back(Output::Disk(DiskRequest::ReadSnapshot { ticket, seq, offset, bytes_max }));
    }

    pub(super) fn snapshot_read(&mut self, ticket: DiskTicket, part: Option<SnapshotPart>) {
        let Some(index) = self.reads.iter().position(|(asked, _)| *asked == ticket) else { return };
        if let ReadFor::PeerSnapshot { reply, of, offset } = self.reads.swap_remove(index).1 {
            self.give_snapshot(reply, of, offset, part);
        }
    }

    /// Gives what is of the own log, and committed. There may be files that are not: a start passes them over.
    pub(super) fn give_snapshot(
        &mut self,
        reply: ReplyTo,
        wanted: Option<Position>,
        offset: u64,
        part: Option<SnapshotPart>,
    ) {
        let good = part.filter(|SnapshotPart { header, .. }| {
            let position = header.position();
            let own = header.snapshot == FORMAT && position.seq <= self.committed && self.log.contains(position);
            own && wanted.is_none_or(|wanted| wanted == position)
        });
        let (of, size_bytes, bytes) = match good {
            Some(SnapshotPart { header, size_bytes, bytes }) => (Some(header.position()), size_bytes, bytes),
            None => (None, 0, Bytes::new()),
        };
        let packet = self.packet(Message::SnapshotPart { of, size_bytes, offset }, bytes);
        self.outputs.push_back(Output::Reply { to: reply, packet });
    }
}

fn at_rate(bytes_per_s: u64, time: Duration) -> i64 {
    let bytes = u128::from(bytes_per_s) * time.as_micros() / 1_000_000;
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// How much is asked for at once: as much as may be between two looks at the timers, and no more than there is room for.
fn part_bytes(bytes_per_s: u64) -> u64 {
    at_rate(bytes_per_s, TICK).unsigned_abs().clamp(PART_BYTES_MIN, PART_BYTES_MAX)
}

fn last_line(lines: &[u8]) -> Option<&[u8]> {
    lines.split_inclusive(|&byte| byte == b'\n').next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_the_rate_allows_and_little_is_saved_up() {
        let (rate, mut now) = (1_000_000, Mono(0));
        let mut transfer = Transfer::new(now, rate);
        let mut got = 0;
        while now < Mono(10_000_000) {
            while transfer.may_ask(now, rate) {
                transfer.got(CHUNK_BYTES_MAX);
                got += CHUNK_BYTES_MAX;
            }
            now = now.after(Duration::from_millis(25));
        }
        let allowed = 10_000_000 + 2 * CHUNK_BYTES_MAX;
        assert!((allowed - 3 * CHUNK_BYTES_MAX..allowed).contains(&got), "{got}");
        // Who was paused has saved up no more than a burst.
        assert!(transfer.may_ask(now.after(Duration::from_secs(60)), rate));
        assert_eq!(transfer.allowance, 50_000);
    }
}
