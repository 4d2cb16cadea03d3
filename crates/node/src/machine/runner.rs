//! Starting, finding, stopping and removing machines.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use evroc_vmm::{
    Accelerator, DiskConfig, DiskFormat, DiskSource, GuestCommand, GuestConfig, Hypervisor, MonitorError, NicConfig,
    qemu,
};
use thiserror::Error;
use tokio::sync::Mutex;

use super::record::{self, MachineRecord};
use super::running::{Machine, MonitorSlot, StopManner, Stopped, disk_id};
use super::{AcceleratorKind, MachineConfig, Nic, limits};
use crate::cgroup::{CgroupError, Cgroups};
use crate::pool::{self, Owner, Pool, PoolError};
use crate::seed::{self, SeedError};
use crate::shim::{
    self, Adopted, ClientError, Exit, LogFormat, LogLimits, ShimClient, ShimLauncher, SpawnError, Spec, Stderr, User,
};

const PREFIX: &str = "vm-";
/// For a hypervisor whose shim was killed to end by SIGTERM (which closes its disks) before SIGKILL.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);
/// The serial console: at most 8 MiB on disk, of which the last 64 KiB are shown to who attaches.
const SERIAL_LOG: LogLimits = LogLimits { format: LogFormat::Raw, max_bytes: 2 << 20, max_files: 4 };

/// Where and with what machines are run.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    /// Names control groups.
    pub instance: String,
    /// The node's state: `/var/lib/<instance>/node`.
    pub state_dir: PathBuf,
    /// `/run/<instance>`.
    pub run_dir: PathBuf,
    /// The driver.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// How to start shims.
    pub shim: ShimLauncher,
    /// Whom a shim becomes once its guest runs.
    pub shim_user: Option<User>,
    /// Control groups that shims join.
    pub shim_cgroups: Vec<PathBuf>,
    /// Uid and gid of the first machine; each has one of its own from here. `None` (tests without root) runs all as the caller.
    pub first_uid: Option<u32>,
}

/// What went wrong with a machine.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum MachineError {
    #[error("machine {uid:?}: {operation} {}", path.display())]
    Io {
        uid: String,
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("machine {uid:?}: expected {expected}, found {found}")]
    Invalid { uid: String, expected: &'static str, found: String },
    #[error("machine {uid:?}: {source}")]
    Config { uid: String, source: evroc_vmm::config::ConfigError },
    #[error(transparent)]
    Volume(#[from] PoolError),
    #[error(transparent)]
    Seed(#[from] SeedError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error("machine {uid:?}: its hypervisor ended at once: {}", describe(exit))]
    Ended { uid: String, exit: Box<Exit> },
}

fn describe(exit: &Exit) -> String {
    match exit.stderr_tail.lines().last() {
        Some(line) => format!("{}: {line}", exit.reason),
        None => exit.reason.clone(),
    }
}

/// What is on this host of a machine.
#[derive(Debug)]
pub enum Found {
    /// It runs.
    Running(Machine),
    /// It has ended; record and logs are still there.
    Ended(Exit),
    /// It was never started, or not completely.
    Absent,
}

/// Runs machines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MachineRunner {
    config: Arc<RunnerConfig>,
    cgroups: Cgroups,
    volumes: Arc<dyn Pool>,
    /// Users are given out one at a time.
    users: Arc<Mutex<()>>,
    /// Conversations by machine: a hypervisor has one at a time, so all [`Machine`]s of one uid share it.
    monitors: Arc<std::sync::Mutex<HashMap<String, MonitorSlot>>>,
}

struct Places {
    folder: PathBuf,
    seed: PathBuf,
    shim: PathBuf,
    shim_socket: PathBuf,
    monitor: PathBuf,
    group: String,
}

impl MachineRunner {
    /// Makes the folders that all machines share.
    pub fn new(config: RunnerConfig, volumes: Arc<dyn Pool>) -> Result<Self, MachineError> {
        for (path, mode) in [
            (config.state_dir.join("machines"), 0o711),
            (config.state_dir.join("shims"), 0o711),
            (config.run_dir.join("shim"), 0o711),
            (config.run_dir.join("vm"), 0o711),
        ] {
            fs::create_dir_all(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
                .map_err(failed("", "create", &path))?;
        }
        let cgroups = Cgroups::discover()?;
        Ok(Self { config: Arc::new(config), cgroups, volumes, users: Arc::default(), monitors: Arc::default() })
    }

    /// The folder of a machine's shim: its serial log is there (see [`crate::shim::tail`]).
    pub fn shim_dir(&self, uid: &str) -> PathBuf {
        self.places(uid).shim
    }

    /// What became of a machine. One whose shim was killed is ended here, in good order where its hypervisor still listens.
    pub async fn observe(&self, uid: &str) -> Result<Found, MachineError> {
        check_uid(uid)?;
        let places = self.places(uid);
        match shim::adopt(&places.shim).await.map_err(failed(uid, "adopt", &places.shim))? {
            Adopted::Running(shim) => {
                let record = record::read(&places.folder).map_err(failed(uid, "read", &places.folder))?;
                let record = record.ok_or_else(|| MachineError::Invalid {
                    uid: uid.to_owned(),
                    expected: "machine.json beside a running hypervisor",
                    found: "none".into(),
                })?;
                Ok(Found::Running(self.machine(record, shim, places.monitor)))
            }
            Adopted::Exited(exit) => Ok(Found::Ended(exit)),
            Adopted::ShimLost(lost) => {
                let exit = lost.end(ORPHAN_LIMIT).await.map_err(failed(uid, "end", &places.shim))?;
                Ok(Found::Ended(exit))
            }
            Adopted::Never => Ok(Found::Absent),
        }
    }

    /// Starts a machine, or finds that it runs. Its volumes must exist; one that another running machine has is refused. After an
    /// error the machine's pieces are left for another try or for [`Self::remove`].
    pub async fn start(&self, config: &MachineConfig, nic: Option<Nic>) -> Result<Machine, MachineError> {
        if let Found::Running(machine) = self.observe(&config.uid).await? {
            return Ok(machine);
        }
        self.refuse_shared_volumes(config)?;
        let started = self.start_new(config, nic).await;
        if started.is_err() && matches!(self.observe(&config.uid).await, Ok(Found::Ended(_) | Found::Absent)) {
            self.release(&config.uid).await?;
        }
        started
    }

    async fn start_new(&self, config: &MachineConfig, nic: Option<Nic>) -> Result<Machine, MachineError> {
        let uid = &config.uid;
        let places = self.places(uid);
        let record = self.write_record(config, &places).await?;
        let user = self.user(&record);
        self.write_seed(config, &places, user.as_ref())?;
        let mut disks = Vec::new();
        for (index, volume) in config.volumes.iter().enumerate() {
            disks.push(self.disk(index, &volume.uid, volume.is_boot, user.as_ref()).await?);
        }
        disks.insert(disks.len().min(1), seed_disk(&places));

        let listener = listen(&places.monitor).map_err(failed(uid, "listen on", &places.monitor))?;
        let kvm = match config.accelerator {
            AcceleratorKind::Kvm => {
                Some(evroc_vmm::probe::open_kvm().map_err(failed(uid, "open", Path::new("/dev/kvm")))?)
            }
            AcceleratorKind::Tcg => None,
        };
        let guest = GuestConfig {
            name: config.name.clone(),
            uuid: config.seed.instance_id.clone(),
            vcpus: config.vcpus,
            memory_bytes: config.memory_bytes,
            accelerator: kvm.as_ref().map_or(Accelerator::Tcg, |device| Accelerator::Kvm { fd: device.as_raw_fd() }),
            disks,
            nic: nic.as_ref().map(|nic| NicConfig { tap_fd: nic.tap.as_raw_fd(), mac: nic.mac.clone(), mtu: nic.mtu }),
            monitor_fd: listener.as_raw_fd(),
        };
        let command = self.config.hypervisor.command(&guest);
        let command = command.map_err(|source| MachineError::Config { uid: uid.clone(), source })?;

        self.cgroups.create(&places.group)?;
        let memory_bytes = config.memory_bytes + qemu::OVERHEAD_BYTES;
        let folders = self.cgroups.folders(&places.group);
        let limits = limits::Limits { vcpus: config.vcpus, memory_bytes };
        let cgroups = limits::apply(&folders, limits).map_err(failed(uid, "limit", Path::new(&places.group)))?;

        let spec = self.spec(uid, &places, command, cgroups, user);
        let shim = self.config.shim.spawn(&places.shim, &spec).await?;
        // Ours must be closed: else the monitor's socket would seem alive after the hypervisor's end.
        drop((listener, kvm, nic));
        let machine = self.machine(record, shim, places.monitor);
        tokio::select! {
            monitor = machine.monitor() => match monitor {
                Ok(_) => Ok(machine),
                // It may have ended just before it was asked.
                Err(error) => match machine.shim.wait_at_most(Duration::from_secs(1)).await {
                    Some(exit) => Err(MachineError::Ended { uid: uid.clone(), exit: Box::new(exit) }),
                    None => Err(error),
                },
            },
            exit = machine.shim.wait() => Err(MachineError::Ended { uid: uid.clone(), exit: Box::new(exit?) }),
        }
    }

    /// Stops a machine: asks the guest and waits for `grace` (zero: does not ask), then tells the hypervisor, then kills it.
    /// Its volumes are taken back; record and logs stay.
    pub async fn stop(&self, uid: &str, grace: Duration) -> Result<Option<Stopped>, MachineError> {
        let stopped = match self.observe(uid).await? {
            Found::Absent => None,
            Found::Ended(exit) => Some(Stopped { manner: StopManner::AlreadyEnded, exit }),
            Found::Running(machine) => Some(machine.end(grace).await?),
        };
        self.release(uid).await?;
        Ok(stopped)
    }

    /// Takes back the volumes of a machine that has ended. ([`Self::stop`] does it too.)
    pub async fn release(&self, uid: &str) -> Result<(), MachineError> {
        let folder = self.places(uid).folder;
        let record = record::read(&folder).map_err(failed(uid, "read", &folder))?;
        if self.config.first_uid.is_some() {
            for volume in record.iter().flat_map(|record| &record.volumes) {
                self.volumes.release(volume).await?;
            }
        }
        Ok(())
    }

    /// Removes every trace of a machine, ended without asking its guest if it still runs. Volumes stay. Can be repeated.
    pub async fn remove(&self, uid: &str) -> Result<(), MachineError> {
        self.stop(uid, Duration::ZERO).await?;
        let places = self.places(uid);
        let (cgroups, group) = (self.cgroups.clone(), places.group.clone());
        let removed = tokio::task::spawn_blocking(move || cgroups.remove(&group)).await;
        removed.map_err(|error| failed(uid, "remove", Path::new(&places.group))(io::Error::other(error)))??;
        for file in [&places.monitor, &places.monitor.with_extension("fifo"), &places.shim_socket] {
            gone(fs::remove_file(file)).map_err(failed(uid, "remove", file))?;
        }
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        // The record last: until then the machine is on the list.
        for folder in [&places.shim, &places.folder] {
            gone(fs::remove_dir_all(folder)).map_err(failed(uid, "remove", folder))?;
        }
        Ok(())
    }

    /// Uids of all machines of which any piece is on this host; what is not wanted among them is for [`Self::remove`].
    pub fn list(&self) -> Result<BTreeSet<String>, MachineError> {
        let mut found = names(&self.config.state_dir.join("machines"))?;
        let shims = names(&self.config.state_dir.join("shims"))?;
        let groups = self.cgroups.children(&self.config.instance);
        found.extend(shims.into_iter().chain(groups).filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned())));
        Ok(found)
    }

    fn places(&self, uid: &str) -> Places {
        let RunnerConfig { instance, state_dir, run_dir, .. } = &*self.config;
        let folder = state_dir.join("machines").join(uid);
        Places {
            seed: folder.join("seed.img"),
            folder,
            shim: state_dir.join("shims").join(format!("{PREFIX}{uid}")),
            shim_socket: run_dir.join("shim").join(format!("{PREFIX}{uid}.sock")),
            monitor: run_dir.join("vm").join(format!("{uid}.sock")),
            group: format!("/{instance}/{PREFIX}{uid}"),
        }
    }

    fn machine(&self, record: MachineRecord, shim: ShimClient, socket: PathBuf) -> Machine {
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        let monitor = monitors.entry(record.uid.clone()).or_default().clone();
        Machine { record, shim, hypervisor: self.config.hypervisor.clone(), socket, monitor }
    }

    fn user(&self, record: &MachineRecord) -> Option<User> {
        let id = self.config.first_uid? + record.user;
        Some(User { uid: id, gid: id, groups: Vec::new() })
    }

    /// The API sees to it that a disk has one user; this is for the case that it did not.
    fn refuse_shared_volumes(&self, config: &MachineConfig) -> Result<(), MachineError> {
        for other in names(&self.config.state_dir.join("machines"))? {
            let places = self.places(&other);
            let record = record::read(&places.folder).map_err(failed(&other, "read", &places.folder))?;
            let shared = record.into_iter().flat_map(|record| record.volumes);
            let shared = shared.into_iter().find(|volume| config.volumes.iter().any(|wanted| wanted.uid == *volume));
            if let Some(volume) = shared
                && other != config.uid
                && shim::is_served(&places.shim).map_err(failed(&other, "look at", &places.shim))?
            {
                return Err(MachineError::Invalid {
                    uid: config.uid.clone(),
                    expected: "volumes that no other running machine has",
                    found: format!("volume {volume:?} of machine {other:?}"),
                });
            }
        }
        Ok(())
    }

    async fn write_record(&self, config: &MachineConfig, places: &Places) -> Result<MachineRecord, MachineError> {
        let io = |operation| failed(&config.uid, operation, &places.folder);
        let _turn = self.users.lock().await;
        fs::create_dir_all(&places.folder).map_err(io("create"))?;
        fs::set_permissions(&places.folder, fs::Permissions::from_mode(0o711)).map_err(io("open up"))?;
        let user = match record::read(&places.folder).map_err(io("read"))? {
            Some(record) => record.user,
            None => record::free_user(&self.config.state_dir.join("machines")).map_err(io("find a user for"))?,
        };
        let record = MachineRecord {
            uid: config.uid.clone(),
            name: config.name.clone(),
            epoch: config.epoch,
            user,
            volumes: config.volumes.iter().map(|volume| volume.uid.clone()).collect(),
            accelerator: config.accelerator,
        };
        record::write(&places.folder, &record).map_err(io("write"))?;
        Ok(record)
    }

    fn write_seed(&self, config: &MachineConfig, places: &Places, user: Option<&User>) -> Result<(), MachineError> {
        let io = |operation| failed(&config.uid, operation, &places.seed);
        let seed = seed::build(&config.seed)?;
        let _ = fs::remove_file(&places.seed);
        // Readable by its machine alone: user data may hold secrets.
        let mut options = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o400);
        let mut file = options.open(&places.seed).map_err(io("create"))?;
        io::Write::write_all(&mut file, &seed).map_err(io("write"))?;
        match user {
            Some(user) => chown(&places.seed, Some(user.uid), Some(user.gid)).map_err(io("hand over")),
            None => Ok(()),
        }
    }

    async fn disk(
        &self,
        index: usize,
        uid: &str,
        is_boot: bool,
        user: Option<&User>,
    ) -> Result<DiskConfig, MachineError> {
        let owner = user.map(|user| Owner { uid: user.uid, gid: user.gid });
        Ok(DiskConfig {
            id: disk_id(index),
            source: self.volumes.source(uid, owner).await?,
            serial: pool::serial(uid),
            boot_index: is_boot.then_some(0),
            is_read_only: false,
        })
    }

    fn spec(
        &self,
        uid: &str,
        places: &Places,
        command: GuestCommand,
        cgroups: Vec<PathBuf>,
        mut user: Option<User>,
    ) -> Spec {
        if let Some(user) = &mut user {
            user.groups = command.groups;
        }
        let argv = [command.program.to_string_lossy().into_owned()].into_iter().chain(command.arguments).collect();
        Spec {
            env: command.environment.into_iter().collect(),
            no_new_privileges: true,
            cgroups,
            shim_cgroups: self.config.shim_cgroups.clone(),
            stderr: Stderr::Separate,
            log: SERIAL_LOG,
            inherited_fds: command.fds,
            shim_user: self.config.shim_user.clone(),
            user,
            ..Spec::new(format!("{PREFIX}{uid}"), argv, &places.shim_socket)
        }
    }
}

fn seed_disk(places: &Places) -> DiskConfig {
    DiskConfig {
        id: "seed".into(),
        source: DiskSource::File { path: places.seed.clone(), format: DiskFormat::Raw },
        serial: "cidata".into(),
        boot_index: None,
        is_read_only: true,
    }
}

/// Made here and passed on as a descriptor: the machine's user needs no folder that it may write to.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    gone(fs::remove_file(socket))?;
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn names(folder: &Path) -> Result<BTreeSet<String>, MachineError> {
    let read = || -> io::Result<BTreeSet<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(failed("", "list", folder))
}

fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn failed(uid: &str, operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MachineError + use<> {
    let (uid, path) = (uid.to_owned(), path.to_owned());
    move |source| MachineError::Io { uid, operation, path, source }
}

/// A uid becomes the name of folders, sockets and groups.
fn check_uid(uid: &str) -> Result<(), MachineError> {
    let is_plain = uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_plain && (1..=64).contains(&uid.len()) {
        return Ok(());
    }
    Err(MachineError::Invalid {
        uid: uid.to_owned(),
        expected: "a uid of letters, digits and '-'",
        found: format!("{uid:?}"),
    })
}
