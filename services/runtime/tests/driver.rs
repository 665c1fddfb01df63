//! The driver between a real broker and a decider that does as it is told: what arrives, what is sent and in which order,
//! and that nothing stands still while the broker is away.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{PATIENCE, Scripted, Seen, Server, eventually, packet};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tradenet_core::times::Times;
use tradenet_core::{ClientAnswer, ClientRequest, Input, Output, Stop, Ticket};
use tradenet_runtime::clock::Clock;
use tradenet_runtime::driver::{self, Clients, Options, Ports};
use tradenet_runtime::metrics::scraper;
use tradenet_runtime::nats::{CallError, connect_aside};
use tradenet_runtime::process::Signal;
use tradenet_runtime::service_api::Service;
use tradenet_runtime::shutdown::{Reason, Shutdown, Trigger};
use tradenet_schemas::ids::{Boot, Epoch, Leader, Node, OrderNumber, Position, ReplicaId, SeqNum};
use tradenet_schemas::message::{Message, Query};
use tradenet_schemas::subjects::{Peer, Prefix, Topic};

const FRONTEND: Node = Node::Frontend(Boot(0xf));

fn replica(id: u8) -> (ReplicaId, Node, Peer) {
    let id = ReplicaId::new(id).unwrap();
    (id, Node::Order(id, Boot(u64::from(id.get()))), Peer::Order(id))
}

/// A driver under test. Its clients' inputs are how the test wakes the script.
struct Running {
    seen: Seen,
    inputs: mpsc::Sender<Input>,
    trigger: Trigger,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(
        server: &Server,
        node: Node,
        topics: &[(Topic, Peer)],
        script: impl FnMut(&Input) -> Vec<Output> + Send + 'static,
    ) -> Self {
        let (decider, seen) = Scripted::new(script);
        let (inputs, receiver) = mpsc::channel(100_000);
        let (trigger, shutdown) = Shutdown::new();
        let service = Service { name: "tradenet-test", description: "A test", version: "1.2.3", metadata: Vec::new() };
        let options = Options { node, times: Times::default(), topics: topics.to_vec(), service };
        let broker = server.connect().await;
        let bulk = connect_aside(&server.args(), "test", "bulk").await.unwrap();
        assert!(bulk.reached_within(PATIENCE).await);
        let clients = Clients { inputs: receiver, answer: Box::new(|_, _| {}) };
        let ports = Ports {
            broker,
            bulk: Some(bulk),
            disk: None,
            clients: Some(clients),
            outlet: None,
            scrapes: scraper("test", "1").1,
            clock: Clock::new(),
        };
        let task = tokio::spawn(driver::run(decider, options, ports, shutdown));
        let mut running = Self { seen, inputs, trigger, task };
        running.seen.connected().await;
        running
    }

    /// Wakes the script with a number.
    async fn poke(&self, number: u64) {
        self.inputs.send(Input::Client(Ticket(number), ClientRequest::Stocks)).await.unwrap();
    }

    /// Waits until the script was woken with that number.
    async fn poked(&mut self, number: u64) {
        let is_it = |input: &Input| matches!(input, Input::Client(Ticket(it), _) if *it == number).then_some(());
        self.seen.first("the input of a client", is_it).await;
    }
}

/// Sends `body` to `to` at each poke.
fn at_each_poke(
    from: Node,
    to: Peer,
    body: impl Fn(u64) -> Message + Send + 'static,
) -> impl FnMut(&Input) -> Vec<Output> {
    move |input| match input {
        Input::Client(ticket, _) => vec![Output::Send { to, packet: packet(from, body(ticket.0)) }],
        _ => Vec::new(),
    }
}

fn silent(_: &Input) -> Vec<Output> {
    Vec::new()
}

fn query(number: u64) -> Message {
    Message::Read { request: number, query: Query::Order(OrderNumber(number)) }
}

/// Answers each query with its number.
fn answering(from: Node) -> impl FnMut(&Input) -> Vec<Output> {
    move |input| match input {
        Input::Received { packet: received, reply: Some(reply) } => match received.body() {
            Message::Read { request, .. } => {
                let body = Message::Overloaded { requests: vec![*request] };
                vec![Output::Reply { to: reply.clone(), packet: packet(from, body) }]
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Waits until the broker knows that queries to `peer` are heard: a subscription takes its way there too.
async fn listens(server: &Server, peer: Peer) {
    let broker = server.connect().await;
    let query = packet(FRONTEND, query(0));
    eventually("an answer", async || broker.call(peer, &query, Duration::from_secs(1)).await.is_ok()).await;
}

#[tokio::test]
async fn requests_and_answers_travel_in_order_and_a_missing_peer_is_reported() {
    let server = Server::start().await;
    let (_, one, at_one) = replica(1);
    let (_, _, nobody) = replica(2);
    let mut asking = Running::start(&server, FRONTEND, &[], move |input| match input {
        Input::Client(Ticket(0), _) => {
            vec![Output::Send { to: nobody, packet: packet(FRONTEND, Message::Heartbeat { question: None }) }]
        }
        Input::Client(ticket, _) => vec![Output::Send { to: at_one, packet: packet(FRONTEND, query(ticket.0)) }],
        _ => Vec::new(),
    })
    .await;
    asking.poke(0).await;
    let missing = |input: &Input| match input {
        Input::NobodyThere(peer) => Some(*peer),
        _ => None,
    };
    assert_eq!(asking.seen.first("word that nobody is there", missing).await, nobody);

    let _answering = Running::start(&server, one, &[(Topic::Read, at_one)], answering(one)).await;
    listens(&server, at_one).await;
    let count = 5_000;
    for number in 1..=count {
        asking.poke(number).await;
    }
    for number in 1..=count {
        assert_eq!(asking.seen.message().await, Message::Overloaded { requests: vec![number] });
    }
}

#[tokio::test]
async fn what_does_not_belong_on_a_subject_is_dropped() {
    let server = Server::start().await;
    let (id, one, at_one) = replica(1);
    let topics = [(Topic::Heartbeat, at_one), (Topic::Read, at_one)];
    let mut hearing = Running::start(&server, one, &topics, answering(one)).await;
    listens(&server, at_one).await;
    let _ = hearing.seen.message().await;
    let client = server.client().await;
    let prefix = Prefix::new("test").unwrap();
    let (own, answers) = (prefix.subject(Topic::Heartbeat, at_one), prefix.reply(one, at_one));
    let heartbeat = packet(FRONTEND, Message::Heartbeat { question: None }).encode();
    let vote = Message::PreVote { suspect: Leader { id, boot: Boot(1) } };
    let listed = packet(FRONTEND, Message::Listed {}).encode();
    for (subject, payload) in [
        (&own, "hello".into()),
        (&own, vec![0_u8; 1_000_001].into()),
        (&own, packet(FRONTEND, query(1)).encode()),
        (&own, listed.clone()),
        (&answers, heartbeat.clone()),
        (&answers, packet(FRONTEND, vote.clone()).encode()),
        // These two belong where they are.
        (&answers, listed),
        (&own, packet(FRONTEND, vote.clone()).encode()),
    ] {
        client.publish(subject.clone(), payload).await.unwrap();
    }
    // Two subscriptions may be heard in any order.
    let heard = [hearing.seen.message().await, hearing.seen.message().await];
    assert!(heard.contains(&Message::Listed {}) && heard.contains(&vote), "{heard:?}");
}

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_back_is_found_again_by_itself() {
    let mut server = Server::start().await;
    let (_, one, at_one) = replica(1);
    let mut asking = Running::start(&server, FRONTEND, &[], at_each_poke(FRONTEND, at_one, query)).await;
    let mut answering = Running::start(&server, one, &[(Topic::Read, at_one)], answering(one)).await;

    server.process.kill().await.unwrap();
    asking.seen.disconnected().await;
    answering.seen.disconnected().await;
    // More than the client would queue: nothing of it waits, and nothing of it arrives later.
    let began = Instant::now();
    let lost = 10_000;
    for number in 1..=lost {
        asking.poke(number).await;
    }
    asking.poked(lost).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    server.process.restart().await.unwrap();
    asking.seen.connected().await;
    answering.seen.connected().await;
    let mut number = lost;
    eventually("an answer after the broker's return", async || {
        number += 1;
        asking.poke(number).await;
        let answer = timeout(Duration::from_millis(200), asking.seen.message()).await;
        answer.is_ok_and(|answer| {
            let late = |request: &u64| *request <= lost;
            assert!(!matches!(&answer, Message::Overloaded { requests } if requests.iter().any(late)), "{answer:?}");
            true
        })
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_stands_still_does_not_hold_up_what_is_decided() {
    let server = Server::start().await;
    let (_, _, at_one) = replica(1);
    let mut sending = Running::start(&server, FRONTEND, &[], at_each_poke(FRONTEND, at_one, query)).await;
    server.process.signal(Signal::Pause).unwrap();
    let began = Instant::now();
    let count = 50_000;
    for number in 1..=count {
        sending.poke(number).await;
    }
    sending.poked(count).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    sending.seen.disconnected().await;
    server.process.signal(Signal::Resume).unwrap();
    sending.seen.connected().await;
}

#[tokio::test]
async fn catching_up_takes_the_second_connection_there_and_back() {
    let server = Server::start().await;
    let (_, one, at_one) = replica(1);
    let (_, two, at_two) = replica(2);
    let chunk = |asked: Position| Message::Chunk { asked, prev: asked, tail: SeqNum(9), committed: SeqNum(8) };
    let serving = move |input: &Input| match input {
        Input::Received { packet: received, reply: Some(reply) } => {
            assert!(reply.0.contains(".bulk."), "{reply:?}");
            let Message::Fetch { from, .. } = *received.body() else { return Vec::new() };
            vec![Output::Reply { to: reply.clone(), packet: packet(one, chunk(from)) }]
        }
        _ => Vec::new(),
    };
    let from = Position { epoch: Epoch(3), seq: SeqNum(4), ..Position::default() };
    let _serving = Running::start(&server, one, &[(Topic::Fetch, at_one)], serving).await;
    let to = [at_one, at_two];
    let mut fetching = Running::start(&server, two, &[], move |input| match input {
        Input::Client(Ticket(peer), _) => {
            let to = to[usize::try_from(*peer).unwrap()];
            vec![Output::Send { to, packet: packet(two, Message::Fetch { from, bytes_max: None }) }]
        }
        _ => Vec::new(),
    })
    .await;
    eventually("a chunk", async || {
        fetching.poke(0).await;
        let came = timeout(Duration::from_millis(200), fetching.seen.message()).await;
        came.is_ok_and(|message| message == chunk(from))
    })
    .await;
    fetching.poke(1).await;
    let missing = |input: &Input| matches!(input, Input::NobodyThere(peer) if *peer == at_two).then_some(());
    fetching.seen.first("word that nobody is there", missing).await;
}

#[tokio::test]
async fn a_process_ends_as_its_decider_says() {
    async fn check(server: &Server, stop: Stop, expected: Result<(), &str>) {
        let running = Running::start(server, FRONTEND, &[], move |input| match input {
            Input::Leave => vec![Output::info("leaving"), Output::Stop(stop.clone())],
            _ => Vec::new(),
        })
        .await;
        running.trigger.request(Reason::Asked);
        let ended = timeout(PATIENCE, running.task).await.unwrap().unwrap();
        assert_eq!(ended.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }
    let server = Server::start().await;
    check(&server, Stop::Left, Ok(())).await;
    check(&server, Stop::Broken("the disk is gone".to_owned()), Err("the disk is gone")).await;
}

#[tokio::test]
async fn answers_go_to_their_clients_and_the_timer_comes_when_it_was_asked_for() {
    let server = Server::start().await;
    let (decider, mut seen) = Scripted::new(|input| match input {
        Input::Client(ticket, _) => vec![Output::Answer(*ticket, ClientAnswer::Unknown)],
        _ => Vec::new(),
    });
    let (inputs, receiver) = mpsc::channel(10);
    let (answer, mut answers) = mpsc::unbounded_channel();
    let (_trigger, shutdown) = Shutdown::new();
    let service = Service { name: "tradenet-test", description: "A test", version: "1.2.3", metadata: Vec::new() };
    let options = Options { node: FRONTEND, times: Times::default(), topics: Vec::new(), service };
    let answer = Box::new(move |ticket, said| answer.send((ticket, said)).unwrap());
    let clients = Some(Clients { inputs: receiver, answer });
    let ports = Ports {
        broker: server.connect().await,
        bulk: None,
        disk: None,
        clients,
        outlet: None,
        scrapes: scraper("test", "1").1,
        clock: Clock::new(),
    };
    tokio::spawn(driver::run(decider, options, ports, shutdown));
    seen.first("the timer", |input| matches!(input, Input::Timer).then_some(())).await;
    inputs.send(Input::Client(Ticket(7), ClientRequest::Stocks)).await.unwrap();
    let answered = timeout(PATIENCE, answers.recv()).await.unwrap();
    assert_eq!(answered, Some((Ticket(7), ClientAnswer::Unknown)));
}

#[tokio::test]
async fn the_service_api_shows_endpoints_and_what_they_were_asked() {
    let server = Server::start().await;
    let (_, one, at_one) = replica(1);
    let topics = [(Topic::Read, at_one), (Topic::Announce, Peer::All)];
    let _running = Running::start(&server, one, &topics, answering(one)).await;
    let broker = server.connect().await;
    listens(&server, at_one).await;
    for number in 1..=2 {
        let answer = broker.call(at_one, &packet(FRONTEND, query(number)), PATIENCE).await.unwrap();
        assert_eq!(*answer.body(), Message::Overloaded { requests: vec![number] });
    }
    let client = server.client().await;
    let asked = async || {
        let message = client.request("$SRV.STATS.tradenet-test", "".into()).await.unwrap();
        let stats: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        (stats["endpoints"][0]["num_requests"].clone(), stats["endpoints"][0]["num_errors"].clone())
    };
    assert_eq!(asked().await, (3.into(), 0.into()));
    client.publish("test.order.read.1", "garbage".into()).await.unwrap();
    let ask = async |verb: &str| -> serde_json::Value {
        let message = client.request(format!("$SRV.{verb}.tradenet-test"), "".into()).await.unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    };
    let ping = ask("PING").await;
    assert_eq!((&ping["id"], &ping["version"]), (&"0000000000000001".into(), &"1.2.3".into()));
    assert_eq!((&ping["metadata"]["prefix"], &ping["metadata"]["name"]), (&"test".into(), &"test".into()));
    let info = ask("INFO").await;
    assert_eq!(info["endpoints"].as_array().unwrap().len(), 1, "fan-out is no endpoint: {info}");
    assert_eq!(info["endpoints"][0]["subject"], "test.order.read.1");
    eventually("the count of four requests, one of them malformed", async || asked().await == (4.into(), 1.into()))
        .await;
}

#[tokio::test]
async fn a_call_says_why_it_has_no_answer() {
    let mut server = Server::start().await;
    let (_, one, at_one) = replica(1);
    let (_, _, at_two) = replica(2);
    let _silent = Running::start(&server, one, &[(Topic::Heartbeat, at_one)], silent).await;
    let broker = server.connect().await;
    let heartbeat = packet(FRONTEND, Message::Heartbeat { question: None });
    let limit = Duration::from_millis(100);
    let no_answer = Err(CallError::NoAnswer(100));
    eventually("a silence", async || broker.call(at_one, &heartbeat, limit).await == no_answer).await;
    assert_eq!(broker.call(at_two, &heartbeat, limit).await, Err(CallError::NobodyThere));
    let answer = packet(FRONTEND, Message::Listed {});
    assert!(matches!(broker.call(at_one, &answer, limit).await, Err(CallError::Malformed(_))));
    server.process.kill().await.unwrap();
    eventually("the loss of the broker", async || !broker.link().connected).await;
    assert!(matches!(broker.call(at_one, &heartbeat, limit).await, Err(CallError::Away(_))));
}
