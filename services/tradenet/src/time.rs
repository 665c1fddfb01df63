//! When something happened, for people: UTC, to the millisecond (RFC 3339).

use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};

const FORM: EncodedConfig = Config::DEFAULT
    .set_year_is_six_digits(false)
    .set_time_precision(TimePrecision::Second { decimal_digits: std::num::NonZero::new(3) })
    .encode();

/// Milliseconds since 1970 as `2026-11-21T12:14:38.045Z`; as they stand where they are beyond the year 9999.
pub(crate) fn moment(at_ms: u64) -> String {
    let shown = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000).ok();
    shown.and_then(|at| at.format(&Iso8601::<FORM>).ok()).unwrap_or_else(|| at_ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_to_the_millisecond() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(1_795_284_102_045), "2026-11-21T18:01:42.045Z");
        assert_eq!(moment(u64::MAX), u64::MAX.to_string());
    }
}
