//! Stopping all machines with their host.

use std::time::Duration;

use evroc_controller::chain;

use super::Work;
use crate::machine::guests::ObservedMachine;
use crate::machine::owner::{Answer, Order};
use crate::machine::request::Request;
use crate::machine::{StopManner, Stopped};

impl Work {
    /// Stops every guest; the next start of the host runs them again. Returns how many powered off on request, and how many were
    /// ended.
    ///
    /// To be called with the flag of a drain set: a start that has not begun its turn by then is refused, and one that has is waited
    /// for here, because its machine has an owner.
    pub(super) async fn stop_all(&self, grace: Duration) -> (u32, u32) {
        let uids = match self.owned.uids().await {
            Ok(uids) => uids,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot list machines");
                return (0, 0);
            }
        };
        let stops = uids.into_iter().map(|uid| async move { self.stop_with_host(&uid, grace).await });
        let outcomes = futures::future::join_all(stops).await;
        let count =
            |wanted: bool| u32::try_from(outcomes.iter().filter(|o| **o == Some(wanted)).count()).unwrap_or(u32::MAX);
        (count(true), count(false))
    }

    /// Whether the guest powered itself off; `None` if none ran.
    async fn stop_with_host(&self, uid: &str, grace: Duration) -> Option<bool> {
        let is_starting = self.owned.doing(uid) == Some(Request::Start);
        if !is_starting
            && matches!(self.guests().observe(uid).await, Ok(ObservedMachine::Absent | ObservedMachine::Ended(_)))
        {
            return None;
        }
        // Written before the stop: a host that loses power in between starts the machine again.
        if let Err(error) = std::fs::write(self.stopped_with_host.join(uid), b"") {
            tracing::warn!(uid, %error, "a machine may not be started again by itself");
        }
        match self.owned.ask(uid, Order::Stop(grace)).await {
            Ok(Answer::Stopped(Some(Stopped { manner: StopManner::AlreadyEnded, .. }) | None)) => None,
            Ok(Answer::Stopped(Some(stopped))) => Some(stopped.manner == StopManner::PoweredOff),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(uid, error = chain(&error), "cannot stop a machine");
                Some(false)
            }
        }
    }
}
