//! What a person is told while the exchange runs, read from the frontends as anybody can.
//!
//! Events are the differences between two looks at `/cluster`. The rules: a line an event, on standard output; a look that
//! is older than the last one (another frontend's, that has not heard yet) is passed over, so that no event is told
//! twice; and a change that was undone between two looks is not told.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use tokio::time::Instant;
use tradenet_schemas::rest::Cluster;

use super::children::{Children, Died, Kind, Running};
use crate::http;

const READY_POLL_MS: u64 = 25;
/// While it is not ready, why not is told this often.
const READY_REMIND_S: u64 = 5;
const EVENTS_POLL_MS: u64 = 500;

/// Says a line to whoever called us. Standard output may be closed by then, which is no reason to stop.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Waits until every frontend is ready to serve trades, and tells now and then what is missing.
///
/// It waits without an end: what is missing may need a person's word (`tradenet recover`), which needs the rest of the
/// exchange to run.
///
/// # Errors
/// When it cannot get ready any more: a frontend has died, or all replicas have.
pub(super) async fn until_ready(frontends: &[SocketAddr], children: &mut Children) -> anyhow::Result<()> {
    let mut remind_at = Instant::now() + Duration::from_secs(READY_REMIND_S);
    loop {
        let catalog_lives = children.list().iter().any(|child| child.kind == Kind::Catalog && child.alive);
        let missing = tokio::select! {
            missing = what_is_missing(frontends, catalog_lives) => missing,
            died = children.died() => {
                say(&death(&died));
                check_hope(&died, children)?;
                continue;
            }
        };
        let Some(missing) = missing else { return Ok(()) };
        if Instant::now() >= remind_at {
            say(&format!("not ready yet: {missing}"));
            remind_at = Instant::now() + Duration::from_secs(READY_REMIND_S);
        }
        tokio::time::sleep(Duration::from_millis(READY_POLL_MS)).await;
    }
}

fn check_hope(died: &Died, children: &Children) -> anyhow::Result<()> {
    let kind = children.list().iter().find(|child| child.name == died.name).map(|child| child.kind);
    let left = |kind| children.list().iter().any(|child| child.kind == kind && child.alive);
    match kind {
        Some(Kind::Frontend) => bail!("{} ended before it was ready ({}); its log above says why", died.name, died.how),
        Some(Kind::Order) if !left(Kind::Order) => {
            bail!("every order replica ended before the exchange was ready; their logs above say why")
        }
        Some(Kind::Broker) => bail!("the broker ended before the exchange was ready; its log above says why"),
        _ => Ok(()),
    }
}

/// What the first frontend that is not ready lacks. Ready means that trades are served and, where a catalog lives, that
/// caches may be used: whoever waits for dev.json looks a stock up next, perhaps twice, and a catalog is attached a moment
/// after a leader serves.
async fn what_is_missing(frontends: &[SocketAddr], catalog_lives: bool) -> Option<String> {
    for (number, address) in (1..).zip(frontends) {
        let why = match serves_with_lease(*address).await {
            Err(why) => Some(why),
            Ok(false) if catalog_lives => Some("no catalog has granted it a lease".to_owned()),
            Ok(_) => None,
        };
        if let Some(why) = why {
            return Some(format!("frontend-{number}: {why}"));
        }
    }
    None
}

/// Whether the cache of a frontend that serves trades may be used.
async fn serves_with_lease(address: SocketAddr) -> Result<bool, String> {
    ask(address, "/readyz").await?;
    let frontend = &ask(address, "/cluster").await?["data"]["frontend"];
    // One without a cache has nothing to ask a lease for.
    Ok(frontend["lease"] == true || frontend["cache"]["capacity"] == 0)
}

/// A success's body; the error says why there is none.
async fn ask(address: SocketAddr, path: &str) -> Result<serde_json::Value, String> {
    let answer = http::get(address, path).await?;
    if answer.status != 200 {
        return Err(error_message(&answer.body).unwrap_or_else(|| format!("status {}", answer.status)));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: {error}"))
}

fn error_message(body: &[u8]) -> Option<String> {
    let envelope: serde_json::Value = serde_json::from_slice(body).ok()?;
    envelope["error"]["message"].as_str().map(str::to_owned)
}

/// Tells every event from now on, and publishes anew who runs when somebody serves in the place of one that died.
///
/// # Errors
/// What cannot be published.
pub(super) async fn events(
    frontends: &[SocketAddr],
    children: &mut Children,
    publish: impl Fn(&[Running]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let tell = |event: &str| say(&format!("[{:8.2} s] {event}", started.elapsed().as_secs_f64()));
    let mut told = Told::default();
    loop {
        tokio::select! {
            view = look(frontends) => told.observe(view).iter().for_each(|event| tell(event)),
            died = children.died() => {
                tell(&format!("{}; its argv in dev.json brings it back", death(&died)));
                continue;
            }
        }
        let back = children.find_stand_ins();
        if !back.is_empty() {
            publish(children.list())?;
        }
        for child in children.list().iter().filter(|child| back.contains(&child.name)) {
            tell(&format!("{} runs again, started by hand (process {})", child.name, child.pid));
        }
        tokio::time::sleep(Duration::from_millis(EVENTS_POLL_MS)).await;
    }
}

fn death(died: &Died) -> String {
    format!("{} died ({})", died.name, died.how)
}

/// What matters here of one look at the exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    epoch: u64,
    leader: Option<u8>,
    in_sync: Vec<u8>,
    trouble: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    data: Cluster,
}

/// The newest of what the frontends say; `None` if none of them says anything.
async fn look(frontends: &[SocketAddr]) -> Option<View> {
    let mut newest: Option<View> = None;
    for address in frontends {
        let Ok(answer) = http::get(*address, "/cluster").await else {
            continue;
        };
        let Ok(Envelope { data }) = serde_json::from_slice(&answer.body) else {
            continue;
        };
        if newest.as_ref().is_none_or(|newest| data.epoch > newest.epoch) {
            let Cluster { epoch, leader, in_sync, trouble, .. } = data;
            newest = Some(View { epoch, leader, in_sync, trouble });
        }
    }
    newest
}

/// What has been told already.
#[derive(Debug, Default)]
struct Told {
    view: View,
    /// The last that was known to lead; stays while nobody does.
    leader: Option<u8>,
    silent: bool,
}

impl Told {
    /// Takes in a look and returns what is new in it.
    fn observe(&mut self, view: Option<View>) -> Vec<String> {
        let Some(view) = view else {
            let news = if self.silent { Vec::new() } else { vec!["no frontend answers".to_owned()] };
            self.silent = true;
            return news;
        };
        let mut news = Vec::new();
        if std::mem::take(&mut self.silent) {
            news.push("a frontend answers again".to_owned());
        }
        if view.epoch >= self.view.epoch {
            news.extend(self.leader_news(&view));
            news.extend(self.in_sync_news(&view));
            self.leader = view.leader.or(self.leader);
            self.view = view;
        }
        news
    }

    fn leader_news(&self, view: &View) -> Option<String> {
        let epoch = view.epoch;
        match (self.leader, view.leader) {
            (None, Some(new)) => Some(format!("leader: order-{new} (epoch {epoch})")),
            (Some(old), Some(new)) if old != new => {
                Some(format!("leader: order-{new}, before order-{old} (epoch {epoch})"))
            }
            (Some(_), Some(same)) if self.view.leader.is_none() => {
                Some(format!("leader: order-{same} again (epoch {epoch})"))
            }
            (_, None) if self.view.leader.is_some() => {
                // Mostly the frontend says itself that there is none.
                let why = view.trouble.as_deref().unwrap_or("no leader: one is being elected");
                let subject = if why.starts_with("no leader") { "" } else { "no leader: " };
                Some(format!("{subject}{why} (epoch {epoch})"))
            }
            _ => None,
        }
    }

    fn in_sync_news(&self, view: &View) -> Vec<String> {
        let (old, new, epoch) = (&self.view.in_sync, &view.in_sync, view.epoch);
        let gone = old
            .iter()
            .filter(|id| !new.contains(id))
            .map(|id| format!("order-{id} down: out of the in-sync set (epoch {epoch})"));
        let back = new.iter().filter(|id| !old.contains(id)).map(|id| format!("order-{id} in sync (epoch {epoch})"));
        gone.chain(back).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_and_an_older_look_is_passed_over() {
        let mut told = Told::default();
        let mut check = |view: Option<(u64, Option<u8>, &[u8])>, expected: &[&str]| {
            let view =
                view.map(|(epoch, leader, in_sync)| View { epoch, leader, in_sync: in_sync.to_vec(), trouble: None });
            assert_eq!(told.observe(view), expected);
        };
        let first = [
            "leader: order-3 (epoch 1)",
            "order-1 in sync (epoch 1)",
            "order-2 in sync (epoch 1)",
            "order-3 in sync (epoch 1)",
        ];
        check(Some((1, Some(3), &[1, 2, 3])), &first);
        check(Some((1, Some(3), &[1, 2, 3])), &[]);
        check(Some((1, None, &[1, 2, 3])), &["no leader: one is being elected (epoch 1)"]);
        check(None, &["no frontend answers"]);
        check(None, &[]);
        let elected = [
            "a frontend answers again",
            "leader: order-2, before order-3 (epoch 2)",
            "order-3 down: out of the in-sync set (epoch 2)",
        ];
        check(Some((2, Some(2), &[1, 2])), &elected);
        // Another frontend that has not heard yet.
        check(Some((1, Some(3), &[1, 2, 3])), &[]);
        check(Some((3, Some(2), &[1, 2, 3])), &["order-3 in sync (epoch 3)"]);
        check(Some((4, None, &[1, 2, 3])), &["no leader: one is being elected (epoch 4)"]);
        check(Some((4, Some(2), &[1, 2, 3])), &["leader: order-2 again (epoch 4)"]);
    }

    #[test]
    fn what_is_missing_is_told_in_the_words_of_the_frontend() {
        for (trouble, expected) in [
            (None, "no leader: one is being elected (epoch 1)"),
            (
                Some("no leader at this moment: one is being elected"),
                "no leader at this moment: one is being elected (epoch 1)",
            ),
            (
                Some("only order-3 has every order: start it"),
                "no leader: only order-3 has every order: start it (epoch 1)",
            ),
        ] {
            let view = |leader, trouble: Option<&str>| {
                Some(View { epoch: 1, leader, in_sync: vec![3], trouble: trouble.map(str::to_owned) })
            };
            let mut told = Told::default();
            told.observe(view(Some(3), None));
            assert_eq!(told.observe(view(None, trouble)), [expected]);
        }
    }
}
