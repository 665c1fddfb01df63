//! Running a nats-server for one exchange on this machine.
//!
//! [`BrokerCommand`] is what to run: a plain argument list that anybody may run by hand later and get the same broker back
//! on the same port. [`BrokerProcess`] is one that runs, for tests and benchmarks, which kill and restart it.
//!
//! The rules: ready means that *this* process has said so in its ports file and accepts connections, not that somebody
//! answers on the port. And there is never a second server on the same files (they are not locked by the server): one
//! that a killed supervisor left behind is ended first.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::BrokerError;
use crate::ports;
use crate::process::{Ended, Signal, send_signal, stop};

const CONFIG: &str = include_str!("../../../../nats/dev.conf");
const CONFIG_FILE: &str = "nats.conf";
const PID_FILE: &str = "nats.pid";
const LOG_FILE: &str = "nats.log";

/// It takes some 10 ms; on a machine that runs a whole test suite, more.
const READY_WAIT_MAX_S: u64 = 20;
const READY_POLL_MS: u64 = 5;
const STOP_WAIT_MAX_S: u64 = 5;
/// Between choosing a port and the server taking it, another program may take it; a second choice collides by chance only.
const START_ATTEMPTS_MAX: usize = 3;
/// How much of its log is looked at for the reason of a failed start.
const LOG_TAIL_BYTES: usize = 4096;

/// How to run one.
#[derive(Debug)]
pub struct BrokerCommand {
    program: PathBuf,
    dir: PathBuf,
    port: u16,
    /// Keeps the port from others until the server starts.
    held: Option<TcpListener>,
}

impl BrokerCommand {
    /// Makes `dir` ready for a server: its configuration, and nobody else on its files. `port`: `None` for a free one.
    /// All its files go below `dir`; the same `dir` again means the same state.
    ///
    /// # Errors
    /// The directory cannot be written, no port is free, or a server from before does not end.
    pub async fn prepare(program: &Path, dir: &Path, port: Option<u16>) -> Result<Self, BrokerError> {
        let in_dir = |source| BrokerError::Directory { dir: dir.to_path_buf(), source };
        std::fs::create_dir_all(dir).map_err(in_dir)?;
        // Absolute, so that the command works from any directory.
        let dir = std::fs::canonicalize(dir).map_err(in_dir)?;
        end_leftover(&dir).await?;
        remove_ports_files(&dir).map_err(in_dir)?;
        std::fs::write(dir.join(CONFIG_FILE), CONFIG).map_err(in_dir)?;
        let (port, held) = match port {
            Some(port) => (port, None),
            None => {
                let listener = ports::hold_free(1).map_err(in_dir)?.pop();
                let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
                (address.map_or(0, |address| address.port()), listener)
            }
        };
        Ok(Self { program: program.to_path_buf(), dir, port, held })
    }

    /// The whole command line. Running it by itself brings the broker back on the same port with the same state.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let pairs = [
            ("--config", text(&self.dir.join(CONFIG_FILE))),
            ("--port", self.port.to_string()),
            ("--store_dir", text(&self.dir)),
            ("--ports_file_dir", text(&self.dir)),
            ("--pid", text(&self.dir.join(PID_FILE))),
        ];
        let options = pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once(text(&self.program)).chain(options).collect()
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Starts it, in a process group of its own (Ctrl-C in a terminal is for its supervisor, which stops it last), with
    /// its log going to `log`. It does not outlive the handle.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn spawn(&mut self, log: Stdio) -> Result<Child, BrokerError> {
        let argv = self.argv();
        let mut command = Command::new(&self.program);
        command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.process_group(0).kill_on_drop(true);
        self.held = None;
        command.spawn().map_err(|source| BrokerError::Spawn { program: self.program.clone(), source })
    }

    /// Waits until the process `pid`, started with this command, accepts connections. Whether it still lives is for the
    /// caller to watch.
    ///
    /// # Errors
    /// When it does not within 20 s.
    pub async fn ready(&self, pid: u32) -> Result<(), BrokerError> {
        let deadline = Instant::now() + Duration::from_secs(READY_WAIT_MAX_S);
        // Written by the server itself once it listens, and named after its process.
        let ports_file = self.dir.join(format!("{}_{pid}.ports", program_name(&self.program)));
        while !(ports_file.is_file() && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok()) {
            if Instant::now() > deadline {
                return Err(BrokerError::NotReady { pid, waited_s: READY_WAIT_MAX_S });
            }
            tokio::time::sleep(Duration::from_millis(READY_POLL_MS)).await;
        }
        Ok(())
    }
}

fn program_name(program: &Path) -> String {
    program.file_name().unwrap_or(OsStr::new("nats-server")).to_string_lossy().into_owned()
}

/// A killed server leaves its ports file, and a later one may get the same process id.
fn remove_ports_files(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ports") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Ends a server that still runs on the files in `dir`. There is one after the supervisor was killed with SIGKILL: the
/// server does not watch who started it, and nothing short of unsafe code can make it.
async fn end_leftover(dir: &Path) -> Result<(), BrokerError> {
    let pid_file = dir.join(PID_FILE);
    let Some(pid) = std::fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return Ok(());
    };
    if !runs_on(pid, &pid_file) {
        return Ok(());
    }
    tracing::warn!("ending the broker that was left behind on {} (process {pid})", dir.display());
    for signal in [Signal::Terminate, Signal::Resume, Signal::Kill] {
        let _ = send_signal(pid, signal);
        // SIGTERM works on a paused process only once it is resumed.
        let wait_s = if signal == Signal::Terminate { 0 } else { STOP_WAIT_MAX_S };
        let deadline = Instant::now() + Duration::from_secs(wait_s);
        while runs_on(pid, &pid_file) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(READY_POLL_MS)).await;
        }
        if !runs_on(pid, &pid_file) {
            return Ok(());
        }
    }
    Err(BrokerError::InUse { dir: dir.to_path_buf(), pid })
}

/// Whether process `pid` is a server that was started with this pid file; a number alone may long be somebody else's.
/// Where there is no `/proc` this is never known and nobody is ended.
fn runs_on(pid: u32, pid_file: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| argument == pid_file.as_os_str().as_encoded_bytes())
}

/// One that runs, logging to `nats.log` in its directory. Killed when dropped.
#[derive(Debug)]
pub struct BrokerProcess {
    command: BrokerCommand,
    child: Child,
}

impl BrokerProcess {
    /// Starts `program` with its files below `dir` and waits until it accepts connections. `port`: `None` for a free one.
    ///
    /// # Errors
    /// Whatever keeps it from getting ready, with its own last word.
    pub async fn start(program: &Path, dir: &Path, port: Option<u16>) -> Result<Self, BrokerError> {
        let mut attempt = 1;
        loop {
            let mut command = BrokerCommand::prepare(program, dir, port).await?;
            match start_once(&mut command).await {
                Err(BrokerError::Ended { .. }) if port.is_none() && attempt < START_ATTEMPTS_MAX => attempt += 1,
                Err(error) => return Err(error),
                Ok(child) => return Ok(Self { command, child }),
            }
        }
    }

    /// Where clients find it; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        self.command.url()
    }

    /// Its process id; `None` while it is stopped or killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The command line that brings it back by hand.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        self.command.argv()
    }

    /// Stops it cleanly; kills it if it does not leave within 5 s.
    ///
    /// # Errors
    /// When the operating system cannot wait for it.
    pub async fn stop(&mut self) -> std::io::Result<Ended> {
        stop(&mut self.child, Duration::from_secs(STOP_WAIT_MAX_S)).await
    }

    /// Ends it as a power cut does (SIGKILL).
    ///
    /// # Errors
    /// When the operating system cannot wait for it.
    pub async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Freezes or resumes it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        send_signal(self.child.id().ok_or(std::io::ErrorKind::NotFound)?, signal)
    }

    /// Brings it back on the same port with the same state; stops it first if it still runs.
    ///
    /// # Errors
    /// As [`BrokerProcess::start`].
    pub async fn restart(&mut self) -> Result<(), BrokerError> {
        let (program, dir, port) = (self.command.program.clone(), self.command.dir.clone(), self.command.port);
        self.stop().await.map_err(|source| BrokerError::Directory { dir: dir.clone(), source })?;
        self.command = BrokerCommand::prepare(&program, &dir, Some(port)).await?;
        self.child = start_once(&mut self.command).await?;
        Ok(())
    }
}

async fn start_once(command: &mut BrokerCommand) -> Result<Child, BrokerError> {
    let log_file = command.dir.join(LOG_FILE);
    let in_dir = |source| BrokerError::Directory { dir: command.dir.clone(), source };
    let log = std::fs::File::options().create(true).append(true).open(&log_file).map_err(in_dir)?;
    let mut child = command.spawn(Stdio::from(log))?;
    let pid = child.id().unwrap_or_default();
    tokio::select! {
        ready = command.ready(pid) => ready.map(|()| child),
        status = child.wait() => {
            let status = status.map_err(|source| BrokerError::Directory { dir: command.dir.clone(), source })?;
            Err(BrokerError::Ended { status, log: last_line(&log_file) })
        }
    }
}

fn last_line(log_file: &Path) -> String {
    let log = std::fs::read(log_file).unwrap_or_default();
    let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
    let line = tail.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| format!("see {}", log_file.display()), |line| line.trim().to_owned())
}
