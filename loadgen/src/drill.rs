//! A drill: load, while services are stopped, killed, paused and cut off.
//!
//! What a failover costs is not a number of the protocol but what clients notice: how long no trade is acknowledged, how
//! many attempts fail, and whether anything that was acknowledged is gone. So a drill runs the same verified load as
//! every run, harms one thing after the other meanwhile, and puts both on one timeline. It goes on to the next fault
//! when the exchange is whole again, and never leaves a service harmed: also when interrupted, it heals first.

mod compose;
mod fault;
mod inventory;
mod journals;
mod strip;
mod timeline;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use tokio::sync::oneshot;

pub use fault::{Action, Fault, Target};
pub use journals::Journals;

use crate::connection::{Call, Connection};
use crate::options::{Load, RunOptions};
use crate::report::Report;
use crate::run::{Begun, run_told};
use crate::url::BaseUrl;
use crate::wire::Data;
use compose::Compose;
use inventory::Inventory;

/// Width of a column of the timeline.
pub const COLUMN: Duration = Duration::from_millis(100);
/// How long the exchange gets to be whole again before the next fault comes anyway.
const WHOLE_WAIT: Duration = Duration::from_secs(30);
/// How long a leader is looked for before the drill goes on without.
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// How often the exchange's state is asked for, and how long one answer may take.
const POLL: Duration = Duration::from_millis(50);
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// Most faults of a drill.
pub const MAX_FAULTS: usize = 1_000;
/// Longest load that a drill keeps up.
const LONGEST: Duration = Duration::from_secs(6 * 3_600);

/// Where the services run.
#[derive(Clone, Debug)]
pub enum Services {
    /// Child processes of a `tradenet dev`, listed in this `dev.json`.
    Dev(PathBuf),
    /// Containers of this Compose file, driven by this program (`docker`).
    Compose {
        /// The Compose file.
        file: PathBuf,
        /// The program, looked for on the path.
        program: String,
    },
}

/// What a drill does.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// The load; its duration is the drill's. Without frontends, those of the `dev.json`.
    pub run: RunOptions,
    /// Where the services run.
    pub services: Services,
    /// What is done, in turn.
    pub faults: Vec<Fault>,
    /// So many faults drawn from the list with the run's seed, instead of each in turn.
    pub random: Option<u32>,
    /// Quiet time before the first fault, and before each next one when the exchange is whole again.
    pub quiet: Duration,
    /// How long a service stays harmed.
    pub down: Duration,
}

/// One fault of a drill. Times since the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done to whom.
    pub label: String,
    /// When it was done.
    pub at: Duration,
    /// When it was healed.
    pub healed: Duration,
    /// When all replicas were in sync and a trade was acknowledged again; none where that took too long.
    pub whole: Option<Duration>,
    /// What did not go as it should.
    pub trouble: Option<String>,
    /// The longest time without an acknowledged trade that reaches into the time from this fault to the next.
    pub longest_gap: Duration,
    /// Failed attempts in that time.
    pub errors: u64,
}

/// The result of a drill.
#[derive(Clone, Debug)]
pub struct Drill {
    /// All faults, in turn.
    pub events: Vec<Event>,
    /// Services that were started again and go on running; no `tradenet dev` ends them.
    pub left_running: Vec<String>,
    /// Whether the replicas have the same on their disks.
    pub journals: Journals,
    /// What the load found, timeline included.
    pub report: Report,
}

/// Runs a drill until all faults are over, or until `interrupt` completes. `told` gets a line for each fault.
///
/// # Errors
/// Where the services cannot be found or the run cannot start. Faults that cannot be done are part of the result.
pub async fn drill(
    options: DrillOptions,
    interrupt: impl Future<Output = ()>,
    told: impl FnMut(&str),
) -> anyhow::Result<Drill> {
    let (mut place, mut run) = (Place::open(&options.services).await?, options.run.clone());
    if run.urls.is_empty() && run.discover.is_none() {
        run.urls = place.frontends()?;
    }
    run.load = Load::ClosedFor(LONGEST);
    run.timeline = Some(COLUMN);
    let plan = plan(&options)?;
    let (tell, begun) = oneshot::channel();
    let load = tokio::spawn(Box::pin(run_told(run.clone(), Some(tell))));
    let Ok(begun) = begun.await else {
        load.await??;
        anyhow::bail!("the load ended before it began");
    };
    let mut conductor =
        Conductor { random: Xoshiro256PlusPlus::seed_from_u64(run.seed), options, told, events: Vec::new(), begun };
    let broken = tokio::select! {
        result = conductor.conduct(&mut place, plan) => result.err(),
        () = interrupt => None,
    };
    let healed = place.heal().await;
    conductor.begun.shared.stop.store(true, Ordering::Relaxed);
    let report = load.await??;
    broken.map_or(healed, Err)?;
    let journals = place.journals().await;
    Ok(timeline::sum_up(conductor.events, place.left_running(), journals, report))
}

/// The faults to come.
fn plan(options: &DrillOptions) -> anyhow::Result<Vec<Fault>> {
    let known = &options.faults;
    anyhow::ensure!(!known.is_empty(), "no faults given: pass --fault kill:leader");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(options.run.seed);
    let plan: Vec<Fault> = match options.random {
        None => known.clone(),
        Some(count) => (0..count).map(|_| known[random.random_range(0..known.len())].clone()).collect(),
    };
    anyhow::ensure!(plan.len() <= MAX_FAULTS, "{} faults: at most {MAX_FAULTS}", plan.len());
    Ok(plan)
}

/// Does one fault after the other.
struct Conductor<T> {
    random: Xoshiro256PlusPlus,
    options: DrillOptions,
    told: T,
    events: Vec<Event>,
    begun: Begun,
}

impl<T: FnMut(&str)> Conductor<T> {
    async fn conduct(&mut self, place: &mut Place, plan: Vec<Fault>) -> anyhow::Result<()> {
        let replicas = self.cluster().await.map_or(0, |cluster| cluster.in_sync.len());
        for fault in plan {
            tokio::time::sleep(self.options.quiet).await;
            let victims = self.victims(place, &fault.target).await?;
            let at = self.begun.start.elapsed();
            let mut trouble = place.harm(fault.action, &victims).await;
            self.events.push(Event {
                label: fault::label(&fault, &victims),
                at,
                // Until known otherwise, for a drill that is interrupted here.
                healed: at + self.options.down,
                whole: None,
                trouble: None,
                longest_gap: Duration::ZERO,
                errors: 0,
            });
            if fault.action != Action::Restart {
                tokio::time::sleep(self.options.down).await;
            }
            trouble.extend(place.heal().await.err());
            let healed = self.begun.start.elapsed();
            let whole = self.wait_whole(replicas).await;
            let line = self.complete(healed, whole, &trouble);
            (self.told)(&line);
        }
        tokio::time::sleep(self.options.quiet).await;
        Ok(())
    }

    /// Fills in what came of the last fault, and says it.
    fn complete(&mut self, healed: Duration, whole: Option<Duration>, trouble: &[anyhow::Error]) -> String {
        let trouble: Vec<String> = trouble.iter().map(|error| format!("{error:#}")).collect();
        let number = self.events.len();
        let Some(event) = self.events.last_mut() else {
            return String::new();
        };
        event.healed = healed;
        event.whole = whole;
        event.trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
        let whole = whole.map_or_else(
            || format!("not whole again within {} s", WHOLE_WAIT.as_secs()),
            |whole| format!("whole again at {:.2} s", whole.as_secs_f64()),
        );
        let trouble = event.trouble.as_ref().map(|trouble| format!("; {trouble}")).unwrap_or_default();
        let (at, healed) = (event.at.as_secs_f64(), healed.as_secs_f64());
        format!("fault {number}: {} at {at:.2} s, healed at {healed:.2} s, {whole}{trouble}", event.label)
    }

    /// The services that a fault is for.
    async fn victims(&mut self, place: &Place, target: &Target) -> anyhow::Result<Vec<String>> {
        let names = place.names();
        let leader = match target {
            Target::Leader | Target::Follower => Some(self.leader().await?),
            _ => None,
        };
        let mut fitting: Vec<String> = names.into_iter().filter(|name| target.fits(name, leader.as_deref())).collect();
        anyhow::ensure!(!fitting.is_empty(), "there is no service for the target `{target}`; see `dev.json` for names");
        if !matches!(target, Target::All | Target::Everything) {
            let chosen = self.random.random_range(0..fitting.len());
            fitting = vec![fitting.swap_remove(chosen)];
        }
        Ok(fitting)
    }

    async fn leader(&self) -> anyhow::Result<String> {
        let end = Instant::now() + LEADER_WAIT;
        while Instant::now() < end {
            if let Some(leader) = self.cluster().await.and_then(|cluster| cluster.leader) {
                return Ok(format!("order-{leader}"));
            }
            tokio::time::sleep(POLL).await;
        }
        anyhow::bail!("no frontend names a leader (GET /cluster) for {} s", LEADER_WAIT.as_secs())
    }

    /// Waits until all replicas are in sync and clients are served: what the exchange says of itself is not enough.
    async fn wait_whole(&self, replicas: usize) -> Option<Duration> {
        let end = Instant::now() + WHOLE_WAIT;
        let served = self.served();
        while Instant::now() < end {
            let whole = |cluster: &Cluster| cluster.leader.is_some() && cluster.in_sync.len() >= replicas;
            if self.served() > served && self.cluster().await.as_ref().is_some_and(whole) {
                return Some(self.begun.start.elapsed());
            }
            tokio::time::sleep(POLL).await;
        }
        None
    }

    /// Trades acknowledged so far; lookups answered where no trades are asked for.
    fn served(&self) -> u64 {
        let counts = self.begun.shared.recorder.counts();
        if self.options.run.trade_probability.value() > 0.0 { counts.trades } else { counts.lookups }
    }

    /// What the first frontend that answers says of the exchange.
    async fn cluster(&self) -> Option<Cluster> {
        for known in self.begun.shared.endpoints.known() {
            let call = Call::get("/cluster");
            let answer = Connection::new(known.url).call(&call, POLL_TIMEOUT).await;
            if let Ok(answer) = answer
                && let Ok(cluster) = serde_json::from_slice::<Data<Cluster>>(&answer.body)
            {
                return Some(cluster.data);
            }
        }
        None
    }
}

/// The part of `GET /cluster` that a drill needs.
#[derive(Deserialize)]
struct Cluster {
    leader: Option<u64>,
    in_sync: Vec<u64>,
}

/// The services, and which of them are harmed.
struct Place {
    kind: Kind,
    harmed: Vec<(Action, String)>,
}

enum Kind {
    Dev(Inventory),
    Compose(Compose),
}

impl Place {
    async fn open(services: &Services) -> anyhow::Result<Self> {
        let kind = match services {
            Services::Dev(path) => Kind::Dev(Inventory::read(path)?),
            Services::Compose { file, program } => Kind::Compose(Compose::open(file, program).await?),
        };
        Ok(Self { kind, harmed: Vec::new() })
    }

    fn frontends(&self) -> anyhow::Result<Vec<BaseUrl>> {
        match &self.kind {
            Kind::Dev(inventory) => inventory.frontends(),
            Kind::Compose(_) => {
                anyhow::bail!("a Compose file does not tell where the frontends listen: pass --url, or --discover")
            }
        }
    }

    fn names(&self) -> Vec<String> {
        match &self.kind {
            Kind::Dev(inventory) => inventory.names(),
            Kind::Compose(compose) => compose.names(),
        }
    }

    fn left_running(&self) -> Vec<String> {
        match &self.kind {
            Kind::Dev(inventory) => inventory.left_running(),
            // Containers stay Compose's.
            Kind::Compose(_) => Vec::new(),
        }
    }

    /// Harms all of `names` at once, as far as that goes. Returns what could not be done.
    async fn harm(&mut self, action: Action, names: &[String]) -> Vec<anyhow::Error> {
        let results: Vec<anyhow::Result<()>> = match &mut self.kind {
            Kind::Dev(inventory) => names.iter().map(|name| inventory.harm(action, name)).collect(),
            Kind::Compose(compose) => compose.harm(action, names).await,
        };
        let mut trouble = Vec::new();
        for (name, result) in names.iter().zip(results) {
            match result.with_context(|| format!("{action} {name}")) {
                Ok(()) => self.harmed.push((action, name.clone())),
                Err(error) => trouble.push(error),
            }
        }
        trouble
    }

    async fn journals(&self) -> Journals {
        match &self.kind {
            Kind::Dev(inventory) => match inventory.verify_command().split_first() {
                Some((program, arguments)) => {
                    journals::compare(async || journals::look_here(program, arguments).await).await
                }
                None => Journals::NotCompared("no order replica's command in dev.json names a --data-dir"),
            },
            Kind::Compose(compose) => journals::compare(async || compose.look_at_journals().await).await,
        }
    }

    /// Heals all that is harmed. Goes on after an error, and reports the first.
    async fn heal(&mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        for (action, name) in std::mem::take(&mut self.harmed) {
            let healed = match &mut self.kind {
                Kind::Dev(inventory) => inventory.heal(action, &name).await,
                Kind::Compose(compose) => compose.heal(action, &name).await,
            };
            if first.is_ok() {
                first = healed.with_context(|| format!("bring {name} back"));
            }
        }
        first
    }
}
