//! The clocks of a machine.
//!
//! Problem: two machines never agree on the time, and leases are only as good as the bound on how far they drift apart.
//! Idea: virtual time is the truth; a process sees it from an arbitrary start and at a rate of its own, a few per cent off.
//! Rule kept: a monotonic clock never goes back, and drifts by no more than [`DRIFT_PPM_MAX`]; wall clocks may say anything.

use tradenet_core::{Mono, Now};

/// The most that a clock may be off, in millionths. Two clocks are then within the tenth that the protocol allows for.
pub const DRIFT_PPM_MAX: i64 = 40_000;

/// The clock of one machine.
#[derive(Clone, Debug)]
pub struct Clock {
    /// What it showed at `since`.
    base: u64,
    since: u64,
    ppm: i64,
    wall_offset_ms: u64,
}

const MILLION: i128 = 1_000_000;

impl Clock {
    /// A clock that starts at `base` and is off by so many millionths.
    pub fn new(now: u64, base: u64, ppm: i64, wall_offset_ms: u64) -> Self {
        Self { base, since: now, ppm, wall_offset_ms }
    }

    /// The wall clock jumps, and the monotonic one goes on from what it shows at another rate.
    pub fn jump(&mut self, now: u64, ppm: i64, wall_offset_ms: u64) {
        let base = self.local(now).mono.0;
        *self = Self::new(now, base, ppm, wall_offset_ms);
    }

    /// What it shows at that time of the world.
    pub fn local(&self, now: u64) -> Now {
        let passed = i128::from(now.saturating_sub(self.since));
        let shown = passed + passed * i128::from(self.ppm) / MILLION;
        Now { mono: Mono(self.base + u64::try_from(shown).unwrap_or(0)), wall_ms: self.wall_offset_ms + now / 1_000 }
    }

    /// About when it will show that moment; never early by more than the caller's next look.
    pub fn world_time(&self, at: Mono) -> u64 {
        let shown = i128::from(at.0.saturating_sub(self.base));
        let passed = (shown * MILLION).div_euclid(MILLION + i128::from(self.ppm)) + 1;
        self.since + u64::try_from(passed).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_reached_when_the_clock_is_said_to_reach_it() {
        for ppm in [-DRIFT_PPM_MAX, -1, 0, 1, DRIFT_PPM_MAX] {
            let clock = Clock::new(1_000, 77, ppm, 0);
            for at in [77, 78, 1_000, 123_456, 987_654_321] {
                let world = clock.world_time(Mono(at));
                assert!(clock.local(world).mono.0 >= at, "{ppm} {at}");
                assert!(clock.local(world.saturating_sub(3)).mono.0 <= at, "{ppm} {at}");
            }
        }
    }
}
