//! What is measured: an exchange, or one of the floors, with all its processes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tradenet_runtime::ports;

use super::cases::STOCK;

/// How long anything may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// How large an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) frontends: u8,
    pub(super) replicas: u8,
    /// Stocks in each frontend's cache.
    pub(super) cache: u8,
    /// Stocks that are listed besides the usual ones.
    pub(super) more_stocks: u16,
}

/// A part of the program `floors`: what a case costs where nothing is done but what must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floor {
    /// An HTTP server that answers from memory: `web/16/axum-json`.
    Web,
    /// The trade path in this exchange's design: `order/N/floor-staged`, and with it `get/1/uncached`. Without followers it
    /// is `order/N/floor-parallel`, whose catalog is told by a message of its own.
    Staged {
        /// Replicas beside the leader.
        followers: u8,
        /// Several are not told what changed: the exchange tells those alone that hold the stock, and here none does.
        frontends: u8,
    },
    /// The trade path with a JetStream stream for a log, each message synced before it is acknowledged:
    /// `order/N/js-r1-always` and the like.
    JetStream {
        /// In how many servers the stream is held.
        replicas: u8,
        /// Whether orders that wait together make one message.
        batches: bool,
    },
}

/// The programs that are run.
pub(super) struct Programs {
    pub(super) tradenet: PathBuf,
    /// None where there are no floors.
    pub(super) floors: Option<PathBuf>,
    pub(super) nats_server: PathBuf,
    /// Where all files go: on the disk that is to be measured.
    pub(super) dir: PathBuf,
}

/// Processes that run together, stopped when it is dropped.
pub(super) struct System {
    /// Where clients connect to.
    pub(super) ports: Vec<u16>,
    /// Name and number of each process that does the work.
    pub(super) pids: Vec<(String, u32)>,
    /// Those to stop, in the order in which they were started.
    children: Vec<Child>,
    _files: TempDir,
}

/// The part of `dev.json` that is used here.
#[derive(Deserialize)]
struct Dev {
    frontends: Vec<String>,
    processes: Vec<Process>,
}

#[derive(Deserialize)]
struct Process {
    name: String,
    pid: u32,
}

impl System {
    /// Starts an exchange and waits until it trades.
    pub(super) fn exchange(programs: &Programs, shape: Shape) -> anyhow::Result<Self> {
        let files = TempDir::new_in(&programs.dir).context("a directory for the exchange's files")?;
        let numbers = [shape.frontends, shape.replicas, shape.cache].map(|number| number.to_string());
        let mut command = Command::new(&programs.tradenet);
        command.arg("dev").args(["--port", "0", "--data-dir"]).arg(files.path());
        if shape.more_stocks > 0 {
            let stocks = files.path().join("bench-stocks.csv");
            let more: String = (0..shape.more_stocks).map(|number| format!("More{number},9.99,1000\n")).collect();
            std::fs::write(&stocks, format!("name,price,quantity\n{STOCK},15.99,1000000\n{more}"))?;
            command.arg("--stocks").arg(stocks);
        }
        command.args(["--frontends", &numbers[0], "--replicas", &numbers[1], "--cache-size", &numbers[2]]);
        command.env("TRADENET_NATS_SERVER", &programs.nats_server).env("RUST_LOG", "warn");
        let log = programs.dir.join("exchange.log");
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        let child = child.with_context(|| format!("{} dev", programs.tradenet.display()))?;
        let mut system = Self { ports: Vec::new(), pids: Vec::new(), children: vec![child], _files: files };
        let state = system._files.path().join("dev.json");
        let started = Instant::now();
        while !state.exists() {
            if started.elapsed() > PATIENCE || system.children[0].try_wait()?.is_some() {
                bail!("the exchange did not get ready; {} says why", log.display());
            }
            std::thread::sleep(POLL);
        }
        let dev: Dev = serde_json::from_slice(&std::fs::read(&state)?).context("dev.json")?;
        let port =
            |url: &String| url.rsplit(':').next().and_then(|port| port.parse().ok()).context("a port in dev.json");
        system.ports = dev.frontends.iter().map(port).collect::<Result<_, _>>()?;
        system.pids = dev.processes.into_iter().map(|process| (process.name, process.pid)).collect();
        Ok(system)
    }

    /// Starts a floor. None where there are none.
    pub(super) fn floor(programs: &Programs, floor: Floor) -> anyhow::Result<Option<Self>> {
        let Some(program) = &programs.floors else { return Ok(None) };
        let files = TempDir::new_in(&programs.dir).context("a directory for the floor's files")?;
        let frontends = match floor {
            Floor::Staged { frontends, .. } => frontends,
            Floor::Web | Floor::JetStream { .. } => 1,
        };
        // Behind the frontends' ports those of up to three brokers and of the routes between them.
        let held = ports::hold_free(u16::from(frontends) + 6).context("free ports")?;
        let free = held.iter().map(|listener| listener.local_addr().map(|address| address.port()));
        let free: Vec<u16> = free.collect::<Result<_, _>>()?;
        drop(held);
        let (own, brokers) = free.split_at(usize::from(frontends));
        let mut system = Self { ports: own.to_vec(), pids: Vec::new(), children: Vec::new(), _files: files };
        let dir = system._files.path().to_owned();
        let broker = ["--nats".to_owned(), format!("nats://127.0.0.1:{}", brokers[0])];
        // Each as it is in the program's own list of cases.
        let (catalog, leader, frontend) = match floor {
            Floor::Web => {
                system.role(program, &[], "web", &format!("web --port {} --kind axum-json", own[0]))?;
                return Ok(Some(system));
            }
            Floor::Staged { followers, .. } => {
                system.broker(&programs.nats_server, brokers[0])?;
                for id in 0..followers {
                    let role = format!("follower --rt ct --id {id} --dir {}", dir.display());
                    system.role(program, &broker, &format!("follower-{id}"), &role)?;
                }
                let leader = match followers {
                    0 => "--followers 0 --catalog parallel".to_owned(),
                    followers => format!("--followers {followers} --fanout --catalog staged"),
                };
                let staged = if followers > 0 { "--staged" } else { "" };
                // It takes the first acknowledgement for that of all, so several are told nothing: its catalog leaves that to a
                // leader, which does not do it either, and they listen where nothing is said.
                let (tells, told) = if frontends == 1 { ("catalog", "catalog") } else { ("leader", "fire") };
                (format!("catalog --rt ct {staged} --inv {tells}"), leader, format!("--rt ct --inv {told} --batch"))
            }
            Floor::JetStream { replicas, batches } => {
                system.jetstream(&programs.nats_server, &brokers[..usize::from(replicas)], &brokers[3..])?;
                let one_each = if batches { "" } else { "--depth 256 --max-batch 1" };
                let leader = format!("--backend js --followers 0 --replicas {replicas} {one_each}");
                ("catalog --rt ct".to_owned(), leader, "--rt mt".to_owned())
            }
        };
        system.role(program, &broker, "catalog", &catalog)?;
        system.role(program, &broker, "leader", &format!("leader --rt ct --dir {} {leader}", dir.display()))?;
        for (number, port) in own.iter().enumerate() {
            let name = format!("frontend-{}", number + 1);
            system.role(program, &broker, &name, &format!("frontend --port {port} {frontend}"))?;
        }
        Ok(Some(system))
    }

    /// Starts brokers that keep streams, each message on disk before it is acknowledged; a cluster, if there are several.
    fn jetstream(&mut self, program: &Path, ports: &[u16], routes: &[u16]) -> anyhow::Result<()> {
        let all: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        for (index, (port, route)) in ports.iter().zip(routes).enumerate() {
            let store = self._files.path().join(format!("js{index}"));
            let mut config = format!(
                "server_name: n{index}\nhost: 127.0.0.1\nport: {port}\n\
                 jetstream {{ store_dir: {:?}, sync_interval: always }}\n",
                store.display().to_string()
            );
            if ports.len() > 1 {
                let routes = all.join(", ");
                let _ = writeln!(config, "cluster {{ name: c, host: 127.0.0.1, port: {route}, routes: [{routes}] }}");
            }
            let path = self._files.path().join(format!("nats{index}.conf"));
            std::fs::write(&path, config)?;
            let mut command = Command::new(program);
            command.arg("-c").arg(&path);
            self.start_broker(command, &format!("nats-{index}"), *port)?;
        }
        Ok(())
    }

    /// Starts the floor's own broker: one core, as its cases have it.
    fn broker(&mut self, program: &Path, port: u16) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]).env("GOMAXPROCS", "1");
        self.start_broker(command, "nats", port)
    }

    fn start_broker(&mut self, mut command: Command, name: &str, port: u16) -> anyhow::Result<()> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.adopt(name, child.context("the floor's broker")?);
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if started.elapsed() > PATIENCE {
                bail!("the floor's broker does not listen");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Starts one of the floor's processes and waits until it is ready.
    fn role(&mut self, program: &Path, options: &[String], name: &str, role: &str) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command.args(options).args(role.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let stdout = child.stdout.take();
        self.adopt(name, child);
        let mut line = String::new();
        BufReader::new(stdout.context("its output")?).read_line(&mut line)?;
        if line.trim() != "READY" {
            bail!("the floor's {name} did not start");
        }
        Ok(())
    }

    fn adopt(&mut self, name: &str, child: Child) {
        self.pids.push((name.to_owned(), child.id()));
        self.children.push(child);
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for child in self.children.iter().rev() {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // Fails for one that has ended.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let started = Instant::now();
        for child in self.children.iter_mut().rev() {
            while matches!(child.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
                std::thread::sleep(POLL);
            }
            // Both fail for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
