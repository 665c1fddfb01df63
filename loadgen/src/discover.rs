//! Which frontends there are, as the broker knows it.
//!
//! Every frontend is a service on the broker, whose metadata says where it is reached. So a load generator needs one
//! address, the broker's, and finds frontends that were started later as well. This is the one thing that is asked of the
//! exchange's own code: what is judged comes over REST alone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use tradenet_runtime::discover::Found;
use tradenet_runtime::nats::{Broker, ConnectArgs, connect};

use crate::url::BaseUrl;

/// How long the broker may take to be reached.
const CONNECT: Duration = Duration::from_secs(3);
/// How long frontends get to answer.
const ANSWER: Duration = Duration::from_millis(500);
/// What a frontend is called among the services of a broker.
const FRONTEND: &str = "tradenet-frontend";

/// A broker that is asked for frontends.
pub(crate) struct Discovery {
    broker: Broker,
}

impl Discovery {
    /// Connects to the broker.
    ///
    /// # Errors
    /// No broker answers there.
    pub(crate) async fn open(connection: &ConnectArgs) -> anyhow::Result<Self> {
        let broker = connect(connection, "loadgen").await?;
        anyhow::ensure!(
            broker.reached_within(CONNECT).await,
            "no broker answers at {}: start it, or name another with --nats-url",
            connection.nats_url
        );
        Ok(Self { broker })
    }

    /// The frontends that answer now, by address.
    ///
    /// # Errors
    /// The broker can't be asked.
    pub(crate) async fn frontends(&self) -> anyhow::Result<Vec<BaseUrl>> {
        let found =
            self.broker.discover(Some(FRONTEND), ANSWER).await.context("the broker can't be asked for frontends")?;
        Ok(addresses(&found))
    }
}

/// Where those of `found` that are frontends are reached. One that listens on every address and advertises none says
/// nothing; what is no address of ours is not for us.
fn addresses(found: &[Found]) -> Vec<BaseUrl> {
    let frontends = found.iter().filter(|service| service.name == FRONTEND);
    let texts: BTreeSet<&String> = frontends.filter_map(|service| service.metadata.get("http")).collect();
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_frontends_that_say_where_they_are_count_and_each_once() {
        let service = |name: &str, http: Option<&str>| Found {
            name: name.to_owned(),
            id: "1".to_owned(),
            metadata: http.map(|url| ("http".to_owned(), url.to_owned())).into_iter().collect(),
            standing: BTreeMap::new(),
        };
        let found = [
            service("tradenet-frontend", Some("http://127.0.0.1:8081")),
            service("tradenet-frontend", Some("http://127.0.0.1:8080")),
            service("tradenet-frontend", Some("http://127.0.0.1:8081")),
            service("tradenet-frontend", Some("https://shop.example")),
            service("tradenet-frontend", None),
            service("tradenet-order", Some("http://127.0.0.1:8082")),
        ];
        let texts: Vec<String> = addresses(&found).iter().map(BaseUrl::to_string).collect();
        assert_eq!(texts, ["http://127.0.0.1:8080", "http://127.0.0.1:8081"]);
    }
}
