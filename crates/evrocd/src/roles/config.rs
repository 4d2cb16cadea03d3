//! A role's settings, as the supervisor writes them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::control::store::EtcdSettings;

/// The mode of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoleMode {
    /// Ordinary work.
    #[default]
    Serve,
    /// Node only: there is no control and no edge; wait for [`super::Command::Drain`], stop what runs, report, end.
    DrainOnly,
}

/// Settings of one role. Paths are absolute; the role's user may read the named files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleConfig {
    /// `control`, `edge` or `node`.
    pub role: String,
    /// Its mode.
    #[serde(default)]
    pub mode: RoleMode,
    /// The instance's name.
    pub instance: String,
    /// Domain of the fixed names and of services.
    pub domain: String,
    /// This host's name in the API.
    pub host_name: String,
    /// Id of this boot; processes of another boot do not run any more.
    pub boot_id: String,
    /// `/var/lib/<instance>`.
    pub state_dir: PathBuf,
    /// `/run/<instance>`.
    pub run_dir: PathBuf,
    /// The role's own folder: `<state>/<role>`.
    pub role_dir: PathBuf,
    /// The target of standard output and error.
    pub log_file: PathBuf,
    /// The program to start shims with.
    pub program: PathBuf,
    /// Kinds of the operator's own (control); the folder is absent where there are none.
    #[serde(default)]
    pub definitions: PathBuf,
    /// The authority's certificate.
    pub ca_certificate: PathBuf,
    /// Client certificate (edge, node) for the API.
    #[serde(default)]
    pub client_certificate: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// Server certificate (control: fixed names and loopback; edge: `*.domain`).
    #[serde(default)]
    pub server_certificate: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub server_key: Option<PathBuf>,
    /// Key of signed tokens (control).
    #[serde(default)]
    pub token_key: Option<PathBuf>,
    /// Public keys of former keys of tokens (control).
    #[serde(default)]
    pub retired_token_keys: Option<PathBuf>,
    /// The etcd that holds the state (control); without it, the embedded store does.
    #[serde(default)]
    pub etcd: Option<EtcdSettings>,
    /// Port of the API on 127.0.0.1 and ::1.
    pub api_port: u16,
    /// Port of the HTTPS gateway there.
    pub https_port: u16,
    /// First uid of the instance. Guests: `uid_base + 1000 + n`.
    pub uid_base: u32,
    /// How many uids the instance owns.
    pub uid_count: u32,
    /// User of role edge, who owns the dial socket.
    pub edge_uid: u32,
    /// How long a service without requests keeps its last container.
    pub scale_to_zero_seconds: u64,
    /// The way out of VPCs: `none`, `host`, or `netns:<path>`.
    pub uplink: String,
    /// The zone of this host.
    pub zone: String,
    /// The collector of traces; without it, no spans are made.
    #[serde(default)]
    pub otlp_endpoint: Option<String>,
}

/// How long a service without requests keeps its last container, by default.
pub const SCALE_TO_ZERO_SECONDS: u64 = 15;
/// The default uplink of VPCs: through the host, so that guests reach every address that the host reaches.
pub const DEFAULT_UPLINK: &str = "host";
/// The zone of the first host.
pub const FIRST_ZONE: &str = "a";

impl RoleConfig {
    /// The address at which clients in this machine reach the API.
    pub fn api_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }
}
