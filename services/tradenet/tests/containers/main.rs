//! The exchange in containers: a real engine, the project's own Compose files and image, real faults.
//!
//! Problem: what runs for people is an image, a Compose file, users and volumes, none of which the ring of tests (`ring`)
//! sees. Idea: each test brings up a Compose project of its own, under a name and port of its own, harms it with the
//! engine's commands, mostly under load, and takes everything down again. The rules: two tests run at a time, and two runs
//! of this program do not meet; where there is no engine the tests are skipped, and the last line says so.
//!
//! They take minutes, so they run only when asked to: `TRADENET_CONTAINERS=1 cargo test -p tradenet --test containers`,
//! with parts of names behind `--` to choose. `TRADENET_IMAGE` names an image to test; without it, one is built.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod disks;
mod engine;
mod faults;
mod intruders;
mod lifecycle;
mod secrets;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::scope;
use std::time::Instant;

use engine::Image;

/// A test by its name.
type Test = (&'static str, fn(&Image));

/// The longest first, so that the two at a time end together.
const TESTS: &[Test] = &[
    ("half_a_minute_off_the_network_loses_nothing", faults::of_the_network),
    ("no_fault_of_catalog_frontend_or_broker_under_load_loses_anything", faults::of_the_others),
    ("the_loss_of_each_broker_of_a_cluster_in_turn_loses_nothing", cluster::each_broker_in_turn),
    ("no_fault_of_the_leader_under_load_loses_anything", faults::of_the_leader),
    ("no_fault_of_a_follower_under_load_loses_anything", faults::of_followers),
    ("a_full_disk_stops_one_replica_until_there_is_room", disks::a_full_disk),
    ("state_outlives_down_and_up_but_not_the_volumes", lifecycle::down_and_up),
    ("a_removed_volume_is_filled_by_a_peer", disks::a_removed_volume),
    ("containers_can_do_no_more_than_they_must", lifecycle::locked_down),
    ("a_frontend_that_is_cut_off_answers_nothing_from_its_cache", cluster::a_cut_off_frontend),
    ("tls_and_a_password_from_a_file_work_as_the_readme_says", secrets::tls_and_files),
    ("who_breaks_into_the_network_or_a_frontend_changes_nothing", intruders::nothing_to_gain),
    ("a_service_whose_user_lacks_a_permission_says_which", intruders::a_missing_permission),
];
const AT_A_TIME: usize = 2;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let fits = |test: &&Test| wanted.is_empty() || wanted.iter().any(|part| test.0.contains(part.as_str()));
    let tests: Vec<_> = TESTS.iter().filter(fits).collect();
    if std::env::args().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let image = match Image::ready() {
        Ok(image) => image,
        Err(why) => {
            println!("container tests: {} SKIPPED: {why}", tests.len());
            return ExitCode::SUCCESS;
        }
    };
    let failed = run(&tests, &image);
    println!("container tests: {} passed, {failed} failed", tests.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs them, and counts those that failed.
fn run(tests: &[&Test], image: &Image) -> usize {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    let passed = catch_unwind(|| test(image)).is_ok();
                    let outcome = if passed { "ok" } else { "FAILED" };
                    println!("test {name} ... {outcome} ({:.0} s)", began.elapsed().as_secs_f64());
                    failed.fetch_add(usize::from(!passed), Ordering::Relaxed);
                }
            });
        }
    });
    failed.into_inner()
}
