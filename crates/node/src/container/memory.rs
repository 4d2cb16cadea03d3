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
    /// Programs exit with this code as soon as they are started.
    pub exits: Option<i32>,
}

/// One container.
#[derive(Debug, Clone)]
struct Imagined {
    name: String,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Running,
    Ended(Exit),
}

#[derive(Debug, Default)]
struct Inner {
    containers: BTreeMap<String, Imagined>,
    faults: Faults,
    /// How often the agent has died.
    deaths: u64,
    starts: Vec<String>,
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
        self.change(|inner| inner.end(uid, exit));
    }

    /// Ends the calls that wait, as the death of the agent that made them does.
    pub fn interrupt(&self) {
        self.change(|inner| inner.deaths += 1);
    }

    /// Ends a container without a record of how, as when the host is restarted.
    pub fn lose(&self, uid: &str) {
        let exit = ended(uid, None, "its end was not observed".into());
        self.change(|inner| inner.end(uid, exit));
    }

    /// Uids of the containers that run.
    pub fn running(&self) -> Vec<String> {
        self.lock().running().map(|(uid, _)| uid.clone()).collect()
    }

    /// Names of the containers that run.
    pub fn running_names(&self) -> Vec<String> {
        self.lock().running().map(|(_, container)| container.name.clone()).collect()
    }

    /// Names of the containers that were ever started, in order.
    pub fn starts(&self) -> Vec<String> {
        self.lock().starts.clone()
    }

    /// Returns how many were requested to end.
    pub fn stops(&self) -> usize {
        self.lock().stops
    }

    /// The images that the last removal of unused ones had to keep.
    pub fn kept(&self) -> Option<HashSet<Digest>> {
        self.lock().kept.clone()
    }

    /// Waits until `what` gives something; `None` if the agent dies before.
    async fn until<T>(&self, what: impl Fn(&Inner) -> Option<T>) -> Option<T> {
        let mut changes = self.changed.subscribe();
        let deaths = self.lock().deaths;
        loop {
            {
                let inner = self.lock();
                if inner.deaths != deaths {
                    return None;
                }
                if let Some(found) = what(&inner) {
                    return Some(found);
                }
            }
            // The sender is ours, so there is always a next change to wait for.
            let _ = changes.changed().await;
        }
    }
}

impl Inner {
    fn running(&self) -> impl Iterator<Item = (&String, &Imagined)> {
        self.containers.iter().filter(|(_, container)| matches!(container.state, State::Running))
    }

    fn state(&self, uid: &str) -> Option<&State> {
        self.containers.get(uid).map(|container| &container.state)
    }

    fn end(&mut self, uid: &str, exit: Exit) {
        let name = self.containers.get(uid).map(|container| container.name.clone()).unwrap_or_default();
        self.containers.insert(uid.to_owned(), Imagined { name, state: State::Ended(exit) });
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
        Ok(match inner.state(uid) {
            Some(State::Running) => ObservedContainer::Running,
            Some(State::Ended(exit)) => ObservedContainer::Ended(exit.clone()),
            None => ObservedContainer::Absent,
        })
    }

    async fn pull(&self, reference: &ImageReference) -> Result<Image, ImageError> {
        let pulled = self.until(|inner| (!inner.faults.pull_hangs).then_some(())).await;
        pulled.ok_or_else(|| ImageError::Receive {
            image: reference.written.clone(),
            what: "the manifest".into(),
            source: std::io::Error::other("interrupted"),
        })?;
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
            if !matches!(inner.state(&spec.uid), Some(State::Running)) {
                let name = spec.workload.hostname.clone();
                inner.starts.push(name.clone());
                inner.containers.insert(spec.uid.clone(), Imagined { name, state: State::Running });
            }
            if let Some(code) = inner.faults.exits {
                inner.end(&spec.uid, ended(&spec.uid, Some(code), format!("exited with code {code}")));
            }
            Ok(())
        })
    }

    async fn wait_ready(&self, uid: &str, _port: u16) -> Result<(), ContainerError> {
        self.until(|inner| match inner.state(uid) {
            Some(State::Running) if inner.faults.never_ready => None,
            Some(State::Running) => Some(Ok(())),
            Some(State::Ended(exit)) => Some(Err(ContainerError::Ended(Box::new(exit.clone())))),
            None => Some(Err(ContainerError::NotRunning { id: uid.to_owned() })),
        })
        .await
        .unwrap_or_else(|| Err(failed("interrupted")))
    }

    async fn wait(&self, uid: &str) -> Result<Exit, ContainerError> {
        self.until(|inner| match inner.state(uid) {
            Some(State::Running) => None,
            Some(State::Ended(exit)) => Some(Ok(exit.clone())),
            None => Some(Err(ContainerError::NotRunning { id: uid.to_owned() })),
        })
        .await
        .unwrap_or_else(|| Err(failed("interrupted")))
    }

    async fn stop(&self, uid: &str, _grace: Duration) -> Result<(), ContainerError> {
        if matches!(self.lock().state(uid), Some(State::Running)) {
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
