//! The document against the routes, the code, and the file that is kept of it.

use std::path::Path;

use serde_json::Value;

use crate::routes;

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/openapi.json");

fn document() -> Value {
    serde_json::from_str(&super::written(&routes::table().1)).unwrap()
}

#[test]
fn what_is_kept_is_what_is_served() {
    let served = super::written(&routes::table().1);
    if std::env::var_os("TRADENET_BLESS").is_some() {
        std::fs::write(KEPT, &served).unwrap();
    }
    let kept = std::fs::read_to_string(Path::new(KEPT)).unwrap_or_default();
    let command = "TRADENET_BLESS=1 cargo test -p tradenet-frontend what_is_kept_is_what_is_served";
    assert!(kept == served, "schemas/openapi.json is not what is served; write it anew with\n    {command}");
}

#[test]
fn every_route_has_all_that_a_reader_needs() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let shown = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{shown} has no summary");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{shown}: its id is another's");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{shown} never succeeds");
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Failure", "{shown} {status}");
                let examples = response["content"]["application/json"]["examples"].as_object().unwrap();
                let number = status.parse::<u64>().ok();
                let of_status = |example: &Value| example["value"]["error"]["code"].as_u64() == number;
                assert!(!examples.is_empty() && examples.values().all(of_status), "{shown} {status}");
            }
            let keyed = ["post", "delete"].contains(&method.as_str());
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let has = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
            assert_eq!(has("Idempotency-Key"), keyed, "{shown}");
            assert_eq!(has("If-None-Match"), responses.contains_key("304"), "{shown}");
            let in_path = path.matches('{').count();
            assert_eq!(parameters.iter().filter(|parameter| parameter["in"] == "path").count(), in_path, "{shown}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut std::collections::BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.insert(reference.trim_start_matches("#/components/schemas/").to_owned());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = std::collections::BTreeSet::new();
    references(&document, &mut found);
    let schemas = document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    assert!(found.is_subset(&schemas), "{:?}", found.difference(&schemas));
    // What streams tell has no place in a document of this version but among the schemas.
    let told = ["Traded", "Book", "StockChanged", "Leadership", "Gap", "End"];
    assert!(told.iter().all(|name| schemas.contains(*name)), "{schemas:?}");
}
