//! What `tradenet status` shows, as JSON and as tables.

use std::fmt::Write as _;

use serde::Serialize;
use tradenet_schemas::ids::ReplicaId;
use tradenet_schemas::message::Status;

use crate::cluster::Cluster;
use crate::out::{BAD, GOOD, PLAIN, WARN, printable, styled};
use crate::table::{Cell, Column, Table};

/// What `--json` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct View {
    pub(super) epoch: u64,
    pub(super) leader: Option<u8>,
    pub(super) in_sync: Vec<u8>,
    pub(super) ready: bool,
    pub(super) trouble: Option<String>,
    pub(super) replicas: Vec<Replica>,
    pub(super) catalogs: Vec<Service>,
    pub(super) frontends: Vec<Service>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Replica {
    id: u8,
    alive: bool,
    role: String,
    in_sync: bool,
    epoch: u64,
    tail: u64,
    durable: u64,
    committed: u64,
    applied: u64,
    /// Entries that another replica has in its log and this one not on its disk; none where it is silent.
    lag: Option<u64>,
    trouble: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Service {
    name: String,
    boot: String,
    /// A frontend's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// Whether this catalog answers for the exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<bool>,
}

impl View {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let newest = cluster.newest();
        let attached = cluster.leader().and_then(|leader| leader.catalog).map(|boot| boot.to_string());
        let trouble = cluster.trouble();
        let of = |kind: &'static str| {
            cluster.services.iter().filter(move |service| service.name == kind).map(|service| Service {
                name: service.metadata.get("name").cloned().unwrap_or_else(|| service.id.clone()),
                boot: service.id.clone(),
                http: service.metadata.get("http").cloned(),
                attached: (service.name == "tradenet-catalog").then(|| attached.as_ref() == Some(&service.id)),
            })
        };
        let replicas = cluster.replicas.iter().map(|(id, status)| replica(cluster, *id, status.as_ref()));
        Self {
            epoch: newest.map_or(0, |newest| newest.epoch.0),
            leader: cluster.leader().map(|leader| leader.id.get()),
            in_sync: newest.map_or(vec![], |newest| newest.in_sync.iter().map(|member| member.id.get()).collect()),
            ready: trouble.is_none(),
            trouble,
            replicas: replicas.collect(),
            catalogs: of("tradenet-catalog").collect(),
            frontends: of("tradenet-frontend").collect(),
        }
    }

    /// What is seen while no broker answers.
    pub(super) fn without_a_broker(why: String) -> Self {
        let (replicas, catalogs, frontends) = (vec![], vec![], vec![]);
        let (epoch, leader, in_sync, ready) = (0, None, vec![], false);
        Self { epoch, leader, in_sync, ready, trouble: Some(why), replicas, catalogs, frontends }
    }

    /// The same without what every trade moves: two that are equal differ in no more than how far everybody is.
    pub(super) fn without_watermarks(&self) -> Self {
        let mut view = self.clone();
        for replica in &mut view.replicas {
            (replica.tail, replica.durable, replica.committed, replica.applied, replica.lag) = (0, 0, 0, 0, None);
        }
        view
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let leader = self.leader.map_or("none".to_owned(), |id| format!("order-{id}"));
        let _ = writeln!(text, "epoch {}   leader {leader}   in sync {:?}", self.epoch, self.in_sync);
        let _ = match &self.trouble {
            None => writeln!(text, "{}\n", styled(GOOD, "trades are served")),
            Some(trouble) => {
                let trouble = format!("trades are NOT served: {}", printable(trouble));
                writeln!(text, "{}\n", styled(BAD, &trouble))
            }
        };
        if !self.replicas.is_empty() {
            text.push_str(&self.replicas());
        }
        if !self.catalogs.is_empty() || !self.frontends.is_empty() {
            text.push('\n');
            text.push_str(&self.services());
        }
        text
    }

    fn replicas(&self) -> String {
        let mut table = Table::new([
            Column::Left("replica"),
            Column::Left("role"),
            Column::Left("in sync"),
            Column::Right("epoch"),
            Column::Right("tail"),
            Column::Right("durable"),
            Column::Right("committed"),
            Column::Right("applied"),
            Column::Right("lag"),
            Column::Left("trouble"),
        ]);
        for replica in &self.replicas {
            // Of one that says nothing nothing is known.
            let known = |number: u64| if replica.alive { number.to_string() } else { "-".to_owned() };
            let role = match replica.role.as_str() {
                "silent" => BAD,
                "leader" => GOOD,
                "follower" => PLAIN,
                _ => WARN,
            };
            let in_sync = if replica.in_sync { Cell::from("yes") } else { Cell::new(WARN, "no") };
            table.row([
                format!("order-{}", replica.id).into(),
                Cell::new(role, &replica.role),
                in_sync,
                known(replica.epoch).into(),
                known(replica.tail).into(),
                known(replica.durable).into(),
                known(replica.committed).into(),
                known(replica.applied).into(),
                replica.lag.map_or("-".to_owned(), |lag| lag.to_string()).into(),
                Cell::new(WARN, replica.trouble.as_deref().unwrap_or_default()),
            ]);
        }
        table.render()
    }

    fn services(&self) -> String {
        let mut table = Table::new([Column::Left("service"), Column::Left("state")]);
        for catalog in &self.catalogs {
            let attached = catalog.attached == Some(true);
            table.row([catalog.name.as_str().into(), if attached { "attached" } else { "stands by" }.into()]);
        }
        for frontend in &self.frontends {
            table.row([frontend.name.as_str().into(), frontend.http.as_deref().unwrap_or_default().into()]);
        }
        table.render()
    }
}

fn replica(cluster: &Cluster, id: ReplicaId, status: Option<&Status>) -> Replica {
    let role = status.and_then(|status| serde_json::to_value(status.role).ok()?.as_str().map(str::to_owned));
    let newest = cluster.newest();
    let farthest = cluster.replicas.values().flatten().map(|status| status.tail.seq.0).max().unwrap_or(0);
    // One that says nothing is waited for as long as it is in the set, whatever its disk holds by now.
    let in_sync = newest.is_some_and(|newest| match status {
        Some(status) => newest.is_in_sync(id, status.store),
        None => newest.in_sync_member(id).is_some(),
    });
    Replica {
        id: id.get(),
        alive: status.is_some(),
        role: role.unwrap_or_else(|| "silent".to_owned()),
        in_sync,
        epoch: status.and_then(|status| status.configuration.as_ref()).map_or(0, |held| held.epoch.0),
        tail: status.map_or(0, |status| status.tail.seq.0),
        durable: status.map_or(0, |status| status.durable.0),
        committed: status.map_or(0, |status| status.committed.0),
        applied: status.map_or(0, |status| status.applied.0),
        lag: status.map(|status| farthest.saturating_sub(status.durable.0)),
        trouble: status.and_then(|status| status.trouble.clone()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::status) fn view(leader: Option<u8>, tail: u64) -> View {
        let replica = |id: u8| {
            let alive = id != 3 || leader == Some(3);
            let role = if Some(id) == leader { "leader" } else { "follower" };
            Replica {
                id,
                alive,
                role: if alive { role } else { "silent" }.to_owned(),
                in_sync: alive,
                epoch: 2,
                tail,
                durable: tail,
                committed: tail,
                applied: tail,
                lag: alive.then_some(0),
                trouble: None,
            }
        };
        let service = |name: &str, http: Option<&str>, attached| Service {
            name: name.to_owned(),
            boot: "b".to_owned(),
            http: http.map(str::to_owned),
            attached,
        };
        View {
            epoch: 2,
            leader,
            in_sync: vec![1, 2],
            ready: leader.is_some(),
            trouble: leader.is_none().then(|| "no leader at this moment: a frontend elects one".to_owned()),
            replicas: (1..=3).map(replica).collect(),
            catalogs: vec![service("catalog-1", None, Some(true))],
            frontends: vec![service("front\x1b[2Jend", Some("http://127.0.0.1:8080"), None)],
        }
    }

    #[test]
    fn who_leads_and_who_is_silent_stand_in_columns() {
        let check = |view: &View, expected: &str| {
            assert_eq!(anstream::adapter::strip_str(&view.text()).to_string(), expected);
        };
        check(
            &view(Some(2), 1_234_567),
            "\
epoch 2   leader order-2   in sync [1, 2]
trades are served

replica  role      in sync  epoch     tail  durable  committed  applied  lag  trouble
order-1  follower  yes          2  1234567  1234567    1234567  1234567    0
order-2  leader    yes          2  1234567  1234567    1234567  1234567    0
order-3  silent    no           -        -        -          -        -    -

service            state
catalog-1          attached
front\\u{1b}[2Jend  http://127.0.0.1:8080
",
        );
        check(
            &View::without_a_broker("no broker answers".to_owned()),
            "epoch 0   leader none   in sync []\ntrades are NOT served: no broker answers\n\n",
        );
    }
}
