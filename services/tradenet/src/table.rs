//! Rows under each other: numbers to the right, words to the left, two spaces between.
//!
//! The rule: a cell is escaped when it is made and measured without its colour, so that nothing in it can move the others.

use std::fmt::Write as _;

use anstyle::Style;

use crate::out::{HEADING, PLAIN, printable};

const GAP: &str = "  ";

/// How a column stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// One text in a row.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// In a style.
    pub(crate) fn new(style: Style, text: &(impl ToString + ?Sized)) -> Self {
        Self { text: printable(&text.to_string()), style }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(PLAIN, &text)
    }
}

/// Columns with a heading each.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    /// Without a row.
    pub(crate) fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: [Cell; N]) {
        self.rows.push(cells);
    }

    /// As lines, coloured.
    pub(crate) fn render(&self) -> String {
        let headings = self.columns.map(|column| {
            let (Column::Left(text) | Column::Right(text)) = column;
            Cell::new(HEADING, text)
        });
        let lines: Vec<_> = std::iter::once(&headings).chain(&self.rows).collect();
        let width = |at: usize| lines.iter().map(|cells| cells[at].text.chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        let mut text = String::new();
        for cells in lines {
            // Spaces are owed until something stands behind them: no line ends with any.
            let mut owed = 0;
            for (at, Cell { text: cell, style }) in cells.iter().enumerate() {
                let missing = widths[at] - cell.chars().count();
                let (before, after) = match self.columns[at] {
                    Column::Left(_) => (0, missing),
                    Column::Right(_) => (missing, 0),
                };
                owed += before;
                if !cell.is_empty() {
                    let _ = write!(text, "{:owed$}{style}{cell}{style:#}", "");
                    owed = 0;
                }
                owed += after + GAP.len();
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::BAD;

    #[test]
    fn columns_stand_under_their_headings_whatever_is_in_them() {
        let mut table = Table::new([Column::Left("name"), Column::Right("quantity"), Column::Left("trouble")]);
        table.row(["GameStart".into(), 7.into(), "".into()]);
        table.row(["\x1b[2J".into(), 1_234_567_890.into(), Cell::new(BAD, "its disk\nis full")]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        let expected = "name         quantity  trouble\n\
                        GameStart           7\n\
                        \\u{1b}[2J  1234567890  its disk\\nis full\n";
        assert_eq!(plain, expected);
    }
}
