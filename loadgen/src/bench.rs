//! What the exchange costs, as ratios to what must be paid.
//!
//! Problem: on a shared machine a figure alone says little: the same code is twice as slow a minute later. Idea: a *floor* is
//! run beside it, a program that does nothing but what must happen (the HTTP server alone; the trade path without
//! elections, recovery, validation, keys), and the two are measured in turn, round after round; what counts is the median
//! of the ratios. Everything sits on one core, where latency does not depend on which core sleeps and load on the others
//! shows least.
//!
//! The rules: exchange and floor get the very same load from the same client; each window has its processor time by
//! process, only of the window; what others had of our cores is told with each row; what cannot be measured is named.

mod cases;
mod cpu;
mod load;
mod system;
mod table;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tradenet_runtime::broker::{self, Found, Lookup};

use cases::{Case, Rate};
use cpu::Reading;
use load::Pace;
use system::{Floor, Programs, Shape, System};

/// Before the first window: the exchange attaches its catalog and lists its stocks, and memory is touched once.
const SETTLE: Duration = Duration::from_secs(2);
/// Trades before the first window, so that there are orders to read.
const FIRST_TRADES: Duration = Duration::from_millis(500);

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The `tradenet` program; none: beside this one.
    pub tradenet: Option<PathBuf>,
    /// The source of the program `floors`, or that program.
    pub floors: PathBuf,
    /// Where files go.
    pub dir: PathBuf,
    /// Cases whose name contains one of these; all for none.
    pub only: Vec<String>,
    /// How often each case is measured.
    pub rounds: usize,
    /// How long a window is, and how long load is made before it.
    pub window: (Duration, Duration),
    /// The core for everything; none: all cores.
    pub core: Option<usize>,
}

/// One window.
struct Outcome {
    p50_us: f64,
    p99_us: f64,
    per_s: f64,
    /// By process, in microseconds an operation.
    cpu_us: BTreeMap<String, f64>,
    foreign: f64,
}

impl Outcome {
    fn cpu_us(&self) -> f64 {
        self.cpu_us.values().sum()
    }
}

/// A case, and what each round showed of it and of its floor.
struct Row {
    case: Case,
    outcomes: Vec<(Outcome, Option<Outcome>)>,
}

/// Measures everything; the table, as text. `tell` gets a line for each window.
///
/// # Errors
/// A program is missing or does not start, or an answer is no success.
pub fn bench(options: &BenchOptions, mut tell: impl FnMut(&str)) -> anyhow::Result<String> {
    let cores = stay_on(options.core)?;
    let programs = find_programs(options, &mut tell)?;
    let mut cases = cases::all();
    cases.retain(|case| options.only.is_empty() || options.only.iter().any(|part| case.name.contains(part)));
    ensure!(!cases.is_empty(), "no case has such a name");
    let mut rows = Vec::new();
    for cases in cases.chunk_by(|one, other| one.shape == other.shape) {
        let group = Group::start(&programs, cases, &cores, options.window)?;
        rows.extend(group.measure(options.rounds, &mut tell)?);
    }
    Ok(table::table(&rows, options))
}

/// Cases that share an exchange, which runs with their floors. A floor without load does nothing at all.
struct Group<'a> {
    cases: &'a [Case],
    exchange: System,
    floors: Vec<(Floor, System)>,
    cores: &'a [usize],
    window: (Duration, Duration),
}

impl<'a> Group<'a> {
    fn start(
        programs: &Programs,
        cases: &'a [Case],
        cores: &'a [usize],
        window: (Duration, Duration),
    ) -> anyhow::Result<Self> {
        let shape: Shape = cases.first().context("a group of no cases")?.shape;
        let exchange = System::exchange(programs, shape)?;
        let mut floors: Vec<(Floor, System)> = Vec::new();
        for (floor, _) in cases.iter().filter_map(|case| case.floor) {
            if !floors.iter().any(|(known, _)| *known == floor)
                && let Some(system) = System::floor(programs, floor)?
            {
                floors.push((floor, system));
            }
        }
        std::thread::sleep(SETTLE);
        load::run(&exchange.ports, cases::Ask::Trade, (1, 0), Pace::Closed, (FIRST_TRADES, Duration::ZERO), || {})?;
        Ok(Self { cases, exchange, floors, cores, window })
    }

    fn measure(&self, rounds: usize, tell: &mut impl FnMut(&str)) -> anyhow::Result<Vec<Row>> {
        let mut rows: Vec<Row> =
            self.cases.iter().map(|case| Row { case: case.clone(), outcomes: Vec::new() }).collect();
        for round in 0..rounds {
            for index in 0..rows.len() {
                // Forwards and backwards in turn, so that a noisy spell meets all of them alike.
                let index = if round % 2 == 0 { index } else { rows.len() - 1 - index };
                let case = &rows[index].case;
                let pace = match case.rate {
                    Rate::Closed => Pace::Closed,
                    Rate::Share(share) => match reached(&rows, case) {
                        Some(rate) => Pace::Open(rate * share),
                        // Backwards the closed loop comes later: the first round knows.
                        None => bail!("{}: an open loop needs the closed one beside it", case.name),
                    },
                };
                let floor = case.floor.and_then(|(floor, ask)| {
                    let (_, system) = self.floors.iter().find(|(known, _)| *known == floor)?;
                    Some((system, ask))
                });
                let floor_first = round % 2 == 1;
                // A floor that fails, such as a cluster of brokers between two leaders, costs its round and no more.
                let mut of_floor = || {
                    let (system, ask) = floor?;
                    let window = self.window(system, ask, (case.connections, 0), pace);
                    window.inspect_err(|error| tell(&format!("{round} {}: the floor: {error}", case.name))).ok()
                };
                let before = if floor_first { of_floor() } else { None };
                let outcome = self.window(&self.exchange, case.ask, (case.connections, case.idle), pace)?;
                let of_floor = if floor_first { before } else { of_floor() };
                tell(&table::line(round, case, &outcome, of_floor.as_ref()));
                rows[index].outcomes.push((outcome, of_floor));
            }
        }
        Ok(rows)
    }

    fn window(
        &self,
        system: &System,
        ask: cases::Ask,
        connections: (usize, usize),
        pace: Pace,
    ) -> anyhow::Result<Outcome> {
        let mut edges = Vec::new();
        let at_edge = || edges.push(Reading::now(&system.pids, self.cores));
        let window = load::run(&system.ports, ask, connections, pace, self.window, at_edge)?;
        let mut edges = edges.into_iter();
        let (Some(first), Some(last)) = (edges.next(), edges.next()) else { bail!("a window without edges") };
        let used = first?.until(&last?, self.cores.len());
        let count = window.latencies.len();
        ensure!(count > 0, "nothing was answered within a window");
        let quantile = |quantile| window.latencies.value_at_quantile(quantile) as f64;
        let cpu_us = used.by_name.into_iter().map(|(name, us)| (name, us / count as f64)).collect();
        Ok(Outcome {
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            per_s: count as f64 / window.took.as_secs_f64(),
            cpu_us,
            foreign: used.foreign,
        })
    }
}

/// What the closed loop of as many connections has reached so far, in the median.
fn reached(rows: &[Row], open: &Case) -> Option<f64> {
    let same = |row: &&Row| {
        let case = &row.case;
        case.rate == Rate::Closed && (case.ask, case.connections) == (open.ask, open.connections)
    };
    let rates: Vec<f64> = rows.iter().find(same)?.outcomes.iter().map(|(outcome, _)| outcome.per_s).collect();
    (!rates.is_empty()).then(|| table::median(rates))
}

/// Keeps this process, and so all that it starts, on one core: begins anew under `taskset`, unless that is so already. The
/// cores that it may use.
fn stay_on(core: Option<usize>) -> anyhow::Result<Vec<usize>> {
    let cores = cpu::cores()?;
    let Some(core) = core.filter(|core| cores != [*core]) else { return Ok(cores) };
    ensure!(cores.contains(&core), "core {core} can't be used: --core takes one of {cores:?}");
    let mut again = Command::new("taskset");
    again.args(["-c", &core.to_string()]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    // Returns only if it fails.
    Err(again.exec()).context("taskset, which keeps everything on one core")
}

fn find_programs(options: &BenchOptions, tell: &mut impl FnMut(&str)) -> anyhow::Result<Programs> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("tradenet"));
    let tradenet = options.tradenet.clone().or_else(beside).context("where the program tradenet is: --tradenet")?;
    ensure!(tradenet.is_file(), "{} is not there: cargo build --release -p tradenet", tradenet.display());
    std::fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
    let dir = options.dir.canonicalize()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(broker::find(&Lookup { nats_url: None, ..Lookup::from_env() }))?;
    let Found::Program(nats_server) = found else { bail!("bench starts its own brokers") };
    let floors = find_floors(options, &dir, tell)?;
    if floors.is_none() {
        let looked_at = options.floors.display();
        tell(&format!("no floors at {looked_at}: figures without ratios. Name their source with --floors"));
    }
    Ok(Programs { tradenet, floors, nats_server, dir })
}

/// Leaves a file as it is that has the same content: cargo would build a newer one again.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let content = std::fs::read(from)?;
    if std::fs::read(to).is_ok_and(|known| known == content) { Ok(()) } else { std::fs::write(to, content) }
}

/// The program `floors`, built if only its source is there; its own directory stays as it is.
fn find_floors(options: &BenchOptions, dir: &Path, tell: &mut impl FnMut(&str)) -> anyhow::Result<Option<PathBuf>> {
    if options.floors.is_file() {
        return Ok(Some(options.floors.clone()));
    }
    let manifest = options.floors.join("Cargo.toml");
    if !manifest.is_file() {
        return Ok(None);
    }
    let source = dir.join("floors");
    std::fs::create_dir_all(source.join("src"))?;
    for entry in std::fs::read_dir(options.floors.join("src"))? {
        let entry = entry?;
        copy(&entry.path(), &source.join("src").join(entry.file_name()))?;
    }
    copy(&manifest, &source.join("Cargo.toml"))?;
    tell("building the floors, unless they are built");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--quiet", "--manifest-path"]).arg(source.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(source.join("target"));
    ensure!(cargo.status().context("cargo, to build the floors")?.success(), "the floors can't be built");
    Ok(Some(source.join("target/release/floors")))
}
