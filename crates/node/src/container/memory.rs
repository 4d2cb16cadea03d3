//! Containers that exist in memory only, for simulated hosts and for tests of the agent.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::containers::{Containers, ObservedContainer};
use super::digest::Digest;
use super::image::{Image, ImageError, ImageReference, Pruned};
use super::manifest::{ImageConfig, Platform, RootFs, RunConfig};
use super::runner::{ContainerError, ContainerSpec};
use crate::shim::Exit;

/// The failures from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Looking fails with this text.
    pub look: Option<String>,
    /// Starting fails with this text.
    pub start: Option<String>,
    /// Fetching an image takes for ever.
    pub pull_hangs: bool,
    /// Ports never accept connections.
    pub never_ready: bool,
}

/// One container.
#[derive(Debug, Clone)]
enum State {
    Running,
    Ended(Exit),
}

#[derive(Debug, Default)]
struct Inner {
    containers: BTreeMap<String, State>,
    faults: Faults,
    starts: usize,
    stops: usize,
    kept: Option<HashSet<Digest>>,
}

/// Containers in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryContainers {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for MemoryContainers {
    fn default() -> Self {
        Self { inner: Arc::default(), changed: Arc::new(watch::channel(()).0) }
    }
}

impl MemoryContainers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    /// Changes what goes wrong.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.change(|inner| change(&mut inner.faults));
    }

    /// Ends a container as if its program had exited with `code`.
    pub fn exit(&self, uid: &str, code: i32) {
        let exit = ended(uid, Some(code), format!("exited with code {code}"));
        self.change(|inner| inner.containers.insert(uid.to_owned(), State::Ended(exit)));
    }

    /// Ends a container without a record of how, as when the host is restarted.
    pub fn lose(&self, uid: &str) {
        let exit = ended(uid, None, "its end was not observed".into());
        self.change(|inner| inner.containers.insert(uid.to_owned(), State::Ended(exit)));
    }

    /// Uids of the containers that run.
    pub fn running(&self) -> Vec<String> {
        let inner = self.lock();
        let running = inner.containers.iter().filter(|(_, state)| matches!(state, State::Running));
        running.map(|(uid, _)| uid.clone()).collect()
    }

    /// How many containers were started so far.
    pub fn starts(&self) -> usize {
        self.lock().starts
    }

    /// Returns how many were requested to end.
    pub fn stops(&self) -> usize {
        self.lock().stops
    }

    /// The images that the last removal of unused ones had to keep.
    pub fn kept(&self) -> Option<HashSet<Digest>> {
        self.lock().kept.clone()
    }

    /// Waits until `what` gives something.
    async fn until<T>(&self, what: impl Fn(&Inner) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(found) = what(&self.lock()) {
                return found;
            }
            // The sender is ours, so there is always a next change to wait for.
            let _ = changes.changed().await;
        }
    }
}

fn ended(uid: &str, code: Option<i32>, reason: String) -> Exit {
    Exit { id: uid.to_owned(), code, reason, ..Exit::default() }
}

fn failed(text: &str) -> ContainerError {
    ContainerError::File {
        operation: "simulate",
        path: PathBuf::from("a fault"),
        source: std::io::Error::other(text.to_owned()),
    }
}

#[async_trait]
impl Containers for MemoryContainers {
    async fn observe(&self, uid: &str) -> Result<ObservedContainer, ContainerError> {
        let inner = self.lock();
        if let Some(text) = &inner.faults.look {
            return Err(failed(text));
        }
        Ok(match inner.containers.get(uid) {
            Some(State::Running) => ObservedContainer::Running,
            Some(State::Ended(exit)) => ObservedContainer::Ended(exit.clone()),
            None => ObservedContainer::Absent,
        })
    }

    async fn pull(&self, reference: &ImageReference) -> Result<Image, ImageError> {
        self.until(|inner| (!inner.faults.pull_hangs).then_some(())).await;
        Ok(Image {
            written: reference.written.clone(),
            config: ImageConfig {
                platform: Platform { architecture: "amd64".into(), os: "linux".into() },
                config: RunConfig::default(),
                rootfs: RootFs { diff_ids: Vec::new() },
            },
            layers: Vec::new(),
        })
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<(), ContainerError> {
        self.change(|inner| {
            if let Some(text) = &inner.faults.start {
                return Err(failed(text));
            }
            if !matches!(inner.containers.get(&spec.uid), Some(State::Running)) {
                inner.containers.insert(spec.uid.clone(), State::Running);
                inner.starts += 1;
            }
            Ok(())
        })
    }

    async fn wait_ready(&self, uid: &str, _port: u16) -> Result<(), ContainerError> {
        self.until(|inner| match inner.containers.get(uid) {
            Some(State::Running) if inner.faults.never_ready => None,
            Some(State::Running) => Some(Ok(())),
            Some(State::Ended(exit)) => Some(Err(ContainerError::Ended(Box::new(exit.clone())))),
            None => Some(Err(ContainerError::NotRunning { id: uid.to_owned() })),
        })
        .await
    }

    async fn wait(&self, uid: &str) -> Result<Exit, ContainerError> {
        self.until(|inner| match inner.containers.get(uid) {
            Some(State::Running) => None,
            Some(State::Ended(exit)) => Some(Ok(exit.clone())),
            None => Some(Err(ContainerError::NotRunning { id: uid.to_owned() })),
        })
        .await
    }

    async fn stop(&self, uid: &str, _grace: Duration) -> Result<(), ContainerError> {
        if matches!(self.lock().containers.get(uid), Some(State::Running)) {
            self.change(|inner| inner.stops += 1);
            self.exit(uid, 0);
        }
        Ok(())
    }

    async fn remove(&self, uid: &str) -> Result<(), ContainerError> {
        self.change(|inner| inner.containers.remove(uid));
        Ok(())
    }

    fn known(&self) -> BTreeSet<String> {
        self.lock().containers.keys().cloned().collect()
    }

    fn log_dir(&self, uid: &str) -> PathBuf {
        PathBuf::from("/nonexistent").join(uid)
    }

    async fn prune(&self, keep: HashSet<Digest>) -> Result<Pruned, ImageError> {
        self.change(|inner| inner.kept = Some(keep));
        Ok(Pruned::default())
    }
}
