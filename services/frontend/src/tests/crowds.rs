//! Many clients, slow clients and greedy clients, over real sockets.

use std::num::NonZeroU32;

use crate::limits::REQUESTS_UNDER_WAY_MAX;

use super::*;

const SLOW: &str = "the headers did not arrive in time; send the request again";

#[tokio::test]
async fn requests_and_connections_over_the_bound_are_told_so() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let (served, mut inputs) = serve(limits, PATIENCE).await;
    let mut first = connect(served.address).await;
    first.write_all(get("/stocks").as_bytes()).await.unwrap();
    let Some(Input::Client(ticket, _)) = inputs.recv().await else { panic!("no request") };
    check(served.address, get("/stocks"), 503, "1 connections are open already; try again with fewer").await;
    served.desk.answer(ticket, ClientAnswer::Stocks(vec![]));
    assert_eq!(read(&mut first, true).await.status, 200);
    let desk = &served.desk;
    let mut waiting: Vec<_> = (0..REQUESTS_UNDER_WAY_MAX).map(|_| Box::pin(desk.ask(ClientRequest::Stocks))).collect();
    for wait in &mut waiting {
        assert!(is_pending(wait.as_mut()).await);
    }
    first.write_all(get("/stocks").as_bytes()).await.unwrap();
    let overloaded = read(&mut first, true).await;
    let message = "2048 requests are under way already; try again with fewer at once";
    assert_eq!((overloaded.status, overloaded.body.contains(message)), (503, true), "{}", overloaded.body);
}

#[tokio::test]
async fn whoever_asks_nothing_makes_room_for_who_does() {
    let (served, mut inputs) = serve(Limits { connections_max: 2, ..Limits::default() }, PATIENCE).await;
    let mut asks = connect(served.address).await;
    asks.write_all(get("/stocks").as_bytes()).await.unwrap();
    let Some(Input::Client(ticket, _)) = inputs.recv().await else { panic!("no request") };
    let mut trickles = connect(served.address).await;
    // In one piece, so that the beginning has arrived when the whole request before it is answered.
    let begun = format!("{}GET /stocks HTTP/1.1\r\nx: ", get("/healthz"));
    trickles.write_all(begun.as_bytes()).await.unwrap();
    assert_eq!(read(&mut trickles, true).await.status, 200);
    for _ in 0..20 {
        assert_eq!(ask(served.address, get("/healthz").as_bytes()).await.status, 200);
    }
    let given_up = read(&mut trickles, true).await;
    assert!((given_up.status, given_up.body.contains(SLOW)) == (408, true), "{}", given_up.body);
    served.desk.answer(ticket, ClientAnswer::Stocks(vec![]));
    assert_eq!(read(&mut asks, true).await.status, 200, "who is being answered stays");
}

#[tokio::test]
async fn who_sends_a_body_in_part_makes_room_too_and_is_told_that_nothing_was_done() {
    let (served, mut inputs) = serve(Limits { connections_max: 1, ..Limits::default() }, PATIENCE).await;
    let order = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
    let head = format!("POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", order.len());
    let (begin, end) = order.split_at(10);
    let mut trickles = connect(served.address).await;
    // The end of its `100 Continue` says that the body is being read.
    let waits = head.replace("host: x", "host: x\r\nexpect: 100-continue");
    trickles.write_all(format!("{waits}{begin}").as_bytes()).await.unwrap();
    let mut goes_on = [0; 25];
    trickles.read_exact(&mut goes_on).await.unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(ask(served.address, get("/healthz").as_bytes()).await.status, 200);
    // Too late, and not looked at.
    let _ = trickles.write_all(end.as_bytes()).await;
    let given_up = read(&mut trickles, true).await;
    let told = "the body did not arrive in time; send the request again";
    assert!((given_up.status, given_up.body.contains(told)) == (408, true), "{}", given_up.body);
    // Nobody is sent away whose body is here.
    let mut asks = connect(served.address).await;
    asks.write_all(format!("{head}{begin}").as_bytes()).await.unwrap();
    asks.write_all(end.as_bytes()).await.unwrap();
    let Some(Input::Client(ticket, ClientRequest::Command(..))) = inputs.recv().await else { panic!("no order") };
    check(served.address, get("/stocks"), 503, "1 connections are open already; try again with fewer").await;
    served.desk.answer(ticket, ClientAnswer::Outcome(Outcome::Accepted { order: OrderNumber(42), replayed: false }));
    assert_eq!(read(&mut asks, true).await.status, 200);
}

#[tokio::test]
async fn clients_that_trickle_never_keep_others_out() {
    let head = "GET /healthz HTTP/1.1\r\nhost: a-name-that-is-long\r\n";
    let body = "POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 10000\r\n\r\n";
    // One byte after the other, again and again.
    trickled_over("", head).await;
    trickled_over(body, " ").await;
}

async fn trickled_over(begins: &'static str, trickle: &'static str) {
    // Nobody goes because of the time alone.
    let body_read = Duration::from_secs(3600);
    let (served, _inputs) = serve(Limits { connections_max: 8, body_read, ..Limits::default() }, PATIENCE).await;
    let at = served.address;
    let trickling: Vec<_> = (0..32)
        .map(|_| {
            tokio::spawn(async move {
                loop {
                    let mut client = connect(at).await;
                    if client.write_all(begins.as_bytes()).await.is_err() {
                        continue;
                    }
                    // Until it is cut off.
                    for byte in trickle.as_bytes().iter().cycle() {
                        if client.write_all(&[*byte]).await.is_err() {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            })
        })
        .collect();
    let served = async {
        let mut answered = 0;
        while answered < 20 {
            // Under this pressure one may be cut off itself, or find all others busy, and then comes again.
            let mut client = connect(at).await;
            let mut head = [0; 12];
            let asked = client.write_all(get("/healthz").as_bytes()).await;
            if asked.is_ok() && client.read_exact(&mut head).await.is_ok() && head == *b"HTTP/1.1 200" {
                answered += 1;
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("others are served");
    trickling.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_head_and_a_body_have_their_time_in_all_however_they_trickle() {
    let short = Duration::from_millis(300);
    let (served, _inputs) = serve(Limits { head_read: short, body_read: short, ..Limits::default() }, PATIENCE).await;
    let body = "POST /orders HTTP/1.1\r\ncontent-length: 10000\r\n\r\n";
    for (begins, message) in [("GET /stocks HTTP/1.1\r\nx: ", SLOW), (body, "the body did not arrive within 300 ms")] {
        let (mut reader, mut writer) = connect(served.address).await.into_split();
        let trickle = tokio::spawn(async move {
            writer.write_all(begins.as_bytes()).await.unwrap();
            // Far more often than any bound, and for longer than it.
            while writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let mut answer = vec![];
        tokio::time::timeout(PATIENCE, reader.read_to_end(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains(message), "{answer}");
        trickle.abort();
    }
}

#[tokio::test]
async fn each_client_has_its_rate_where_there_is_one() {
    let rate = NonZeroU32::new(3);
    let (served, _inputs) = serve(Limits { rate, ..Limits::default() }, PATIENCE).await;
    let mut client = connect(served.address).await;
    let mut statuses = vec![];
    for _ in 0..10 {
        client.write_all(get("/docs").as_bytes()).await.unwrap();
        let response = read(&mut client, true).await;
        if response.status == 429 {
            assert_eq!(response.header("retry-after"), Some("1"));
            assert!(response.body.contains("more than 3 requests a second"), "{}", response.body);
        }
        statuses.push(response.status);
    }
    assert_eq!(statuses[..3], [200; 3]);
    assert!(statuses.contains(&429), "{statuses:?}");
    for path in ["/healthz", "/cluster"] {
        assert_eq!(ask(served.address, get(path).as_bytes()).await.status, 200, "{path} is for those who watch");
    }
}

#[tokio::test]
async fn long_answers_that_nobody_reads_are_bounded_and_others_are_answered() {
    let stocks = || ClientAnswer::Stocks(vec![stock("GameStart", 1599); 200_000]);
    let limits = Limits { unread_bytes_max: 20_000_000, ..Limits::default() };
    let (served, mut inputs) = serve(limits, PATIENCE).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut first = socket.connect(served.address).await.unwrap();
    let mut second = connect(served.address).await;
    // Whoever is answered later waits until the first answer has taken its place.
    for client in [&mut first, &mut second] {
        client.write_all(get("/stocks").as_bytes()).await.unwrap();
        let Some(Input::Client(ticket, _)) = inputs.recv().await else { panic!("no request") };
        served.desk.answer(ticket, stocks());
        client.readable().await.unwrap();
    }
    let refused = read(&mut second, true).await;
    let message = "too many long answers are not read by their clients; try again";
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.body);
    assert!(refused.body.contains(message), "{}", refused.body);
    assert!(served.observer.unread.available_permits() < 10_000_000, "the first answer has its place");
    // What is the program's own is nobody's to use up, and what is short needs no place.
    for path in ["/openapi.json", "/healthz"] {
        assert_eq!(ask(served.address, get(path).as_bytes()).await.status, 200, "{path}");
    }

    let whole = read(&mut first, true).await;
    assert_eq!((whole.status, whole.body.matches("GameStart").count()), (200, 200_000));
    second.write_all(get("/stocks").as_bytes()).await.unwrap();
    let Some(Input::Client(ticket, _)) = inputs.recv().await else { panic!("no request") };
    served.desk.answer(ticket, stocks());
    assert_eq!(read(&mut second, true).await.status, 200, "there is room again");
    assert_eq!(served.observer.unread.available_permits(), 20_000_000);
}
