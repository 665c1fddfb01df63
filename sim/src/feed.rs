//! S16: a public event is of a committed entry, as that left it, and a number names one event.
//!
//! What clients were told is remembered by number, so two frontends, or two leaders, that tell different events under one
//! number are found; and whatever stock an event shows is compared with the [`Truth`].

use std::collections::BTreeMap;

use tradenet_schemas::feed::{Fact, PublicEvent};
use tradenet_schemas::ids::{EventNumber, SeqNum};

use crate::invariants::Truth;

/// All events that any client was told.
#[derive(Clone, Default, Debug)]
pub(crate) struct Feed {
    told: BTreeMap<EventNumber, PublicEvent>,
}

impl Feed {
    /// A client that asked for the events behind `asked` is told these, behind `after`. Gives the newest entry they are of.
    pub(crate) fn told(
        &mut self,
        asked: EventNumber,
        after: EventNumber,
        events: &[PublicEvent],
        truth: &Truth,
    ) -> Result<SeqNum, String> {
        if after < asked {
            return Err(format!("asked behind event {asked}, and answered behind {after}"));
        }
        let mut number = after;
        for event in events {
            number = number.next();
            let seq = event.seq;
            if seq > truth.end() {
                return Err(format!(
                    "event {number} is of entry {seq}, but {} is the last that is committed",
                    truth.end()
                ));
            }
            if let Fact::StockChanged(stock) = &event.fact {
                let versions = truth.versions(&stock.symbol);
                let made = versions.binary_search_by_key(&seq, |version| version.seq);
                if !made.is_ok_and(|index| versions[index].stock == *stock) {
                    return Err(format!("event {number} shows {stock:?}, which entry {seq} did not make"));
                }
            }
            let known = self.told.entry(number).or_insert_with(|| event.clone());
            if known != event {
                return Err(format!("event {number} is {known:?}, and {event:?}"));
            }
        }
        Ok(events.last().map_or(SeqNum(0), |event| event.seq))
    }
}
