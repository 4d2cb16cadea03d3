//! Volume -> the host's pool. A volume is made when it is bound to this host, grows with its object, and is deleted with it; a machine
//! that has it keeps it.
//!
//! ```text
//!              create          spec.sizeBytes rises
//!  Provisioning ────▶ Ready ────────────────────────▶ Resizing (waits for the machine that has it) ──▶ Ready
//!                       │ ▲
//!    the data is absent │ │ the data is back (a file system was mounted again)
//!                       ▼ │
//!                      Lost
//! ```
//! Once a volume was made (`status.sizeBytes` is set) it is never made again: an empty disk in place of a lost one would hide
//! the loss. Ownership of writes: this module writes Volume.status and the host's finalizer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::NODE_FINALIZER;
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Machine, Volume, VolumeStatus};
use evroc_controller::{
    Context, Result, api_error, chain, controller, drive, get, measured, remove_finalizer, retry, write_status,
};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;

use super::host::{HostConditions, Topic};
use crate::image::ImageError;
use crate::pool::{Growth, ImageRef, NewVolume, Pool, PoolError, PoolVolume};

/// How long a volume that could not be made, grown or deleted waits for the next try.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How often a volume in good order is looked for. Longer hides a lost disk for longer; shorter reads each volume's record more often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Keeps the volumes of this host.
pub struct Volumes {
    /// API and clock.
    pub base: Context,
    /// This host.
    pub host: String,
    /// The pool that holds them.
    pub pool: Arc<dyn Pool>,
    /// The host's conditions, which report unreadable volumes and volumes without an owner.
    pub conditions: HostConditions,
}

/// Runs the controller until the process ends.
pub async fn run(volumes: Arc<Volumes>) {
    let own = watcher::Config::default().fields(&format!("spec.hostName={}", volumes.host));
    let controller = controller(Api::<Volume>::all(volumes.base.client.clone()), own);
    let store = controller.store();
    let stream = controller.run(
        measured(reconcile),
        |object, error, this: Arc<Volumes>| retry(object, error, Arc::new(this.base.clone())),
        volumes.clone(),
    );
    tokio::join!(drive(stream.boxed()), volumes.survey(store));
}

/// The step that a volume needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Grow,
    Nothing,
    /// It was made and is absent.
    Lost,
}

fn decide(volume: &Volume, found: Option<&PoolVolume>) -> Step {
    match found {
        Some(found) if found.size_bytes < volume.spec.size_bytes => Step::Grow,
        Some(_) => Step::Nothing,
        None if was_made(volume) => Step::Lost,
        None => Step::Create,
    }
}

/// Whether a volume was ever made, as its status says. Earlier versions wrote no size.
fn was_made(volume: &Volume) -> bool {
    let Some(status) = &volume.status else { return false };
    let ready = conditions::get(&status.conditions, READY);
    status.size_bytes.is_some() || ready.is_some_and(|ready| ready.status == "True" || ready.reason == LOST)
}

const LOST: &str = "Lost";

async fn reconcile(volume: Arc<Volume>, this: Arc<Volumes>) -> Result<Action> {
    let uid = volume.uid().unwrap_or_default();
    let is_deleted = volume.metadata.deletion_timestamp.is_some();
    // A volume in good order costs no request, however often it is looked at.
    if !is_deleted
        && let Ok(found) = this.pool.look(&uid).await
        && decide(&volume, found.as_ref()) == Step::Nothing
        && says_so(&volume, found.as_ref())
    {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    let api = Api::<Volume>::namespaced(this.base.client.clone(), &volume.namespace().unwrap_or_default());
    let Some(volume) = get(&api, &volume.name_any()).await?.filter(|v| v.uid().as_ref() == Some(&uid)) else {
        return Ok(Action::await_change());
    };
    if volume.metadata.deletion_timestamp.is_some() {
        return this.delete(&api, &volume, &uid).await;
    }
    let (verdict, size_bytes, next) = match this.act(&volume, &uid).await {
        Ok(Outcome::Present(found)) => (ready(), Some(found.size_bytes), LOOK_AGAIN),
        Ok(Outcome::Growing(found, why)) => (why, Some(found.size_bytes), TRY_AGAIN),
        Ok(Outcome::Lost) => (lost(&volume), None, TRY_AGAIN),
        Err(error) => (refusal(&error), None, TRY_AGAIN),
    };
    let mut status: VolumeStatus = volume.status.clone().unwrap_or_default();
    status.size_bytes = size_bytes.or(status.size_bytes);
    conditions::set(&mut status.conditions, READY, &verdict, volume.metadata.generation, this.base.now());
    write_status(&api, &volume, &status).await?;
    Ok(Action::requeue(next))
}

enum Outcome {
    Present(PoolVolume),
    Growing(PoolVolume, Verdict),
    Lost,
}

fn ready() -> Verdict {
    Verdict::yes("Ready", "the volume is on the host")
}

/// Whether the status says of a volume in good order that it is.
fn says_so(volume: &Volume, found: Option<&PoolVolume>) -> bool {
    let Some(status) = &volume.status else { return false };
    let condition = conditions::get(&status.conditions, READY);
    status.size_bytes == found.map(|found| found.size_bytes)
        && condition.is_some_and(|c| {
            c.status == "True" && c.reason == "Ready" && c.observed_generation == volume.metadata.generation
        })
}

fn lost(volume: &Volume) -> Verdict {
    let host = &volume.spec.host_name;
    Verdict::no(LOST, format!("the volume was made and its data is absent from host {host}; it is not made again"))
}

/// A missing image may come yet; everything else is a failure that its user should see as one.
fn refusal(error: &PoolError) -> Verdict {
    let message = chain(error);
    match error {
        PoolError::TooSmall { .. } => Verdict::no("DiskTooSmall", message),
        PoolError::Image(ImageError::OtherBytes { .. }) => Verdict::no("DiskImageDiffers", message),
        PoolError::Image(_) => Verdict::no("DiskImageFailed", message),
        PoolError::Record { .. } | PoolError::Newer { .. } => Verdict::unknown("RecordUnreadable", message),
        _ => Verdict::no("VolumeFailed", message),
    }
}

impl Volumes {
    async fn act(&self, volume: &Volume, uid: &str) -> std::result::Result<Outcome, PoolError> {
        let found = self.pool.look(uid).await?;
        match (decide(volume, found.as_ref()), found) {
            (Step::Lost, _) => Ok(Outcome::Lost),
            (Step::Grow, Some(found)) => match self.pool.grow(uid, volume.spec.size_bytes).await? {
                Growth::Done(grown) => Ok(Outcome::Present(grown)),
                Growth::ByHolder(holder) => Ok(Outcome::Growing(found, resizing(volume, &holder.name))),
            },
            (_, Some(found)) => Ok(Outcome::Present(found)),
            (_, None) => {
                let image = volume.spec.image.clone();
                let image = image.map(|name| ImageRef { name, sha256: volume.spec.image_sha256.clone() });
                let size_bytes = volume.spec.size_bytes;
                let wanted = NewVolume { uid: uid.to_owned(), image, size_bytes };
                self.pool.create(&wanted).await.map(Outcome::Present)
            }
        }
    }

    async fn delete(&self, api: &Api<Volume>, volume: &Volume, uid: &str) -> Result<Action> {
        if !volume.finalizers().iter().any(|finalizer| finalizer == NODE_FINALIZER) {
            return Ok(Action::await_change());
        }
        let machines = Api::<Machine>::namespaced(self.base.client.clone(), &volume.namespace().unwrap_or_default());
        let own = ListParams::default().fields(&format!("spec.hostName={}", self.host));
        let machines = machines.list(&own).await.map_err(api_error("list machines"))?.items;
        if machines.iter().any(|machine| uses(machine, volume, uid)) {
            return Ok(Action::requeue(Duration::from_secs(1)));
        }
        if let Err(error) = self.pool.delete(uid).await {
            tracing::error!(volume = volume.name_any(), uid, error = chain(&error), "cannot delete a volume");
            return Ok(Action::requeue(TRY_AGAIN));
        }
        self.conditions.clear(Topic::RecordsReadable, &part(uid));
        remove_finalizer(api, volume, NODE_FINALIZER).await?;
        Ok(Action::await_change())
    }

    /// Reports, again and again, which volumes cannot be read and which belong to no object. Data is never deleted on suspicion: an
    /// operator does that.
    async fn survey(&self, store: Store<Volume>) {
        if store.wait_until_ready().await.is_err() {
            return;
        }
        let mut reported = BTreeSet::new();
        loop {
            let wanted: BTreeSet<String> = store.state().iter().filter_map(|volume| volume.uid()).collect();
            reported = self.report(&wanted, &reported).await;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Reports on all volumes of the pool; returns the parts that are not in order, to be cleared once they are.
    async fn report(&self, wanted: &BTreeSet<String>, before: &BTreeSet<(Topic, String)>) -> BTreeSet<(Topic, String)> {
        let listing = match self.pool.list().await {
            Ok(listing) => listing,
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot list volumes");
                self.conditions.set(Topic::RecordsReadable, VOLUMES, Verdict::unknown("CannotList", chain(&error)));
                return before.clone();
            }
        };
        self.conditions.set(Topic::RecordsReadable, VOLUMES, Verdict::yes("AllRead", "all records were read"));
        self.conditions.set(Topic::NoOrphans, VOLUMES, Verdict::yes("AllWanted", "everything belongs to an object"));
        let mut problems = BTreeSet::new();
        for (uid, error) in &listing.unreadable {
            problems.insert((Topic::RecordsReadable, part(uid)));
            let verdict = Verdict::no("RecordUnreadable", format!("{}; it is left as it is", chain(error)));
            self.conditions.set(Topic::RecordsReadable, part(uid), verdict);
        }
        for uid in listing.volumes.keys().filter(|uid| !wanted.contains(*uid)) {
            problems.insert((Topic::NoOrphans, part(uid)));
            let message = "its data belongs to no Volume object; it is kept until an operator removes it";
            self.conditions.set(Topic::NoOrphans, part(uid), Verdict::no("Orphan", message));
        }
        for (topic, part) in before.difference(&problems) {
            self.conditions.clear(*topic, part);
        }
        for (topic, part) in problems.difference(before) {
            tracing::error!(condition = topic.name(), volume = part, "a volume is not in order");
        }
        problems
    }
}

/// The part of a host's condition that is about all volumes.
const VOLUMES: &str = "volumes";

fn part(uid: &str) -> String {
    format!("volume {uid}")
}

/// Whether a machine has a volume. Machines of earlier versions name it without its uid.
fn uses(machine: &Machine, volume: &Volume, uid: &str) -> bool {
    let name = volume.name_any();
    machine.spec.volumes.iter().any(|used| used.uid.as_deref().map_or(used.name == name, |used| used == uid))
}

/// A volume that its machine uses stays usable while it waits.
fn resizing(volume: &Volume, holder: &str) -> Verdict {
    let size = volume.spec.size_bytes;
    Verdict::yes("Resizing", format!("grows to {size} bytes when it is no longer in use by {holder}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(status: &serde_json::Value) -> Volume {
        let volume = serde_json::json!({
            "apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Volume", "metadata": {"name": "d"},
            "spec": {"hostName": "h", "sizeBytes": 100}, "status": status,
        });
        serde_json::from_value(volume).unwrap()
    }

    fn found(size_bytes: u64) -> PoolVolume {
        PoolVolume { uid: "u".into(), image: None, size_bytes }
    }

    #[test]
    fn a_volume_is_made_once() {
        let condition = |status: &str, reason: &str| {
            let zero = "1970-01-01T00:00:00Z";
            serde_json::json!({"conditions": [
                {"type": "Ready", "status": status, "reason": reason, "message": "", "lastTransitionTime": zero},
            ]})
        };
        let table = [
            (serde_json::Value::Null, None, Step::Create),
            (condition("False", "DiskImageFailed"), None, Step::Create),
            (serde_json::json!({"sizeBytes": 100}), None, Step::Lost),
            (condition("True", "Ready"), None, Step::Lost),
            (condition("False", "Lost"), None, Step::Lost),
            (condition("False", "Lost"), Some(found(100)), Step::Nothing),
            (serde_json::json!({"sizeBytes": 50}), Some(found(50)), Step::Grow),
            (serde_json::Value::Null, Some(found(100)), Step::Nothing),
            (serde_json::json!({"sizeBytes": 200}), Some(found(200)), Step::Nothing),
        ];
        for (status, found, expected) in table {
            assert_eq!(decide(&volume(&status), found.as_ref()), expected, "{status}");
        }
    }
}
