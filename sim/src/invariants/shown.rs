//! S13: what is served from a cache is served under a lease. S15: no queue is longer than it may be.
//!
//! Both are read off what a process shows people of itself: [`Decider::observe`] has each queue with its limit, and whether
//! the cache holds a lease, which it does only in a session. That is made only when somebody asks, and costs as much as many steps: so
//! the lease is looked at whenever something was served, and queues are after bursts, and now and then.
//!
//! That what was served is as new as anything acknowledged before is S12, in [`crate::auditor`].

use tradenet_core::metrics::{QUEUE_DEPTH, QUEUE_LIMIT, Readings, Value};
use tradenet_core::{ClientAnswer, Decider, Now, Output};

use super::{Verdict, Violation};

const S13: &str = "S13 a served cache entry has a valid session and lease";
const S15: &str = "S15 queues stay within limits";
/// The gauge of a frontend.
const LEASED: &str = "tradenet_cache_leased";

/// Whether an answer came from a cache.
pub(crate) fn is_hit(output: &Output) -> bool {
    matches!(output, Output::Answer(_, ClientAnswer::Stock { hit: true, .. }))
}

pub(crate) fn lease(shown: &Readings) -> Verdict {
    let leased = shown.0.iter().find(|reading| reading.metric.name == LEASED).map(|reading| &reading.value);
    match leased {
        Some(Value::Level(level)) if *level > 0.0 => Ok(()),
        other => Err(Violation::new(S13, format!("something is served, and the lease is {other:?}"))),
    }
}

pub(crate) fn queues(shown: &Readings) -> Verdict {
    for depth in shown.0.iter().filter(|reading| reading.metric.name == QUEUE_DEPTH.name) {
        let of = |reading: &&tradenet_core::metrics::Reading| {
            reading.metric.name == QUEUE_LIMIT.name && reading.labels == depth.labels
        };
        match (&depth.value, shown.0.iter().find(of).map(|limit| &limit.value)) {
            (Value::Level(waiting), Some(Value::Level(most))) if waiting <= most => {}
            (waiting, most) => {
                let text = format!("{:?}: {waiting:?} wait, of at most {most:?}", depth.labels);
                return Err(Violation::new(S15, text));
            }
        }
    }
    Ok(())
}

/// What a process shows at that moment.
pub(crate) fn shown(decider: &impl Decider, now: Now) -> Readings {
    let mut readings = Readings::default();
    decider.observe(now, &mut readings);
    readings
}
