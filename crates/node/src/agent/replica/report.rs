//! Writes what was found out of a container into the status of its replica.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Replica, ReplicaPhase, ReplicaStatus};
use evroc_controller::{Result, write_status};
use kube::ResourceExt;
use kube::api::Api;

use super::Replicas;

/// The condition that says whether the host can observe the container.
pub const OBSERVED: &str = "Observed";

impl Replicas {
    pub(super) async fn report(
        &self,
        api: &Api<Replica>,
        replica: &Replica,
        phase: ReplicaPhase,
        verdict: &Verdict,
    ) -> Result<()> {
        let mut status: ReplicaStatus = replica.status.clone().unwrap_or_default();
        status.phase = Some(phase);
        conditions::set(&mut status.conditions, READY, verdict, replica.metadata.generation, self.base.now());
        write_status(api, replica, &status).await.map(|_| ())
    }

    pub(super) async fn fail(&self, api: &Api<Replica>, replica: &Replica, why: &Verdict) -> Result<()> {
        tracing::info!(replica = replica.name_any(), reason = why.reason, message = why.message, "replica failed");
        self.report(api, replica, ReplicaPhase::Failed, why).await
    }

    /// Reports that the container cannot be observed. Its condition Ready stays as it was.
    pub(super) async fn report_unseen(&self, api: &Api<Replica>, replica: &Replica, why: &Verdict) -> Result<()> {
        let mut status: ReplicaStatus = replica.status.clone().unwrap_or_default();
        if status.phase != Some(ReplicaPhase::Unknown) {
            tracing::warn!(replica = replica.name_any(), message = why.message, "container cannot be observed");
        }
        status.phase = Some(ReplicaPhase::Unknown);
        conditions::set(&mut status.conditions, OBSERVED, why, replica.metadata.generation, self.base.now());
        write_status(api, replica, &status).await.map(|_| ())
    }

    /// Puts the condition Observed right once the container can be observed again.
    pub(super) async fn settle_observed(&self, api: &Api<Replica>, replica: &Replica) -> Result<()> {
        let mut status: ReplicaStatus = replica.status.clone().unwrap_or_default();
        let is_settled = status.phase == Some(ReplicaPhase::Running)
            && conditions::get(&status.conditions, OBSERVED).is_none_or(|observed| observed.status == "True");
        if is_settled {
            return Ok(());
        }
        status.phase = Some(ReplicaPhase::Running);
        if conditions::get(&status.conditions, OBSERVED).is_some() {
            let seen = Verdict::yes("Observed", "the host can observe the container");
            conditions::set(&mut status.conditions, OBSERVED, &seen, replica.metadata.generation, self.base.now());
        }
        write_status(api, replica, &status).await.map(|_| ())
    }
}
