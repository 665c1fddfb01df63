//! What the tests of the runtime share: a broker of their own, and a decider that does as it is told.

// clippy.toml's leave for tests does not reach the helpers beside them; not every test uses all of them.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tradenet_core::{Decider, Input, Mono, Now, Output, Packet};
use tradenet_runtime::broker::{BrokerProcess, Found, Lookup, find};
use tradenet_runtime::nats::{Broker, ConnectArgs, connect};
use tradenet_schemas::ids::{Epoch, Node};
use tradenet_schemas::message::{Envelope, Message};
use tradenet_schemas::subjects::Prefix;

/// How long anything may take before a test gives up: generous, for machines that do much else.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A broker with its files.
pub struct Server {
    pub process: BrokerProcess,
    _dir: TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let lookup = Lookup { nats_url: None, ..Lookup::from_env() };
        let program: PathBuf = match find(&lookup).await.unwrap() {
            Found::Program(program) => program,
            Found::Running { url } => panic!("{url} was not asked for"),
        };
        let dir = TempDir::new().unwrap();
        let process = BrokerProcess::start(&program, &dir.path().join("nats"), None).await.unwrap();
        Self { process, _dir: dir }
    }

    pub fn args(&self) -> ConnectArgs {
        ConnectArgs {
            nats_url: self.process.url().parse().unwrap(),
            nats_user: None,
            nats_password: None,
            nats_password_file: None,
            nats_ca: None,
            prefix: Prefix::new("test").unwrap(),
            name: None,
            compose_service: None,
            register_replicas: 1,
        }
    }

    /// A connection as the services have it, once it is there.
    pub async fn connect(&self) -> Broker {
        let broker = connect(&self.args(), "test").await.unwrap();
        assert!(broker.reached_within(PATIENCE).await, "the broker cannot be reached");
        broker
    }

    /// A client as anybody may have one.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.process.url()).await.unwrap()
    }
}

/// Waits until `check` holds.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < until, "{what} did not happen");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a test's decider does with an input.
pub type Script = Box<dyn FnMut(&Input) -> Vec<Output> + Send>;

/// Reports each input to the test, and does what its script says.
pub struct Scripted {
    script: Script,
    seen: mpsc::UnboundedSender<Input>,
    outputs: VecDeque<Output>,
    timer: Option<Mono>,
}

impl Scripted {
    pub fn new(script: impl FnMut(&Input) -> Vec<Output> + Send + 'static) -> (Self, Seen) {
        let (seen, inputs) = mpsc::unbounded_channel();
        let outputs = VecDeque::new();
        (Self { script: Box::new(script), seen, outputs, timer: None }, Seen(inputs))
    }
}

impl Decider for Scripted {
    fn handle(&mut self, now: Now, input: Input) {
        self.outputs.extend((self.script)(&input));
        if matches!(input, Input::Timer) {
            assert!(self.timer.take().is_some_and(|at| at <= now.mono), "the timer came early");
        }
        if matches!(input, Input::Connected) {
            self.timer = Some(now.mono.after(Duration::from_millis(20)));
        }
        let _ = self.seen.send(input);
    }
    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
    fn poll_timeout(&self) -> Option<Mono> {
        self.timer
    }
}

/// The inputs of a scripted decider, in order.
pub struct Seen(mpsc::UnboundedReceiver<Input>);

impl Seen {
    /// The first input from here on that `wanted` takes; others are skipped.
    pub async fn first<T>(&mut self, what: &str, mut wanted: impl FnMut(&Input) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                let input = self.0.recv().await.unwrap_or_else(|| panic!("the driver ended before {what}"));
                if let Some(found) = wanted(&input) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    pub async fn connected(&mut self) {
        self.first("Connected", |input| matches!(input, Input::Connected).then_some(())).await;
    }

    pub async fn disconnected(&mut self) {
        self.first("Disconnected", |input| matches!(input, Input::Disconnected).then_some(())).await;
    }

    /// The next message.
    pub async fn message(&mut self) -> Message {
        let body = |input: &Input| match input {
            Input::Received { packet, .. } => Some(packet.body().clone()),
            _ => None,
        };
        self.first("a message", body).await
    }
}

/// A message of `from` without lines.
pub fn packet(from: Node, body: Message) -> Packet {
    let envelope = Envelope { cluster: None, epoch: Epoch(0), from, body };
    Packet::new(envelope, bytes::Bytes::new())
}
