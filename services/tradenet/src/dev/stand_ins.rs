//! Processes that were started by hand from a command in `dev.json`.
//!
//! A child that dies stays dead until somebody runs its command again; what then runs is not our child, but it serves in
//! its place, and "Ctrl-C stops everything" is about it too. The idea: such a process is known by its command line, the
//! very words of `dev.json`. The rule: a process is signalled only while its command line is that one, because its number
//! alone may be somebody else's by now. Where there is no `/proc` nobody is found.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tradenet_runtime::process::{Signal, send_signal};

/// How often a process that was asked to leave is looked at; it is not our child, so nobody tells us.
const LEFT_POLL_MS: u64 = 50;

/// Whether the process `pid` was started as `argv`.
pub(super) fn runs(pid: u32, argv: &[String]) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let started = argv.iter().flat_map(|argument| argument.bytes().chain([0]));
    !line.is_empty() && line.iter().copied().eq(started)
}

/// A process that was started as `argv`, if there is one.
pub(super) fn find(argv: &[String]) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| runs(*pid, argv))
}

/// Asks it to leave, waits for at most `limit`, then kills it; whether it left by itself.
pub(super) async fn stop(pid: u32, argv: &[String], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    for signal in [Signal::Terminate, Signal::Resume] {
        if runs(pid, argv) {
            // Failing means that it has just gone.
            let _ = send_signal(pid, signal);
        }
    }
    while runs(pid, argv) {
        if Instant::now() >= deadline {
            let _ = send_signal(pid, Signal::Kill);
            return false;
        }
        sleep(Duration::from_millis(LEFT_POLL_MS)).await;
    }
    true
}
