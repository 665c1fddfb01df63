//! After a drill, the order files of all replicas must be the same, byte for byte.
//!
//! What clients were told is one half of the truth; what the replicas hold is the other. The exchange's own
//! `tradenet verify` reads the files without any service's help: all of them at once, or each in its own container. Replicas
//! that have just been healed may still be a few entries behind, so it is asked again until they are not.

use std::fmt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

/// How long replicas get to have the same on their disks when the load is over.
const SAME_WAIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(500);
/// What `tradenet verify` says of a replica that is well and only behind.
const BEHIND: &str = "behind";

/// What the comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Journals {
    /// They are the same, in the words of `tradenet verify`.
    Same(String),
    /// They are not, or one of them is damaged or stays behind.
    Differ(String),
    /// They could not be compared, and why.
    NotCompared(&'static str),
}

impl fmt::Display for Journals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(text) => write!(f, "order files:\n{}", text.trim_end()),
            Self::Differ(text) => write!(f, "ORDER FILES DIFFER:\n{}", text.trim_end()),
            Self::NotCompared(why) => write!(f, "order files not compared: {why}"),
        }
    }
}

/// What was found when the files were looked at once.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) same: bool,
    /// For people.
    pub(super) text: String,
}

/// Looks until the files are the same or time is over.
pub(super) async fn compare(look: impl AsyncFn() -> Look) -> Journals {
    let end = Instant::now() + SAME_WAIT;
    loop {
        let Look { same, text } = look().await;
        if same {
            return Journals::Same(text);
        }
        if Instant::now() >= end {
            return Journals::Differ(text);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// One `tradenet verify` of all directories compares them itself.
pub(super) async fn look_here(program: &str, arguments: &[String]) -> Look {
    match Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await {
        Ok(output) => {
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            Look { same: output.status.success() && !text.contains(BEHIND), text }
        }
        Err(error) => Look { same: false, text: format!("{program}: {error}") },
    }
}

/// Where each replica's own `tradenet verify` says a line about its own file: the lines must be the same but for the name.
pub(super) fn look_at_lines(reports: &[String]) -> Look {
    let own = |report: &String| {
        let line = report.lines().next().unwrap_or_default();
        line.split_once(' ').map(|(_, found)| found.trim().to_owned())
    };
    let mut found = reports.iter().map(own);
    let first = found.next().flatten();
    let same = first.as_ref().is_some_and(|line| line.ends_with("ok")) && found.all(|other| other == first);
    Look { same, text: reports.iter().map(|report| format!("{}\n", report.trim_end())).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replicas_that_are_behind_are_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let script = "echo x >> asked; [ $(wc -l < asked) -lt 3 ] && echo 'ok, 1 entries behind' || echo ok";
        let script = format!("cd {}; {script}", directory.path().display());
        let found = compare(async || look_here("sh", &["-c".to_owned(), script.clone()]).await).await;
        assert_eq!(found, Journals::Same("ok\n".to_owned()));
    }

    #[test]
    fn lines_about_the_same_file_are_the_same_but_for_the_name() {
        for (reports, same) in [
            (vec!["order-1  8 entries  chain 44  ok", "order-2  8 entries  chain 44  ok"], true),
            (vec!["order-1  8 entries  chain 44  ok"], true),
            (vec!["order-1  8 entries  chain 44  ok", "order-2  8 entries  chain 45  ok"], false),
            (vec!["order-1  8 entries  DAMAGED at line 1", "order-2  8 entries  DAMAGED at line 1"], false),
            (vec!["", ""], false),
            (vec![], false),
        ] {
            let texts: Vec<String> = reports.iter().map(|report| (*report).to_owned()).collect();
            assert_eq!(look_at_lines(&texts).same, same, "{reports:?}");
        }
    }
}
