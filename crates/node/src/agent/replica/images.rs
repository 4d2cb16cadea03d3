//! Removes images that no replica of this host uses.

use std::sync::Arc;
use std::time::Duration;

use evroc_controller::chain;

use super::Replicas;
use super::turn::image_of;

/// How often unused images are looked for. Higher lets a burst of deployments take the disk for longer; each look lists the replicas of
/// this host.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// Runs until the process ends.
pub(super) async fn run(replicas: Arc<Replicas>) {
    loop {
        tokio::time::sleep(EVERY).await;
        remove_unused(&replicas).await;
    }
}

pub(super) async fn remove_unused(replicas: &Replicas) {
    let wanted = match replicas.wanted().await {
        Ok(wanted) => wanted,
        Err(error) => {
            tracing::warn!(error = chain(&error), "list replicas to find unused images");
            return;
        }
    };
    let keep = wanted.iter().filter_map(|replica| image_of(replica).ok()).map(|image| image.digest).collect();
    match replicas.containers.prune(keep).await {
        Ok(pruned) if pruned.images + pruned.layers == 0 => {}
        Ok(pruned) => tracing::info!(images = pruned.images, layers = pruned.layers, "removed unused images"),
        Err(error) => tracing::warn!(error = chain(&error), "remove unused images"),
    }
}
