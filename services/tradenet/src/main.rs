//! The `tradenet` program: every service and the operator's commands, one a subcommand.
//!
//! It only reads the command line and hands over. The rules: what a command was asked for goes to standard output, and
//! logs and errors to standard error; an error is one line that says what to do next, and a non-zero exit.

mod cluster;
mod dev;
mod healthcheck;
mod http;
mod recover;
mod status;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tradenet_runtime::nats::ConnectArgs;
use tradenet_runtime::shutdown::Shutdown;
use tradenet_runtime::telemetry;

/// Trade-Net, a replicated stock exchange.
#[derive(Debug, Parser)]
#[command(name = "tradenet", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole exchange on this machine: a broker, the catalog, the order replicas and the frontends.
    Dev(dev::Args),
    /// Run one order replica.
    Order(tradenet_order::Args),
    /// Run the catalog.
    Catalog(tradenet_catalog::Args),
    /// Run a frontend.
    Frontend(tradenet_frontend::Args),
    /// Show who leads, who is in sync, and how far everybody is. Exit 0 only where trades can be served.
    Status(status::Args),
    /// Ask the service in this container whether it does its work; for the engine that watches it.
    Healthcheck(healthcheck::Args),
    /// Check order files offline, and compare those of several replicas.
    Verify(verify::Args),
    /// Go on with what is left when disks that hold acknowledged orders are gone.
    Recover(recover::Args),
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading any more, which `eprintln!` would not survive.
            let _ = writeln!(std::io::stderr(), "tradenet: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches) -> anyhow::Result<()> {
    // One thread: a message that crosses threads costs more than handling it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Dev(args) => Box::pin(dev::run(args)).await,
            Command::Order(args) => {
                let shutdown = service(&format!("order-{}", args.id))?;
                Box::pin(tradenet_order::run(args, shutdown)).await
            }
            Command::Catalog(args) => {
                let shutdown = service(args.connect.name.as_deref().unwrap_or("catalog-1"))?;
                Box::pin(tradenet_catalog::run(args, shutdown)).await
            }
            Command::Frontend(args) => {
                let shutdown = service(args.connect.name.as_deref().unwrap_or("frontend-1"))?;
                Box::pin(tradenet_frontend::run(args, shutdown)).await
            }
            Command::Status(mut args) => {
                use_running_dev(&mut args.connection, matches);
                Box::pin(status::run(&args)).await
            }
            Command::Healthcheck(args) => Box::pin(healthcheck::run(&args)).await,
            Command::Verify(args) => verify::run(&args),
            Command::Recover(mut args) => {
                use_running_dev(&mut args.connection, matches);
                Box::pin(recover::run(&args)).await
            }
        }
    })
}

/// What every service begins with: its log, and what tells it to leave.
fn service(name: &str) -> anyhow::Result<Shutdown> {
    telemetry::init(name)?;
    Ok(Shutdown::on_signals()?)
}

/// Where no broker is named, an operator's command means that of the `tradenet dev` that runs here.
fn use_running_dev(connection: &mut ConnectArgs, matches: &ArgMatches) {
    let named = matches.subcommand().and_then(|(_, matches)| matches.value_source("nats_url"));
    if named != Some(ValueSource::DefaultValue) {
        return;
    }
    let dir = std::env::var_os("TRADENET_DATA_DIR").unwrap_or_else(|| "data".into());
    let dev = std::fs::read(std::path::Path::new(&dir).join("dev.json")).ok();
    let dev = dev.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    if let Some(Ok(url)) = dev.as_ref().and_then(|dev| dev["nats_url"].as_str()).map(str::parse) {
        connection.nats_url = url;
    }
}
