//! What this process may have of the system, and ending child processes politely, then surely.
//!
//! The rule of the end: everyone gets SIGTERM and a bounded time to leave (finish what is in flight, sync, drain); who has not left
//! by then is killed, and the caller is told so that it can say it. A paused process (SIGSTOP) hears nothing until it is
//! continued, so it is continued first: otherwise every paused one would have to be killed.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Resource, getrlimit, kill_process, setrlimit};
use tokio::process::Child;

/// Raises the soft limit on open files and sockets to the hard one, and says how many this process may have then;
/// `u64::MAX` for any number. The usual soft limit, 1,024, is there for programs that use `select`, of which this is none.
///
/// # Errors
/// The system does not allow it; the soft limit is what it was.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// What can be sent to a process here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Leave cleanly (SIGTERM).
    Terminate,
    /// End at once, nothing is run any more (SIGKILL).
    Kill,
    /// Freeze (SIGSTOP).
    Pause,
    /// Go on after a freeze (SIGCONT).
    Resume,
}

/// Sends `signal` to the process `pid`.
///
/// # Errors
/// No such process, or not ours to signal. 0 is refused: to the kernel it means the whole process group.
pub fn send_signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let signal = match signal {
        Signal::Terminate => rustix::process::Signal::TERM,
        Signal::Kill => rustix::process::Signal::KILL,
        Signal::Pause => rustix::process::Signal::STOP,
        Signal::Resume => rustix::process::Signal::CONT,
    };
    Ok(kill_process(pid, signal)?)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, within the limit.
    Left(ExitStatus),
    /// It did not leave in time and was killed.
    Killed,
}

/// Asks `child` to leave and waits for it for at most `limit`, then kills it. A child that is already gone is fine.
///
/// # Errors
/// When the operating system cannot wait for the child; it is then in an unknown state.
pub async fn stop(child: &mut Child, limit: Duration) -> io::Result<Ended> {
    if let Some(pid) = child.id() {
        // Failing means that it has just gone; the wait below finds out.
        let _ = send_signal(pid, Signal::Terminate);
        let _ = send_signal(pid, Signal::Resume);
    }
    if let Ok(status) = tokio::time::timeout(limit, child.wait()).await {
        return status.map(Ended::Left);
    }
    child.kill().await?;
    Ok(Ended::Killed)
}
