//! The exchange as its clients see it: over REST, through whichever frontend answers.
//!
//! Problem: a frontend may be gone, cut off or without a leader, and a command must neither give up at once nor do a thing
//! twice. Idea: a question goes to the frontends in turn until one gives an answer that means something; what changes
//! something carries the same key each time, so that the exchange does it once.
//! Rules kept: every command ends within `--timeout`; and it says "unknown" exactly where a request may have been carried out.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};
use tradenet_schemas::rest::{Cluster, Data, Failure};

use crate::exit::Unmet;
use crate::http::{self, Answer, Ask, Broken, Origin};

/// Longer than a frontend's own deadline for an answer, 5 s, so that its answer is heard and not our own impatience.
const ATTEMPT_MS: u64 = 6_000;
/// Between two rounds over all frontends.
const ROUND_PAUSE_MS: u64 = 200;
/// For `/cluster`, which is answered from memory.
const CLUSTER_MS: u64 = 1_000;
/// Where `tradenet dev` puts the first frontend.
const ORIGIN_DEFAULT: &str = "http://127.0.0.1:8080";
const DIR_DEFAULT: &str = "data";

/// Which frontends, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct FrontendArgs {
    /// A frontend, such as http://127.0.0.1:8080; several, separated by commas, are tried in turn. [default: those of the
    /// `tradenet dev` in TRADENET_DATA_DIR or `data`, or else http://127.0.0.1:8080]
    #[arg(long = "url", env = "TRADENET_URL", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    urls: Vec<Origin>,
    /// Give up after so long at most.
    #[arg(long, env = "TRADENET_TIMEOUT", value_name = "SECONDS", default_value_t = 15, hide_env_values = true,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

/// What is needed of `dev.json`.
#[derive(Deserialize)]
struct Dev {
    nats_url: String,
    frontends: Vec<String>,
}

fn dev(dir: &Path) -> Option<Dev> {
    serde_json::from_slice(&std::fs::read(dir.join("dev.json")).ok()?).ok()
}

fn dev_here() -> Option<Dev> {
    dev(Path::new(&std::env::var_os("TRADENET_DATA_DIR").unwrap_or_else(|| DIR_DEFAULT.into())))
}

/// The broker of the `tradenet dev` that runs here, if one does.
pub(crate) fn broker_of_dev() -> Option<String> {
    dev_here().map(|dev| dev.nats_url)
}

/// The frontends that the `tradenet dev` of a data directory has published.
pub(crate) fn of_dev(dir: &Path) -> Vec<Origin> {
    dev(dir).map_or(vec![], |dev| dev.frontends.iter().filter_map(|url| url.parse().ok()).collect())
}

/// Frontends, and which of them is asked next.
#[derive(Debug)]
pub(crate) struct Frontends {
    origins: Vec<Origin>,
    next: usize,
    since: Instant,
    until: Instant,
}

/// An answer that means something: 2xx, or a refusal for good.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    /// Whether an earlier attempt, with the same key, may still be carried out.
    pub(crate) doubtful: bool,
}

/// Why no frontend has given an answer that means something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It has not been done.
    #[error("{0}")]
    NotDone(String),
    /// It has not been done, for nobody leads.
    #[error("{0}")]
    NoLeader(String),
    /// It has been done or not.
    #[error("{0}")]
    Unknown(String),
}

impl NoAnswer {
    /// For a question that changes nothing.
    pub(crate) fn of_read(self) -> anyhow::Error {
        match self {
            Self::NoLeader(why) => Unmet::NoLeader(why).into(),
            Self::NotDone(why) | Self::Unknown(why) => anyhow::Error::msg(why),
        }
    }
}

impl Frontends {
    /// Those that were named, or else those that run here. The time begins now.
    pub(crate) fn find(args: &FrontendArgs) -> Self {
        let mut origins = args.urls.clone();
        if origins.is_empty() {
            let published = dev_here().map_or(vec![], |dev| dev.frontends);
            origins.extend(published.iter().filter_map(|url| url.parse().ok()));
        }
        if origins.is_empty() {
            origins.extend(ORIGIN_DEFAULT.parse());
        }
        Self::new(origins, args.timeout)
    }

    /// These, of which there must be one, for so many seconds from now.
    pub(crate) fn new(origins: Vec<Origin>, timeout_s: u64) -> Self {
        let since = Instant::now();
        Self { origins, next: 0, since, until: since + Duration::from_secs(timeout_s) }
    }

    /// Reads `path`; what stands in `data` of the answer.
    ///
    /// # Errors
    /// Nobody answers, or the answer is an error; in the frontend's words.
    pub(crate) async fn read(&mut self, path: &str) -> anyhow::Result<Box<RawValue>> {
        let answered = self.ask(&Ask::get(path), false).await.map_err(NoAnswer::of_read)?;
        data(&answered.answer)
    }

    /// Asks until an answer means something: each frontend once, or `persist` until the time is over.
    ///
    /// # Errors
    /// None of the answers did.
    pub(crate) async fn ask(&mut self, ask: &Ask, persist: bool) -> Result<Answered, NoAnswer> {
        let mut sent = false;
        loop {
            let mut reached = false;
            let mut last = String::new();
            for _ in 0..self.origins.len() {
                let origin = self.origins[self.next].clone();
                let left = self.until.saturating_duration_since(Instant::now());
                // One that is given no time can't answer; what the one before it said stands.
                if left.is_zero() && !last.is_empty() {
                    break;
                }
                match http::call(&origin, ask, left.min(Duration::from_millis(ATTEMPT_MS))).await {
                    // 408: the request did not arrive whole. 429, 503: not done, later perhaps.
                    Ok(answer) if matches!(answer.status, 408 | 429 | 503) => {
                        (reached, last) = (true, format!("{} ({origin})", message(&answer)));
                    }
                    Ok(answer) if answer.status < 500 => return Ok(Answered { answer, doubtful: sent }),
                    Ok(answer) => {
                        (reached, sent, last) = (true, true, format!("{} ({origin})", message(&answer)));
                    }
                    Err(Broken::CutOff(why)) => (reached, sent, last) = (true, true, format!("{origin}: {why}")),
                    Err(Broken::NotSent(why)) if !reached => last = format!("no frontend answers at {origin} ({why})"),
                    Err(Broken::NotSent(_)) => {}
                }
                self.next = (self.next + 1) % self.origins.len();
            }
            // Where nobody is there at all, and nothing was sent, waiting helps nobody.
            let hopeless = !reached && !sent;
            // Nor is another round begun that we could not wait for: cut off, it would leave in doubt what is certain now.
            let round = Duration::from_millis(ROUND_PAUSE_MS + ATTEMPT_MS);
            if !persist || hopeless || Instant::now() + round > self.until {
                return Err(self.no_answer(last, reached, sent).await);
            }
            sleep(Duration::from_millis(ROUND_PAUSE_MS)).await;
        }
    }

    async fn no_answer(&self, last: String, reached: bool, sent: bool) -> NoAnswer {
        if sent {
            return NoAnswer::Unknown(last);
        }
        if !reached {
            return NoAnswer::NotDone(format!("{last}: start the exchange (`tradenet dev`), or name one with --url"));
        }
        match self.cluster().await {
            Some(Cluster { leader: None, .. }) => NoAnswer::NoLeader(last),
            _ => NoAnswer::NotDone(last),
        }
    }

    /// The newest that a frontend knows of the exchange; none where none answers.
    pub(crate) async fn cluster(&self) -> Option<Cluster> {
        let looks = self.origins.iter().map(|origin| async {
            let ask = Ask::get("/cluster");
            let answer = http::call(origin, &ask, Duration::from_millis(CLUSTER_MS)).await.ok()?;
            Some(serde_json::from_slice::<Data<Cluster>>(&answer.body).ok()?.data)
        });
        futures::future::join_all(looks).await.into_iter().flatten().max_by_key(|cluster| cluster.epoch)
    }

    /// How long has been tried.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

/// What was asked for.
///
/// # Errors
/// It is an error, in the frontend's words, or no answer of a frontend.
pub(crate) fn data(answer: &Answer) -> anyhow::Result<Box<RawValue>> {
    if answer.status >= 300 {
        anyhow::bail!("{}", message(answer));
    }
    Ok(parse::<Data<_>>(&answer.body)?.data)
}

/// # Errors
/// It is not what a frontend answers.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> anyhow::Result<T> {
    use anyhow::Context as _;
    serde_json::from_slice(json).context("what answers is no frontend of this version: name one with --url")
}

/// What the frontend says of an error.
pub(crate) fn message(answer: &Answer) -> String {
    let said = serde_json::from_slice::<Failure>(&answer.body).map(|failure| failure.error.message);
    said.unwrap_or_else(|_| format!("status {}", answer.status))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_frontend_that_there_is_no_time_for_is_not_blamed() {
        // The kernel takes the connections, and nobody answers on them.
        let silent = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let origins = silent.iter().map(|listener| Origin::from(listener.local_addr().unwrap())).collect::<Vec<_>>();
        let first = origins[0].to_string();
        let asked = Frontends::new(origins, 1).ask(&Ask::get("/stocks"), false).await;
        let Err(NoAnswer::Unknown(why)) = asked else { panic!("nobody has answered") };
        assert!(why.starts_with(&format!("{first}: no answer within ")) && !why.contains(" 0 ms"), "{why}");
    }
}
