//! What each user of the broker may say and hear: the permissions in `nats/users.conf`, by the table of
//! [`topics`](crate::subjects::Topic).
//!
//! Problem: a permission that is missing shows at the first election, one too many never shows.
//! Idea: the code's own table says what there must be; `users.conf` is written by hand, with its reasons, and a test demands that
//! it is the same, both ways. What is not a topic (answers, the register, the service API) is listed here.
//! Rule kept: nobody may say what the service does not, and nobody hears another's answers.

use crate::subjects::{Address, Prefix, Topic, User};

/// A service's name in the service API begins with this.
pub const SERVICE_PREFIX: &str = "tradenet-";
/// What frontends ask all services, to show how everybody stands.
pub const STATS: &str = "$SRV.STATS";
/// Below a frontend's inbox: where answers to [`STATS`] go. A name of their own, so that who may answer there can give no other
/// answer to a frontend.
pub const STATS_INBOX: &str = "services";

impl User {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::Order, Self::Catalog, Self::Frontend, Self::Operator, Self::Load, Self::Feed, Self::Ledger];

    /// The name by which it is known to the broker.
    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Catalog => "catalog",
            Self::Frontend => "frontend",
            Self::Operator => "operator",
            Self::Load => "load",
            Self::Feed => "feed",
            Self::Ledger => "ledger",
        }
    }

    /// Whose answers it gives: those who ask it something.
    pub fn answers(self) -> &'static [Self] {
        match self {
            Self::Order => &[Self::Order, Self::Catalog, Self::Frontend],
            Self::Catalog => &[Self::Frontend],
            Self::Frontend | Self::Operator | Self::Load | Self::Feed | Self::Ledger => &[],
        }
    }

    /// Whether it runs as a service: it answers `$SRV` requests, and tries its permissions at the start.
    pub fn is_service(self) -> bool {
        matches!(self, Self::Order | Self::Catalog | Self::Frontend)
    }

    /// What it publishes to by the protocol, sorted: topics, answers, the register. `id` stands in place of ids.
    pub fn says(self, prefix: &Prefix, id: &str) -> Vec<String> {
        let topics = Topic::ALL.iter().filter(|topic| topic.speakers().contains(&self));
        let topics = topics.map(|topic| format!("{}.{}.{id}", prefix.as_str(), topic.tokens()));
        let many = if id == "*" { ">".to_owned() } else { format!("{id}.{id}") };
        let answers = self.answers().iter().map(|asker| format!("{}.{}.reply.{many}", prefix.as_str(), asker.name()));
        let buckets = prefix.register_buckets();
        let read = buckets.iter().map(|bucket| Prefix::register_read(bucket));
        let written =
            buckets.iter().flat_map(|bucket| [Prefix::register_written(bucket), Prefix::register_created(bucket)]);
        let mut all: Vec<String> = topics.chain(answers).collect();
        match self {
            Self::Order => all.extend(read.chain(written)),
            Self::Frontend => all.extend(read),
            // Looks at everything and repairs by hand.
            Self::Operator => {
                all.extend(buckets.iter().map(|bucket| format!("$KV.{bucket}.>")));
                all.push("$JS.API.>".to_owned());
            }
            Self::Catalog | Self::Load | Self::Feed | Self::Ledger => {}
        }
        all.sort();
        all
    }

    /// What it publishes to besides, where the log is handed out to a stream ([`Prefix::entries_stream`]): for who fills it, and who
    /// reads it.
    pub fn says_of_entries(self, prefix: &Prefix) -> Vec<String> {
        let stream = prefix.entries_stream();
        let api = |verbs: &[&str]| verbs.iter().map(|verb| format!("$JS.API.{verb}")).collect::<Vec<_>>();
        let mut all = match self {
            Self::Order => api(&["STREAM.INFO.{}", "STREAM.MSG.GET.{}", "STREAM.CREATE.{}"]),
            Self::Ledger => api(&[
                "STREAM.INFO.{}",
                "CONSUMER.CREATE.{}",
                "CONSUMER.CREATE.{}.>",
                "CONSUMER.INFO.{}.*",
                "CONSUMER.MSG.NEXT.{}.*",
                "CONSUMER.DELETE.{}.*",
            ]),
            _ => return Vec::new(),
        };
        all.iter_mut().for_each(|subject| *subject = subject.replace("{}", &stream));
        all.push(if self == Self::Order { prefix.entries() } else { format!("$JS.ACK.{stream}.>") });
        all
    }

    /// All that it may publish to, with wildcards; sorted.
    pub fn may_say(self, prefix: &Prefix) -> Vec<String> {
        let mut all = self.says(prefix, "*");
        all.extend(self.says_of_entries(prefix));
        let inbox = |user: Self| format!("_INBOX.{}.>", user.name());
        if self.is_service() {
            // Operators ask `$SRV`; so do frontends, for people; loadgen does, for frontends.
            all.push(inbox(Self::Operator));
            all.push(format!("_INBOX.{}.{STATS_INBOX}.*", Self::Frontend.name()));
        }
        match self {
            // A request to oneself, such as of the health check, is answered below one's own inbox.
            Self::Order | Self::Catalog => all.push(inbox(self)),
            Self::Frontend => all.extend([inbox(Self::Load), STATS.to_owned()]),
            Self::Operator => all.push("$SRV.>".to_owned()),
            Self::Load => all.push(format!("$SRV.PING.{SERVICE_PREFIX}{}", Self::Frontend.name())),
            Self::Feed | Self::Ledger => {}
        }
        if self == Self::Catalog {
            all.push(format!("$SRV.PING.{SERVICE_PREFIX}{}", self.name()));
        }
        all.sort();
        all
    }

    /// All that it may subscribe to, with wildcards; sorted.
    pub fn may_hear(self, prefix: &Prefix) -> Vec<String> {
        let prefix = prefix.as_str();
        let id = |topic: &Topic| if topic.address() == Address::All { "all" } else { "*" };
        let heard = Topic::ALL.iter().filter(|topic| topic.listeners().contains(&self));
        let mut all: Vec<_> = heard.map(|topic| format!("{prefix}.{}.{}", topic.tokens(), id(topic))).collect();
        if self.is_service() {
            all.push(format!("{prefix}.{}.reply.>", self.name()));
        }
        if self == Self::Operator {
            all.push(format!("{prefix}.>"));
        }
        if self.is_service() || self == Self::Operator {
            all.push("$SRV.>".to_owned());
        }
        if self != Self::Feed {
            all.push(format!("_INBOX.{}.>", self.name()));
        }
        all.sort();
        all
    }
}
