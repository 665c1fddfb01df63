//! Processor time, from Linux's `/proc`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

/// The processor time of some processes, and of all cores that we may use, at some moment.
pub(super) struct Reading {
    at: Instant,
    by_name: BTreeMap<String, f64>,
    busy_us: f64,
}

/// What was used between two readings, in microseconds.
pub(super) struct Used {
    pub(super) by_name: BTreeMap<String, f64>,
    /// The share of our cores that others had.
    pub(super) foreign: f64,
}

impl Reading {
    /// Of `processes`, and of this one as `client`.
    pub(super) fn now(processes: &[(String, u32)], cores: &[usize]) -> anyhow::Result<Self> {
        let mut by_name = BTreeMap::from([("client".to_owned(), process_us(std::process::id()))]);
        by_name.extend(processes.iter().map(|(name, pid)| (name.clone(), process_us(*pid))));
        Ok(Self { at: Instant::now(), by_name, busy_us: busy_us(cores)? })
    }

    /// What was used until `later`.
    pub(super) fn until(&self, later: &Self, cores: usize) -> Used {
        let used = |(name, us): (&String, &f64)| {
            let before = self.by_name.get(name).copied().unwrap_or_default();
            (name.clone(), (us - before).max(0.0))
        };
        let by_name: BTreeMap<String, f64> = later.by_name.iter().map(used).collect();
        let ours: f64 = by_name.values().sum();
        let all = (later.at - self.at).as_secs_f64() * 1e6 * cores as f64;
        Used { by_name, foreign: (later.busy_us - self.busy_us - ours).max(0.0) / all }
    }
}

/// The cores that this process may use.
pub(super) fn cores() -> anyhow::Result<Vec<usize>> {
    let text = std::fs::read_to_string("/proc/self/status").context("which cores may be used: bench needs Linux")?;
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).context("no list of cores")?;
    let of_part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    };
    Ok(list.split(',').filter_map(of_part).flatten().collect())
}

/// The processor time of all threads of a process so far, in microseconds; 0 for one that has gone.
fn process_us(pid: u32) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let of_thread = |path: &Path| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    threads.flatten().filter_map(|thread| of_thread(&thread.path())).sum::<f64>() / 1e3
}

/// For how long these cores were not idle so far, in microseconds.
fn busy_us(cores: &[usize]) -> anyhow::Result<f64> {
    /// A tick of Linux's accounts.
    const TICK_US: f64 = 10_000.0;
    let text = std::fs::read_to_string("/proc/stat").context("processor times: bench needs Linux")?;
    let ours = text.lines().filter_map(|line| {
        let (core, ticks) = line.strip_prefix("cpu")?.split_once(' ')?;
        let ticks: Vec<f64> = ticks.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        // All but the fourth and fifth, which are idle and waiting for a disk, and the guests that are in the first two.
        let busy = ticks.iter().take(3).chain(ticks.iter().skip(5).take(3)).sum::<f64>();
        cores.contains(&core.parse().ok()?).then_some(busy * TICK_US)
    });
    Ok(ours.sum())
}
