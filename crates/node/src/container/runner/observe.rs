//! Looks at a container. Nothing here starts, ends or removes anything.

use std::fs;
use std::sync::Arc;

use super::{Container, ContainerError, ContainerRunner, Names, STARTED, file};
use crate::container::bundle::STOP_SIGNAL_ANNOTATION;
use crate::container::runtime::RuntimeStatus;
use crate::container::stop_signal::stop_signal;
use crate::net::netns::Netns;
use crate::shim::{Adopted, Exit, LostShim, State, adopt};

/// The state of a container on this host, with access to a running one.
#[derive(Debug)]
pub enum FoundContainer {
    /// It runs.
    Running(Container),
    /// Its processes exist, but the runtime has not let it execute its program: [`ContainerRunner::start`] goes on with it.
    Created(Container),
    /// It runs, but its network namespace does not exist any more: nothing can reach it.
    Unreachable,
    /// Its shim ended without recording an end; its processes may run, but their output goes nowhere.
    Orphaned(Box<LostShim>),
    /// It has ended; its pieces (and its log) still exist.
    Ended(Exit),
    /// It was never started, or not completely.
    Absent,
}

impl ContainerRunner {
    /// Looks for a container, also for one that an earlier run of this agent started. An error says nothing about the container.
    pub async fn find(&self, uid: &str) -> Result<FoundContainer, ContainerError> {
        let names = self.names(uid);
        let shim = match adopt(&names.shim_dir).await.map_err(file("adopt shim in", &names.shim_dir))? {
            Adopted::Running(shim) => shim,
            Adopted::Exited(exit) => return Ok(FoundContainer::Ended(exit)),
            Adopted::ShimLost(lost) => return Ok(FoundContainer::Orphaned(lost)),
            Adopted::Never => return Ok(FoundContainer::Absent),
        };
        let netns = match Netns::open(&names.netns) {
            Ok(netns) => Arc::new(netns),
            Err(error) if error.is_not_found() => return Ok(FoundContainer::Unreachable),
            Err(error) => return Err(error.into()),
        };
        let stop_signal = recorded_stop_signal(&names);
        let container = Container { shim, netns, dialer: self.dialer.clone(), stop_signal };
        // Containers of earlier releases have no such note.
        let is_created = !names.bundle.join(STARTED).exists()
            && (container.shim.status().await?.state == State::Starting
                || self.runtime.status(&names.id).await? == Some(RuntimeStatus::Created));
        Ok(if is_created { FoundContainer::Created(container) } else { FoundContainer::Running(container) })
    }
}

/// The image's stop signal, which the bundle's configuration keeps.
fn recorded_stop_signal(names: &Names) -> i32 {
    let config = fs::read(names.bundle.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    stop_signal(config["annotations"][STOP_SIGNAL_ANNOTATION].as_str().unwrap_or_default())
}
