//! Allocations of a step, counted beside its time.

use allocation_counter::measure;

/// Runs `step` that many times, and prints what each allocated on the mean.
#[allow(clippy::disallowed_macros, reason = "a benchmark prints")]
pub(crate) fn count(name: &str, steps: u64, mut step: impl FnMut()) {
    let counted = measure(|| (0..steps).for_each(|_| step()));
    let each = |total: u64| total as f64 / steps as f64;
    println!("{name}: {:.3} allocations and {:.0} bytes", each(counted.count_total), each(counted.bytes_total));
}
