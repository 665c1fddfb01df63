//! `loadgen market`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{CONNECTIONS, Frontends, Pace, duration, print, status};
use crate::market::{MarketOptions, market};
use crate::options::Load;

#[derive(Args, Debug)]
#[command(after_help = "\
Half of the accounts quote around the house's price and cancel again, the other half hit what stands there: limit orders,
post-only ones among them, ioc, fok, market orders, cancels, deposits, withdrawals and reads. At the end everything is read
back, account by account, and must add up.

Examples:
  loadgen market --url http://127.0.0.1:8080 --exclusive
  loadgen market --url http://127.0.0.1:8080 --accounts 1000 --orders 100000 --clients 64 --exclusive
  loadgen market --url http://127.0.0.1:8080,http://127.0.0.1:8081 --spread --duration 60s --json > market.json")]
pub(super) struct MarketArgs {
    /// How many accounts are opened and trade.
    #[arg(long, default_value_t = ACCOUNTS)]
    accounts: u32,
    /// Clients, each with one keep-alive connection, among which the accounts are dealt out.
    #[arg(long, default_value_t = CONNECTIONS)]
    clients: u32,
    /// How long they trade.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Trades until so many orders are placed, instead of --duration.
    #[arg(long, conflicts_with = "duration")]
    orders: Option<u64>,
    /// Nobody else's orders are in the books, before or meanwhile: also compare the books, the volumes and the sums.
    #[arg(long)]
    exclusive: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    frontends: Frontends,
}

/// Accounts of a market, where not said.
const ACCOUNTS: u32 = 1_000;

impl MarketArgs {
    fn options(&self) -> MarketOptions {
        let mut run = self.pace.options(self.clients, Load::ClosedFor(self.duration));
        run.exclusive = self.exclusive;
        self.frontends.name(&mut run);
        MarketOptions { run, accounts: self.accounts, orders: self.orders }
    }
}

pub(super) async fn run_market(args: MarketArgs) -> anyhow::Result<ExitCode> {
    let report = Box::pin(market(args.options())).await?;
    print(&if args.json { format!("{:#}", report.to_json()) } else { report.to_string() })?;
    Ok(status(report.ok()))
}
