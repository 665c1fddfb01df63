//! `docs/asyncapi.json`: every subject, who publishes and who subscribes, which messages travel there, and what answers them.
//!
//! Made from the table of topics, the permissions that follow from it, and one sample of each message, so that nothing here
//! can say otherwise than the code. What has no table is written out here once: the words, the register, the service API.
//!
//! AsyncAPI 3.0 describes one application from its own side; here all of an exchange stand in one document, so that an operation
//! is named after who does it: `orderSendsEvents`, `feedReceivesEvents`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::directory::STATS_INBOX;
use crate::documents::pascal;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::message::Envelope;
use crate::samples;
use crate::subjects::{Address, Prefix, Topic, User};
use crate::trace::{NUMBER_HEADER, REQUEST_ID_HEADER, TRACEPARENT_HEADER, TRACES_MAX};

/// Behind these stand journal lines.
const WITH_LINES: [&str; 2] = ["Append", "Chunk"];
/// Behind this one stand bytes of a snapshot.
const WITH_BYTES: &str = "SnapshotPart";
/// What varies in an address, by name, and what it is.
type Parameters<'a> = &'a [(&'a str, &'a str)];

/// Stands for the prefix in an address.
const PREFIX: &str = "{prefix}";

/// The document, for messages with these schemas.
pub(crate) fn document(schemas: &BTreeMap<String, Value>) -> Value {
    let samples: BTreeMap<String, Envelope> = samples::messages().into_iter().map(|it| (name_of(&it), it)).collect();
    let (with_schema, with_sample): (BTreeSet<_>, BTreeSet<_>) = (schemas.keys().collect(), samples.keys().collect());
    assert_eq!(with_schema, with_sample, "every message has one sample, in schemas/src/samples.rs");
    let mut draft = Draft { channels: Map::new(), operations: Map::new(), samples };
    Topic::ALL.iter().for_each(|topic| draft.add_topic(*topic));
    [User::Order, User::Catalog, User::Frontend].into_iter().for_each(|user| draft.add_replies(user));
    draft.add_register();
    draft.add_entries();
    draft.add_service_api();
    let messages: Map<String, Value> =
        schemas.iter().map(|(name, schema)| (name.clone(), message(name, schema))).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Trade-Net on NATS",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!("Every subject of an exchange. A message is one JSON object of at most {MESSAGE_BYTES_MAX} \
                bytes, by the schema in schemas/messages; behind some, after a line feed, stand lines of the journal or bytes of a snapshot. Messages may \
                be lost, doubled, or late. docs/nats.md explains, nats/users.conf permits."),
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "A nats-server 2.12 or newer with JetStream, by the files in nats/.",
                "security": [{"$ref": "#/components/securitySchemes/user"}],
            },
        },
        "channels": draft.channels,
        "operations": draft.operations,
        "components": {
            "messages": messages,
            "messageTraits": {"Traced": {"headers": traced()}},
            "securitySchemes": {
                "user": {"type": "userPassword", "description": "One user a service: nats/users.conf. None with nats/dev.conf."},
            },
        },
    })
}

fn name_of(envelope: &Envelope) -> String {
    let body = serde_json::to_value(&envelope.body).unwrap_or_default();
    let tag = body.as_object().and_then(|fields| fields.keys().next().cloned());
    pascal(&tag.unwrap_or_default())
}

fn message(name: &str, schema: &Value) -> Value {
    let says = schema["description"].as_str().unwrap_or_default();
    let lines = if name == WITH_BYTES {
        " Behind the object, after a line feed, stand the bytes."
    } else if WITH_LINES.contains(&name) {
        " Behind the object, after a line feed, stand journal lines: schemas/journal/Entry.json, each with its line feed."
    } else {
        ""
    };
    json!({
        "name": name,
        "title": name,
        "summary": format!("{says}{lines}"),
        "contentType": "application/json",
        "payload": {"$ref": format!("../schemas/messages/{name}.json")},
        "traits": [{"$ref": "#/components/messageTraits/Traced"}],
    })
}

/// The headers by which requests are followed through all services.
fn traced() -> Value {
    let text = |says: &str| json!({"type": "string", "description": says});
    json!({
        "type": "object",
        "description": format!("Beside messages of requests that somebody follows; up to {TRACES_MAX} of each, in one order."),
        "properties": {
            TRACEPARENT_HEADER: text("W3C Trace Context."),
            REQUEST_ID_HEADER: text("The client's name for its request."),
            NUMBER_HEADER: text("Which part of the message it is about: a request's number, or an entry's sequence number."),
        },
    })
}

/// What is sent that is not Trade-Net's own.
fn foreign(name: &str, summary: &str) -> Value {
    json!({"name": name, "title": name, "summary": summary, "contentType": "application/json"})
}

struct Draft {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    samples: BTreeMap<String, Envelope>,
}

impl Draft {
    fn add_topic(&mut self, topic: Topic) {
        let name = format!("{topic:?}");
        let on_topic = |envelope: &Envelope| Topic::of(&envelope.body) == Some(topic);
        let messages: Vec<String> =
            self.samples.iter().filter(|(_, it)| on_topic(it)).map(|(name, _)| name.clone()).collect();
        assert!(!messages.is_empty(), "no message travels on {name}");
        let (id, parameter) = match topic.address() {
            Address::Replica => ("{replica}", Some(("replica", "A replica's id, 1 to 63."))),
            Address::Catalog => ("{boot}", Some(("boot", "The run of the catalog, 16 hexadecimal digits."))),
            Address::Frontend => ("{boot}", Some(("boot", "The run of the frontend, 16 hexadecimal digits."))),
            Address::All => ("all", None),
        };
        let address = format!("{PREFIX}.{}.{id}", topic.tokens());
        self.add_channel(&name, &address, topic.says(), parameter.as_slice(), &own(&messages));
        for user in topic.speakers() {
            let answered: Vec<_> = messages.iter().flat_map(|name| samples::answers(name)).copied().collect();
            self.add_operation(*user, "send", &name, &messages, &answered);
        }
        for user in topic.listeners() {
            self.add_operation(*user, "receive", &name, &messages, &[]);
        }
    }

    /// Where a service's answers arrive.
    fn add_replies(&mut self, user: User) {
        let asked = |envelope: &Envelope| {
            let topic = Topic::of(&envelope.body).filter(|topic| topic.speakers().contains(&user));
            topic.is_some() && Topic::wants_answer(&envelope.body)
        };
        let requests = self.samples.iter().filter(|(_, it)| asked(it)).map(|(name, _)| name.clone());
        let answers: BTreeSet<String> =
            requests.flat_map(|name| samples::answers(&name)).map(|name| (*name).to_owned()).collect();
        let answers: Vec<String> = answers.into_iter().collect();
        let name = format!("{}Reply", pascal(user.name()));
        let says = format!(
            "Answers to a run of a {}: one token behind its boot names who was asked; large answers of a catch-up stand one token \
             lower, behind `bulk`.",
            user.name()
        );
        let parameters = [
            ("boot", "The run of who asked, 16 hexadecimal digits."),
            (
                "asked",
                "Who was asked: `oN` a replica, `cBOOT` a catalog, `fBOOT` a frontend, `a` everybody; before it `bulk.` or not.",
            ),
        ];
        self.add_channel(
            &name,
            &format!("{PREFIX}.{}.reply.{{boot}}.{{asked}}", user.name()),
            &says,
            &parameters,
            &own(&answers),
        );
        self.add_operation(user, "receive", &name, &answers, &[]);
        for answering in User::ALL.iter().filter(|other| other.answers().contains(&user)) {
            self.add_operation(*answering, "send", &name, &answers, &[]);
        }
    }

    /// The two records in JetStream: Trade-Net's own words on the broker's subjects.
    fn add_register(&mut self) {
        let records = [
            ("Configuration", "configuration", "schemas/register/Configuration.json"),
            ("Floor", "floor", "schemas/register/Floor.json"),
        ];
        for (title, bucket, schema) in records {
            let bucket = format!("{PREFIX}-{bucket}");
            let record = json!({
                "name": title, "title": title, "contentType": "application/json",
                "summary": "The bucket's record. Written with the header Nats-Expected-Last-Subject-Sequence, answered by JetStream.",
                "payload": {"$ref": format!("../{schema}")},
            });
            let whole = [
                (
                    "Written",
                    Prefix::register_written(&bucket),
                    "Writes the record, if it still has the revision that the writer read.",
                    record,
                ),
                (
                    "Read",
                    Prefix::register_read(&bucket),
                    "Reads the record through the leader of its stream: JetStream's STREAM.MSG.GET.",
                    foreign("StreamMessageGet", "{\"last_by_subj\": …}; the broker's own form."),
                ),
                (
                    "Created",
                    Prefix::register_created(&bucket),
                    "Makes the bucket, at the first start only: JetStream's STREAM.CREATE.",
                    foreign(
                        "StreamCreate",
                        "The stream of a key-value bucket with 16 revisions; the broker's own form.",
                    ),
                ),
            ];
            for (what, address, says, message) in whole {
                let name = format!("{title}{what}");
                let messages = vec![(message["name"].as_str().unwrap_or_default().to_owned(), message)];
                self.add_channel(&name, &address, says, &[], &messages);
                let names: Vec<String> = messages.iter().map(|(name, _)| name.clone()).collect();
                let users: &[User] = if what == "Read" {
                    &[User::Order, User::Frontend, User::Operator]
                } else {
                    &[User::Order, User::Operator]
                };
                for user in users {
                    self.add_operation(*user, "send", &name, &names, &[]);
                }
            }
        }
    }

    /// The stream that others read the log from, where there is one.
    fn add_entries(&mut self) {
        use User::{Ledger, Operator, Order};
        const STREAM: &str = "{prefix}-entries";
        /// What it is called, the rest of its subject, what it is for, the message, and who sends it.
        type Row = (&'static str, &'static str, &'static str, &'static str, &'static [User]);
        let rows: [Row; 9] = [
            ("Looked", "STREAM.INFO", "How far the stream is.", "StreamInfo", &[Order, Ledger, Operator]),
            ("Compared", "STREAM.MSG.GET", "Its last entry, to compare.", "StreamMessageGet", &[Order, Operator]),
            ("Created", "STREAM.CREATE", "Makes the stream.", "StreamCreate", &[Order, Operator]),
            ("ConsumerMade", "CONSUMER.CREATE", "Begins to read.", "ConsumerCreate", &[Ledger]),
            ("ConsumerCreated", "CONSUMER.CREATE", "Begins to read, under a name.", "ConsumerCreate", &[Ledger]),
            ("ConsumerLooked", "CONSUMER.INFO", "How far a reader is.", "ConsumerInfo", &[Ledger]),
            ("Read", "CONSUMER.MSG.NEXT", "Reads on.", "ConsumerNext", &[Ledger]),
            ("ConsumerDeleted", "CONSUMER.DELETE", "Ends to read.", "ConsumerDelete", &[Ledger]),
            (
                "Acknowledged",
                "ACK",
                "An entry was taken over; JetStream keeps the reader's place.",
                "ConsumerAck",
                &[Ledger],
            ),
        ];
        let entry = json!({
            "name": "Entry", "title": "Entry", "contentType": "application/json",
            "summary": "One entry of the log. Nats-Msg-Id is its number, and Nats-Expected-Last-Sequence the one before, so that message N of \
                the stream is entry N, whoever publishes.",
            "payload": {"$ref": "../schemas/journal/Entry.json"},
        });
        let says = "The log, handed out to a stream for others to read (--feed-stream).";
        let name = "Entries";
        self.add_channel(name, &format!("{PREFIX}.feed.entries.all"), says, &[], &[("Entry".to_owned(), entry)]);
        self.add_operation(Order, "send", name, &["Entry".to_owned()], &[]);
        for (what, verb, says, message, users) in rows {
            let name = format!("Entries{what}");
            let api = if verb == "ACK" { "$JS" } else { "$JS.API" };
            let named = users == [Ledger] && what != "ConsumerMade";
            let address = format!("{api}.{verb}.{STREAM}{}", if named { ".{consumer}" } else { "" });
            let consumer = [("consumer", "The name of a consumer, and behind it what JetStream adds.")];
            let parameters: Parameters<'_> = if named { &consumer } else { &[] };
            let says = format!("{says} JetStream's {verb}.");
            let messages = [message.to_owned()];
            let forms = [(message.to_owned(), foreign(message, "The broker's own form."))];
            self.add_channel(&name, &address, &says, parameters, &forms);
            for user in users {
                self.add_operation(*user, "send", &name, &messages, &[]);
            }
        }
    }

    /// `$SRV`, by the NATS service API (ADR-32), and where its answers arrive.
    fn add_service_api(&mut self) {
        let name_is = ("service", "`tradenet-order`, `tradenet-catalog` or `tradenet-frontend`.");
        let verb_is = ("verb", "`PING`, `INFO` or `STATS`.");
        let boot_is = ("boot", "The run of the service, which is its id in the service API.");
        let forms: [(&str, &str, Parameters<'_>); 3] = [
            ("ServiceApi", "$SRV.{verb}", &[verb_is]),
            ("ServiceApiByName", "$SRV.{verb}.{service}", &[verb_is, name_is]),
            ("ServiceApiById", "$SRV.{verb}.{service}.{boot}", &[verb_is, name_is, boot_is]),
        ];
        let request = vec![("ServiceRequest".to_owned(), foreign("ServiceRequest", "Empty."))];
        let answer = vec![(
            "ServiceAnswer".to_owned(),
            foreign(
                "ServiceAnswer",
                "By the service API's own schemas (io.nats.micro.v1). STATS has besides `metadata`, and `standing`: what the \
                 service shows without labels, by the names of `/metrics`.",
            ),
        )];
        for (name, address, parameters) in forms {
            self.add_channel(
                name,
                address,
                "Who is there, and what came in: `nats micro ls`, `info`, `stats`.",
                parameters,
                &request,
            );
            for user in User::ALL.iter().filter(|user| user.is_service()) {
                self.add_operation(*user, "receive", name, &["ServiceRequest".to_owned()], &[]);
            }
            self.add_operation(User::Operator, "send", name, &["ServiceRequest".to_owned()], &[]);
        }
        self.add_operation(User::Frontend, "send", "ServiceApi", &["ServiceRequest".to_owned()], &[]);
        self.add_operation(User::Load, "send", "ServiceApiByName", &["ServiceRequest".to_owned()], &[]);
        self.add_operation(User::Catalog, "send", "ServiceApiByName", &["ServiceRequest".to_owned()], &[]);
        let parameters = [
            ("user", "Who asked: `order`, `catalog`, `frontend`, `operator`, `load`, `ledger`."),
            ("id", "Made up by the client."),
        ];
        let says = "Answers of the service API and of JetStream, below the name of the user who asked.";
        self.add_channel("Inbox", "_INBOX.{user}.{id}", says, &parameters, &answer);
        let says = "Answers to a frontend that has asked how everybody stands (`$SRV.STATS`).";
        let address = format!("_INBOX.{}.{STATS_INBOX}.{{id}}", User::Frontend.name());
        self.add_channel("StandingInbox", &address, says, &[("id", "Made up by the client.")], &answer);
        for user in User::ALL.iter().filter(|user| user.is_service()) {
            self.add_operation(*user, "send", "Inbox", &["ServiceAnswer".to_owned()], &[]);
            self.add_operation(*user, "send", "StandingInbox", &["ServiceAnswer".to_owned()], &[]);
        }
        self.add_operation(User::Frontend, "receive", "StandingInbox", &["ServiceAnswer".to_owned()], &[]);
        for user in User::ALL.iter().filter(|user| **user != User::Feed) {
            self.add_operation(*user, "receive", "Inbox", &["ServiceAnswer".to_owned()], &[]);
        }
    }

    fn add_channel(
        &mut self,
        name: &str,
        address: &str,
        says: &str,
        parameters: &[(&str, &str)],
        messages: &[(String, Value)],
    ) {
        let mut all: Map<String, Value> =
            parameters.iter().map(|(name, says)| ((*name).to_owned(), json!({"description": says}))).collect();
        if address.contains(PREFIX) {
            all.insert(
                "prefix".to_owned(),
                json!({"default": "tradenet", "description": "The exchange's prefix (TRADENET_PREFIX)."}),
            );
        }
        let messages: Map<String, Value> = messages.iter().cloned().collect();
        let mut channel = json!({"address": address, "description": says, "messages": messages});
        if !all.is_empty() {
            channel["parameters"] = Value::Object(all);
        }
        self.channels.insert(name.to_owned(), channel);
    }

    fn add_operation(&mut self, user: User, action: &str, channel: &str, messages: &[String], answers: &[&str]) {
        let of = |channel: &str, name: &str| json!({"$ref": format!("#/channels/{channel}/messages/{name}")});
        let verb = if action == "send" { "Sends" } else { "Receives" };
        let mut operation = json!({
            "action": action,
            "channel": {"$ref": format!("#/channels/{channel}")},
            "messages": messages.iter().map(|name| of(channel, name)).collect::<Vec<_>>(),
            "tags": [{"name": user.name()}],
        });
        if !answers.is_empty() && user.is_service() {
            let channel = format!("{}Reply", pascal(user.name()));
            let answers: BTreeSet<_> = answers.iter().collect();
            operation["reply"] = json!({
                "channel": {"$ref": format!("#/channels/{channel}")},
                "messages": answers.into_iter().map(|name| of(&channel, name)).collect::<Vec<_>>(),
            });
        }
        self.operations.insert(format!("{}{verb}{channel}", user.name()), operation);
    }
}

/// Messages of Trade-Net's own, by name.
fn own(names: &[String]) -> Vec<(String, Value)> {
    names.iter().map(|name| (name.clone(), json!({"$ref": format!("#/components/messages/{name}")}))).collect()
}
