//! `tradenet status`: who is there, who leads, and how far everybody is.
//!
//! Asked directly of the services, so that it works when no frontend does. Exit 0 only where trades can be served.

use anyhow::bail;
use serde::Serialize;
use tradenet_runtime::nats::ConnectArgs;
use tradenet_schemas::ids::ReplicaId;
use tradenet_schemas::message::Status;

use crate::cluster::Cluster;

/// `tradenet status`
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Replicas to ask even if they do not answer to the broker.
    #[arg(long, env = "TRADENET_MEMBERS", value_delimiter = ',', default_value = "1,2,3")]
    members: Vec<ReplicaId>,
    /// The broker; where none is named, that of the `tradenet dev` whose directory is `data`.
    #[command(flatten)]
    pub(crate) connection: ConnectArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct View {
    epoch: u64,
    leader: Option<u8>,
    in_sync: Vec<u8>,
    ready: bool,
    trouble: Option<String>,
    replicas: Vec<Replica>,
    catalogs: Vec<Service>,
    frontends: Vec<Service>,
}

#[derive(Serialize)]
struct Replica {
    id: u8,
    alive: bool,
    role: String,
    in_sync: bool,
    epoch: u64,
    tail: u64,
    durable: u64,
    committed: u64,
    applied: u64,
    trouble: Option<String>,
}

#[derive(Serialize)]
struct Service {
    name: String,
    boot: String,
    /// A frontend's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// Whether this catalog answers for the exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<bool>,
}

/// Asks and prints.
///
/// # Errors
/// The broker can't be reached, or trades can't be served; the text says what would help.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let cluster = Cluster::ask(&args.connection, &args.members).await?;
    let view = view(&cluster);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&view)?);
    } else {
        print!("{}", table(&view));
    }
    match view.trouble {
        Some(trouble) if !view.ready => bail!("{trouble}"),
        _ => Ok(()),
    }
}

fn view(cluster: &Cluster) -> View {
    let newest = cluster.newest();
    let attached = cluster.leader().and_then(|leader| leader.catalog).map(|boot| boot.to_string());
    let trouble = cluster.trouble();
    let of = |kind: &'static str| {
        cluster.services.iter().filter(move |service| service.name == kind).map(|service| Service {
            name: service.metadata.get("name").cloned().unwrap_or_else(|| service.id.clone()),
            boot: service.id.clone(),
            http: service.metadata.get("http").cloned(),
            attached: (service.name == "tradenet-catalog").then(|| attached.as_ref() == Some(&service.id)),
        })
    };
    let replicas = cluster.replicas.iter().map(|(id, status)| replica(cluster, *id, status.as_ref()));
    View {
        epoch: newest.map_or(0, |newest| newest.epoch.0),
        leader: cluster.leader().map(|leader| leader.id.get()),
        in_sync: newest.map_or(vec![], |newest| newest.in_sync.iter().map(|member| member.id.get()).collect()),
        ready: trouble.is_none(),
        trouble,
        replicas: replicas.collect(),
        catalogs: of("tradenet-catalog").collect(),
        frontends: of("tradenet-frontend").collect(),
    }
}

fn replica(cluster: &Cluster, id: ReplicaId, status: Option<&Status>) -> Replica {
    let role = status.and_then(|status| serde_json::to_value(status.role).ok()?.as_str().map(str::to_owned));
    let newest = cluster.newest();
    Replica {
        id: id.get(),
        alive: status.is_some(),
        role: role.unwrap_or_else(|| "silent".to_owned()),
        in_sync: status.is_some_and(|s| newest.is_some_and(|newest| newest.is_in_sync(s.id, s.store))),
        epoch: status.and_then(|status| status.configuration.as_ref()).map_or(0, |held| held.epoch.0),
        tail: status.map_or(0, |status| status.tail.seq.0),
        durable: status.map_or(0, |status| status.durable.0),
        committed: status.map_or(0, |status| status.committed.0),
        applied: status.map_or(0, |status| status.applied.0),
        trouble: status.and_then(|status| status.trouble.clone()),
    }
}

fn table(view: &View) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let leader = view.leader.map_or("none".to_owned(), |id| format!("order-{id}"));
    let _ = writeln!(text, "epoch {}   leader {leader}   in sync {:?}", view.epoch, view.in_sync);
    let _ = match &view.trouble {
        None => writeln!(text, "trades are served\n"),
        Some(trouble) => writeln!(text, "trades are NOT served: {trouble}\n"),
    };
    let _ = writeln!(text, "replica   role        in sync  epoch       tail    durable  committed    applied");
    for replica in &view.replicas {
        let Replica { id, role, epoch, tail, durable, committed, applied, .. } = replica;
        let in_sync = if replica.in_sync { "yes" } else { "no" };
        let trouble = replica.trouble.as_ref().map(|trouble| format!("  {trouble}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "order-{id:<3} {role:<11} {in_sync:<7} {epoch:>6} {tail:>10} {durable:>10} {committed:>10} {applied:>10}{trouble}"
        );
    }
    let _ = writeln!(text);
    for catalog in &view.catalogs {
        let attached = if catalog.attached == Some(true) { "attached" } else { "stands by" };
        let _ = writeln!(text, "{:<12} {attached}", catalog.name);
    }
    for frontend in &view.frontends {
        let _ = writeln!(text, "{:<12} {}", frontend.name, frontend.http.as_deref().unwrap_or(""));
    }
    text
}
