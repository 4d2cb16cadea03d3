//! Ends containers and removes their pieces.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::running::kill;
use super::{ContainerError, ContainerRunner, FoundContainer, Slot, blocking, file};
use crate::cgroup::kill_members;
use crate::container::rootfs::remove_rootfs;
use crate::io::{if_present, remove_file, remove_tree};
use crate::net::netns::Netns;
use crate::shim::{Adopted, adopt, log_files};

/// How long a removal looks for the shim of a start that it wants to end. One that is found later ends by the runtime's deadline.
const GIVE_UP: Duration = Duration::from_secs(1);

impl ContainerRunner {
    /// Stops a running container, and kills it after `grace`. One that does not run counts as stopped.
    pub async fn stop(&self, uid: &str, grace: Duration) -> Result<(), ContainerError> {
        match self.find(uid).await? {
            FoundContainer::Running(container) | FoundContainer::Created(container) => {
                container.stop(grace).await.map(drop)
            }
            FoundContainer::Unreachable
            | FoundContainer::Orphaned(_)
            | FoundContainer::Ended(_)
            | FoundContainer::Absent => Ok(()),
        }
    }

    /// Ends the container at once if it runs (see [`ContainerRunner::stop`] for the polite way) and removes every piece of it, its log
    /// included. Removing what is absent is fine.
    pub async fn remove(&self, uid: &str) -> Result<(), ContainerError> {
        let slot = self.slot(uid);
        let _only = match slot.work.try_lock() {
            Ok(only) => only,
            Err(_) => {
                self.give_up_start(uid, &slot).await;
                slot.work.lock().await
            }
        };
        self.remove_alone(uid).await
    }

    pub(super) async fn remove_alone(&self, uid: &str) -> Result<(), ContainerError> {
        self.remove_all_but_log(uid).await?;
        let folder = self.shim_dir(uid);
        blocking(move || remove_tree(&folder).map_err(file("remove", &folder))).await
    }

    /// Makes a start under way end early, also where the runtime hangs.
    async fn give_up_start(&self, uid: &str, slot: &Slot) {
        slot.removals.send_replace(());
        self.kill_processes(uid).await;
        let folder = self.shim_dir(uid);
        if let Ok(Ok(Adopted::Running(shim))) = tokio::time::timeout(GIVE_UP, adopt(&folder)).await
            && let Err(error) = shim.signal(libc::SIGKILL).await
        {
            tracing::debug!(uid, %error, "kill the runtime that creates a container");
        }
    }

    /// Kills the container's processes by its control groups: that works in any state of the shim.
    async fn kill_processes(&self, uid: &str) {
        let folders = self.cgroups.folders(&self.names(uid).group);
        crate::io::blocking(move || folders.iter().for_each(|folder| kill_members(folder, None))).await;
    }

    pub(super) async fn remove_all_but_log(&self, uid: &str) -> Result<(), ContainerError> {
        let names = self.names(uid);
        self.kill_processes(uid).await;
        match adopt(&names.shim_dir).await.map_err(file("adopt shim in", &names.shim_dir))? {
            Adopted::Running(shim) => drop(kill(&shim, &names.id).await?),
            Adopted::ShimLost(lost) => {
                drop(lost.end(Duration::ZERO).await.map_err(file("end what the shim left in", &names.shim_dir))?);
            }
            Adopted::Exited(_) | Adopted::Never => {}
        }
        self.runtime.delete(&names.id).await?;
        let this = self.clone();
        blocking(move || {
            this.cgroups.remove(&names.group)?;
            remove_rootfs(&names.bundle)?;
            Netns::remove(&names.netns)?;
            remove_file(&names.shim_socket).map_err(file("remove", &names.shim_socket))?;
            keep_only_log(&names.shim_dir).map_err(file("tidy up", &names.shim_dir))
        })
        .await
    }
}

/// Removes the records of an ended run from a shim's folder, and the folder where there is no log.
fn keep_only_log(folder: &Path) -> io::Result<()> {
    let Some(entries) = if_present(fs::read_dir(folder))? else { return Ok(()) };
    let log = log_files(folder)?;
    let mut is_empty = true;
    for entry in entries {
        let entry = entry?;
        if log.contains(&entry.path()) && entry.metadata()?.len() > 0 {
            is_empty = false;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    if is_empty { fs::remove_dir(folder) } else { Ok(()) }
}
