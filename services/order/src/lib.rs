//! An order replica: [`tradenet_core::replica`] with a directory, a broker and a clock.
//!
//! Everything that is decided is decided in core; everything that is done is done by the runtime's driver. What is left is
//! to say which directory, which subjects and which name. The rule: the directory is opened, locked and checked before
//! anybody hears of the replica, so that one that must not take part never does.

use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::value_parser;
use tradenet_core::exchange::ORDERS_KEPT;
use tradenet_core::replica::snapshot::SNAPSHOT_EVERY_BYTES;
use tradenet_core::replica::{CATCH_UP_BYTES_PER_S, FAR_BEHIND_ENTRIES, Options, Replica};
use tradenet_core::times::Times;
use tradenet_runtime::clock::Clock;
use tradenet_runtime::disk::segments::SEGMENT_BYTES;
use tradenet_runtime::disk::{Directory, Disk, LogOptions, Opened};
use tradenet_runtime::driver::{self, Ports};
use tradenet_runtime::members::Members;
use tradenet_runtime::metrics::scraper;
use tradenet_runtime::metrics::serve::MetricsArgs;
use tradenet_runtime::nats::{self, ConnectArgs};
use tradenet_runtime::outlet::{self, Outlet, Wanted};
use tradenet_runtime::service_api::Service;
use tradenet_runtime::shutdown::Shutdown;
use tradenet_schemas::ids::{Boot, Node, ReplicaId};
use tradenet_schemas::subjects::heard_by;

const SNAPSHOT_EVERY: NonZeroU64 = NonZeroU64::new(SNAPSHOT_EVERY_BYTES).expect("not zero");

/// Less might never catch up with an exchange that trades.
const CATCH_UP_RATE_MIN: u64 = 1 << 20;

/// Some five million orders.
const FEED_STREAM_BYTES: i64 = 1 << 30;
/// Less would not hold what is handed out at once.
const FEED_STREAM_BYTES_MIN: i64 = 16 << 20;

/// The options of an order replica.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which replica this is; the highest id in sync leads.
    #[arg(long, env = "TRADENET_ID", value_name = "N")]
    pub id: ReplicaId,
    /// Where its directory `order-N` is, or is made.
    #[arg(long, env = "TRADENET_DATA_DIR", default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The ids of all order replicas of the exchange, separated by commas.
    #[arg(long, env = "TRADENET_MEMBERS", default_value = "1,2,3", value_name = "IDS")]
    pub members: Members,
    /// How much of the journal there is from one snapshot to the next, in bytes; less only for tests.
    #[arg(long, env = "TRADENET_SNAPSHOT_EVERY_BYTES", default_value_t = SNAPSHOT_EVERY, value_name = "BYTES", hide = true)]
    pub snapshot_every_bytes: NonZeroU64,
    /// How many entries it must have missed to look for a snapshot of another replica; less only for tests.
    #[arg(long, default_value_t = FAR_BEHIND_ENTRIES, value_name = "ENTRIES", hide = true)]
    pub far_behind_entries: u64,
    /// How many of the newest orders it keeps in memory, and how many of accounts that are done; fewer only for tests, in which it
    /// makes no snapshot.
    #[arg(long, default_value_t = ORDERS_KEPT, value_name = "ORDERS", hide = true)]
    pub orders_kept: usize,
    /// How much of the journal is in one file, in bytes; less only for tests.
    #[arg(long, default_value_t = SEGMENT_BYTES, value_name = "BYTES", hide = true)]
    pub segment_bytes: NonZeroU64,
    /// Move old segments of the journal to `order-N` below this directory, which must be there, and read them from there.
    /// [default: they stay]
    #[arg(long, env = "TRADENET_ARCHIVE_DIR", value_name = "DIR")]
    pub archive_dir: Option<PathBuf>,
    /// How much is copied from others in a second at most, in bytes, when this replica is far behind.
    #[arg(long, env = "TRADENET_CATCH_UP_RATE", default_value_t = CATCH_UP_BYTES_PER_S, value_name = "BYTES", value_parser = value_parser!(u64).range(CATCH_UP_RATE_MIN..))]
    pub catch_up_rate: u64,
    /// Also hand out every entry of the log to this stream of JetStream, for others to read: message N is entry N. It is made if it
    /// is missing. Name the same at every replica; docs/nats.md
    // Compose sets what is not wanted to nothing.
    #[arg(long, env = "TRADENET_FEED_STREAM", default_value = "", hide_default_value = true, value_name = "NAME")]
    pub feed_stream: Wanted,
    /// How much that stream keeps, in bytes; the oldest entries make room. Counts only when it is first made.
    #[arg(long, env = "TRADENET_FEED_STREAM_BYTES", default_value_t = FEED_STREAM_BYTES, value_name = "BYTES", value_parser = value_parser!(i64).range(FEED_STREAM_BYTES_MIN..))]
    pub feed_stream_bytes: i64,
    /// Where it shows how it stands.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// The broker.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Takes part until `shutdown`: then hands over what it leads, syncs, and leaves.
///
/// # Errors
/// The directory can't be used, the broker's address can't be used, or the replica can't go on, such as after a failed
/// sync. The text says what to do.
pub async fn run(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let (id, boot, times, clock) = (args.id, Boot(rand::random()), Times::default(), Clock::new());
    if !args.members.contains(id) {
        bail!("--id {id} is not one of --members {}; name all replicas of the exchange there", args.members);
    }
    if let Err(rule) = times.check() {
        bail!("the protocol's periods do not fit together: {rule}");
    }
    let options = LogOptions { segment_bytes: args.segment_bytes, archive_dir: args.archive_dir };
    let Opened { store, configuration, journal_bytes, directory } = Directory::open(&args.data_dir, id, &options)?;
    tracing::info!("replica {id}, boot {boot}, on {} ({journal_bytes} bytes)", directory.path().display());
    let (place, journal) = (directory.path().to_owned(), directory.files().clone());
    let disk = Disk::start(directory).context("starting the disk's thread")?;
    let replica = Replica::new(Options {
        id,
        boot,
        store,
        members: args.members.ids().to_vec(),
        times,
        configuration,
        journal_bytes,
        snapshot_every_bytes: args.snapshot_every_bytes.get(),
        orders_kept: args.orders_kept,
        far_behind_entries: args.far_behind_entries,
        catch_up_bytes_per_s: args.catch_up_rate,
    });
    let name = format!("order-{id}");
    let (scraper, scrapes) = scraper(name.clone(), env!("CARGO_PKG_VERSION"));
    args.metrics.serve(scraper);
    let broker = nats::connect_without_echo(&args.connect, &name).await?;
    let bulk = Some(nats::connect_aside(&args.connect, &name, "bulk").await?);
    let outlet = match args.feed_stream {
        Wanted(Some(stream)) => {
            let options = outlet::Options { stream, bytes_max: args.feed_stream_bytes, journal };
            let broker = nats::connect_aside(&args.connect, &name, "feed").await?;
            Some(Outlet::start(options, broker, clock).context("opening the journal for the feed")?)
        }
        Wanted(None) => None,
    };
    let ports = Ports { broker, bulk, disk: Some(disk), clients: None, outlet, scrapes, clock };
    // Whatever ends it is about its files, mostly; several replicas may share a log.
    Box::pin(driver::run(replica, presence(id, boot, times), ports, shutdown))
        .await
        .with_context(|| place.display().to_string())
}

/// Who the replica is on the broker, and what it listens to.
fn presence(id: ReplicaId, boot: Boot, times: Times) -> driver::Options {
    let node = Node::Order(id, boot);
    driver::Options {
        node,
        times,
        topics: heard_by(node),
        service: Service {
            name: "tradenet-order",
            description: "An order replica of Trade-Net",
            version: env!("CARGO_PKG_VERSION"),
            metadata: vec![("id", id.to_string())],
        },
    }
}
