//! When a decider looks at its timers.
//!
//! Problem: what is under way wants a look every few milliseconds, but most of the time nothing is, and an exchange that only
//! waits should not wake six processes forty times a second each. Idea: a decider that rests names its next duty, such as a
//! keep-alive. It looks again when that is due and something arrives, so that one beat of a frontend sets off all that is
//! due in the others; should nothing arrive, by itself a moment later. Rule kept: no duty is later by more than [`TICK`], but for a leader's
//! first probe of who has fallen silent, which may wait for the next keep-alive; and as soon as anything is under way the next look
//! is no further away than that.

use std::time::Duration;

use crate::Mono;

/// How often a decider with something under way looks at its timers.
pub(crate) const TICK: Duration = Duration::from_millis(25);

/// The next look. See the module.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Ticks {
    /// From then on with whatever arrives.
    due: Mono,
    /// At the latest.
    by: Mono,
}

impl Ticks {
    /// The next look is now.
    pub(crate) fn at_once(now: Mono) -> Self {
        Self { due: now, by: now }
    }

    /// The next look, one tick away.
    pub(crate) fn soon(now: Mono) -> Self {
        Self::at_once(now.after(TICK))
    }

    /// The next look of one who rests until `duty`, which others set off.
    pub(crate) fn resting(duty: Mono) -> Self {
        Self { due: duty, by: duty.after(TICK) }
    }

    /// Whether it is time to look.
    pub(crate) fn are_due(self, now: Mono) -> bool {
        now >= self.due
    }

    /// The next look of one for whom it is too early, after something has arrived: no further away than one tick if that began
    /// something (`rests` gives none), and no later than a duty that has become due sooner.
    pub(crate) fn hastened(self, now: Mono, rests: impl FnOnce() -> Option<Mono>) -> Self {
        if self.by <= now.after(TICK) {
            return self;
        }
        match rests() {
            None => Self::soon(now),
            Some(duty) if duty < self.due => Self::resting(duty),
            Some(_) => self,
        }
    }

    /// When to look if nothing arrives.
    pub(crate) fn by(self) -> Mono {
        self.by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_rests_is_woken_by_others_or_looks_one_tick_later() {
        let (start, duty) = (Mono(1_000_000), Mono(1_100_000));
        let resting = Ticks::resting(duty);
        assert!(!resting.are_due(Mono(1_099_999)) && resting.are_due(duty));
        assert_eq!(resting.by(), duty.after(TICK));
        assert!(Ticks::soon(start).are_due(start.after(TICK)) && Ticks::at_once(start).are_due(start));
    }

    #[test]
    fn what_arrives_hastens_the_next_look_and_never_puts_it_off() {
        let (start, duty) = (Mono(1_000_000), Mono(1_100_000));
        for (rests, by) in [
            (None, start.after(TICK)),                            // Something is under way now.
            (Some(Mono(1_030_000)), Mono(1_030_000).after(TICK)), // A new duty before the one that was waited for.
            (Some(Mono(0)), Mono(0).after(TICK)),                 // One that is due already.
            (Some(duty), duty.after(TICK)),
            (Some(Mono(1_200_000)), duty.after(TICK)),
        ] {
            assert_eq!(Ticks::resting(duty).hastened(start, || rests).by(), by, "{rests:?}");
        }
        let soon = Ticks::soon(start);
        assert_eq!(soon.hastened(start, || unreachable!("it is near enough")).by(), soon.by());
    }
}
