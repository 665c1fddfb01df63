//! The list of stocks: a CSV file with the header `name,price,quantity`.
//!
//! People edit it by hand, so what is wrong with it is said with the line it is in, and nothing of a wrong list is used.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use tradenet_schemas::limits::STOCKS_MAX;
use tradenet_schemas::trade::{Price, Quantity, Stock, Symbol};

/// The first line.
const HEADER: &str = "name,price,quantity";

/// What is wrong with a list, and in which line of it (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadStocks {
    line: usize,
    why: String,
}

impl fmt::Display for BadStocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for BadStocks {}

/// Reads the list in a file.
///
/// # Errors
/// The file cannot be read, or something is wrong with it.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Stock>> {
    let unreadable = || format!("the stocks file {} cannot be read; name another with --stocks", path.display());
    let text = std::fs::read_to_string(path).with_context(unreadable)?;
    parse(&text).with_context(|| format!("the stocks file {} cannot be used", path.display()))
}

/// Reads a list. Spaces around values and empty lines don't matter; values are not quoted.
///
/// # Errors
/// The first line that is wrong: a header, number of values, name, price or quantity that is not as it must be, a name that
/// was there before, or more than [`STOCKS_MAX`] stocks.
pub fn parse(text: &str) -> Result<Vec<Stock>, BadStocks> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let header = lines.next().map(|(_, line)| line.split(',').map(str::trim).collect::<Vec<_>>().join(","));
    if header.as_deref() != Some(HEADER) {
        return Err(BadStocks { line: 1, why: format!("the first line must be {HEADER}") });
    }
    let (mut stocks, mut names) = (Vec::new(), BTreeSet::new());
    for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
        let stock = stock(text).map_err(|why| BadStocks { line, why })?;
        if !names.insert(stock.symbol.clone()) {
            return Err(BadStocks { line, why: format!("{} is there twice", stock.symbol) });
        }
        if stocks.len() == STOCKS_MAX {
            return Err(BadStocks { line, why: format!("more than {STOCKS_MAX} stocks") });
        }
        stocks.push(stock);
    }
    Ok(stocks)
}

fn stock(line: &str) -> Result<Stock, String> {
    let values: Vec<&str> = line.split(',').map(str::trim).collect();
    let [name, price, quantity] = values[..] else {
        return Err(format!("{} values; there must be three: {HEADER}", values.len()));
    };
    if name.contains('"') {
        return Err(format!("the name {name} has quotes; write it without"));
    }
    let symbol = Symbol::new(name).map_err(|error| format!("{error}, unlike {name:?}"))?;
    let price = Price::parse(price).map_err(|error| format!("{error}, unlike {price:?}"))?;
    let count = quantity.parse::<u64>().ok().and_then(Quantity::new);
    let quantity = count.ok_or_else(|| format!("a quantity is a whole number below 2^53, unlike {quantity:?}"))?;
    Ok(Stock { symbol, price, quantity, volume: Quantity::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_people_write_it() {
        let text = "\u{feff}name, price,quantity\r\nGameStart,15.99,100\r\n\r\n Rare_Pepe , 7 , 0 \n";
        let stocks = parse(text).unwrap();
        let shown: Vec<_> =
            stocks.iter().map(|s| format!("{} {} {} {}", s.symbol, s.price, s.quantity, s.volume)).collect();
        assert_eq!(shown, ["GameStart 15.99 100 0", "Rare_Pepe 7.00 0 0"]);
        assert_eq!(parse("name,price,quantity"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        fn check(rows: &str, expected: &str) {
            let error = parse(&format!("name,price,quantity\n{rows}")).unwrap_err().to_string();
            assert!(error.starts_with("line ") && error.contains(expected), "{error:?} for {rows:?}");
        }
        check("A,1,1\nB,1\n", "line 3: 2 values");
        check("A,1,1,1", "4 values");
        check("A,1,1\n\nA,2,2", "line 4: A is there twice");
        check("a.b,1,1", "visible ASCII");
        check("\"A\",1,1", "without");
        check("A,1.999,1", "at most two places, unlike \"1.999\"");
        check("A,-1,1", "decimal");
        check("A,1,1.5", "whole number");
        check("A,1,-1", "whole number");
        check("A,1,9007199254740992", "below 2^53");
        let many: String = (0..=STOCKS_MAX).map(|number| format!("S{number},1,1\n")).collect();
        check(&many, "more than 2000 stocks");
        assert_eq!(parse("").unwrap_err().to_string(), "line 1: the first line must be name,price,quantity");
        assert_eq!(parse("A,1,1").unwrap_err().line, 1);
    }
}
