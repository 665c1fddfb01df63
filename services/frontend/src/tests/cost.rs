//! What ids and counts cost, as a part of a whole request; for `docs/performance.md`.
//!
//! All is measured in short rounds by turns, and the least of each counts: what others do on the machine can only add to it. The
//! whole request is the processor's time of the thread that serves.

use axum::body::Body;

use super::*;

const ROUNDS: usize = 200;
const REQUESTS: u32 = 500;

/// The processor's time of this thread, as of when it was given the processor last.
fn spent() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says what a thread has had");
    Duration::from_nanos(told.split(' ').next().and_then(|first| first.parse().ok()).expect("a number"))
}

fn request() -> hyper::Request<Body> {
    hyper::Request::get("/healthz").header("host", "x").body(Body::empty()).unwrap()
}

#[test]
#[ignore = "a measurement, for a release build"]
fn cost_of_ids_and_counts() {
    // The whole request: a server with a thread of its own, and a client on this one.
    let (address, asked) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serving = async {
            let at = exchange().await;
            address.send((at, tokio::runtime::Handle::current())).unwrap();
            let _ = stopped.await;
        };
        runtime.block_on(serving);
    });
    let (at, there) = asked.recv().unwrap();
    let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [mut whole, mut plain, mut observed] = [Duration::MAX; 3];
    here.block_on(async {
        let (served, _inputs) = serve(Limits::default(), PATIENCE).await;
        let mut client = connect(at).await;
        for _ in 0..ROUNDS {
            let before = there.spawn(async { spent() }).await.unwrap();
            for _ in 0..REQUESTS {
                client.write_all(get("/healthz").as_bytes()).await.unwrap();
                assert_eq!(read(&mut client, true).await.status, 200);
            }
            whole = whole.min(there.spawn(async { spent() }).await.unwrap() - before);
            let before = Instant::now();
            for _ in 0..REQUESTS {
                assert_eq!(served.observer.routes.answer(request()).await.status(), 200);
            }
            plain = plain.min(before.elapsed());
            let before = Instant::now();
            for _ in 0..REQUESTS {
                assert_eq!(served.observer.answer(request(), at.ip()).await.status(), 200);
            }
            observed = observed.min(before.elapsed());
        }
    });
    let _ = stop.send(());
    server.join().unwrap();
    let [whole, plain, observed] = [whole, plain, observed].map(|all| all / REQUESTS);
    let more = observed.saturating_sub(plain);
    let part = 100.0 * more.as_secs_f64() / whole.as_secs_f64();
    println!(
        "a request {whole:?}, its route alone {plain:?}, with ids and counts {observed:?}: {more:?} more, {part:.1} %"
    );
}
