//! Where requests wait for the core's answers.
//!
//! HTTP handlers are many tasks; the core is one state machine in the hands of the driver. A handler that must ask hands
//! its request over a bounded channel and waits; the driver brings the answer back by ticket. What the cache knows needs
//! none of that: [`Desk::cached`] looks at the core itself, so a cached look-up costs a lock and no task switch.
//!
//! The rules: a wait always ends (answer, deadline, or the client has gone, of which the core is told); the number of
//! waits is bounded; what the core answered is not reinterpreted here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep;
use tradenet_core::frontend::Frontend;
use tradenet_core::metrics::Readings;
use tradenet_core::{ClientAnswer, ClientRequest, Decider, Input, Mono, Now, Output, Ticket};
use tradenet_schemas::rest::Cluster;
use tradenet_schemas::rest::feed::Leadership;
use tradenet_schemas::trade::{Stock, Symbol};

use crate::following;
use crate::limits::REQUESTS_UNDER_WAY_MAX;
use crate::waits::{ROUND, Waits};
use tradenet_runtime::clock::Clock;

/// What one request hands to the core at most: its trace, itself, and the news that its client has gone.
const INPUTS_PER_REQUEST: usize = 3;

/// Locks what no one can have left half-changed: nothing that runs under these locks awaits, and a panic ends the process.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The core, shared between the driver, which runs it, and the handlers, which read from it.
///
/// A lock needs a reason. This one's is the cached look-up: sent through the driver, it would cost two task switches and
/// be several times as slow as the HTTP around it. The service runs on one thread and nobody awaits under the lock, so it
/// is never contended.
#[derive(Clone)]
pub(crate) struct Shared {
    core: Arc<Mutex<Frontend>>,
    /// Who leads, for those who watch it.
    leadership: watch::Sender<Leadership>,
}

impl Shared {
    pub(crate) fn new(core: Frontend) -> Self {
        Self { core: Arc::new(Mutex::new(core)), leadership: watch::Sender::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Frontend> {
        lock(&self.core)
    }

    /// Tells of a new leader or in-sync set, if anybody watches.
    fn look_at_leadership(&self, now: Now) {
        if self.leadership.receiver_count() == 0 {
            return;
        }
        let seen = self.lock().leadership(now);
        self.leadership.send_if_modified(|known| {
            let news = *known != seen;
            *known = seen;
            news
        });
    }
}

impl Decider for Shared {
    fn handle(&mut self, now: Now, input: Input) {
        self.lock().handle(now, input);
        self.look_at_leadership(now);
    }
    fn poll_output(&mut self) -> Option<Output> {
        self.lock().poll_output()
    }
    fn poll_timeout(&self) -> Option<Mono> {
        self.lock().poll_timeout()
    }
    fn observe(&self, now: Now, readings: &mut Readings) {
        self.lock().observe(now, readings);
    }
}

/// The request was not taken; nothing was done and nothing will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// As many requests as may wait are waiting.
    Overloaded,
    /// The driver has stopped, so the process is about to end.
    Stopped,
}

impl From<mpsc::error::TrySendError<Input>> for NotTaken {
    fn from(error: mpsc::error::TrySendError<Input>) -> Self {
        match error {
            mpsc::error::TrySendError::Full(_) => Self::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Self::Stopped,
        }
    }
}

/// Takes requests of handlers, and answers of the driver.
pub(crate) struct Desk {
    core: Shared,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    waits: Mutex<Waits>,
    /// A wait has begun where there was none.
    wait_begun: Notify,
    leaving: watch::Sender<bool>,
}

impl Desk {
    /// A desk before `core`, and the inputs that its driver is to feed to it. `answer_within` is how long an answer is waited
    /// for, and is longer than the core's own deadline; [`Desk::end_long_waits`] sees to it.
    pub(crate) fn new(core: Shared, clock: Clock, answer_within: Duration) -> (Arc<Self>, mpsc::Receiver<Input>) {
        let (inputs, receiver) = mpsc::channel(INPUTS_PER_REQUEST * REQUESTS_UNDER_WAY_MAX);
        let leaving = watch::Sender::new(false);
        let waits = Mutex::new(Waits::new(answer_within));
        let desk = Self { core, clock, inputs, waits, wait_begun: Notify::new(), leaving };
        (Arc::new(desk), receiver)
    }

    /// The stock, if the cache has it and may serve it at this moment. Counts as a hit.
    pub(crate) fn cached(&self, symbol: &Symbol) -> Option<Stock> {
        self.core.lock().cached(self.clock.now(), symbol)
    }

    /// The exchange as this frontend sees it.
    pub(crate) fn cluster(&self) -> Cluster {
        self.core.lock().cluster(self.clock.now())
    }

    /// Whether trades can be served, and why not.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if *self.leaving.borrow() {
            return Err("this frontend is leaving: use another one".to_owned());
        }
        self.core.lock().ready(self.clock.now())
    }

    /// How many requests wait for the core.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.waits).len()
    }

    /// From now on this frontend is not ready, so that load balancers turn away from it while it finishes.
    pub(crate) fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Whether this frontend is to leave, for those who have to end by then.
    pub(crate) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// Who leads and who is in sync, now and whenever that changes.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        let receiver = self.core.leadership.subscribe();
        self.core.look_at_leadership(self.clock.now());
        receiver
    }

    /// Asks the core and waits for its answer.
    ///
    /// Without an answer in time the outcome of a command is unknown, and a read is unavailable. Dropping the future tells
    /// the core that the client has gone.
    ///
    /// # Errors
    /// The request was not taken at all.
    pub(crate) async fn ask(&self, request: ClientRequest) -> Result<ClientAnswer, NotTaken> {
        let silence = match &request {
            ClientRequest::Command(..) => ClientAnswer::Unknown,
            _ => ClientAnswer::Unavailable("no answer in time; try again".to_owned()),
        };
        let (place, answer) = self.queue(request)?;
        let answer = answer.await;
        drop(place);
        Ok(answer.unwrap_or(silence))
    }

    fn queue(&self, request: ClientRequest) -> Result<(Place<'_>, oneshot::Receiver<ClientAnswer>), NotTaken> {
        let mut waits = lock(&self.waits);
        let ticket = waits.next_ticket().ok_or(NotTaken::Overloaded)?;
        if let Some(trace) = following::current() {
            self.inputs.try_send(Input::Trace(ticket, trace))?;
        }
        self.inputs.try_send(Input::Client(ticket, request))?;
        let (client, answer) = oneshot::channel();
        waits.begin(ticket, client, Instant::now());
        if waits.len() == 1 {
            self.wait_begun.notify_one();
        }
        Ok((Place { desk: self, ticket }, answer))
    }

    /// Hands over an answer. One for a client that has gone is dropped.
    pub(crate) fn answer(&self, ticket: Ticket, answer: ClientAnswer) {
        if let Some(client) = lock(&self.waits).end(ticket) {
            // It may have gone in this moment; then nobody wants to know.
            let _ = client.send(answer);
        }
    }

    /// Ends waits that have lasted too long, for as long as there is a desk. A frontend that nobody asks is not woken by it.
    pub(crate) async fn end_long_waits(self: Arc<Self>) {
        loop {
            self.wait_begun.notified().await;
            while self.waiting() > 0 {
                sleep(ROUND).await;
                let late = lock(&self.waits).end_late(Instant::now());
                late.into_iter().for_each(|ticket| self.tell_gone(ticket));
            }
        }
    }

    /// Tells the core that nobody waits for that answer any more.
    fn tell_gone(&self, ticket: Ticket) {
        // Lost only when the channel is full; then the core works to its deadline for nobody, which harms nobody.
        let _ = self.inputs.try_send(Input::ClientGone(ticket));
    }
}

/// A request's place among those that wait, given up when it is dropped.
struct Place<'a> {
    desk: &'a Desk,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if lock(&self.desk.waits).end(self.ticket).is_some() {
            self.desk.tell_gone(self.ticket);
        }
    }
}
