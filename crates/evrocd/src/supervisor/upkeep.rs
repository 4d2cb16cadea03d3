//! Periodic work of a running supervisor: logs, certificates, and requests for its state.

use std::fs::File;

use evroc_iam::files::Owner;

use super::protocol::{RoleStatus, SupervisorStatus};
use super::role::{self, RoleSlot};
use super::{Supervisor, logs};
use crate::bootstrap;
use crate::roles::Command;
use crate::status::report::RoleState;
use crate::status::workloads;

impl Supervisor {
    /// The response to [`super::protocol::Request::Status`].
    pub(super) fn status(&self, is_privileged: bool) -> SupervisorStatus {
        let (api_port, https_port) = self.record.ports.map_or((0, 0), |ports| (ports.api.port, ports.https.port));
        let roles = self.roles.iter().map(|(role, slot)| (role.name().to_owned(), slot.status())).collect();
        let layout = self.record.layout();
        SupervisorStatus {
            instance: self.record.instance.clone(),
            state: self.state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            digest: self.digest.clone(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            uptime_seconds: self.started.elapsed().as_secs(),
            domain: self.record.domain.clone(),
            api_port,
            https_port,
            hosts_block: self.record.hosts_block,
            state_dir: layout.state.clone(),
            roles,
            accelerator: workloads::accelerator(&layout),
            workloads: is_privileged.then(|| workloads::workloads(&layout, &self.boot_id)),
        }
    }

    /// Renames large logs and has their writers open new ones.
    pub(super) fn rotate_logs(&mut self, largest: u64) {
        let layout = self.record.layout();
        let root = Owner { uid: 0, gid: 0 };
        let rotated = |name: &str, owner: Owner| -> Result<Option<File>, evroc_iam::files::FileError> {
            if !logs::rotate(&layout.log(name), largest)? {
                return Ok(None);
            }
            bootstrap::open_log(&layout, name, owner).map(Some)
        };
        match rotated("supervisor", root) {
            Ok(Some(file)) => {
                if self.is_detached {
                    let _ = rustix::stdio::dup2_stdout(&file);
                    let _ = rustix::stdio::dup2_stderr(&file);
                }
                self.log.reopen(file);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, cause = %error.source, "cannot rotate a log"),
        }
        for (role, slot) in &self.roles {
            match rotated(role.name(), role::owner(&self.record, *role)) {
                Ok(Some(_)) => {
                    if let Some(started) = &slot.started {
                        let _ = started.commands.try_send(Command::ReopenLog);
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, cause = %error.source, "cannot rotate a log"),
            }
        }
    }
}

impl RoleSlot {
    fn status(&self) -> RoleStatus {
        let state = match (&self.started, self.next_start) {
            (Some(started), _) if started.is_ready => RoleState::Ready,
            (Some(_), _) => RoleState::Starting,
            (None, Some(_)) => RoleState::Waiting,
            (None, None) => RoleState::Stopped,
        };
        RoleStatus {
            state,
            pid: self.started.as_ref().map(|started| started.handle.id.pid),
            uptime_seconds: self.started.as_ref().map_or(0, |started| started.at.elapsed().as_secs()),
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
        }
    }
}
