//! `tradenet status`: who is there, who leads, and how far everybody is.
//!
//! Asked directly of the services, so that it works when no frontend does. Exit 0 only where trades can be served.

mod view;
mod watch;

use tradenet_runtime::nats::ConnectArgs;
use tradenet_schemas::ids::ReplicaId;

use crate::cluster::Cluster;
use crate::exit::Unmet;
use crate::out::{self, ColorArgs};
use view::View;

/// `tradenet status`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit status: 0 trades are served; 1 they are not, or no broker answers; 2 wrong usage; 3 nobody leads at this moment.
With --watch: 0 when it is ended.")]
pub(crate) struct Args {
    /// Goes on until Ctrl-C: redrawn in place on a terminal, elsewhere once for each change of who leads and who is there.
    #[arg(long, short)]
    watch: bool,
    /// One JSON object instead of tables; with --watch one line for each change.
    #[arg(long)]
    json: bool,
    /// Replicas to ask even if they do not answer to the broker.
    #[arg(long, env = "TRADENET_MEMBERS", value_name = "IDS", value_delimiter = ',', default_value = "1,2,3")]
    members: Vec<ReplicaId>,
    #[command(flatten)]
    color: ColorArgs,
    /// The broker; where none is named, that of the `tradenet dev` whose directory is `data`.
    #[command(flatten, next_help_heading = "The broker")]
    pub(crate) connection: ConnectArgs,
}

/// Asks and prints.
///
/// # Errors
/// The broker can't be reached, or trades can't be served; the text says what would help.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    args.color.apply();
    if args.watch {
        return watch::run(args).await;
    }
    let view = View::of(&Cluster::ask(&args.connection, &args.members).await?);
    let text = if args.json { serde_json::to_string_pretty(&view)? + "\n" } else { view.text() };
    let printed = out::print(&text);
    match &view.trouble {
        Some(trouble) if view.leader.is_none() => Err(Unmet::NoLeader(trouble.clone()).into()),
        Some(trouble) => Err(anyhow::Error::msg(trouble.clone())),
        // Whoever has left knows by the status whether trades are served.
        None => printed,
    }
}
