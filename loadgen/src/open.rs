//! The open loop: requests start on schedule, whether or not earlier ones are answered.
//!
//! People do not wait for each other's answers, so the load on an exchange does not pause because the exchange does.
//! Every request has an intended start, fixed by the rate alone, and its latency counts from there: what a stall did to
//! those who had to wait is in the percentiles, and not left out (coordinated omission).
//!
//! Timers of an async runtime have a resolution of 1 ms, so a thread of its own keeps the time and hands out one permit
//! for each request that is due. A connection that was idle when its permit came measures the generator's own lag by
//! how late it starts; one that found permits waiting was itself the bottleneck, which is counted apart.
//!
//! Lookups and trades follow the same plan as in a closed loop, but a trade starts one slot after its lookup and does
//! not wait for it: whether stocks are left is judged by the last answer seen for that stock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::exchange::Client;
use crate::plan::{Plan, Step};
use crate::recorder::Start;
use crate::run::{Context, Done, Key};
use crate::wire::Side;

/// Longest sleep of the thread that keeps the time, after which it looks whether the run is still wanted.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What all connections of an open loop share.
pub(crate) struct Schedule {
    start: Instant,
    rate: f64,
    slots: u64,
    /// No slot is begun after this: an exchange that answers nothing must not hold the run for ever.
    give_up: Instant,
    due: Semaphore,
    next: Mutex<Next>,
    /// The last quantity seen of each stock.
    left: Vec<AtomicU64>,
    stopped: AtomicBool,
}

/// The next slot.
struct Next {
    slot: u64,
    plan: Plan,
    /// The trade that belongs to the lookup of the slot before.
    trade: Option<(usize, Side)>,
}

/// A request and when it should start.
struct Slot {
    number: u64,
    intended: Instant,
    stock: usize,
    trade: Option<Side>,
}

/// Ends the time-keeping thread with the run, also where the run is dropped half-way.
pub(crate) struct Pacer(Arc<Schedule>);

impl Drop for Pacer {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

impl Schedule {
    /// `rate` requests a second for `duration`, from the beginning of the run on.
    pub(crate) fn new(context: &Context, rate: f64, duration: Duration) -> Self {
        let start = context.shared.recorder.start();
        let left = context.stocks.iter().map(|stock| AtomicU64::new(stock.quantity)).collect();
        Self {
            start,
            rate,
            slots: slots(rate, duration),
            give_up: start + duration + context.options.deadline,
            due: Semaphore::new(0),
            next: Mutex::new(Next { slot: 0, plan: context.plan(0), trade: None }),
            left,
            stopped: AtomicBool::new(false),
        }
    }

    /// Starts the thread that hands out permits.
    ///
    /// # Errors
    /// Where the system starts no thread.
    pub(crate) fn pace(self: &Arc<Self>, connections: u32) -> anyhow::Result<Pacer> {
        let schedule = Arc::clone(self);
        let keep_time = move || schedule.keep_time(connections);
        std::thread::Builder::new().name("loadgen-pacer".to_owned()).spawn(keep_time)?;
        Ok(Pacer(Arc::clone(self)))
    }

    fn keep_time(&self, connections: u32) {
        let mut handed_out = 0;
        while handed_out < self.slots && !self.stopped.load(Ordering::Relaxed) {
            let now = Instant::now();
            let mut due = 0;
            while handed_out < self.slots && self.intended(handed_out) <= now {
                handed_out += 1;
                due += 1;
            }
            if due > 0 {
                self.due.add_permits(due);
            } else {
                std::thread::sleep((self.intended(handed_out) - now).min(LONGEST_SLEEP));
            }
        }
        // One more for each connection, so that all of them learn of the end.
        self.due.add_permits(connections as usize);
    }

    fn intended(&self, slot: u64) -> Instant {
        self.start + Duration::from_secs_f64(crate::report::as_f64(slot) / self.rate)
    }

    /// Waits for the next slot; none at the end. Says whether this connection was idle before it was due.
    async fn next(&self) -> Option<(Slot, bool)> {
        let (permit, idle) = match self.due.try_acquire() {
            Ok(permit) => (permit, false),
            Err(_) => (self.due.acquire().await.ok()?, true),
        };
        permit.forget();
        let mut next = self.lock();
        if next.slot >= self.slots {
            return None;
        }
        let number = next.slot;
        next.slot += 1;
        let (stock, trade) = match next.trade.take() {
            Some((stock, side)) => (stock, Some(side)),
            None => {
                let Step { stock, trade } = next.plan.step();
                next.trade = trade.map(|side| (stock, side));
                (stock, None)
            }
        };
        Some((Slot { number, intended: self.intended(number), stock, trade }, idle))
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many requests a schedule has.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "RunOptions::check bounds the product")]
fn slots(rate: f64, duration: Duration) -> u64 {
    (rate * duration.as_secs_f64()).round() as u64
}

/// One connection, which serves slots until the schedule ends.
pub(crate) async fn connection(context: Arc<Context>, schedule: Arc<Schedule>, number: u32) -> Done {
    let mut client = Client::new(Arc::clone(&context.shared), number);
    let mut done = Done::default();
    while let Some((slot, idle)) = schedule.next().await {
        let now = Instant::now();
        if now >= schedule.give_up {
            context.shared.recorder.count(|counts| counts.unsent += 1);
            done.gave_up = true;
            continue;
        }
        let late = now.saturating_duration_since(slot.intended);
        if context.options.late_most.is_some_and(|most| late > most) {
            context.shared.recorder.count(|counts| counts.unsent += 1);
            continue;
        }
        context.shared.recorder.started(if idle { Start::Idle(late) } else { Start::Waited(late) }, slot.intended);
        serve(&context, &schedule, &mut client, number, &slot, &mut done).await;
    }
    done.opened = client.opened();
    done
}

async fn serve(context: &Context, schedule: &Schedule, client: &mut Client, number: u32, slot: &Slot, done: &mut Done) {
    let left = &schedule.left[slot.stock];
    match slot.trade {
        Some(Side::Buy) if left.load(Ordering::Relaxed) == 0 => {
            // The slot is not left empty: what it does instead may find that there are stocks again.
            context.shared.recorder.count(|counts| counts.sold_out += 1);
        }
        Some(side) => {
            let key = Key { client: number, trade: slot.number, intended: Some(slot.intended) };
            return context.trade(client, slot.stock, side, key, &mut done.ledger).await;
        }
        None => {}
    }
    if let Some(quantity) = context.lookup(client, slot.stock, Some(slot.intended)).await {
        left.store(quantity, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_rate_times_duration_requests() {
        for (rate, millis, expected) in [(100.0, 1_000, 100), (0.5, 10_000, 5), (1_000.0, 30_000, 30_000), (3.0, 0, 0)]
        {
            assert_eq!(slots(rate, Duration::from_millis(millis)), expected);
        }
    }
}
