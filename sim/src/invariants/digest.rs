//! S9: the same sequence number, the same state everywhere.

use std::collections::BTreeMap;

use tradenet_core::replica::Replica;
use tradenet_schemas::ids::{Digest, SeqNum};

use super::{Verdict, Violation};

const S9: &str = "S9 same sequence, same state";

/// The state's digest after committed entries.
#[derive(Clone, Default, Debug)]
pub(super) struct Digests {
    known: BTreeMap<SeqNum, Digest>,
}

impl Digests {
    /// A replica has applied more. What is not committed yet may differ, and is not looked at.
    pub(super) fn check(&mut self, replica: &Replica) -> Verdict {
        let seq = replica.exchange().applied();
        if seq > replica.committed() {
            return Ok(());
        }
        let digest = replica.exchange().digest();
        let known = *self.known.entry(seq).or_insert(digest);
        if known == digest {
            return Ok(());
        }
        Err(Violation::new(S9, format!("the state after entry {seq} is {known} and {digest}")))
    }
}
