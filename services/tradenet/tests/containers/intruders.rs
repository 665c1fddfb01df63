//! Who gets onto the network, and who takes a frontend over.
//!
//! An intruder speaks the broker's protocol as plain text through a shell: no client of ours stands between what it tries
//! and what the broker says.

use serde_json::{Value, json};

use crate::engine::{Exchange, Image, docker, output, run};

/// What a frontend's user must not publish, and what it must not hear.
const FORBIDDEN: [&str; 11] = [
    "PUB tradenet.order.replicate.all 0",
    "PUB tradenet.order.fetch.1 0",
    "PUB tradenet.order.ack.3 0",
    "PUB tradenet.order.announce.all 0",
    "PUB tradenet.order.reply.1.o3 0",
    "PUB tradenet.order.authority.3 0",
    "PUB $KV.tradenet-configuration.current 0",
    "PUB $KV.tradenet-floor.current 0",
    "PUB $JS.API.STREAM.DELETE.KV_tradenet-configuration 0",
    "PUB $JS.API.STREAM.PURGE.KV_tradenet-configuration 0",
    "PUB $JS.API.STREAM.UPDATE.KV_tradenet-configuration 0",
];
const UNHEARD: [&str; 3] = ["SUB tradenet.order.replicate.all 9", "SUB tradenet.> 9", "SUB _INBOX.order.> 9"];

/// Far above what a service takes to find out that it may not do its work, in seconds.
const SERVICE_LIMIT_S: &str = "60";

/// What the broker says to `lines`, from a container on the exchange's network.
#[track_caller]
fn speak(exchange: &Exchange, image: &Image, login: &Value, lines: &str) -> String {
    let script = "exec 3<>/dev/tcp/nats/4222; printf '%s' \"$SPOKEN\" >&3; timeout 3 cat <&3; true";
    let spoken = format!("SPOKEN=CONNECT {login}\r\n{lines}PING\r\n");
    let mut container =
        docker(&["run", "--rm", "--network", &exchange.network(), "--entrypoint", "bash", "--env", &spoken]);
    run(container.args([&image.name, "-c", script]))
}

fn frontend() -> Value {
    json!({"verbose": false, "pedantic": false, "headers": true, "no_responders": true,
           "user": "frontend", "pass": "frontend-change-me"})
}

/// A message on a subject, with a reply subject.
fn publish(subject: &str, reply: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len())
}

pub(crate) fn nothing_to_gain(image: &Image) {
    let exchange = Exchange::up(image);
    let before = exchange.trade(1);
    assert!(before.ok(), "{before}");

    let stranger = speak(&exchange, image, &json!({"verbose": false}), "SUB tradenet.> 9\r\n");
    assert!(stranger.contains("Authorization Violation") && !stranger.contains("PONG"), "{stranger}");
    let guess = json!({"user": "frontend", "pass": "guess"});
    let stranger = speak(&exchange, image, &guess, "");
    assert!(stranger.contains("Authorization Violation") && !stranger.contains("PONG"), "{stranger}");

    let tried = FORBIDDEN.iter().map(|line| format!("{line}\r\n\r\n")).chain(UNHEARD.map(|line| format!("{line}\r\n")));
    let said = speak(&exchange, image, &frontend(), &tried.collect::<String>());
    assert_eq!(said.matches("Permissions Violation").count(), FORBIDDEN.len() + UNHEARD.len(), "{said}");

    a_forged_proposal_is_refused(&exchange, image);
    nobody_answers_where_it_may_not(&exchange, image);
    exchange.until_whole();
    exchange.buy();
    exchange.stop_and_verify(image);
}

/// With the frontend's credentials: order-1 is to lead in place of order-3, which serves.
fn a_forged_proposal_is_refused(exchange: &Exchange, image: &Image) {
    let status = |id: u8| {
        let heartbeat = json!({"epoch": 0, "from": {"frontend": "0000000000000001"}, "body": {"heartbeat": {}}});
        let ask = format!(
            "SUB tradenet.frontend.reply.> 1\r\n{}",
            publish(&format!("tradenet.order.heartbeat.{id}"), "tradenet.frontend.reply.1.o1", &heartbeat)
        );
        message(&speak(exchange, image, &frontend(), &ask), "status")
    };
    let own = status(1);
    let mut record = own["configuration"].clone();
    let epoch = record["epoch"].as_u64().unwrap();
    record["epoch"] = json!(epoch + 1);
    record["leader"] = json!({"id": own["id"], "boot": own["boot"]});
    let stranger = json!({"frontend": "0000000000000001"});
    // Every revision that the register may have.
    for expected in 1..=epoch {
        record["nonce"] = json!(format!("{expected:016x}"));
        let body = json!({"cluster": record["cluster"], "epoch": epoch, "from": stranger,
                          "body": {"propose": {"configuration": record, "expected": expected}}});
        let ask = format!(
            "SUB tradenet.frontend.reply.> 1\r\n{}",
            publish("tradenet.order.propose.1", "tradenet.frontend.reply.1.o1", &body)
        );
        let verdict = message(&speak(exchange, image, &frontend(), &ask), "proposed")["verdict"].clone();
        assert_ne!(verdict, "written", "revision {expected}");
        assert!(verdict == "conflict" || verdict["refused"].is_string(), "{verdict}");
    }
    assert_eq!(status(1)["configuration"]["epoch"], epoch, "nothing has changed");
}

/// A replica asked to answer into the register, or to the log's subject, does not.
fn nobody_answers_where_it_may_not(exchange: &Exchange, image: &Image) {
    let heartbeat = json!({"epoch": 0, "from": {"frontend": "0000000000000001"}, "body": {"heartbeat": {}}});
    for detour in ["$KV.tradenet-configuration.current", "tradenet.order.replicate.all"] {
        speak(exchange, image, &frontend(), &publish("tradenet.order.heartbeat.1", detour, &heartbeat));
    }
    assert!(exchange.log("order-1").contains("where no answers belong"), "order-1 says so");
}

/// The body of that kind among what the broker delivered.
#[track_caller]
fn message(said: &str, kind: &str) -> Value {
    let bodies = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = bodies.filter_map(|message| message["body"].get(kind).cloned()).next();
    found.unwrap_or_else(|| panic!("no {kind} in {said}"))
}

pub(crate) fn a_missing_permission(image: &Image) {
    let exchange = Exchange::prepare(image, "compose.yaml", |text| text);
    let users = exchange.path("nats/users.conf");
    let whole = std::fs::read_to_string(&users).unwrap();
    // In the first list of the file: what a replica may publish.
    let text = whole.replacen("\"tradenet.order.fetch.*\",", "", 1);
    assert_ne!(text, whole, "the permission stands elsewhere by now");
    std::fs::write(&users, text).unwrap();
    exchange.compose(&["up", "--detach", "--no-build", "nats"]);
    let ended = output(&mut docker(&[
        "run",
        "--rm",
        "--network",
        &exchange.network(),
        "--env",
        "NATS_USER=order",
        "--env",
        "NATS_PASSWORD=order-change-me",
        "--env",
        "NATS_URL=nats://nats:4222",
        // One that runs on is ended, with a status of its own.
        "--entrypoint",
        "timeout",
        &image.name,
        SERVICE_LIMIT_S,
        "tradenet",
        "order",
        "--id",
        "1",
    ]));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("tradenet.order.fetch.probe") && last.contains("nats/users.conf"), "{said}");
}
