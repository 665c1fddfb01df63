//! S2: every committed order, and so every answered one, is on the disk of every in-sync member.
//!
//! Stronger than what clients see: it must hold for the newest record that was ever written, at every moment, since that
//! record alone says who may be elected; but for one that has lost the floor to another (ADR 13), by which nobody is. A member whose disk was replaced is not fit, and can't be elected (S5);
//! one whose disk was damaged gives up its name as soon as it notices.

use tradenet_schemas::message::Configuration;

use super::{Truth, Verdict, Violation};
use crate::machine::Holder;

const S2: &str = "S2 what is committed is on every in-sync disk";

pub(super) fn check(newest: &Configuration, truth: &Truth, holders: &[Holder<'_>]) -> Verdict {
    let end = truth.end();
    let Some(expected) = truth.position(end) else {
        return Ok(());
    };
    for member in &newest.in_sync {
        let holds =
            |holder: &&Holder<'_>| holder.id == member.id && holder.disk.store == member.store && holder.disk.is_good();
        let Some(holder) = holders.iter().find(holds) else {
            continue;
        };
        let found = holder.disk.position(end);
        if found != Some(expected) {
            let text = format!(
                "epoch {}: {} is in sync, but has {found:?} on its disk where {expected:?} is committed",
                newest.epoch, holder.name
            );
            return Err(Violation::new(S2, text));
        }
    }
    Ok(())
}
