//! What a person is shown: standard output, with colours only where somebody sees them.
//!
//! Problem: names and messages come from other programs, and what a terminal takes for a command must not reach it. A reader
//! that leaves early (`head`) is no accident, but a disk that is full is one.
//! Idea: everything goes through [`print`], which strips colours unless they are wanted; foreign text goes through
//! [`printable`] first.
//! Rule kept: no command writes to standard output by itself, and none panics when nobody reads.

use std::io::{self, IsTerminal as _, Write as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::Context as _;

use crate::exit::Unmet;

/// Headings.
pub(crate) const HEADING: Style = Style::new().bold();
/// As it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// To be looked after.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Not as it should be.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Nothing special.
pub(crate) const PLAIN: Style = Style::new();

/// `--color`
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct ColorArgs {
    /// Colours: on a terminal unless NO_COLOR is set, always, or never.
    #[arg(long, env = "TRADENET_COLOR", value_name = "WHEN", value_enum, default_value_t = When::Auto, hide_env_values = true)]
    color: When,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl ColorArgs {
    /// From now on.
    pub(crate) fn apply(self) {
        let choice = match self.color {
            When::Auto => ColorChoice::Auto,
            When::Always => ColorChoice::AlwaysAnsi,
            When::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// Whether a person looks at standard output, as far as can be known.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes to standard output, and hands it over at once.
///
/// # Errors
/// [`Unmet::ReaderGone`], or it can't be written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes what moves about on a terminal, as it is.
///
/// # Errors
/// As for [`print`].
pub(crate) fn draw(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// `text` without its colours where they are not wanted.
pub(crate) fn as_wanted(text: &str) -> String {
    if AutoStream::choice(&io::stdout()) == ColorChoice::Never {
        return anstream::adapter::strip_str(text).to_string();
    }
    text.to_owned()
}

/// What came of writing to standard output.
///
/// # Errors
/// As for [`print`].
pub(crate) fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Unmet::ReaderGone.into()),
        other => other.context("standard output can't be written"),
    }
}

/// Writes one line to standard error. Nobody may be reading any more, which `eprintln!` would not survive.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(line));
}

/// `text` with everything escaped that is not seen as it stands: control characters, line feeds, what turns the direction
/// of writing. Quotes and backslashes stay.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// `text` in a style.
pub(crate) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_what_people_write_is_not() {
        let check = |text: &str, shown: &str| assert_eq!(printable(text), shown);
        check("GameStart", "GameStart");
        check("only order-3's \"disk\" \\ ü 株", "only order-3's \"disk\" \\ ü 株");
        check("\x1b[2J\x1b]0;owned\x07", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}");
        check("two\nlines\r\tand\0", "two\\nlines\\r\\tand\\0");
        check("abc\u{202e}fed\u{200b}\u{9b}", "abc\\u{202e}fed\\u{200b}\\u{9b}");
    }
}
