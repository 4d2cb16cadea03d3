//! The agent's interface to container runners: one real implementation, [`HostContainers`], and one in memory for simulated hosts,
//! [`super::memory::MemoryContainers`].

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::digest::Digest;
use super::image::{Image, ImageError, ImageReference, ImageStore, Pruned};
use super::runner::{Container, ContainerError, ContainerRunner, ContainerSpec, FoundContainer};
use crate::shim::Exit;

/// How long an unused image or layer is kept. Lower makes services that were at zero for a while fetch their image again; higher keeps
/// the disk full of unused images.
const KEEP_UNUSED: Duration = Duration::from_secs(30 * 60);
/// The same while the disk is nearly full. Never lower than the longest time between the fetch of an image and the start of a
/// container from it.
const KEEP_UNUSED_WHEN_FULL: Duration = Duration::from_secs(5 * 60);
/// The disk is nearly full when less than one part in this many is free.
const NEARLY_FULL: u64 = 7;

/// The observed state of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedContainer {
    /// It runs.
    Running,
    /// It exists, but a part of it is missing, so that it cannot be used: `start` repairs that.
    Incomplete,
    /// It has ended, and that was recorded.
    Ended(Exit),
    /// It was never started, or not completely.
    Absent,
}

/// The images and containers of one host. Containers are named by their replica's uid.
///
/// - [`Containers::observe`] starts, ends and removes nothing; an error of it says nothing about the container.
/// - Every other call may be repeated, also after a crash in the middle of it.
/// - Calls for one uid may come at the same time; `remove` wins over a `start` that is under way.
#[async_trait]
pub trait Containers: Send + Sync + 'static {
    /// Looks at a container, also at one that an earlier run of the agent started.
    async fn observe(&self, uid: &str) -> Result<ObservedContainer, ContainerError>;

    /// Makes an image present. Dropping the future stops the fetch and leaves nothing.
    async fn pull(&self, reference: &ImageReference) -> Result<Image, ImageError>;

    /// Starts a container unless it runs. What an earlier run of it left is removed first, but for its log.
    async fn start(&self, spec: &ContainerSpec) -> Result<(), ContainerError>;

    /// Waits until `port` accepts connections; [`ContainerError::Ended`] if the container ends before. Set a deadline.
    async fn wait_ready(&self, uid: &str, port: u16) -> Result<(), ContainerError>;

    /// Waits until the container has ended.
    async fn wait(&self, uid: &str) -> Result<Exit, ContainerError>;

    /// Stops a running container by its image's stop signal, and kills it after `grace`.
    async fn stop(&self, uid: &str, grace: Duration) -> Result<(), ContainerError>;

    /// Ends a container at once if it runs, and removes every piece of it, its log included.
    async fn remove(&self, uid: &str) -> Result<(), ContainerError>;

    /// Uids of which any piece is on this host.
    fn known(&self) -> BTreeSet<String>;

    /// The folder with the container's log (see [`crate::shim::tail`]); it need not exist.
    fn log_dir(&self, uid: &str) -> PathBuf;

    /// Removes images that are not in `keep`, are in no container, and were not used for a while.
    async fn prune(&self, keep: HashSet<Digest>) -> Result<Pruned, ImageError>;
}

/// Containers by the OCI runtime, images from the registry.
#[derive(Clone)]
pub struct HostContainers {
    runner: ContainerRunner,
    images: ImageStore,
}

impl HostContainers {
    /// Puts both together.
    pub fn new(runner: ContainerRunner, images: ImageStore) -> Self {
        Self { runner, images }
    }

    async fn running(&self, uid: &str) -> Result<Option<Container>, ContainerError> {
        match self.runner.find(uid).await? {
            FoundContainer::Running(container) => Ok(Some(container)),
            FoundContainer::Ended(exit) => Err(ContainerError::Ended(Box::new(exit))),
            FoundContainer::Created(_)
            | FoundContainer::Unreachable
            | FoundContainer::Orphaned(_)
            | FoundContainer::Absent => Ok(None),
        }
    }
}

#[async_trait]
impl Containers for HostContainers {
    async fn observe(&self, uid: &str) -> Result<ObservedContainer, ContainerError> {
        Ok(match self.runner.find(uid).await? {
            FoundContainer::Running(_) => ObservedContainer::Running,
            FoundContainer::Created(_) | FoundContainer::Unreachable | FoundContainer::Orphaned(_) => {
                ObservedContainer::Incomplete
            }
            FoundContainer::Ended(exit) => ObservedContainer::Ended(exit),
            FoundContainer::Absent => ObservedContainer::Absent,
        })
    }

    async fn pull(&self, reference: &ImageReference) -> Result<Image, ImageError> {
        self.images.ensure(reference).await
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<(), ContainerError> {
        self.runner.start(spec).await.map(drop)
    }

    async fn wait_ready(&self, uid: &str, port: u16) -> Result<(), ContainerError> {
        match self.running(uid).await? {
            Some(container) => container.wait_ready(port).await,
            None => Err(ContainerError::NotRunning { id: uid.to_owned() }),
        }
    }

    async fn wait(&self, uid: &str) -> Result<Exit, ContainerError> {
        match self.running(uid).await {
            Ok(Some(container)) => container.wait().await,
            Ok(None) => Err(ContainerError::NotRunning { id: uid.to_owned() }),
            Err(ContainerError::Ended(exit)) => Ok(*exit),
            Err(error) => Err(error),
        }
    }

    async fn stop(&self, uid: &str, grace: Duration) -> Result<(), ContainerError> {
        self.runner.stop(uid, grace).await
    }

    async fn remove(&self, uid: &str) -> Result<(), ContainerError> {
        self.runner.remove(uid).await
    }

    fn known(&self) -> BTreeSet<String> {
        self.runner.known()
    }

    fn log_dir(&self, uid: &str) -> PathBuf {
        self.runner.shim_dir(uid)
    }

    async fn prune(&self, keep: HashSet<Digest>) -> Result<Pruned, ImageError> {
        let this = self.clone();
        crate::io::blocking(move || {
            let Some(mounted) = this.runner.mounted_layers() else {
                // A container of an earlier release; when it has ended, all are known.
                return Ok(Pruned::default());
            };
            this.images.prune(&keep, &mounted, grace(this.images.root()))
        })
        .await
    }
}

fn grace(root: &Path) -> Duration {
    let is_nearly_full = rustix::fs::statvfs(root).is_ok_and(|disk| disk.f_bavail < disk.f_blocks / NEARLY_FULL);
    if is_nearly_full { KEEP_UNUSED_WHEN_FULL } else { KEEP_UNUSED }
}
