//! Writes of ledgers that are under way, one lane for each ledger.
//!
//! A write that takes from a ledger need not wait until the one before it is on disk: it counts what that one takes as taken, and is sent to the
//! store after it on condition that the ledger's key has the value that the one before writes ([`Before::Written`]). If that one is not
//! committed, the condition does not hold, and this one is checked again.
//!
//! ```text
//! turn: check against cache + lane ──> enter the lane ──> sent to the store ──> next turn
//!                                                              │ committed: counts until the cache has it
//!                                                              └ refused or unknown: no write enters until the lane is empty
//! ```
//! Nothing here has to be right for the sums to be right: the transaction refuses a write whose ledger is not what its check saw. It has to be
//! right for writes not to be refused again and again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::Either;
use tokio::sync::{OwnedMutexGuard, watch};

use crate::state::storage::claims::{Before, Mark};

/// The lanes of all ledgers.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Held from a write's check until it has been sent, so that the store receives the writes in the order of their checks.
    turn: Arc<tokio::sync::Mutex<()>>,
    lanes: Mutex<HashMap<String, Lane>>,
    ended: watch::Sender<u64>,
}

/// The writes of one ledger that the cache does not have yet, in the order of their checks.
#[derive(Debug, Default)]
struct Lane {
    writes: VecDeque<Entry>,
    /// A write was refused, or its outcome is unknown: the sums of the writes after it may be wrong.
    is_broken: bool,
}

#[derive(Debug)]
struct Entry {
    mark: Mark,
    /// The amounts in addition to those that its object took, by resource.
    takes: Vec<(String, u128)>,
    /// Known once it is on disk.
    revision: Option<u64>,
}

/// The event that a check has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The end of any write.
    Ended,
    /// The cache has reached a revision.
    Cached(u64),
}

impl Lane {
    /// Leaves out what a cache at `revision` has counted.
    fn settle(&mut self, revision: u64) {
        while self.writes.front().and_then(|first| first.revision).is_some_and(|written| written <= revision) {
            self.writes.pop_front();
        }
        self.is_broken &= !self.writes.is_empty();
    }

    /// Returns what the next write has to find; `None` if the cache knows.
    fn tail(&self) -> Option<Before> {
        let last = self.writes.back()?;
        Some(last.revision.map_or_else(|| Before::Written(last.mark.clone()), Before::Revision))
    }

    fn taken(&self, resource: &str) -> u128 {
        let takes = self.writes.iter().flat_map(|write| &write.takes);
        takes.filter(|(of, _)| of == resource).map(|(_, amount)| amount).sum()
    }

    fn until(&self) -> Until {
        match self.writes.back().and_then(|last| last.revision) {
            Some(revision) if self.writes.iter().all(|write| write.revision.is_some()) => Until::Cached(revision),
            _ => Until::Ended,
        }
    }

    fn end(&mut self, mark: &Mark, revision: Option<u64>) {
        match revision {
            Some(_) => {
                for write in self.writes.iter_mut().filter(|write| write.mark == *mark) {
                    write.revision = revision;
                }
            }
            // It may have been committed: what follows counts until the cache has it, and with it this one.
            None => {
                self.writes.retain(|write| write.mark != *mark);
                self.is_broken = !self.writes.is_empty();
            }
        }
    }
}

/// The state of a ledger's lane for a check.
pub(super) struct View {
    /// The state that the write has to find; `None` if the cache knows.
    pub(super) before: Option<Before>,
    /// The amount of the writes that the cache may not have.
    pub(super) taken: u128,
    /// The event to wait for where that is too much.
    pub(super) until: Until,
}

impl Lanes {
    /// Returns a receiver that changes at the end of any write.
    pub(super) fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Waits for the turn to check and to send.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// Returns the state of a ledger's lane beside a cache at `revision`.
    ///
    /// # Errors
    /// What to wait for before anybody may enter.
    pub(super) fn view(&self, ledger: &str, resource: &str, revision: u64) -> Result<View, Until> {
        let mut lanes = self.lock();
        let Some(lane) = lanes.get_mut(ledger) else {
            return Ok(View { before: None, taken: 0, until: Until::Ended });
        };
        lane.settle(revision);
        if lane.is_broken {
            return Err(lane.until());
        }
        let view = View { before: lane.tail(), taken: lane.taken(resource), until: lane.until() };
        if lane.writes.is_empty() {
            lanes.remove(ledger);
        }
        Ok(view)
    }

    /// Enters the lanes of ledgers with what the write takes from each.
    pub(super) fn enter(
        self: &Arc<Self>,
        turn: OwnedMutexGuard<()>,
        mark: Mark,
        takes: HashMap<String, Vec<(String, u128)>>,
    ) -> UnderWay {
        let ledgers = takes.keys().cloned().collect();
        let mut lanes = self.lock();
        for (ledger, takes) in takes {
            lanes.entry(ledger).or_default().writes.push_back(Entry { mark: mark.clone(), takes, revision: None });
        }
        drop(lanes);
        UnderWay { lanes: self.clone(), turn: Some(turn), mark, ledgers, revision: None }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write in its lanes. Dropping it ends it.
pub(crate) struct UnderWay {
    lanes: Arc<Lanes>,
    turn: Option<OwnedMutexGuard<()>>,
    mark: Mark,
    ledgers: Vec<String>,
    revision: Option<u64>,
}

impl UnderWay {
    /// The value that the write gives to its ledgers' keys.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Sends the write, and ends the turn as soon as it has been sent.
    pub(crate) async fn send<T>(&mut self, mut write: impl Future<Output = T> + Unpin) -> T {
        // The first poll puts the transaction into the store's queue.
        let first = match futures::poll!(&mut write) {
            std::task::Poll::Ready(outcome) => Either::Left(std::future::ready(outcome)),
            std::task::Poll::Pending => Either::Right(write),
        };
        self.turn = None;
        first.await
    }

    /// Notes that the write is on disk.
    pub(crate) fn committed(mut self, revision: u64) {
        self.revision = Some(revision);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lock();
        for ledger in &self.ledgers {
            let Some(lane) = lanes.get_mut(ledger) else { continue };
            match self.turn {
                // Never sent, so no write follows it.
                Some(_) => drop(lane.writes.pop_back()),
                None => lane.end(&self.mark, self.revision),
            }
            if lane.writes.is_empty() {
                lanes.remove(ledger);
            }
        }
        drop(lanes);
        self.lanes.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(marks: &[&'static str]) -> Lane {
        let entry = |mark: &&'static str| Entry {
            mark: Mark::from_static(mark.as_bytes()),
            takes: vec![("memory".to_owned(), 1), ("disk".to_owned(), 2)],
            revision: None,
        };
        Lane { writes: marks.iter().map(entry).collect(), is_broken: false }
    }

    #[test]
    fn a_write_counts_until_the_cache_has_it() {
        let mut lane = lane(&["a", "b"]);
        assert_eq!((lane.taken("memory"), lane.taken("disk"), lane.until()), (2, 4, Until::Ended));
        assert_eq!(lane.tail(), Some(Before::Written("b".into())));
        lane.end(&"a".into(), Some(7));
        lane.settle(6);
        assert_eq!((lane.taken("memory"), lane.until()), (2, Until::Ended));
        lane.end(&"b".into(), Some(9));
        assert_eq!((lane.tail(), lane.until()), (Some(Before::Revision(9)), Until::Cached(9)));
        lane.settle(8);
        assert_eq!(lane.taken("memory"), 1);
        lane.settle(9);
        assert_eq!((lane.taken("memory"), lane.tail()), (0, None));
    }

    #[test]
    fn after_a_failure_nobody_enters_until_the_lane_is_empty() {
        let mut lane = lane(&["a", "b", "c"]);
        lane.end(&"a".into(), None);
        lane.settle(100);
        assert!(lane.is_broken);
        // The outcome of the first was unknown, and it was committed: so was the one after it.
        lane.end(&"b".into(), Some(101));
        lane.end(&"c".into(), None);
        lane.settle(100);
        assert!(lane.is_broken && lane.until() == Until::Cached(101));
        lane.settle(101);
        assert!(!lane.is_broken && lane.tail().is_none());
    }
}
