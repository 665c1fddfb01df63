//! What `GET /cluster` tells besides what the core knows: which processes run, and how long trades take here.
//!
//! The problem: the core knows ids and boots, but people look for names, processes and leases, and for what a trade costs at
//! this moment. The idea: the shell adds both to the core's answer. The processes are asked over the broker's service API
//! ([`Neighbours`]), the trades are timed by the observer ([`Timings`]). The rule: nothing of this is relied on by anybody but
//! people, and nothing of it costs anything while nobody looks; who answers is always among those that are shown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;
use tradenet_runtime::clock::Clock;
use tradenet_runtime::discover::Found;
use tradenet_runtime::nats::Broker;
use tradenet_runtime::whereabouts::Whereabouts;
use tradenet_schemas::directory::SERVICE_PREFIX;
use tradenet_schemas::rest::{Cluster, Service, Trades};

use crate::limits::{
    ABSENT_SHOWN_MS, NEIGHBOURS_ANSWER_MS, NEIGHBOURS_EVERY_MS, NEIGHBOURS_MAX, TIMED_FOR_MS, TIMED_MAX,
};

/// What a frontend is called among kinds of services.
const FRONTEND: &str = "frontend";

/// See the module.
pub(crate) struct Standing {
    /// This frontend, as others show it.
    own: Service,
    pub(crate) timings: Timings,
    pub(crate) neighbours: Neighbours,
}

impl Standing {
    /// For a frontend of that name, where others reach it, if they are told, and where it runs.
    pub(crate) fn new(name: String, http: Option<String>, whereabouts: Whereabouts) -> Self {
        let Whereabouts { host, pid, stop } = whereabouts;
        let (kind, boot) = (FRONTEND.to_owned(), String::new());
        let own = Service { kind, name, boot, alive: true, seen: 0, http, host, pid, lease: None, stop };
        Self { own, timings: Timings::default(), neighbours: Neighbours::default() }
    }

    /// Adds to what the core has told.
    pub(crate) fn complete(&self, mut cluster: Cluster) -> Cluster {
        cluster.frontend.name.clone_from(&self.own.name);
        cluster.frontend.trades = self.timings.read();
        cluster.services = self.neighbours.known();
        // It answers at this moment, whatever the broker's service API says, and before anybody was asked.
        let frontend = &cluster.frontend;
        let lease = (frontend.cache.capacity > 0).then_some(frontend.lease);
        let own = Service { boot: frontend.boot.clone(), seen: cluster.at, lease, ..self.own.clone() };
        cluster.services.retain(|known| known.boot != own.boot);
        cluster.services.push(own);
        cluster.services.sort_by(|one, other| place(one).cmp(&place(other)));
        cluster
    }
}

/// How long the last trades took: a ring, written without a lock, and sorted only when somebody asks.
pub(crate) struct Timings {
    since: Instant,
    count: AtomicU64,
    /// When, in milliseconds since the start, above [`TOOK_BITS`]; how long, in microseconds, below.
    slots: Box<[AtomicU64]>,
}

/// Enough for 16 s; no request is under way for longer.
const TOOK_BITS: u32 = 24;

impl Default for Timings {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            count: AtomicU64::new(0),
            slots: (0..TIMED_MAX).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Timings {
    /// A trade was answered now, and took so long.
    pub(crate) fn record(&self, took: Duration) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min((1 << TOOK_BITS) - 1);
        let slot = usize::try_from(number).unwrap_or(0) % self.slots.len();
        self.slots[slot].store(self.elapsed_ms() << TOOK_BITS | took, Ordering::Relaxed);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self) -> Trades {
        let (count, now) = (self.count.load(Ordering::Relaxed), self.elapsed_ms());
        let used = usize::try_from(count).unwrap_or(usize::MAX).min(self.slots.len());
        let slots = self.slots[..used].iter().map(|slot| slot.load(Ordering::Relaxed));
        let lately = slots.filter(|slot| now.saturating_sub(slot >> TOOK_BITS) <= TIMED_FOR_MS);
        let mut took: Vec<u64> = lately.map(|slot| slot & ((1 << TOOK_BITS) - 1)).collect();
        took.sort_unstable();
        // The nearest rank: the smallest value that so many in a hundred do not exceed.
        let rank = |percent: usize| took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Trades { count, timed: took.len(), p50_us: rank(50), p99_us: rank(99) }
    }
}

/// The processes of the exchange, as they answer the broker's service API; asked only while somebody wants to know.
#[derive(Default)]
pub(crate) struct Neighbours {
    wanted: Notify,
    known: Mutex<Vec<Service>>,
}

impl Neighbours {
    /// Those that are known, by kind and name. Has them asked again.
    fn known(&self) -> Vec<Service> {
        self.wanted.notify_one();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks as long as somebody wants to know. Never ends.
    pub(crate) async fn follow(&self, broker: Broker, clock: Clock) {
        loop {
            self.wanted.notified().await;
            match broker.discover_standing(Duration::from_millis(NEIGHBOURS_ANSWER_MS)).await {
                Ok(found) => {
                    let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                    *known = merged(&known, &found, clock.now().wall_ms);
                }
                Err(error) => tracing::debug!("the services could not be asked how they stand: {error}"),
            }
            sleep(Duration::from_millis(NEIGHBOURS_EVERY_MS)).await;
        }
    }
}

/// Who answered at `now`, and who did lately, unless another has its name.
fn merged(known: &[Service], found: &[Found], now: u64) -> Vec<Service> {
    let mut all: Vec<Service> = found.iter().take(NEIGHBOURS_MAX).map(|found| service(found, now)).collect();
    for absent in known {
        let replaced = all.iter().any(|other| (&other.kind, &other.name) == (&absent.kind, &absent.name));
        let lately = now.saturating_sub(absent.seen) < ABSENT_SHOWN_MS;
        if !replaced && lately && all.len() < NEIGHBOURS_MAX {
            all.push(Service { alive: false, lease: None, ..absent.clone() });
        }
    }
    all.sort_by(|one, other| place(one).cmp(&place(other)));
    all
}

/// Where a service stands among all that are shown.
fn place(service: &Service) -> (&str, &str, &str) {
    (&service.kind, &service.name, &service.boot)
}

fn service(found: &Found, now: u64) -> Service {
    let kind = found.name.strip_prefix(SERVICE_PREFIX).unwrap_or(&found.name).to_owned();
    let flag = |name: &str| found.standing.get(name).map(|value| *value > 0.0);
    let lease = match kind.as_str() {
        "catalog" => flag("tradenet_catalog_authority"),
        // One without a cache needs none.
        FRONTEND => flag("tradenet_cache_leased").filter(|_| flag("tradenet_cache_capacity") == Some(true)),
        _ => None,
    };
    let Whereabouts { host, pid, stop } = Whereabouts::of(&found.metadata);
    let name = found.metadata.get("name").unwrap_or(&found.id).clone();
    let http = found.metadata.get("http").cloned();
    Service { kind, name, boot: found.id.clone(), alive: true, seen: now, http, host, pid, lease, stop }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn half_of_the_trades_and_all_but_one_in_a_hundred_were_as_fast_as_that() {
        let check = |took: &[u64], expected: (Option<u64>, Option<u64>)| {
            let timings = Timings::default();
            took.iter().for_each(|us| timings.record(Duration::from_micros(*us)));
            let read = timings.read();
            assert_eq!((read.p50_us, read.p99_us), expected, "{took:?}");
            assert_eq!((read.count, read.timed), (took.len() as u64, took.len().min(TIMED_MAX)));
        };
        check(&[], (None, None));
        check(&[700], (Some(700), Some(700)));
        check(&[4, 1, 3, 2], (Some(2), Some(4)));
        check(&(1..=100).collect::<Vec<_>>(), (Some(50), Some(99)));
        check(&(1..=1_000).rev().collect::<Vec<_>>(), (Some(500), Some(990)));
        check(&vec![5; TIMED_MAX + 7], (Some(5), Some(5)));
        check(&[u64::MAX], (Some((1 << TOOK_BITS) - 1), Some((1 << TOOK_BITS) - 1)));
    }

    #[test]
    fn who_answers_is_shown_before_anybody_was_asked_and_also_where_it_did_not_answer_the_broker() {
        let standing = Standing::new("frontend-2".to_owned(), None, Whereabouts::default());
        let check = |known: &[Service], expected: &[(&str, &str, bool)]| {
            known.clone_into(&mut standing.neighbours.known.lock().unwrap());
            let frontend = json!({"boot": "b", "lease": true, "cache": {"capacity": 5, "entries": 0, "hits": 0, "misses": 0,
                "evictions": 0, "invalidations": 0, "flushes": 0, "stale_fills": 0}});
            let cluster = json!({"epoch": 0, "leader": null, "in_sync": [], "ready": false, "trouble": null, "replicas": [],
                "catalog": null, "frontend": frontend, "at": 7});
            let shown = standing.complete(serde_json::from_value(cluster).unwrap()).services;
            let told = shown.iter().map(|service| (service.name.as_str(), service.boot.as_str(), service.alive));
            assert_eq!(told.collect::<Vec<_>>(), expected);
            let own = shown.iter().find(|service| service.boot == "b").unwrap();
            assert_eq!((own.kind.as_str(), own.seen, own.lease), ("frontend", 7, Some(true)));
        };
        check(&[], &[("frontend-2", "b", true)]);
        let [one, same_name] = [("frontend-1", "a"), ("frontend-2", "c")]
            .map(|(name, boot)| service(&found("frontend", name, boot, &[]), 5));
        let lost = Service { alive: false, ..service(&found("frontend", "frontend-2", "b", &[]), 5) };
        let all = [("frontend-1", "a", true), ("frontend-2", "b", true), ("frontend-2", "c", true)];
        check(&[one, lost, same_name], &all);
    }

    fn found(kind: &str, name: &str, boot: &str, standing: &[(&str, f64)]) -> Found {
        let metadata = [("name", name), ("pid", "42"), ("host", "h")];
        Found {
            name: format!("{SERVICE_PREFIX}{kind}"),
            id: boot.to_owned(),
            metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            standing: standing.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect(),
        }
    }

    #[test]
    fn who_does_not_answer_any_more_is_shown_for_a_while_and_who_is_started_again_once() {
        let check = |known: &[Service], found: &[Found], now, expected: &[(&str, &str, bool)]| {
            let all = merged(known, found, now);
            let shown = all.iter().map(|service| (service.name.as_str(), service.boot.as_str(), service.alive));
            assert_eq!(shown.collect::<Vec<_>>(), expected);
            all
        };
        let (one, two) = (found("catalog", "catalog-1", "a", &[]), found("catalog", "catalog-2", "b", &[]));
        let both = check(&[], &[two.clone(), one], 5, &[("catalog-1", "a", true), ("catalog-2", "b", true)]);
        let left = check(&both, std::slice::from_ref(&two), 6, &[("catalog-1", "a", false), ("catalog-2", "b", true)]);
        let again = found("catalog", "catalog-1", "c", &[]);
        check(&left, &[two.clone(), again], 7, &[("catalog-1", "c", true), ("catalog-2", "b", true)]);
        check(&left, &[two], 6 + ABSENT_SHOWN_MS, &[("catalog-2", "b", true)]);
    }

    #[test]
    fn a_lease_is_what_the_service_itself_says_of_it() {
        let check = |kind: &str, standing: &[(&str, f64)], expected| {
            assert_eq!(service(&found(kind, "x", "a", standing), 0).lease, expected, "{kind} {standing:?}");
        };
        check("catalog", &[("tradenet_catalog_authority", 1.0)], Some(true));
        check("catalog", &[("tradenet_catalog_authority", 0.0)], Some(false));
        check("catalog", &[], None);
        check("frontend", &[("tradenet_cache_leased", 1.0), ("tradenet_cache_capacity", 5.0)], Some(true));
        check("frontend", &[("tradenet_cache_leased", 0.0), ("tradenet_cache_capacity", 0.0)], None);
        check("order", &[("tradenet_catalog_authority", 1.0)], None);
    }
}
