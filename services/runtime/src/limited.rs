//! Log lines that cannot flood.
//!
//! The problem: what goes wrong once in a message goes wrong in each of them, thousands of times a second, and the log
//! is then the next thing to break. The idea: a line is let through once a period and says how many were held back. The
//! rule: nothing is held back silently.

use std::fmt;
use std::time::{Duration, Instant};

/// Lets one line through in a period, and counts the others.
#[derive(Debug)]
pub struct Limited {
    every: Duration,
    next: Option<Instant>,
    held_back: u64,
}

/// How many lines were held back since the last one; displays as nothing if there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack(pub u64);

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} like it since the last such line)"),
        }
    }
}

impl Limited {
    /// One line in `every`.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self { every, next: None, held_back: 0 }
    }

    /// Whether a line may be written now, and how many were held back before it.
    pub fn admit(&mut self) -> Option<HeldBack> {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            self.held_back += 1;
            return None;
        }
        self.next = Some(now + self.every);
        Some(HeldBack(std::mem::take(&mut self.held_back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_period_and_the_next_tells_how_many_were_held_back() {
        let mut limited = Limited::new(Duration::from_secs(3_600));
        assert_eq!(limited.admit(), Some(HeldBack(0)));
        assert_eq!(limited.admit(), None);
        assert_eq!(limited.admit(), None);
        limited.next = None;
        let held_back = limited.admit().unwrap();
        assert_eq!(held_back.to_string(), " (and 2 like it since the last such line)");
        assert_eq!(HeldBack(0).to_string(), "");
    }
}
