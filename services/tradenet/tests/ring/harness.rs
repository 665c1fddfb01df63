//! One exchange under test: started, harmed, healed, looked at, and gone when its test ends.
//!
//! The rules:
//! - Whatever is waited for is looked at again and again until a deadline, which is far above what it takes.
//! - Two exchanges run at a time, whoever runs the tests: an exchange is seven processes, and a machine that is busy with
//!   more of them would be tested instead. Test runners may start a process for each test, so the places are file locks.
//! - Everything started here ends with the test, also when it fails: the supervisor and the services started by hand
//!   through the pipe they watch, the broker by the destructor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loadgen::{Load, Probability, Report, RunOptions, Sides};
use serde_json::{Value, json};
use tempfile::TempDir;
use tradenet_runtime::process::{Signal, send_signal};
use tradenet_runtime::shutdown::PARENT_PIPE_ENV;
use tradenet_schemas::rest::Cluster;

/// Far above what anything here takes, on a machine that does other things beside.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Above the exchange's own deadline, so that its answer is seen and not ours.
const ANSWER: Duration = Duration::from_secs(15);
const EXCHANGES_AT_A_TIME: usize = 2;
/// How much of the log a failed test shows.
const LOG_LINES_SHOWN: usize = 150;

/// Looks until `done`, and fails with `what` if that is never so.
#[track_caller]
pub(crate) fn until(what: &str, done: impl FnMut() -> bool) {
    until_within(PATIENCE, what, done);
}

#[track_caller]
pub(crate) fn until_within(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", patience.as_secs());
        std::thread::sleep(POLL);
    }
}

/// The program under test, in an environment in which nothing is set that would decide for it.
pub(crate) fn tradenet() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_tradenet")))
}

fn clean(mut command: Command) -> Command {
    let decides = |name: &str| name.starts_with("TRADENET_") || name.starts_with("NATS_");
    for (name, _) in std::env::vars().filter(|(name, _)| decides(name) && name != "TRADENET_NATS_SERVER") {
        command.env_remove(name);
    }
    command.env("RUST_LOG", "info");
    command
}

/// An example, as cargo has built it beside the program.
pub(crate) fn example(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_tradenet")).with_file_name("examples").join(name);
    assert!(built.is_file(), "no {}: cargo build --workspace --examples", built.display());
    built
}

/// Says what this machine can't run, past what the test runner captures.
pub(crate) fn skipped(why: &str) {
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}

/// Whether the process is no more, or dead and only not yet fetched by whoever is its parent by now.
pub(crate) fn gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let dead = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    // Its other threads may go later, and its files stay open until then.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    dead && threads <= 1 || send_signal(pid, Signal::Resume).is_err()
}

/// An answer of a frontend.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// The body as it came.
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
    /// The number of an order that was placed.
    #[track_caller]
    pub(crate) fn number(&self) -> u64 {
        assert_eq!(self.status, 200, "{self:?}");
        self.body["data"]["transaction_number"].as_u64().unwrap()
    }
    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

/// One request on a connection of its own: HTTP/1.0, so that the answer ends where the connection does.
pub(crate) fn request(url: &str, method: &str, path: &str, headers: &str, body: &str) -> std::io::Result<Answer> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\n{headers}");
    send(url, format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())
}

/// The same with whatever bytes.
pub(crate) fn send(url: &str, bytes: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(bytes)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, text) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head: head.to_owned(), text: text.to_owned(), body: serde_json::from_str(text)? })
}

pub(crate) fn order(name: &str, quantity: u32, side: &str) -> String {
    json!({"name": name, "quantity": quantity, "type": side}).to_string()
}

/// `tradenet dev`, and what was started by hand beside it.
pub(crate) struct Exchange {
    home: TempDir,
    options: Vec<String>,
    /// What is logged, in the form of RUST_LOG.
    filter: &'static str,
    /// How, in the form of TRADENET_LOG.
    style: &'static str,
    dev: Option<Child>,
    by_hand: BTreeMap<String, Child>,
    state: Value,
    _place: Arc<File>,
}

impl Exchange {
    /// Starts one in a new directory; returns when it is ready. `options` are those of `tradenet dev`.
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_in(Arc::new(place()), options, "info", "text")
    }

    /// Starts one that logs what `filter` says, in the form of RUST_LOG.
    #[track_caller]
    pub(crate) fn start_logging(filter: &'static str) -> Self {
        Self::start_in(Arc::new(place()), &[], filter, "text")
    }

    /// The same, as JSON.
    #[track_caller]
    pub(crate) fn start_in_json(filter: &'static str) -> Self {
        Self::start_in(Arc::new(place()), &[], filter, "json")
    }

    /// Starts two that share one place, so that tests which need two at once cannot wait for each other.
    #[track_caller]
    pub(crate) fn start_two() -> (Self, Self) {
        let place = Arc::new(place());
        (Self::start_in(Arc::clone(&place), &[], "info", "text"), Self::start_in(place, &[], "info", "text"))
    }

    #[track_caller]
    fn start_in(place: Arc<File>, options: &[&str], filter: &'static str, style: &'static str) -> Self {
        let home = TempDir::new().unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut exchange = Self {
            home,
            options,
            filter,
            style,
            dev: None,
            by_hand: BTreeMap::new(),
            state: Value::Null,
            _place: place,
        };
        exchange.start_again();
        exchange
    }

    /// Starts it on the directory as it is.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.spawn_dev();
        self.await_published();
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn spawn_dev(&mut self) {
        let log = self.log_file();
        let mut command = tradenet();
        command.args(["dev", "--port", "0", "--data-dir"]).arg(self.data()).args(&self.options);
        command.env("RUST_LOG", self.filter).env("TRADENET_LOG", self.style);
        command.env(PARENT_PIPE_ENV, "1").stdin(Stdio::piped());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.dev = Some(command.spawn().unwrap());
    }

    #[track_caller]
    pub(crate) fn await_published(&mut self) {
        let file = self.data().join("dev.json");
        until("dev.json", || {
            let dev = self.dev.as_mut().unwrap();
            assert_eq!(dev.try_wait().unwrap(), None, "dev has ended");
            let read = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            self.state = read.unwrap_or_default();
            // One that was killed leaves its file.
            self.state["pid"] == dev.id()
        });
    }

    /// Ends the supervisor with a signal, and with it everything it started. Returns its exit code.
    pub(crate) fn stop_dev(&mut self, signal: Signal) -> Option<i32> {
        let mut dev = self.dev.take().unwrap();
        send_signal(dev.id(), signal).unwrap();
        dev.wait().unwrap().code()
    }

    /// Stops everything cleanly.
    #[track_caller]
    pub(crate) fn stop_all(&mut self) {
        assert_eq!(self.stop_dev(Signal::Terminate), Some(0));
        let (brokers, services): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.by_hand).into_iter().partition(|(name, _)| name == "nats");
        for (name, child) in services.into_iter().chain(brokers) {
            assert!(end(child), "{name} did not leave by itself");
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }
    /// The directory of one replica.
    pub(crate) fn disk(&self, id: u8) -> PathBuf {
        self.data().join(format!("order-{id}"))
    }
    pub(crate) fn journal(&self, id: u8) -> PathBuf {
        self.disk(id).join("orders.jsonl")
    }
    pub(crate) fn nats_url(&self) -> String {
        self.state["nats_url"].as_str().unwrap().to_owned()
    }
    /// A frontend's address; they are numbered from 1.
    pub(crate) fn url(&self, frontend: usize) -> String {
        self.state["frontends"][frontend - 1].as_str().unwrap().to_owned()
    }
    fn log_file(&self) -> File {
        File::options().create(true).append(true).open(self.home.path().join("log")).unwrap()
    }
    /// What all of its processes have said.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.home.path().join("log")).unwrap()).into_owned()
    }

    fn process(&self, name: &str) -> &Value {
        let processes = self.state["processes"].as_array().unwrap();
        processes.iter().find(|process| process["name"] == name).unwrap()
    }
    /// Where each service shows its metrics.
    pub(crate) fn metrics(&self) -> Vec<(String, String)> {
        let processes = self.state["processes"].as_array().unwrap();
        let text = |process: &Value, key: &str| process[key].as_str().map(str::to_owned);
        processes.iter().filter_map(|process| Some((text(process, "name")?, text(process, "metrics")?))).collect()
    }
    pub(crate) fn names(&self) -> Vec<String> {
        let processes = self.state["processes"].as_array().unwrap();
        processes.iter().map(|process| process["name"].as_str().unwrap().to_owned()).collect()
    }
    pub(crate) fn pid(&self, name: &str) -> u32 {
        let published = || u32::try_from(self.process(name)["pid"].as_u64().unwrap()).unwrap();
        self.by_hand.get(name).map_or_else(published, Child::id)
    }
    /// The process number in dev.json as it is now.
    pub(crate) fn published(&self, name: &str) -> u64 {
        let state: Value = serde_json::from_slice(&std::fs::read(self.data().join("dev.json")).unwrap()).unwrap();
        let processes = state["processes"].as_array().unwrap();
        processes.iter().find(|process| process["name"] == name).unwrap()["pid"].as_u64().unwrap()
    }
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        send_signal(self.pid(name), signal).unwrap();
    }
    /// Sends a signal that ends it, and waits until it is gone.
    #[track_caller]
    pub(crate) fn end(&mut self, name: &str, signal: Signal) {
        let pid = self.pid(name);
        self.signal(name, signal);
        match self.by_hand.remove(name) {
            Some(mut child) => drop(child.wait().unwrap()),
            None => until(&format!("the end of {name}"), || gone(pid)),
        }
    }
    /// `kill -9`
    #[track_caller]
    pub(crate) fn kill(&mut self, name: &str) {
        self.end(name, Signal::Kill);
    }
    /// Runs its command line by itself, as `dev.json` has it.
    pub(crate) fn restart(&mut self, name: &str) {
        self.restart_with(name, &[]);
    }
    /// The same with other values for some of its options, or more options.
    pub(crate) fn restart_with(&mut self, name: &str, options: &[(&str, &str)]) {
        let argv = self.process(name)["argv"].as_array().unwrap().clone();
        let mut argv: Vec<&str> = argv.iter().map(|argument| argument.as_str().unwrap()).collect();
        for (option, value) in options {
            match argv.iter().position(|argument| argument == option) {
                Some(place) => argv[place + 1] = value,
                None => argv.extend([option, value]),
            }
        }
        let mut command = clean(Command::new(argv[0]));
        let log = self.log_file();
        command.args(&argv[1..]).current_dir("/").env(PARENT_PIPE_ENV, "1").stdin(Stdio::piped());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.by_hand.insert(name.to_owned(), command.spawn().unwrap());
    }
    /// Waits for the end of one that was started by hand; its exit code.
    #[track_caller]
    pub(crate) fn await_end(&mut self, name: &str) -> Option<i32> {
        let mut child = self.by_hand.remove(name).unwrap();
        let mut status = None;
        until(&format!("the end of {name}"), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    #[track_caller]
    pub(crate) fn get(&self, frontend: usize, path: &str) -> Answer {
        request(&self.url(frontend), "GET", path, "", "").unwrap()
    }
    #[track_caller]
    pub(crate) fn post(&self, frontend: usize, body: &str) -> Answer {
        request(&self.url(frontend), "POST", "/orders", "", body).unwrap()
    }
    #[track_caller]
    pub(crate) fn post_with_key(&self, frontend: usize, body: &str, key: &str) -> Answer {
        let header = format!("Idempotency-Key: {key}\r\n");
        request(&self.url(frontend), "POST", "/orders", &header, body).unwrap()
    }
    /// Quantity and volume of a stock.
    #[track_caller]
    pub(crate) fn stock(&self, frontend: usize, name: &str) -> (u64, u64) {
        let answer = self.get(frontend, &format!("/stocks/{name}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.body["data"]["quantity"].as_u64().unwrap(), answer.body["data"]["volume"].as_u64().unwrap())
    }
    #[track_caller]
    pub(crate) fn cluster(&self, frontend: usize) -> Cluster {
        let answer = self.get(frontend, "/cluster");
        serde_json::from_value(answer.body["data"].clone()).unwrap()
    }
    /// Whether a frontend serves trades.
    pub(crate) fn ready(&self, frontend: usize) -> bool {
        request(&self.url(frontend), "GET", "/readyz", "", "").is_ok_and(|answer| answer.status == 200)
    }
    /// Waits until a frontend sees what is wanted.
    #[track_caller]
    pub(crate) fn until_cluster(&self, what: &str, wanted: impl Fn(&Cluster) -> bool) -> Cluster {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let cluster = self.cluster(1);
            if wanted(&cluster) {
                return cluster;
            }
            assert!(Instant::now() < deadline, "not within {} s: {what}; {cluster:?}", PATIENCE.as_secs());
            std::thread::sleep(POLL);
        }
    }
    /// Waits until `leader` leads and exactly `in_sync` are in sync.
    #[track_caller]
    pub(crate) fn until_led(&self, leader: u8, in_sync: &[u8]) -> Cluster {
        let what = format!("order-{leader} leads, {in_sync:?} in sync");
        let led = self.until_cluster(&what, |cluster| {
            cluster.ready && cluster.leader == Some(leader) && cluster.in_sync == in_sync
        });
        // The record is known before the entry by which its epoch starts is written, and that before it is known to be committed.
        let mut started = None;
        until("its epoch has started", || {
            let journal = std::fs::read(self.journal(leader)).unwrap();
            let last = journal.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
            let last: Option<Value> = serde_json::from_slice(last).ok();
            let number = |name: &str| last.as_ref().and_then(|entry| entry[name].as_u64());
            started =
                if journal.is_empty() { Some(0) } else { number("seq").filter(|_| number("epoch") >= Some(led.epoch)) };
            started.is_some()
        });
        // That very entry, and not the newest: under load what a frontend knows of is always a little behind.
        self.until_cluster("its epoch is committed", |cluster| Some(committed(cluster)) >= started);
        led
    }
    /// Waits until all is as at the start: all three in sync, the highest leading.
    #[track_caller]
    pub(crate) fn until_whole(&self) -> Cluster {
        self.until_led(3, &[1, 2, 3])
    }
    /// Waits until all journals are the same, and nothing is on its way; one of them.
    #[track_caller]
    pub(crate) fn until_quiet(&self) -> Vec<u8> {
        let read = |id| std::fs::read(self.journal(id)).unwrap();
        until("all journals are the same", || read(1) == read(2) && read(2) == read(3));
        read(1)
    }
    /// Waits until the load has made some more trades.
    #[track_caller]
    pub(crate) fn until_trading(&self) {
        self.until_committed(committed(&self.cluster(1)) + 21);
    }
    /// Waits until that entry is committed, for as long as more and more are.
    #[track_caller]
    pub(crate) fn until_committed(&self, seq: u64) {
        let mut before = committed(&self.cluster(1));
        while before < seq {
            let now = self.until_cluster("trades go on", |cluster| committed(cluster) > before);
            before = committed(&now);
        }
    }

    /// Load by these frontends (a generator each), for `seconds`, in the background. With one generator nothing but its
    /// trades may be in the books at the end.
    pub(crate) fn load(&self, frontends: &[usize], seconds: u64) -> Trading {
        let start = |(seed, frontend): (u64, &usize)| {
            let mut options = self.load_options(*frontend, seconds);
            options.exclusive = frontends.len() == 1;
            options.seed = seed;
            generate(options)
        };
        Trading((1..).zip(frontends).map(start).collect())
    }

    /// The same with so many clients at once, who do nothing but trade.
    pub(crate) fn crowd(&self, clients: u32, seconds: u64) -> Trading {
        self.crowd_of(clients, seconds, 1)
    }

    /// The same once more in one exchange.
    pub(crate) fn crowd_of(&self, clients: u32, seconds: u64, seed: u64) -> Trading {
        let mut options = self.load_options(1, seconds);
        options.clients = clients;
        options.think = Duration::ZERO;
        options.trade_probability = Probability::new(1.0).unwrap();
        options.exclusive = true;
        options.seed = seed;
        Self::generate(options)
    }

    /// Load as `options` have it, in the background.
    pub(crate) fn generate(options: RunOptions) -> Trading {
        Trading(vec![generate(options)])
    }

    /// A few clients that go on for `seconds`.
    pub(crate) fn load_options(&self, frontend: usize, seconds: u64) -> RunOptions {
        let mut options = RunOptions::new(self.url(frontend).parse().unwrap());
        options.load = Load::ClosedFor(Duration::from_secs(seconds));
        options.clients = 4;
        options.think = Duration::from_millis(2);
        options.sides = Sides::Mix;
        options.request_timeout = ANSWER;
        options
    }

    /// Runs one of the operator's commands against it.
    pub(crate) fn operate(&self, arguments: &[&str]) -> Output {
        tradenet().args(arguments).args(["--nats-url", &self.nats_url()]).output().unwrap()
    }
    /// Has every journal compared with the others, byte for byte, and stops everything.
    #[track_caller]
    pub(crate) fn stop_and_verify(mut self) {
        self.until_cluster("all have the same on their disks", |cluster| {
            let tail = cluster.replicas[0].tail;
            cluster.replicas.iter().all(|replica| {
                replica.tail == tail && replica.durable == tail && replica.committed == tail && replica.in_sync
            })
        });
        // Before the stop: the last leader's handing over is an entry that those who have left already do without.
        let (ok, text) = verify(&self.data());
        assert!(ok && text.contains("all 3 journals are the same, byte for byte"), "{text}");
        self.stop_all();
        let (ok, text) = verify(&self.data());
        assert!(ok, "{text}");
    }
}

fn committed(cluster: &Cluster) -> u64 {
    cluster.replicas.iter().map(|replica| replica.committed).max().unwrap()
}

fn generate(options: RunOptions) -> JoinHandle<Report> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(loadgen::run(options)).unwrap()
    })
}

/// `tradenet verify`: whether it found nothing wrong, and all that it said.
pub(crate) fn verify(dir: &Path) -> (bool, String) {
    let output = tradenet().arg("verify").arg(dir).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Load in the background.
pub(crate) struct Trading(Vec<JoinHandle<Report>>);

impl Trading {
    /// Waits for its end. Every order that was acknowledged is there, once and unchanged.
    #[track_caller]
    pub(crate) fn verified(self) -> Vec<Report> {
        let reports: Vec<_> = self.0.into_iter().map(|thread| thread.join().unwrap()).collect();
        for report in &reports {
            assert!(report.ok(), "{report}");
            assert!(report.verification.read > 0, "{report}");
            println!("{report}");
        }
        reports
    }
    /// The same, and no client has seen any error.
    #[track_caller]
    pub(crate) fn verified_without_an_error(self) {
        for report in self.verified() {
            assert_eq!(report.error_count(), 0, "{report}");
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(dev) = self.dev.take() {
            let _ = send_signal(dev.id(), Signal::Resume);
            end(dev);
        }
        for (_, child) in std::mem::take(&mut self.by_hand) {
            end(child);
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            println!("the exchange's log:\n{shown}");
            if std::env::var_os("RING_KEEP").is_some() {
                self.home.disable_cleanup(true);
                println!("kept in {}", self.home.path().display());
            }
        }
    }
}

/// Ends a child, politely at first; whether that was enough.
fn end(mut child: Child) -> bool {
    // Fails for one that is gone.
    let _ = send_signal(child.id(), Signal::Terminate);
    let _ = send_signal(child.id(), Signal::Resume);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(POLL),
            ended => return ended.is_ok(),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// Waits for one of the places for exchanges.
fn place() -> File {
    loop {
        for number in 1..=EXCHANGES_AT_A_TIME {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("exchange-{number}.lock"));
            let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
            if file.try_lock().is_ok() {
                return file;
            }
        }
        std::thread::sleep(POLL);
    }
}
