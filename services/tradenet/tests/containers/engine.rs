//! The engine, and one exchange in it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use loadgen::drill::{DrillOptions, Fault, Services, drill};
use loadgen::{Report, RunOptions};
use serde_json::Value;
use tempfile::TempDir;
use tradenet_runtime::ports;

/// Far above what anything here takes, on a machine that does other things beside.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// What the files are called that an exchange needs, from the repository's root.
const FILES: [&str; 2] = ["compose.yaml", "compose.cluster.yaml"];
/// Lines of its services' logs that a failed test shows.
const LOG_LINES: &str = "40";

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that must succeed; what it printed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command);
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// `docker` with these arguments.
pub(crate) fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments).env("DOCKER_BUILDKIT", "1");
    // What is set for this program must not decide for the project under test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("COMPOSE_") || name.starts_with("NATS_")) {
        command.env_remove(name);
    }
    command
}

/// Looks until `done`, and fails with `what` if that is never so.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(POLL);
    }
}

/// The image under test, and the engine that has it.
pub(crate) struct Image {
    pub(crate) name: String,
}

impl Image {
    /// Builds it, unless one is named.
    ///
    /// # Errors
    /// Why the tests are skipped.
    pub(crate) fn ready() -> Result<Self, String> {
        if std::env::var_os("TRADENET_CONTAINERS").is_none_or(|value| value != "1") {
            return Err("they take minutes; set TRADENET_CONTAINERS=1".to_owned());
        }
        let works = |arguments: &[&str]| docker(arguments).output().is_ok_and(|output| output.status.success());
        if !works(&["info"]) {
            return Err("no Docker engine answers".to_owned());
        }
        if !works(&["compose", "version"]) {
            return Err("docker has no compose plugin".to_owned());
        }
        if let Ok(name) = std::env::var("TRADENET_IMAGE") {
            return Ok(Self { name });
        }
        let (name, began) = ("tradenet:test".to_owned(), Instant::now());
        run(docker(&["build", "--quiet", "--tag", &name]).arg(root()));
        println!("image built ({:.0} s)", began.elapsed().as_secs_f64());
        Ok(Self { name })
    }
}

/// A Compose project: brought up, harmed, looked at, and gone when its test ends.
pub(crate) struct Exchange {
    /// A copy of the project's files, with settings of its own.
    home: TempDir,
    file: &'static str,
    /// Compose files put over it.
    changes: Vec<String>,
    pub(crate) project: String,
    ports: Vec<u16>,
}

impl Exchange {
    /// Brings up `compose.yaml`; returns when every service is healthy.
    #[track_caller]
    pub(crate) fn up(image: &Image) -> Self {
        Self::up_changed(image, FILES[0], |text| text)
    }

    /// Brings up `compose.cluster.yaml`.
    #[track_caller]
    pub(crate) fn up_cluster(image: &Image) -> Self {
        Self::up_changed(image, FILES[1], |text| text)
    }

    /// Brings up `compose.yaml` as `change` makes it.
    #[track_caller]
    pub(crate) fn up_with(image: &Image, change: impl Fn(String) -> String) -> Self {
        Self::up_changed(image, FILES[0], change)
    }

    #[track_caller]
    fn up_changed(image: &Image, file: &'static str, change: impl Fn(String) -> String) -> Self {
        let exchange = Self::prepare(image, file, change);
        exchange.start();
        exchange
    }

    /// Has everything ready to be brought up.
    #[track_caller]
    pub(crate) fn prepare(image: &Image, file: &'static str, change: impl Fn(String) -> String) -> Self {
        let home = TempDir::new().unwrap();
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        std::fs::write(home.path().join(file), change(text)).unwrap();
        run(Command::new("cp").arg("-r").arg(root().join("nats")).arg(home.path()));
        let held = ports::hold_free(2).unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let ports: Vec<_> = held.iter().map(port).collect();
        let project = format!("tradenet-test-{}-{}", std::process::id(), ports[0]);
        // A password of digits alone is one that nats-server would read as a number.
        let settings = format!(
            "COMPOSE_PROJECT_NAME={project}\nTRADENET_IMAGE={}\nFRONTEND_ADDRESS=127.0.0.1\nFRONTEND_PORT={}\n\
             FRONTEND_2_PORT={}\nNATS_CATALOG_PASSWORD=20261121\nNATS_ROUTE_PASSWORD=20261121\n",
            image.name, ports[0], ports[1]
        );
        std::fs::write(home.path().join(".env"), settings).unwrap();
        Self { home, file, changes: Vec::new(), project, ports }
    }

    /// `docker compose up`, and wait until all is healthy.
    #[track_caller]
    pub(crate) fn start(&self) {
        self.compose(&["up", "--detach", "--no-build", "--wait", "--wait-timeout", "120"]);
        self.until_whole();
    }

    /// The Compose file in use.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.home.path().join(file)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = docker(&["compose", "--ansi", "never", "--file"]);
        command.arg(self.path(self.file));
        for changes in &self.changes {
            command.arg("--file").arg(self.path(changes));
        }
        command.args(arguments);
        command
    }

    /// Puts a Compose file over the project's.
    pub(crate) fn change(&mut self, yaml: &str) {
        let name = format!("change-{}.yaml", self.changes.len());
        std::fs::write(self.path(&name), yaml).unwrap();
        self.changes.push(name);
    }

    /// Adds a line to `.env`.
    pub(crate) fn set(&self, setting: &str) {
        let path = self.path(".env");
        let settings = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{settings}{setting}\n")).unwrap();
    }

    /// `docker compose` with these arguments, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    /// The same, however it ends.
    #[track_caller]
    pub(crate) fn try_compose(&self, arguments: &[&str]) -> Output {
        output(&mut self.command(arguments))
    }

    /// A frontend's address; they are numbered from 1.
    fn url(&self, frontend: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[frontend - 1])
    }

    /// What the first frontend answers to a GET, or to a POST of `body`, whatever its status; none where it does not answer.
    pub(crate) fn ask(&self, path: &str, body: Option<&str>) -> Option<Value> {
        self.ask_through(1, path, body)
    }

    /// What this frontend answers.
    pub(crate) fn ask_through(&self, frontend: usize, path: &str, body: Option<&str>) -> Option<Value> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "15"]).arg(format!("{}{path}", self.url(frontend)));
        if let Some(body) = body {
            command.args(["--header", "Content-Type: application/json", "--data", body]);
        }
        serde_json::from_slice(&output(&mut command).stdout).ok()
    }

    /// Buys one stock; the order's number.
    #[track_caller]
    pub(crate) fn buy(&self) -> u64 {
        self.buy_through(1)
    }

    /// The same through this frontend.
    #[track_caller]
    pub(crate) fn buy_through(&self, frontend: usize) -> u64 {
        let body = r#"{"name": "GameStart", "quantity": 1, "type": "buy"}"#;
        let answer = self.ask_through(frontend, "/orders", Some(body)).unwrap_or_default();
        answer["data"]["transaction_number"].as_u64().unwrap_or_else(|| panic!("not bought: {answer}"))
    }

    /// Whether `order-ID` leads, and who is in sync.
    pub(crate) fn cluster(&self) -> Option<(u64, Vec<u64>)> {
        let data = &self.ask("/cluster", None)?["data"];
        let in_sync = data["in_sync"].as_array()?.iter().filter_map(Value::as_u64).collect();
        Some((data["leader"].as_u64()?, in_sync))
    }

    #[track_caller]
    pub(crate) fn until_in_sync(&self, wanted: &[u64]) {
        until(&format!("in sync: {wanted:?}"), || self.cluster().is_some_and(|(_, in_sync)| in_sync == wanted));
    }

    /// Waits until everybody is in sync and the highest id leads.
    #[track_caller]
    pub(crate) fn until_whole(&self) {
        until("all in sync, order-3 leads", || self.cluster() == Some((3, vec![1, 2, 3])));
    }

    fn load(&self) -> RunOptions {
        let mut options = RunOptions::new(self.url(1).parse().unwrap());
        options.exclusive = true;
        options
    }

    /// Trades for so long; what came of it.
    #[track_caller]
    pub(crate) fn trade(&self, seconds: u64) -> Report {
        let mut options = self.load();
        options.load = loadgen::Load::ClosedFor(Duration::from_secs(seconds));
        options.sides = loadgen::Sides::Mix;
        block_on(loadgen::run(options)).unwrap()
    }

    /// Trades while one fault after the other strikes, each for so long, and demands that nothing is lost, doubled or read
    /// stale, and that the exchange is whole again after each.
    #[track_caller]
    pub(crate) fn drill(&self, frontends: usize, down_s: u64, faults: &[&str]) {
        let urls = (1..=frontends).map(|frontend| self.url(frontend).parse().unwrap());
        let mut load = self.load();
        load.urls = urls.collect();
        load.sides = loadgen::Sides::Mix;
        let options = DrillOptions {
            run: load,
            services: Services::Compose { file: self.path(self.file), program: "docker".to_owned() },
            faults: faults.iter().map(|fault| fault.parse::<Fault>().unwrap()).collect(),
            random: None,
            quiet: Duration::from_secs(1),
            down: Duration::from_secs(down_s),
        };
        let drill = block_on(drill(options, std::future::pending(), |_: &str| ())).unwrap();
        assert!(drill.report.ok(), "{}", drill.report);
        assert_eq!(drill.events.len(), faults.len());
        for event in &drill.events {
            assert_eq!(event.trouble, None, "{}", event.label);
            let whole = event.whole.unwrap_or_else(|| panic!("{} left the exchange broken", event.label));
            println!(
                "    {:<28} no trade for {:>5} ms, {:>3} errors, whole {:>5.1} s after it was over",
                event.label,
                event.longest_gap.as_millis(),
                event.errors,
                (whole - event.healed).as_secs_f64(),
            );
        }
    }

    /// What a service has logged.
    #[track_caller]
    pub(crate) fn log(&self, service: &str) -> String {
        self.compose(&["logs", "--no-log-prefix", service])
    }

    /// The name of a volume of this project.
    pub(crate) fn volume(&self, name: &str) -> String {
        format!("{}_{name}", self.project)
    }

    /// The project's network.
    pub(crate) fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    /// Stops all replicas and compares their journals, byte for byte.
    #[track_caller]
    pub(crate) fn stop_and_verify(self, image: &Image) {
        self.compose(&["stop"]);
        let mut command = docker(&["run", "--rm", "--network", "none"]);
        for id in 1..=3 {
            command.arg("--volume").arg(format!("{}:/journals/{id}:ro", self.volume(&format!("order-{id}"))));
        }
        command.args([&image.name, "verify", "/journals/1", "/journals/2", "/journals/3"]);
        run(&mut command);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.try_compose(&["logs", "--tail", LOG_LINES]);
            eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
        }
        // Nothing more can be done where even this fails.
        let _ = self.command(&["down", "--volumes", "--timeout", "1", "--remove-orphans"]).output();
    }
}
