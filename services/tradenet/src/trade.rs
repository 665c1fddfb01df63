//! `tradenet buy` and `tradenet sell`: one trade with the house, done once.
//!
//! Problem: an answer can get lost after the trade was made. Idea: the command makes up a key and retries with it, through
//! any frontend, until it knows; the exchange answers a key it knows with what was done at first. Rule kept: where the time
//! is over before anything is known, the key is shown, and the same command with `--key` goes on where this one stopped.

use anyhow::bail;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tradenet_schemas::limits::QUANTITY_MAX;
use tradenet_schemas::rest::Placed;
use tradenet_schemas::trade::{IdempotencyKey, Price, Side, Symbol};

use crate::exit::Unmet;
use crate::frontends::{FrontendArgs, Frontends, NoAnswer, data, message, parse};
use crate::http::{Answer, Ask, segment};
use crate::out;

/// `tradenet buy`, `tradenet sell`
#[derive(clap::Args, Debug)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Args {
    /// The stock.
    #[arg(value_parser = Symbol::new)]
    name: Symbol,
    /// How many.
    #[arg(value_parser = clap::value_parser!(u64).range(1..=QUANTITY_MAX))]
    quantity: u64,
    /// What makes it happen once, however often it is asked for; one is made up where none is named.
    #[arg(long, value_parser = key)]
    key: Option<String>,
    /// One JSON object instead of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    frontends: FrontendArgs,
}

fn key(text: &str) -> Result<String, String> {
    match IdempotencyKey::new(text) {
        Ok(_) if !text.starts_with('"') => Ok(text.to_owned()),
        _ => Err("a key has 1 to 255 visible ASCII characters, the first none of \"".to_owned()),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Done<'a> {
    transaction_number: u64,
    name: &'a str,
    #[serde(rename = "type")]
    side: Side,
    quantity: u64,
    /// For each; none where it could not be read.
    price: Option<Box<RawValue>>,
    /// Whether it had been done by an earlier request.
    replayed: bool,
    key: &'a str,
}

#[derive(Deserialize)]
struct Priced {
    price: Box<RawValue>,
}

/// Trades, and prints number and price.
///
/// # Errors
/// It was refused, nobody could do it, or nobody knows whether it was done; the text says which.
pub(crate) async fn run(args: &Args, side: Side) -> anyhow::Result<()> {
    let made_up = || format!("cli-{:032x}", rand::random::<u128>());
    let key = args.key.clone().unwrap_or_else(made_up);
    let mut frontends = Frontends::find(&args.frontends);
    let (name, quantity) = (args.name.as_str(), args.quantity);
    let word = if side == Side::Buy { "buy" } else { "sell" };
    let body = json!({"name": name, "quantity": quantity, "type": word}).to_string();
    let ask = Ask { method: Method::POST, path: "/orders".to_owned(), key: Some(key.clone()), body: body.into() };
    let again = format!("tradenet {word} {} {quantity} --key {}", quoted(name), quoted(&key));
    let answered = match frontends.ask(&ask, true).await {
        Ok(answered) => answered,
        Err(NoAnswer::NoLeader(why)) => return Err(Unmet::NoLeader(format!("nothing was done: {why}")).into()),
        Err(NoAnswer::NotDone(why)) => bail!("nothing was done: {why}"),
        Err(NoAnswer::Unknown(why)) => bail!(
            "it is unknown whether this was done, after {:.0} s: {why}; to learn it, and do it once at most: {again}",
            frontends.elapsed().as_secs_f64()
        ),
    };
    let answer = &answered.answer;
    if answer.status >= 300 {
        let doubt = format!("; an earlier attempt may still be carried out: to be sure, later: {again}");
        bail!("{}{}", refusal(answer, name), if answered.doubtful { &doubt } else { "" });
    }
    let placed: Placed = parse(data(answer)?.get().as_bytes())?;
    let done = Done {
        transaction_number: placed.transaction_number,
        name,
        side,
        quantity,
        price: price(&mut frontends, name).await,
        replayed: answer.headers.contains_key("idempotent-replayed"),
        key: &key,
    };
    let text = if args.json { serde_json::to_string(&done)? } else { sentence(&done, args.key.is_some()) };
    out::print(&(text + "\n"))
}

fn refusal(answer: &Answer, name: &str) -> String {
    let message = message(answer);
    match answer.status {
        404 => format!("{message}: {name}; `tradenet stocks` lists them"),
        422 => format!("{message}; leave --key out for another trade"),
        _ => message,
    }
}

/// The house's price of a stock stays as it was listed, so that it can be read afterwards.
async fn price(frontends: &mut Frontends, name: &str) -> Option<Box<RawValue>> {
    let stock = frontends.read(&format!("/stocks/{}", segment(name))).await.ok()?;
    parse::<Priced>(stock.get().as_bytes()).ok().map(|stock| stock.price)
}

fn sentence(done: &Done<'_>, own_key: bool) -> String {
    let Done { transaction_number, name, quantity, .. } = done;
    let verb = if done.side == Side::Buy { "bought" } else { "sold" };
    let price = done.price.as_ref().and_then(|price| Price::parse(price.get()).ok());
    let at = price.map_or(String::new(), |price| {
        let total = u128::from(price.cents()) * u128::from(*quantity);
        format!(" at {price}, {}.{:02} in all", total / 100, total % 100)
    });
    let before = if done.replayed && own_key { " (this key had done it before)" } else { "" };
    out::printable(&format!("order {transaction_number}: {verb} {quantity} {name}{at}{before}"))
}

/// `text` as a shell reads it.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_:,+@".contains(&b);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trade_is_told_with_its_number_its_price_and_their_product() {
        let check = |side, quantity, price: Option<&str>, replayed, own_key, expected: &str| {
            let price = price.map(|price| RawValue::from_string(price.to_owned()).unwrap());
            let done = Done { transaction_number: 42, name: "GameStart", side, quantity, price, replayed, key: "k" };
            assert_eq!(sentence(&done, own_key), expected);
        };
        check(Side::Buy, 3, Some("15.99"), false, false, "order 42: bought 3 GameStart at 15.99, 47.97 in all");
        check(Side::Sell, 1, Some("0.05"), true, false, "order 42: sold 1 GameStart at 0.05, 0.05 in all");
        check(Side::Sell, 1, None, true, true, "order 42: sold 1 GameStart (this key had done it before)");
    }

    #[test]
    fn the_command_that_asks_again_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("cli-0f"), "cli-0f");
        assert_eq!(quoted("a b$(c)'d"), r"'a b$(c)'\''d'");
    }
}
