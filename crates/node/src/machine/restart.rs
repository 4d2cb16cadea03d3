//! Whether and when a machine that ended by itself is started again.

use std::time::Duration;

use jiff::Timestamp;

use crate::shim::Exit;

/// First wait after a crash; it doubles with each. Lower burns the host's processors on a guest that cannot start, higher makes
/// a single mishap visible.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest wait; the figure of the kubelet's CrashLoopBackOff.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// A run of this length was a good one: the count of crashes begins anew. As the kubelet does it.
const GOOD_RUN: Duration = Duration::from_secs(600);

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Crashes in a row.
    pub crashes: u32,
}

/// What to do with a machine that has ended and was not asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave it off: the guest powered itself off.
    StayOff,
    /// Start it at `at`, with the new history.
    Restart {
        /// When; in the past means now.
        at: Timestamp,
        /// To be given to the next decision.
        history: History,
        /// Whether it waits because it crashes again and again.
        is_crash_loop: bool,
    },
}

/// Decides. Code 0 means that the guest powered itself off; no code and no signal mean that the end was not the guest's doing
/// (host restarted, shim killed): then it starts again at once.
pub fn decide(exit: &Exit, history: History) -> Decision {
    if exit.is_success() {
        return Decision::StayOff;
    }
    let is_innocent = exit.code.is_none() && exit.signal.is_none() && exit.started_at.is_some();
    if is_innocent {
        return Decision::Restart { at: exit.finished_at, history, is_crash_loop: false };
    }
    let was_good =
        exit.started_at.is_some_and(|start| exit.finished_at.duration_since(start).unsigned_abs() >= GOOD_RUN);
    let crashes = if was_good { 1 } else { history.crashes.saturating_add(1) };
    let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(crashes - 1)).min(LONGEST_WAIT);
    let at = exit.finished_at.checked_add(wait).unwrap_or(exit.finished_at);
    Decision::Restart { at, history: History { crashes }, is_crash_loop: crashes > 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<i32>, signal: Option<i32>, ran_s: i64) -> Exit {
        let finished_at = Timestamp::from_second(1_700_000_000).unwrap();
        let started_at = Some(Timestamp::from_second(1_700_000_000 - ran_s).unwrap());
        Exit { code, signal, started_at, finished_at, ..Exit::default() }
    }

    fn wait_s(exit: &Exit, crashes: u32) -> Option<(i64, u32)> {
        match decide(exit, History { crashes }) {
            Decision::StayOff => None,
            Decision::Restart { at, history, .. } => Some((at.as_second() - 1_700_000_000, history.crashes)),
        }
    }

    #[test]
    fn decisions() {
        let cases = [
            ("the guest powered off", exit(Some(0), None, 5), 0, None),
            ("the shim was killed", exit(None, None, 5), 0, Some((0, 0))),
            ("the host was restarted, in a crash loop", exit(None, None, 5), 3, Some((0, 3))),
            ("first crash", exit(None, Some(11), 5), 0, Some((2, 1))),
            ("third crash", exit(Some(1), None, 5), 2, Some((8, 3))),
            ("a crash after a good run", exit(Some(1), None, 600), 9, Some((2, 1))),
            ("the hundredth crash", exit(Some(1), None, 5), 99, Some((300, 100))),
            ("could not be executed", Exit { started_at: None, ..exit(None, None, 5) }, 0, Some((2, 1))),
        ];
        for (story, exit, crashes, expected) in cases {
            assert_eq!(wait_s(&exit, crashes), expected, "{story}");
        }
    }
}
