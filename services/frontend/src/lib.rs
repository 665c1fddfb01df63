//! The REST frontend: the only part of the exchange that clients see.
//!
//! Problem: clients speak HTTP and expect one plain answer, while behind it leaders change and messages get lost. Idea: all
//! of that is decided in [`tradenet_core::frontend`]; this crate is its edge. A request becomes one question
//! (`routes`, `placing`, `accounts`, `market`), waits at the `desk` (`waits`), and its answer goes out in one of two shapes
//! (`envelope`), or as a stream of `events`, over connections with bounds (`server`, `connection`, `patience`, `lengthy`,
//! `limits`), counted and timed (`observer`). What all of that looks like is told by the OpenAPI document (`openapi`,
//! `failures`, `docs`); people see it live (`page`, `assets`, `standing`). [`run`] ties them together.
//!
//! Rules kept: HTTP is served from the first moment to the last, and says honestly what cannot be served; nothing here
//! decides anything about a trade; every answer has the envelope, but for streams, documents, and the 304 that has no body.

mod accounts;
mod assets;
mod connection;
mod desk;
mod docs;
mod envelope;
mod events;
mod failures;
mod fields;
mod following;
mod lengthy;
mod limits;
mod lobby;
mod market;
mod meter;
mod observer;
mod openapi;
mod opening;
mod page;
mod patience;
mod placing;
mod query;
mod refusals;
mod routes;
mod server;
mod standing;
mod validators;
mod waits;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::Uri;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep};
use tradenet_core::frontend::{Frontend, Options};
use tradenet_core::times::Times;
use tradenet_runtime::clock::Clock;
use tradenet_runtime::driver;
use tradenet_runtime::members::Members;
use tradenet_runtime::metrics::{self, Scraper};
use tradenet_runtime::nats::{self, ConnectArgs};
use tradenet_runtime::service_api::Service;
use tradenet_runtime::shutdown::{Reason, Shutdown, Trigger};
use tradenet_runtime::whereabouts::Whereabouts;
use tradenet_schemas::ids::{Boot, Node};
use tradenet_schemas::subjects::heard_by;

use crate::desk::{Desk, Shared};
use crate::events::Feed;
use crate::limits::{
    ANSWER_MARGIN_MS, BACKLOG_CONNECTIONS, CONNECTIONS_MAX, Limits, OTHER_FILES_MAX, TAKEN_RETRY_MS, TAKEN_WAIT_MS,
    connections_max,
};
use crate::observer::Observer;
use crate::routes::Routes;
use crate::standing::Standing;

pub use observer::METRICS;

/// The options of a frontend.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The address to serve REST on; port 0 takes any free one.
    #[arg(long, env = "TRADENET_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// The address at which others reach it, such as http://203.0.113.7:8080, for the broker's list of services; where it
    /// is not said, the one it listens on, unless that is every address of this machine.
    #[arg(long, env = "TRADENET_ADVERTISE", value_name = "URL", value_parser = advertised)]
    pub advertise: Option<String>,
    /// How many stocks to cache; 0 turns the cache off.
    #[arg(long, env = "TRADENET_CACHE_SIZE", default_value_t = 5, value_name = "N")]
    pub cache_size: usize,
    /// The ids of all order replicas of the exchange, separated by commas.
    #[arg(long, env = "TRADENET_MEMBERS", default_value = "1,2,3", value_name = "IDS")]
    pub members: Members,
    /// Requests a second of each client address, and as many at once after a pause; more are answered 429. Not behind a
    /// proxy, whose clients all have its address. Without it, there is no such limit.
    #[arg(long, env = "TRADENET_RATE_LIMIT", value_name = "N")]
    pub rate_limit: Option<NonZeroU32>,
    /// The broker.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

fn advertised(text: &str) -> Result<String, String> {
    let uri: Option<Uri> = text.parse().ok();
    let reachable = |uri: &Uri| {
        let scheme = uri.scheme_str().is_some_and(|scheme| ["http", "https"].contains(&scheme));
        scheme && uri.host().is_some_and(|host| !host.is_empty()) && uri.path() == "/" && uri.query().is_none()
    };
    match uri.filter(reachable) {
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None => Err("write it as http://HOST:PORT, without a path".to_owned()),
    }
}

/// What others are told: every address of this machine is none that they could use.
fn reached_at(advertise: Option<String>, listen: SocketAddr) -> Option<String> {
    advertise.or_else(|| (!listen.ip().is_unspecified()).then(|| format!("http://{listen}")))
}

/// Serves until `shutdown`: then turns clients away, finishes what is under way, and leaves the exchange.
///
/// HTTP is served before the broker is there. Meant for a runtime of one thread (see `desk`).
///
/// # Errors
/// The address is taken or not of this machine, the broker's address can't be used, or the frontend can't go on.
pub async fn run(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let listener = listen_patiently(args.listen).await.with_context(|| {
        format!("cannot listen on {}: free the address, or choose another one with --listen", args.listen)
    })?;
    let connections_max = connections_max(raise_open_files());
    if connections_max < CONNECTIONS_MAX {
        tracing::warn!(
            "so few files and sockets may be open that only {connections_max} clients can connect instead of {CONNECTIONS_MAX}: raise \
             the hard limit (`ulimit -Hn`) to {}",
            CONNECTIONS_MAX + OTHER_FILES_MAX
        );
    }
    let address = listener.local_addr().context("the address to listen on was lost: start again")?;
    let (boot, times, clock) = (Boot(rand::random()), Times::default(), Clock::new());
    let Args { advertise, cache_size, members, rate_limit, connect, .. } = args;
    let limits = Limits { connections_max, rate: rate_limit, ..Limits::default() };
    let members = members.ids().to_vec();
    let core = Shared::new(Frontend::new(Options { boot, members, times, cache_size }));
    let answer_within = times.deadline + Duration::from_millis(ANSWER_MARGIN_MS);
    let (desk, inputs) = Desk::new(core.clone(), clock, answer_within);

    // The driver leaves only when the last client has its answer.
    let (last_answered, leave) = Shutdown::new();
    let who = connect.name.clone().unwrap_or_else(|| "frontend".to_owned());
    let (scraper, scrapes) = metrics::scraper(who.clone(), env!("CARGO_PKG_VERSION"));
    let reached_at = reached_at(advertise, address);
    let whereabouts = Whereabouts::here(connect.compose_service.as_deref());
    let standing = Arc::new(Standing::new(who, reached_at.clone(), whereabouts));
    let edge = (Arc::clone(&desk), Arc::clone(&standing));
    let http = tokio::spawn(serve(listener, edge, limits, scraper, shutdown, last_answered));
    tracing::info!("serving on http://{address}, with a cache of {cache_size}");

    if reached_at.is_none() {
        let port = address.port();
        tracing::info!("nobody is told where to reach it: say so with --advertise, such as http://HOST:{port}");
    }
    let name = connect.name.clone().map(|name| ("name", name));
    let metadata = reached_at.map(|url| ("http", url)).into_iter().chain(name).collect();
    let broker = nats::connect(&connect, "frontend").await?;
    let neighbours = broker.clone();
    let looking = tokio::spawn(async move { standing.neighbours.follow(neighbours, clock).await });
    let answer = Box::new(move |ticket, answer| desk.answer(ticket, answer));
    let clients = Some(driver::Clients { inputs, answer });
    let ports = driver::Ports { broker, bulk: None, disk: None, clients, outlet: None, scrapes, clock };
    let ended = Box::pin(driver::run(core, presence(boot, times, metadata), ports, leave)).await;
    http.abort();
    looking.abort();
    ended
}

/// Serves HTTP until `shutdown` and the end of the last request, and then says so.
async fn serve(
    listener: TcpListener,
    (desk, standing): (Arc<Desk>, Arc<Standing>),
    limits: Limits,
    scraper: Scraper,
    shutdown: Shutdown,
    last_answered: Trigger,
) {
    let feed = Feed::new(Arc::clone(&desk), &limits);
    let following = tokio::spawn(Arc::clone(&feed).follow());
    let waits = tokio::spawn(Arc::clone(&desk).end_long_waits());
    let routes = Routes::new(Arc::clone(&desk), Arc::clone(&feed), Arc::clone(&standing), &limits);
    let observer = Observer::new(routes, scraper, Arc::clone(&desk), feed, standing, &limits);
    let turn_away = async {
        let reason = shutdown.requested().await;
        desk.leave();
        tracing::info!("no new connections: {reason}");
    };
    server::serve(listener, observer, limits, turn_away).await;
    following.abort();
    waits.abort();
    last_answered.request(shutdown.reason().unwrap_or(Reason::Asked));
}

/// Has the system allow as many files and sockets as it ever will, and says how many those are, if it does.
fn raise_open_files() -> Option<u64> {
    let raised = tradenet_runtime::process::raise_open_files();
    raised
        .inspect_err(|error| {
            tracing::warn!("the limit on open files can't be raised ({error}): raise it with `ulimit -n`");
        })
        .ok()
}

/// Who the frontend is on the broker; `metadata` tells it from others.
fn presence(boot: Boot, times: Times, metadata: Vec<(&'static str, String)>) -> driver::Options {
    let node = Node::Frontend(boot);
    driver::Options {
        node,
        times,
        topics: heard_by(node),
        service: Service {
            name: "tradenet-frontend",
            description: "The REST edge of Trade-Net",
            version: env!("CARGO_PKG_VERSION"),
            metadata,
        },
    }
}

/// Listens, also where the address is only just being given up, such as by who held it for this process.
async fn listen_patiently(address: SocketAddr) -> io::Result<TcpListener> {
    let deadline = Instant::now() + Duration::from_millis(TAKEN_WAIT_MS);
    loop {
        match listen(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                sleep(Duration::from_millis(TAKEN_RETRY_MS)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Listens at once, so that a restarted frontend takes its port back from connections of its former life.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG_CONNECTIONS)
}

#[cfg(test)]
mod tests;
