//! Gathers the report of an instance.

use std::path::PathBuf;

use serde::Serialize;

use super::machine;
use super::report::{Alone, Host, InstanceState, Urls, urls};
use super::workloads::accelerator;
use crate::instance::{InstanceName, InstanceRecord};
use crate::process::{self, ProcessId};
use crate::supervisor::client;
use crate::supervisor::protocol::SupervisorStatus;

/// Everything that the command shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// Instance.
    pub instance: String,
    /// Returns the activity of the instance.
    pub state: InstanceState,
    /// The supervisor's answer, if one runs.
    pub supervisor: Option<SupervisorStatus>,
    /// The addresses at which it is reached.
    pub urls: Option<Urls>,
    /// Kubeconfig files that were written.
    pub kubeconfigs: Vec<PathBuf>,
    /// Roles that run without a supervisor.
    pub orphans: Vec<String>,
    /// The free resources of the machine.
    pub host: Host,
    /// How guests are accelerated, as the node found out; JSON as written there.
    pub accelerator: Option<serde_json::Value>,
}

/// Gathers the overview; `None` when there is no such instance.
pub fn gather(instance: &InstanceName) -> anyhow::Result<Option<Overview>> {
    let Some(record) = InstanceRecord::load(instance)? else { return Ok(None) };
    let layout = record.layout();
    let supervisor = client::status(&layout.supervisor_socket())?;
    let boot_id = process::boot_id().unwrap_or_default();
    let orphans: Vec<String> = match supervisor {
        Some(_) => Vec::new(),
        None if record.boot_id == boot_id => {
            let alive = |(name, id): (&String, &ProcessId)| id.open().map(|_| format!("{name} (pid {})", id.pid));
            record.roles.iter().filter_map(alive).collect()
        }
        None => Vec::new(),
    };
    let state = match &supervisor {
        Some(status) => InstanceState::Supervised(status.state),
        None if orphans.is_empty() => InstanceState::Alone(Alone::Stopped),
        None => InstanceState::Alone(Alone::Orphaned),
    };
    // The file itself is readable by root only.
    let accelerator =
        supervisor.as_ref().and_then(|status| status.accelerator.clone()).or_else(|| accelerator(&layout));
    Ok(Some(Overview {
        instance: record.instance.clone(),
        state,
        urls: record.ports.map(|ports| urls(&record.domain, ports.api.port, ports.https.port)),
        kubeconfigs: record.user_files.iter().map(|files| files.folder.join("kubeconfig")).collect(),
        orphans,
        host: machine::host(&layout.state),
        accelerator,
        supervisor,
    }))
}
