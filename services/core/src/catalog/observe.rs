//! What a catalog counts, and how it shows itself.

use super::{Catalog, EARLY_MAX, HELD_MAX, SESSIONS_MAX, STEPS_MAX};
use crate::Now;
use crate::metric_table;
use crate::metrics::{EPOCH, Readings};

/// What a catalog has counted since its start.
#[derive(Clone, Default)]
pub(super) struct Counts {
    pub(super) found: u64,
    pub(super) waited: u64,
    pub(super) not_leader: u64,
    pub(super) invalidations: u64,
    pub(super) leases: u64,
    pub(super) leases_waited_out: u64,
    pub(super) snapshots: u64,
}

metric_table! {
    /// What a catalog shows.
    METRICS;
    AUTHORITY = Gauge "tradenet_catalog_authority" [],
        "1 while this catalog may answer look-ups: it is attached, and the leader's grant is alive.";
    VISIBLE = Gauge "tradenet_catalog_visible" [], "The last entry that this catalog's look-ups show.";
    STAGED = Gauge "tradenet_catalog_staged" [],
        "The last entry whose stocks every cache has dropped; the leader releases no further.";
    LOOKUPS = Counter "tradenet_lookups" ["outcome"],
        "Look-ups by what became of them; waited: held back until a trade that had been told of was visible.";
    INVALIDATIONS = Counter "tradenet_invalidations_sent" [],
        "Orders to a frontend's cache to drop stocks, repetitions included.";
    LEASES = Counter "tradenet_leases_granted" [], "Leases that were given to caches, renewals included.";
    WAITED_OUT = Counter "tradenet_leases_waited_out" [],
        "Leases that were waited out, since their cache did not confirm what it had to drop; trades waited too.";
    SNAPSHOTS = Counter "tradenet_catalog_snapshots" [],
        "Times that this catalog began anew from the leader's state: at the start, and when it had missed entries.";
}

impl Catalog {
    pub(super) fn show(&self, now: Now, readings: &mut Readings) {
        readings.level(&EPOCH, &[], self.configuration.as_ref().map_or(0, |held| held.epoch.0));
        readings.flag(&AUTHORITY, &[], self.has_authority(now.mono));
        readings.level(&VISIBLE, &[], self.model.as_ref().map_or(0, |model| model.visible.seq.0));
        readings.level(&STAGED, &[], self.staged().0);
        let Counts { found, waited, not_leader, invalidations, leases, leases_waited_out, snapshots } = &*self.counts;
        readings.count(&LOOKUPS, &["found"], *found);
        readings.count(&LOOKUPS, &["waited"], *waited);
        readings.count(&LOOKUPS, &["not_leader"], *not_leader);
        readings.count(&INVALIDATIONS, &[], *invalidations);
        readings.count(&LEASES, &[], *leases);
        readings.count(&WAITED_OUT, &[], *leases_waited_out);
        readings.count(&SNAPSHOTS, &[], *snapshots);
        readings.queue("held_lookups", self.held.len(), HELD_MAX);
        readings.queue("cache_sessions", self.sessions.len(), SESSIONS_MAX);
        readings.queue("staged_entries", self.model.as_ref().map_or(0, |model| model.steps.len()), STEPS_MAX);
        readings.queue("early_batches", self.early.len(), EARLY_MAX);
    }
}
