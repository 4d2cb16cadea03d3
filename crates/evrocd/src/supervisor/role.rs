//! One role's process and the tasks around it: who waits for its end, who reads and writes its link.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use evroc_iam::files::{self, Owner};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::limits;
use super::spawn::{Start, spawn};
use super::{Event, Passed, link_pair};
use crate::bootstrap;
use crate::instance::InstanceRecord;
use crate::process::Handle;
use crate::roles::{Command, Role, RoleConfig, RoleMode, link};

/// The supervisor's state of a role.
#[derive(Default)]
pub struct RoleSlot {
    /// The running process.
    pub started: Option<Started>,
    /// When to start it (again).
    pub next_start: Option<Instant>,
    /// Whether it was ever started by this supervisor.
    pub was_started: bool,
    /// Whether it was ever ready.
    pub was_ready: bool,
    /// Starts beyond the first.
    pub restarts: u32,
    /// Deaths in a row, each soon after the start.
    pub quick_deaths: u32,
    /// How it last ended.
    pub last_exit: Option<String>,
    /// The command to load certificates that it has not answered yet, and when it was sent.
    pub loading: Option<(u64, Instant)>,
}

impl RoleSlot {
    /// Whether the running process has reported that it is ready.
    pub fn is_ready(&self) -> bool {
        self.started.as_ref().is_some_and(|started| started.is_ready)
    }
}

/// A running role process.
pub struct Started {
    /// The process.
    pub handle: Arc<Handle>,
    /// Distinguishes this process's events from those of the one before.
    pub generation: u64,
    /// When.
    pub at: Instant,
    /// Whether it is at work.
    pub is_ready: bool,
    /// Commands for it.
    pub commands: mpsc::Sender<Command>,
}

/// The owner of a role's files.
pub fn owner(record: &InstanceRecord, role: Role) -> Owner {
    match role {
        Role::Control => Owner::same(record.uids.control()),
        Role::Edge => Owner::same(record.uids.edge()),
        Role::Node => Owner::same(0),
    }
}

/// A role's settings.
pub fn config(
    record: &InstanceRecord,
    role: Role,
    mode: RoleMode,
    (api_port, https_port): (u16, u16),
    boot_id: &str,
) -> RoleConfig {
    let layout = record.layout();
    let role_dir = layout.role(role.name());
    let pki = role_dir.join("pki");
    let pair = |folder: &std::path::Path, name: &str| {
        (Some(folder.join(format!("{name}.crt"))), Some(folder.join(format!("{name}.key"))))
    };
    let keys = bootstrap::pki_files(record);
    let (server, client, token) = match role {
        Role::Control => (pair(&pki, "server"), (None, None), Some(keys.token_key())),
        Role::Edge => (pair(&role_dir, "serving"), pair(&role_dir, "edge"), None),
        Role::Node => ((None, None), pair(&role_dir, "node"), None),
    };
    RoleConfig {
        role: role.name().to_owned(),
        mode,
        instance: record.instance.clone(),
        domain: record.domain.clone(),
        host_name: bootstrap::host_name(),
        boot_id: boot_id.to_owned(),
        log_file: layout.log(role.name()),
        program: layout.program(),
        definitions: layout.definitions(),
        ca_certificate: layout.public_authority(),
        client_certificate: client.0,
        client_key: client.1,
        server_certificate: server.0,
        server_key: server.1,
        token_key: token,
        retired_token_keys: (role == Role::Control).then(|| keys.retired_tokens()),
        etcd: record.etcd.as_ref().filter(|_| role == Role::Control).map(|etcd| bootstrap::installed_etcd(etcd, &pki)),
        api_port,
        https_port,
        uid_base: record.uids.base,
        uid_count: record.uids.count,
        edge_uid: record.uids.edge(),
        scale_to_zero_seconds: record.scale_to_zero_seconds,
        uplink: record.uplink.clone(),
        zone: record.zone.clone(),
        otlp_endpoint: record.otlp_endpoint.clone(),
        state_dir: layout.state,
        run_dir: layout.run,
        role_dir,
    }
}

/// Writes a role's settings, starts its process and the tasks around it.
pub fn start(
    record: &InstanceRecord,
    role: Role,
    config: &RoleConfig,
    descriptors: Passed<'_>,
    queue: &mpsc::Sender<Event>,
) -> anyhow::Result<Started> {
    static GENERATION: AtomicU64 = AtomicU64::new(1);
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    let layout = record.layout();
    let owner = owner(record, role);
    let config_path = config.role_dir.join("config.json");
    files::write_atomic(&config_path, &serde_json::to_vec_pretty(config)?, 0o600, Some(owner))?;
    let log = bootstrap::open_log(&layout, role.name(), owner)?;
    let (ours, theirs) = link_pair().context("cannot make a socket pair")?;
    let mut descriptors: Passed<'_> = descriptors;
    descriptors.push(("EVROC_LINK", vec![theirs.as_fd()]));
    let handle = spawn(&Start {
        program: &layout.program(),
        role: role.name(),
        config: &config_path,
        user: (owner.uid != 0).then_some(owner.uid),
        descriptors,
        groups: limits::prepare(&record.instance, role),
        log: &log,
    })
    .with_context(|| format!("cannot start {} {role}", layout.program().display()))?;
    let handle = Arc::new(handle);

    let (commands, mut command_queue) = mpsc::channel::<Command>(16);
    let (read, mut write) = ours.into_split();
    let reader = {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(report) => drop(queue.send(Event::Reported { role, generation, report }).await),
                    Err(_) => tracing::warn!(%role, line, "skipped a line of the role's"),
                }
            }
        })
    };
    tokio::spawn(async move {
        while let Some(command) = command_queue.recv().await {
            if write.write_all(link::line(&command).as_bytes()).await.is_err() {
                break;
            }
        }
    });
    let queue = queue.clone();
    let waited = handle.clone();
    tokio::spawn(async move {
        let _ = waited.ended().await;
        // Its last reports come before its end.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), reader).await;
        let ended = waited.reap();
        let _ = queue.send(Event::Exited { role, generation, ended }).await;
    });
    Ok(Started { handle, generation, at: Instant::now(), is_ready: false, commands })
}
