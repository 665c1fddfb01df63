//! The closed loop: a client asks the next thing when the last is answered.
//!
//! This is how a person at a screen behaves, and what the exchange's own evaluation needs. It measures service time
//! only: while the exchange stalls, its clients wait and ask nothing, so that a stall is one slow request and not the
//! hundred that would have met it. For that there is the open loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::exchange::{Client, Retry};
use crate::options::{Load, MAX_TRADES};
use crate::plan::Chance;
use crate::run::{Context, Done, Key};
use crate::wire::Side;

/// One client from its first lookup to its last outcome.
pub(crate) async fn client(context: Arc<Context>, number: u32) -> Done {
    let mut client = Client::new(Arc::clone(&context.shared), number);
    let mut done = Done::default();
    let mut plan = context.plan(number);
    let mut chance = Chance::new(context.options.seed, number);
    let mut budget = Budget::new(&context);
    let mut outage = None;
    let mut trades = 0;
    let most = MAX_TRADES / u64::from(context.options.clients);
    while !context.shared.stop.load(Ordering::Relaxed) && trades < most && budget.next() {
        let step = plan.step();
        let Some(quantity) = context.lookup(&mut client, step.stock, None).await else {
            // An exchange that is away must not eat the iterations up in an instant, nor hold the run for ever.
            let retry = outage.get_or_insert_with(|| Retry::until(context.options.deadline));
            if retry.pause().await {
                continue;
            }
            done.gave_up = true;
            break;
        };
        outage = None;
        match step.trade {
            Some(Side::Buy) if quantity == 0 => context.shared.recorder.count(|counts| counts.sold_out += 1),
            Some(side) => {
                let key = Key { client: number, trade: trades, intended: None };
                trades += 1;
                context.trade(&mut client, step.stock, side, key, &mut done.ledger).await;
                context.reread(&mut client, &mut chance, &mut done.ledger).await;
            }
            None => {}
        }
        if !context.options.think.is_zero() {
            tokio::time::sleep(context.options.think).await;
        }
    }
    done.opened = client.opened();
    done
}

/// How much one client has still to do.
struct Budget {
    iterations: u64,
    measure_from: Instant,
    end: Option<Instant>,
}

impl Budget {
    fn new(context: &Context) -> Self {
        let measure_from = context.shared.recorder.measure_from();
        let (iterations, time) = match context.options.load {
            Load::Iterations(iterations) => (iterations, None),
            Load::ClosedFor(time) | Load::Open { duration: time, .. } => (u64::MAX, Some(time)),
        };
        Self { iterations, measure_from, end: time.map(|time: Duration| measure_from + time) }
    }

    /// Whether another iteration begins. Those of the warm-up come on top.
    fn next(&mut self) -> bool {
        let now = Instant::now();
        if now < self.measure_from {
            return true;
        }
        if self.iterations == 0 || self.end.is_some_and(|end| now >= end) {
            return false;
        }
        self.iterations -= 1;
        true
    }
}
