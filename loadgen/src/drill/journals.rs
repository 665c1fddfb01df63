//! After a drill, the order files of all replicas must be the same, byte for byte.
//!
//! What clients were told is one half of the truth; what the replicas hold is the other. The exchange's own
//! `tradenet verify` reads the files without any service's help. Replicas that have just been healed may still be a few
//! entries behind, so it is asked again until they are not.

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

/// Runs `argv`, which is `tradenet verify` and its directories, until it finds them the same or time is over.
pub(super) async fn compare(argv: &[String]) -> Journals {
    let Some((program, arguments)) = argv.split_first() else {
        return Journals::NotCompared("no order replica's command in dev.json names a --data-dir");
    };
    let end = Instant::now() + SAME_WAIT;
    loop {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await;
        let (well, text) = match output {
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                (output.status.success(), String::from_utf8_lossy(&text).into_owned())
            }
            Err(error) => (false, format!("{program}: {error}")),
        };
        if well && !text.contains(BEHIND) {
            return Journals::Same(text);
        }
        if Instant::now() >= end {
            return Journals::Differ(text);
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replicas_that_are_behind_are_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let script = "echo x >> asked; [ $(wc -l < asked) -lt 3 ] && echo 'ok, 1 entries behind' || echo ok";
        let script = format!("cd {}; {script}", directory.path().display());
        let found = compare(&["sh".to_owned(), "-c".to_owned(), script]).await;
        assert_eq!(found, Journals::Same("ok\n".to_owned()));
    }

    #[tokio::test]
    async fn where_no_directory_is_known_nothing_is_compared() {
        assert!(matches!(compare(&[]).await, Journals::NotCompared(_)));
    }
}
