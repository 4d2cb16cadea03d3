//! The parts of the report, as supervisor and command line exchange it and as JSON shows it. No I/O.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A guest or container, as its shim's folder describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The shim's id.
    pub id: String,
    /// Whether it runs.
    pub state: WorkloadState,
    /// Process id while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// Whether a guest or container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WorkloadState {
    /// It has a process.
    Running,
    /// It has an exit status.
    Ended,
    /// It has neither a process nor an exit status.
    Lost,
}

/// The activity of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SupervisorState {
    /// Not every role has been ready yet.
    Starting,
    /// Every role has been ready.
    Running,
    /// Guests and containers are being stopped.
    Draining,
    /// The roles are being stopped.
    Stopping,
}

/// The activity of an instance: that of its supervisor, or the state without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
pub enum InstanceState {
    /// It has a supervisor.
    Supervised(SupervisorState),
    /// It has none.
    Alone(Alone),
}

/// The state without a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Alone {
    /// Nothing.
    Stopped,
    /// Roles that go on.
    Orphaned,
}

/// The activity of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoleState {
    /// At work.
    Ready,
    /// It has a process that is not at work yet.
    Starting,
    /// It ended and will be started again.
    Waiting,
    /// It has no process and will have none.
    Stopped,
}

macro_rules! as_in_json {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            /// The word that stands in the JSON.
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let word = serde_json::to_value(self).map_err(|_| fmt::Error)?;
                formatter.pad(word.as_str().unwrap_or_default())
            }
        }
    )*};
}
as_in_json!(WorkloadState, SupervisorState, InstanceState, RoleState);

/// Addresses for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Urls {
    /// For kubectl.
    pub api: String,
    /// Registry, as in image names.
    pub registry: String,
    /// Pattern of services' addresses.
    pub services: String,
}

/// The machine's resources, in total and free.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Processors.
    pub cpus: u32,
    /// Processors not in use over the last fifth of a second.
    pub cpus_free: f64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory that programs can still get, in bytes.
    pub memory_free_bytes: u64,
    /// Disk below the state folder, in bytes.
    pub disk_bytes: u64,
    /// Free there, in bytes.
    pub disk_free_bytes: u64,
}

/// The addresses of an instance. Pure.
pub fn urls(domain: &str, api_port: u16, https_port: u16) -> Urls {
    let port = if https_port == 443 { String::new() } else { format!(":{https_port}") };
    Urls {
        api: format!("https://127.0.0.1:{api_port}"),
        registry: format!("registry.{domain}{port}"),
        services: format!("https://svc-….{domain}{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_a_port_only_where_it_is_needed() {
        let other = urls("evroc.localhost", 16443, 8443);
        assert_eq!(
            (other.api.as_str(), other.registry.as_str()),
            ("https://127.0.0.1:16443", "registry.evroc.localhost:8443")
        );
    }

    #[test]
    fn states_are_printed_as_in_json() {
        assert_eq!(format!("{:<9}|", RoleState::Ready), "ready    |");
        assert_eq!(InstanceState::Supervised(SupervisorState::Draining).to_string(), "draining");
        assert_eq!(InstanceState::Alone(Alone::Orphaned).to_string(), "orphaned");
        assert_eq!(serde_json::to_value(InstanceState::Alone(Alone::Stopped)).unwrap(), "stopped");
        assert_eq!(serde_json::from_str::<SupervisorState>("\"running\"").unwrap(), SupervisorState::Running);
    }
}
