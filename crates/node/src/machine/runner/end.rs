//! Stops and removes a machine.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::{FoundMachine, MachineRunner, ORPHAN_LIMIT, record};
use crate::io::{remove_file, remove_tree};
use crate::machine::error::{MachineError, check_uid, failed};
use crate::machine::guests::{StopManner, Stopped};
use crate::machine::last_log;
use crate::machine::paths::{MachinePaths, last_logs};
use crate::shim::{self, Adopted, Exit};

impl MachineRunner {
    /// Ends a hypervisor whose shim was killed, in good order where it still listens to SIGTERM, and records its end.
    pub async fn end_orphan(&self, uid: &str) -> Result<Option<Exit>, MachineError> {
        check_uid(uid)?;
        let shim = self.paths(uid).shim;
        match shim::adopt(&shim).await.map_err(failed(uid, "adopt", &shim))? {
            Adopted::ShimLost(lost) => lost.end(ORPHAN_LIMIT).await.map(Some).map_err(failed(uid, "end", &shim)),
            Adopted::Exited(exit) => Ok(Some(exit)),
            Adopted::Running(_) | Adopted::Never => Ok(None),
        }
    }

    /// Stops a machine: requests its guest to power off and waits for `grace` (zero: no request), then ends the hypervisor, then
    /// kills it.
    /// Its volumes are taken back; record and logs stay.
    pub async fn stop(&self, uid: &str, grace: Duration) -> Result<Option<Stopped>, MachineError> {
        let ended = |exit| Stopped { manner: StopManner::AlreadyEnded, exit };
        let stopped = match self.observe(uid).await {
            Ok(FoundMachine::Absent) => None,
            Ok(FoundMachine::Ended(exit)) => Some(ended(exit)),
            Ok(FoundMachine::Orphaned(_)) => self.end_orphan(uid).await?.map(ended),
            Ok(FoundMachine::Running(machine)) => Some(machine.end(grace).await?),
            // Its shim answers and its record is damaged: it can be ended all the same, but its volumes are not known.
            Err(error @ (MachineError::Record { .. } | MachineError::Invalid { .. })) => {
                tracing::warn!(uid, %error, "stop a machine whose record is damaged");
                self.kill_by_shim(uid).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.release(uid).await?;
        Ok(stopped)
    }

    async fn kill_by_shim(&self, uid: &str) -> Result<(), MachineError> {
        check_uid(uid)?;
        let shim = self.paths(uid).shim;
        if let Adopted::Running(client) = shim::adopt(&shim).await.map_err(failed(uid, "adopt", &shim))? {
            client.signal(libc::SIGTERM).await?;
            if client.wait_at_most(ORPHAN_LIMIT).await.is_none() {
                client.signal(libc::SIGKILL).await?;
                client.wait().await?;
            }
        }
        Ok(())
    }

    /// Takes back the volumes of a machine that has ended. ([`Self::stop`] does it too.)
    pub async fn release(&self, uid: &str) -> Result<(), MachineError> {
        let record = match record(uid, &self.paths(uid)) {
            Err(error) => {
                tracing::warn!(uid, %error, "the volumes of a machine whose record is damaged stay with its user");
                return Ok(());
            }
            record => record?,
        };
        if self.config.first_uid.is_some() {
            for volume in record.iter().flat_map(|record| &record.volumes) {
                self.volumes.release(volume).await?;
            }
        }
        Ok(())
    }

    /// Removes every trace of a machine, ended without a request to its guest if it still runs. Volumes stay, and so does the log of
    /// its last run for a while. Can be repeated.
    pub async fn remove(&self, uid: &str) -> Result<(), MachineError> {
        self.stop(uid, Duration::ZERO).await?;
        let paths = self.paths(uid);
        let (cgroups, group) = (self.cgroups.clone(), paths.group.clone());
        let removed = tokio::task::spawn_blocking(move || cgroups.remove(&group)).await;
        removed.map_err(|error| failed(uid, "remove", Path::new(&paths.group))(io::Error::other(error)))??;
        for file in [&paths.monitor, &paths.monitor.with_extension("fifo"), &paths.shim_socket] {
            remove_file(file).map_err(failed(uid, "remove", file))?;
        }
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.keep_last_log(uid, &paths);
        // The record last: until then the machine is on the list.
        for folder in [&paths.shim, &paths.folder] {
            remove_tree(folder).map_err(failed(uid, "remove", folder))?;
        }
        Ok(())
    }

    /// A log that cannot be kept is no reason to keep the machine.
    fn keep_last_log(&self, uid: &str, paths: &MachinePaths) {
        let kept = last_logs(&self.config.state_dir);
        let virtual_machine = record(uid, paths).ok().flatten().and_then(|record| record.virtual_machine);
        let outcome = virtual_machine
            .filter(|name| check_uid(name).is_ok())
            .map_or(Ok(()), |name| last_log::keep(&paths.shim, &kept, &name))
            .and_then(|()| last_log::prune(&kept, SystemTime::now()));
        if let Err(error) = outcome {
            tracing::warn!(uid, %error, "cannot keep the serial log of a machine's last run");
        }
    }
}
