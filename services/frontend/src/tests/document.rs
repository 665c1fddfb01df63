//! The OpenAPI document against the edge that serves it.

use serde_json::Value;

use super::market::ALICE;
use super::*;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

async fn document(at: SocketAddr) -> Value {
    let response = ask(at, get("/openapi.json").as_bytes()).await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    serde_json::from_str(&response.body).unwrap()
}

/// A path as a client may send it.
fn filled(path: &str) -> String {
    path.replace("{name}", "GameStart").replace("{number}", "42").replace("{account}", "alice")
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{ALICE}content-length: 0\r\n\r\n")
}

#[tokio::test]
async fn each_path_takes_the_methods_that_the_document_has_and_no_others() {
    let at = exchange().await;
    let document = document(at).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let documented = item.get(method.to_lowercase()).is_some();
            if documented && path == "/events" {
                continue; // The market of these tests has no stream.
            }
            let response = ask(at, request(method, &filled(path)).as_bytes()).await;
            assert_eq!(response.status != 405, documented, "{method} {path}: {}", response.status);
            assert!(!response.body.contains("is not here; see"), "{method} {path}: {}", response.body);
            if documented {
                let status = response.status.to_string();
                let known = &item[method.to_lowercase()]["responses"][&status];
                assert!(known.is_object(), "{method} {path} answers {status}: {}", response.body);
            } else {
                let allowed = response.header("allow").unwrap_or_default().replace(",HEAD", "").to_lowercase();
                let methods: std::collections::BTreeSet<_> = allowed.split(',').collect();
                let expected: std::collections::BTreeSet<_> =
                    item.as_object().unwrap().keys().map(String::as_str).collect();
                assert_eq!(methods, expected, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn requests_are_counted_by_the_paths_that_the_document_has() {
    let document = document(exchange().await).await;
    let documented: std::collections::BTreeSet<_> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let counted = crate::observer::ROUTES.into_iter().filter(|route| *route != crate::observer::OTHER).collect();
    assert_eq!(documented, counted);
}

#[tokio::test]
async fn each_request_knows_the_parameters_that_the_document_has_and_no_others() {
    let at = exchange().await;
    let document = document(at).await;
    let mut strict = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(operation) = item.get("get") else { continue };
        let in_query = |parameter: &&Value| parameter["in"] == "query";
        let documented: Vec<_> = operation["parameters"].as_array().into_iter().flatten().filter(in_query).collect();
        let names: Vec<_> = documented.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let response = ask(at, request("GET", &format!("{}?nonsense=1", filled(path))).as_bytes()).await;
        let known = format!("\\\"nonsense\\\" is not known here; known are {}\"", names.join(", "));
        if names.is_empty() {
            assert!(!response.body.contains("nonsense"), "{path}: {}", response.body);
        } else {
            assert!(response.status == 400 && response.body.contains(&known), "{path}: {}", response.body);
            strict += 1;
        }
    }
    assert!(strict >= 5, "{strict}");
}

/// A browser, and so the page at `/docs`, has no other numbers than these.
#[tokio::test]
async fn every_number_of_the_document_is_one_that_a_browser_holds_exactly() {
    fn check(at: &str, value: &Value) -> usize {
        match value {
            Value::Number(number) => {
                let most = (1_u64 << 53) - 1;
                assert!(number.as_u64().is_none_or(|number| number <= most), "{at}: {number}");
                1
            }
            Value::Array(all) => all.iter().map(|value| check(at, value)).sum(),
            Value::Object(all) => all.iter().map(|(name, value)| check(&format!("{at}/{name}"), value)).sum(),
            _ => 0,
        }
    }
    let numbers = check("", &document(exchange().await).await);
    assert!(numbers > 100, "{numbers}");
}

#[tokio::test]
async fn pages_for_people_load_nothing_from_elsewhere() {
    let at = exchange().await;
    for (path, content_type) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/page.js", "text/javascript; charset=utf-8"),
        ("/docs/page.css", "text/css; charset=utf-8"),
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.svg", "image/svg+xml"),
    ] {
        let response = ask(at, get(path).as_bytes()).await;
        assert_eq!((response.status, response.header("content-type")), (200, Some(content_type)), "{path}");
        let policy = response.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("data:"), "{policy}");
        assert!(!response.body.contains("//cdn") && !response.body.contains("https://"), "{path}");
    }
    for (path, script, style) in [("/docs", "/docs/page.js", "/docs/page.css"), ("/", "/page.js", "/page.css")] {
        let page = ask(at, get(path).as_bytes()).await.body;
        assert!(page.contains(&format!("\"{script}\"")) && page.contains(&format!("\"{style}\"")), "{page}");
    }
}
