//! `tradenet recover`: go on with what is left, when disks that hold acknowledged orders are gone.
//!
//! Problem: the exchange refuses to start where it can't show that nothing acknowledged is missing (rules R7, R8). Then a
//! person has to decide.
//! Idea: show what every replica has, name the one that has most, and write a configuration with it alone in sync. The others
//! catch up from it.
//! Rule kept: nothing is written unless the operator has said `--accept-loss`, and never while a leader serves.

use std::time::Duration;

use anyhow::{Context, bail};
use tradenet_core::{RegisterAnswer, RegisterRequest, Slot};
use tradenet_runtime::nats::ConnectArgs;
use tradenet_runtime::register::Register;
use tradenet_schemas::ids::{Epoch, Leader, Member, Nonce, ReplicaId};
use tradenet_schemas::message::{Configuration, Floor, Role, Status};

use crate::cluster::Cluster;
use crate::out;

/// How long the register has to answer.
const REGISTER: Duration = Duration::from_secs(3);

/// `tradenet recover`
#[derive(clap::Args, Debug)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Args {
    /// Write it. Without this, it is only shown what would be done and what may be lost.
    #[arg(long)]
    accept_loss: bool,
    /// All replicas of the exchange.
    #[arg(long, env = "TRADENET_MEMBERS", value_name = "IDS", value_delimiter = ',', default_value = "1,2,3")]
    members: Vec<ReplicaId>,
    /// The broker; where none is named, that of the `tradenet dev` whose directory is `data`.
    #[command(flatten, next_help_heading = "The broker")]
    pub(crate) connection: ConnectArgs,
}

/// Shows, and with `--accept-loss` writes.
///
/// # Errors
/// There is nothing to recover, or nothing to recover from, or the register does not take it.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let cluster = Cluster::ask(&args.connection, &args.members).await?;
    // Also one that leads by an older record than the newest: it does not know that yet.
    if cluster.replicas.values().flatten().any(|status| status.role == Role::Leader) {
        bail!("a leader serves, so there is nothing to recover");
    }
    let register = Register::new(&cluster.broker, REGISTER);
    let (slot, floor) = match register.perform(RegisterRequest::Read { ticket: 1 }).await {
        RegisterAnswer::Read { configuration, floor, .. } => (configuration, floor),
        _ => bail!("the broker's register does not answer: check the broker, then try again"),
    };
    for (id, status) in &cluster.replicas {
        out::print(&format!("{}\n", out::printable(&describe(*id, status.as_ref()))))?;
    }
    let alive = cluster.replicas.values().flatten().filter(|status| status.role != Role::Starting);
    let best = alive.max_by_key(|status| (status.tail.epoch, status.tail.seq, status.id));
    let best = best.context("no replica answers: start the one with the most orders")?;
    out::print(&format!(
        "order-{} would lead with {} entries; whatever only others had is lost.\n",
        best.id, best.tail.seq
    ))?;
    if !args.accept_loss {
        bail!("nothing was written; to do it: tradenet recover --accept-loss");
    }
    let target = target(&cluster, args, &slot, &floor, best);
    // The floor first: nobody else begins from now on, by whatever record.
    let first = RegisterRequest::Floor { ticket: 2, floor: Box::new(target.clone()), expected: floor.revision() };
    written(register.perform(first).await)?;
    let configuration = Box::new(target.clone());
    written(register.perform(RegisterRequest::Write { ticket: 3, configuration, expected: slot.revision() }).await)?;
    out::print(&format!("epoch {}: order-{} leads. The others will catch up from it.\n", target.epoch, best.id))
}

/// The frontends read the register every few seconds and tell everybody.
fn target(
    cluster: &Cluster,
    args: &Args,
    slot: &Slot<Configuration>,
    floor: &Slot<Floor>,
    best: &Status,
) -> Configuration {
    let newest = cluster.newest();
    let known = [newest.map(|held| held.epoch), slot.value().map(|held| held.epoch), floor.value().map(Floor::epoch)];
    let epoch = known.into_iter().flatten().max().unwrap_or_default().next();
    let cluster_id = newest.or(slot.value()).map(|held| held.cluster);
    Configuration {
        cluster: cluster_id.unwrap_or_else(|| tradenet_schemas::ids::ClusterId(rand::random())),
        epoch,
        nonce: Nonce(rand::random()),
        leader: Leader { id: best.id, boot: best.boot },
        in_sync: vec![Member { id: best.id, store: best.store }],
        members: newest.map_or_else(|| args.members.clone(), |held| held.members.clone()),
        follows: floor.value().and_then(Floor::record).into_iter().map(Configuration::id).collect(),
        by: cluster.node(),
        why: "tradenet recover --accept-loss".to_owned(),
        at: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)),
    }
}

fn written(answer: RegisterAnswer) -> anyhow::Result<()> {
    match answer {
        RegisterAnswer::Written { .. } => Ok(()),
        RegisterAnswer::Conflict { .. } => bail!("somebody else wrote at the same time: look again"),
        other => bail!("the register did not take it ({other:?}): look again"),
    }
}

fn describe(id: ReplicaId, status: Option<&Status>) -> String {
    let Some(status) = status else { return format!("order-{id}   does not answer") };
    let held = status.configuration.as_ref();
    let epoch = held.map_or(Epoch(0), |held| held.epoch);
    let in_sync = match held {
        Some(held) if held.is_in_sync(id, status.store) => "in sync in the newest configuration it holds",
        Some(held) if held.in_sync_member(id).is_some() => "was in sync with ANOTHER disk",
        Some(_) => "was not in sync",
        None => "empty",
    };
    format!("order-{id}   {} entries, epoch {epoch}, {in_sync}", status.tail.seq)
}
