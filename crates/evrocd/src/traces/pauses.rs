//! When a collector that fails is asked again, and what the log says about it.

use std::time::{Duration, Instant};

/// The first pause after a failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause. Too high loses spans after the collector is back; too low sends much to one that is not.
const LONGEST: Duration = Duration::from_secs(60);

/// The failures in a row.
#[derive(Debug, Default)]
pub struct Pauses {
    until: Option<Instant>,
    pause: Duration,
}

impl Pauses {
    /// Whether a message may be sent now.
    pub fn may_send(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// A message arrived. Returns whether this is news.
    pub fn worked(&mut self) -> bool {
        self.pause = Duration::ZERO;
        self.until.take().is_some()
    }

    /// A message did not arrive. Returns whether this is news.
    pub fn failed(&mut self, now: Instant) -> bool {
        let is_news = self.until.is_none();
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        self.until = Some(now + self.pause);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_only_changes_are_news() {
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        assert!(pauses.may_send(now) && !pauses.worked());
        let mut seconds = Vec::new();
        for round in 0..8 {
            assert_eq!(pauses.failed(now), round == 0);
            assert!(!pauses.may_send(now));
            let until = pauses.until.expect("a pause");
            seconds.push((until - now).as_secs());
            now = until;
            assert!(pauses.may_send(now));
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(pauses.worked() && !pauses.worked());
        assert!(pauses.failed(now), "the next failure is news again");
        assert_eq!(pauses.until, Some(now + FIRST));
    }
}
