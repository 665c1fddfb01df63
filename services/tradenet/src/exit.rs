//! How a command ends, for scripts: 0 it did what it was asked for, 1 it failed, 2 it was asked for nonsense, 3 nobody leads.
//!
//! The rule: an error says what to do next in one line, and the code is chosen here and nowhere else. Most errors are plain
//! text and mean 1; what a script has to tell apart is an [`Unmet`], wherever it stands in an error's chain.

use std::process::ExitCode;

use crate::out;

/// What every `--help` says about it.
pub(crate) const HELP: &str = "\
Exit status: 0 done; 1 failed, and the last line says what to do; 2 wrong usage; 3 nobody leads the exchange at this moment.";

/// Clap uses it for wrong options too.
const USAGE: u8 = 2;
const NO_LEADER: u8 = 3;

/// Ends that a script tells apart from a failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unmet {
    /// What was asked for makes no sense, in a way that clap can't see.
    #[error("{0}")]
    Usage(String),
    /// There is an exchange, and nobody leads it.
    #[error("{0}")]
    NoLeader(String),
    /// Whoever read our standard output has left, as `head` does. They have what they wanted.
    #[error("standard output is closed")]
    ReaderGone,
}

/// Says what went wrong, in one line on standard error, and gives the code.
pub(crate) fn of(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let code = match error.downcast_ref() {
        Some(Unmet::ReaderGone) => return ExitCode::SUCCESS,
        Some(Unmet::Usage(_)) => ExitCode::from(USAGE),
        Some(Unmet::NoLeader(_)) => ExitCode::from(NO_LEADER),
        None => ExitCode::FAILURE,
    };
    out::complain(&format!("tradenet: error: {error:#}"));
    code
}
