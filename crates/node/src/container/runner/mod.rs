//! Starts, observes, stops and removes containers.
//!
//! Everything of a container is named `replica-<uid>`, so that each piece can be found after any interruption:
//!
//! | what | where |
//! |---|---|
//! | network namespace (only `lo`) | `/run/<instance>/netns/replica-<uid>` |
//! | bundle: `config.json`, `layers.json`, `started`, skeleton layer, mounted `rootfs` | `/run/<instance>/bundles/replica-<uid>/` |
//! | runtime's state | `/run/<instance>/runc/replica-<uid>/` |
//! | control groups | `/<instance>/replica-<uid>` in every hierarchy |
//! | shim: log, `pid.json`, `exit.json` | `<state>/shims/replica-<uid>/`, `/run/<instance>/shim/replica-<uid>.sock` |
//!
//! ```text
//!  (absent) ─ start ─► made ─ shim: runtime create ─► created ─ runtime start ─► running ─ ends ─► ended
//!      ▲                 │ fails                         │ agent killed: the next start() goes on    │
//!      └───── remove ◄───┴───────────────────────────────┴──────────────────────────────── remove ◄──┘
//! ```
//! [`ContainerRunner::find`] only looks. `remove` takes away every piece in whatever state it is, and is what `start` does first when it
//! finds pieces. Starts and removals of one container exclude each other.

mod observe;
mod running;
mod start;
mod stop;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::bundle::Workload;
use super::image::Image;
use super::rootfs::RootfsError;
use super::runtime::{Runtime, RuntimeError};
use crate::cgroup::{CgroupError, Cgroups};
use crate::dial::Dialer;
use crate::net::netns::NetnsError;
use crate::shim::{ClientError, Exit, LostShim, ShimLauncher, ShimUsers, SpawnError};

pub use observe::FoundContainer;
pub use running::Container;

const PREFIX: &str = "replica-";
/// The file in a bundle whose program the runtime has been ordered to execute.
const STARTED: &str = "started";
/// How long the runtime may take to create a container. It reads little; only a cold or overloaded disk makes it take seconds. Higher
/// keeps a deleted replica whose runtime hangs.
pub const CREATE_DEADLINE: Duration = Duration::from_secs(30);

/// The reason why a container does not run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ContainerError {
    /// Image and service together do not make a container that may run: only a change of them helps.
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
    #[error("the start of container {id} was given up, as it is being removed")]
    GivenUp { id: String },
    #[error("container {id} does not run")]
    NotRunning { id: String },
    #[error("container {id} does not end: it is stuck in the kernel")]
    CannotEnd { id: String },
}

impl ContainerError {
    /// Whether only another image or specification helps.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Unfit { .. })
    }
}

/// The settings with which containers are run.
#[derive(Debug, Clone)]
pub struct ContainerRunnerConfig {
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
    /// The users that shims become once their containers run. `None` (tests without root) leaves them the caller's.
    pub shim_users: Option<ShimUsers>,
    /// Control groups that shims join.
    pub shim_cgroups: Vec<PathBuf>,
    /// How long the runtime may take to create a container: [`CREATE_DEADLINE`].
    pub create_deadline: Duration,
}

/// The specification of a container.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// The replica's uid.
    pub uid: String,
    /// The image.
    pub image: Image,
    /// The part of the revision.
    pub workload: Workload,
}

/// Runs containers. Cheap to clone.
#[derive(Clone)]
pub struct ContainerRunner {
    config: Arc<ContainerRunnerConfig>,
    cgroups: Cgroups,
    runtime: Runtime,
    dialer: Dialer,
    /// Containers that are being started or removed.
    slots: Arc<Mutex<HashMap<String, Weak<Slot>>>>,
}

/// The synchronisation of the starts and removals of one container.
struct Slot {
    /// Held by the one that works.
    work: Arc<tokio::sync::Mutex<()>>,
    /// Changes when a removal wants a start to give up.
    removals: watch::Sender<()>,
}

/// The names of the pieces of one container.
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
    pub fn new(config: ContainerRunnerConfig, dialer: Dialer) -> Result<Self, ContainerError> {
        for path in [
            config.state_dir.join("shims"),
            config.run_dir.join("netns"),
            config.run_dir.join("bundles"),
            config.run_dir.join("shim"),
        ] {
            fs::create_dir_all(&path).map_err(file("create folder", &path))?;
        }
        // The content of tenants' images is not for the host's other users.
        let bundles = config.run_dir.join("bundles");
        fs::set_permissions(&bundles, fs::Permissions::from_mode(0o700)).map_err(file("close folder", &bundles))?;
        let runtime = Runtime::new(&config.runtime, &config.run_dir.join("runc"));
        Ok(Self { config: Arc::new(config), cgroups: Cgroups::discover()?, runtime, dialer, slots: Arc::default() })
    }

    /// The folder of a replica's shim, which holds its logs (see [`crate::shim::tail`]).
    pub fn shim_dir(&self, uid: &str) -> PathBuf {
        self.names(uid).shim_dir
    }

    /// The folder with the network namespaces, for [`crate::dial::server::DialServer`].
    pub fn netns_dir(&self) -> PathBuf {
        self.config.run_dir.join("netns")
    }

    fn names(&self, uid: &str) -> Names {
        let ContainerRunnerConfig { instance, state_dir, run_dir, .. } = &*self.config;
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

    /// Lists the uids of which any part exists on this host. Unwanted ones are for [`ContainerRunner::remove`].
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

    /// The folders of layers that containers are mounted from; `None` if that is not known of one of them.
    pub fn mounted_layers(&self) -> Option<HashSet<PathBuf>> {
        let bundles = crate::io::if_present(fs::read_dir(self.config.run_dir.join("bundles"))).ok()?;
        let Some(bundles) = bundles else { return Some(HashSet::new()) };
        let mut mounted = HashSet::new();
        for bundle in bundles {
            let path = bundle.ok()?.path();
            if let Ok(layers) = fs::read(path.join("layers.json")) {
                mounted.extend(serde_json::from_slice::<Vec<PathBuf>>(&layers).ok()?);
            } else if path.join("rootfs").exists() {
                return None;
            }
        }
        Some(mounted)
    }

    fn slot(&self, uid: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.strong_count() > 0);
        let new = || Arc::new(Slot { work: Arc::default(), removals: watch::channel(()).0 });
        let slot = slots.get(uid).and_then(Weak::upgrade).unwrap_or_else(new);
        slots.insert(uid.to_owned(), Arc::downgrade(&slot));
        slot
    }

    /// Ends the processes of a shim that ended without recording the end of its container.
    pub async fn end_orphan(&self, uid: &str, orphan: LostShim, grace: Duration) -> Result<Exit, ContainerError> {
        orphan.end(grace).await.map_err(file("end what the shim left in", &self.shim_dir(uid)))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContainerError> + Send + 'static,
) -> Result<T, ContainerError> {
    crate::io::blocking(work).await
}

fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> ContainerError + use<> {
    let path = path.to_owned();
    move |source| ContainerError::File { operation, path: path.clone(), source }
}
