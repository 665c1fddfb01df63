//! The data directory of one exchange: made, locked, and told apart from what an earlier run left in it.
//!
//! The rules: one `tradenet dev` a directory (a file lock, which ends with the process however it ends); `dev.json` is
//! whole or not there, and there only from the moment when everything is ready until all of it has been stopped; and
//! nothing is started while a process of an earlier run still works on the same files.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::children::Running;
use super::stand_ins;

const STOCKS_DEFAULT: &str = include_str!("../../stocks.csv");
const LOCK_FILE: &str = "dev.lock";
const STATE_FILE: &str = "dev.json";

/// What an earlier run's services get to leave after their supervisor was killed: as long as they get when it stops them.
const LEFTOVERS_WAIT_MAX_S: u64 = 12;
const LEFTOVERS_POLL_MS: u64 = 50;

/// The data directory, ours until this is dropped.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    /// The path again; arguments and dev.json are text.
    text: String,
    _lock: File,
}

/// `dev.json`, as scripts read it.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// The supervisor's own, by which a script knows a file that a killed one left.
    #[serde(default)]
    pid: u32,
    nats_url: String,
    frontends: Vec<String>,
    processes: Vec<Process>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Process {
    name: String,
    pid: u32,
    argv: Vec<String>,
    /// Where it shows how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
}

impl Home {
    /// Makes the directory if need be, and takes it.
    ///
    /// # Errors
    /// It cannot be made or written, somebody has it, or an earlier run's process does not leave it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let refused =
            || format!("the data directory {} cannot be used; choose another with --data-dir", path.display());
        std::fs::create_dir_all(path).with_context(refused)?;
        // Absolute, so that the commands in dev.json work from any directory.
        let path = std::fs::canonicalize(path).with_context(refused)?;
        let Some(text) = path.to_str().map(str::to_owned) else {
            bail!("the data directory {} is not plain text (UTF-8); choose another with --data-dir", path.display());
        };
        std::fs::read_dir(&path).with_context(refused)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .with_context(refused)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another `tradenet dev` runs in {text}; stop it, or choose another directory with --data-dir")
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(refused),
        }
        let home = Self { path, text, _lock: lock };
        home.wait_for_leftovers()?;
        home.unpublish().with_context(refused)?;
        Ok(home)
    }

    /// Absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The same as text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The file with the stocks that are listed at first: the one that was named, or our own copy of the built-in list.
    /// A copy that is there already stays, it may have been edited.
    ///
    /// # Errors
    /// The named file cannot be read, or the copy not be written.
    pub(super) fn stocks(&self, named: Option<&Path>) -> anyhow::Result<PathBuf> {
        if let Some(named) = named {
            let refused = || format!("the stocks file {} cannot be read; name another with --stocks", named.display());
            File::open(named).and_then(|file| file.metadata()).with_context(refused).and_then(|metadata| {
                if metadata.is_file() { Ok(()) } else { Err(anyhow::anyhow!("it is no file")).with_context(refused) }
            })?;
            return std::fs::canonicalize(named).with_context(refused);
        }
        let copy = self.path.join("stocks.csv");
        if !copy.exists() {
            self.write_whole(&copy, STOCKS_DEFAULT.as_bytes())?;
        }
        Ok(copy)
    }

    /// Writes `dev.json`.
    ///
    /// # Errors
    /// The directory has become unwritable.
    pub(super) fn publish(&self, nats_url: &str, frontends: &[SocketAddr], children: &[Running]) -> anyhow::Result<()> {
        let process = |child: &Running| Process {
            name: child.name.clone(),
            pid: child.pid,
            argv: child.argv.clone(),
            metrics: child.metrics(),
        };
        let state = State {
            pid: std::process::id(),
            nats_url: nats_url.to_owned(),
            frontends: frontends.iter().map(|address| format!("http://{address}")).collect(),
            processes: children.iter().map(process).collect(),
        };
        let mut json = serde_json::to_vec_pretty(&state)?;
        json.push(b'\n');
        self.write_whole(&self.path.join(STATE_FILE), &json)
    }

    /// Takes `dev.json` away: what it says is no longer so.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn unpublish(&self) -> std::io::Result<()> {
        match std::fs::remove_file(self.path.join(STATE_FILE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Whoever sees the file sees all of it: written beside, then renamed.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let beside = path.with_extension("new");
        let written = File::create(&beside).and_then(|mut file| file.write_all(bytes));
        written.and_then(|()| std::fs::rename(&beside, path)).with_context(|| {
            format!("cannot write {} in the data directory; free some space or choose another", path.display())
        })
    }

    /// After a supervisor was killed its services leave by themselves, but that takes a moment, and until then they hold
    /// the files. The broker does not leave; whoever starts the next one ends it.
    fn wait_for_leftovers(&self) -> anyhow::Result<()> {
        let Some(state) = std::fs::read(self.path.join(STATE_FILE)).ok() else {
            return Ok(());
        };
        let Ok(state) = serde_json::from_slice::<State>(&state) else {
            return Ok(());
        };
        let deadline = Instant::now() + Duration::from_secs(LEFTOVERS_WAIT_MAX_S);
        for process in state.processes.iter().filter(|process| process.name != "nats") {
            while stand_ins::runs(process.pid, &process.argv) {
                if Instant::now() > deadline {
                    bail!(
                        "{} of an earlier run (process {}) still uses {}; end it first",
                        process.name,
                        process.pid,
                        self.text
                    );
                }
                // Nothing else goes on in this process yet.
                std::thread::sleep(Duration::from_millis(LEFTOVERS_POLL_MS));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_has_what_is_promised() {
        let mut lines = STOCKS_DEFAULT.lines();
        assert_eq!(lines.next(), Some("name,price,quantity"));
        let stocks: Vec<&str> = lines.collect();
        assert!(stocks.len() >= 10, "{}", stocks.len());
        assert!(stocks.contains(&"GameStart,15.99,100"));
        assert!(stocks.iter().all(|stock| stock.ends_with(",100")), "{stocks:?}");
        assert!(stocks.is_sorted_by_key(|stock| stock.split(',').next()));
    }
}
