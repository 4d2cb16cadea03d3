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
mod certificates;
pub mod client;
mod events;
mod limits;
pub mod logs;
mod prepare;
mod progress;
pub mod protocol;
mod reload;
mod role;
mod rotation;
mod server;
mod spawn;
mod stop;
pub mod takeover;
mod upkeep;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use evroc_iam::files::Owner;
use tokio::sync::mpsc;

use crate::bootstrap;
use crate::instance::{InstanceLock, InstanceName, InstanceRecord};
use crate::logging::SupervisorLog;
use crate::process::Ended;
use crate::roles::{Report, Role};
use crate::status::report::SupervisorState;
pub use prepare::UpOptions;
pub use progress::Progress;
use protocol::Reply;
pub use reload::LOCK;
use role::RoleSlot;
pub use role::owner as role_owner;
pub use rotation::outcome as rotation_outcome;
pub use stop::drain_without_supervisor;

/// Something that happened.
enum Event {
    /// A role's process ended.
    Exited { role: Role, generation: u64, ended: Option<Ended> },
    /// A role reported something.
    Reported { role: Role, generation: u64, report: Report },
    /// A client sent a request.
    ClientRequest(server::ClientRequest),
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
    state: SupervisorState,
    started: Instant,
    /// When certificates are looked at next.
    next_renewal: Instant,
    /// The number of the last command to load certificates.
    loads: u64,
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
            state: SupervisorState::Starting,
            started: Instant::now(),
            next_renewal: Instant::now() + certificates::next_check(prepared.renewal, SystemTime::now()),
            loads: 0,
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
}

/// Descriptors that are passed on to a role, with the variable that holds their numbers.
type Passed<'a> = Vec<(&'static str, Vec<std::os::fd::BorrowedFd<'a>>)>;

/// One end of a new socket pair for each side.
fn link_pair() -> std::io::Result<(tokio::net::UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((tokio::net::UnixStream::from_std(ours)?, theirs.into()))
}
