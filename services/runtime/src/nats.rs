//! The connection to the broker.
//!
//! The problem: the client's defaults (a ping a minute, reconnects up to 4 s apart, queues that block) break failure
//! detection, and much that goes wrong arrives quietly: a denied publish, a full subscription, a broker that never
//! answers. The idea: one place that sets the connection up ([`connect`]) and says in words what happens to it; the rest
//! of the program holds a [`Broker`] and sees its [`Link`]. The rules: a lost broker is waited for, with one line every
//! few seconds, and everything goes on by itself; nothing that is sent waits longer than [`PUBLISH_WAIT_MS`]; nothing is
//! queued for a broker that is away, because a message that arrives minutes late helps nobody.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::connection::State;
use async_nats::{Client, ClientError, ConnectOptions, Event, HeaderMap, ServerAddr, ServerError};
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};
use tradenet_core::Packet;
use tradenet_core::metrics::Readings;
use tradenet_schemas::subjects::{Peer, Prefix, Topic};

use crate::limited::Limited;
use crate::metrics;

/// Between pings, in milliseconds. The third one without an answer ends the connection, so a frozen broker is noticed
/// after about 3 s.
const PING_EVERY_MS: u64 = 1_000;
/// The longest wait between attempts to connect, in milliseconds. Also the first one: many services that lost one broker
/// should not all knock at once, and a fixed bound keeps the gap after its return short.
const RECONNECT_WAIT_MS_MAX: u64 = 250;
/// How long an attempt to connect may take, in milliseconds: a frozen broker accepts and says nothing.
const CONNECT_WAIT_MS: u64 = 2_000;
/// How many messages wait in one subscription; more are dropped and reported, and the protocol asks again.
const SUBSCRIPTION_MESSAGES_MAX: usize = 8_192;
/// How long a publish may wait for room in the client's queue, in milliseconds.
pub const PUBLISH_WAIT_MS: u64 = 100;
/// Between two lines that say the same thing, in milliseconds.
const LINE_EVERY_MS: u64 = 5_000;
/// How long the first connection may take before a line says that it is waited for, in milliseconds.
const FIRST_LINE_AFTER_MS: u64 = 1_000;
/// How often the state of the connection is looked at, should the client's event about it be lost, in milliseconds.
const LINK_CHECK_EVERY_MS: u64 = 500;
/// What the subjects begin with on which answers arrive that are not the protocol's own.
const INBOX: &str = "_INBOX";
/// How many different refusals of the broker are remembered.
const DENIALS_MAX: usize = 64;
/// The oldest broker that the exchange is tested with.
const BROKER_VERSION_MIN: (i64, i64, i64) = (2, 12, 0);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How to reach the broker, and which exchange on it: the options that all services share.
#[derive(Clone, Debug, clap::Args)]
pub struct ConnectArgs {
    /// The broker's address; several, separated by commas, for a cluster.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222", value_name = "URL", hide_env_values = true)]
    pub nats_url: BrokerUrl,
    /// The user to connect as.
    #[arg(long, env = "NATS_USER", value_name = "NAME", hide_env_values = true)]
    pub nats_user: Option<UserName>,
    /// The user's password; better given as NATS_PASSWORD than on the command line, which others can see.
    #[arg(long, env = "NATS_PASSWORD", value_name = "PASSWORD", hide_env_values = true, requires = "nats_user")]
    pub nats_password: Option<Password>,
    /// A file that holds the user's password, such as a container's secret; a line feed at its end does not count.
    #[arg(long, env = "NATS_PASSWORD_FILE", value_name = "FILE", requires = "nats_user")]
    // Not a path: Compose sets what is not wanted to nothing, here and below.
    pub nats_password_file: Option<OsString>,
    /// The certificates (PEM) of the authority that signed the broker's: the connection is then encrypted, or not made.
    #[arg(long, env = "NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<OsString>,
    /// Names the exchange: the first part of all its subjects and buckets.
    #[arg(long, env = "TRADENET_PREFIX", default_value = "tradenet", value_parser = Prefix::new)]
    pub prefix: Prefix,
    /// What this process is called in logs and in the broker's list of connections.
    #[arg(long, env = "TRADENET_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// What a Compose file calls this service, so that people can be told the command that stops it.
    #[arg(long, env = "TRADENET_COMPOSE_SERVICE", value_name = "NAME")]
    pub compose_service: Option<String>,
    /// How many servers of a broker's cluster keep the register: 1, 3 or 5. Counts only when it is first made.
    #[arg(long, env = "TRADENET_REGISTER_REPLICAS", default_value_t = 1, value_name = "N", value_parser = register_replicas)]
    pub register_replicas: u8,
}

fn register_replicas(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("the register is kept by 1, 3 or 5 servers".to_owned()),
    }
}

/// The name of a user at the broker: part of a subject, since each user's answers arrive below `_INBOX.NAME`.
#[derive(Clone, Debug)]
pub struct UserName(String);

impl FromStr for UserName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        token(text, "a user's").map(Self)
    }
}

/// A name that can stand in a subject; `whose` it is, for people.
pub(crate) fn token(text: &str, whose: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{whose} name has 1 to 64 letters, digits, - and _"))
    }
}

/// A password that `Debug` does not show.
#[derive(Clone)]
pub struct Password(String);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// One or more addresses of brokers, such as `nats://127.0.0.1:4222`. Shown without the user and password they may hold.
#[derive(Clone)]
pub struct BrokerUrl(Vec<ServerAddr>);

impl FromStr for BrokerUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address = |text: &str| match text.trim().parse::<ServerAddr>() {
            Ok(address) if address.host().is_empty() => Err("it names no broker".to_owned()),
            read => read.map_err(|error| error.to_string()),
        };
        let addresses = text.split(',').map(address).collect::<Result<_, _>>();
        addresses.map(Self).map_err(|error| format!("{error}; an address looks like nats://127.0.0.1:4222"))
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}://{}:{}", address.scheme(), address.host(), address.port())?;
        }
        Ok(())
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BrokerUrl {
    /// User and password of the first address that has both. The client itself ignores what stands in an address.
    fn credentials(&self) -> Option<(String, String)> {
        let both = |address: &ServerAddr| Some((address.username()?.to_owned(), address.password()?.to_owned()));
        self.0.iter().find_map(both)
    }
}

/// Whether the broker can be reached, and how often it was: a loss and return between two looks shows in the count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Whether it can be reached now.
    pub connected: bool,
    /// How often the connection was made.
    pub connects: u64,
}

impl Link {
    fn of(client: &Client) -> Self {
        Self {
            connected: client.connection_state() == State::Connected,
            connects: client.statistics().connects.load(Ordering::Relaxed),
        }
    }
}

impl ConnectArgs {
    /// User and password, from the options or from the address.
    fn credentials(&self) -> anyhow::Result<Option<(String, String)>> {
        let Some(UserName(user)) = self.nats_user.clone() else {
            return Ok(self.nats_url.credentials());
        };
        let password = self.nats_password.as_ref().filter(|password| !password.0.is_empty());
        let file = self.nats_password_file.as_ref().filter(|file| !file.is_empty()).map(Path::new);
        let password = match (password, file) {
            (Some(password), None) => password.0.clone(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("the password in {} cannot be read", file.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, None) => bail!("--nats-user has no password: give NATS_PASSWORD or NATS_PASSWORD_FILE"),
            (Some(_), Some(_)) => bail!("two passwords: give NATS_PASSWORD or NATS_PASSWORD_FILE, and the other empty"),
        };
        Ok(Some((user, password)))
    }

    /// What the subjects of answers begin with: a user's own, so that the broker can keep others from hearing them.
    fn inbox_prefix(&self) -> String {
        self.nats_user.as_ref().map_or_else(|| INBOX.to_owned(), |user| format!("{INBOX}.{}", user.0))
    }
}

/// A connection to the broker. Cheap to clone; it ends when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Broker {
    pub(crate) client: Client,
    /// The exchange.
    pub prefix: Prefix,
    /// What this process is called there.
    pub name: String,
    /// What a Compose file calls its service, where one does.
    pub compose_service: Option<String>,
    /// Where it is, for people.
    pub url: BrokerUrl,
    /// How many servers of a cluster keep the register.
    pub register_replicas: u8,
    heard: Arc<Heard>,
    link: watch::Receiver<Link>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there.
    #[error("nobody is there")]
    NobodyThere,
    /// Somebody may listen, but nothing came in time. A frozen process and a denied request look like this too.
    #[error("no answer within {0} ms")]
    NoAnswer(u128),
    /// The broker is away, so nothing was sent.
    #[error("the broker at {0} is away")]
    Away(String),
    /// What came is not a message, or what was to be sent is no request.
    #[error("{0}")]
    Malformed(String),
}

/// Connects, and goes on trying for ever; returns at once. `who` names the service in the broker's list and in logs, unless
/// the options name it.
///
/// # Errors
/// An address cannot be used at all. That the broker is away is not an error.
pub async fn connect(args: &ConnectArgs, who: &str) -> anyhow::Result<Broker> {
    open(args, args.name.as_deref().unwrap_or(who), Voice::Aloud, ConnectOptions::new()).await
}

/// As [`connect`], for who tells everybody what it need not hear itself: else each batch comes back to the leader, and wakes it.
///
/// # Errors
/// As for [`connect`].
pub async fn connect_without_echo(args: &ConnectArgs, who: &str) -> anyhow::Result<Broker> {
    open(args, args.name.as_deref().unwrap_or(who), Voice::Aloud, ConnectOptions::new().no_echo()).await
}

/// One more connection of the same process, for what must not delay the small messages of the first; `what` tells it from the
/// others in the broker's list. It says nothing about the broker, since the first one does.
///
/// # Errors
/// As for [`connect`].
pub async fn connect_aside(args: &ConnectArgs, who: &str, what: &str) -> anyhow::Result<Broker> {
    let name = format!("{} ({what})", args.name.as_deref().unwrap_or(who));
    open(args, &name, Voice::Quiet, ConnectOptions::new()).await
}

async fn open(args: &ConnectArgs, name: &str, voice: Voice, options: ConnectOptions) -> anyhow::Result<Broker> {
    let heard = Arc::new(Heard::default());
    let on_event = {
        let heard = heard.clone();
        move |event| {
            heard.on(event);
            std::future::ready(())
        }
    };
    let mut options = options
        .name(name)
        .custom_inbox_prefix(args.inbox_prefix())
        .ping_interval(ms(PING_EVERY_MS))
        .connection_timeout(ms(CONNECT_WAIT_MS))
        .reconnect_delay_callback(reconnect_wait)
        .retry_on_initial_connect()
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .event_callback(on_event);
    if let Some((user, password)) = args.credentials()? {
        options = options.user_and_password(user, password);
    }
    if let Some(file) = args.nats_ca.as_ref().filter(|file| !file.is_empty()).map(PathBuf::from) {
        std::fs::metadata(&file).with_context(|| format!("--nats-ca {} cannot be read", file.display()))?;
        options = options.add_root_certificates(file).require_tls(true);
    }
    let client = options.connect(args.nats_url.0.as_slice()).await?;
    let (sender, link) = watch::channel(Link::default());
    let speaker = Speaker::new(voice, &args.nats_url);
    tokio::spawn(watch_link(client.clone(), heard.clone(), sender, speaker));
    Ok(Broker {
        client,
        heard,
        prefix: args.prefix.clone(),
        name: name.to_owned(),
        compose_service: args.compose_service.clone(),
        url: args.nats_url.clone(),
        register_replicas: args.register_replicas,
        link,
    })
}

/// At once, then quickly slower up to the bound, with a spread so that services do not knock in step.
fn reconnect_wait(attempts: usize) -> Duration {
    let grown = 1_u64 << attempts.saturating_sub(1).min(16);
    let bound = (8 * grown).min(RECONNECT_WAIT_MS_MAX);
    if attempts <= 1 { Duration::ZERO } else { ms(rand::random_range(bound / 2..=bound)) }
}

impl Broker {
    /// The state of the connection now.
    #[must_use]
    pub fn link(&self) -> Link {
        Link::of(&self.client)
    }

    /// Where changes of the connection's state arrive. Several close together may show as one: see [`Link::connects`].
    #[must_use]
    pub fn link_changes(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Shows the connection; `name` tells it from others of the process.
    pub(crate) fn observe(&self, name: &'static str, readings: &mut Readings) {
        let (link, statistics) = (self.link(), self.client.statistics());
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        readings.flag(&metrics::CONNECTED, &[name], link.connected);
        readings.count(&metrics::CONNECTS, &[name], link.connects);
        readings.count(&metrics::SENT_BYTES, &[name], statistics.out_bytes.load(Ordering::Relaxed));
        readings.count(&metrics::RECEIVED_BYTES, &[name], statistics.in_bytes.load(Ordering::Relaxed));
        readings.count(&metrics::SLOW, &[name], count(&self.heard.slow_count));
        readings.count(&metrics::DENIED, &[name], count(&self.heard.denied_count));
    }

    /// What the broker has refused so far, in its words.
    pub(crate) fn denials(&self) -> Vec<String> {
        self.heard.denials.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Waits until the broker can be reached, for at most `limit`; whether it can.
    pub async fn reached_within(&self, limit: Duration) -> bool {
        let mut link = self.link.clone();
        timeout(limit, link.wait_for(|link| link.connected)).await.is_ok_and(|waited| waited.is_ok())
    }

    /// Asks a peer and waits for its answer: for tools. Services ask through the driver.
    ///
    /// # Errors
    /// There is no answer; the error says which of the many reasons it has.
    pub async fn call(&self, peer: Peer, packet: &Packet, limit: Duration) -> Result<Packet, CallError> {
        let Some(topic) = Topic::of(packet.body()).filter(|_| Topic::wants_answer(packet.body())) else {
            return Err(CallError::Malformed("not a request".to_owned()));
        };
        let subject = self.prefix.subject(topic, peer);
        let answer =
            request(&self.client, subject, None, packet.encode(), limit).await.map_err(|failure| match failure {
                Failure::Away => CallError::Away(self.url.to_string()),
                Failure::NobodyThere => CallError::NobodyThere,
                Failure::NoAnswer => CallError::NoAnswer(limit.as_millis()),
                Failure::Other(why) => CallError::Malformed(why),
            })?;
        Packet::decode(&answer).map_err(|error| CallError::Malformed(error.to_string()))
    }
}

/// Whether answers to the client's own requests arrive on that subject.
pub(crate) fn is_inbox(subject: &str) -> bool {
    subject.strip_prefix(INBOX).is_some_and(|rest| rest.starts_with('.'))
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Away,
    NobodyThere,
    NoAnswer,
    Other(String),
}

impl Failure {
    /// In words, where JetStream was asked.
    pub(crate) fn of_jetstream(self) -> String {
        match self {
            Self::Away => "the broker is away".to_owned(),
            Self::NobodyThere => "JetStream does not answer".to_owned(),
            Self::NoAnswer => "JetStream did not answer in time".to_owned(),
            Self::Other(why) => why,
        }
    }
}

/// Sends one request and waits for the answer, with an inbox of its own: the client's shared one keeps the entry of a
/// request that was never answered for ever.
pub(crate) async fn request(
    client: &Client,
    subject: String,
    headers: Option<async_nats::HeaderMap>,
    payload: Bytes,
    limit: Duration,
) -> Result<Bytes, Failure> {
    if client.connection_state() != State::Connected {
        return Err(Failure::Away);
    }
    let mut request = async_nats::Request::new().payload(payload).inbox(client.new_inbox()).timeout(Some(limit));
    if let Some(headers) = headers {
        request = request.headers(headers);
    }
    // The client's own limit does not count the wait for room in its queue.
    match timeout(limit, client.send_request(subject, request)).await {
        Err(_) => Err(Failure::NoAnswer),
        Ok(Ok(message)) => Ok(message.payload),
        Ok(Err(error)) => Err(match error.kind() {
            async_nats::RequestErrorKind::NoResponders => Failure::NobodyThere,
            async_nats::RequestErrorKind::TimedOut => Failure::NoAnswer,
            _ => Failure::Other(error.to_string()),
        }),
    }
}

/// Sends messages in order, without ever waiting long.
#[derive(Debug)]
pub(crate) struct Publisher {
    client: Client,
    /// The queue was full when last tried: don't wait again until there is room.
    congested: bool,
    /// What was not sent because the broker was away, since it was last told of.
    dropped_away: u64,
    sent: u64,
    unsent_away: u64,
    unsent_congested: u64,
    lines: Limited,
}

impl Publisher {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            congested: false,
            dropped_away: 0,
            sent: 0,
            unsent_away: 0,
            unsent_congested: 0,
            lines: Limited::new(ms(LINE_EVERY_MS)),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Shows what was sent, and what was not.
    pub(crate) fn observe(&self, name: &'static str, readings: &mut Readings) {
        readings.count(&metrics::SENT, &[name], self.sent);
        readings.count(&metrics::UNSENT, &[name, "away"], self.unsent_away);
        readings.count(&metrics::UNSENT, &[name, "congested"], self.unsent_congested);
    }

    /// How many messages were dropped while the broker was away, since this was last asked.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped_away)
    }

    /// Hands a message to the client. One that cannot be handed over soon is dropped: the protocol repeats what matters,
    /// and a late one would only be refused.
    pub(crate) async fn publish(
        &mut self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) {
        if self.client.connection_state() != State::Connected {
            self.dropped_away += 1;
            self.unsent_away += 1;
            return;
        }
        // Unconstrained: else tokio makes even a send that has room wait, once a task has done much at a time.
        let sending = tokio::task::unconstrained(send(&self.client, subject, reply, headers, payload));
        let sent =
            if self.congested { sending.now_or_never() } else { timeout(ms(PUBLISH_WAIT_MS), sending).await.ok() };
        self.congested = sent.is_none();
        let trouble = match sent {
            Some(Ok(())) => {
                self.sent += 1;
                return;
            }
            Some(Err(error)) => error.to_string(),
            None => format!("the broker took nothing for {PUBLISH_WAIT_MS} ms"),
        };
        self.unsent_congested += 1;
        if let Some(held_back) = self.lines.admit() {
            warn!("a message was dropped: {trouble}{held_back}; what still matters is sent again");
        }
    }

    /// Waits until the broker has taken everything so far, for at most `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        if self.client.connection_state() == State::Connected && timeout(limit, self.client.flush()).await.is_err() {
            debug!("the last messages may not have reached the broker");
        }
    }
}

async fn send(
    client: &Client,
    subject: String,
    reply: Option<String>,
    headers: Option<HeaderMap>,
    payload: Bytes,
) -> Result<(), async_nats::PublishError> {
    match (reply, headers) {
        (Some(reply), Some(headers)) => client.publish_with_reply_and_headers(subject, reply, headers, payload).await,
        (Some(reply), None) => client.publish_with_reply(subject, reply, payload).await,
        (None, Some(headers)) => client.publish_with_headers(subject, headers, payload).await,
        (None, None) => client.publish(subject, payload).await,
    }
}

/// What the client tells of itself.
#[derive(Debug)]
struct Heard {
    /// Something about the connection may have changed.
    changed: Notify,
    /// What the last attempt to connect ran into.
    trouble: Mutex<Option<String>>,
    slow: Mutex<Limited>,
    slow_count: AtomicU64,
    denied_count: AtomicU64,
    refused: Mutex<Limited>,
    /// What the user may not do, in the broker's words.
    denials: Mutex<BTreeSet<String>>,
}

impl Default for Heard {
    fn default() -> Self {
        let lines = || Mutex::new(Limited::new(ms(LINE_EVERY_MS)));
        Self {
            changed: Notify::new(),
            trouble: Mutex::default(),
            slow: lines(),
            slow_count: AtomicU64::new(0),
            denied_count: AtomicU64::new(0),
            refused: lines(),
            denials: Mutex::default(),
        }
    }
}

impl Heard {
    fn on(&self, event: Event) {
        match event {
            Event::Connected | Event::Disconnected | Event::Closed => self.changed.notify_one(),
            Event::LameDuckMode => info!("the broker is about to shut down"),
            Event::SlowConsumer(_) => {
                self.slow_count.fetch_add(1, Ordering::Relaxed);
                say(&self.slow, |held_back| {
                    warn!(
                        "messages come faster than this service handles them; one was dropped{held_back} and is asked for \
                         again. If it goes on, give it more processor time"
                    );
                });
            }
            Event::ServerError(ServerError::Other(text)) if text.to_lowercase().contains("permissions violation") => {
                self.denied_count.fetch_add(1, Ordering::Relaxed);
                let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
                if denials.len() < DENIALS_MAX {
                    denials.insert(text.clone());
                }
                say(&self.refused, |held_back| {
                    warn!(
                        "the broker does not let this service do something: {text}{held_back}; see the users in nats/"
                    );
                });
            }
            Event::ServerError(error) => {
                say(&self.refused, |held_back| {
                    warn!("the broker reports: {error}{held_back}");
                });
            }
            Event::ClientError(ClientError::Other(text)) => {
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            }
            Event::ClientError(error) => debug!("{error}"),
            Event::Draining => {}
        }
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn say(limited: &Mutex<Limited>, line: impl FnOnce(crate::limited::HeldBack)) {
    let admitted = limited.lock().unwrap_or_else(PoisonError::into_inner).admit();
    if let Some(held_back) = admitted {
        line(held_back);
    }
}

/// Keeps the link's state current until the last [`Broker`] of the connection is gone. The client's events only wake it:
/// they are dropped when there are many, so what it tells is read from the client itself.
async fn watch_link(client: Client, heard: Arc<Heard>, link: watch::Sender<Link>, mut speaker: Speaker) {
    let mut tick = interval(ms(LINK_CHECK_EVERY_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = Link::of(&client);
        link.send_if_modified(|link| std::mem::replace(link, now) != now);
        speaker.tell(now, &heard, &client);
        tokio::select! {
            () = heard.changed.notified() => {}
            _ = tick.tick() => {}
            () = link.closed() => return,
        }
    }
}

/// Whether a connection speaks about the broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Voice {
    Aloud,
    Quiet,
}

/// Says in words how the connection is.
struct Speaker {
    voice: Voice,
    url: String,
    link: Link,
    /// Since when the broker is away.
    away_since: Instant,
    next_line: Instant,
}

impl Speaker {
    fn new(voice: Voice, url: &BrokerUrl) -> Self {
        let now = Instant::now();
        let next_line = now + ms(FIRST_LINE_AFTER_MS);
        Self { voice, url: url.to_string(), link: Link::default(), away_since: now, next_line }
    }

    fn tell(&mut self, link: Link, heard: &Heard, client: &Client) {
        let before = std::mem::replace(&mut self.link, link);
        let (now, url) = (Instant::now(), &self.url);
        if before.connected && !link.connected {
            self.away_since = now;
            self.next_line = now + ms(LINE_EVERY_MS);
        }
        if self.voice == Voice::Quiet {
            return;
        }
        let waited = now - self.away_since;
        if link.connected && link.connects > before.connects {
            match before.connects {
                0 => info!("connected to the broker at {url}"),
                _ if before.connected => warn!("the connection to the broker at {url} broke and is back"),
                _ => info!("the broker at {url} is back after {:.1} s", waited.as_secs_f64()),
            }
            check_fitness(client, url);
        } else if before.connected && !link.connected {
            warn!("lost the broker at {url}; it is waited for, and everything goes on by itself when it is back");
        } else if !link.connected && now >= self.next_line {
            let trouble = heard.trouble().map(|text| format!(": {text}")).unwrap_or_default();
            warn!("waiting for the broker at {url} ({} s){trouble}", waited.as_secs());
            self.next_line = now + ms(LINE_EVERY_MS);
        }
    }
}

/// Says what is wrong with a broker that answers.
fn check_fitness(client: &Client, url: &str) {
    let (major, minor, patch) = BROKER_VERSION_MIN;
    let Some(info) = client.try_server_info() else { return };
    if !client.is_server_compatible(major, minor, patch) {
        warn!("the broker at {url} is nats-server {}; {major}.{minor} or newer is needed", info.version);
    }
    if !info.jetstream {
        warn!("the broker at {url} runs without JetStream, which holds the register; start it with nats/dev.conf");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser, Debug)]
    struct Command {
        #[command(flatten)]
        connect: ConnectArgs,
    }

    #[test]
    fn options_are_refused_where_they_cannot_work_and_secrets_are_not_shown() {
        fn parse(args: &[&str]) -> anyhow::Result<Command> {
            let command = <Command as clap::Parser>::try_parse_from([&["x"], args].concat())?;
            command.connect.credentials().map(|_| command)
        }
        fn check(args: &[&str], expected: Result<&str, &str>) {
            match (parse(args), expected) {
                (Ok(command), Ok(part)) => {
                    let text = format!("{command:?}");
                    assert!(text.contains(part), "{text}");
                    assert!(!text.contains("secret"), "{text}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (parsed, _) => panic!("{args:?} gave {parsed:?}"),
            }
        }
        check(&[], Ok("nats://127.0.0.1:4222"));
        check(&["--nats-url", "nats://me:secret@a:1,b:2"], Ok("nats://a:1,nats://b:2"));
        check(&["--nats-user", "me", "--nats-password", "secret"], Ok("(hidden)"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let (user, file) = (["--nats-user", "me"], file.path().to_str().unwrap());
        let passwords =
            |password, file| [&user[..], &["--nats-password", password, "--nats-password-file", file]].concat();
        check(&user, Err("give NATS_PASSWORD or NATS_PASSWORD_FILE"));
        check(&passwords("", ""), Err("give NATS_PASSWORD or NATS_PASSWORD_FILE"));
        check(&passwords("secret", ""), Ok("(hidden)"));
        check(&passwords("", file), Ok(file));
        check(&passwords("", "/nowhere"), Err("the password in /nowhere cannot be read"));
        check(&passwords("secret", file), Err("two passwords"));
        check(&["--nats-user", "a.b", "--nats-password", "secret"], Err("letters, digits"));
        check(&["--nats-url", "http://a"], Err("nats://127.0.0.1:4222"));
        for nowhere in ["", "nats://", "nats://a:1,,nats://b:2", "nats://a:1,"] {
            check(&["--nats-url", nowhere], Err("it names no broker; an address looks like nats://127.0.0.1:4222"));
        }
        check(&["--prefix", "A.b"], Err("1 to 32 of a-z"));
        check(&["--register-replicas", "2"], Err("1, 3 or 5"));
    }

    #[test]
    fn reconnects_come_quickly_and_not_in_step() {
        assert_eq!(reconnect_wait(0), Duration::ZERO);
        assert_eq!(reconnect_wait(1), Duration::ZERO);
        for attempts in 2..100 {
            assert!(reconnect_wait(attempts) <= ms(RECONNECT_WAIT_MS_MAX));
        }
        assert!(reconnect_wait(50) >= ms(RECONNECT_WAIT_MS_MAX / 2));
    }
}
