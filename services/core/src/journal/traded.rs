//! Trades with the house, written and read in one form.
//!
//! Nearly every entry is such a trade. The leader writes it once; followers and catalog read it, as every replica does once more when it
//! makes a snapshot. Rule kept: that of [`crate::form`].

use tradenet_schemas::ids::{Epoch, OrderNumber, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::trade::{CommandKey, Price};

use crate::form::{self, Form};

/// Writes the entry, if it is a trade with the house without anything to be escaped; else nothing. Tells which.
pub(super) fn write(entry: &Entry, out: &mut Vec<u8>) -> bool {
    let (Some(key), [Event::Traded { order, symbol, side, quantity, price }]) = (&entry.key, &entry.events[..]) else {
        return false;
    };
    form::write(out, |sheet| {
        sheet.then("{\"seq\":").number(entry.seq.0).then(",\"epoch\":").number(entry.epoch.0);
        sheet.then(",\"at\":").number(entry.at).then(",\"key\":\"").text(key.as_str())?;
        sheet.then(",\"events\":[{\"traded\":{\"order\":").number(order.0).then(",");
        sheet.deal(symbol, *side, *quantity)?.then(",\"price\":").number(price.cents()).then("}}]}");
        Some(())
    })
}

/// The entry in `text`, if it is a trade with the house in that form.
pub(super) fn read(text: &str) -> Option<Entry> {
    let mut form = Form::new(text);
    let seq = SeqNum(form.then("{\"seq\":")?.number()?);
    let epoch = Epoch(form.then(",\"epoch\":")?.number()?);
    let at = form.then(",\"at\":")?.number()?;
    let key = CommandKey::new(form.then(",\"key\":\"")?.text()?).ok()?;
    let order = OrderNumber(form.then(",\"events\":[{\"traded\":{\"order\":")?.number()?);
    let (symbol, side, quantity) = form.then(",")?.deal()?;
    let price = Price::from_cents(form.then(",\"price\":")?.number()?)?;
    form.then("}}]}")?.end()?;
    let traded = Event::Traded { order, symbol, side, quantity, price };
    Some(Entry { seq, epoch, at, key: Some(key), events: vec![traded] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::tests::{check, check_left_to_json};
    use tradenet_schemas::trade::{Quantity, Side, Symbol};

    fn trade(key: &str, symbol: &str, number: u64) -> Entry {
        let traded = Event::Traded {
            order: OrderNumber(number),
            symbol: Symbol::new(symbol).unwrap(),
            side: if number.is_multiple_of(2) { Side::Buy } else { Side::Sell },
            quantity: Quantity::new(number % 1_000).unwrap(),
            price: Price::from_cents(number % 10_000).unwrap(),
        };
        let key = Some(CommandKey::new(key).unwrap());
        Entry { seq: SeqNum(number), epoch: Epoch(7), at: 1_796_007_785_766, key, events: vec![traded] }
    }

    #[test]
    fn trades_are_written_and_read_as_json_would() {
        let trades = [
            trade("g:65871b1b81a0101b-120", "GameStart", 1_020),
            trade("c:a", "x", 0),
            trade("a:ann:k", "$%", u64::MAX),
        ];
        check(&trades, write, read);
    }

    #[test]
    fn what_has_another_form_is_left_to_json() {
        let plain = trade("c:a", "x", 9);
        let two = Entry { events: [&plain.events[..], &plain.events[..]].concat(), ..plain.clone() };
        let keyless = Entry { key: None, ..plain.clone() };
        let others = [trade("c:k\\", "x", 1), trade("c:k\"", "x", 1), trade("c:k", "a\\b", 1), two, keyless];
        check_left_to_json(&others, write, read);
        let text = serde_json::to_string(&plain).unwrap();
        let large = text.replace("\"quantity\":9", &format!("\"quantity\":{}", u64::MAX));
        assert!(large != text && serde_json::from_str::<Entry>(&large).is_err());
        assert_eq!(read(&large), None);
    }
}
