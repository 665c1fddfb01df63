//! S1: one leader an epoch; `(epoch, seq)` names one entry of an exchange. S5: only an `(id, store)` of `in_sync` leads.

use std::collections::BTreeMap;

use tradenet_core::replica::Replica;
use tradenet_schemas::ids::{Chain, ClusterId, Epoch, Leader, SeqNum};
use tradenet_schemas::message::Configuration;

use super::{Verdict, Violation};
use crate::machine::Holder;

const S1: &str = "S1 one leader an epoch";
const S6: &str = "S6 floor and epoch never fall";
const S5: &str = "S5 only an in-sync disk leads";

/// Who served in which epoch, and what every entry was.
#[derive(Clone, Default, Debug)]
pub(super) struct OneLeader {
    leaders: BTreeMap<Epoch, Leader>,
    /// An exchange that was lost before anything was committed may begin anew, as another.
    entries: BTreeMap<(Option<ClusterId>, Epoch, SeqNum), Chain>,
}

impl OneLeader {
    /// A replica serves as leader.
    pub(super) fn leads(&mut self, held: &Configuration, me: Holder<'_>) -> Verdict {
        let Some(boot) = me.boot else { return Ok(()) };
        let leader = Leader { id: me.id, boot };
        let before = *self.leaders.entry(held.epoch).or_insert(leader);
        if before != leader || held.leader != leader {
            let text = format!("epoch {}: {before:?} and {leader:?} both serve", held.epoch);
            return Err(Violation::new(S1, text));
        }
        if !held.is_in_sync(me.id, me.disk.store) {
            let text = format!("{} serves in epoch {}, but its disk is not in sync", me.name, held.epoch);
            return Err(Violation::new(S5, text));
        }
        Ok(())
    }

    /// A record was written: its epoch is new. Where the register had gone back, it is enough that nobody served in it.
    pub(super) fn grows(&self, before: Option<&Configuration>, written: &Configuration, tampered: bool) -> Verdict {
        let newest = before.map_or(Epoch(0), |before| before.epoch);
        let served = self.leaders.keys().next_back().copied().unwrap_or_default();
        let bound = if tampered { served } else { newest };
        if written.epoch > bound {
            return Ok(());
        }
        let text = format!("epoch {} is written after epoch {newest}; {served} was served in", written.epoch);
        Err(Violation::new(S6, text))
    }

    /// The log has grown, or was cut and has grown again: only what is behind `from` or new there is looked at.
    pub(super) fn names_one_entry(&mut self, replica: &Replica, from: SeqNum, me: Holder<'_>) -> Verdict {
        let cluster = me.disk.configuration.as_ref().map(|held| held.cluster);
        let tail = replica.tail().seq;
        let first = if from < tail { from.next() } else { tail };
        for seq in first.0..=tail.0 {
            let Some(position) = replica.position(SeqNum(seq)).filter(|p| p.seq != SeqNum(0)) else {
                continue;
            };
            let known = *self.entries.entry((cluster, position.epoch, position.seq)).or_insert(position.chain);
            if known != position.chain {
                let text = format!("epoch {} entry {} is two entries", position.epoch, position.seq);
                return Err(Violation::new(S1, text));
            }
        }
        Ok(())
    }
}
