//! `tradenet stocks`, `order`, `book` and `trades`: what anybody may read of the market, as tables or as the frontend sent it.

use std::num::NonZeroU64;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tradenet_schemas::limits::PAGE_MAX;
use tradenet_schemas::rest::Order;
use tradenet_schemas::trade::{Side, Symbol};

use crate::exit::HELP;
use crate::frontends::{FrontendArgs, Frontends, parse};
use crate::http::segment;
use crate::out::{self, ColorArgs};
use crate::table::{Column, Table};
use crate::time::moment;

/// What all of them take.
#[derive(clap::Args, Debug)]
struct Common {
    /// The JSON that the frontend sent instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    color: ColorArgs,
    #[command(flatten)]
    frontends: FrontendArgs,
}

impl Common {
    /// Reads, and prints as it came or as `table` has it.
    async fn show<T, F>(&self, path: &str, table: F) -> anyhow::Result<()>
    where
        T: serde::de::DeserializeOwned,
        F: FnOnce(T) -> String,
    {
        self.color.apply();
        let data = Frontends::find(&self.frontends).read(path).await?;
        if self.json {
            return out::print(&format!("{data}\n"));
        }
        out::print(&table(parse(data.get().as_bytes())?))
    }
}

/// `tradenet stocks`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct StocksArgs {
    #[command(flatten)]
    common: Common,
}

/// `tradenet order NUMBER`
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "To look an order up")]
pub(crate) struct OrderArgs {
    /// The order's number, as `buy` and `sell` print it.
    number: NonZeroU64,
    #[command(flatten)]
    common: Common,
}

/// `tradenet book NAME`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct BookArgs {
    /// The stock.
    #[arg(value_parser = Symbol::new)]
    name: Symbol,
    /// How many prices of each side.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=PAGE_MAX as u64))]
    depth: u64,
    #[command(flatten)]
    common: Common,
}

/// `tradenet trades NAME`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct TradesArgs {
    /// The stock.
    #[arg(value_parser = Symbol::new)]
    name: Symbol,
    /// How many, newest first.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=PAGE_MAX as u64))]
    limit: u64,
    #[command(flatten)]
    common: Common,
}

/// Money as it came: the frontend has written two decimals, which a float would lose.
type Money = Box<RawValue>;

#[derive(Deserialize)]
struct Stock {
    name: String,
    price: Money,
    quantity: u64,
    volume: u64,
}

#[derive(Deserialize)]
struct Book {
    name: String,
    bids: Vec<(Money, u64)>,
    asks: Vec<(Money, u64)>,
}

#[derive(Deserialize)]
struct Trade {
    trade: u64,
    price: Money,
    quantity: u64,
    side: Side,
    at: u64,
}

/// All stocks.
///
/// # Errors
/// They can't be had; the text says what would help. The same below.
pub(crate) async fn stocks(args: &StocksArgs) -> anyhow::Result<()> {
    let table = |stocks: Vec<Stock>| {
        let columns =
            [Column::Left("name"), Column::Right("price"), Column::Right("quantity"), Column::Right("volume")];
        let mut table = Table::new(columns);
        for Stock { name, price, quantity, volume } in stocks {
            table.row([name.into(), price.into(), quantity.into(), volume.into()]);
        }
        table.render()
    };
    args.common.show("/stocks", table).await
}

/// One order with the house.
pub(crate) async fn order(args: &OrderArgs) -> anyhow::Result<()> {
    let table = |order: Order| {
        let columns = [Column::Right("order"), Column::Left("side"), Column::Right("quantity"), Column::Left("name")];
        let mut table = Table::new(columns);
        table.row([order.order_num.into(), word(order.side).into(), order.quantity.into(), order.name.into()]);
        table.render()
    };
    let shown = args.common.show(&format!("/orders/{}", args.number), table).await;
    shown.with_context(|| format!("order {}", args.number))
}

/// What accounts bid and ask for a stock.
pub(crate) async fn book(args: &BookArgs) -> anyhow::Result<()> {
    let table = |book: Book| {
        if book.bids.is_empty() && book.asks.is_empty() {
            return out::printable(&format!("nobody bids or asks for {}", book.name)) + "\n";
        }
        let columns = [Column::Right("bid"), Column::Right("price"), Column::Right("ask")];
        let mut table = Table::new(columns);
        // Like a ladder: the highest price on top, so that the best of both sides meet in the middle.
        for (price, quantity) in book.asks.into_iter().rev() {
            table.row(["".into(), price.into(), quantity.into()]);
        }
        for (price, quantity) in book.bids {
            table.row([quantity.into(), price.into(), "".into()]);
        }
        table.render()
    };
    args.common.show(&format!("/stocks/{}/book?depth={}", segment(args.name.as_str()), args.depth), table).await
}

/// The last trades that accounts made in a stock.
pub(crate) async fn trades(args: &TradesArgs) -> anyhow::Result<()> {
    let table = |trades: Vec<Trade>| {
        if trades.is_empty() {
            return format!("accounts have not traded {} yet\n", args.name);
        }
        let columns = [
            Column::Right("trade"),
            Column::Left("time"),
            Column::Left("side"),
            Column::Right("quantity"),
            Column::Right("price"),
        ];
        let mut table = Table::new(columns);
        for Trade { trade, price, quantity, side, at } in trades {
            table.row([trade.into(), moment(at).into(), word(side).into(), quantity.into(), price.into()]);
        }
        table.render()
    };
    args.common.show(&format!("/stocks/{}/trades?limit={}", segment(args.name.as_str()), args.limit), table).await
}

/// As it stands in a table.
pub(crate) fn word(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}
