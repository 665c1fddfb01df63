//! The cache against naive models: which stocks it keeps, and whether it ever serves what it must not.
//!
//! Two models, because two things can go wrong. As a container: a list in order of use, searched from end to end. As a
//! promise: a catalog that changes stocks, counts a change as shown when the cache has confirmed or its lease is waited
//! out, and from then on may never see the old stock served, however late answers and invalidations arrive.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use tradenet_core::Mono;
use tradenet_core::cache::{Cache, Invalidated};
use tradenet_schemas::ids::{Boot, SeqNum};
use tradenet_schemas::trade::{Price, Quantity, Stock, Symbol};

const CATALOG: Boot = Boot(7);
const STOCKS: u8 = 5;
const LEASE: Duration = Duration::from_millis(500);
const WAITED_OUT: Duration = Duration::from_millis(550);

fn symbol(which: u8) -> Symbol {
    Symbol::new(&format!("S{which}")).unwrap()
}

/// The version stands in the quantity too, so that what is served tells how old it is.
fn stock(which: u8, version: u64) -> Stock {
    let (price, quantity) = (Price::from_cents(100).unwrap(), Quantity::new(version).unwrap());
    Stock { symbol: symbol(which), price, quantity, volume: Quantity::ZERO }
}

// ------------------------------------------------------------ as a container

#[derive(Clone, Debug)]
enum Use {
    Get(u8),
    Fill(u8),
    Seen(u8),
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let one = prop_oneof![
        4 => (0..STOCKS).prop_map(Use::Get),
        3 => (0..STOCKS).prop_map(Use::Fill),
        1 => (0..STOCKS).prop_map(Use::Seen),
    ];
    prop::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn the_least_recently_used_stock_makes_room(uses in uses(), capacity in 0_usize..4) {
        let mut cache = Cache::new(capacity);
        let now = Mono(1);
        cache.lease(now, CATALOG, 1, now, LEASE, 0);
        let mut model: Vec<(u8, u64)> = Vec::new();
        for (used, number) in uses.into_iter().zip(1..) {
            match used {
                Use::Get(which) => {
                    let held = model.iter().position(|(held, _)| *held == which).map(|index| model.remove(index));
                    model.extend(held);
                    let served = cache.get(now, &symbol(which)).map(|(_, version)| version.0);
                    prop_assert_eq!(served, held.map(|(_, version)| version));
                }
                Use::Fill(which) => {
                    cache.ask(number, &symbol(which));
                    let evicted = cache.fill(number, CATALOG, 1, SeqNum(number), stock(which, number));
                    model.retain(|(held, _)| *held != which);
                    if capacity > 0 {
                        model.push((which, number));
                    }
                    let gone = (model.len() > capacity).then(|| model.remove(0));
                    prop_assert_eq!(evicted, gone.map(|(gone, _)| symbol(gone)));
                }
                Use::Seen(which) => {
                    cache.seen(&symbol(which), SeqNum(number));
                    model.retain(|(held, _)| *held != which);
                }
            }
            prop_assert_eq!(cache.counts().entries, model.len());
        }
    }
}

// ------------------------------------------------------------ as a promise

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time passes.
    Wait(u16),
    /// The frontend looks a stock up.
    Look(u8),
    /// The catalog's answer to the oldest look-up but so many is sent; or arrives.
    Answer(u8),
    Arrive(u8),
    /// The catalog changes a stock.
    Change(u8),
    /// The oldest invalidation arrives (again), or the one behind it.
    Invalidate(u8),
    /// The frontend asks for a lease; the answer to the oldest request but so many arrives.
    Renew,
    Lease(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        2 => (1_u16..400).prop_map(Step::Wait),
        3 => (0..STOCKS).prop_map(Step::Look),
        3 => (0_u8..3).prop_map(Step::Answer),
        3 => (0_u8..3).prop_map(Step::Arrive),
        2 => (0..STOCKS).prop_map(Step::Change),
        2 => (0_u8..2).prop_map(Step::Invalidate),
        2 => Just(Step::Renew),
        2 => (0_u8..3).prop_map(Step::Lease),
    ];
    prop::collection::vec(one, 0..150)
}

/// An answer on its way.
struct Answer {
    request: u64,
    session: u64,
    which: u8,
    version: u64,
}

/// The catalog's side, as simple as can be: every session may hold everything.
#[derive(Default)]
struct Model {
    now: u64,
    version: u64,
    /// What look-ups show, and what nobody may see any more.
    newest: BTreeMap<u8, u64>,
    shown: BTreeMap<u8, u64>,
    session: u64,
    lease_until: u64,
    invalidation: u64,
    /// Invalidations without a confirmation: number, stock, version.
    outstanding: VecDeque<(u64, u8, u64)>,
    /// Look-ups that have not reached the catalog, answers that have not reached the frontend.
    asked: Vec<(u64, u64, u8)>,
    answers: Vec<Answer>,
    renewals: Vec<(u64, u64, u64)>,
    requests: u64,
}

impl Model {
    fn mono(&self) -> Mono {
        Mono(self.now)
    }

    fn show(&mut self, which: u8, version: u64) {
        let shown = self.shown.entry(which).or_default();
        *shown = version.max(*shown);
    }

    /// A session whose lease is waited out stands against nothing any more, and never comes back.
    fn expire(&mut self) {
        if self.now > self.lease_until {
            self.session = 0;
            for (_, which, version) in std::mem::take(&mut self.outstanding) {
                self.show(which, version);
            }
        }
    }

    fn change(&mut self, which: u8) {
        self.version += 1;
        self.newest.insert(which, self.version);
        if self.session == 0 {
            return self.show(which, self.version);
        }
        self.invalidation += 1;
        self.outstanding.push_back((self.invalidation, which, self.version));
    }

    /// Gives or extends a lease, as of a request sent at `sent` for `session`; the answer to it.
    fn renew(&mut self, sent: u64, session: u64) -> (u64, u64, u64) {
        if self.session == 0 || session != self.session {
            // The former session's obligations have to be kept until it has run out.
            if self.session != 0 {
                return (sent, 0, 0);
            }
            self.version += 1;
            self.session = self.version;
            self.invalidation = 0;
        }
        self.lease_until = self.lease_until.max(self.now + micros(WAITED_OUT));
        (sent, self.session, self.invalidation)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

fn take<T>(list: &mut Vec<T>, which: u8) -> Option<T> {
    (!list.is_empty()).then(|| list.remove(usize::from(which) % list.len()))
}

fn step(model: &mut Model, cache: &mut Cache, step: Step) {
    match step {
        Step::Wait(ms) => model.now += u64::from(ms) * 1_000,
        Step::Look(which) => {
            model.requests += 1;
            cache.ask(model.requests, &symbol(which));
            model.asked.push((model.requests, cache.session_with(CATALOG).0, which));
        }
        Step::Answer(nth) => {
            if let Some((request, session, which)) = take(&mut model.asked, nth) {
                // While a change of it is not confirmed, an answer may be kept by nobody.
                let settled = model.outstanding.iter().all(|(_, changing, _)| *changing != which);
                let session = if settled && session == model.session { session } else { 0 };
                let version = model.newest.get(&which).copied().unwrap_or_default();
                model.answers.push(Answer { request, session, which, version });
            }
        }
        Step::Arrive(nth) => {
            if let Some(Answer { request, session, which, version }) = take(&mut model.answers, nth) {
                cache.fill(request, CATALOG, session, SeqNum(version), stock(which, version));
            }
        }
        Step::Change(which) => model.change(which),
        Step::Invalidate(nth) => {
            let Some(&(number, which, _)) = model.outstanding.get(usize::from(nth)) else { return };
            let answer = cache.invalidate(CATALOG, model.session, number, &[symbol(which)]);
            let Invalidated::Confirm(number) = answer else { return };
            while model.outstanding.front().is_some_and(|(first, ..)| *first <= number) {
                let (_, which, version) = model.outstanding.pop_front().unwrap();
                model.show(which, version);
            }
        }
        Step::Renew => {
            let lease = model.renew(model.now, cache.session_with(CATALOG).0);
            model.renewals.push(lease);
        }
        Step::Lease(nth) => {
            if let Some((sent, session, invalidation)) = take(&mut model.renewals, nth) {
                let valid = if session == 0 { Duration::ZERO } else { LEASE };
                cache.lease(model.mono(), CATALOG, session, Mono(sent), valid, invalidation);
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_older_than_what_was_shown_is_ever_served(steps in steps()) {
        let mut cache = Cache::new(3);
        let mut model = Model { now: 1, ..Model::default() };
        for one in steps {
            step(&mut model, &mut cache, one);
            model.expire();
            for which in 0..STOCKS {
                let shown = model.shown.get(&which).copied().unwrap_or_default();
                if let Some((served, _)) = cache.get(model.mono(), &symbol(which)) {
                    let version = served.quantity.get();
                    prop_assert!(version >= shown, "{one:?}: S{which} served as of {version}, shown as of {shown}");
                }
            }
        }
    }
}
