//! What a frontend counts, and how it shows itself.

use super::{Frontend, UNDER_WAY_MAX};
use crate::Now;
use crate::election::Attempts;
use crate::metric_table;
use crate::metrics::{EPOCH, Readings};

/// What a frontend has counted since its start.
#[derive(Clone, Default)]
pub(super) struct Counts {
    pub(super) sent_again: u64,
    pub(super) unknown: u64,
    pub(super) unavailable: u64,
}

metric_table! {
    /// What a frontend's core shows.
    METRICS;
    READY = Gauge "tradenet_ready" [], "1 while this frontend can serve trades; `GET /readyz` says why not.";
    IN_SYNC = Gauge "tradenet_frontend_in_sync_replicas" [],
        "How many replicas are in sync, as this frontend knows it.";
    ENTRIES = Gauge "tradenet_cache_entries" [], "Stocks in this frontend's cache.";
    CAPACITY = Gauge "tradenet_cache_capacity" [], "How many stocks fit into this frontend's cache; 0: it is off.";
    LEASED = Gauge "tradenet_cache_leased" [], "1 while the cache holds a lease, and so may be served from.";
    HITS = Counter "tradenet_cache_hits" [], "Look-ups answered from the cache.";
    MISSES = Counter "tradenet_cache_misses" [], "Look-ups that had to be sent.";
    EVICTIONS = Counter "tradenet_cache_evictions" [], "Stocks dropped from the cache to make room.";
    INVALIDATIONS = Counter "tradenet_cache_invalidations" [], "Stocks dropped from the cache because they changed.";
    FLUSHES = Counter "tradenet_cache_flushes" [],
        "Times that everything was dropped from the cache: a lapsed lease, or a new session.";
    STALE = Counter "tradenet_cache_stale_fills_refused" [],
        "Answers that were not kept: the stock may have changed since they were asked for.";
    ELECTIONS = Counter "tradenet_elections" ["outcome"],
        "Leaders that this frontend proposed, by what became of the proposal; conflict: another frontend was first.";
    SUSPICIONS = Counter "tradenet_leader_suspicions" [],
        "Times that this frontend lost the leader and asked the replicas whether they had lost it too.";
    SENT_AGAIN = Counter "tradenet_requests_sent_again" [],
        "Requests that were sent once more, since no answer had come.";
    UNKNOWN = Counter "tradenet_outcomes_unknown" [],
        "Commands whose outcome was not known at the deadline (504).";
    UNAVAILABLE = Counter "tradenet_requests_unavailable" [],
        "Requests that nobody took by the deadline, or that were refused for want of room (503).";
}

impl Frontend {
    pub(super) fn show(&self, now: Now, readings: &mut Readings) {
        let held = self.elector.configuration();
        readings.level(&EPOCH, &[], held.map_or(0, |held| held.epoch.0));
        readings.flag(&READY, &[], self.ready(now).is_ok());
        readings.level(&IN_SYNC, &[], held.map_or(0, |held| held.in_sync.len() as u64));
        let cache = self.cache.counts();
        readings.level(&ENTRIES, &[], cache.entries as u64);
        readings.level(&CAPACITY, &[], cache.capacity as u64);
        readings.flag(&LEASED, &[], self.cache.is_leased(now.mono));
        readings.count(&HITS, &[], cache.hits);
        readings.count(&MISSES, &[], cache.misses);
        readings.count(&EVICTIONS, &[], cache.evictions);
        readings.count(&INVALIDATIONS, &[], cache.invalidations);
        readings.count(&FLUSHES, &[], cache.flushes);
        readings.count(&STALE, &[], cache.stale_fills);
        let Attempts { suspicions, written, conflict, refused, unknown } = self.elector.attempts();
        readings.count(&ELECTIONS, &["written"], written);
        readings.count(&ELECTIONS, &["conflict"], conflict);
        readings.count(&ELECTIONS, &["refused"], refused);
        readings.count(&ELECTIONS, &["unknown"], unknown);
        readings.count(&SUSPICIONS, &[], suspicions);
        readings.count(&SENT_AGAIN, &[], self.counts.sent_again);
        readings.count(&UNKNOWN, &[], self.counts.unknown);
        readings.count(&UNAVAILABLE, &[], self.counts.unavailable);
        readings.queue("requests", self.commands.len() + self.questions.len(), UNDER_WAY_MAX);
    }
}
