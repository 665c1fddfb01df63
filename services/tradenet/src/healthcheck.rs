//! `tradenet healthcheck`: whether the service in this container does its work, for the engine that watches it.
//!
//! Problem: a process that runs may still be cut off, and an image without a shell has nothing to look with. Idea: the same
//! program asks, with the service's own settings, the way that others would ask it: a frontend over HTTP, the others over
//! the broker. The rule: it answers for this one service; a frontend is healthy where it can take trades.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tradenet_core::Packet;
use tradenet_runtime::nats::{Broker, ConnectArgs, connect};
use tradenet_schemas::ids::{Boot, Epoch, Node, ReplicaId};
use tradenet_schemas::message::{Envelope, Message, Role};
use tradenet_schemas::subjects::Peer;

use crate::http;

/// How long the broker may take to be reached.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the service may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// `tradenet healthcheck`
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit status: 0 healthy; 1 not, and the last line says why; 2 wrong usage. A missing leader is 1 here, since engines know no more."
)]
pub(crate) struct Args {
    /// Which service is asked.
    #[arg(value_enum)]
    service: Service,
    /// The replica's id.
    #[arg(long, env = "TRADENET_ID", value_name = "N", required_if_eq("service", "order"))]
    id: Option<ReplicaId>,
    /// Where the frontend listens.
    #[arg(long, env = "TRADENET_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: SocketAddr,
    /// The broker.
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Service {
    Order,
    Catalog,
    Frontend,
}

/// Asks.
///
/// # Errors
/// The service does not do its work; the text says what was found.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    match args.service {
        Service::Order => order(args).await,
        Service::Catalog => catalog(args).await,
        Service::Frontend => frontend(args.listen).await,
    }
}

async fn frontend(listen: SocketAddr) -> anyhow::Result<()> {
    let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    let address = SocketAddr::new(ip, listen.port());
    let answer = http::get(address, "/readyz").await.map_err(anyhow::Error::msg);
    let answer = answer.with_context(|| format!("the frontend at {address}"))?;
    if answer.status != 200 {
        bail!("no trades can be served: {}", String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}

async fn order(args: &Args) -> anyhow::Result<()> {
    let Some(id) = args.id else { bail!("--id says which replica") };
    let from = Node::Tool(Boot(rand::random()));
    let envelope = Envelope { cluster: None, epoch: Epoch(0), from, body: Message::Heartbeat { question: None } };
    let packet = Packet::new(envelope, bytes::Bytes::new());
    let answer = broker(args).await?.call(Peer::Order(id), &packet, ANSWER).await;
    match answer.with_context(|| format!("order-{id}"))?.envelope.body {
        Message::Status(status) if status.role == Role::Starting => bail!("order-{id} reads its journal"),
        Message::Status(status) => status.trouble.map_or(Ok(()), |trouble| bail!("order-{id}: {trouble}")),
        other => bail!("order-{id} gave no status: {other:?}"),
    }
}

async fn catalog(args: &Args) -> anyhow::Result<()> {
    let own = args.connect.name.as_deref().unwrap_or("catalog");
    let found = broker(args).await?.discover(Some("tradenet-catalog"), ANSWER).await?;
    if !found.iter().any(|service| service.metadata.get("name").is_some_and(|name| name == own)) {
        bail!("{own} does not answer");
    }
    Ok(())
}

async fn broker(args: &Args) -> anyhow::Result<Broker> {
    let broker = connect(&args.connect, "tradenet healthcheck").await?;
    if !broker.reached_within(CONNECT).await {
        bail!("no broker answers at {}", args.connect.nats_url);
    }
    Ok(broker)
}
