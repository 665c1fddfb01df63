//! Whether the broker lets a service do what it must.
//!
//! The problem: a broker with users refuses quietly: a denied publish shows as a request without an answer, a denied
//! subscription as silence, and both only when it matters, such as at the first election. The idea: at the start a service
//! tries everything that it may ever have to say, on subjects where it means nothing, and ends with one line that names
//! what is refused. Its subscriptions are real already. The rule: what is tried is what the table of topics says
//! ([`tradenet_schemas::directory`]), against which a test holds the users in `nats/users.conf`.

use std::time::Duration;

use anyhow::bail;
use async_nats::HeaderMap;
use tokio::time::sleep;
use tradenet_schemas::ids::Node;
use tradenet_schemas::subjects::{Prefix, User};

use crate::nats::{Broker, request};

/// Stands for an id where nobody listens.
const PROBE: &str = "probe";
/// How long the broker may take to carry out what it was sent.
const BARRIER: Duration = Duration::from_secs(2);
/// The client tells of refusals in a task of its own, which comes a moment after the answers.
const TOLD_WITHIN: Duration = Duration::from_millis(50);

/// The subjects that a service of that kind publishes to, with a made-up id.
fn publishes(node: Node, prefix: &Prefix) -> Vec<String> {
    let user = match node {
        Node::Order(..) => User::Order,
        Node::Catalog(_) => User::Catalog,
        Node::Frontend(_) => User::Frontend,
        Node::Tool(_) => return Vec::new(),
    };
    user.says(prefix, PROBE)
}

/// Waits for the broker, tries everything, and returns only if something is refused.
///
/// # Errors
/// What the broker's user lacks, in the broker's words.
pub(crate) async fn refused(broker: &Broker, node: Node) -> anyhow::Result<()> {
    let mut link = broker.link_changes();
    // Its end is the driver's business.
    let connected = link.wait_for(|link| link.connected).await.is_ok();
    let mut barrier = format!("{}.{PROBE}", broker.prefix.as_str());
    for subject in publishes(node, &broker.prefix) {
        // A stream of another name takes no message that is meant for this one.
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_EXPECTED_STREAM, PROBE);
        broker.client.publish_with_headers(subject.clone(), headers, "".into()).await?;
        if subject.starts_with(&format!("{}.order", broker.prefix.as_str())) {
            barrier = subject;
        }
    }
    // The broker handles a connection's messages in order: behind the answer to this one, all are handled.
    let _ = request(&broker.client, barrier, None, "".into(), BARRIER).await;
    sleep(TOLD_WITHIN).await;
    let denials = broker.denials();
    if connected && !denials.is_empty() {
        bail!(
            "the broker does not let this service do what it must ({}); give its user the permissions in nats/users.conf, \
             for which nats/README.md says why",
            denials.join("; ")
        );
    }
    std::future::pending().await
}
