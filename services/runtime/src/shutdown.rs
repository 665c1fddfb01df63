//! One word, "leave", heard by every task of a process.
//!
//! The problem: SIGTERM, Ctrl-C and the end of the process that started us all mean the same thing, and many tasks have
//! to hear it, some of which start only after it was said. The idea: a value that goes from `None` to a reason once and
//! stays there; every task holds a clone. The rule: nobody exits the process from within a task; tasks return, and the
//! service's `run` returns last.
//!
//! ```
//! # async fn serve_one() {}
//! # async fn example(shutdown: tradenet_runtime::shutdown::Shutdown) {
//! loop {
//!     tokio::select! {
//!         _ = shutdown.requested() => break,
//!         () = serve_one() => {}
//!     }
//! }
//! # }
//! ```

use std::fmt;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// Set to `1` by a supervisor that holds the other end of our standard input: when it closes, the supervisor is gone and
/// so should we be.
///
/// An environment variable and not an option, because the supervisor publishes our arguments as the way to start us again
/// by hand, where there is no such pipe.
pub const PARENT_PIPE_ENV: &str = "TRADENET_PARENT_PIPE";

/// Why the process leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// SIGINT, mostly Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// The process that started us ended without a word.
    ParentGone,
    /// The program itself decided to.
    Asked,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::ParentGone => "the supervisor is gone",
            Self::Asked => "asked to",
        })
    }
}

/// The handle that tasks wait on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: watch::Receiver<Option<Reason>>,
}

/// The other end: says "leave". Dropping it without saying so leaves every [`Shutdown`] waiting for ever.
#[derive(Clone, Debug)]
pub struct Trigger {
    request: watch::Sender<Option<Reason>>,
}

impl Trigger {
    /// Says it. Only the first reason counts.
    pub fn request(&self, reason: Reason) {
        self.request.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        });
    }
}

impl Shutdown {
    /// A pair for programs that decide themselves, and for tests.
    #[must_use]
    pub fn new() -> (Trigger, Self) {
        let (request, requested) = watch::channel(None);
        (Trigger { request }, Self { requested })
    }

    /// A handle that resolves on SIGINT, SIGTERM, or when the supervisor is gone ([`PARENT_PIPE_ENV`]). Must be called
    /// within a tokio runtime, once in a process, and early: until then those signals kill.
    ///
    /// # Errors
    /// When the signal handlers or the thread that watches the supervisor cannot be set up.
    pub fn on_signals() -> io::Result<Self> {
        let (trigger, shutdown) = Self::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let parent = parent_gone()?;
        tokio::spawn(async move {
            let reason = tokio::select! {
                _ = interrupt.recv() => Reason::Interrupt,
                _ = terminate.recv() => Reason::Terminate,
                () = parent => Reason::ParentGone,
            };
            trigger.request(reason);
        });
        Ok(shutdown)
    }

    /// Waits until the process is to leave; at once if it already is. Safe to drop at any point and to call again.
    pub async fn requested(&self) -> Reason {
        let mut requested = self.requested.clone();
        let reason = requested.wait_for(Option::is_some).await.map(|reason| *reason);
        match reason {
            Ok(reason) => reason.unwrap_or(Reason::Asked),
            // The trigger is gone without a word, so nothing can come any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// The reason, if it has been said.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        *self.requested.borrow()
    }
}

/// Resolves when the process that started this one is gone; never, if that one did not set [`PARENT_PIPE_ENV`].
///
/// # Errors
/// When the watching thread cannot be started.
pub fn parent_gone() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let watched = std::env::var_os(PARENT_PIPE_ENV).is_some_and(|value| value == "1");
    let (gone, heard) = oneshot::channel();
    // What is not watched is never gone: keep the sender where it is not dropped before the receiver.
    let mut unwatched = Some(gone);
    if watched {
        let gone = unwatched.take();
        // A thread of its own and not tokio's standard input: that one's pending read would hold up the runtime's end.
        std::thread::Builder::new().name("parent-pipe".into()).spawn(move || {
            wait_for_end(&mut io::stdin().lock());
            gone.map(|gone| gone.send(()))
        })?;
    }
    Ok(async move {
        let _unwatched = unwatched;
        let _ = heard.await;
    })
}

/// Reads and drops everything up to the end. An error other than an interruption also means that nobody is there.
fn wait_for_end(input: &mut impl io::Read) {
    let mut dropped = [0_u8; 64];
    loop {
        match input.read(&mut dropped) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_the_first_reason_whenever_it_asks() {
        let (trigger, shutdown) = Shutdown::new();
        let early = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert_eq!(shutdown.reason(), None);
        trigger.request(Reason::Terminate);
        trigger.request(Reason::Interrupt);
        assert_eq!(early.await.unwrap(), Reason::Terminate);
        assert_eq!(shutdown.clone().requested().await, Reason::Terminate);
        assert_eq!(shutdown.reason(), Some(Reason::Terminate));
    }

    #[tokio::test]
    async fn a_reason_survives_its_trigger() {
        let (trigger, shutdown) = Shutdown::new();
        trigger.request(Reason::Asked);
        drop(trigger);
        assert_eq!(shutdown.requested().await, Reason::Asked);
    }

    #[test]
    fn the_parent_is_gone_when_the_pipe_ends_and_not_when_it_speaks() {
        let mut input = io::Cursor::new(b"anything".repeat(100));
        wait_for_end(&mut input);
        assert_eq!(input.position(), 800);
    }
}
