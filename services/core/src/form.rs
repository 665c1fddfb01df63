//! JSON in the one form in which it is written here.
//!
//! Problem: trades with the house are nearly all that is written and read: as submissions, as entries, as outcomes. A writer of JSON
//! looks at each character of each name for what must be escaped; a reader is ready for fields in any order and for any spaces. That
//! took a third of all that a leader's core did.
//! Idea: these few are written word by word, and read word by word. Whatever is not in that form, down to a backslash in a name, is no
//! fault: it is left to the writer and the reader of JSON.
//! Rule kept: what is written here is what they write; what is read here is what they read from the same text.

use memchr::memchr2;
use tradenet_schemas::trade::{Quantity, Side, Symbol};

/// What is left to be read. Where something is not in the form, the answer is none, and nothing of it is of use.
pub(crate) struct Form<'a>(&'a str);

impl<'a> Form<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// Passes over these words, which stand next.
    pub(crate) fn then(&mut self, words: &str) -> Option<&mut Self> {
        self.0 = self.0.strip_prefix(words)?;
        Some(self)
    }

    /// A number without leading zeros, which JSON has none with.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let text = self.0.as_bytes();
        let digit = |at: usize| text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10);
        let (mut number, mut length) = (0_u64, 0);
        while let Some(digit) = digit(length) {
            number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
            length += 1;
        }
        if length == 0 || (length > 1 && text[0] == b'0') {
            return None;
        }
        self.0 = &self.0[length..];
        Some(number)
    }

    /// The rest of a string, without the quote at its end; none where something in it is escaped.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let end = memchr2(b'"', b'\\', self.0.as_bytes())?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix('"')?;
        Some(text)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        if self.then("false").is_some() { Some(false) } else { self.then("true").map(|_| true) }
    }

    /// What a trade is about, between the braces of a command or an event.
    pub(crate) fn deal(&mut self) -> Option<(Symbol, Side, Quantity)> {
        let symbol = Symbol::new(self.then("\"symbol\":\"")?.text()?).ok()?;
        let side = match self.then(",\"side\":\"")?.text()? {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            _ => return None,
        };
        let quantity = Quantity::new(self.then(",\"quantity\":")?.number()?)?;
        Some((symbol, side, quantity))
    }

    /// A list behind its `[`, up to and with its `]`, of things that `read` reads.
    pub(crate) fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        if self.then("]").is_some() {
            return Some(all);
        }
        loop {
            all.push(read(self)?);
            match self.0.as_bytes().first()? {
                b',' => self.0 = &self.0[1..],
                b']' => {
                    self.0 = &self.0[1..];
                    return Some(all);
                }
                _ => return None,
            }
        }
    }

    /// All of it.
    pub(crate) fn rest(&self) -> &'a str {
        self.0
    }

    /// That nothing is left.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// What is being written. The words between values are the caller's; they are not looked at.
pub(crate) struct Sheet<'a>(&'a mut Vec<u8>);

/// Behind what is in `out`, writes all that `write` does, or nothing; tells which.
pub(crate) fn write(out: &mut Vec<u8>, write: impl FnOnce(&mut Sheet<'_>) -> Option<()>) -> bool {
    let start = out.len();
    let whole = write(&mut Sheet(out)).is_some();
    if !whole {
        out.truncate(start);
    }
    whole
}

impl Sheet<'_> {
    pub(crate) fn then(&mut self, words: &str) -> &mut Self {
        self.0.extend_from_slice(words.as_bytes());
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.then(itoa::Buffer::new().format(number))
    }

    /// A text of visible characters, and the quote at its end; none where something in it must be escaped.
    pub(crate) fn text(&mut self, text: &str) -> Option<&mut Self> {
        debug_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
        memchr2(b'"', b'\\', text.as_bytes()).is_none().then(|| self.then(text).then("\""))
    }

    pub(crate) fn flag(&mut self, flag: bool) -> &mut Self {
        self.then(if flag { "true" } else { "false" })
    }

    /// See [`Form::deal`].
    pub(crate) fn deal(&mut self, symbol: &Symbol, side: Side, quantity: Quantity) -> Option<&mut Self> {
        let side = match side {
            Side::Buy => ",\"side\":\"buy\"",
            Side::Sell => ",\"side\":\"sell\"",
        };
        self.then("\"symbol\":\"").text(symbol.as_str())?.then(side).then(",\"quantity\":").number(quantity.get());
        Some(self)
    }

    /// What `write` writes of each, and the `]` behind all of them.
    pub(crate) fn list<T>(
        &mut self,
        all: &[T],
        mut write: impl FnMut(&mut Self, &T) -> Option<()>,
    ) -> Option<&mut Self> {
        for (index, one) in all.iter().enumerate() {
            if index > 0 {
                self.then(",");
            }
            write(self, one)?;
        }
        Some(self.then("]"))
    }

    /// For what is written as JSON.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::Debug;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    /// Checks that these are written in the form, as JSON would be, and read again; and that whatever is read of them once each
    /// character is left out, doubled, or replaced by some others in turn is what is read as JSON.
    pub(crate) fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(
        values: &[T],
        write: fn(&T, &mut Vec<u8>) -> bool,
        read: fn(&str) -> Option<T>,
    ) {
        for value in values {
            let mut written = b"before".to_vec();
            assert!(write(value, &mut written), "{value:?}");
            let text = serde_json::to_string(value).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), format!("before{text}"));
            assert_eq!(read(&text).as_ref(), Some(value));
            for at in 0..text.len() {
                let (before, behind) = text.split_at(at);
                let others = ["", "0", "9", "-", "\"", "\\", " ", "}", ",", "é", "x", &text[at..=at].repeat(2)];
                for other in others {
                    let changed = format!("{before}{other}{}", &behind[1..]);
                    if let Some(read) = read(&changed) {
                        assert_eq!(Some(read), serde_json::from_str(&changed).ok(), "{changed}");
                    }
                }
            }
        }
    }

    /// Checks that of these nothing is written, and nothing is read here of what JSON makes of them.
    pub(crate) fn check_left_to_json<T: Serialize + Debug + PartialEq>(
        values: &[T],
        write: fn(&T, &mut Vec<u8>) -> bool,
        read: fn(&str) -> Option<T>,
    ) {
        for value in values {
            let mut written = b"before".to_vec();
            assert!(!write(value, &mut written), "{value:?}");
            assert_eq!(written, b"before");
            assert_eq!(read(&serde_json::to_string(value).unwrap()), None, "{value:?}");
        }
    }
}
