//! What happened, line by line.
//!
//! Problem: a violation is worth nothing without the way that led to it, and writing every step down makes a million seeds
//! slow.
//! Idea: of every step its time, kind and machine go into a fingerprint, which is cheap; text is made only when it is wanted. A seed that fails is run
//! again with text, which is the same run.
//! Rule kept: same seed, same bytes. Columns: microseconds of the world, machine, what, details.
//!
//! An assertion of core that fails leaves no run behind to ask for its lines: [`newest`] has them all the same.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;

/// Lines kept.
const LINES_MAX: usize = 20_000;

/// The end of a text, which the trace and [`NEWEST`] share.
type Lines = Rc<RefCell<VecDeque<String>>>;

thread_local! {
    /// Of the trace that this thread has begun last.
    static NEWEST: RefCell<Lines> = RefCell::default();
}

/// The newest lines of the trace that this thread has begun last; for a panic's hook.
pub fn newest(count: usize) -> Vec<String> {
    NEWEST.with(|lines| lines.try_borrow().map_or(Vec::new(), |lines| end_of(&lines, count)))
}

fn end_of(lines: &Lines, count: usize) -> Vec<String> {
    let Ok(lines) = lines.try_borrow() else { return Vec::new() };
    lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
}

/// How much is written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// Only the fingerprint.
    Fingerprint,
    /// Text, the newest lines of it.
    Text,
    /// Text, and to standard output at once.
    Echo,
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    detail: Detail,
    lines: Lines,
    fingerprint: u64,
    steps: u64,
}

impl Trace {
    /// An empty one.
    pub fn new(detail: Detail) -> Self {
        let lines = Lines::default();
        NEWEST.set(lines.clone());
        Self { detail, lines, fingerprint: 0xcbf2_9ce4_8422_2325, steps: 0 }
    }

    /// A step of the world was done.
    pub fn step(&mut self, now: u64, kind: u8, machine: usize) {
        self.steps += 1;
        for word in [now, u64::from(kind) << 32 | machine as u64] {
            self.fingerprint = (self.fingerprint ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    /// Whether text is wanted.
    pub fn wants_text(&self) -> bool {
        self.detail != Detail::Fingerprint
    }

    /// Writes a line, if text is wanted.
    pub fn line(&mut self, now: u64, who: &str, what: &str, details: impl FnOnce() -> String) {
        if !self.wants_text() {
            return;
        }
        let mut line = String::new();
        // Writing into a string can't fail.
        let _ = write!(line, "{now:>10} {who:<10} {what:<8} {}", details());
        if self.detail == Detail::Echo {
            println!("{line}");
        }
        let mut lines = self.lines.borrow_mut();
        lines.push_back(line);
        if lines.len() > LINES_MAX {
            lines.pop_front();
        }
    }

    /// The newest lines.
    pub fn last(&self, count: usize) -> Vec<String> {
        end_of(&self.lines, count)
    }

    /// Equal for equal runs.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// How many steps there were.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
