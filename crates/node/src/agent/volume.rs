//! Volume -> file. A volume is made when it is bound to this host and deleted with its object; a machine that has it keeps it.
//!
//! Who writes what: this module writes Volume.status and the host's finalizer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::NODE_FINALIZER;
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Machine, Volume};
use evroc_controller::{
    Context, Result, api_error, chain, controller, drive, get, remove_finalizer, retry, write_status,
};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::watcher;

use crate::volume::{VolumeError, VolumeStore};

/// How long a volume that could not be made or deleted waits for the next try.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Keeps the volumes of this host.
pub struct Volumes {
    /// API and clock.
    pub base: Context,
    /// This host.
    pub host: String,
    /// The files.
    pub store: VolumeStore,
}

impl Volumes {
    /// Says which files belong to no volume. Data is never deleted on suspicion: an operator does.
    pub async fn report_orphans(&self) -> Result<()> {
        let own = ListParams::default().fields(&format!("spec.hostName={}", self.host));
        let wanted =
            Api::<Volume>::all(self.base.client.clone()).list(&own).await.map_err(api_error("list volumes"))?;
        let wanted: BTreeSet<String> = wanted.items.iter().filter_map(ResourceExt::uid).collect();
        match self.store.list() {
            Ok(known) => {
                known.difference(&wanted).for_each(|uid| tracing::warn!(uid, "a volume's file belongs to no volume"))
            }
            Err(error) => tracing::warn!(%error, "cannot list volumes"),
        }
        Ok(())
    }
}

/// Runs the controller until the process ends.
pub async fn run(volumes: Arc<Volumes>) {
    let own = watcher::Config::default().fields(&format!("spec.hostName={}", volumes.host));
    let stream = controller(Api::<Volume>::all(volumes.base.client.clone()), own).run(
        reconcile,
        |object, error, this: Arc<Volumes>| retry(object, error, Arc::new(this.base.clone())),
        volumes,
    );
    drive(stream.boxed()).await;
}

async fn reconcile(volume: Arc<Volume>, this: Arc<Volumes>) -> Result<Action> {
    let namespace = volume.namespace().unwrap_or_default();
    let api = Api::<Volume>::namespaced(this.base.client.clone(), &namespace);
    let Some(volume) = get(&api, &volume.name_any()).await? else { return Ok(Action::await_change()) };
    let uid = volume.uid().unwrap_or_default();
    if volume.metadata.deletion_timestamp.is_some() {
        return this.delete(&api, &volume, &uid).await;
    }
    let made = this.store.create(&uid, volume.spec.image.as_deref(), Some(volume.spec.size_bytes)).await;
    let (verdict, next) = match made {
        Ok(_) => (Verdict::yes("Ready", "the volume is on the host"), Action::await_change()),
        Err(error) => (refusal(&error), Action::requeue(TRY_AGAIN)),
    };
    let mut status = volume.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, READY, &verdict, volume.metadata.generation, this.base.now());
    write_status(&api, &volume, &status).await?;
    Ok(next)
}

/// A missing image may come yet; everything else is a failure that its user should see as one.
fn refusal(error: &VolumeError) -> Verdict {
    let message = chain(error);
    match error {
        VolumeError::TooSmall { .. } => Verdict::no("DiskTooSmall", message),
        VolumeError::Image(_) => Verdict::no("DiskImageFailed", message),
        _ => Verdict::no("VolumeFailed", message),
    }
}

impl Volumes {
    async fn delete(&self, api: &Api<Volume>, volume: &Volume, uid: &str) -> Result<Action> {
        let machines = Api::<Machine>::namespaced(self.base.client.clone(), &volume.namespace().unwrap_or_default());
        let machines = machines.list(&ListParams::default()).await.map_err(api_error("list machines"))?.items;
        if machines.iter().any(|m| m.spec.volumes.iter().any(|v| v.name == volume.name_any())) {
            return Ok(Action::requeue(Duration::from_secs(1)));
        }
        if let Err(error) = self.store.delete(uid) {
            tracing::warn!(
                volume = volume.name_any(),
                error = chain(&error),
                "cannot delete a volume, will be tried again"
            );
            return Ok(Action::requeue(TRY_AGAIN));
        }
        remove_finalizer(api, volume, NODE_FINALIZER).await?;
        Ok(Action::await_change())
    }
}
