//! Numbers, times and names for people.

use std::borrow::Cow;
use std::fmt::Write as _;

pub use heaptide_capture::bytes_text;

/// A number with separators: `1,234,567`.
#[must_use]
pub fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `part` of `whole` in percent, one decimal.
#[must_use]
pub fn percent_text(part: u64, whole: u64) -> String {
    format!("{:.1}%", percent(part, whole))
}

pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

/// Nanoseconds since the Unix epoch as `2026-01-02 03:04:05.678901+00:00`; empty for zero.
#[must_use]
pub fn time_text(unix_ns: u64) -> String {
    if unix_ns == 0 {
        return String::new();
    }
    let (seconds, nanos) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06}+00:00",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        nanos / 1000
    )
}

/// The Gregorian date of a day since 1970-01-01. Counts in years that begin in March, so that the
/// leap day is the last day of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_0000_03_01: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_0000_03_01;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// A name with everything that a terminal would obey or hide made visible: control characters,
/// line separators, and the marks that change the direction of text.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_invisible(character) {
            let point = u32::from(character);
            // Infallible: writing to a `String`.
            let _ = if point < 0x100 {
                write!(shown, "\\x{point:02x}")
            } else {
                write!(shown, "\\u{point:04x}")
            };
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_shares() {
        assert_eq!(count_text(0), "0");
        assert_eq!(count_text(999), "999");
        assert_eq!(count_text(1_234_567), "1,234,567");
        assert_eq!(percent_text(1, 3), "33.3%");
        assert_eq!(percent_text(1, 0), "0.0%");
    }

    #[test]
    fn times() {
        assert_eq!(
            time_text(1_767_323_045_678_901_234),
            "2026-01-02 03:04:05.678901+00:00"
        );
        assert_eq!(
            time_text(951_782_400_000_000_000),
            "2000-02-29 00:00:00.000000+00:00"
        );
        assert_eq!(time_text(0), "");
        assert_eq!(time_text(u64::MAX), "2554-07-21 23:34:33.709551+00:00");
    }

    #[test]
    fn nothing_hides() {
        assert_eq!(visible("plain ü 😀"), "plain ü 😀");
        assert_eq!(visible("a\x1b[31mb\n"), "a\\x1b[31mb\\x0a");
        assert_eq!(visible("a\u{202e}b\u{85}"), "a\\u202eb\\x85");
    }
}
