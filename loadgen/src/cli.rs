//! The command line: options in, exit status out.
//!
//! Everything a script needs is in the exit status: 0 every acknowledged trade verified, 1 something lost, doubled,
//! changed or unknown, 2 a wrong option, 3 the run could not be done.

mod market;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgGroup, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tradenet_runtime::nats::ConnectArgs;

use crate::bench::BenchOptions;
use crate::drill::{DrillOptions, Fault, MAX_FAULTS, Services, drill};
use crate::options::{Load, Probability, RunOptions, Sides};
use crate::sweep::{SweepOptions, Variant, probabilities, sweep};
use crate::url::BaseUrl;

/// Something was lost, doubled, changed or stayed unknown.
const EXIT_NOT_VERIFIED: u8 = 1;
/// The run could not be done at all. Clap uses 2 for wrong options.
const EXIT_FAILED: u8 = 3;

/// Load for a stock exchange: latency that can be trusted, every order verified.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "\
Exit status: 0 every acknowledged trade verified; 1 something lost, doubled, changed or unknown; \
2 wrong options; 3 the run could not be done."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run: look stocks up, trade them, read every order back and compare.
    Run(Box<RunArgs>),
    /// Many runs: latency against the share of trades, with a cache and without, as CSV and plots.
    Sweep(Box<SweepArgs>),
    /// Load while services are killed, stopped, paused and cut off, on a timeline.
    #[command(alias = "failover")]
    Drill(Box<DrillArgs>),
    /// Accounts that trade with each other, and a count of every cent, stock and order at the end.
    Market(Box<market::MarketArgs>),
    /// What the exchange costs, as ratios to what must be paid: starts exchanges and floors, and measures them in turn.
    Bench(BenchArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Everything runs on one core, which is steady; with --core all, figures are as a user would see them, but move with what
else the machine does. Rows where others had more than 15 % say little. Where the machine is busy, give it
precedence (`nice -n -20 loadgen bench ...`, as root); the real-time class would give it to snapshots, too. The client
gives way to whoever answers it (class `batch`, which needs the program `chrt`).

Examples:
  cargo build --release -p tradenet -p loadgen && target/release/loadgen bench
  loadgen bench --only trade --rounds 11 --window 2s
  loadgen bench --core all --only '64 clients' --only 'cached read'")]
struct BenchArgs {
    /// The tradenet program; left out, the one beside this.
    #[arg(long, value_name = "FILE")]
    tradenet: Option<PathBuf>,
    /// The source of the program `floors`, or that program itself. Without it there are no ratios.
    #[arg(long, value_name = "PATH", default_value = "../shared/floors")]
    floors: PathBuf,
    /// Where journals go, so on which disk; the floors are built there too.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
    /// Only cases whose name contains this; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// How often each case is measured.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long a window is.
    #[arg(long, default_value = "1s", value_parser = duration)]
    window: Duration,
    /// How long load is made before a window.
    #[arg(long, default_value = "300ms", value_parser = duration)]
    warmup: Duration,
    /// The core on which everything runs, or `all`.
    #[arg(long, default_value = "1", value_parser = core)]
    core: Core,
}

/// Where everything runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Core(Option<usize>);

fn core(text: &str) -> Result<Core, String> {
    match text {
        "all" => Ok(Core(None)),
        number => number.parse().map(|core| Core(Some(core))).map_err(|_| "the number of a core, or all".to_owned()),
    }
}

impl BenchArgs {
    fn options(self) -> BenchOptions {
        let Self { tradenet, floors, dir, only, rounds, window, warmup, core: Core(core) } = self;
        BenchOptions { tradenet, floors, dir, only, rounds, window: (warmup, window), core }
    }
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("frontend").args(["urls", "discover"]).required(true).multiple(true))]
#[command(after_help = "\
Without --rate the loop is closed: a client asks the next thing when the last is answered, and latency is service time.
With --rate it is open: requests start on schedule, and latency counts from there (no coordinated omission).

Examples:
  loadgen run --url http://127.0.0.1:8080
  loadgen run --url http://127.0.0.1:8080 --clients 8 --iterations 1000 --p 0.8 --side mix --exclusive
  loadgen run --url http://127.0.0.1:8080 --rate 2000 --duration 30s --warmup 5s --side mix
  loadgen run --url http://127.0.0.1:8080,http://127.0.0.1:8081 --duration 10s --json > run.json
  loadgen run --discover --nats-url nats://127.0.0.1:4222 --spread
  loadgen run --url http://127.0.0.1:8080 --hgrm out/run    # for hdrhistogram.github.io/HdrHistogram/plotFiles.html")]
struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// Clients, each with one keep-alive connection; 5, or 64 connections for --rate.
    #[arg(long)]
    clients: Option<u32>,
    /// Lookups of each client.
    #[arg(long, default_value_t = 200, conflicts_with_all = ["duration", "rate"])]
    iterations: u64,
    /// How long, instead of --iterations; 30s for --rate.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Open loop: this many requests a second.
    #[arg(long, conflicts_with = "think")]
    rate: Option<f64>,
    /// Chance that a lookup which finds stocks left is followed by a trade.
    #[arg(long, default_value = "0.6")]
    p: Probability,
    /// Which trades are made.
    #[arg(long, value_enum, default_value_t = Sides::Buy)]
    side: Sides,
    /// Chance that a client reads one of its orders back after a trade, while the load goes on; at the end all are read
    /// back anyway.
    #[arg(long, default_value = "0", conflicts_with = "rate")]
    reread: Probability,
    /// Nobody else trades meanwhile: also fail on orders that were never acknowledged, and on stocks that moved by
    /// something else than what was.
    #[arg(long)]
    exclusive: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Leaves out requests of --rate that find no free connection for so long, instead of sending all of them however late.
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "rate")]
    late_most: Option<Duration>,
    /// Writes the percentiles to FILE as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Writes the distributions to PREFIX-trade.hgrm and so on, for the HdrHistogram plotter.
    #[arg(long, value_name = "PREFIX")]
    hgrm: Option<PathBuf>,
    /// Writes the distributions of every second to FILE, for HdrHistogram's log tools.
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    #[command(flatten)]
    frontends: Frontends,
}

/// Where the exchange is.
#[derive(Args, Debug)]
struct Frontends {
    /// A frontend; of several, the one with the lowest measured round trip is used, and chosen anew when it fails.
    #[arg(long = "url", env = "LOADGEN_URL", value_delimiter = ',')]
    urls: Vec<BaseUrl>,
    /// Asks the broker for frontends, at the start and when none of the known ones answers.
    #[arg(long)]
    discover: bool,
    /// Spreads the clients over all frontends instead of using the nearest: what one has acknowledged must be there when
    /// it is read through another.
    #[arg(long)]
    spread: bool,
    #[command(flatten, next_help_heading = "The broker, for --discover")]
    broker: ConnectArgs,
}

impl Frontends {
    fn name(&self, options: &mut RunOptions) {
        options.urls.clone_from(&self.urls);
        options.discover = self.discover.then(|| self.broker.clone());
        options.spread = self.spread;
    }
}

/// What all commands that trade with the house have in common.
#[derive(Args, Debug)]
struct Common {
    /// Stocks in each trade.
    #[arg(long, default_value_t = 1)]
    quantity: u32,
    #[command(flatten)]
    pace: Pace,
}

/// What all commands that make load have in common.
#[derive(Args, Debug)]
struct Pace {
    /// Requests that start earlier than this are sent and verified, but not measured.
    #[arg(long, default_value = "0s", value_parser = duration)]
    warmup: Duration,
    /// Pause of a client before its next turn.
    #[arg(long, default_value = "0s", value_parser = duration)]
    think: Duration,
    /// Repeats what an earlier run drew, such as stocks and trades; random when left out.
    #[arg(long)]
    seed: Option<u64>,
    /// How long one attempt waits for its answer.
    #[arg(long, default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// How long what changes something is retried with its key before its outcome counts as unknown; at most one more
    /// --timeout passes, for the last attempt.
    #[arg(long, default_value = "60s", value_parser = duration)]
    deadline: Duration,
}

/// Clients of a closed loop, where not said.
const CLIENTS: u32 = 5;
/// Connections of an open loop, where not said: enough that they are not what is measured.
const CONNECTIONS: u32 = 64;
/// Duration of an open loop, where not said.
const DURATION: Duration = Duration::from_secs(30);

impl Common {
    fn options(&self, clients: u32, load: Load) -> RunOptions {
        RunOptions { quantity: self.quantity, ..self.pace.options(clients, load) }
    }
}

impl Pace {
    fn options(&self, clients: u32, load: Load) -> RunOptions {
        RunOptions {
            urls: Vec::new(),
            discover: None,
            spread: false,
            clients,
            load,
            trade_probability: Probability::default(),
            sides: Sides::default(),
            quantity: 1,
            warmup: self.warmup,
            think: self.think,
            late_most: None,
            rest: Duration::ZERO,
            seed: self.seed.unwrap_or_else(rand::random),
            request_timeout: self.timeout,
            deadline: self.deadline,
            reread: Probability::default(),
            exclusive: false,
            interval_log: false,
            timeline: None,
            progress: true,
        }
    }
}

impl RunArgs {
    fn options(&self) -> RunOptions {
        let (clients, load) = match (self.rate, self.duration) {
            (Some(rate), duration) => (CONNECTIONS, Load::Open { rate, duration: duration.unwrap_or(DURATION) }),
            (None, Some(duration)) => (CLIENTS, Load::ClosedFor(duration)),
            (None, None) => (CLIENTS, Load::Iterations(self.iterations)),
        };
        let clients = self.clients.unwrap_or(clients);
        let mut options = RunOptions {
            trade_probability: self.p,
            sides: self.side,
            reread: self.reread,
            exclusive: self.exclusive,
            interval_log: self.hlog.is_some(),
            late_most: self.late_most,
            ..self.common.options(clients, load)
        };
        self.frontends.name(&mut options);
        options
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  loadgen sweep --with-cache http://127.0.0.1:8080 --without-cache http://127.0.0.1:8090 --out out
  loadgen sweep --with-cache http://127.0.0.1:8080 --without-cache http://127.0.0.1:8090 \\
      --duration 5s --warmup 1s --repeats 7 --to 1 --step 0.1 --out out")]
struct SweepArgs {
    #[command(flatten)]
    common: Common,
    /// A frontend that caches stocks.
    #[arg(long, value_delimiter = ',', required_unless_present = "without_cache")]
    with_cache: Vec<BaseUrl>,
    /// A frontend that does not.
    #[arg(long, value_delimiter = ',')]
    without_cache: Vec<BaseUrl>,
    /// Clients, each with one keep-alive connection.
    #[arg(long, default_value_t = CLIENTS)]
    clients: u32,
    /// Lookups of each client in each run.
    #[arg(long, default_value_t = 200, conflicts_with = "duration")]
    iterations: u64,
    /// How long each run takes, instead of --iterations.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// The first probability of a trade.
    #[arg(long, default_value = "0")]
    from: Probability,
    /// The last.
    #[arg(long, default_value = "0.8")]
    to: Probability,
    /// From one to the next.
    #[arg(long, default_value_t = 0.2)]
    step: f64,
    /// Runs of each probability and frontend.
    #[arg(long, default_value_t = 5)]
    repeats: u32,
    /// Which trades are made; with buys alone the stocks would run out between the first run and the last.
    #[arg(long, value_enum, default_value_t = Sides::Mix)]
    side: Sides,
    /// Where the CSV and the plots go.
    #[arg(long, default_value = "sweep", value_name = "DIR")]
    out: PathBuf,
}

impl SweepArgs {
    fn options(&self) -> anyhow::Result<SweepOptions> {
        let load = self.duration.map_or(Load::Iterations(self.iterations), Load::ClosedFor);
        let variant = |name: &str, urls: &[BaseUrl]| Variant { name: name.to_owned(), urls: urls.to_vec() };
        let mut variants = vec![variant("with cache", &self.with_cache), variant("without cache", &self.without_cache)];
        variants.retain(|variant| !variant.urls.is_empty());
        Ok(SweepOptions {
            run: RunOptions { sides: self.side, ..self.common.options(self.clients, load) },
            variants,
            probabilities: probabilities(self.from, self.to, self.step)?,
            repeats: self.repeats,
        })
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
A fault is ACTION:TARGET. Actions: kill (SIGKILL), stop (SIGTERM), restart (stop and start at once), pause (SIGSTOP),
cut (off the network, containers only). Targets: leader, follower, order, catalog, frontend, all (of these),
everything (and the broker), or a service's name. Whatever is harmed is healed after --down, and the next fault waits
until the exchange is whole again. A service that was killed or stopped is started again by its command in dev.json,
which then has its new process number; it outlives the drill, and writes its log to drill-NAME.log beside dev.json.
At the end every order is read back, and the replicas' order files are compared.

Examples:
  loadgen drill --dev data/dev.json
  loadgen drill --dev data/dev.json --fault kill:leader --times 12 --clients 8 --exclusive
  loadgen drill --dev data/dev.json --fault kill:everything --fault pause:leader --out drill
  loadgen drill --compose compose.yaml --url http://127.0.0.1:8080 --fault cut:leader --random 10 --seed 7")]
struct DrillArgs {
    #[command(flatten)]
    common: Common,
    /// The dev.json of a running `tradenet dev`.
    #[arg(long, value_name = "FILE", default_value = "data/dev.json")]
    dev: PathBuf,
    /// A Compose file instead, whose services run.
    #[arg(long, value_name = "FILE", conflicts_with = "dev")]
    compose: Option<PathBuf>,
    /// The program that drives Compose.
    #[arg(long, default_value = "docker")]
    docker: String,
    /// What is done, in turn.
    #[arg(
        long = "fault",
        value_delimiter = ',',
        default_value = "kill:leader,pause:leader,kill:follower,kill:catalog"
    )]
    faults: Vec<Fault>,
    /// Goes through the faults so many times.
    #[arg(long, default_value_t = 1, conflicts_with = "random")]
    times: u32,
    /// Draws so many faults from the list, by the seed.
    #[arg(long)]
    random: Option<u32>,
    /// Time before the first fault, and before each next one when the exchange is whole again.
    #[arg(long, default_value = "3s", value_parser = duration)]
    quiet: Duration,
    /// How long a service stays harmed.
    #[arg(long, default_value = "3s", value_parser = duration)]
    down: Duration,
    /// Clients, each with one keep-alive connection.
    #[arg(long, default_value_t = CLIENTS)]
    clients: u32,
    /// Chance that a lookup is followed by a trade.
    #[arg(long, default_value = "0.6")]
    p: Probability,
    /// Which trades are made; with buys alone the stocks would run out.
    #[arg(long, value_enum, default_value_t = Sides::Mix)]
    side: Sides,
    /// Chance that a client reads one of its orders back after a trade, while faults strike.
    #[arg(long, default_value = "0.1")]
    reread: Probability,
    /// Nobody else trades meanwhile: also fail on orders that were never acknowledged.
    #[arg(long)]
    exclusive: bool,
    /// Where timeline.csv, faults.csv and timeline.svg go.
    #[arg(long, default_value = "drill", value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    frontends: Frontends,
}

impl DrillArgs {
    fn options(&self) -> DrillOptions {
        let rounds = usize::try_from(self.times).unwrap_or(usize::MAX).min(MAX_FAULTS);
        let mut run = RunOptions {
            trade_probability: self.p,
            sides: self.side,
            reread: self.reread,
            exclusive: self.exclusive,
            ..self.common.options(self.clients, Load::ClosedFor(Duration::ZERO))
        };
        self.frontends.name(&mut run);
        DrillOptions {
            run,
            services: match &self.compose {
                None => Services::Dev(self.dev.clone()),
                Some(file) => Services::Compose { file: file.clone(), program: self.docker.clone() },
            },
            faults: vec![self.faults.as_slice(); rounds].concat(),
            random: self.random,
            quiet: self.quiet,
            down: self.down,
        }
    }
}

/// All of the command line. Of what connects to the broker, two options count for services only.
fn command_line() -> clap::Command {
    let services_only = |arg: &clap::Arg| matches!(arg.get_id().as_str(), "name" | "register_replicas");
    Cli::command()
        .mut_subcommands(|command| command.mut_args(|arg| if services_only(&arg) { arg.hide(true) } else { arg }))
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let matches = command_line().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // One thread: the exchange under test shares this machine's cores, and one thread offers more than it serves.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = match cli.command {
        Command::Run(args) => runtime.block_on(run(*args)),
        Command::Sweep(args) => runtime.block_on(run_sweep(*args)),
        Command::Drill(args) => runtime.block_on(run_drill(*args)),
        Command::Market(args) => runtime.block_on(market::run_market(*args)),
        // Its load has runtimes of its own.
        Command::Bench(args) => run_bench(args),
    };
    result.unwrap_or_else(|error| failed(&error))
}

async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let report = crate::run(args.options()).await?;
    print(&if args.json { format!("{:#}", report.to_json()) } else { report.to_string() })?;
    if let Some(path) = &args.csv {
        write_file(path, &report.to_csv())?;
    }
    if let Some(prefix) = &args.hgrm {
        report.write_hgrm(prefix)?;
    }
    if let Some(path) = &args.hlog {
        write_file(path, &report.interval_log)?;
    }
    Ok(status(report.ok()))
}

async fn run_sweep(args: SweepArgs) -> anyhow::Result<ExitCode> {
    let options = args.options()?;
    eprintln!("seed {}", options.run.seed);
    let result = Box::pin(sweep(&options, |run| {
        let report = &run.report;
        eprintln!(
            "run {}, p = {}, {}: {} requests, {:.0}/s, {}",
            run.repeat,
            run.p,
            run.variant,
            report.requests,
            report.throughput(),
            if report.ok() { "verified".to_owned() } else { report.to_string() }
        );
    }))
    .await?;
    for path in result.write(&args.out)? {
        print(&path.display().to_string())?;
    }
    Ok(status(result.ok()))
}

async fn run_drill(args: DrillArgs) -> anyhow::Result<ExitCode> {
    let options = args.options();
    eprintln!("seed {}", options.run.seed);
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Interrupts cannot be heard of: then there is none.
            std::future::pending::<()>().await;
        }
    };
    let result = Box::pin(drill(options, interrupt, |line| eprintln!("{line}"))).await?;
    print(&result.to_string())?;
    for path in result.write(&args.out)? {
        print(&path.display().to_string())?;
    }
    Ok(status(result.ok()))
}

fn run_bench(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let table = crate::bench(&args.options(), |line| eprintln!("{line}"))?;
    print(&table)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a result. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("the result cannot be printed"),
    }
}

fn status(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_VERIFIED) }
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text)
        .with_context(|| format!("{}: cannot be written; does its directory exist?", path.display()))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("loadgen: {error:#}");
    ExitCode::from(EXIT_FAILED)
}

/// A duration as people write it: a number and `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}` needs a unit: 500ms, 30s, 2m or 1h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_needs_a_frontend_or_a_broker_that_knows_one() {
        for (arguments, fits) in [
            (vec!["run"], false),
            (vec!["run", "--url", "http://127.0.0.1:8080"], true),
            (vec!["run", "--discover"], true),
            (vec!["run", "--discover", "--url", "http://127.0.0.1:8080"], true),
            (vec!["drill"], true),
        ] {
            let line = ["loadgen"].iter().chain(&arguments);
            assert_eq!(Cli::try_parse_from(line).is_ok(), fits, "{arguments:?}");
        }
    }

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        let millis = |millis| Some(Duration::from_millis(millis));
        for (text, expected) in [
            ("500ms", millis(500)),
            ("1.5s", millis(1_500)),
            ("2m", millis(120_000)),
            ("1h", millis(3_600_000)),
            ("0s", millis(0)),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
    }
}
