//! The documents for people who integrate without reading the source: JSON Schemas and `docs/asyncapi.json`.
//!
//! Problem: a document that is written beside the code says what the code did some time ago.
//! Idea: the types derive their schemas; here they are cut into one file a message and put together with the table of topics.
//! [`all`] gives each file's path and text, a test compares them with what is committed.
//! Rule kept: the same code gives the same bytes, and nothing in a document is written twice.
//!
//! Only in builds with the feature `json-schema`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::feed::PublicEvent;
use crate::ids::Chain;
use crate::journal::Entry;
use crate::message::{Configuration, Envelope, Floor, Message};

/// The directories in which every file is a document of this module.
pub const DIRECTORIES: [&str; 4] = ["schemas/messages", "schemas/journal", "schemas/register", "schemas/feed"];

/// All documents: paths below the repository's root, and texts.
pub fn all() -> BTreeMap<String, String> {
    let messages = messages();
    let mut files = BTreeMap::new();
    let mut add = |path: String, value: &Value| {
        // Whichever features of serde_json other crates of a build turn on, the bytes are the same.
        let mut sorted = value.clone();
        sorted.sort_all_objects();
        files.insert(path, format!("{sorted:#}\n"));
    };
    add("docs/asyncapi.json".to_owned(), &crate::asyncapi::document(&messages));
    for (name, schema) in &messages {
        add(format!("schemas/messages/{name}.json"), schema);
    }
    add("schemas/journal/Entry.json".to_owned(), &journal_line());
    add("schemas/register/Configuration.json".to_owned(), &schema_of::<Configuration>("Configuration"));
    add("schemas/register/Floor.json".to_owned(), &schema_of::<Floor>("Floor"));
    add("schemas/feed/PublicEvent.json".to_owned(), &schema_of::<PublicEvent>("PublicEvent"));
    files
}

/// The schema of each message, by the name of its type: an envelope with that body.
pub fn messages() -> BTreeMap<String, Value> {
    let mut root = schema_of::<Envelope>("Envelope");
    let definitions = take(&mut root, "$defs");
    let forms = take(&mut generated::<Message>(), "oneOf");
    let forms = forms.as_array().cloned().unwrap_or_default();
    let named = forms.into_iter().map(|mut form| {
        let tag = form["required"][0].as_str().map(str::to_owned).unwrap_or_default();
        let name = pascal(&tag);
        let says = take(&mut form, "description");
        let mut schema = root.clone();
        schema["title"] = json!(name);
        schema["description"] = says;
        schema["properties"]["body"] = form;
        with_definitions(&mut schema, &definitions);
        (name, schema)
    });
    named.collect()
}

/// A line of the journal: an entry behind its checksum.
fn journal_line() -> Value {
    let mut schema = schema_of::<Entry>("Entry");
    let mut definitions = take(&mut schema, "$defs");
    definitions["Chain"] = generated::<Chain>();
    without(&mut definitions["Chain"], &["$schema", "title"]);
    schema["properties"]["chain"] = json!({"$ref": "#/$defs/Chain"});
    if let Some(required) = schema["required"].as_array_mut() {
        required.insert(0, json!("chain"));
    }
    with_definitions(&mut schema, &definitions);
    schema
}

fn schema_of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = generated::<T>();
    schema["title"] = json!(title);
    schema
}

/// A type's schema, with the names that documentation links to as plain text.
fn generated<T: JsonSchema>() -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    plain(&mut schema);
    schema
}

fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match (name.as_str(), value) {
            ("description", Value::String(text)) => *text = unlinked(text),
            (_, value) => plain(value),
        }),
        Value::Array(values) => values.iter_mut().for_each(plain),
        _ => {}
    }
}

/// The text without Rust's links: `[`X`](path)` and `[`X`]` become `X` in backticks; lines are joined.
fn unlinked(text: &str) -> String {
    let mut parts = text.split("[`");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("`]").unwrap_or((part, ""));
        let rest = rest.strip_prefix('(').and_then(|link| link.split_once(')')).map_or(rest, |(_, rest)| rest);
        plain += &format!("`{name}`{rest}");
    }
    plain.split('\n').map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Adds those definitions to a schema that it refers to, however indirectly.
fn with_definitions(schema: &mut Value, definitions: &Value) {
    let mut wanted = BTreeSet::new();
    let mut open = references(schema);
    while let Some(name) = open.pop() {
        if wanted.insert(name.clone()) {
            open.extend(references(&definitions[&name]));
        }
    }
    if !wanted.is_empty() {
        let kept: Map<_, _> = wanted.into_iter().map(|name| (name.clone(), definitions[&name].clone())).collect();
        schema["$defs"] = Value::Object(kept);
    }
}

/// The names of the definitions that a schema refers to.
fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("$ref", Value::String(target)) => {
                    target.strip_prefix("#/$defs/").map(str::to_owned).into_iter().collect()
                }
                (_, value) => references(value),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

fn take(value: &mut Value, name: &str) -> Value {
    value.as_object_mut().and_then(|fields| fields.remove(name)).unwrap_or_default()
}

fn without(value: &mut Value, names: &[&str]) {
    for name in names {
        take(value, name);
    }
}

/// `pre_vote` as the type's name, `PreVote`.
pub(crate) fn pascal(tag: &str) -> String {
    let word = |word: &str| word[..1].to_uppercase() + &word[1..];
    tag.split('_').filter(|part| !part.is_empty()).map(word).collect()
}
