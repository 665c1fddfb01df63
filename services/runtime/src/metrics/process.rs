//! What the system knows of this process. Looked up when it is asked for: some tens of microseconds.

use std::fs;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use tradenet_core::metrics::{Readings, Value};

use super::{CPU, MAX_FDS, OPEN_FDS, RESIDENT, STARTED};

/// Since when this process runs, in seconds since 1970: when this was first asked, which services do as they start.
pub(super) fn started() -> f64 {
    static STARTED: OnceLock<f64> = OnceLock::new();
    *STARTED.get_or_init(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
}

/// What can't be found out is left out.
#[allow(clippy::cast_precision_loss, reason = "beyond 2^53 a graph shows no difference")]
pub(super) fn observe(readings: &mut Readings) {
    let mut put = |metric, level: Option<f64>| {
        if let Some(level) = level {
            readings.put(metric, &[], Value::Level(level));
        }
    };
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    put(&STARTED, Some(started()));
    put(&CPU, Some(spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9));
    put(&RESIDENT, resident().map(|bytes| bytes as f64));
    put(&OPEN_FDS, fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64));
    put(&MAX_FDS, getrlimit(Resource::Nofile).current.map(|most| most as f64));
}

/// `VmRSS:     8420 kB`
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
