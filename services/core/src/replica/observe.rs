//! What a replica counts, and how it shows itself.
//!
//! Counted where it happens, in plain fields; read here. The rule: nothing is smoothed. A replica that was taken out may
//! know of a commit before its own disk has it, and shows just that.

use super::change::Kind as Change;
use super::follow::APPENDS_WAITING_MAX;
use super::lead::{QUEUE_COMMANDS_MAX, WAITING_MAX};
use super::lookup::LOOKUPS_MAX;
use super::{HELD_MAX, READS_MAX, Replica, VOTES_MAX, feed};
use crate::metric_table;
use crate::metrics::{DURATION_BOUNDS_US, ENTRY_BOUNDS, EPOCH, Histogram, Readings, SIZE_BOUNDS_BYTES};
use tradenet_schemas::message::Role;

/// The outcomes of commands, as they are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Accepted,
    Replayed,
    Refused,
    Overloaded,
    Unavailable,
}

const VERDICTS: [(Verdict, &str); 5] = [
    (Verdict::Accepted, "accepted"),
    (Verdict::Replayed, "replayed"),
    (Verdict::Refused, "refused"),
    (Verdict::Overloaded, "overloaded"),
    (Verdict::Unavailable, "unavailable"),
];
const CHANGES: [(Change, &str); 4] =
    [(Change::Activate, "activate"), (Change::Shrink, "shrink"), (Change::Add, "add"), (Change::HandOver, "hand_over")];
const ROLES: [(Role, &str); 5] = [
    (Role::Starting, "starting"),
    (Role::Learner, "learner"),
    (Role::Follower, "follower"),
    (Role::Activating, "activating"),
    (Role::Leader, "leader"),
];

/// What became of look-ups of old orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lookup {
    Answered,
    Overloaded,
    Unavailable,
}

const LOOKUPS: [(Lookup, &str); 3] =
    [(Lookup::Answered, "answered"), (Lookup::Overloaded, "overloaded"), (Lookup::Unavailable, "unavailable")];

/// What a replica has counted since its start.
#[derive(Clone)]
pub(super) struct Counts {
    verdicts: [u64; VERDICTS.len()],
    changes: [u64; CHANGES.len()],
    lookups: [u64; LOOKUPS.len()],
    pub(super) batch_entries: Histogram,
    pub(super) batch_bytes: Histogram,
    pub(super) commit_us: Histogram,
    pub(super) fenced: u64,
    pub(super) authorities_waited_out: u64,
    pub(super) not_leader: u64,
    pub(super) copied_bytes: u64,
    pub(super) taken_over: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            verdicts: [0; VERDICTS.len()],
            changes: [0; CHANGES.len()],
            lookups: [0; LOOKUPS.len()],
            batch_entries: Histogram::new(ENTRY_BOUNDS),
            batch_bytes: Histogram::new(SIZE_BOUNDS_BYTES),
            commit_us: Histogram::new(DURATION_BOUNDS_US),
            fenced: 0,
            authorities_waited_out: 0,
            not_leader: 0,
            copied_bytes: 0,
            taken_over: 0,
        }
    }
}

impl Counts {
    pub(super) fn verdict(&mut self, verdict: Verdict, commands: usize) {
        self.verdicts[verdict as usize] += commands as u64;
    }
    pub(super) fn lookup(&mut self, lookup: Lookup, requests: usize) {
        self.lookups[lookup as usize] += requests as u64;
    }
    pub(super) fn change(&mut self, kind: Change) {
        self.changes[kind as usize] += 1;
    }
}

metric_table! {
    /// What a replica shows.
    METRICS;
    ROLE = Gauge "tradenet_replica_role" ["role"],
        "1 for the role that the replica has at present, 0 for the others.";
    APPLIED = Gauge "tradenet_log_applied" [], "The last committed entry that the replica's state shows.";
    COMMITTED = Gauge "tradenet_log_committed" [],
        "The last entry that the replica knows to be on the disk of every in-sync replica.";
    DURABLE = Gauge "tradenet_log_durable" [], "The last entry on the replica's own disk.";
    TAIL = Gauge "tradenet_log_tail" [], "The last entry of the replica's log.";
    RELEASED = Gauge "tradenet_log_released" [],
        "As leader: the last entry that clients may have been told of; 0 otherwise.";
    LOG_BYTES = Gauge "tradenet_journal_bytes" [], "The size of the replica's journal.";
    IN_SYNC = Gauge "tradenet_in_sync_replicas" [],
        "How many replicas the newest configuration names as in sync; an order is on that many disks.";
    MEMBERS = Gauge "tradenet_members" [], "How many replicas belong to the exchange.";
    TROUBLE = Gauge "tradenet_replica_trouble" [],
        "1 while the replica says that it cannot take orders; `tradenet status` says why.";
    COMMANDS = Counter "tradenet_commands" ["outcome"],
        "Commands that this replica answered as leader, by what became of them.";
    NOT_LEADER = Counter "tradenet_commands_not_leader" [],
        "Commands and queries that came here while another replica leads; they are sent again there.";
    BATCH_ENTRIES = Histogram "tradenet_batch_entries" [], "Entries in a batch that this replica sent as leader.";
    BATCH_BYTES = Histogram "tradenet_batch_size_bytes" [], "Size of a batch that this replica sent as leader.";
    COMMIT = Histogram "tradenet_commit_duration_seconds" [],
        "As leader: from sending a batch until it is on the disk of every in-sync replica.";
    CHANGES_MADE = Counter "tradenet_configuration_changes" ["kind"],
        "Changes of the configuration that this replica made as leader; activate: it took up the lead.";
    FENCED = Counter "tradenet_fenced_messages" [],
        "Messages of a former leader that were answered with the news that its epoch is over.";
    WAITED_OUT = Counter "tradenet_authorities_waited_out" [],
        "As leader: silent catalogs whose authority was waited out before releasing without them.";
    OLD_LOOKUPS = Counter "tradenet_old_order_lookups" ["outcome"],
        "As leader: look-ups of orders that only the journal has any more, by what became of them.";
    SNAPSHOT = Gauge "tradenet_snapshot_last" [],
        "The last entry in the replica's newest snapshot, as far as it knows; 0 for none.";
    SNAPSHOT_BYTES = Gauge "tradenet_snapshot_bytes" [],
        "The size of the last snapshot that this process made or took over; 0 for none.";
    SNAPSHOT_FAULTS = Counter "tradenet_snapshot_faults" [],
        "Snapshots that could not be used, or not be made; the log names each.";
    TAKEN_OVER = Counter "tradenet_snapshots_taken_over" [],
        "Times that this replica was far behind and took over the snapshot of another one.";
    COPIED = Counter "tradenet_copied_bytes" [],
        "How much of snapshots and journals this replica has copied from others because it was far behind.";
    SCRUBBED = Counter "tradenet_journal_scrubbed_bytes" [],
        "How much of its journal this replica has read to see whether it is as it was written.";
    DAMAGES = Counter "tradenet_journal_damages" [],
        "Times that this replica found lines in its journal that are not as they were written; the log names them.";
    REPAIRS = Counter "tradenet_journal_repairs" [],
        "Times that this replica got such lines back from another one.";
    CUTS = Counter "tradenet_log_cuts" [],
        "Times that entries of a former leader, of which nobody was told, were cut from the log.";
}

impl Replica {
    pub(super) fn show(&self, readings: &mut Readings) {
        let status = self.status();
        readings.level(&EPOCH, &[], self.epoch().0);
        for (role, name) in ROLES {
            readings.flag(&ROLE, &[name], role == status.role);
        }
        readings.level(&APPLIED, &[], status.applied.0);
        readings.level(&COMMITTED, &[], status.committed.0);
        readings.level(&DURABLE, &[], status.durable.0);
        readings.level(&TAIL, &[], status.tail.seq.0);
        readings.level(&RELEASED, &[], status.released.0);
        readings.level(&LOG_BYTES, &[], self.log.bytes());
        readings.level(&IN_SYNC, &[], status.configuration.as_ref().map_or(0, |held| held.in_sync.len() as u64));
        readings.level(&MEMBERS, &[], self.options.members.len() as u64);
        readings.flag(&TROUBLE, &[], status.trouble.is_some());
        for (verdict, name) in VERDICTS {
            readings.count(&COMMANDS, &[name], self.counts.verdicts[verdict as usize]);
        }
        readings.count(&NOT_LEADER, &[], self.counts.not_leader);
        readings.spread(&BATCH_ENTRIES, &[], &self.counts.batch_entries);
        readings.spread(&BATCH_BYTES, &[], &self.counts.batch_bytes);
        readings.spread(&COMMIT, &[], &self.counts.commit_us);
        for (kind, name) in CHANGES {
            readings.count(&CHANGES_MADE, &[name], self.counts.changes[kind as usize]);
        }
        readings.count(&FENCED, &[], self.counts.fenced);
        readings.count(&WAITED_OUT, &[], self.counts.authorities_waited_out);
        for (lookup, name) in LOOKUPS {
            readings.count(&OLD_LOOKUPS, &[name], self.counts.lookups[lookup as usize]);
        }
        readings.level(&SNAPSHOT, &[], self.keeping.newest().0);
        readings.level(&SNAPSHOT_BYTES, &[], self.keeping.size_bytes());
        readings.count(&SNAPSHOT_FAULTS, &[], self.keeping.faults());
        readings.count(&TAKEN_OVER, &[], self.counts.taken_over);
        readings.count(&COPIED, &[], self.counts.copied_bytes);
        readings.count(&SCRUBBED, &[], self.scrubbing.read_bytes);
        readings.count(&DAMAGES, &[], self.scrubbing.damages);
        readings.count(&REPAIRS, &[], self.scrubbing.repairs);
        readings.count(&CUTS, &[], self.cuts);
        let (commands, answers, watchers) = self.leading.as_ref().map_or((0, 0, 0), |leading| leading.depths());
        readings.queue("commands", commands, QUEUE_COMMANDS_MAX);
        readings.queue("answers", answers, WAITING_MAX);
        let lookups = self.leading.as_ref().map_or(0, |leading| leading.lookups.len());
        readings.queue("old_orders", lookups, LOOKUPS_MAX);
        readings.queue("event_readers", watchers, feed::WATCHERS_MAX);
        readings.queue("appends", self.disk.waiting(), APPENDS_WAITING_MAX);
        readings.queue("journal_reads", self.reads.len(), READS_MAX);
        readings.queue("held_for_epoch", self.held.len(), HELD_MAX);
        readings.queue("votes", self.votes.len(), VOTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_counted_under_its_own_name() {
        VERDICTS.iter().enumerate().for_each(|(at, (verdict, _))| assert_eq!(*verdict as usize, at));
        CHANGES.iter().enumerate().for_each(|(at, (kind, _))| assert_eq!(*kind as usize, at));
        LOOKUPS.iter().enumerate().for_each(|(at, (lookup, _))| assert_eq!(*lookup as usize, at));
    }
}
