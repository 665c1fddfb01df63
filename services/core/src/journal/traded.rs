//! Trades with the house, read as they are written.
//!
//! Problem: nearly every entry is a trade with the house, and followers and catalog read each one, as every replica does once more when it
//! makes a snapshot. A reader of JSON is ready for fields in any order and for any spaces, and takes three times as many instructions
//! for it as this one.
//! Idea: [`encode`](super::encode) writes such an entry in one form, so it is read in that form, word by word. Whatever is not in that
//! form, down to a backslash in a name, is no fault: it is read as JSON.
//! Rule kept: what is read here is what is read as JSON from the same text.

use memchr::memchr;
use tradenet_schemas::ids::{Epoch, OrderNumber, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::trade::{CommandKey, Price, Quantity, Side, Symbol};

/// The entry in `text`, if it is a trade with the house in the usual form.
pub(super) fn read(text: &str) -> Option<Entry> {
    let mut form = Form(text);
    let seq = SeqNum(form.then("{\"seq\":")?.number()?);
    let epoch = Epoch(form.then(",\"epoch\":")?.number()?);
    let at = form.then(",\"at\":")?.number()?;
    let key = CommandKey::new(form.then(",\"key\":\"")?.text()?).ok()?;
    let order = OrderNumber(form.then(",\"events\":[{\"traded\":{\"order\":")?.number()?);
    let symbol = Symbol::new(form.then(",\"symbol\":\"")?.text()?).ok()?;
    let side = match form.then(",\"side\":\"")?.text()? {
        "buy" => Side::Buy,
        "sell" => Side::Sell,
        _ => return None,
    };
    let quantity = Quantity::new(form.then(",\"quantity\":")?.number()?)?;
    let price = Price::from_cents(form.then(",\"price\":")?.number()?)?;
    let traded = Event::Traded { order, symbol, side, quantity, price };
    (form.0 == "}}]}").then(|| Entry { seq, epoch, at, key: Some(key), events: vec![traded] })
}

/// What is left to be read.
struct Form<'a>(&'a str);

impl<'a> Form<'a> {
    /// Passes over these words, which stand next.
    fn then(&mut self, words: &str) -> Option<&mut Self> {
        self.0 = self.0.strip_prefix(words)?;
        Some(self)
    }

    /// A number without leading zeros, which JSON has none with.
    fn number(&mut self) -> Option<u64> {
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        if digits.starts_with('0') && length > 1 { None } else { digits.parse().ok() }
    }

    /// The rest of a string, without the quote at its end; none where something in it is escaped.
    fn text(&mut self) -> Option<&'a str> {
        let (text, rest) = self.0.split_at(memchr(b'"', self.0.as_bytes())?);
        self.0 = &rest[1..];
        (memchr(b'\\', text.as_bytes()).is_none()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`read`] must not differ from.
    fn as_json(text: &str) -> Option<Entry> {
        serde_json::from_str(text).ok()
    }

    fn trade(key: &str, symbol: &str, number: u64) -> String {
        let traded = Event::Traded {
            order: OrderNumber(number),
            symbol: Symbol::new(symbol).unwrap(),
            side: if number.is_multiple_of(2) { Side::Buy } else { Side::Sell },
            quantity: Quantity::new(number % 1_000).unwrap(),
            price: Price::from_cents(number % 10_000).unwrap(),
        };
        let key = Some(CommandKey::new(key).unwrap());
        let entry = Entry { seq: SeqNum(number), epoch: Epoch(7), at: 1_796_007_785_766, key, events: vec![traded] };
        serde_json::to_string(&entry).unwrap()
    }

    #[test]
    fn trades_in_the_usual_form_are_read_here() {
        let check = |text: &str| {
            let read = read(text);
            assert!(read.is_some(), "{text}");
            assert_eq!(read, as_json(text), "{text}");
        };
        check(&trade("g:65871b1b81a0101b-12", "GameStart", 0));
        check(&trade("c:a", "x", 9));
        check(&trade("a:ann:k", "$%", u64::MAX));
    }

    /// Each character is left out, doubled, and replaced by some others in turn: what is read then is the same as JSON, or left to it.
    #[test]
    fn whatever_is_read_here_is_what_is_read_as_json() {
        let texts = [
            trade("g:65871b1b81a0101b-120", "GameStart", 1_020),
            trade("c:k\\\"", "a\\b\"", 3),
            trade("a:ann:k", "$%", u64::MAX),
        ];
        for text in &texts {
            assert_eq!(as_json(text).map(|entry| serde_json::to_string(&entry).unwrap()).as_ref(), Some(text));
            for at in 0..text.len() {
                let (before, behind) = text.split_at(at);
                let others = ["", "0", "9", "-", "\"", "\\", " ", "}", ",", "é", "x", &text[at..=at].repeat(2)];
                for other in others {
                    let changed = format!("{before}{other}{}", &behind[1..]);
                    if let Some(entry) = read(&changed) {
                        assert_eq!(Some(entry), as_json(&changed), "{changed}");
                    }
                }
            }
        }
        let large = trade("c:k", "x", 1).replace("\"quantity\":1", &format!("\"quantity\":{}", u64::MAX));
        assert_eq!((read(&large), as_json(&large)), (None, None));
    }
}
