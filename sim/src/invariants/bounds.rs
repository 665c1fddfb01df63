//! S15: queues and memory stay within limits.
//!
//! A leader has one batch under way, so nothing of a log can be further ahead of its commit point than the entries of some
//! leaders in a row: each leaves one batch and its first entry behind.

use tradenet_core::replica::Replica;
use tradenet_schemas::limits::BATCH_ENTRIES_MAX;

use super::{Verdict, Violation};

const S15: &str = "S15 what is not committed stays within limits";
/// Leaders in a row of which none commits anything.
const LEADERS_IN_A_ROW_MAX: u64 = 64;

pub(super) fn check(replica: &Replica) -> Verdict {
    if replica.serves_in().is_none() {
        return Ok(());
    }
    let ahead = replica.tail().seq.0 - replica.committed().0;
    if ahead > LEADERS_IN_A_ROW_MAX * (BATCH_ENTRIES_MAX as u64 + 1) {
        return Err(Violation::new(S15, format!("{ahead} entries are not committed")));
    }
    Ok(())
}
