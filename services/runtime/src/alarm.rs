//! When a decider is woken, if nothing else wakes it.
//!
//! Problem: a decider at rest names a time that it moves on with nearly everything that arrives, so that it is hardly ever woken by
//! it. tokio keeps its timers in a wheel, and wakes the process at the borders of blocks of 64 ms to sort those that come next, also
//! those that were moved on meanwhile: an exchange that nobody uses was woken more often for that than by messages. Idea: one timer of the
//! kernel (timerfd_create(2)), which knows nothing but the time that was set last. Rule kept: it is set anew only when
//! that time changes, which under load is some forty times a second.

use std::io;
use std::task::{Context, Poll};

use tradenet_core::Mono;

#[cfg(not(target_os = "linux"))]
use elsewhere::Timer;
#[cfg(target_os = "linux")]
use linux::Timer;

/// A time to be woken at. See the module.
pub(crate) struct Alarm {
    timer: Timer,
    at: Option<Mono>,
}

impl Alarm {
    /// One that is not set. Needs tokio's runtime around it.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { timer: Timer::new()?, at: None })
    }

    /// Sets it to another time, which may have passed, or to none.
    ///
    /// # Errors
    /// None that is known, for a timer that is there.
    pub(crate) fn set(&mut self, at: Option<Mono>, now: Mono) -> io::Result<()> {
        if self.at != at {
            self.at = at;
            self.timer.set(at.map(|at| at.since(now)))?;
        }
        Ok(())
    }

    /// Whether that time has come; it is set to none then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let rung = self.at.map_or(Poll::Pending, |_| self.timer.poll(cx));
        if rung.is_ready() {
            self.at = None;
        }
        rung
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    /// No time at all would mean never.
    const AT_ONCE: Duration = Duration::from_nanos(1);

    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            // The deciders' clock, which goes on while the machine is suspended.
            let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
            #[allow(
                deprecated,
                reason = "its successor is for whatever may be closed meanwhile, and unsafe; this owns its timer"
            )]
            let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
            Ok(Self(timer))
        }

        pub(super) fn set(&self, wait: Option<Duration>) -> io::Result<()> {
            let wait = wait.map(|wait| Timespec::try_from(wait.max(AT_ONCE)).map_err(io::Error::other)).transpose()?;
            let once = Itimerspec { it_interval: NEVER, it_value: wait.unwrap_or(NEVER) };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }

        pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
            loop {
                // Fails only where the runtime ends, which ends this as well.
                let Ok(mut ready) = ready!(self.0.poll_read_ready(cx)) else { return Poll::Pending };
                // How often it has rung, which is no more where it was set anew meanwhile.
                match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0_u8; 8])?)) {
                    Ok(_) => return Poll::Ready(()),
                    Err(_would_block) => {}
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::future::Future as _;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep};

    pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(None))
        }

        pub(super) fn set(&mut self, wait: Option<Duration>) -> io::Result<()> {
            match (&mut self.0, wait) {
                (Some(timer), Some(wait)) => timer.as_mut().reset(Instant::now() + wait),
                (timer, wait) => *timer = wait.map(|wait| Box::pin(sleep(wait))),
            }
            Ok(())
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            self.0.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn it_rings_once_at_the_time_that_was_set_last() {
        let (clock, mut alarm) = (Clock::new(), Alarm::new().unwrap());
        let start = clock.now().mono;
        let (soon, later) = (start.after(Duration::from_millis(5)), start.after(Duration::from_millis(30)));
        for (set, rings) in [
            (&[soon][..], soon),
            (&[soon, later], later),
            (&[later, soon], soon),
            (&[Mono(0)], start),
            (&[later, start], start),
        ] {
            for at in set {
                alarm.set(Some(*at), clock.now().mono).unwrap();
            }
            poll_fn(|cx| alarm.poll(cx)).await;
            assert!(clock.now().mono >= rings, "{set:?}");
            assert_eq!(poll_fn(|cx| alarm.poll(cx)).now_or_never(), None, "{set:?}: it rings again");
        }
    }

    #[tokio::test]
    async fn it_does_not_ring_when_it_was_set_to_none() {
        let (clock, mut alarm) = (Clock::new(), Alarm::new().unwrap());
        for at in [Some(Mono(0)), None] {
            alarm.set(at, clock.now().mono).unwrap();
        }
        // One that was set later has rung: the former would have, too.
        let mut other = Alarm::new().unwrap();
        other.set(Some(Mono(0)), clock.now().mono).unwrap();
        poll_fn(|cx| other.poll(cx)).await;
        assert_eq!(poll_fn(|cx| alarm.poll(cx)).now_or_never(), None);
    }
}
