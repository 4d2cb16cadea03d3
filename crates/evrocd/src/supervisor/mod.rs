//! The supervisor: holds the listening sockets, starts the three roles, restarts any that dies, and does nothing else.
//!
//! ```text
//!             spawn              Ready
//!  Waiting ─────────► Starting ─────────► Ready
//!     ▲                  │ exit             │ exit
//!     └───── backoff ────┴──────────────────┘
//! ```
//!
//! It is one thread. Guests and containers are children of shims in sessions of their own: neither the death of a role or of the
//! supervisor nor a signal to one of them reaches them. The effects of signals:
//!
//! | to the supervisor | effect |
//! |---|---|
//! | SIGTERM, SIGINT, SIGHUP at a terminal | roles are ended in order, then the supervisor; guests and containers go on |
//! | SIGHUP when detached | nothing |
//! | SIGKILL | roles go on serving; the next `evrocd up` takes over |

mod backoff;
pub mod client;
pub mod logs;
mod prepare;
mod progress;
pub mod protocol;
mod reload;
mod role;
mod server;
mod spawn;
mod stop;
pub mod takeover;
mod upkeep;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use evroc_iam::files::Owner;
use tokio::sync::mpsc;

use crate::bootstrap;
use crate::instance::{InstanceLock, InstanceName, InstanceRecord};
use crate::logging::SupervisorLog;
use crate::process::Ended;
use crate::roles::{Report, Role, RoleConfig, RoleMode};
pub use prepare::UpOptions;
pub use progress::Progress;
use protocol::{Reply, Request};
pub use reload::LOCK;
pub use role::owner as role_owner;
use role::{RoleSlot, Started};
pub use stop::drain_without_supervisor;

/// How often a role may die at the first start before the start is given up.
const DEATHS_AT_START: u32 = 5;
/// How often certificates are looked at while the supervisor runs.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(6 * 3600);
/// How often log files are looked at.
const LOG_CHECK: Duration = Duration::from_secs(10);

/// Something that happened.
enum Event {
    /// A role's process ended.
    Exited { role: Role, generation: u64, ended: Option<Ended> },
    /// A role reported something.
    Reported { role: Role, generation: u64, report: Report },
    /// A client sent a request.
    Asked(server::Asked),
}

/// How the supervisor was started.
pub struct Start {
    /// Instance.
    pub instance: InstanceName,
    /// Options of `up`.
    pub options: UpOptions,
    /// The instance's lock, if it is held already.
    pub lock: Option<InstanceLock>,
    /// Whether there is no terminal.
    pub is_detached: bool,
    /// The receiver of progress messages.
    pub progress: Progress,
}

/// Runs the supervisor until it is requested to stop.
pub fn run(start: Start) -> anyhow::Result<ExitCode> {
    raise_file_limit();
    let log = SupervisorLog::init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let Start { instance, options, lock, is_detached, mut progress } = start;
        let mut inherited = reload::inherited(&instance)?;
        inherited.lock = lock.or(inherited.lock);
        let result = match prepare::prepare(&instance, &options, inherited, &log, &mut progress).await {
            Ok(prepared) => {
                if is_detached {
                    redirect_output(&prepared.record)?;
                }
                Supervisor::new(prepared, log, progress, is_detached)?.run().await
            }
            Err(error) => {
                progress.failed(&format!("{error:#}"));
                Err(error)
            }
        };
        if let Err(error) = &result {
            tracing::error!(error = format!("{error:#}"), "supervisor failed");
        }
        result
    })
}

/// Files may be many; the hard limit is the machine owner's and is never exceeded.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let found = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: found.maximum, maximum: found.maximum });
}

/// Panics and the like must not go to a terminal that the user has forgotten.
fn redirect_output(record: &InstanceRecord) -> anyhow::Result<()> {
    let file = bootstrap::open_log(&record.layout(), "supervisor", Owner { uid: 0, gid: 0 })?;
    rustix::stdio::dup2_stdout(&file)?;
    rustix::stdio::dup2_stderr(&file)?;
    Ok(())
}

struct Supervisor {
    record: InstanceRecord,
    lock: InstanceLock,
    api: Vec<TcpListener>,
    https: Vec<TcpListener>,
    digest: String,
    boot_id: String,
    log: SupervisorLog,
    progress: Progress,
    is_detached: bool,
    roles: BTreeMap<Role, RoleSlot>,
    events: mpsc::Receiver<Event>,
    queue: mpsc::Sender<Event>,
    state: &'static str,
    started: Instant,
}

/// The reason why the loop ended.
enum Stop {
    /// By a signal: guests and containers go on.
    Signal(&'static str),
    /// By `evrocd down`.
    Down { timeout: Duration, reply: mpsc::Sender<Reply> },
    /// A role does not start.
    RoleFails(Role),
}

impl Supervisor {
    fn new(
        prepared: prepare::Prepared,
        log: SupervisorLog,
        progress: Progress,
        is_detached: bool,
    ) -> anyhow::Result<Self> {
        let (queue, events) = mpsc::channel(256);
        Ok(Self {
            record: prepared.record,
            lock: prepared.lock,
            api: prepared.api,
            https: prepared.https,
            digest: prepared.digest,
            boot_id: prepared.boot_id,
            log,
            progress,
            is_detached,
            roles: Role::ALL.into_iter().map(|role| (role, RoleSlot::default())).collect(),
            events,
            queue,
            state: "starting",
            started: Instant::now(),
        })
    }

    async fn run(mut self) -> anyhow::Result<ExitCode> {
        let socket = self.record.layout().supervisor_socket();
        let answers = server::listen(&socket, self.queue.clone())?;
        for role in Role::ALL {
            self.spawn(role);
        }
        let stop = self.serve().await?;
        let result = self.stop(stop).await;
        let _ = std::fs::remove_file(&socket);
        self.record.supervisor = None;
        self.record.roles.clear();
        self.record.save()?;
        answers.written().await;
        result
    }

    /// The loop. Returns when the supervisor has to stop.
    async fn serve(&mut self) -> anyhow::Result<Stop> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut log_check = tokio::time::interval(LOG_CHECK);
        let mut certificate_check = tokio::time::interval(CERTIFICATE_CHECK);
        certificate_check.reset();
        loop {
            let next_start = self.roles.values().filter_map(|slot| slot.next_start).min();
            tokio::select! {
                _ = terminate.recv() => return Ok(Stop::Signal("SIGTERM")),
                _ = interrupt.recv() => return Ok(Stop::Signal("SIGINT")),
                _ = hangup.recv() => match self.is_detached {
                    true => tracing::info!("ignored SIGHUP"),
                    false => return Ok(Stop::Signal("SIGHUP")),
                },
                _ = log_check.tick() => self.rotate_logs(logs::LARGEST),
                _ = certificate_check.tick() => self.renew_certificates().await,
                () = sleep_until(next_start) => {
                    for role in Role::ALL {
                        if self.roles[&role].next_start.is_some_and(|at| at <= Instant::now()) {
                            self.spawn(role);
                        }
                    }
                }
                Some(event) = self.events.recv() => if let Some(stop) = self.handle(event).await {
                    return Ok(stop);
                },
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Option<Stop> {
        match event {
            Event::Exited { role, generation, ended } => {
                if !self.note_exit(role, generation, ended) {
                    return None;
                }
                let slot = &self.roles[&role];
                if self.state == "starting" && !slot.was_ready && slot.quick_deaths >= DEATHS_AT_START {
                    return Some(Stop::RoleFails(role));
                }
            }
            Event::Reported { role, generation, report } => self.note_report(role, generation, &report),
            Event::Asked(asked) => match asked.request {
                Request::Status => {
                    let status = self.status(asked.is_privileged);
                    let _ = asked.reply.send(Reply::Status(Box::new(status))).await;
                }
                _ if !asked.is_privileged => {
                    let message = "only root may do this: run it with sudo".to_owned();
                    let _ = asked.reply.send(Reply::Error { message }).await;
                }
                Request::Reload => {
                    let error =
                        reload::replace_self(&self.record, &self.lock, &self.api, &self.https, self.is_detached);
                    let message = format!("cannot start the new program: {error}; the old one goes on");
                    tracing::error!(message);
                    let _ = asked.reply.send(Reply::Error { message }).await;
                }
                Request::Down { timeout_seconds } => {
                    return Some(Stop::Down { timeout: Duration::from_secs(timeout_seconds), reply: asked.reply });
                }
            },
        }
        None
    }

    /// Takes note of a role's end and plans its restart. False for the end of a process that was replaced already.
    fn note_exit(&mut self, role: Role, generation: u64, ended: Option<Ended>) -> bool {
        let Some(slot) = self.roles.get_mut(&role) else { return false };
        let Some(started) = slot.started.take_if(|started| started.generation == generation) else { return false };
        let lived = started.at.elapsed();
        slot.quick_deaths = backoff::quick_deaths(slot.quick_deaths, lived);
        let delay = backoff::delay(slot.quick_deaths);
        slot.next_start = Some(Instant::now() + delay);
        let how = ended.map_or_else(|| "unknown".to_owned(), |ended| ended.to_string());
        tracing::warn!(%role, pid = started.handle.id.pid, how, lived_ms = lived.as_millis(), delay_ms = delay.as_millis(), "role ended");
        slot.last_exit = Some(how);
        true
    }

    fn note_report(&mut self, role: Role, generation: u64, report: &Report) {
        let Some(slot) = self.roles.get_mut(&role) else { return };
        let Some(started) = slot.started.as_mut().filter(|started| started.generation == generation) else { return };
        match report {
            Report::Ready => {
                started.is_ready = true;
                slot.was_ready = true;
                tracing::info!(%role, after_ms = started.at.elapsed().as_millis(), "role is ready");
                let all_ready = self.roles.values().all(|slot| slot.is_ready());
                if all_ready && self.state == "starting" {
                    self.state = "running";
                    let status = self.status(true);
                    self.progress.ready(status);
                }
            }
            Report::Progress { message } => tracing::info!(%role, message, "progress"),
            Report::Drained { stopped, killed } => tracing::info!(%role, stopped, killed, "drained"),
        }
    }

    /// Starts a role; a failure counts as a death.
    fn spawn(&mut self, role: Role) {
        let result = self.try_spawn(role);
        let Some(slot) = self.roles.get_mut(&role) else { return };
        slot.next_start = None;
        match result {
            Ok(started) => {
                tracing::info!(%role, pid = started.handle.id.pid, "role started");
                self.record.roles.insert(role.name().to_owned(), started.handle.id);
                slot.restarts += u32::from(slot.was_started);
                slot.was_started = true;
                slot.started = Some(started);
                if let Err(error) = self.record.save() {
                    tracing::error!(%error, cause = %error.source, "cannot write the instance's record");
                }
            }
            Err(error) => {
                tracing::error!(%role, error = format!("{error:#}"), "cannot start the role");
                slot.quick_deaths = backoff::quick_deaths(slot.quick_deaths, Duration::ZERO).max(2);
                slot.next_start = Some(Instant::now() + backoff::delay(slot.quick_deaths));
                slot.last_exit = Some(format!("{error:#}"));
            }
        }
    }

    fn try_spawn(&mut self, role: Role) -> anyhow::Result<Started> {
        let config = self.role_config(role, RoleMode::Serve)?;
        let listeners = match role {
            Role::Control => vec![("EVROC_LISTEN_API", self.api.iter().map(AsFd::as_fd).collect())],
            Role::Edge => vec![("EVROC_LISTEN_HTTPS", self.https.iter().map(AsFd::as_fd).collect())],
            Role::Node => Vec::new(),
        };
        role::start(&self.record, role, &config, listeners, &self.queue)
    }

    fn role_config(&self, role: Role, mode: RoleMode) -> anyhow::Result<RoleConfig> {
        let ports = self.record.ports.context("no ports were chosen")?;
        Ok(role::config(&self.record, role, mode, (ports.api.port, ports.https.port), &self.boot_id))
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Descriptors that are passed on to a role, with the variable that holds their numbers.
type Passed<'a> = Vec<(&'static str, Vec<std::os::fd::BorrowedFd<'a>>)>;

/// One end of a new socket pair for each side.
fn link_pair() -> std::io::Result<(tokio::net::UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((tokio::net::UnixStream::from_std(ours)?, theirs.into()))
}
