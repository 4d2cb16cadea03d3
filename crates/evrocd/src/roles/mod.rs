//! The three roles, each a process of this program that the supervisor starts.
//!
//! The inputs of a role and their sources ([`RoleContext`]):
//!
//! | what | how |
//! |---|---|
//! | its settings | `--config <role folder>/config.json` ([`RoleConfig`]), written before each start |
//! | its listening sockets | inherited descriptors, numbers in `EVROC_LISTEN_API`, `EVROC_LISTEN_HTTPS` ("9,10") |
//! | its link to the supervisor | one end of a socket pair, number in `EVROC_LINK`: JSON lines both ways ([`link`]) |
//! | its identity | key and certificate in its own folder (paths in the settings), readable by its user only |
//! | standard output and error | its log file; the supervisor rotates it |
//!
//! Rules for a role:
//! - Signal readiness once ([`RoleContext::ready`]), when a request would be answered.
//! - SIGTERM means: finish requests in flight, then return (`ctx.stop`). It never stops guests or containers; only [`Command::Drain`]
//!   does.
//! - The end of a supervisor (end of the link) is no reason to stop: the next one ends the role in an orderly way and takes its sockets.
//! - SIGINT and SIGHUP are not for roles and are ignored.

mod api;
mod config;
pub mod control;
pub mod edge;
pub mod link;
pub mod node;
mod tls;

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use config::{DEFAULT_UPLINK, FIRST_ZONE, RoleConfig, RoleMode, SCALE_TO_ZERO_SECONDS};
pub use control::store::EtcdSettings;
pub use link::{Command, Report};
pub use tls::Reloads;

use crate::traces::Export;

/// A role's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Store, API, controllers, issuer, registry, console.
    Control,
    /// HTTPS gateway.
    Edge,
    /// Machines, containers, host network.
    Node,
}

impl Role {
    /// In the order of starting; the reverse is the order of stopping.
    pub const ALL: [Self; 3] = [Self::Control, Self::Node, Self::Edge];

    /// The word for it: subcommand, folder, log file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Edge => "edge",
            Self::Node => "node",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The context of a role.
pub struct RoleContext {
    /// Settings.
    pub config: Arc<RoleConfig>,
    /// Sockets of the API port (control).
    pub api_listeners: Vec<TcpListener>,
    /// Sockets of the HTTPS port (edge).
    pub https_listeners: Vec<TcpListener>,
    /// Cancelled by SIGTERM: finish and return.
    pub stop: CancellationToken,
    /// Commands of the supervisor.
    pub commands: mpsc::Receiver<Command>,
    /// The readers that run again when certificates were replaced.
    pub reloads: Arc<Reloads>,
    reports: mpsc::Sender<Report>,
}

impl RoleContext {
    /// Reports to the supervisor that the role is ready. Call once, when a request would be answered.
    pub async fn ready(&self) {
        self.report(Report::Ready).await;
    }

    /// Reports to the supervisor; without a supervisor nothing happens.
    pub async fn report(&self, report: Report) {
        let _ = self.reports.send(report).await;
    }
}

/// Runs a role until it ends; what `main` does for the hidden subcommands.
pub fn run(role: Role, config: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(config).with_context(|| format!("cannot read {}", config.display()))?;
    let config: RoleConfig =
        serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", config.display()))?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name(role.name());
    if matches!(role, Role::Control) {
        runtime.thread_stack_size(evroc_apiserver::schema::THREAD_STACK_BYTES);
    }
    let runtime = runtime.build()?;
    let export = Export::begin(&config, runtime.handle())?;
    crate::logging::init_role(export.as_ref());
    let result = runtime.block_on(async {
        let context = context(config)?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "role starts");
        match role {
            Role::Control => control::run(context).await,
            Role::Edge => edge::run(context).await,
            Role::Node => node::run(context).await,
        }
    });
    if let Some(export) = export {
        export.end();
    }
    // Work on the blocking pool must not delay a restart.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match &result {
        Ok(()) => tracing::info!("role ended"),
        Err(error) => tracing::error!(error = format!("{error:#}"), "role failed"),
    }
    result
}

fn context(config: RoleConfig) -> anyhow::Result<RoleContext> {
    let api_listeners = listeners("EVROC_LISTEN_API")?;
    let https_listeners = listeners("EVROC_LISTEN_HTTPS")?;
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    let (reports, report_queue) = mpsc::channel(64);
    let (command_queue, commands) = mpsc::channel(16);
    let reloads = Arc::new(Reloads::default());
    if let Some(fd) = inherited("EVROC_LINK")?.into_iter().next() {
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (log, loads) = (config.log_file.clone(), reloads.clone());
        let reopen = move || reopen_log(&log);
        tokio::spawn(link::serve(stream, report_queue, command_queue, reopen, move || loads.load()));
    }
    Ok(RoleContext { config: Arc::new(config), api_listeners, https_listeners, stop, commands, reloads, reports })
}

fn listeners(variable: &str) -> anyhow::Result<Vec<TcpListener>> {
    inherited(variable)?
        .into_iter()
        .map(|fd| {
            let listener = StdListener::from(fd);
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })
        .collect::<io::Result<_>>()
        .with_context(|| format!("cannot use the sockets in {variable}"))
}

/// Descriptors whose numbers stand in an environment variable, made to close on exec again.
#[allow(unsafe_code)]
pub fn inherited(variable: &str) -> anyhow::Result<Vec<OwnedFd>> {
    let Ok(text) = std::env::var(variable) else { return Ok(Vec::new()) };
    text.split(',')
        .filter(|word| !word.is_empty())
        .map(|word| {
            let number: RawFd = word.parse().with_context(|| format!("{variable}: {word:?} is not a descriptor"))?;
            anyhow::ensure!(number > 2, "{variable}: descriptor {number} is a standard stream");
            // SAFETY: only looked at; an invalid number is answered with EBADF.
            if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
                return Err(io::Error::last_os_error()).with_context(|| format!("{variable}: descriptor {number}"));
            }
            // SAFETY: the supervisor passed this open descriptor for this process to own, and each variable is read once.
            Ok(unsafe { OwnedFd::from_raw_fd(number) })
        })
        .collect()
}

fn watch_signals(stop: CancellationToken) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => stop.cancel(),
                _ = interrupt.recv() => tracing::info!("ignored SIGINT"),
                _ = hangup.recv() => tracing::info!("ignored SIGHUP"),
            }
        }
    });
    Ok(())
}

/// Points standard output and error at the log file's path again, after the supervisor has renamed the old file.
fn reopen_log(path: &Path) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdout(&file)?;
    rustix::stdio::dup2_stderr(&file)?;
    Ok(())
}
