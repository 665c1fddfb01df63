//! What happened to the exchange lately, for people: elections and faults, as one frontend saw them.
//!
//! The problem: who opens the page after a fault sees a healthy exchange, and who watches it sees states, not what happened.
//! The idea: at each tick what is seen is compared with what was seen before; the differences are written down, the newest
//! of them kept. The rules: no decision reads any of this; a frontend that has lost the broker writes down that, and not
//! that everybody else has gone; what has never been there is not missed.

use std::collections::{BTreeMap, VecDeque};

use tradenet_schemas::ids::{Boot, ReplicaId};
use tradenet_schemas::rest::{Happening, HappeningKind};

/// How many are kept.
const HAPPENINGS_MAX: usize = 64;

/// One look at the exchange.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub(super) connected: bool,
    pub(super) epoch: u64,
    /// Who leads and serves.
    pub(super) leader: Option<u8>,
    /// Why that epoch began.
    pub(super) why: String,
    pub(super) in_sync: Vec<u8>,
    /// Who answers, of all members.
    pub(super) heard: BTreeMap<ReplicaId, bool>,
    pub(super) catalog: Option<Boot>,
    pub(super) trouble: Option<String>,
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Chronicle {
    happenings: VecDeque<Happening>,
    told: u64,
    seen: Seen,
    /// The last that was seen to lead.
    led: Option<u8>,
    silent: BTreeMap<ReplicaId, u64>,
    out_of_sync: BTreeMap<ReplicaId, u64>,
}

impl Chronicle {
    /// The newest, oldest first.
    pub(super) fn happenings(&self) -> Vec<Happening> {
        self.happenings.iter().cloned().collect()
    }

    /// Since when it does not answer, in milliseconds since 1970.
    pub(super) fn silent_since(&self, id: ReplicaId) -> Option<u64> {
        self.silent.get(&id).copied()
    }

    /// Since when it is not in sync, in milliseconds since 1970.
    pub(super) fn out_of_sync_since(&self, id: ReplicaId) -> Option<u64> {
        self.out_of_sync.get(&id).copied()
    }

    /// Compares `seen` with the last look.
    pub(super) fn look(&mut self, at: u64, mut seen: Seen) {
        if seen == self.seen {
            return;
        }
        if seen.connected != self.seen.connected {
            let text = if seen.connected { "the broker is reached" } else { "the broker is lost" };
            self.tell(at, seen.epoch, HappeningKind::Broker, text.to_owned());
        }
        if seen.connected {
            self.look_at_leader(at, &seen);
            self.look_at_replicas(at, &seen);
            if seen.catalog != self.seen.catalog {
                let text = seen.catalog.map_or_else(
                    || "no catalog: the leader answers look-ups".to_owned(),
                    |boot| format!("catalog {boot} answers look-ups"),
                );
                self.tell(at, seen.epoch, HappeningKind::Catalog, text);
            }
        } else {
            // Nobody is heard: what was known of them stays.
            let before = std::mem::take(&mut self.seen);
            seen = Seen { connected: false, trouble: seen.trouble, ..before };
        }
        self.seen = seen;
    }

    fn look_at_leader(&mut self, at: u64, seen: &Seen) {
        let (kind, text) = match (self.seen.leader, seen.leader) {
            (before, Some(leader)) if before != seen.leader => {
                let again = self.led.replace(leader);
                let who = match again {
                    Some(same) if same == leader => format!("order-{leader} leads again"),
                    Some(other) => format!("order-{leader} leads, before it order-{other}"),
                    None => format!("order-{leader} leads"),
                };
                let why = if seen.why.is_empty() { String::new() } else { format!(": {}", seen.why) };
                (HappeningKind::Elected, format!("{who}{why}"))
            }
            (Some(before), None) => {
                // Mostly the trouble is just that.
                let why = seen.trouble.as_deref().filter(|why| !why.starts_with("no leader"));
                let why = why.unwrap_or("one is being elected");
                (HappeningKind::Leaderless, format!("order-{before} leads no more: {why}"))
            }
            _ => return,
        };
        self.tell(at, seen.epoch, kind, text);
    }

    fn look_at_replicas(&mut self, at: u64, seen: &Seen) {
        for (&id, &heard) in &seen.heard {
            match (self.seen.heard.get(&id).copied().unwrap_or(false), heard) {
                (true, false) => {
                    self.silent.insert(id, at);
                    self.tell(at, seen.epoch, HappeningKind::Silent, format!("order-{id} does not answer"));
                }
                (false, true) if self.silent.remove(&id).is_some() => {
                    self.tell(at, seen.epoch, HappeningKind::Back, format!("order-{id} answers again"));
                }
                _ => {}
            }
            let in_sync = |look: &Seen| look.in_sync.contains(&id.get());
            match (in_sync(&self.seen), in_sync(seen)) {
                (true, false) => {
                    self.out_of_sync.insert(id, at);
                    let text = format!("order-{id} is out of the in-sync set");
                    self.tell(at, seen.epoch, HappeningKind::OutOfSync, text);
                }
                (false, true) if self.out_of_sync.remove(&id).is_some() => {
                    self.tell(at, seen.epoch, HappeningKind::InSync, format!("order-{id} is in sync again"));
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, at: u64, epoch: u64, kind: HappeningKind, text: String) {
        self.told += 1;
        self.happenings.push_back(Happening { number: self.told, at, epoch, kind, text });
        if self.happenings.len() > HAPPENINGS_MAX {
            self.happenings.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(epoch: u64, leader: Option<u8>, in_sync: &[u8], heard: [bool; 3]) -> Seen {
        let ids = (1..=3).filter_map(ReplicaId::new);
        let (in_sync, heard) = (in_sync.to_vec(), ids.zip(heard).collect());
        Seen { connected: true, epoch, leader, in_sync, heard, ..Seen::default() }
    }

    /// Each look, and what it adds.
    #[track_caller]
    fn check(looks: &[(Seen, &[&str])]) -> Chronicle {
        let mut chronicle = Chronicle::default();
        chronicle.look(1, Seen { connected: true, ..Seen::default() });
        for (at, (look, expected)) in (2..).zip(looks) {
            let told = chronicle.told;
            chronicle.look(at, look.clone());
            chronicle.look(at, look.clone());
            let new = chronicle.happenings.iter().filter(|happening| happening.number > told);
            assert_eq!(new.map(|happening| happening.text.as_str()).collect::<Vec<_>>(), *expected, "look {at}");
        }
        chronicle
    }

    #[test]
    fn a_leader_that_dies_and_comes_back_makes_six_lines() {
        let chronicle = check(&[
            (seen(1, Some(3), &[1, 2, 3], [true; 3]), &["order-3 leads"]),
            (
                seen(1, None, &[1, 2, 3], [true, true, false]),
                &["order-3 leads no more: one is being elected", "order-3 does not answer"],
            ),
            (
                seen(2, Some(2), &[1, 2], [true, true, false]),
                &["order-2 leads, before it order-3", "order-3 is out of the in-sync set"],
            ),
            (seen(2, Some(2), &[1, 2], [true; 3]), &["order-3 answers again"]),
            (seen(3, Some(2), &[1, 2, 3], [true; 3]), &["order-3 is in sync again"]),
        ]);
        assert_eq!(chronicle.silent_since(ReplicaId::new(3).unwrap()), None);
    }

    #[test]
    fn it_is_known_since_when_a_replica_is_missing() {
        let three = ReplicaId::new(3).unwrap();
        let whole = seen(1, Some(2), &[1, 2, 3], [true; 3]);
        let without = seen(2, Some(2), &[1, 2], [true, true, false]);
        let out = ["order-3 does not answer", "order-3 is out of the in-sync set"];
        let chronicle = check(&[(whole, &["order-2 leads"]), (without, &out)]);
        assert_eq!((chronicle.silent_since(three), chronicle.out_of_sync_since(three)), (Some(3), Some(3)));
    }

    #[test]
    fn who_was_never_there_is_not_missed_and_a_lost_broker_is_one_line() {
        let alone = || seen(1, Some(1), &[1], [true, false, false]);
        let away = || Seen { connected: false, ..seen(1, None, &[1], [false; 3]) };
        check(&[
            (alone(), &["order-1 leads"]),
            (away(), &["the broker is lost"]),
            (alone(), &["the broker is reached"]),
        ]);
    }

    #[test]
    fn the_newest_are_kept() {
        let mut chronicle = Chronicle::default();
        for at in 0..1_000 {
            chronicle.look(at, Seen { connected: at % 2 == 0, ..Seen::default() });
        }
        let kept = chronicle.happenings();
        assert_eq!((kept.len(), kept.last().map(|happening| happening.number)), (HAPPENINGS_MAX, Some(1_000)));
    }
}
