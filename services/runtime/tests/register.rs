//! The register against a real JetStream: that a write happens only over the revision it names, and that what is not known
//! is said to be unknown.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use async_nats::jetstream;
use support::{PATIENCE, Server};
use tokio::time::Instant;
use tradenet_core::{RegisterAnswer, RegisterRequest, Revision, Slot};
use tradenet_runtime::process::Signal;
use tradenet_runtime::register::Register;
use tradenet_schemas::ids::{Boot, ClusterId, Epoch, Leader, Node, Nonce, ReplicaId};
use tradenet_schemas::message::{Configuration, Floor};

fn configuration(epoch: u64) -> Box<Configuration> {
    let id = ReplicaId::new(1).unwrap();
    Box::new(Configuration {
        cluster: ClusterId(1),
        epoch: Epoch(epoch),
        nonce: Nonce(epoch),
        leader: Leader { id, boot: Boot(7) },
        in_sync: Vec::new(),
        members: vec![id],
        follows: Vec::new(),
        by: Node::Frontend(Boot(9)),
        why: "test".to_owned(),
        at: 0,
    })
}

/// What came of a write, without its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Written,
    Conflict,
    Unknown,
}

async fn perform(register: &Register, request: RegisterRequest) -> Came {
    match register.perform(request).await {
        RegisterAnswer::Written { ticket: 1 } => Came::Written,
        RegisterAnswer::Conflict { ticket: 1 } => Came::Conflict,
        RegisterAnswer::Unknown { ticket: 1, .. } => Came::Unknown,
        answer => panic!("{answer:?}"),
    }
}

async fn write(register: &Register, epoch: u64, expected: Option<Revision>) -> Came {
    let configuration = configuration(epoch);
    perform(register, RegisterRequest::Write { ticket: 1, configuration, expected }).await
}

async fn floor(register: &Register, floor: u64, expected: Option<Revision>) -> Came {
    perform(register, RegisterRequest::Floor { ticket: 1, floor: configuration(floor), expected }).await
}

async fn read(register: &Register) -> (Slot<Configuration>, Slot<Floor>) {
    match register.perform(RegisterRequest::Read { ticket: 2 }).await {
        RegisterAnswer::Read { ticket: 2, configuration, floor } => (configuration, floor),
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn a_record_is_written_only_over_the_revision_that_is_named() {
    let server = Server::start().await;
    let register = Register::new(&server.connect().await, PATIENCE);
    assert_eq!(read(&register).await, (Slot::BucketMissing, Slot::BucketMissing));
    assert_eq!(write(&register, 1, Some(1)).await, Came::Unknown, "only a first write makes a bucket");
    assert_eq!(read(&register).await.0, Slot::BucketMissing);

    assert_eq!(write(&register, 1, None).await, Came::Written);
    assert_eq!(write(&register, 2, None).await, Came::Conflict);
    let (slot, other) = read(&register).await;
    assert_eq!(slot.value(), Some(&*configuration(1)));
    assert_eq!(other, Slot::BucketMissing);
    let revision = slot.revision().unwrap();
    assert_eq!(write(&register, 2, Some(revision + 1)).await, Came::Conflict);
    assert_eq!(write(&register, 2, Some(revision)).await, Came::Written);
    assert_eq!(write(&register, 3, Some(revision)).await, Came::Conflict);
    assert_eq!(read(&register).await.0.value(), Some(&*configuration(2)));

    assert_eq!(floor(&register, 5, None).await, Came::Written);
    assert_eq!(floor(&register, 6, None).await, Came::Conflict);
    let revision = read(&register).await.1.revision().unwrap();
    assert_eq!(floor(&register, 6, Some(revision)).await, Came::Written);
    assert_eq!(read(&register).await.1.value(), Some(&Floor::Record(configuration(6))));
}

#[tokio::test]
async fn of_many_that_write_first_one_wins() {
    let server = Server::start().await;
    let register = Register::new(&server.connect().await, PATIENCE);
    let writers = (1..=8).map(|epoch| {
        let register = register.clone();
        tokio::spawn(async move { write(&register, epoch, None).await })
    });
    let mut came = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        came.push(writer.await.unwrap());
    }
    assert_eq!(came.iter().filter(|&&came| came == Came::Written).count(), 1, "{came:?}");
    assert_eq!(came.iter().filter(|&&came| came == Came::Conflict).count(), 7, "{came:?}");
}

#[tokio::test]
async fn what_an_operator_did_by_hand_is_seen_as_it_is() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let register = Register::new(&broker, PATIENCE);
    assert_eq!(write(&register, 1, None).await, Came::Written);
    let jetstream = jetstream::new(server.client().await);
    let bucket = jetstream.get_key_value(broker.prefix.configuration_bucket()).await.unwrap();
    assert!(bucket.get("current").await.unwrap().is_some(), "people can look at it with their own tools");

    bucket.put("current", "{\"epoch\": 1".into()).await.unwrap();
    let slot = read(&register).await.0;
    assert!(matches!(&slot, Slot::Unreadable { why, .. } if why.contains("revision 2")), "{slot:?}");
    assert_eq!(write(&register, 2, None).await, Came::Conflict, "what can't be read is there all the same");

    bucket.delete("current").await.unwrap();
    assert_eq!(read(&register).await.0, Slot::KeyMissing);
    assert_eq!(write(&register, 3, None).await, Came::Written);
    assert_eq!(read(&register).await.0.value(), Some(&*configuration(3)));

    jetstream.delete_key_value(broker.prefix.configuration_bucket()).await.unwrap();
    assert_eq!(read(&register).await.0, Slot::BucketMissing);
}

#[tokio::test]
async fn without_an_answer_in_time_the_outcome_is_unknown() {
    let mut server = Server::start().await;
    let limit = Duration::from_millis(300);
    let register = Register::new(&server.connect().await, limit);
    let patient = Register::new(&server.connect().await, PATIENCE);
    assert_eq!(write(&patient, 1, None).await, Came::Written);

    server.process.signal(Signal::Pause).unwrap();
    let began = Instant::now();
    assert_eq!(write(&register, 2, Some(1)).await, Came::Unknown);
    let answer = register.perform(RegisterRequest::Read { ticket: 1 }).await;
    assert!(matches!(answer, RegisterAnswer::Unknown { .. }), "{answer:?}");
    assert!(began.elapsed() < limit * 10, "{:?}", began.elapsed());
    server.process.signal(Signal::Resume).unwrap();
    server.process.kill().await.unwrap();
    assert_eq!(write(&register, 2, Some(1)).await, Came::Unknown);
}
