//! Volumes: made at once, deleted when no machine has them any more.

use evroc_api::NODE_FINALIZER;
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::Volume;
use evroc_controller::{Result, remove_finalizer, write_status};
use kube::ResourceExt;

use super::Agent;

impl Agent {
    pub(super) async fn step_volume(&self, volume: &Volume) -> Result<()> {
        let api = self.api(volume);
        let key = format!("{}/{}", volume.namespace().unwrap_or_default(), volume.name_any());
        if volume.metadata.deletion_timestamp.is_some() {
            if self.behaviour.volumes_never_go {
                return Ok(());
            }
            if self.book().machines.values().any(|m| m.volumes.contains(&key)) {
                return Ok(());
            }
            return remove_finalizer(&api, volume, NODE_FINALIZER).await;
        }
        if self.behaviour.volumes_never_ready {
            return Ok(());
        }
        let missing = volume.spec.image.as_ref().filter(|image| self.behaviour.missing_images.contains(*image));
        let verdict = match missing {
            None => Verdict::yes("Ready", "the volume is on the host"),
            Some(image) => Verdict::no("DiskImageFailed", format!("image {image} is not on host {}", self.name)),
        };
        let mut status = volume.status.clone().unwrap_or_default();
        conditions::set(&mut status.conditions, READY, &verdict, volume.metadata.generation, self.context.now());
        write_status(&api, volume, &status).await.map(|_| ())
    }
}
