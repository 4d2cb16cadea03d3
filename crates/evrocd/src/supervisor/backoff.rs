//! When a role that died is started again. Pure.

use std::time::Duration;

/// A role that lived this long was healthy: its death resets the count. Shorter: a role that dies every minute looks healthy each time;
/// longer: a rare crash is answered slowly.
const HEALTHY: Duration = Duration::from_secs(30);
/// First delay after two quick deaths in a row.
const FIRST: Duration = Duration::from_millis(200);
/// Longest delay. Connections wait in the listening sockets that long.
const LONGEST: Duration = Duration::from_secs(10);

/// How many quick deaths in a row, given those before and the life that just ended.
pub fn quick_deaths(before: u32, lived: Duration) -> u32 {
    if lived >= HEALTHY { 1 } else { before.saturating_add(1) }
}

/// Delay before the next start after this many quick deaths in a row: none after the first, then doubling.
pub fn delay(quick_deaths: u32) -> Duration {
    match quick_deaths {
        0 | 1 => Duration::ZERO,
        count => FIRST.saturating_mul(1 << (count - 2).min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_nothing_and_a_loop_slows_down() {
        let milliseconds: Vec<u128> = (0..10).map(|deaths| delay(deaths).as_millis()).collect();
        assert_eq!(milliseconds, [0, 0, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(delay(u32::MAX), LONGEST);
        assert_eq!(quick_deaths(5, Duration::from_secs(1)), 6);
        assert_eq!(quick_deaths(5, Duration::from_secs(31)), 1);
        assert_eq!(quick_deaths(u32::MAX, Duration::ZERO), u32::MAX);
    }
}
