//! A catalog: [`tradenet_core::catalog`] with a list of stocks, a broker and a clock.
//!
//! The catalog keeps nothing: its state is the leader's log, read again at each start. What it brings is the list of
//! stocks that are to be traded (`stocks`), and a name whose directory it locks, so that one started twice by mistake is
//! noticed. Two catalogs of different names are fine: one answers, the others stand by.

mod stocks;

use std::path::{Path, PathBuf};

use anyhow::bail;
use tradenet_core::catalog::{Catalog, Options};
use tradenet_core::times::Times;
use tradenet_runtime::clock::Clock;
use tradenet_runtime::disk::Lock;
use tradenet_runtime::driver::{self, Ports};
use tradenet_runtime::members::Members;
use tradenet_runtime::metrics::scraper;
use tradenet_runtime::metrics::serve::MetricsArgs;
use tradenet_runtime::nats::{self, ConnectArgs};
use tradenet_runtime::service_api::Service;
use tradenet_runtime::shutdown::Shutdown;
use tradenet_schemas::ids::{Boot, Node};
use tradenet_schemas::subjects::heard_by;

pub use stocks::{BadStocks, parse};

/// What the catalog is called where it has no other name.
const NAME: &str = "catalog";

/// The options of a catalog.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What is listed where it is not yet: a CSV file `name,price,quantity` with that header.
    #[arg(long, env = "TRADENET_STOCKS", value_name = "FILE")]
    pub stocks: PathBuf,
    /// Where the directory that it locks is, or is made.
    #[arg(long, env = "TRADENET_DATA_DIR", default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The ids of all order replicas of the exchange, separated by commas.
    #[arg(long, env = "TRADENET_MEMBERS", default_value = "1,2,3", value_name = "IDS")]
    pub members: Members,
    /// Where it shows how it stands.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// The broker.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Answers look-ups until `shutdown`: then gives its leases and authority back, and leaves.
///
/// # Errors
/// The list or the directory can't be used, the broker's address can't be used, or the catalog can't go on.
pub async fn run(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let (boot, times, clock) = (Boot(rand::random()), Times::default(), Clock::new());
    if let Err(rule) = times.check() {
        bail!("the protocol's periods do not fit together: {rule}");
    }
    let stocks = stocks::read(&args.stocks)?;
    let name = args.connect.name.as_deref().unwrap_or(NAME);
    let _lock = Lock::take(&directory(&args.data_dir, name)?)?;
    tracing::info!("catalog {name}, boot {boot}, with {} stocks of {}", stocks.len(), args.stocks.display());
    let catalog = Catalog::new(Options { boot, members: args.members.ids().to_vec(), times, stocks });
    let (scraper, scrapes) = scraper(name.to_owned(), env!("CARGO_PKG_VERSION"));
    args.metrics.serve(scraper);
    let broker = nats::connect(&args.connect, name).await?;
    let ports = Ports { broker, bulk: None, disk: None, clients: None, outlet: None, scrapes, clock };
    Box::pin(driver::run(catalog, presence(boot, times), ports, shutdown)).await
}

/// The directory of a catalog of that name: `DATA_DIR/catalog-NAME`, where the name does not begin so by itself.
fn directory(data_dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        bail!("--name {name:?} cannot name a directory; use letters, digits, -, _ and .");
    }
    let prefix = if name.starts_with(NAME) { "" } else { "catalog-" };
    Ok(data_dir.join(format!("{prefix}{name}")))
}

/// Who the catalog is on the broker, and what it listens to.
fn presence(boot: Boot, times: Times) -> driver::Options {
    let node = Node::Catalog(boot);
    driver::Options {
        node,
        times,
        topics: heard_by(node),
        service: Service {
            name: "tradenet-catalog",
            description: "The read model of Trade-Net",
            version: env!("CARGO_PKG_VERSION"),
            metadata: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogs_directory_bears_its_name_and_stays_below_the_data_directory() {
        fn check(name: &str, expected: Option<&str>) {
            let found = directory(Path::new("data"), name).ok();
            assert_eq!(found, expected.map(|name| Path::new("data").join(name)), "{name:?}");
        }
        check("catalog", Some("catalog"));
        check("catalog-2", Some("catalog-2"));
        check("east", Some("catalog-east"));
        check("", None);
        check("..", None);
        check("../x", None);
        check("a b", None);
    }
}
