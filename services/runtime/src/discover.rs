//! Who is there: the services that answer on the broker's service API.
//!
//! For people only, by operators' commands and the frontends' page. The protocol never relies on it: who belongs to the
//! exchange stands in the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tradenet_schemas::directory::{SERVICE_PREFIX, STATS, STATS_INBOX};

use crate::nats::Broker;

/// Services counted at most: no exchange has more, and what answers beyond that is a fault.
const SERVICES_MAX: usize = 1_024;
/// When nobody more has answered for so long, everybody has, in milliseconds.
const QUIET_MS: u64 = 150;

/// A service that answered.
#[derive(Clone, Debug, Deserialize)]
pub struct Found {
    /// Its kind, such as `tradenet-order`.
    pub name: String,
    /// Its run.
    pub id: String,
    /// What it says of itself: `id`, `http`, `name`, `prefix`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What its decider shows without labels, by the names of `/metrics`; only where it was asked how it stands.
    #[serde(default)]
    pub standing: BTreeMap<String, f64>,
}

impl Broker {
    /// All Trade-Net services of this exchange that answer within `limit`, or those of one kind (such as
    /// `tradenet-catalog`), by kind, name and run.
    ///
    /// # Errors
    /// The broker can't be asked.
    pub async fn discover(&self, kind: Option<&str>, limit: Duration) -> anyhow::Result<Vec<Found>> {
        let ping = kind.map_or_else(|| "$SRV.PING".to_owned(), |kind| format!("$SRV.PING.{kind}"));
        self.ask_services(ping, self.client.new_inbox(), limit).await
    }

    /// The same, and how each of them stands. For a frontend, which may ask nothing else of the service API.
    ///
    /// # Errors
    /// The broker can't be asked.
    pub async fn discover_standing(&self, limit: Duration) -> anyhow::Result<Vec<Found>> {
        let inbox = self.client.new_inbox();
        let (inbox, unique) = inbox.rsplit_once('.').context("an inbox without a name")?;
        self.ask_services(STATS.to_owned(), format!("{inbox}.{STATS_INBOX}.{unique}"), limit).await
    }

    async fn ask_services(&self, question: String, inbox: String, limit: Duration) -> anyhow::Result<Vec<Found>> {
        let mut answers = self.client.subscribe(inbox.clone()).await?;
        self.client.publish_with_reply(question, inbox, "".into()).await?;
        let (end, mut found) = (Instant::now() + limit, Vec::new());
        while found.len() < SERVICES_MAX {
            let quiet = (Instant::now() + Duration::from_millis(QUIET_MS)).min(end);
            let Ok(Some(message)) = timeout_at(quiet, answers.next()).await else { break };
            if let Ok(service) = serde_json::from_slice::<Found>(&message.payload) {
                found.push(service);
            }
        }
        let prefix = self.prefix.as_str();
        found.retain(|service| {
            service.name.starts_with(SERVICE_PREFIX) && service.metadata.get("prefix").is_none_or(|own| own == prefix)
        });
        found.sort_by_key(|service| (service.name.clone(), service.metadata.get("name").cloned(), service.id.clone()));
        Ok(found)
    }
}
