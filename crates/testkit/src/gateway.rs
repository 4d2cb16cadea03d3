//! The HTTPS gateway, as far as controllers notice it: reports load, lets drained replicas go.

use std::sync::Arc;

use evroc_api::GATEWAY_FINALIZER;
use evroc_api::infra::Replica;
use evroc_api::run::{Load, Revision};
use evroc_controller::{Context, remove_finalizer};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::platform::GROUP;

/// A simulated gateway; dropping it kills it.
pub struct SimGateway {
    context: Context,
    holds: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Drop for SimGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SimGateway {
    pub(crate) fn start(context: Context) -> Self {
        let holds = Arc::new(watch::Sender::new(false));
        let task = tokio::spawn(drain(context.clone(), holds.subscribe()));
        Self { context, holds, task }
    }

    /// Whether requests are being answered by replicas that are to go: they are not let go meanwhile.
    pub fn set_busy(&self, is_busy: bool) {
        self.holds.send_replace(is_busy);
    }

    /// Reports the requests of a revision, as the gateway does when it becomes busy or idle.
    ///
    /// # Panics
    /// If the API refuses.
    pub async fn report(&self, revision: &str, waiting: i32, in_flight: i32) {
        let load = Load { waiting, in_flight, last_request_time: Some(Time(self.context.now())) };
        let api = Api::<Revision>::namespaced(self.context.client.clone(), GROUP);
        let patch = Patch::Merge(json!({"status": {"load": load}}));
        api.patch_status(revision, &PatchParams::default(), &patch).await.expect("the gateway may report load");
    }
}

async fn drain(context: Context, mut holds: watch::Receiver<bool>) {
    let replicas = Api::<Replica>::all(context.client.clone());
    let mut events = watcher(replicas.clone(), watcher::Config::default()).default_backoff().boxed();
    loop {
        let mut is_done = true;
        let is_busy = *holds.borrow_and_update();
        if let Ok(list) = replicas.list(&ListParams::default()).await {
            for replica in list.items {
                if is_busy || replica.metadata.deletion_timestamp.is_none() {
                    continue;
                }
                let api = Api::namespaced(context.client.clone(), &replica.namespace().unwrap_or_default());
                is_done &= remove_finalizer(&api, &replica, GATEWAY_FINALIZER).await.is_ok();
            }
        }
        let try_again = async {
            match is_done {
                true => std::future::pending().await,
                false => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        tokio::select! {
            Some(_) = events.next() => {}
            () = try_again => {}
            changed = holds.changed() => if changed.is_err() { return },
        }
    }
}
