//! The NATS service API: `nats micro ls`, `info`, `stats`, `ping`.
//!
//! The problem: an operator with nothing but the broker's tool wants to see which services run and what they do. The
//! client's own service module answers that, but only for endpoints that it subscribes itself, each in a queue group, with
//! every request wrapped and counted only when it is answered through it: that costs throughput on the order path, and
//! batches are not answered one by one. The idea: the service keeps its ordinary subscriptions, of which each is described
//! as an endpoint and counted by the driver; this module only answers the `$SRV` requests, in the module's own types. The
//! rules: fan-out subjects are no endpoints, for they are not requests; the instance's id is its boot; the time that
//! requests take is not measured here and shown as 0. `STATS` says besides, as `standing`, what the service's decider shows
//! without labels, by the names of `/metrics`: nothing, where the service stands still.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::service::{Info, PingResponse, Stats, Verb, endpoint};
use async_nats::{Client, Message, SubscribeError};
use futures::StreamExt as _;
use futures::stream::select_all;
use serde::Serialize;
use tracing::debug;
use tradenet_core::metrics::{Readings, Value};
use tradenet_schemas::ids::Boot;

use crate::metrics::{self, Scraper};
use crate::nats::is_inbox;

/// What a service says of itself.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its kind, such as `tradenet-order`.
    pub name: &'static str,
    /// What it does, for people.
    pub description: &'static str,
    /// `CARGO_PKG_VERSION` of the service.
    pub version: &'static str,
    /// What tells this instance from others: id, HTTP address.
    pub metadata: Vec<(&'static str, String)>,
}

/// What has come in on one subject.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    /// Those that were dropped, since they were malformed or on the wrong subject.
    pub(crate) errors: AtomicU64,
}

impl Counts {
    pub(crate) fn add_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn add_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
    /// Both counts.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed))
    }
    pub(crate) fn observe(&self, topic: &'static str, readings: &mut Readings) {
        let (requests, errors) = self.read();
        readings.count(&metrics::RECEIVED, &[topic], requests);
        readings.count(&metrics::REJECTED, &[topic], errors);
    }
}

/// One subject that requests arrive on.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) counts: Arc<Counts>,
}

struct Described {
    service: Service,
    boot: Boot,
    started: async_nats::datetime::DateTime,
    endpoints: Vec<Endpoint>,
    scraper: Scraper,
}

/// The answer to `STATS`: the client's own type has no metadata, and no room for anything else.
#[derive(Serialize)]
struct Standing {
    #[serde(flatten)]
    stats: Stats,
    metadata: HashMap<String, String>,
    standing: BTreeMap<&'static str, f64>,
}

/// Answers the service API's requests until it is dropped or the connection ends.
///
/// # Errors
/// The connection has ended.
pub(crate) async fn serve(
    client: Client,
    service: Service,
    boot: Boot,
    endpoints: Vec<Endpoint>,
    scraper: Scraper,
) -> Result<impl Future<Output = ()> + Send, SubscribeError> {
    let mut verbs = Vec::new();
    for verb in [Verb::Ping, Verb::Info, Verb::Stats] {
        for subject in [
            format!("$SRV.{verb}"),
            format!("$SRV.{verb}.{}", service.name),
            format!("$SRV.{verb}.{}.{boot}", service.name),
        ] {
            verbs.push(client.subscribe(subject).await?);
        }
    }
    let described = Described { service, boot, started: async_nats::datetime::now(), endpoints, scraper };
    Ok(async move {
        let mut requests = select_all(verbs);
        while let Some(request) = requests.next().await {
            let Some(answer) = described.answer(&request).await else {
                continue;
            };
            // Nobody makes a service say something where it may not itself.
            if let Some(reply) = request.reply.filter(|reply| is_inbox(reply))
                && let Err(error) = client.publish(reply, answer.into()).await
            {
                debug!("a service request was not answered: {error}");
            }
        }
    })
}

impl Described {
    async fn answer(&self, request: &Message) -> Option<Vec<u8>> {
        match request.subject.split('.').nth(1)? {
            "PING" => json(&self.ping()),
            "INFO" => json(&self.info()),
            "STATS" => {
                let (stats, metadata) = (self.stats(), self.metadata());
                json(&Standing { stats, metadata, standing: self.standing().await })
            }
            _ => None,
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        let given = self.service.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        given.chain([("boot".to_owned(), self.boot.to_string())]).collect()
    }

    fn ping(&self) -> PingResponse {
        PingResponse {
            kind: "io.nats.micro.v1.ping_response".to_owned(),
            name: self.service.name.to_owned(),
            id: self.boot.to_string(),
            version: self.service.version.to_owned(),
            metadata: self.metadata(),
        }
    }

    fn info(&self) -> Info {
        let endpoints = self.endpoints.iter().map(|endpoint| endpoint::Info {
            name: endpoint.name.clone(),
            subject: endpoint.subject.clone(),
            queue_group: String::new(),
            metadata: HashMap::new(),
        });
        Info {
            kind: "io.nats.micro.v1.info_response".to_owned(),
            name: self.service.name.to_owned(),
            id: self.boot.to_string(),
            description: self.service.description.to_owned(),
            version: self.service.version.to_owned(),
            metadata: self.metadata(),
            endpoints: endpoints.collect(),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "beyond 2^53 nobody sees the difference")]
    async fn standing(&self) -> BTreeMap<&'static str, f64> {
        let readings = self.scraper.readings().await.unwrap_or_default();
        let number = |value| match value {
            Value::Count(count) => Some(count as f64),
            Value::Level(level) => Some(level),
            Value::Spread(_) => None,
        };
        let plain = readings.0.into_iter().filter(|reading| reading.labels.is_empty());
        plain.filter_map(|reading| Some((reading.metric.name, number(reading.value)?))).collect()
    }

    fn stats(&self) -> Stats {
        let count = |count: &AtomicU64| usize::try_from(count.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let endpoints = self.endpoints.iter().map(|endpoint| endpoint::Stats {
            name: endpoint.name.clone(),
            subject: endpoint.subject.clone(),
            requests: count(&endpoint.counts.requests),
            errors: count(&endpoint.counts.errors),
            processing_time: Duration::ZERO,
            average_processing_time: Duration::ZERO,
            last_error: None,
            data: None,
            queue_group: String::new(),
        });
        Stats {
            kind: "io.nats.micro.v1.stats_response".to_owned(),
            name: self.service.name.to_owned(),
            id: self.boot.to_string(),
            version: self.service.version.to_owned(),
            started: self.started,
            endpoints: endpoints.collect(),
        }
    }
}

fn json(answer: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(answer).ok()
}
