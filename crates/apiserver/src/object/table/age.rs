//! Ages in the form for people (`k8s.io/apimachinery/pkg/util/duration.HumanDuration`).

use jiff::Timestamp;

/// The age of a moment in two or three figures: `0s`, `119s`, `2m`, `9m59s`, `3h`, `7h59m`, `2d1h`, `2y35d`.
/// A moment more than a second ahead is `<invalid>`.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = seconds / 3600;
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
    };
    match () {
        () if seconds < -1 => "<invalid>".to_string(),
        () if seconds < 0 => "0s".to_string(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(hours / 24, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        () => format!("{}y", hours / 24 / 365),
    }
}

/// The age of an RFC 3339 time: `<unknown>` without one, `<invalid>` if it is not a time.
pub(super) fn age(time: Option<&str>, now: Timestamp) -> String {
    match time {
        None | Some("") => "<unknown>".to_string(),
        Some(text) => match text.parse::<Timestamp>() {
            Ok(time) => human_duration(((now.as_nanosecond() - time.as_nanosecond()) / 1_000_000_000) as i64),
            Err(_) => "<invalid>".to_string(),
        },
    }
}
