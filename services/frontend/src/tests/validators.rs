//! `ETag` and `If-None-Match` over real sockets.

use super::*;

fn if_none_match(path: &str, tag: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nif-none-match: {tag}\r\n\r\n")
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let at = exchange().await;
    for path in ["/stocks", "/stocks/GameStart", "/stocks/Cached", "/orders/42", "/stocks/GameStart/book", "/docs"] {
        let first = ask(at, get(path).as_bytes()).await;
        assert_eq!((first.status, first.header("cache-control")), (200, Some("no-cache")), "{path}");
        let tag = first.header("etag").unwrap();
        for sent in [tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
            let again = ask(at, if_none_match(path, sent).as_bytes()).await;
            assert_eq!((again.status, again.body.as_str()), (304, ""), "{path} {sent}");
            let kept = ["etag", "cache-control", "x-cache"].map(|name| again.header(name));
            assert_eq!(kept, ["etag", "cache-control", "x-cache"].map(|name| first.header(name)), "{path} {sent}");
            assert_eq!(again.header("content-type"), None);
        }
        let other = ask(at, if_none_match(path, "\"other\"").as_bytes()).await;
        assert_eq!((other.status, other.body), (200, first.body), "{path}");
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_an_answer_without_a_body() {
    let at = exchange().await;
    let mut client = connect(at).await;
    client.write_all(format!("{}{}", if_none_match("/orders/42", "*"), get("/healthz")).as_bytes()).await.unwrap();
    assert_eq!(read(&mut client, true).await.status, 304);
    assert_eq!(read(&mut client, true).await.status, 200);
}

#[tokio::test]
async fn another_stock_another_quantity_and_another_book_have_other_tags() {
    let at = exchange().await;
    let mut tags = std::collections::BTreeSet::new();
    let paths = ["/stocks/GameStart", "/stocks/Cached", "/stocks/GameStart/book", "/stocks/GameStart/book?depth=1"];
    for path in paths {
        tags.insert(ask(at, get(path).as_bytes()).await.header("etag").unwrap().to_owned());
    }
    assert_eq!(tags.len(), paths.len());
    let of = |left| {
        let stock = Stock { quantity: Quantity::new(left).unwrap(), ..stock("GameStart", 1599) };
        let answer = tradenet_schemas::rest::Stock::from(&stock);
        crate::validators::fresh(&axum::http::HeaderMap::new(), answer).headers()["etag"].clone()
    };
    assert_ne!(of(1), of(2));
}

#[tokio::test]
async fn what_is_no_success_or_somebodys_own_may_not_be_kept() {
    let at = exchange().await;
    for (path, status) in [("/stocks/Nope", 404), ("/orders/1", 404), ("/stocks/Down", 503), ("/cluster", 200)] {
        let response = ask(at, if_none_match(path, "*").as_bytes()).await;
        assert_eq!((response.status, response.header("cache-control")), (status, Some("no-store")), "{path}");
        assert_eq!(response.header("etag"), None, "{path}");
    }
}
