//! The `tradenet` program: every service and the operator's commands, one a subcommand.
//!
//! It only reads the command line and hands over. The rules: what a command was asked for goes to standard output, and
//! logs and errors to standard error; an error is one line that says what to do next, and a non-zero exit.

mod backup;
mod cluster;
mod dev;
mod exit;
mod export;
mod frontends;
mod healthcheck;
mod http;
mod journal;
mod log;
mod market;
mod order;
mod out;
mod recover;
mod repair;
mod status;
mod table;
mod time;
mod trade;
mod verify;

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tradenet_runtime::nats::ConnectArgs;
use tradenet_runtime::shutdown::Shutdown;
use tradenet_runtime::telemetry;
use tradenet_schemas::trade::Side;

// A service allocates a few dozen times an order, and frees what another task has allocated.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trade-Net, a replicated stock exchange.
#[derive(Debug, Parser)]
#[command(name = "tradenet", version, max_term_width = 100, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole exchange on this machine: a broker, the catalog, the order replicas and the frontends.
    Dev(dev::Args),
    /// Run one order replica (--id N), or look an order up (NUMBER).
    Order(order::Order),
    /// Run the catalog.
    Catalog(tradenet_catalog::Args),
    /// Run a frontend.
    Frontend(tradenet_frontend::Args),
    /// Show who leads, who is in sync, and how far everybody is.
    Status(status::Args),
    /// List all stocks with their prices.
    Stocks(market::StocksArgs),
    /// Buy a stock from the house, exactly once.
    Buy(trade::Args),
    /// Sell a stock to the house, exactly once.
    Sell(trade::Args),
    /// Show what accounts bid and ask for a stock.
    Book(market::BookArgs),
    /// Show the last trades that accounts made in a stock.
    Trades(market::TradesArgs),
    /// Show the entries of a replica's log, from its file.
    Log(log::Args),
    /// Write trades or orders as CSV, from a replica's file.
    Export(export::Args),
    /// Copy the committed part of a running exchange's log to a directory, and read it back.
    Backup(backup::BackupArgs),
    /// Make the replicas' directories of a new exchange from a backup.
    Restore(backup::RestoreArgs),
    /// Check order files, and compare those of several replicas.
    Verify(verify::Args),
    /// Mend damaged order files from those of other replicas, all of them stopped.
    Repair(repair::Args),
    /// Go on with what is left when disks that hold acknowledged orders are gone.
    Recover(recover::Args),
    /// Ask the service in this container whether it does its work; for the engine that watches it.
    Healthcheck(healthcheck::Args),
    /// Write a script that completes this program's commands and options in a shell.
    Completions(CompletionsArgs),
}

/// `tradenet completions`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
For bash, now and in every new shell:
  tradenet completions bash > ~/.local/share/bash-completion/completions/tradenet")]
struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// All of the command line. What counts for services only is not shown where an operator asks.
fn command_line() -> clap::Command {
    let without = |ids: &'static [&'static str]| {
        move |command: clap::Command| {
            command.mut_args(|arg| if ids.contains(&arg.get_id().as_str()) { arg.hide(true) } else { arg })
        }
    };
    Cli::command()
        .mut_subcommand("status", without(&["name", "register_replicas"]))
        .mut_subcommand("healthcheck", without(&["register_replicas"]))
        .mut_subcommand("recover", without(&["name"]))
}

fn main() -> ExitCode {
    let matches = command_line().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command_line()).exit());
    exit::of(run(cli, &matches))
}

fn run(cli: Cli, matches: &ArgMatches) -> anyhow::Result<()> {
    // One thread: a message that crosses threads costs more than handling it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Dev(args) => Box::pin(dev::run(args)).await,
            Command::Order(order::Order::LookUp(args)) => market::order(&args).await,
            Command::Order(order::Order::Replica(args)) => {
                let shutdown = service(&format!("order-{}", args.id))?;
                tokio::spawn(tradenet_order::run(*args, shutdown)).await?
            }
            Command::Catalog(args) => {
                let shutdown = service(args.connect.name.as_deref().unwrap_or("catalog-1"))?;
                tokio::spawn(tradenet_catalog::run(args, shutdown)).await?
            }
            Command::Frontend(args) => {
                let shutdown = service(args.connect.name.as_deref().unwrap_or("frontend-1"))?;
                tokio::spawn(tradenet_frontend::run(args, shutdown)).await?
            }
            Command::Status(mut args) => {
                use_running_dev(&mut args.connection, matches);
                Box::pin(status::run(&args)).await
            }
            Command::Stocks(args) => market::stocks(&args).await,
            Command::Buy(args) => trade::run(&args, Side::Buy).await,
            Command::Sell(args) => trade::run(&args, Side::Sell).await,
            Command::Book(args) => market::book(&args).await,
            Command::Trades(args) => market::trades(&args).await,
            Command::Log(args) => log::run(&args).await,
            Command::Export(args) => export::run(&args).await,
            Command::Backup(args) => backup::backup(&args).await,
            Command::Restore(args) => backup::restore(&args),
            Command::Completions(args) => completions(&args),
            Command::Healthcheck(args) => Box::pin(healthcheck::run(&args)).await,
            Command::Verify(args) => verify::run(&args),
            Command::Repair(args) => repair::run(&args),
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
    if let Some(Ok(url)) = frontends::broker_of_dev().map(|url| url.parse()) {
        connection.nats_url = url;
    }
}

fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command_line(), "tradenet", &mut script);
    out::print(&String::from_utf8(script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn a_number_is_an_order_and_an_id_is_a_replica() {
        let check = |arguments: &[&str], expected: Result<&str, clap::error::ErrorKind>| {
            let parsed = command_line().try_get_matches_from(arguments);
            let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches));
            let kind = match parsed.map(|cli| cli.command) {
                Ok(Command::Order(order::Order::Replica(args))) => Ok(format!("replica {}", args.id)),
                Ok(Command::Order(order::Order::LookUp(_))) => Ok("look-up".to_owned()),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.kind()),
            };
            assert_eq!(kind.as_deref().map_err(|kind| *kind), expected, "{arguments:?}");
        };
        use clap::error::ErrorKind;
        check(&["tradenet", "order", "--id", "3", "--data-dir", "d"], Ok("replica 3"));
        check(&["tradenet", "order", "42"], Ok("look-up"));
        check(&["tradenet", "order", "42", "--json", "--url", "http://a:1,http://b:2"], Ok("look-up"));
        check(&["tradenet", "order"], Err(ErrorKind::MissingRequiredArgument));
        check(&["tradenet", "order", "42", "--id", "3"], Err(ErrorKind::ArgumentConflict));
        check(&["tradenet", "order", "0"], Err(ErrorKind::ValueValidation));
    }
}
