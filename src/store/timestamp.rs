//! Times as configurations have them (RFC 3339), in whole seconds.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seconds since 1970 that `text` says; `None` if it is no such time. Fractions are dropped.
pub fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let mut date = date.split('-');
    let (year, month, day): (i64, i64, i64) =
        (number(date.next()?)?, number(date.next()?)?, number(date.next()?)?);
    let (clock, zone) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let mut clock = clock.split(':');
    let (hour, minute, second): (i64, i64, i64) =
        (number(clock.next()?)?, number(clock.next()?)?, number(clock.next()?)?);
    let zone = zone.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, zone) => {
            let (hours, minutes) = zone.split_once(':')?;
            let minutes: i64 = number(hours)? * 60 + number(minutes)?;
            minutes * if sign == "-" { -60 } else { 60 }
        }
    };
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
    valid.then(|| days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset)
}

/// Days from 1970-01-01 to this day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The time in RFC 3339, in UTC.
pub fn format(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86400) + 719_468, seconds.rem_euclid(86400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The time that goes into what is made: `SOURCE_DATE_EPOCH` where it is set (reproducible-builds.org), else now.
pub fn of_making() -> i64 {
    let wanted = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or_else(now)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T12:34:56Z", 1_709_210_096),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("1969-12-31T23:59:59Z", -1),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
            assert_eq!(format(seconds), text);
        }
        assert_eq!(parse("2024-02-29T12:34:56.123456789+01:30"), Some(1_709_210_096 - 5400));
        for text in ["", "now", "2024-02-29", "2024-02-29T12:34:56", "2024-13-29T12:34:56Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
