//! The child processes: started, listened to, missed when they die, stopped in order.
//!
//! Each child has a task that owns it and waits for its end or for the word to stop it, so a process number is only ever
//! used while it is surely still that child's. The rules:
//! - A child is in a process group of its own. Ctrl-C in a terminal goes to a whole group, and who stops first is for us
//!   to say: those who serve clients before those whom they need, the broker last.
//! - A child of ours holds the end of a pipe that closes with us, so that even SIGKILL leaves no services behind. The
//!   broker cannot be taught that; the next `tradenet dev` in the same directory ends one that was left.
//! - A child that dies stays dead. Who is started by hand in its place is listed instead of it, and stopped with the rest.

use std::io::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tradenet_runtime::process::{self, Ended};
use tradenet_runtime::shutdown::PARENT_PIPE_ENV;
use tradenet_runtime::telemetry::colours_wanted;

use super::stand_ins;
use super::watch::say;

/// To finish what is in flight (a request has 5 s), sync and leave.
const STOP_WAIT_MAX_S: u64 = 10;
/// Once a child is gone its log ends at once, unless somebody else has got hold of it.
const LOG_END_WAIT_MAX_MS: u64 = 500;
/// What is not a line by then is passed on in pieces.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// What a child is, in the order in which they are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Frontend,
    Catalog,
    Order,
    Broker,
}

const STOP_ORDER: [Kind; 4] = [Kind::Frontend, Kind::Catalog, Kind::Order, Kind::Broker];

/// A child that was started. It stays listed when it has died: its command brings it back.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) pid: u32,
    pub(super) argv: Vec<String>,
    /// For the table.
    pub(super) address: Option<String>,
    pub(super) alive: bool,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<std::io::Result<Ended>>>,
}

impl Running {
    /// Where it shows how it stands: a frontend where it serves, the others where they were told to.
    pub(super) fn metrics(&self) -> Option<String> {
        let told = || self.argv.iter().skip_while(|argument| *argument != "--metrics").nth(1);
        match self.kind {
            Kind::Frontend => self.address.as_ref().map(|address| format!("{address}/metrics")),
            Kind::Order | Kind::Catalog => told().map(|address| format!("http://{address}/metrics")),
            Kind::Broker => None,
        }
    }
}

/// A child that ended without having been asked to.
#[derive(Debug)]
pub(super) struct Died {
    pub(super) name: String,
    pub(super) how: ExitStatus,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Children {
    list: Vec<Running>,
    /// Held here too, so that the channel never closes.
    report: mpsc::UnboundedSender<Died>,
    reports: mpsc::UnboundedReceiver<Died>,
}

impl Children {
    pub(super) fn new() -> Self {
        // One report a child at most, so it needs no bound.
        let (report, reports) = mpsc::unbounded_channel();
        Self { list: Vec::new(), report, reports }
    }

    /// In the order in which they were started.
    pub(super) fn list(&self) -> &[Running] {
        &self.list
    }

    /// Starts one of our own services: `program` with `arguments`.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(super) fn start(
        &mut self,
        name: &str,
        kind: Kind,
        program: &Path,
        arguments: Vec<String>,
        address: Option<String>,
    ) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command.args(&arguments).env(PARENT_PIPE_ENV, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {name} ({})", program.display()))?;
        let argv = std::iter::once(program.display().to_string()).chain(arguments).collect();
        self.adopt(name, kind, argv, address, child);
        Ok(())
    }

    /// Takes charge of a child that has been started, and returns its process number.
    pub(super) fn adopt(
        &mut self,
        name: &str,
        kind: Kind,
        argv: Vec<String>,
        address: Option<String>,
        mut child: Child,
    ) -> u32 {
        let pid = child.id().unwrap_or_default();
        let prefix = Prefix::new(name, self.list.len());
        let log = child.stderr.take().map(|stderr| tokio::spawn(pass_on(prefix, stderr)));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(tend(child, name.to_owned(), log, stopped, self.report.clone()));
        let name = name.to_owned();
        self.list.push(Running { name, kind, pid, argv, address, alive: true, stop: Some(stop), task: Some(task) });
        pid
    }

    /// Waits for the next death. Safe to drop at any point.
    pub(super) async fn died(&mut self) -> Died {
        let Some(died) = self.reports.recv().await else { std::future::pending().await };
        for child in self.list.iter_mut().filter(|child| child.name == died.name) {
            child.alive = false;
        }
        died
    }

    /// Looks for processes that serve in the place of the dead, lists them instead, and returns their names.
    pub(super) fn find_stand_ins(&mut self) -> Vec<String> {
        let missing = |child: &&mut Running| !child.alive && !stand_ins::runs(child.pid, &child.argv);
        let mut found = Vec::new();
        for child in self.list.iter_mut().filter(missing) {
            if let Some(pid) = stand_ins::find(&child.argv) {
                child.pid = pid;
                found.push(child.name.clone());
            }
        }
        found
    }

    /// Drops one that has died from the list, to be started anew under the same name.
    pub(super) fn forget(&mut self, name: &str) {
        self.list.retain(|child| child.alive || child.name != name);
    }

    /// Stops all of them and those who serve in their place, one kind after the other; every one is gone afterwards.
    pub(super) async fn stop_all(&mut self) {
        self.find_stand_ins();
        for kind in STOP_ORDER {
            let group = || 0..self.list.len();
            let of_kind: Vec<usize> = group().filter(|index| self.list[*index].kind == kind).collect();
            for index in &of_kind {
                if let Some(stop) = self.list[*index].stop.take() {
                    // Fails for one that has died, whose task has ended.
                    let _ = stop.send(());
                }
            }
            for index in of_kind {
                let child = &mut self.list[index];
                let Some(task) = child.task.take() else { continue };
                let killed = || say(&format!("{} did not leave within {STOP_WAIT_MAX_S} s: killed", child.name));
                match task.await {
                    Ok(Ok(Ended::Left(_))) => {
                        // Nobody any more, unless it is one who serves in its place.
                        let limit = Duration::from_secs(STOP_WAIT_MAX_S);
                        if !stand_ins::stop(child.pid, &child.argv, limit).await {
                            killed();
                        }
                    }
                    Ok(Ok(Ended::Killed)) => killed(),
                    Ok(Err(error)) => {
                        say(&format!("{} (process {}) cannot be waited for: {error}", child.name, child.pid));
                    }
                    Err(error) => say(&format!("{} (process {}) was lost: {error}", child.name, child.pid)),
                }
            }
        }
    }
}

/// Owns a child until its end.
async fn tend(
    mut child: Child,
    name: String,
    log: Option<JoinHandle<()>>,
    stop: oneshot::Receiver<()>,
    report: mpsc::UnboundedSender<Died>,
) -> std::io::Result<Ended> {
    // Our end of the pipe, which tells it that we live; waiting for a child would close it.
    let _stdin = child.stdin.take();
    let died = tokio::select! {
        how = child.wait() => Some(how?),
        _ = stop => None,
    };
    let ended = match died {
        Some(how) => Ended::Left(how),
        None => process::stop(&mut child, Duration::from_secs(STOP_WAIT_MAX_S)).await?,
    };
    if let Some(log) = log {
        // Its last words come before the news of its end.
        let _ = tokio::time::timeout(Duration::from_millis(LOG_END_WAIT_MAX_MS), log).await;
    }
    if let Some(how) = died {
        // Nobody listens any more only when we are about to leave as well.
        let _ = report.send(Died { name, how });
    }
    Ok(ended)
}

/// What stands before each line of a child's log.
struct Prefix {
    name: String,
    text: String,
    json: bool,
}

impl Prefix {
    fn new(name: &str, index: usize) -> Self {
        // Cyan to red without the two that are hard to read on one of the usual backgrounds.
        const COLOURS: [u8; 5] = [36, 32, 35, 33, 31];
        let text = match colours_wanted() {
            true => format!("\x1b[{}m{name:<10} |\x1b[0m ", COLOURS[index % COLOURS.len()]),
            false => format!("{name:<10} | "),
        };
        let json = std::env::var("TRADENET_LOG").is_ok_and(|style| style == "json");
        Self { name: name.to_owned(), text, json }
    }

    /// The line as it is passed on. Where logs are JSON they name their service themselves; what is no JSON (the
    /// broker's, a panic) is made so, because whoever reads them expects nothing else.
    fn apply(&self, line: &str) -> String {
        match (self.json, line.starts_with('{')) {
            (false, _) => format!("{}{line}\n", self.text),
            (true, true) => format!("{line}\n"),
            (true, false) => format!("{}\n", serde_json::json!({"service": self.name, "message": line})),
        }
    }
}

/// Passes a child's log on to our standard error, line by line, until it ends.
async fn pass_on(prefix: Prefix, stderr: ChildStderr) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                // If nobody reads ours, theirs is still read, so that they do not stand still.
                let _ = std::io::stderr().write_all(prefix.apply(text.trim_end()).as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_whose_it_is_in_text_and_in_json() {
        fn check(json: bool, line: &str, expected: &str) {
            let prefix = Prefix { name: "nats".into(), text: "nats | ".into(), json };
            assert_eq!(prefix.apply(line), expected);
        }
        check(false, "Server is ready", "nats | Server is ready\n");
        check(true, "Server is \"ready\"", "{\"message\":\"Server is \\\"ready\\\"\",\"service\":\"nats\"}\n");
        check(true, "{\"service\":\"order-1\"}", "{\"service\":\"order-1\"}\n");
    }
}
