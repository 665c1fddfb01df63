//! Tests the tests: leaves out one rule of the protocol at a time, and looks whether anything notices.
//!
//! Problem: a simulator that finds nothing may be blind.
//! Idea: the same seeds as always, on core with one of [`Bug::ALL`] in it. A violated invariant is a find, and so is a panic:
//! core's own assertions are part of what is tested.
//! Rule kept: only in builds with the feature `bugs`, which no service is built with, and with `panic = "unwind"`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use tradenet_core::bugs::Bug;
use tradenet_core::bugs::choose;

use crate::run::run;
use crate::stories::{STORIES, Story};
use crate::trace::Detail;

thread_local! {
    static HUNTING: Cell<bool> = const { Cell::new(false) };
}

/// What is said of a find by core itself.
const CORE: &str = "core stops itself";

/// Seeds in which a bug was noticed.
#[derive(Clone, Debug)]
pub struct Found {
    /// The rule that was left out.
    pub bug: Bug,
    /// The first such seed, and what noticed.
    pub first: Option<(u64, &'static str)>,
    /// How many, by what noticed.
    pub by: BTreeMap<&'static str, u64>,
    /// How many were run.
    pub seeds: u64,
    /// The first story that notices.
    pub story: Option<&'static str>,
}

impl Found {
    /// Whether anything noticed it.
    pub fn is_noticed(&self) -> bool {
        self.first.is_some() || self.story.is_some()
    }

    /// In how many seeds it was noticed.
    pub fn count(&self) -> u64 {
        self.by.values().sum()
    }

    /// A row of the table in `docs/testing.md`.
    pub fn row(&self) -> String {
        let mut row = format!("| `{:?}` | {} | {} of {} |", self.bug, self.bug.says(), self.count(), self.seeds);
        // Writing into a string can't fail.
        let _ = match self.first {
            Some((seed, what)) => write!(row, " {seed}: {what} |"),
            None => write!(row, " |"),
        };
        let _ = match self.story {
            Some(story) => write!(row, " `{story}` |"),
            None => write!(row, " |"),
        };
        row
    }
}

/// Tells all stories to core with that bug, and runs seeds from 0 on: `seeds` of them, or none that are not needed to see
/// whether anything notices.
pub fn hunt(bug: Bug, seeds: u64, only_first: bool) -> Found {
    let fails = |story: &&Story| {
        let told = || {
            (story.1)();
            None
        };
        notices(bug, told).is_some()
    };
    let story = STORIES.iter().find(fails).map(|(name, _)| *name);
    let mut found = Found { bug, first: None, by: BTreeMap::new(), seeds: 0, story };
    while found.seeds < seeds && !(only_first && found.is_noticed()) {
        let seed = found.seeds;
        found.seeds += 1;
        if let Some(invariant) = notices(bug, || run(seed, Detail::Fingerprint).violation.map(|v| v.invariant)) {
            found.first.get_or_insert((seed, invariant));
            *found.by.entry(invariant).or_default() += 1;
        }
    }
    found
}

/// What notices that bug in `what`, run in this thread.
pub fn notices(bug: Bug, what: impl FnOnce() -> Option<&'static str> + std::panic::UnwindSafe) -> Option<&'static str> {
    choose(Some(bug));
    HUNTING.set(true);
    let noticed = catch_unwind(what);
    HUNTING.set(false);
    choose(None);
    noticed.unwrap_or(Some(CORE))
}

/// A panic that is a find is not printed.
fn finds_are_silent() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !HUNTING.get() {
            before(info);
        }
    }));
}

/// Hunts several bugs on all cores; `each` is told of one after the other.
pub fn hunt_all(bugs: &[Bug], seeds: u64, only_first: bool, each: impl Fn(&Found) + Sync) -> Vec<Found> {
    finds_are_silent();
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = hunt(*bug, seeds, only_first);
            each(&found);
            if let Ok(mut all) = all.lock() {
                all.push(found);
            }
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let mut all = all.into_inner().unwrap_or_default();
    all.sort_by_key(|found| found.bug);
    all
}
