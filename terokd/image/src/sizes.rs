//! Sizes and ages as humans read them.

use jiff::Timestamp;

const SI: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

fn scaled(bytes: u64) -> (f64, usize) {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < SI.len() {
        value /= 1000.0;
        unit += 1;
    }
    (value, unit)
}

/// A size in image lists, as Podman shows it: three significant digits.
pub fn image(bytes: u64) -> String {
    let (value, unit) = scaled(bytes);
    let decimals = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text} {}", SI[unit])
}

/// How long ago something was made, as Podman tells it.
pub fn age(created: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(created.as_second()).max(0);
    let hours = (seconds + 1800) / 3600;
    let span = match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    };
    format!("{span} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written() {
        for (bytes, text) in [
            (0, "0 B"),
            (6660, "6.66 kB"),
            (1_200_000_000, "1.2 GB"),
            (123_456_789, "123 MB"),
            (200_000, "200 kB"),
        ] {
            assert_eq!(image(bytes), text);
        }
    }

    #[test]
    fn ages_are_told() {
        let now = Timestamp::from_second(1_700_000_000).expect("in range");
        let ago = |seconds: i64| {
            age(
                Timestamp::from_second(1_700_000_000 - seconds).expect("in range"),
                now,
            )
        };
        for (seconds, text) in [
            (-5, "Less than a second ago"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (60, "About a minute ago"),
            (3599, "59 minutes ago"),
            (3600, "About an hour ago"),
            (2 * 86400, "2 days ago"),
            (20 * 86400, "2 weeks ago"),
            (90 * 86400, "3 months ago"),
            (1000 * 86400, "2 years ago"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }
}
