//! Nothing drifts: the schemas and the AsyncAPI document are what the code says, and what the code says is in them.
//!
//! `TRADENET_BLESS=1 cargo test -p tradenet-schemas --test documents` writes them anew.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jsonschema::Validator;
use serde_json::{Value, json};
use tradenet_core::{Packet, journal};
use tradenet_schemas::documents::{self, DIRECTORIES};
use tradenet_schemas::ids::Position;
use tradenet_schemas::samples;
use tradenet_schemas::subjects::{Prefix, Topic, User};

const BLESS: &str = "TRADENET_BLESS=1 cargo test -p tradenet-schemas --test documents";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn name_of(message: &Value) -> String {
    let tag = message["body"].as_object().unwrap().keys().next().unwrap();
    tag.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// The schemas as they are committed, by path.
fn validator(path: &str) -> Validator {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let schema: Value = serde_json::from_str(&text).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{path}: {error}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

fn messages() -> BTreeMap<String, Validator> {
    let names = documents::messages();
    names.into_keys().map(|name| (name.clone(), validator(&format!("schemas/messages/{name}.json")))).collect()
}

#[test]
fn committed_documents_are_what_the_code_says() {
    let (wanted, root) = (documents::all(), root());
    let bless = std::env::var_os("TRADENET_BLESS").is_some();
    let files = DIRECTORIES.iter().flat_map(|directory| {
        let files = std::fs::read_dir(root.join(directory)).into_iter().flatten();
        files.map(move |file| format!("{directory}/{}", file.unwrap().file_name().to_string_lossy()))
    });
    let stale: Vec<String> = files.filter(|path| !wanted.contains_key(path)).collect();
    if bless {
        for path in &stale {
            std::fs::remove_file(root.join(path)).unwrap();
        }
        for (path, text) in &wanted {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), text).unwrap();
        }
        return;
    }
    let drifted =
        wanted.iter().filter(|(path, text)| std::fs::read_to_string(root.join(path)).ok().as_ref() != Some(text));
    let drifted: Vec<_> = drifted.map(|(path, _)| path).collect();
    assert!(
        drifted.is_empty() && stale.is_empty(),
        "not as the code says: {drifted:?}; of nothing: {stale:?}. Run: {BLESS}"
    );
}

#[test]
fn every_message_is_accepted_by_its_schema_and_by_no_other() {
    let schemas = messages();
    let sent: Vec<Value> = samples::messages().iter().map(|message| serde_json::to_value(message).unwrap()).collect();
    assert_eq!(sent.iter().map(name_of).collect::<BTreeSet<_>>(), schemas.keys().cloned().collect::<BTreeSet<_>>());
    for message in &sent {
        for (name, schema) in &schemas {
            let expected = *name == name_of(message);
            assert_eq!(schema.is_valid(message), expected, "{name}: {message}: {:?}", schema.validate(message));
        }
    }
}

/// Every value in a message, by the path to it.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| places(value, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn schema_and_decoder_agree_on_messages_with_anything_in_any_place() {
    let schemas = messages();
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(64),
        json!(1.5),
        json!(9_007_199_254_740_992_u64),
        json!(""),
        json!("x"),
        json!("000000000000002a"),
        json!("000000000000002A"),
        json!("a.b"),
        json!("leader"),
        json!([]),
        json!([1]),
        json!({}),
        json!({"buy": 1}),
    ];
    let (mut accepted, mut refused) = (0, 0);
    for message in samples::messages() {
        let message = serde_json::to_value(message).unwrap();
        let schema = &schemas[&name_of(&message)];
        let mut found = Vec::new();
        places(&message, "", &mut found);
        // The body's own tag says which schema it is.
        for place in found.iter().filter(|place| !place.is_empty() && *place != "/body") {
            let mut variants: Vec<Value> = odd
                .iter()
                .map(|odd| {
                    let mut changed = message.clone();
                    *changed.pointer_mut(place).unwrap() = odd.clone();
                    changed
                })
                .collect();
            let (parent, name) = place.rsplit_once('/').unwrap();
            let mut missing = message.clone();
            if let Some(fields) = missing.pointer_mut(parent).unwrap().as_object_mut() {
                fields.remove(name);
                variants.push(missing);
            }
            for changed in variants {
                let read = Packet::decode(&Bytes::from(changed.to_string()));
                let valid = schema.is_valid(&changed);
                // serde also reads an object from a list of its fields' values; nobody writes it so, and no schema says it.
                let as_list = read.is_ok() && changed.pointer(place).is_some_and(Value::is_array);
                let why = schema.validate(&changed);
                assert!(valid == read.is_ok() || as_list, "{place} in {changed}: {read:?}, {why:?}");
                if valid { accepted += 1 } else { refused += 1 }
            }
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 500 && refused > 2_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn journal_lines_are_accepted_by_their_schema() {
    let schema = validator("schemas/journal/Entry.json");
    let golden = root().join("services/core/tests/golden");
    let files = std::fs::read_dir(golden).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let mut lines = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            assert!(schema.is_valid(&entry), "{line}: {:?}", schema.validate(&entry));
            for (field, value) in [("chain", json!("x")), ("seq", json!(-1)), ("more", json!(1)), ("events", json!({}))]
            {
                let mut changed = entry.clone();
                changed[field] = value;
                assert!(!schema.is_valid(&changed), "{changed}");
            }
            lines += 1;
        }
        assert!(journal::scan(text.as_bytes(), Position::default()).all(|line| line.is_ok()));
    }
    assert!(lines > 10, "{lines} lines");
}

#[test]
fn bounds_stand_in_the_schemas() {
    use tradenet_schemas::limits::{PRICE_CENTS_MAX, QUANTITY_MAX, REPLICA_ID_MAX, SUBMISSIONS_PER_MESSAGE_MAX};
    let all = documents::all();
    let check = |path: &str, pointer: &str, expected: Value| {
        let schema: Value = serde_json::from_str(&all[path]).unwrap();
        assert_eq!(schema.pointer(pointer), Some(&expected), "{path} {pointer}");
    };
    check(
        "schemas/messages/Submit.json",
        "/properties/body/properties/submit/maxItems",
        json!(SUBMISSIONS_PER_MESSAGE_MAX),
    );
    check("schemas/feed/PublicEvent.json", "/$defs/Price/maximum", json!(PRICE_CENTS_MAX));
    check("schemas/journal/Entry.json", "/$defs/Quantity/maximum", json!(QUANTITY_MAX));
    check("schemas/register/Configuration.json", "/$defs/ReplicaId/maximum", json!(REPLICA_ID_MAX));
}

// ---------------------------------------------------------------- AsyncAPI

fn asyncapi() -> Value {
    serde_json::from_str(&documents::all()["docs/asyncapi.json"]).unwrap()
}

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match (name.as_str(), value) {
            ("$ref", Value::String(target)) => found.push(target.clone()),
            (_, value) => references(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_asyncapi_document_has_the_form_of_version_3() {
    let document = asyncapi();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let within = |value: &Value, allowed: &[&str], required: &[&str], what: &str| {
        let found = keys(value);
        assert!(found.iter().all(|key| allowed.contains(&key.as_str())), "{what} has {found:?}");
        assert!(required.iter().all(|key| found.contains(*key)), "{what} has only {found:?}");
    };
    let top = ["asyncapi", "info", "servers", "defaultContentType", "channels", "operations", "components"];
    within(&document, &top, &["asyncapi", "info"], "the document");
    assert_eq!(document["asyncapi"], "3.0.0");
    within(&document["info"], &["title", "version", "description", "license"], &["title", "version"], "info");
    within(
        &document["servers"]["broker"],
        &["host", "protocol", "description", "security"],
        &["host", "protocol"],
        "a server",
    );
    for (name, channel) in document["channels"].as_object().unwrap() {
        within(channel, &["address", "description", "messages", "parameters"], &["address", "messages"], name);
        let address = channel["address"].as_str().unwrap();
        let in_address: BTreeSet<_> =
            address.split('{').skip(1).map(|part| part.split_once('}').unwrap().0.to_owned()).collect();
        let described = channel.get("parameters").map(keys).unwrap_or_default();
        assert_eq!(in_address, described, "{name}");
        for parameter in channel.get("parameters").and_then(Value::as_object).into_iter().flatten() {
            within(parameter.1, &["description", "default", "enum", "examples", "location"], &[], name);
        }
    }
    for (name, operation) in document["operations"].as_object().unwrap() {
        within(operation, &["action", "channel", "messages", "reply", "tags"], &["action", "channel"], name);
        assert!(["send", "receive"].contains(&operation["action"].as_str().unwrap()), "{name}");
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        let own = |reference: &Value| reference["$ref"].as_str().unwrap().starts_with(&format!("{channel}/messages/"));
        assert!(operation["messages"].as_array().unwrap().iter().all(own), "{name}: messages are those of its channel");
    }
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        within(message, &["name", "title", "summary", "contentType", "payload", "traits"], &["payload"], name);
    }
    let mut all = Vec::new();
    references(&document, &mut all);
    for target in all {
        let found = match target.strip_prefix('#') {
            Some(pointer) => document.pointer(pointer).is_some(),
            None => root().join("docs").join(&target).is_file(),
        };
        assert!(found, "{target} leads nowhere");
    }
}

/// A subject or permission as a list of tokens in which everything that varies is `*`; what ends with `>` has any tail.
fn shape(subject: &str) -> Vec<String> {
    let varies = |token: &str| token.contains('{') && !token.starts_with("{prefix}-");
    let token = |token: &str| match token {
        "{prefix}" => "tradenet".to_owned(),
        token if varies(token) && !token.contains("{prefix}") => "*".to_owned(),
        token => token.replace("{prefix}", "tradenet"),
    };
    subject.split('.').map(token).collect()
}

/// Whether a permission covers a subject of that shape.
fn covers(permission: &str, subject: &[String]) -> bool {
    let mut subject = subject.iter();
    for token in permission.split('.') {
        match (token, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            // `*` in a subject stands for any name: a permission for one of them is what this user needs of it.
            (token, Some(found)) if token == found || found == "*" => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[test]
fn what_asyncapi_says_of_a_user_is_what_its_permissions_are_both_ways() {
    let document = asyncapi();
    let prefix = Prefix::new("tradenet").unwrap();
    let (mut sends, mut receives) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
    for (_, operation) in document["operations"].as_object().unwrap() {
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        let address = document.pointer(&channel[1..]).unwrap()["address"].as_str().unwrap().to_owned();
        let user = operation["tags"][0]["name"].as_str().unwrap().to_owned();
        let by = if operation["action"] == "send" { &mut sends } else { &mut receives };
        by.entry(user).or_default().push(shape(&address));
    }
    let check = |user: &str, verb: &str, documented: &[Vec<String>], permitted: &[String]| {
        for subject in documented {
            assert!(
                permitted.iter().any(|permission| covers(permission, subject)),
                "{user} may not {verb} {subject:?}"
            );
        }
        for permission in permitted {
            assert!(
                documented.iter().any(|subject| covers(permission, subject)),
                "nothing says why {user} may {verb} {permission}"
            );
        }
    };
    let none = Vec::new();
    for user in User::ALL {
        let name = user.name();
        check(name, "say", sends.get(name).unwrap_or(&none), &user.may_say(&prefix));
        let hears = user.may_hear(&prefix);
        // Whoever may hear everything studies and debugs; that is no operation.
        let hears: Vec<_> =
            hears.into_iter().filter(|it| *user != User::Operator || it.starts_with("_INBOX")).collect();
        check(name, "hear", receives.get(name).unwrap_or(&none), &hears);
    }
}

// ---------------------------------------------------------------- permissions

/// The users of `nats/users.conf`: what each may publish and subscribe to, sorted.
fn users() -> BTreeMap<String, [Vec<String>; 2]> {
    let text = std::fs::read_to_string(root().join("nats/users.conf")).unwrap();
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let text: String = lines.collect::<Vec<_>>().join(" ");
    let mut users = BTreeMap::new();
    for block in text.split("user: ").skip(1) {
        let name = block.split(',').next().unwrap().trim().to_owned();
        let list = |key: &str| {
            let (_, rest) = block.split_once(&format!("{key}: ")).unwrap_or_else(|| panic!("{name} has no {key}"));
            if rest.starts_with("{deny: \">\"}") {
                return Vec::new();
            }
            let inner = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).unwrap().0;
            let mut found: Vec<_> = inner.split(',').map(|it| it.trim().trim_matches('"').to_owned()).collect();
            found.sort();
            found
        };
        let permissions = [list("publish"), list("subscribe")];
        users.insert(name, permissions);
    }
    users
}

#[test]
fn users_conf_permits_what_the_code_needs_and_no_more() {
    let prefix = Prefix::new("tradenet").unwrap();
    let needed = User::ALL.iter().map(|user| (user.name().to_owned(), [user.may_say(&prefix), user.may_hear(&prefix)]));
    assert_eq!(users(), needed.collect::<BTreeMap<_, _>>(), "nats/users.conf against tradenet_schemas::directory");
}

#[test]
fn every_topic_has_a_row_in_the_brokers_readme() {
    let text = std::fs::read_to_string(root().join("nats/README.md")).unwrap();
    for topic in Topic::ALL {
        assert!(text.contains(&format!("`{}`", topic.tokens())), "nats/README.md says nothing of {}", topic.tokens());
    }
}
