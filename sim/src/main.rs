//! `tradenet-sim`: runs seeds and stories.
//!
//! It ends with 0 if all held, with 1 if something was broken, and with [`LATE`] if nothing was broken, and something came later
//! than its bound. An assertion of core that fails aborts it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use tradenet_sim::drill::{DRILLS, Drilled};
use tradenet_sim::explore::{Bounds, explore};
use tradenet_sim::invariants::Violation;
use tradenet_sim::linear::Checked;
use tradenet_sim::run::{Recovered, Verdict, run};
use tradenet_sim::stories::STORIES;
use tradenet_sim::trace::{Detail, newest};

/// A run makes many small things and drops them: with the C library's allocator that is 18 % of its time, with this one half of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code where all promises were kept, but not all of them in time (L1 to L7).
const LATE: u8 = 3;
/// Lines of the trace shown for a seed that failed.
const TRACE_LINES: usize = 60;

#[derive(Parser)]
#[command(about = "The whole exchange in one process, in virtual time, under faults from one seed")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run one seed.
    Run {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// Print every step.
        #[arg(long)]
        trace: bool,
        /// How many lines of the trace to show for a failure.
        #[arg(long, default_value_t = TRACE_LINES)]
        last: usize,
        /// With this deliberate bug (feature `bugs`).
        #[cfg(feature = "bugs")]
        #[arg(long)]
        bug: Option<String>,
    },
    /// Run fresh seeds on all cores.
    Swarm {
        /// So many.
        #[arg(long)]
        seeds: Option<u64>,
        /// For so long.
        #[arg(long)]
        minutes: Option<f64>,
        /// The first seed; drawn from the clock if not given.
        #[arg(long)]
        from: Option<u64>,
        /// Threads; as many as there are cores if not given.
        #[arg(long)]
        threads: Option<usize>,
        /// Go on after a failure; the last line lists all of them.
        #[arg(long)]
        keep_going: bool,
    },
    /// Leave out each rule of the protocol in turn, and count the seeds that notice (feature `bugs`).
    #[cfg(feature = "bugs")]
    Bugs {
        /// At most so many seeds a rule.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// Stop when a story or a seed has noticed, instead of counting seeds.
        #[arg(long)]
        first: bool,
        /// Only this one.
        #[arg(long)]
        only: Option<String>,
    },
    /// Go through all that can happen to a small exchange.
    Explore {
        /// Replicas.
        #[arg(long, default_value_t = 2)]
        replicas: u8,
        /// Purchases.
        #[arg(long, default_value_t = 2)]
        purchases: u8,
        /// Reads, asked for after the purchases.
        #[arg(long, default_value_t = 0)]
        reads: u8,
        /// Crashes of replicas.
        #[arg(long, default_value_t = 1)]
        crashes: u8,
        /// Lost messages, and lost answers of the register.
        #[arg(long, default_value_t = 0)]
        losses: u8,
        /// Replicas cut off.
        #[arg(long, default_value_t = 0)]
        cuts: u8,
        /// Times that time passes.
        #[arg(long, default_value_t = 1)]
        jumps: u8,
        /// Times that something happens before what has been able to for longer; without a limit, if not given.
        #[arg(long)]
        overtakes: Option<u8>,
        /// Situations at most.
        #[arg(long, default_value_t = 3_000_000)]
        situations: usize,
        /// With this deliberate bug (feature `bugs`).
        #[cfg(feature = "bugs")]
        #[arg(long)]
        bug: Option<String>,
    },
    /// Tell one story.
    Scenario {
        /// Its name; all names, if not given.
        name: Option<String>,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.what {
        What::Run {
            seed,
            trace,
            last,
            #[cfg(feature = "bugs")]
            bug,
        } => {
            #[cfg(feature = "bugs")]
            choose(bug.as_deref());
            one(seed, trace, last)
        }
        What::Swarm { seeds, minutes, from, threads, keep_going } => {
            let from = from.unwrap_or_else(fresh_seed);
            Swarm::new(from, seeds, minutes, keep_going).go(threads)
        }
        #[cfg(feature = "bugs")]
        What::Bugs { seeds, first, only } => left_out(seeds, first, only.as_deref()),
        What::Explore {
            replicas,
            purchases,
            reads,
            crashes,
            losses,
            cuts,
            jumps,
            overtakes,
            situations,
            #[cfg(feature = "bugs")]
            bug,
        } => {
            #[cfg(feature = "bugs")]
            choose(bug.as_deref());
            let situations_max = situations;
            all_ways(Bounds { replicas, purchases, reads, crashes, losses, cuts, jumps, overtakes, situations_max })
        }
        What::Scenario { name } => scenario(name.as_deref()),
    }
}

fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| u64::from(since.subsec_micros()) * 1_000_000_000 + since.as_secs() % 1_000_000 * 1_000)
}

fn scenario(name: Option<&str>) -> ExitCode {
    let Some(story) = STORIES.iter().find(|(known, _)| Some(*known) == name) else {
        STORIES.iter().for_each(|(name, _)| println!("{name}"));
        return if name.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    (story.1)();
    println!("{} holds", story.0);
    ExitCode::SUCCESS
}

/// Leaves that rule out from now on.
#[cfg(feature = "bugs")]
fn choose(bug: Option<&str>) {
    let known = || tradenet_sim::bugs::Bug::ALL.iter().copied();
    tradenet_core::bugs::choose(known().find(|known| bug == Some(format!("{known:?}").as_str())));
}

/// In how many seeds each deliberate bug is noticed, as the table of `docs/testing.md`.
#[cfg(feature = "bugs")]
fn left_out(seeds: u64, first: bool, only: Option<&str>) -> ExitCode {
    use tradenet_sim::bugs::{Bug, hunt_all};
    let chosen = |bug: &Bug| only.is_none_or(|only| format!("{bug:?}") == only);
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(chosen).collect();
    let all = hunt_all(&bugs, seeds, first, |found| eprintln!("{:?}: {:?} {:?}", found.bug, found.by, found.story));
    println!("| bug | what is left out | seeds that notice | first | story |\n| --- | --- | --- | --- | --- |");
    all.iter().for_each(|found| println!("{}", found.row()));
    let missed = all.iter().filter(|found| !found.is_noticed()).count();
    println!("{missed} of {} were not noticed", all.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all_ways(bounds: Bounds) -> ExitCode {
    let began = Instant::now();
    let explored = explore(bounds);
    println!(
        "{} situations, {} moves between them, at most {} in a row, up to epoch {}, {}, in {:.1} s",
        explored.situations,
        explored.moves,
        explored.deepest,
        explored.epochs,
        if explored.complete { "complete" } else { "NOT complete: a bound on situations ended it" },
        began.elapsed().as_secs_f64()
    );
    let Some((violation, way)) = explored.violation else {
        return ExitCode::SUCCESS;
    };
    println!("VIOLATED {}: {}\nafter {way:?}", violation.invariant, violation.text);
    ExitCode::FAILURE
}

fn one(seed: u64, trace: bool, last: usize) -> ExitCode {
    panics_name_their_seed();
    let detail = if trace { Detail::Echo } else { Detail::Text };
    RUNS.set(Some(Runs { seed, detail, last }));
    let verdict = run(seed, detail);
    if !trace && verdict.violation.is_some() {
        let skip = verdict.trace.len().saturating_sub(last);
        verdict.trace.iter().skip(skip).for_each(|line| println!("{line}"));
    }
    report(&verdict)
}

fn report(verdict: &Verdict) -> ExitCode {
    let Verdict { seed, counts, checked, .. } = verdict;
    println!(
        "seed {seed}: {:.1} s of virtual time, {} steps, {} faults, {} epochs, {counts:?}, {checked:?}",
        verdict.virtual_us as f64 / 1e6,
        verdict.steps,
        verdict.faults,
        verdict.epochs
    );
    match &verdict.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{}", told(violation));
            println!("repeat: cargo run --release -p tradenet-sim -- run --seed {seed}");
            code(violation)
        }
    }
}

/// What was found, on one line.
fn told(violation: &Violation) -> String {
    format!("{} {}: {}", violation.word(), violation.invariant, violation.text)
}

fn code(violation: &Violation) -> ExitCode {
    if violation.is_late { ExitCode::from(LATE) } else { ExitCode::FAILURE }
}

/// What a thread is at.
#[derive(Clone, Copy)]
struct Runs {
    seed: u64,
    detail: Detail,
    /// How many lines of the trace are shown if it fails.
    last: usize,
}

thread_local! {
    static RUNS: std::cell::Cell<Option<Runs>> = const { std::cell::Cell::new(None) };
}

/// A panic in core is a violation too; the release profile aborts, so all that is known is told here.
fn panics_name_their_seed() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(Runs { seed, detail, last }) = RUNS.take() {
            match detail {
                // A swarm has no text: the same seed gives the same panic, with its own words.
                Detail::Fingerprint => {
                    eprintln!("PANIC in seed {seed}, which is run again for its last steps");
                    let again = move || {
                        let detail = Detail::Text;
                        RUNS.set(Some(Runs { seed, detail, last }));
                        run(seed, detail)
                    };
                    let _ = std::thread::spawn(again).join();
                }
                Detail::Text => newest(last).iter().for_each(|line| eprintln!("{line}")),
                Detail::Echo => {}
            }
            eprintln!("PANIC in seed {seed}\nrepeat: cargo run --release -p tradenet-sim -- run --seed {seed}");
        }
        before(info);
    }));
}

/// Many seeds at once.
struct Swarm {
    from: u64,
    seeds: u64,
    ends: Option<Instant>,
    keep_going: bool,
    began: Instant,
    next: AtomicU64,
    done: AtomicU64,
    /// No more seeds: one has failed, or a signal came.
    stop: Arc<AtomicBool>,
    /// A signal came.
    cut: Arc<AtomicBool>,
    totals: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    virtual_us: u64,
    steps: u64,
    faults: u64,
    epochs: u64,
    answers: u64,
    checked: Checked,
    /// Of each run that became whole, how long that took.
    recovered: Vec<Recovered>,
    /// What each run's drill cost.
    drilled: Vec<Drilled>,
    marks: BTreeMap<&'static str, u64>,
    failed: Vec<(u64, Violation)>,
}

impl Totals {
    /// How long runs took to become whole: half of them, all but one in a hundred, and the slowest.
    fn print_recovery(&self) {
        type Took = fn(&Recovered) -> Option<u64>;
        let kinds: [(&str, Took); 7] = [
            ("an order is accepted", |took| (!took.repairs).then_some(took.available_us)),
            ("an order is accepted, the register repaired", |took| took.repairs.then_some(took.available_us)),
            ("everybody is in sync", |took| Some(took.in_sync_us)),
            ("once an order was accepted and the last process started", |took| Some(took.learned_us)),
            ("beyond what who fell often must keep up", |took| Some(took.learned_us.saturating_sub(took.learning_us))),
            ("the highest id leads", |took| Some(took.whole_us)),
            ("beyond the wait of who fell often", |took| Some(took.whole_us.saturating_sub(took.patience_us))),
        ];
        for (what, took) in kinds {
            let mut all: Vec<u64> = self.recovered.iter().filter_map(took).collect();
            all.sort_unstable();
            let at = |percent: usize| {
                let index = all.len().saturating_sub(1) * percent / 100;
                all.get(index).map_or(0.0, |took| *took as f64 / 1e6)
            };
            println!("{what} after {:.2} s (half), {:.2} s (99 %), {:.2} s (all)", at(50), at(99), at(100));
        }
    }
}

impl Totals {
    /// The longest that anybody waited for an order and for a look-up while one fault stayed, and what it cost in epochs.
    fn print_drills(&self) {
        for drill in DRILLS {
            let of = || self.drilled.iter().filter(|drilled| drilled.drill == drill);
            let longest = |wait: fn(&Drilled) -> u64| {
                let mut all: Vec<u64> = of().map(wait).collect();
                all.sort_unstable();
                let at = |percent: usize| {
                    all.get(all.len().saturating_sub(1) * percent / 100).map_or(0.0, |us| *us as f64 / 1e6)
                };
                format!("{:.2} s (half) {:.2} s (all)", at(50), at(100))
            };
            let epochs = of().map(|drilled| drilled.epochs).max().unwrap_or(0);
            println!(
                "{} times {drill:?}: no order for {}, no look-up for {}, at most {epochs} epochs",
                of().count(),
                longest(|drilled| drilled.orders_us),
                longest(|drilled| drilled.look_ups_us)
            );
        }
    }
}

impl Swarm {
    fn new(from: u64, seeds: Option<u64>, minutes: Option<f64>, keep_going: bool) -> Self {
        let began = Instant::now();
        Self {
            from,
            seeds: seeds.unwrap_or(if minutes.is_some() { u64::MAX } else { 1_000 }),
            ends: minutes.map(|minutes| began + Duration::from_secs_f64(minutes * 60.0)),
            keep_going,
            began,
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            stop: Arc::default(),
            cut: Arc::default(),
            totals: Mutex::new(Totals::default()),
        }
    }

    fn go(self, threads: Option<usize>) -> ExitCode {
        panics_name_their_seed();
        if let Err(error) = self.stop_on_signals() {
            eprintln!("a signal will end the swarm without a summary: {error}");
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = threads.unwrap_or(cores);
        println!("seeds from {} on, {threads} threads", self.from);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.work())).collect();
            let mut ticks = 0u32;
            while workers.iter().any(|worker| !worker.is_finished()) {
                std::thread::sleep(Duration::from_millis(200));
                ticks += 1;
                if ticks.is_multiple_of(50) {
                    self.progress();
                }
            }
        });
        self.conclude(threads)
    }

    /// A swarm that is cut off by SIGINT or SIGTERM ends its seeds and says what was done; the second signal ends it at once.
    fn stop_on_signals(&self) -> std::io::Result<()> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_default(signal, self.cut.clone())?;
            signal_hook::flag::register(signal, self.cut.clone())?;
            signal_hook::flag::register(signal, self.stop.clone())?;
        }
        Ok(())
    }

    fn work(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let over = self.ends.is_some_and(|end| Instant::now() >= end);
            if index >= self.seeds || over || self.stop.load(Ordering::Relaxed) {
                return;
            }
            let seed = self.from.wrapping_add(index);
            let detail = Detail::Fingerprint;
            RUNS.set(Some(Runs { seed, detail, last: TRACE_LINES }));
            let verdict = run(seed, detail);
            self.done.fetch_add(1, Ordering::Relaxed);
            self.count(verdict);
        }
    }

    fn count(&self, verdict: Verdict) {
        let Ok(mut totals) = self.totals.lock() else { return };
        totals.virtual_us += verdict.virtual_us;
        totals.steps += verdict.steps;
        totals.faults += verdict.faults;
        totals.epochs += verdict.epochs;
        let counts = verdict.counts;
        totals.answers +=
            counts.accepted + counts.refused + counts.reads + counts.orders + counts.market + counts.events;
        totals.checked.add(verdict.checked);
        totals.recovered.extend(verdict.recovered);
        totals.drilled.extend(verdict.drilled);
        for (mark, count) in verdict.marks {
            *totals.marks.entry(mark).or_default() += u64::from(count > 0);
        }
        if let Some(violation) = verdict.violation {
            println!("seed {} {}", verdict.seed, told(&violation));
            totals.failed.push((verdict.seed, violation));
            if !self.keep_going {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn progress(&self) {
        let (done, seconds) = (self.done.load(Ordering::Relaxed), self.began.elapsed().as_secs_f64());
        if let Ok(totals) = self.totals.lock() {
            println!(
                "{done} seeds in {seconds:.0} s ({:.0} a minute), {:.0} virtual s ({:.0} a real s), {} steps, {} faults, \
                 {} epochs, {} failed",
                done as f64 / seconds * 60.0,
                totals.virtual_us as f64 / 1e6,
                totals.virtual_us as f64 / 1e6 / seconds,
                totals.steps,
                totals.faults,
                totals.epochs,
                totals.failed.len()
            );
        }
    }

    fn conclude(&self, threads: usize) -> ExitCode {
        let Ok(totals) = self.totals.lock() else {
            return ExitCode::FAILURE;
        };
        if self.cut.load(Ordering::Relaxed) {
            println!("cut off by a signal; this is what was done:");
        }
        println!("seeds in which it happened:");
        totals.marks.iter().for_each(|(mark, seeds)| println!("  {seeds:>8} {mark}"));
        totals.print_recovery();
        totals.print_drills();
        let (done, seconds) = (self.done.load(Ordering::Relaxed), self.began.elapsed().as_secs_f64());
        let Totals { virtual_us, steps, faults, epochs, answers, checked, .. } = &*totals;
        let virtual_s = *virtual_us as f64 / 1e6;
        println!(
            "{done} seeds from {} on, {steps} steps, {faults} faults, {epochs} elections and other epochs, {answers} answers \
             checked, {} operations put in a linear order, {} objects undecided; {:.1} days of virtual time, {:.0} virtual \
             seconds a real second; {threads} threads, {:.0} seeds a minute and thread; {} failed",
            self.from,
            checked.operations,
            checked.undecided,
            virtual_s / 86_400.0,
            virtual_s / seconds,
            done as f64 / seconds * 60.0 / threads as f64,
            totals.failed.len()
        );
        // What is broken comes before what is late.
        let Some((seed, worst)) = totals.failed.iter().min_by_key(|(_, violation)| violation.is_late) else {
            return ExitCode::SUCCESS;
        };
        let verdict = run(*seed, Detail::Text);
        let skip = verdict.trace.len().saturating_sub(TRACE_LINES);
        verdict.trace.iter().skip(skip).for_each(|line| println!("{line}"));
        println!("{}", told(worst));
        let of = |is_late: bool| -> Vec<String> {
            let those = totals.failed.iter().filter(|(_, violation)| violation.is_late == is_late);
            those.map(|(seed, _)| seed.to_string()).collect()
        };
        let (broken, late) = (of(false), of(true));
        println!(
            "of {done} seeds broken: {} [{}], late: {} [{}]; repeat: cargo run --release -p tradenet-sim -- run --seed {seed}",
            broken.len(),
            broken.join(" "),
            late.len(),
            late.join(" ")
        );
        code(worst)
    }
}
