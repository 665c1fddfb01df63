//! A sweep over two exchanges, one with a cache and one without.

#![allow(clippy::unwrap_used, reason = "this is test code, though not all of it within a #[test]")]

mod stub;

use loadgen::{Load, RunOptions, Sides, SweepOptions, Variant, probabilities, sweep};
use stub::{Behaviour, Stub};

#[tokio::test]
async fn a_sweep_interleaves_its_runs_and_plots_both_lines() {
    let cached = Stub::start(Behaviour { cache: true, ..Behaviour::default() }).await;
    let plain = Stub::start(Behaviour::default()).await;
    let mut run = RunOptions::new(cached.url.clone());
    run.load = Load::Iterations(20);
    run.sides = Sides::Mix;
    let variant = |name: &str, stub: &Stub| Variant { name: name.to_owned(), urls: vec![stub.url.clone()] };
    let options = SweepOptions {
        run,
        variants: vec![variant("with cache", &cached), variant("without cache", &plain)],
        probabilities: probabilities("0".parse().unwrap(), "0.8".parse().unwrap(), 0.4).unwrap(),
        repeats: 2,
    };
    let mut told = 0;
    let result = sweep(&options, |_| told += 1).await.unwrap();
    assert!(result.ok());
    assert_eq!((result.runs.len(), told), (12, 12));
    let order: Vec<&str> = result.runs.iter().map(|run| run.variant.split(' ').next().unwrap()).collect();
    assert_eq!(order[..4], ["with", "without", "with", "without"]);
    assert_eq!(order[6..8], ["without", "with"]);
    // A header, and for each run five kinds of requests: lookups, hits, misses, trades and reads.
    assert_eq!(result.to_csv().lines().count(), 1 + 12 * 5);
    for (file, svg) in result.plots() {
        assert!(svg.contains("with cache") && svg.contains("without cache") && !svg.contains("NaN"), "{file}");
    }
    let hits = |name: &str| {
        result.runs.iter().filter(|run| run.variant == name).all(|run| run.report.hit_ratio().unwrap() > 0.0)
    };
    assert!(hits("with cache") && !hits("without cache"));
}
