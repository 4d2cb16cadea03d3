//! Replicas: Starting, then Running or Failed; ended when the gateway has let them go.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Replica, ReplicaPhase};
use evroc_api::{GATEWAY_FINALIZER, NODE_FINALIZER};
use evroc_controller::{Result, remove_finalizer, write_status};
use kube::ResourceExt;

use super::Agent;

impl Agent {
    pub(super) async fn step_replica(&self, replica: &Replica) -> Result<()> {
        let uid = replica.uid().unwrap_or_default();
        let phase = replica.status.as_ref().and_then(|s| s.phase);
        if replica.metadata.deletion_timestamp.is_some() {
            return self.end_replica(replica, &uid).await;
        }
        let (phase, verdict) = match phase {
            None | Some(ReplicaPhase::Pending) => {
                (ReplicaPhase::Starting, Verdict::no("Starting", "the container is being started"))
            }
            Some(ReplicaPhase::Starting) => match &self.behaviour.replica_failure {
                Some((reason, message)) => (ReplicaPhase::Failed, Verdict::no(reason, message.clone())),
                None if self.behaviour.replicas_never_ready => return Ok(()),
                None => {
                    let mut book = self.book();
                    book.starts.push(format!("Replica/{}", replica.name_any()));
                    book.replicas.insert(uid, replica.name_any());
                    (ReplicaPhase::Running, Verdict::yes("Ready", "the container accepts connections"))
                }
            },
            Some(ReplicaPhase::Running | ReplicaPhase::Stopping | ReplicaPhase::Failed | ReplicaPhase::Unknown) => {
                return Ok(());
            }
        };
        let mut status = replica.status.clone().unwrap_or_default();
        status.phase = Some(phase);
        conditions::set(&mut status.conditions, READY, &verdict, replica.metadata.generation, self.context.now());
        write_status(&self.api(replica), replica, &status).await.map(|_| ())
    }

    /// A container that runs is drained by the gateway first; one that does not has no requests.
    async fn end_replica(&self, replica: &Replica, uid: &str) -> Result<()> {
        let is_held = replica.finalizers().iter().any(|f| f == GATEWAY_FINALIZER);
        if is_held && self.book().replicas.contains_key(uid) {
            return Ok(());
        }
        self.book().replicas.remove(uid);
        let api = self.api(replica);
        remove_finalizer(&api, replica, NODE_FINALIZER).await?;
        match evroc_controller::get(&api, &replica.name_any()).await? {
            Some(left) if is_held && left.uid() == replica.uid() => {
                remove_finalizer(&api, &left, GATEWAY_FINALIZER).await
            }
            _ => Ok(()),
        }
    }
}
