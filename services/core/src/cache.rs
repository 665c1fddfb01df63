//! What a frontend may serve without asking anybody.
//!
//! Problem: a copy of a stock is worth having only if it is never older than a trade that somebody has been told of.
//! Idea: the catalog gives the frontend's cache a *session* and *leases* on it. While a lease is valid the catalog makes the
//! frontend drop a stock before a change of it is shown to anyone; when the lease has run out, nothing is served from here.
//! Rules kept: C2, a fill is kept only if no invalidation, lapse or new session came since it was asked for; C3, a lease
//! counts from when it was asked for, and a new session drops everything.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tradenet_schemas::ids::{Boot, SeqNum};
use tradenet_schemas::rest;
use tradenet_schemas::trade::{Stock, Symbol};

use crate::Mono;
use crate::bugs::{Bug, bug};

/// A cached stock, and the newest entry that the catalog had shown when it gave it.
#[derive(Clone, Debug)]
struct Kept {
    stock: Stock,
    version: SeqNum,
}

/// A look-up under way.
#[derive(Clone, Debug)]
struct Fill {
    symbol: Symbol,
    /// What has come meanwhile makes its answer unfit to be kept.
    cancelled: bool,
}

/// The session that all entries belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Session {
    catalog: Boot,
    number: u64,
}

/// What a frontend answers to an invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidated {
    /// Carried out, now or before: confirm up to this number.
    Confirm(u64),
    /// Another session's, or one before it is missing: it will come again.
    Ignore,
}

/// A cache of stocks, the least recently used one replaced first.
#[derive(Clone, Debug)]
pub struct Cache {
    entries: Option<LruCache<Symbol, Kept>>,
    session: Option<Session>,
    /// The newest invalidation of the session that was carried out.
    invalidation: u64,
    lease_until: Mono,
    fills: BTreeMap<u64, Fill>,
    counts: rest::Cache,
}

impl Cache {
    /// A cache of at most `capacity` stocks; 0 turns it off.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: NonZeroUsize::new(capacity).map(LruCache::new),
            session: None,
            invalidation: 0,
            lease_until: Mono(0),
            fills: BTreeMap::new(),
            counts: rest::Cache { capacity, ..rest::Cache::default() },
        }
    }

    /// Whether it keeps anything at all.
    pub fn is_on(&self) -> bool {
        self.entries.is_some()
    }

    /// Whether it may be served from.
    pub fn is_leased(&self, now: Mono) -> bool {
        self.session.is_some() && now < self.lease_until
    }

    /// Size and counts.
    pub fn counts(&self) -> rest::Cache {
        rest::Cache { entries: self.entries.as_ref().map_or(0, LruCache::len), ..self.counts }
    }

    /// The session to renew with that catalog, and the newest invalidation carried out in it; 0 for a new one.
    pub fn session_with(&self, catalog: Boot) -> (u64, u64) {
        match self.session {
            Some(session) if session.catalog == catalog => (session.number, self.invalidation),
            _ => (0, 0),
        }
    }

    /// The stock and its version, if it may be served at this moment.
    pub fn get(&mut self, now: Mono, symbol: &Symbol) -> Option<(&Stock, SeqNum)> {
        if !self.is_leased(now) {
            return None;
        }
        let kept = self.entries.as_mut()?.get(symbol)?;
        self.counts.hits += 1;
        Some((&kept.stock, kept.version))
    }

    /// A look-up of `symbol` is sent: its answer may be kept by [`Cache::fill`].
    pub fn ask(&mut self, request: u64, symbol: &Symbol) {
        self.counts.misses += 1;
        if self.is_on() {
            self.fills.insert(request, Fill { symbol: symbol.clone(), cancelled: false });
        }
    }

    /// The look-up is over without an answer to keep.
    pub fn forget(&mut self, request: u64) {
        self.fills.remove(&request);
    }

    /// The answer to a look-up; the evicted stock, if one had to go.
    pub fn fill(&mut self, request: u64, catalog: Boot, session: u64, version: SeqNum, stock: Stock) -> Option<Symbol> {
        let fill = self.fills.remove(&request)?;
        let same = self.session == Some(Session { catalog, number: session });
        if fill.cancelled && !bug(Bug::KeepStaleFills) || !same || fill.symbol != stock.symbol {
            self.counts.stale_fills += 1;
            return None;
        }
        let evicted = self.entries.as_mut()?.push(fill.symbol.clone(), Kept { stock, version });
        let evicted = evicted.map(|(symbol, _)| symbol).filter(|symbol| *symbol != fill.symbol);
        self.counts.evictions += u64::from(evicted.is_some());
        evicted
    }

    /// A lease that was asked for at `asked`.
    pub fn lease(&mut self, now: Mono, catalog: Boot, session: u64, asked: Mono, valid: Duration, invalidation: u64) {
        let granted = Session { catalog, number: session };
        let asked = if bug(Bug::LeaseFromArrival) { now } else { asked };
        let until = asked.after(valid);
        let late = self.session.is_some_and(|held| held.catalog == catalog && held.number > session);
        if until <= now || late {
            return;
        }
        if self.session != Some(granted) {
            if !bug(Bug::KeepCacheAcrossSessions) {
                self.flush();
            }
            self.session = Some(granted);
            self.invalidation = invalidation;
            self.lease_until = until;
        } else if now >= self.lease_until {
            // It lapsed in between: what was not heard then may have been taken as confirmed.
            if !bug(Bug::KeepCacheAcrossSessions) {
                self.flush();
            }
            self.lease_until = until;
        } else {
            self.lease_until = self.lease_until.max(until);
        }
    }

    /// Drops stocks, all of them if none is named.
    pub fn invalidate(&mut self, catalog: Boot, session: u64, number: u64, symbols: &[Symbol]) -> Invalidated {
        if self.session != Some(Session { catalog, number: session }) || number > self.invalidation + 1 {
            return Invalidated::Ignore;
        }
        if number == self.invalidation + 1 {
            self.invalidation = number;
            if symbols.is_empty() {
                self.flush();
            }
            symbols.iter().for_each(|symbol| self.drop_one(symbol));
        }
        Invalidated::Confirm(self.invalidation)
    }

    /// This frontend has seen an entry that changed `symbol`: nothing older is served from here, whoever says so.
    pub fn seen(&mut self, symbol: &Symbol, seq: SeqNum) {
        let older =
            self.entries.as_ref().and_then(|entries| entries.peek(symbol)).is_none_or(|kept| kept.version < seq);
        if older {
            self.drop_one(symbol);
        }
    }

    fn drop_one(&mut self, symbol: &Symbol) {
        let dropped = self.entries.as_mut().and_then(|entries| entries.pop(symbol));
        self.counts.invalidations += u64::from(dropped.is_some());
        for fill in self.fills.values_mut().filter(|fill| fill.symbol == *symbol) {
            fill.cancelled = true;
        }
    }

    /// Drops everything, and what is being asked for.
    pub fn flush(&mut self) {
        self.counts.flushes += 1;
        if let Some(entries) = &mut self.entries {
            entries.clear();
        }
        for fill in self.fills.values_mut() {
            fill.cancelled = true;
        }
    }
}
