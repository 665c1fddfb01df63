//! Values that are written as text: read without a copy of the text, and hexadecimal numbers without the machinery of
//! `format!`.
//!
//! A message has half a dozen of them, and an entry three. Read and written in the plain way, each is copied first (serde
//! makes an owned `Cow<str>`), or goes through `collect_str`.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Reads a string and makes a value of it.
pub(crate) fn parse<'de, D: Deserializer<'de>, T, E: fmt::Display>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error> {
    struct Text<F, T>(F, PhantomData<T>);
    impl<T, E: fmt::Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'_> for Text<F, T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<D: Error>(self, text: &str) -> Result<T, D> {
            (self.0)(text).map_err(D::custom)
        }
    }
    deserializer.deserialize_str(Text(parse, PhantomData))
}

/// The 16 hexadecimal digits that a 64-bit number is written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HexDigits([u8; 16]);

impl HexDigits {
    /// The digits of that number, the highest first.
    #[must_use]
    pub fn of(number: u64) -> Self {
        let mut digits = [0; 16];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        Self(digits)
    }
    /// The number that exactly 16 lower-case digits stand for; none for any other text.
    pub(crate) fn read(text: &str) -> Option<u64> {
        let digits: &[u8; 16] = text.as_bytes().try_into().ok()?;
        let mut number = 0;
        // All of them before any is judged: an entry has such a number, and a test of each digit takes four times as long.
        let mut seen = 0;
        for digit in digits {
            let value = UNHEX[usize::from(*digit)];
            seen |= value;
            number = number << 4 | u64::from(value & 15);
        }
        (seen < 16).then_some(number)
    }
    /// As bytes, all of them ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// The value of each lower-case hexadecimal digit, and [`NO_DIGIT`] for everything else.
const UNHEX: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value: u8 = 0;
    while value < 16 {
        values[HEX[value as usize] as usize] = value;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = u8::MAX;

fn hex_digit(value: u8) -> u8 {
    HEX[usize::from(value)]
}

/// The value of a lower-case hexadecimal digit.
pub(crate) fn unhex_digit(digit: u8) -> Option<u8> {
    Some(UNHEX[usize::from(digit)]).filter(|value| *value != NO_DIGIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_format_and_nothing_else_is_read() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, u64::MAX] {
            let text = format!("{number:016x}");
            assert_eq!(HexDigits::of(number).as_str(), text);
            assert_eq!(HexDigits::read(&text), Some(number));
        }
        for other in ["", "1", "0000000000000000f", "000000000000000F", "+000000000000001", "00000000000000\u{e9}"] {
            assert_eq!(HexDigits::read(other), None, "{other}");
        }
    }
}
