//! The loop that runs a decider in the real world.
//!
//! The problem: a decider's rules hold only if its inputs come one by one and its outputs are carried out in order, while
//! messages, disk, register, clients and timers all happen at once. The idea: one task owns the decider. It waits for one
//! event, takes what else is ready, then carries out all outputs, and so on: what waits together is decided, sent and
//! synced together (natural batching), without a timer. The rules:
//!
//! - outputs are carried out in order, in this task: concurrent publishes would be sent in any order;
//! - no flush and no task for each message: either costs more than the message;
//! - nothing here waits long: a publish has a limit, requests to the register run beside the loop, and a sync is slept
//!   through only if it is short;
//! - a message is decoded once, here, and only on the subject it belongs to: anything else is dropped, counted, reported;
//! - while the broker is away what is to be sent is dropped: the protocol repeats what still matters.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use async_nats::{Message, StatusCode, Subscriber};
use futures::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{debug, info, warn};
use tradenet_core::metrics::Readings;
use tradenet_core::times::Times;
use tradenet_core::{
    ClientAnswer, Decider, DiskRequest, Input, Level, Notice, Output, Packet, RegisterAnswer, ReplyTo, Stop, Ticket,
};
use tradenet_schemas::ids::Node;
use tradenet_schemas::message::Message as Body;
use tradenet_schemas::subjects::{Peer, Prefix, Topic};

use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::limited::Limited;
use crate::metrics::{self, Scrapes};
use crate::nats::{Broker, Link, Publisher, is_inbox};
use crate::outlet::Outlet;
use crate::permissions;
use crate::register::Register;
use crate::service_api::{self, Counts, Endpoint, Service};
use crate::shutdown::{Reason, Shutdown};
use crate::{trace, whereabouts};

/// How many events of one source (a subscription, the disk, the clients) are taken before outputs are carried out. Bounds
/// both the batch and how long one source can keep the others waiting.
const EVENTS_AT_ONCE_MAX: usize = 1_024;
/// How long the whole process sleeps while its disk syncs, in milliseconds. Longer syncs go on beside the loop.
const SYNC_SLEEP_MS: u64 = 1;
/// The names of a process's connections.
const MAIN: &str = "main";
const BULK: &str = "bulk";
/// How many answers of the register wait at most; there are a few a second.
const REGISTER_ANSWERS_MAX: usize = 64;
/// Between two lines about messages that were dropped, in milliseconds.
const LINE_EVERY_MS: u64 = 5_000;
/// How long the last messages of a leaving process may take to reach the broker, in milliseconds.
const LAST_FLUSH_MS: u64 = 1_000;
/// How long the disk may take to finish what a leaving process has asked for, in milliseconds.
const LAST_WRITES_MS: u64 = 2_000;
/// How much longer than the decider's own limit a leaving process is waited for, in milliseconds.
const LEAVE_MARGIN_MS: u64 = 2_000;

/// What the driver has to know of its service.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who sends.
    pub node: Node,
    /// The protocol's periods.
    pub times: Times,
    /// What the service listens to.
    pub topics: Vec<(Topic, Peer)>,
    /// How it shows in the service API.
    pub service: Service,
}

/// What connects the decider to the world.
pub struct Ports {
    /// The connection for everything that is small or urgent.
    pub broker: Broker,
    /// A second one for catching up, in which large messages cannot delay heartbeats. Without it, they go over the first.
    pub bulk: Option<Broker>,
    /// The disk of a service that has one.
    pub disk: Option<Disk>,
    /// Those who ask a frontend.
    pub clients: Option<Clients>,
    /// Where the log is handed out to others.
    pub outlet: Option<Outlet>,
    /// Those who want to know how it stands.
    pub scrapes: Scrapes,
    /// The process's clock; whoever else calls the decider must use the same.
    pub clock: Clock,
}

/// Those who ask a frontend: where their requests come from and their answers go.
pub struct Clients {
    /// [`Input::Client`] and [`Input::ClientGone`]. Bounded by who made it.
    pub inputs: mpsc::Receiver<Input>,
    /// Takes an answer; must not block.
    pub answer: Box<dyn FnMut(Ticket, ClientAnswer) + Send>,
}

/// Runs `decider` until it stops, and tells it to leave when `shutdown` says so.
///
/// # Errors
/// The decider cannot go on, or does not leave in time, or the process has lost one of its parts. The text says why, in one
/// line; the process should end with it.
pub async fn run<D: Decider>(decider: D, mut options: Options, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
    // By these, tools tell the services of several exchanges on one broker apart.
    let own = [("name", ports.broker.name.clone()), ("prefix", ports.broker.prefix.as_str().to_owned())];
    options.service.metadata.extend(own);
    options.service.metadata.extend(whereabouts::told(ports.broker.compose_service.as_deref()));
    let (broker, scraper) = (ports.broker.clone(), ports.scrapes.scraper.clone());
    let mut driver = Driver::new(decider, &options, ports, shutdown).await?;
    let endpoints = driver.endpoints();
    let (client, boot) = (driver.main.client().clone(), options.node.boot());
    let api = service_api::serve(client, options.service, boot, endpoints, scraper).await?;
    let api = tokio::spawn(api);
    let ended = tokio::select! {
        ended = driver.drive() => ended,
        refused = permissions::refused(&broker, options.node) => refused,
    };
    api.abort();
    let flush = Duration::from_millis(LAST_FLUSH_MS);
    driver.main.flush(flush).await;
    if let Some(bulk) = &driver.bulk {
        bulk.flush(flush).await;
    }
    if let Some(disk) = driver.disk.take() {
        disk.close(Duration::from_millis(LAST_WRITES_MS)).await;
    }
    ended
}

/// A subscription, and what may arrive on it.
struct Ear {
    messages: Subscriber,
    subject: String,
    /// The topic of its requests; none for answers.
    topic: Option<Topic>,
    counts: Arc<Counts>,
}

/// A source that gives one value at some time; then it is replaced or gone.
type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct Driver<D> {
    decider: D,
    node: Node,
    prefix: Prefix,
    clock: Clock,
    main: Publisher,
    bulk: Option<Publisher>,
    ears: Vec<Ear>,
    /// Which ear is heard first, in turns.
    first_ear: usize,
    link: Link,
    link_changed: Later<watch::Receiver<Link>>,
    register: Register,
    register_answer: mpsc::Sender<RegisterAnswer>,
    register_answers: mpsc::Receiver<RegisterAnswer>,
    disk: Option<Disk>,
    clients: Option<Clients>,
    outlet: Option<Outlet>,
    scrapes: Scrapes,
    /// For what they tell of themselves.
    brokers: Vec<(&'static str, Broker)>,
    shutdown: Option<Later<Reason>>,
    leave_within: Duration,
    leave_until: Option<Pin<Box<Sleep>>>,
    /// When the decider wants to be woken.
    alarm: Alarm,
    dropped: Limited,
    /// What was taken since outputs were last carried out.
    taken: usize,
    /// The outputs carried out last: messages sent, and something to be synced.
    sent: bool,
    syncing: bool,
    /// Why the loop cannot go on.
    lost: Option<&'static str>,
}

impl<D: Decider> Driver<D> {
    async fn new(decider: D, options: &Options, ports: Ports, shutdown: Shutdown) -> anyhow::Result<Self> {
        let Ports { broker, bulk, disk, clients, outlet, scrapes, clock } = ports;
        let ears = listen(options, &broker, bulk.as_ref()).await.context("subscribing at the broker")?;
        let (register_answer, register_answers) = mpsc::channel(REGISTER_ANSWERS_MAX);
        let brokers = [Some((MAIN, broker.clone())), bulk.clone().map(|bulk| (BULK, bulk))];
        let brokers = brokers.into_iter().flatten().collect();
        let mut changes = broker.link_changes();
        changes.mark_changed();
        Ok(Self {
            decider,
            node: options.node,
            prefix: broker.prefix.clone(),
            clock,
            main: Publisher::new(broker.client.clone()),
            bulk: bulk.map(|bulk| Publisher::new(bulk.client)),
            ears,
            first_ear: 0,
            link: Link::default(),
            link_changed: change_of(changes),
            register: Register::new(&broker, options.times.register),
            register_answer,
            register_answers,
            disk,
            clients,
            outlet,
            scrapes,
            brokers,
            shutdown: Some(Box::pin(async move { shutdown.requested().await })),
            leave_within: options.times.leave + Duration::from_millis(LEAVE_MARGIN_MS),
            leave_until: None,
            alarm: Alarm::new().context("a timer")?,
            dropped: Limited::new(Duration::from_millis(LINE_EVERY_MS)),
            taken: 0,
            sent: false,
            syncing: false,
            lost: None,
        })
    }

    /// The subscriptions that requests arrive on.
    fn endpoints(&self) -> Vec<Endpoint> {
        let requests = self.ears.iter().filter_map(|ear| {
            let topic =
                ear.topic.filter(|topic| !matches!(topic, Topic::Announce | Topic::Replicate | Topic::Commit))?;
            let name = topic.tokens().replace('.', "-");
            Some(Endpoint { name, subject: ear.subject.clone(), counts: ear.counts.clone() })
        });
        requests.collect()
    }

    async fn drive(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(stop) = self.carry_out().await? {
                return match stop {
                    Stop::Left => Ok(()),
                    Stop::Broken(why) => Err(anyhow!(why)),
                };
            }
            self.sleep_through_sync().await;
            self.alarm.set(self.decider.poll_timeout(), self.clock.now().mono).context("setting the timer")?;
            self.taken = 0;
            // Unconstrained: else tokio ends the round after 128 events, and so the batch.
            let timer_only = tokio::task::unconstrained(poll_fn(|cx| self.poll_round(cx))).await;
            if let Some(lost) = self.lost {
                bail!("{lost}");
            }
            if timer_only || self.taken >= EVENTS_AT_ONCE_MAX {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes what is ready; not ready itself before there was something. Tells whether it was only the timer.
    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.poll_link(cx);
        self.poll_shutdown(cx);
        self.poll_register(cx);
        self.poll_disk(cx);
        self.poll_messages(cx);
        self.poll_clients(cx);
        self.poll_scrapes(cx);
        let events = self.taken;
        self.poll_timer(cx);
        if self.taken == 0 && self.lost.is_none() { Poll::Pending } else { Poll::Ready(events == 0) }
    }

    fn take(&mut self, input: Input) {
        self.taken += 1;
        self.decider.handle(self.clock.now(), input);
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(mut changes) = self.link_changed.as_mut().poll(cx) {
            let link = *changes.borrow_and_update();
            self.link_changed = change_of(changes);
            let before = std::mem::replace(&mut self.link, link);
            let broke = before.connected && (!link.connected || link.connects > before.connects);
            if broke {
                self.take(Input::Disconnected);
            }
            if link.connected && (broke || !before.connected) {
                let dropped = self.main.take_dropped() + self.bulk.as_mut().map_or(0, Publisher::take_dropped);
                if dropped > 0 {
                    info!("{dropped} messages were dropped while the broker was away");
                }
                self.take(Input::Connected);
            }
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) {
        if let Some(shutdown) = &mut self.shutdown
            && let Poll::Ready(reason) = shutdown.as_mut().poll(cx)
        {
            info!("leaving: {reason}");
            self.shutdown = None;
            self.leave_until = Some(Box::pin(sleep_until(Instant::now() + self.leave_within)));
            self.take(Input::Leave);
        }
        if let Some(until) = &mut self.leave_until
            && until.as_mut().poll(cx).is_ready()
        {
            self.lost = Some("did not finish what was under way in time to leave; nothing that was answered is lost");
        }
    }

    fn poll_register(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(answer)) = self.register_answers.poll_recv(cx) {
            self.take(Input::Register(answer));
        }
    }

    fn poll_disk(&mut self, cx: &mut Context<'_>) {
        // Without a bound: the answers are as many as the requests, and the disk is not asked before they are taken.
        while let Some(disk) = &mut self.disk
            && let Poll::Ready(answer) = disk.poll_answer(cx)
        {
            match answer {
                Some(answer) => self.take(Input::Disk(answer)),
                None => {
                    self.disk = None;
                    self.lost = Some("the disk's thread has ended; start the process again");
                }
            }
        }
    }

    fn poll_messages(&mut self, cx: &mut Context<'_>) {
        let ears = self.ears.len();
        self.first_ear = (self.first_ear + 1) % ears.max(1);
        for turn in 0..ears {
            let index = (self.first_ear + turn) % ears;
            for _ in 0..EVENTS_AT_ONCE_MAX {
                match self.ears[index].messages.poll_next_unpin(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => {
                        self.lost = Some("the broker's client has ended; start the process again");
                        return;
                    }
                    Poll::Ready(Some(message)) => self.hear(index, &message),
                }
            }
        }
    }

    fn hear(&mut self, index: usize, message: &Message) {
        let ear = &self.ears[index];
        ear.counts.add_request();
        match read(message, ear.topic, &self.prefix) {
            Ok(input) => self.take(input),
            Err(why) => {
                ear.counts.add_error();
                self.taken += 1;
                if let Some(held_back) = self.dropped.admit() {
                    warn!("dropped what came on {}: {why}{held_back}", message.subject);
                }
            }
        }
    }

    fn poll_clients(&mut self, cx: &mut Context<'_>) {
        for _ in 0..EVENTS_AT_ONCE_MAX {
            match self.clients.as_mut().map(|clients| clients.inputs.poll_recv(cx)) {
                Some(Poll::Ready(Some(input))) => self.take(input),
                // All who could ask are gone; answers may still be under way.
                _ => return,
            }
        }
    }

    /// Answers who wants to know how the service stands. No event: the decider hears nothing of it.
    fn poll_scrapes(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(scrape)) = self.scrapes.asked.poll_recv(cx) {
            // Whoever asked may have gone.
            let _ = scrape.send(self.observe());
        }
    }

    fn observe(&self) -> Readings {
        let mut readings = Readings::default();
        self.decider.observe(self.clock.now(), &mut readings);
        for (name, broker) in &self.brokers {
            broker.observe(name, &mut readings);
        }
        self.main.observe(MAIN, &mut readings);
        self.bulk.iter().for_each(|bulk| bulk.observe(BULK, &mut readings));
        for (topic, ear) in self.ears.iter().filter_map(|ear| Some((ear.topic?, ear))) {
            ear.counts.observe(topic.tokens(), &mut readings);
        }
        // A process may have two subscriptions for answers, which are one topic.
        let (requests, errors) = self.ears.iter().filter(|ear| ear.topic.is_none()).fold((0, 0), |(all, bad), ear| {
            let (requests, errors) = ear.counts.read();
            (all + requests, bad + errors)
        });
        readings.count(&metrics::RECEIVED, &["reply"], requests);
        readings.count(&metrics::REJECTED, &["reply"], errors);
        if let Some(disk) = &self.disk {
            disk.observe(&mut readings);
        }
        if let Some(outlet) = &self.outlet {
            outlet.observe(&mut readings);
        }
        if let Some(clients) = &self.clients {
            readings.queue("client_inputs", clients.inputs.len(), clients.inputs.max_capacity());
        }
        readings.queue("register_answers", self.register_answers.len(), REGISTER_ANSWERS_MAX);
        readings
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        if self.alarm.poll(cx).is_ready() {
            // What was handled since it was set may have moved it.
            if self.decider.poll_timeout().is_some_and(|at| at <= self.clock.now().mono) {
                self.take(Input::Timer);
            } else {
                self.taken += 1;
            }
        }
    }

    /// While a batch is synced, a replica has nothing to do but to gather what comes meanwhile. Asleep it does so for free:
    /// then all of it is taken in one round, instead of each message waking the process. A leader with two followers is
    /// woken twice a batch instead of five times.
    async fn sleep_through_sync(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        if !std::mem::take(&mut self.syncing) {
            return;
        }
        if sent {
            // What was sent leaves first: the others are to sync at the same time.
            tokio::task::yield_now().await;
        }
        if let Some(disk) = &self.disk {
            disk.sleep_until_answer(Duration::from_millis(SYNC_SLEEP_MS));
        }
    }

    /// Carries out what the decider wants, in order.
    async fn carry_out(&mut self) -> anyhow::Result<Option<Stop>> {
        while let Some(output) = self.decider.poll_output() {
            match output {
                Output::Send { to, packet } => self.send(to, &packet).await,
                Output::Reply { to, packet } => {
                    let line = line_for(&mut self.main, &mut self.bulk, packet.body());
                    trace::tell("answered", &to.0, &packet.traces);
                    let headers = trace::headers(&packet.traces);
                    line.publish(to.0.as_ref().to_owned(), None, headers, packet.encode()).await;
                }
                Output::Register(request) => {
                    let (register, answer) = (self.register.clone(), self.register_answer.clone());
                    // A few a second, and each ends by itself within its limit.
                    tokio::spawn(async move { answer.send(register.perform(request).await).await });
                }
                Output::Disk(request) => match &self.disk {
                    Some(disk) => {
                        self.syncing |= matches!(request, DiskRequest::Append { .. });
                        disk.ask(request).await?;
                    }
                    None => bail!("a service without a disk asked for it: this is a defect, please report it"),
                },
                Output::Answer(ticket, answer) => {
                    if let Some(clients) = &mut self.clients {
                        (clients.answer)(ticket, answer);
                    }
                }
                Output::Notice(notice) => tell(&notice),
                Output::Stop(stop) => return Ok(Some(stop)),
            }
        }
        if let Some(outlet) = &self.outlet {
            outlet.released(self.decider.released());
        }
        Ok(None)
    }

    async fn send(&mut self, to: Peer, packet: &Packet) {
        self.sent = true;
        let Some(topic) = Topic::of(packet.body()) else {
            warn!("an answer without a request was not sent: this is a defect, please report it");
            return;
        };
        let is_bulk = self.bulk.is_some() && is_bulk(packet.body());
        let reply = Topic::wants_answer(packet.body()).then(|| match is_bulk {
            true => self.prefix.bulk_reply(self.node, to),
            false => self.prefix.reply(self.node, to),
        });
        let subject = self.prefix.subject(topic, to);
        trace::tell("sent", &subject, &packet.traces);
        let headers = trace::headers(&packet.traces);
        let line = line_for(&mut self.main, &mut self.bulk, packet.body());
        line.publish(subject, reply, headers, packet.encode()).await;
    }
}

/// Whether a message belongs to catching up, whose size would hold up others behind it.
fn is_bulk(message: &Body) -> bool {
    matches!(message, Body::Fetch { .. } | Body::Chunk { .. } | Body::FetchSnapshot { .. } | Body::SnapshotPart { .. })
}

/// The connection that a message goes over.
fn line_for<'a>(main: &'a mut Publisher, bulk: &'a mut Option<Publisher>, message: &Body) -> &'a mut Publisher {
    match bulk {
        Some(bulk) if is_bulk(message) => bulk,
        _ => main,
    }
}

/// Resolves when the link's state is another than last seen; never once the connection is gone.
fn change_of(mut changes: watch::Receiver<Link>) -> Later<watch::Receiver<Link>> {
    Box::pin(async move {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        changes
    })
}

/// Subscribes to all that the service listens to, and to its answers.
async fn listen(
    options: &Options,
    broker: &Broker,
    bulk: Option<&Broker>,
) -> Result<Vec<Ear>, async_nats::SubscribeError> {
    let prefix = &broker.prefix;
    let mut wanted = Vec::new();
    for &(topic, peer) in &options.topics {
        let line = bulk.filter(|_| topic == Topic::Fetch).unwrap_or(broker);
        wanted.push((line, prefix.subject(topic, peer), Some(topic)));
    }
    wanted.push((broker, format!("{}*", prefix.reply_prefix(options.node)), None));
    if let Some(bulk) = bulk {
        wanted.push((bulk, format!("{}*", prefix.bulk_reply_prefix(options.node)), None));
    }
    let mut ears = Vec::new();
    for (line, subject, topic) in wanted {
        let messages = line.client.subscribe(subject.clone()).await?;
        debug!("listening on {subject}");
        ears.push(Ear { messages, subject, topic, counts: Arc::default() });
    }
    Ok(ears)
}

/// Why something that arrived is dropped.
enum Rejected {
    Malformed(String),
    /// A request on another topic's subject, or something that is no answer where answers arrive.
    Elsewhere,
    /// The answer would go where no answers belong: to a topic, or into the register.
    Detour(String),
    /// The broker says something else than that nobody is there.
    Status(StatusCode),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => f.write_str(why),
            Self::Elsewhere => f.write_str("a message that does not belong there"),
            Self::Detour(reply) => write!(f, "its answer would go to {reply}, where no answers belong"),
            Self::Status(status) => write!(f, "the broker's status {status}"),
        }
    }
}

/// What a message on a subscription of `topic` (none: of answers) means.
fn read(message: &Message, topic: Option<Topic>, prefix: &Prefix) -> Result<Input, Rejected> {
    match message.status {
        Some(StatusCode::NO_RESPONDERS) if topic.is_none() => {
            let peer = Prefix::peer_of_reply(&message.subject).ok_or(Rejected::Elsewhere)?;
            return Ok(Input::NobodyThere(peer));
        }
        Some(status) => return Err(Rejected::Status(status)),
        None => {}
    }
    let mut packet = Packet::decode(&message.payload).map_err(|error| Rejected::Malformed(error.to_string()))?;
    if Topic::of(packet.body()) != topic {
        return Err(Rejected::Elsewhere);
    }
    if let Some(headers) = &message.headers {
        packet.traces = trace::traces(headers);
        trace::tell("received", &message.subject, &packet.traces);
    }
    // Who may ask must not make others say something where it may not itself.
    if let Some(reply) = message.reply.as_deref().filter(|reply| !is_for_answers(reply, prefix)) {
        return Err(Rejected::Detour(reply.to_owned()));
    }
    Ok(Input::Received { packet, reply: message.reply.as_ref().map(|reply| ReplyTo(Arc::from(reply.as_str()))) })
}

/// Whether a subject is one on which somebody waits for answers.
fn is_for_answers(subject: &str, prefix: &Prefix) -> bool {
    let own = subject.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('.'));
    is_inbox(subject) || own.and_then(|rest| rest.split('.').nth(1)) == Some("reply")
}

pub(crate) fn tell(notice: &Notice) {
    match notice.level {
        Level::Debug => debug!("{}", notice.text),
        Level::Info => info!("{}", notice.text),
        Level::Warn => warn!("{}", notice.text),
    }
}
