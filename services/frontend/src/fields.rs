//! Bodies and their fields, read so that each mistake can be named in its own words.
//!
//! The rules: a body is JSON whatever its `Content-Type` says; numbers are read by their digits and never through a float;
//! a field that is there twice is malformed, since nobody can tell which one is meant.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The object in a body.
///
/// # Errors
/// Why it is none.
pub(crate) fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    // serde would also take an array of the fields' values.
    if !text.trim_ascii_start().starts_with('{') {
        return Err("it does not start with {".to_owned());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The value of a JSON string.
pub(crate) fn string(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    // A borrowed `Cow` does not come by itself: serde makes owned ones unless told, and escapes need one.
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw?.get()).ok().map(|text| text.0)
}

/// The whole number above 0 that stands in a URL, in plain digits: `parse` alone would take a leading `+`.
pub(crate) fn positive(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0)
}

/// The value of a JSON number, if it is whole, not below 0, and fits: `1`, `1.0`, `10e-1` and `1E0` are all one.
pub(crate) fn whole(number: &str) -> Option<u64> {
    number.parse().ok().or_else(|| scaled(number, 0))
}

/// The cents of an amount of money, if it has no more than two decimals, is not below 0, and fits.
pub(crate) fn cents(number: &str) -> Option<u64> {
    scaled(number, 2)
}

/// The value of a JSON number times 10 to the power of `places`, if that is whole, not below 0, and fits.
///
/// By its digits, not through a float: above 2^53 floats round, and `1.00000000000000001` would be one.
fn scaled(number: &str, places: i64) -> Option<u64> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (units, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{units}{fraction}");
    let decimals = i64::try_from(fraction.len()).ok()?;
    let shift = exponent.parse::<i64>().ok()?.checked_add(places)?.checked_sub(decimals)?;
    if shift < 0 {
        let kept = digits.len().saturating_sub(usize::try_from(shift.unsigned_abs()).ok()?);
        let dropped = digits.split_off(kept);
        if dropped.bytes().any(|digit| digit != b'0') {
            return None;
        }
        // Nothing is left of `0.0`.
        digits.insert(0, '0');
    }
    let zeros = u32::try_from(shift.max(0)).ok()?;
    digits.parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(zeros)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_read_by_its_digits() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(whole(text), expected, "{text}");
        for one in ["1", "1.0", "1e0", "10e-1", "0.1E1", "0.01e+2", "1000.000e-3"] {
            check(one, Some(1));
        }
        for none in ["0.5", "1.00000000000000001", "15e-1", "-1", "\"1\"", "true", "[1]", "1e400", "1e-400", "1e20"] {
            check(none, None);
        }
        for none in ["18446744073709551616", "1e99999999999999999999", "0.1e-9223372036854775808", "{}", "-1.0"] {
            check(none, None);
        }
        check("0", Some(0));
        check("0.0", Some(0));
        check("0e5", Some(0));
        check("1e19", Some(10_000_000_000_000_000_000));
        check("18446744073709551615", Some(u64::MAX));
        check("9007199254740993", Some((1 << 53) + 1));
        check("9007199254740993.0", Some((1 << 53) + 1));
    }

    #[test]
    fn money_is_read_by_its_digits() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(cents(text), expected, "{text}");
        for hundred in ["1", "1.0", "1.00", "1e0", "100e-2", "0.1E1", "1.000"] {
            check(hundred, Some(100));
        }
        for none in ["0.001", "1.005", "-1", "\"1\"", "true", "1e400", "184467440737095517"] {
            check(none, None);
        }
        check("15.99", Some(1_599));
        check("0.01", Some(1));
        check("0", Some(0));
        check("184467440737095516.15", Some(u64::MAX));
    }
}
