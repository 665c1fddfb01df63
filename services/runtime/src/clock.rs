//! The time as the deciders see it.
//!
//! The problem: leases must end on time even if the machine slept in between, and deciders must not read clocks. The idea:
//! one clock for each process that counts suspended time too, where the system has such a one. The rules: what is decided
//! uses only [`Now::mono`]; the wall clock is for people; the count starts far above zero, so that a zero in a decider's
//! state lies further back than any of its periods.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tradenet_core::{Mono, Now};

/// Linux stops `CLOCK_MONOTONIC` while the machine is suspended: a lease would outlive the night.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
/// Elsewhere it counts on.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// What a process's clock shows at its start: one hour, in microseconds.
const START_US: u64 = 3_600_000_000;

/// The clock of one process. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin_us: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin_us: raw_us() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: Mono(START_US + raw_us().saturating_sub(self.origin_us)),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Microseconds since some moment before this process started.
fn raw_us() -> u64 {
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn it_starts_beyond_every_period_and_runs_with_the_systems_clock() {
        let (clock, started) = (Clock::new(), Instant::now());
        let first = clock.now().mono;
        assert!(first >= Mono(START_US));
        std::thread::sleep(Duration::from_millis(20));
        let (passed, expected) = (clock.now().mono.since(first), started.elapsed());
        assert!(passed >= Duration::from_millis(20) && passed <= expected, "{passed:?} of {expected:?}");
    }
}
