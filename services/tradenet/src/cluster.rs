//! The exchange as an operator's command sees it, asked directly over the broker, without a frontend.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use tradenet_core::Packet;
use tradenet_runtime::discover::Found;
use tradenet_runtime::nats::{Broker, ConnectArgs, connect};
use tradenet_schemas::ids::{Boot, Epoch, Node, ReplicaId};
use tradenet_schemas::message::{Configuration, Envelope, Message, Role, Status};
use tradenet_schemas::subjects::Peer;

/// How long the broker may take to be reached.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a service may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// Who answered, and what.
pub(crate) struct Cluster {
    pub(crate) broker: Broker,
    pub(crate) replicas: BTreeMap<ReplicaId, Option<Status>>,
    pub(crate) services: Vec<Found>,
    boot: Boot,
}

impl Cluster {
    /// Asks everybody.
    ///
    /// # Errors
    /// The broker can't be reached.
    pub(crate) async fn ask(connection: &ConnectArgs, members: &[ReplicaId]) -> anyhow::Result<Self> {
        let broker = Self::connect(connection).await?;
        Self::look(broker, members).await
    }

    /// A connection that may be there or not; [`Self::look`] waits for it.
    ///
    /// # Errors
    /// The options can't be used.
    pub(crate) async fn connect(connection: &ConnectArgs) -> anyhow::Result<Broker> {
        connect(connection, "tradenet operator").await
    }

    /// Asks everybody over a connection.
    ///
    /// # Errors
    /// The broker can't be reached.
    pub(crate) async fn look(broker: Broker, members: &[ReplicaId]) -> anyhow::Result<Self> {
        if !broker.reached_within(CONNECT).await {
            bail!("no broker answers at {}: start it, or name another with --nats-url", broker.url);
        }
        let services = broker.discover(None, ANSWER).await?;
        let found = services.iter().filter(|service| service.name == "tradenet-order");
        let mut ids: BTreeSet<_> = found.filter_map(|service| service.metadata.get("id")?.parse().ok()).collect();
        ids.extend(members);
        let boot = Boot(rand::random());
        let mut cluster = Self { broker, replicas: BTreeMap::new(), services, boot };
        cluster.ask_replicas(ids).await;
        let members = cluster.newest().map(|newest| newest.members.clone()).unwrap_or_default();
        let unasked: BTreeSet<_> = members.into_iter().filter(|id| !cluster.replicas.contains_key(id)).collect();
        cluster.ask_replicas(unasked).await;
        Ok(cluster)
    }

    async fn ask_replicas(&mut self, ids: BTreeSet<ReplicaId>) {
        let packet = self.packet(None, Message::Heartbeat { question: None });
        let asked = ids.into_iter().map(|id| {
            let (broker, packet) = (self.broker.clone(), packet.clone());
            async move {
                let answer = broker.call(Peer::Order(id), &packet, ANSWER).await;
                let status = match answer.map(|answer| answer.envelope.body) {
                    Ok(Message::Status(status)) => Some(*status),
                    _ => None,
                };
                (id, status)
            }
        });
        self.replicas.extend(futures::future::join_all(asked).await);
    }

    /// A message from this command.
    pub(crate) fn packet(&self, configuration: Option<&Configuration>, body: Message) -> Packet {
        let envelope = Envelope {
            cluster: configuration.map(|held| held.cluster),
            epoch: configuration.map_or(Epoch(0), |held| held.epoch),
            from: self.node(),
            body,
        };
        Packet::new(envelope, Bytes::new())
    }

    /// This command as a sender.
    pub(crate) fn node(&self) -> Node {
        Node::Tool(self.boot)
    }

    /// The newest configuration that any replica holds.
    pub(crate) fn newest(&self) -> Option<&Configuration> {
        let held = self.replicas.values().flatten().filter_map(|status| status.configuration.as_ref());
        held.max_by_key(|configuration| configuration.epoch)
    }

    /// The leader, if it serves.
    pub(crate) fn leader(&self) -> Option<&Status> {
        let leader = self.newest()?.leader;
        let status = self.replicas.get(&leader.id)?.as_ref()?;
        (status.boot == leader.boot && status.role == Role::Leader).then_some(status)
    }

    /// Why trades can't be served, and what would help; none if they can.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(leader) = self.leader() {
            return leader.hindrance();
        }
        if self.replicas.values().all(Option::is_none) {
            return Some("no order replica answers: start some".to_owned());
        }
        let Some(newest) = self.newest() else {
            return Some("the exchange has not started yet: it needs all its replicas and a frontend".to_owned());
        };
        let needed = newest.in_sync.iter().map(|member| format!("order-{}", member.id));
        let alive = newest.in_sync.iter().any(|member| self.replicas.get(&member.id).is_some_and(Option::is_some));
        let needed = needed.collect::<Vec<_>>().join(" or ");
        Some(if alive {
            "no leader at this moment: a frontend elects one".to_owned()
        } else {
            format!("only {needed} has every order: start it")
        })
    }
}
