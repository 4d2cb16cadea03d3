//! Starts, finds again, stops and removes containers.
//!
//! Everything of a container is named `replica-<uid>`, so that each piece can be found after any interruption:
//!
//! | what | where |
//! |---|---|
//! | network namespace (only `lo`) | `/run/<instance>/netns/replica-<uid>` |
//! | bundle: `config.json`, skeleton layer, mounted `rootfs` | `/run/<instance>/bundles/replica-<uid>/` |
//! | runtime's state | `/run/<instance>/runc/replica-<uid>/` |
//! | control groups | `/<instance>/replica-<uid>` in every hierarchy |
//! | shim: log, `pid.json`, `exit.json` | `<state>/shims/replica-<uid>/`, `/run/<instance>/shim/replica-<uid>.sock` |
//!
//! ```text
//!  (absent) ─ start ─► made ─ shim: runtime create ─► created ─ runtime start ─► running ─ ends ─► ended
//!      ▲                 │ fails                         │ node killed: find() starts it             │
//!      └───── remove ◄───┴───────────────────────────────┴──────────────────────────────── remove ◄──┘
//! ```
//! `remove` takes away every piece wherever this stood, and is what `start` does first when it finds pieces.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::dial::Dialer;
use crate::net::netns::{Netns, NetnsError};
use crate::shim::{
    Adopted, ClientError, Exit, ShimClient, ShimLauncher, SpawnError, Spec, User as ShimUser, adopt, log_files,
};

use super::bundle::{BundleInput, Workload, config_json};
use super::image::Image;
use super::rootfs::{RootfsError, has_folder, mount_rootfs, remove_rootfs};
use super::runtime::{Runtime, RuntimeError};
use super::user;
use crate::cgroup::{CgroupError, Cgroups};

const PREFIX: &str = "replica-";
/// A process that got SIGKILL ends at once unless it is stuck in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// What a container that lost its shim gets to end by itself: its output goes nowhere any more.
const LOST_GRACE: Duration = Duration::from_secs(1);
/// First pause between two tries to connect to a starting container; doubled up to [`MAX_READY_PAUSE`].
const MIN_READY_PAUSE: Duration = Duration::from_millis(1);
/// Higher makes slow starters wait longer than needed; lower burns processor time while they start.
const MAX_READY_PAUSE: Duration = Duration::from_millis(20);

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ContainerError {
    /// The image and the service's words do not make a container that may run: nothing but a change of them helps.
    #[error("image {image:?} {problem}")]
    Unfit { image: String, problem: String },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Shim(#[from] ClientError),
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It ended while it was started.
    #[error("the container {}", .0.reason)]
    Ended(Box<Exit>),
    #[error("container {id} does not end: it is stuck in the kernel")]
    Stuck { id: String },
}

impl ContainerError {
    /// Nothing but another image or specification helps.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Unfit { .. })
    }
}

/// Where and with what containers are run.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// Prefix of control groups.
    pub instance: String,
    /// The node's state: `/var/lib/<instance>/node`.
    pub state_dir: PathBuf,
    /// `/run/<instance>`.
    pub run_dir: PathBuf,
    /// The OCI runtime.
    pub runtime: PathBuf,
    /// How to start shims.
    pub shim: ShimLauncher,
    /// Whom a shim becomes once its container runs.
    pub shim_user: Option<ShimUser>,
    /// Control groups that shims join.
    pub shim_cgroups: Vec<PathBuf>,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// The replica's uid.
    pub uid: String,
    /// The image.
    pub image: Image,
    /// What the revision says.
    pub workload: Workload,
}

/// What became of a container.
#[derive(Debug)]
pub enum Found {
    /// It runs.
    Running(Container),
    /// It has ended; its pieces (and its log) are still there.
    Ended(Exit),
    /// It was never started, or not completely.
    Absent,
}

/// Runs containers. Cheap to clone.
#[derive(Clone)]
pub struct ContainerRunner {
    config: Arc<RunnerConfig>,
    cgroups: Cgroups,
    runtime: Runtime,
    dialer: Dialer,
}

/// A running container.
#[derive(Clone)]
pub struct Container {
    shim: ShimClient,
    netns: Arc<Netns>,
    dialer: Dialer,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("shim", self.shim.record()).finish_non_exhaustive()
    }
}

struct Names {
    id: String,
    group: String,
    netns: PathBuf,
    bundle: PathBuf,
    shim_dir: PathBuf,
    shim_socket: PathBuf,
}

impl ContainerRunner {
    /// Makes the folders that all containers share.
    pub fn new(config: RunnerConfig, dialer: Dialer) -> Result<Self, ContainerError> {
        for path in [
            config.state_dir.join("shims"),
            config.run_dir.join("netns"),
            config.run_dir.join("bundles"),
            config.run_dir.join("shim"),
        ] {
            fs::create_dir_all(&path).map_err(file("create folder", &path))?;
        }
        // What tenants put into their images is not for the host's other users.
        let bundles = config.run_dir.join("bundles");
        fs::set_permissions(&bundles, fs::Permissions::from_mode(0o700)).map_err(file("close folder", &bundles))?;
        let runtime = Runtime::new(&config.runtime, &config.run_dir.join("runc"));
        Ok(Self { config: Arc::new(config), cgroups: Cgroups::discover()?, runtime, dialer })
    }

    /// The folder of a replica's shim: its logs are there (see [`crate::shim::tail`]).
    pub fn shim_dir(&self, uid: &str) -> PathBuf {
        self.names(uid).shim_dir
    }

    /// The folder with the network namespaces, for [`crate::dial::server::DialServer`].
    pub fn netns_dir(&self) -> PathBuf {
        self.config.run_dir.join("netns")
    }

    fn names(&self, uid: &str) -> Names {
        let RunnerConfig { instance, state_dir, run_dir, .. } = &*self.config;
        let id = format!("{PREFIX}{uid}");
        Names {
            group: format!("/{instance}/{id}"),
            netns: run_dir.join("netns").join(&id),
            bundle: run_dir.join("bundles").join(&id),
            shim_dir: state_dir.join("shims").join(&id),
            shim_socket: run_dir.join("shim").join(format!("{id}.sock")),
            id,
        }
    }

    /// Uids of which any piece is on this host. What is not wanted among them is for [`ContainerRunner::remove`].
    pub fn known(&self) -> BTreeSet<String> {
        let run = &self.config.run_dir;
        let folders = [self.config.state_dir.join("shims"), run.join("netns"), run.join("bundles"), run.join("runc")];
        let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .chain(self.cgroups.children(&self.config.instance))
            .filter_map(|name| name.strip_prefix(PREFIX).map(String::from))
            .collect()
    }

    /// Looks for a container that an earlier run of this agent started. One that lost its shim is ended.
    pub async fn find(&self, uid: &str) -> Result<Found, ContainerError> {
        let names = self.names(uid);
        let shim = match adopt(&names.shim_dir).await.map_err(file("adopt shim in", &names.shim_dir))? {
            Adopted::Running(shim) => shim,
            Adopted::Exited(exit) => return Ok(Found::Ended(exit)),
            Adopted::ShimLost(lost) => {
                let exit = lost.end(LOST_GRACE).await.map_err(file("end what the shim left in", &names.shim_dir))?;
                return Ok(Found::Ended(exit));
            }
            Adopted::Never => return Ok(Found::Absent),
        };
        let netns = match Netns::open(&names.netns) {
            Ok(netns) => Arc::new(netns),
            // Somebody took it away: nothing can reach the container any more.
            Err(error) if error.is_not_found() => return Ok(Found::Ended(kill(&shim, &names.id).await?)),
            Err(error) => return Err(error.into()),
        };
        if self.runtime.status(&names.id).await?.as_deref() == Some("created") {
            self.runtime.start(&names.id).await?;
        }
        Ok(Found::Running(Container { shim, netns, dialer: self.dialer.clone() }))
    }

    /// The running container; started if there is none. What an ended one left is removed first, but for its log, which goes on.
    pub async fn start(&self, spec: &ContainerSpec) -> Result<Container, ContainerError> {
        if let Found::Running(container) = self.find(&spec.uid).await? {
            return Ok(container);
        }
        self.remove_all_but_log(&spec.uid).await?;
        let has_log = self.shim_dir(&spec.uid).exists();
        let result = self.start_new(spec).await;
        if result.is_err() {
            // One that never ran has nothing to say; why it did not start is the error.
            let removed = match has_log {
                true => self.remove_all_but_log(&spec.uid).await,
                false => self.remove(&spec.uid).await,
            };
            if let Err(error) = removed {
                tracing::warn!(uid = spec.uid, %error, "remove the pieces of a container that did not start");
            }
        }
        result
    }

    async fn start_new(&self, spec: &ContainerSpec) -> Result<Container, ContainerError> {
        let names = self.names(&spec.uid);
        let (this, owned) = (self.clone(), spec.clone());
        let netns = blocking(move || this.prepare(&owned)).await?;
        let pid_file = names.bundle.join("pid");
        let log = names.bundle.join("runtime.log");
        let argv = self.runtime.create_argv(&names.id, &names.bundle, &pid_file, &log);
        let mut shim_spec = Spec::new(&names.id, argv, &names.shim_socket);
        shim_spec.env.insert("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        shim_spec.pid_file = Some(pid_file);
        shim_spec.oom_cgroups = self.cgroups.memory_folders(&names.group);
        shim_spec.shim_user = self.config.shim_user.clone();
        shim_spec.shim_cgroups = self.config.shim_cgroups.clone();
        let shim = match self.config.shim.spawn(&names.shim_dir, &shim_spec).await {
            Ok(shim) => shim,
            Err(error) => {
                let Some(problem) = Runtime::complaint(&log) else { return Err(error.into()) };
                // What the runtime says of the program is the image's or the user's doing.
                if problem.starts_with("exec: ") {
                    let problem = format!("cannot be started: {problem}");
                    return Err(ContainerError::Unfit { image: spec.image.written.clone(), problem });
                }
                return Err(RuntimeError::Refused {
                    program: self.config.runtime.to_string_lossy().into_owned(),
                    command: "create",
                    id: names.id,
                    message: problem,
                }
                .into());
            }
        };
        self.runtime.start(&names.id).await?;
        Ok(Container { shim, netns: Arc::new(netns), dialer: self.dialer.clone() })
    }

    /// Makes everything that the runtime needs.
    fn prepare(&self, spec: &ContainerSpec) -> Result<Netns, ContainerError> {
        let names = self.names(&spec.uid);
        let image = &spec.image;
        let unfit = |problem: String| ContainerError::Unfit { image: image.written.clone(), problem };
        self.cgroups.create(&names.group)?;
        let netns = Netns::ensure(&names.netns)?;
        let rootfs = mount_rootfs(&names.bundle, &image.layers, &spec.workload.hostname)?;
        let run = &image.config.config;
        let user = user::resolve(&run.user, &rootfs).map_err(|error| unfit(error.to_string()))?;
        if !run.working_dir.is_empty() && !has_folder(&rootfs, &run.working_dir) {
            return Err(unfit(format!("has WORKDIR {:?}, but no such folder: add `RUN mkdir`", run.working_dir)));
        }
        let config = config_json(&BundleInput {
            workload: &spec.workload,
            image: run,
            user: &user,
            cgroup: &names.group,
            netns: &names.netns.to_string_lossy(),
            can_limit_swap: self.cgroups.can_limit_swap(),
        })
        .map_err(|error| unfit(error.to_string()))?;
        let path = names.bundle.join("config.json");
        fs::write(&path, config.to_string()).map_err(file("write", &path))?;
        Ok(netns)
    }

    /// Ends the container at once if it runs (see [`Container::stop`] for the polite way) and removes every piece of it, its log
    /// included. Removing what is not there is fine.
    pub async fn remove(&self, uid: &str) -> Result<(), ContainerError> {
        self.remove_all_but_log(uid).await?;
        let folder = self.shim_dir(uid);
        blocking(move || match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", &folder)(error)),
            _ => Ok(()),
        })
        .await
    }

    async fn remove_all_but_log(&self, uid: &str) -> Result<(), ContainerError> {
        let names = self.names(uid);
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
            match fs::remove_file(&names.shim_socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file("remove", &names.shim_socket)(error));
                }
                _ => {}
            }
            keep_only_log(&names.shim_dir).map_err(file("tidy up", &names.shim_dir))
        })
        .await
    }
}

/// Takes the records of an ended run from a shim's folder, and the folder where there is no log.
fn keep_only_log(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
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

impl Container {
    /// Its shim: attach, signal, status.
    pub fn shim(&self) -> &ShimClient {
        &self.shim
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> Result<Exit, ContainerError> {
        Ok(self.shim.wait().await?)
    }

    /// Opens a TCP connection to a port inside it.
    pub async fn connect(&self, port: u16) -> io::Result<tokio::net::TcpStream> {
        self.dialer.connect(&self.netns, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
    }

    /// Waits until `port` accepts connections; [`ContainerError::Ended`] if the container ends before. Set a deadline.
    pub async fn wait_ready(&self, port: u16) -> Result<(), ContainerError> {
        let ready = async {
            let mut pause = MIN_READY_PAUSE;
            while self.connect(port).await.is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_READY_PAUSE);
            }
        };
        tokio::select! {
            () = ready => Ok(()),
            exit = self.wait() => Err(ContainerError::Ended(Box::new(exit?))),
        }
    }

    /// Asks it to end (with the image's STOPSIGNAL, else SIGTERM) and ends it after `grace`.
    pub async fn stop(&self, signal: i32, grace: Duration) -> Result<Exit, ContainerError> {
        if let Err(error) = self.shim.signal(signal).await {
            // It may be ending by itself; waiting tells.
            tracing::debug!(%error, "signal a container");
        }
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => kill(&self.shim, &self.shim.record().id).await,
        }
    }
}

async fn kill(shim: &ShimClient, id: &str) -> Result<Exit, ContainerError> {
    if let Err(error) = shim.signal(libc::SIGKILL).await {
        tracing::debug!(%error, "kill a container");
    }
    match tokio::time::timeout(KILL_DEADLINE, shim.wait()).await {
        Ok(exit) => Ok(exit?),
        Err(_) => Err(ContainerError::Stuck { id: id.to_owned() }),
    }
}

/// The number of an image's STOPSIGNAL (`SIGQUIT`, `QUIT` or a number); SIGTERM if it has none that makes sense.
pub fn stop_signal(text: &str) -> i32 {
    let name = text.trim().to_ascii_uppercase();
    match name.strip_prefix("SIG").unwrap_or(&name) {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "KILL" => libc::SIGKILL,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "WINCH" => libc::SIGWINCH,
        "PWR" => libc::SIGPWR,
        "RTMIN+3" => libc::SIGRTMIN() + 3,
        number => number.parse().ok().filter(|number| (1..=64).contains(number)).unwrap_or(libc::SIGTERM),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContainerError> + Send + 'static,
) -> Result<T, ContainerError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> ContainerError + use<> {
    let path = path.to_owned();
    move |source| ContainerError::File { operation, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_understood() {
        let all = ["", "SIGTERM", "SIGQUIT", "quit", "3", "SIGRTMIN+3", "99", "nonsense"].map(stop_signal);
        assert_eq!(all, [15, 15, 3, 3, 3, 37, 15, 15]);
    }
}
