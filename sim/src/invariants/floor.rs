//! S6: the floor is never above the epoch, and neither falls. And R4: who serves has taken the floor, and has its epoch
//! on its own disk.

use tradenet_schemas::ids::Epoch;
use tradenet_schemas::message::{Configuration, Floor};

use super::{Verdict, Violation};
use crate::machine::Holder;
use crate::register::Register;

const S6: &str = "S6 floor and epoch never fall";
const R4: &str = "R4 the floor is taken before anything is served";

/// The highest floor seen.
#[derive(Clone, Default, Debug)]
pub(super) struct Floors {
    highest: Epoch,
}

impl Floors {
    /// The register was written.
    pub(super) fn written(&mut self, register: &Register) -> Verdict {
        let floor = register.floor.value().map(Floor::epoch).unwrap_or_default();
        let epoch = register.configuration.value().map_or(Epoch(0), |configuration| configuration.epoch);
        if floor < self.highest {
            return Err(Violation::new(S6, format!("the floor falls from {} to {floor}", self.highest)));
        }
        if floor > epoch && !register.tampered {
            return Err(Violation::new(S6, format!("the floor is {floor}, the epoch {epoch}")));
        }
        self.highest = floor;
        Ok(())
    }

    /// The register was tampered with.
    pub(super) fn forget(&mut self) {
        self.highest = Epoch(0);
    }
}

/// A replica serves in this configuration.
pub(super) fn served(held: &Configuration, me: Holder<'_>, register: &Register) -> Verdict {
    // A floor that was tampered with is not the replica's fault; it is missing then, or lower by the nemesis's hand.
    let floor = register.floor.value();
    let on_disk = me.disk.configuration.as_ref().map(|held| held.epoch);
    if on_disk < Some(held.epoch) {
        let text = format!("{} serves in epoch {}, but {on_disk:?} is on its disk", me.name, held.epoch);
        return Err(Violation::new(R4, text));
    }
    let lacks_it = |floor: &Floor| floor.epoch() < held.epoch || floor.epoch() == held.epoch && !floor.is(held);
    if floor.is_some_and(lacks_it) && !register.tampered {
        let floor = floor.map(Floor::epoch);
        let text = format!("{} serves in epoch {} over a floor of {floor:?}", me.name, held.epoch);
        return Err(Violation::new(R4, text));
    }
    Ok(())
}
