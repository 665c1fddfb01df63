//! How long heads are waited for, which hyper asks of a timer.
//!
//! Problem: hyper sets such a wait with every request, and takes it back when the head is there, which nearly all are at once;
//! to put a timer among the others and to take it out again costs more than to read the head. Idea: each connection has one timer, which
//! stays set. When it rings, and it is not yet time for the wait that there is by then, it is set to that one. Rule kept:
//! no wait ends before its time, and none later than a timer of its own would end it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt;
use tokio::time::{Sleep, sleep_until};

/// The timer of one connection, for waits each of which ends later than the one before. The lock is that connection's alone.
#[derive(Clone, Default)]
pub(crate) struct Patience(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

/// A wait.
struct Wait {
    timer: Patience,
    until: tokio::time::Instant,
}

impl rt::Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Wait { timer: self.clone(), until: deadline.into() })
    }
}

impl rt::Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(self.until)));
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= self.until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.until);
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer as _;
    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_wait_ends_at_its_time_whatever_was_waited_for_before() {
        let (patience, time) = (Patience::default(), Duration::from_millis(100));
        let wait = async || {
            let began = Instant::now();
            timeout(PATIENCE, patience.sleep(time)).await.expect("an end");
            assert!(began.elapsed() >= time, "{:?}", began.elapsed());
        };
        // Given up in time, as when a head arrives.
        assert!(timeout(time / 2, patience.sleep(time)).await.is_err());
        wait().await;
        // The timer rings for nobody.
        assert!(timeout(time / 2, patience.sleep(time)).await.is_err());
        sleep(time).await;
        wait().await;
    }
}
