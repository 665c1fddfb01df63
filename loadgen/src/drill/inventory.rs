//! The services of a `tradenet dev`, through the `dev.json` it keeps.
//!
//! A process number alone is no address: the process may be gone and its number somebody else's. So nothing is signalled
//! unless its command line is still the one that was started. What the drill starts again it writes back into `dev.json`,
//! with its new number, so that the file stays true for the next drill and for `tradenet dev` itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::fault::Action;
use crate::url::BaseUrl;

/// How long a process gets to end after a signal before it is killed, or before the drill gives up on a killed one.
const END_WAIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);

/// `dev.json`; what else stands in it is kept.
#[derive(Serialize, Deserialize)]
struct State {
    frontends: Vec<String>,
    processes: Vec<Process>,
    #[serde(flatten)]
    other: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Process {
    name: String,
    pid: u32,
    argv: Vec<String>,
    #[serde(flatten)]
    other: serde_json::Map<String, serde_json::Value>,
}

/// The services, as `dev.json` has them.
pub(super) struct Inventory {
    path: PathBuf,
    state: State,
    /// Process numbers that this drill started.
    started: Vec<u32>,
}

impl Inventory {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let hint = || format!("{}: is `tradenet dev` running, and is this its dev.json?", path.display());
        let bytes = std::fs::read(path).with_context(hint)?;
        let state = serde_json::from_slice(&bytes).with_context(hint)?;
        Ok(Self { path: path.to_owned(), state, started: Vec::new() })
    }

    pub(super) fn frontends(&self) -> anyhow::Result<Vec<BaseUrl>> {
        self.state.frontends.iter().map(|text| text.parse().context("in dev.json")).collect()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state.processes.iter().map(|process| process.name.clone()).collect()
    }

    /// The command that compares the order files of all replicas; empty where no command line names a directory.
    pub(super) fn verify_command(&self) -> Vec<String> {
        let replicas = self.state.processes.iter().filter(|process| process.name.starts_with("order-"));
        let directory = |process: &Process| {
            let option = process.argv.iter().position(|argument| argument == "--data-dir")?;
            Some((process.argv.first()?.clone(), process.argv.get(option + 1)?.clone()))
        };
        let (programs, directories): (BTreeSet<String>, BTreeSet<String>) = replicas.filter_map(directory).unzip();
        let verify = programs.into_iter().take(1).flat_map(|program| [program, "verify".to_owned()]);
        verify.chain(directories).collect()
    }

    /// Services that this drill started and that still run, with their process numbers.
    pub(super) fn left_running(&self) -> Vec<String> {
        let ours = self.state.processes.iter().filter(|process| self.started.contains(&process.pid) && process.runs());
        ours.map(|process| format!("{} ({})", process.name, process.pid)).collect()
    }

    /// Does `action` to the service `name`, at once.
    pub(super) fn harm(&self, action: Action, name: &str) -> anyhow::Result<()> {
        let signal = match action {
            Action::Kill => Signal::KILL,
            Action::Stop | Action::Restart => Signal::TERM,
            Action::Pause => Signal::STOP,
            Action::Cut => anyhow::bail!("processes share this machine's network: only containers can be cut off"),
        };
        self.process(name)?.signal(signal)
    }

    /// Undoes it: wakes the service, or starts it again when it has ended.
    pub(super) async fn heal(&mut self, action: Action, name: &str) -> anyhow::Result<()> {
        let process = self.process(name)?.clone();
        if action == Action::Pause {
            return process.signal(Signal::CONT);
        }
        process.ended().await?;
        let pid = self.start(&process)?;
        self.started.push(pid);
        for process in self.state.processes.iter_mut().filter(|process| process.name == name) {
            process.pid = pid;
        }
        self.write()
    }

    fn process(&self, name: &str) -> anyhow::Result<&Process> {
        let process = self.state.processes.iter().find(|process| process.name == name);
        process.with_context(|| format!("{name} is not in {}", self.path.display()))
    }

    /// Starts a service as it was started first, in a group of its own: an interrupt for the drill is not for it.
    fn start(&self, process: &Process) -> anyhow::Result<u32> {
        let (program, arguments) = process.argv.split_first().context("its argv in dev.json is empty")?;
        let log = self.path.with_file_name(format!("drill-{}.log", process.name));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{}: cannot be written", log.display()))?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let mut child = command.spawn().with_context(|| format!("{program} cannot be started"))?;
        let pid = child.id().context("it ended at once")?;
        // Waited for, so that it leaves no zombie behind if a later fault ends it.
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        Ok(pid)
    }

    /// Replaces `dev.json` in one step.
    fn write(&self) -> anyhow::Result<()> {
        let cannot = || format!("{}: cannot be replaced", self.path.display());
        let beside = self.path.with_extension("drill");
        let mut text = serde_json::to_string_pretty(&self.state)?;
        text.push('\n');
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &self.path)).with_context(cannot)
    }
}

impl Process {
    /// Whether it still runs, and is what was started. A zombie has no command line any more.
    fn runs(&self) -> bool {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let started: Vec<u8> = self.argv.iter().flat_map(|argument| argument.bytes().chain([0])).collect();
        !line.is_empty() && line == started
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        anyhow::ensure!(self.runs(), "process {} of {} does not run (any more)", self.pid, self.name);
        let pid =
            i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("dev.json has no valid process number")?;
        kill_process(pid, signal).with_context(|| format!("process {} cannot be signalled", self.pid))
    }

    async fn ended(&self) -> anyhow::Result<()> {
        if self.wait_end().await {
            return Ok(());
        }
        // It was asked to end and does not: that is worth knowing, and it must not hold its files any longer.
        self.signal(Signal::KILL)?;
        anyhow::ensure!(self.wait_end().await, "process {} does not end", self.pid);
        Ok(())
    }

    async fn wait_end(&self) -> bool {
        let end = Instant::now() + END_WAIT;
        while self.runs() {
            if Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}
