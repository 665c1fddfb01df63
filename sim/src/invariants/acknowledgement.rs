//! S4: nobody acknowledges in an epoch other than the one on its disk. S7: an acknowledgement follows the sync.

use tradenet_schemas::ids::{Epoch, SeqNum, StoreId};

use super::{Verdict, Violation};
use crate::machine::Holder;

const S4: &str = "S4 the epoch is on disk before anything is acknowledged in it";
const S7: &str = "S7 an acknowledgement follows the sync";

pub(crate) fn check(from: Holder<'_>, epoch: Epoch, store: StoreId, durable: SeqNum) -> Verdict {
    let on_disk = from.disk.configuration.as_ref().map(|held| held.epoch);
    if on_disk != Some(epoch) {
        let text = format!("{} acknowledges in epoch {epoch}, but {on_disk:?} is on its disk", from.name);
        return Err(Violation::new(S4, text));
    }
    if from.disk.store != store || from.disk.entries() < durable {
        let entries = from.disk.entries();
        let text = format!("{} acknowledges {durable}, but {entries} entries are on its disk", from.name);
        return Err(Violation::new(S7, text));
    }
    Ok(())
}
