//! The end of a machine: one that is deleted, one that lost its shim, and what is forgotten of it.

use std::time::Duration;

use evroc_api::NODE_FINALIZER;
use evroc_api::conditions::Verdict;
use evroc_api::infra::{Machine, MachinePhase};
use evroc_controller::chain;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::Work;
use super::step::{Next, Outcome, TRY_AGAIN, part, phase_of, status};
use crate::agent::host::Topic;
use crate::machine::owner::Order;

/// How long a guest gets to power itself off. Too low loses its unwritten data; too high keeps a hung guest from ending.
const GRACE: Duration = Duration::from_secs(60);

impl Work {
    pub(super) async fn end_orphan(&self, machine: &Machine, uid: &str, reason: &str) -> Outcome {
        tracing::info!(machine = machine.name_any(), uid, reason, "end a hypervisor that lost its shim");
        self.watched().remove(uid);
        match self.owned.ask(uid, Order::EndOrphan).await {
            Ok(_) => Outcome::next(Next::Again(Duration::ZERO)),
            Err(error) => {
                tracing::warn!(machine = machine.name_any(), uid, error = chain(&error), "cannot end a hypervisor");
                Outcome::next(Next::Again(TRY_AGAIN))
            }
        }
    }

    /// Stops the guest in good order and removes every trace of it.
    pub(super) async fn end(&self, machine: &Machine, uid: &str, now: Timestamp) -> Outcome {
        if !machine.finalizers().iter().any(|f| f == NODE_FINALIZER) {
            return Outcome::next(Next::AwaitChange);
        }
        let lives = [MachinePhase::Running, MachinePhase::Paused, MachinePhase::Unknown];
        if phase_of(machine).is_some_and(|phase| lives.contains(&phase)) {
            let stopping = Verdict::no("Stopping", "the guest was asked to power off");
            return Outcome::report(
                status(machine, MachinePhase::Stopping, &stopping, now),
                Next::Again(Duration::ZERO),
            );
        }
        let ended = async {
            // From here on its leftovers may be removed, also after a restart that finds no object.
            self.guests().mark_deleted(uid).await.map_err(|error| chain(&error))?;
            self.owned.ask(uid, Order::Stop(GRACE)).await.map_err(|error| chain(&error))?;
            self.owned.ask(uid, Order::Remove).await.map_err(|error| chain(&error))?;
            self.network.remove_port(&machine.spec.network.vpc_uid, uid).await.map_err(|error| chain(&error))
        };
        if let Err(error) = ended.await {
            tracing::warn!(machine = machine.name_any(), uid, error, "cannot remove a machine, will be tried again");
            return Outcome::next(Next::Again(TRY_AGAIN));
        }
        self.forget(uid);
        Outcome::next(Next::RemoveFinalizer)
    }

    /// Forgets a machine that is no longer on this host.
    pub(super) fn forget(&self, uid: &str) {
        self.watched().remove(uid);
        self.failed_looks().remove(uid);
        self.conditions.clear(Topic::RecordsReadable, &part(uid));
        self.conditions.clear(Topic::NoOrphans, &part(uid));
        // An absent one is fine.
        let _ = std::fs::remove_file(self.stopped_with_host.join(uid));
    }
}
