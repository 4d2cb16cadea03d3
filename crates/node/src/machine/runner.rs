//! Starting, finding, stopping and removing machines.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use evroc_vmm::{Accelerator, DiskConfig, DiskFormat, DiskSource, GuestCommand, GuestConfig, NicConfig, Offers, qemu};
use tokio::sync::Mutex;

use super::config::RunnerConfig;
use super::error::{MachineError, check_uid, failed};
use super::exclusive::{Claims, refuse_shared_volumes};
use super::guests::{StopManner, Stopped};
use super::paths::{MachinePaths, PREFIX, last_logs, machines, names};
use super::record::{self, MachineRecord};
use super::running::{Machine, MonitorSlot, disk_id};
use super::{AcceleratorKind, MachineConfig, Nic, last_log, limits};
use crate::cgroup::Cgroups;
use crate::io::{remove_file, remove_tree};
use crate::pool::{self, Owner, Pool};
use crate::seed;
use crate::shim::{
    self, Adopted, ChosenUser, Exit, GUEST_OOM_SCORE, LogFormat, LogLimits, ShimClient, Spec, Stderr, User,
};

/// For a hypervisor whose shim was killed to end by SIGTERM (which closes its disks) before SIGKILL.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);
/// The serial console: at most 8 MiB on disk, of which the last 64 KiB are shown to who attaches.
const SERIAL_LOG: LogLimits = LogLimits { format: LogFormat::Raw, max_bytes: 2 << 20, max_files: 4 };

/// The state of a machine on this host, with access to a running one.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a look is made now and then, and moved once")]
pub enum FoundMachine {
    /// It runs.
    Running(Machine),
    /// Its shim was killed; the reason is for people. Its hypervisor may live: see [`MachineRunner::end_orphan`].
    Orphaned(String),
    /// It has ended; record and logs are still on the host.
    Ended(Exit),
    /// It was never started, or not completely.
    Absent,
}

/// Runs machines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MachineRunner {
    pub(super) config: Arc<RunnerConfig>,
    pub(super) cgroups: Cgroups,
    pub(super) volumes: Arc<dyn Pool>,
    pub(super) claims: Claims,
    /// Users are given out one at a time.
    users: Arc<Mutex<()>>,
    /// Conversations by machine: a hypervisor has one at a time, so all [`Machine`]s of one uid share it.
    monitors: Arc<std::sync::Mutex<HashMap<String, MonitorSlot>>>,
    offers: Arc<Mutex<HashMap<bool, Offers>>>,
}

impl MachineRunner {
    /// Makes the folders that all machines share.
    pub fn new(config: RunnerConfig, volumes: Arc<dyn Pool>) -> Result<Self, MachineError> {
        for (path, mode) in [
            (machines(&config.state_dir), 0o711),
            (config.state_dir.join("shims"), 0o711),
            (config.run_dir.join("shim"), 0o711),
            (config.run_dir.join("vm"), 0o711),
        ] {
            fs::create_dir_all(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
                .map_err(failed("", "create", &path))?;
        }
        Ok(Self {
            config: Arc::new(config),
            cgroups: Cgroups::discover()?,
            volumes,
            claims: Claims::default(),
            users: Arc::default(),
            monitors: Arc::default(),
            offers: Arc::default(),
        })
    }

    /// Returns the folder of a machine's shim, which holds its serial log (see [`crate::shim::tail`]).
    pub fn shim_dir(&self, uid: &str) -> PathBuf {
        self.paths(uid).shim
    }

    /// Observes a machine. Nothing is started or ended, and an error is no evidence about the machine.
    pub async fn observe(&self, uid: &str) -> Result<FoundMachine, MachineError> {
        check_uid(uid)?;
        let paths = self.paths(uid);
        match shim::adopt(&paths.shim).await.map_err(failed(uid, "adopt", &paths.shim))? {
            Adopted::Running(shim) => {
                let record = record(uid, &paths)?.ok_or_else(|| MachineError::Invalid {
                    uid: uid.to_owned(),
                    expected: "machine.json beside a running hypervisor",
                    found: "none".into(),
                })?;
                Ok(FoundMachine::Running(self.machine(record, shim, paths.monitor)))
            }
            Adopted::Exited(exit) => Ok(FoundMachine::Ended(exit)),
            Adopted::ShimLost(lost) => Ok(FoundMachine::Orphaned(lost.reason.clone())),
            Adopted::Never => Ok(FoundMachine::Absent),
        }
    }

    /// Ends a hypervisor whose shim was killed, in good order where it still listens to SIGTERM, and records its end.
    pub async fn end_orphan(&self, uid: &str) -> Result<Option<Exit>, MachineError> {
        check_uid(uid)?;
        let shim = self.paths(uid).shim;
        match shim::adopt(&shim).await.map_err(failed(uid, "adopt", &shim))? {
            Adopted::ShimLost(lost) => lost.end(ORPHAN_LIMIT).await.map(Some).map_err(failed(uid, "end", &shim)),
            Adopted::Exited(exit) => Ok(Some(exit)),
            Adopted::Running(_) | Adopted::Never => Ok(None),
        }
    }

    /// Starts a machine, or finds that it runs. Its volumes must exist; one that another running machine has is refused. After an
    /// error the machine's pieces are left for another try or for [`Self::remove`].
    pub async fn start(&self, config: &MachineConfig, nic: Option<Nic>) -> Result<Machine, MachineError> {
        match self.observe(&config.uid).await? {
            FoundMachine::Running(machine) => return Ok(machine),
            FoundMachine::Orphaned(found) => {
                let expected = "a machine whose hypervisor has ended";
                return Err(MachineError::Invalid { uid: config.uid.clone(), expected, found });
            }
            FoundMachine::Ended(_) | FoundMachine::Absent => {}
        }
        let volumes: Vec<_> = config.volumes.iter().map(|volume| volume.uid.clone()).collect();
        let _claim = self.claims.take(&config.uid, &volumes)?;
        refuse_shared_volumes(&self.config, self.volumes.as_ref(), &config.uid, &volumes).await?;
        let started = self.start_new(config, nic).await;
        if started.is_err()
            && matches!(self.observe(&config.uid).await, Ok(FoundMachine::Ended(_) | FoundMachine::Absent))
        {
            self.release(&config.uid).await?;
        }
        started
    }

    async fn start_new(&self, config: &MachineConfig, nic: Option<Nic>) -> Result<Machine, MachineError> {
        let uid = &config.uid;
        let paths = self.paths(uid);
        let offers = self.offers(config.accelerator).await?;
        let machine_type = choose(config.machine_type.as_ref(), &offers.machine_types);
        let cpu_model = choose(config.cpu_model.as_ref(), &offers.cpu_models);
        let record = self.write_record(config, &paths, &machine_type, &cpu_model).await?;
        let user = self.user(&record);
        self.write_seed(config, &paths, user.as_ref())?;
        let mut disks = Vec::new();
        for (index, volume) in config.volumes.iter().enumerate() {
            disks.push(self.disk(index, &volume.uid, volume.is_boot, user.as_ref()).await?);
        }
        disks.insert(disks.len().min(1), seed_disk(&paths));

        let listener = listen(&paths.monitor).map_err(failed(uid, "listen on", &paths.monitor))?;
        let kvm = match config.accelerator {
            AcceleratorKind::Kvm => {
                Some(evroc_vmm::probe::open_kvm().map_err(failed(uid, "open", Path::new("/dev/kvm")))?)
            }
            AcceleratorKind::Tcg => None,
        };
        let guest = GuestConfig {
            // Every user of the host can read command lines: tenants' names do not belong there.
            name: uid.clone(),
            uuid: config.seed.instance_id.clone(),
            vcpus: config.vcpus,
            memory_bytes: config.memory_bytes,
            accelerator: kvm.as_ref().map_or(Accelerator::Tcg, |device| Accelerator::Kvm { fd: device.as_raw_fd() }),
            machine_type,
            cpu_model,
            disks,
            nic: nic.as_ref().map(|nic| NicConfig { tap_fd: nic.tap.as_raw_fd(), mac: nic.mac.clone(), mtu: nic.mtu }),
            monitor_fd: listener.as_raw_fd(),
        };
        let command = self.config.hypervisor.command(&guest);
        let command = command.map_err(|source| MachineError::Config { uid: uid.clone(), source })?;

        self.cgroups.create(&paths.group)?;
        let memory_bytes = config.memory_bytes + qemu::OVERHEAD_BYTES;
        let folders = self.cgroups.folders(&paths.group);
        let limits = limits::Limits { vcpus: config.vcpus, memory_bytes };
        let cgroups = limits::apply(&folders, limits).map_err(failed(uid, "limit", Path::new(&paths.group)))?;

        // Held until the shim runs.
        let shim_user =
            self.config.shim_users.as_ref().map(|users| users.choose(&format!("{PREFIX}{uid}"))).transpose();
        let shim_user = shim_user.map_err(failed(uid, "choose a user for the shim in", &paths.shim))?;
        let spec = self.spec(uid, &paths, command, cgroups, user, shim_user.as_ref().map(ChosenUser::user));
        let shim = self.config.shim.spawn(&paths.shim, &spec).await?;
        // Ours must be closed: else the monitor's socket would seem alive after the hypervisor's end.
        drop((listener, kvm, nic));
        let machine = self.machine(record, shim, paths.monitor);
        tokio::select! {
            monitor = machine.monitor() => match monitor {
                Ok(_) => Ok(machine),
                // It may have ended just before the request.
                Err(error) => match machine.shim.wait_at_most(Duration::from_secs(1)).await {
                    Some(exit) => Err(MachineError::Ended { uid: uid.clone(), exit: Box::new(exit) }),
                    None => Err(error),
                },
            },
            exit = machine.shim.wait() => Err(MachineError::Ended { uid: uid.clone(), exit: Box::new(exit?) }),
        }
    }

    /// Stops a machine: requests its guest to power off and waits for `grace` (zero: no request), then ends the hypervisor, then
    /// kills it.
    /// Its volumes are taken back; record and logs stay.
    pub async fn stop(&self, uid: &str, grace: Duration) -> Result<Option<Stopped>, MachineError> {
        let ended = |exit| Stopped { manner: StopManner::AlreadyEnded, exit };
        let stopped = match self.observe(uid).await {
            Ok(FoundMachine::Absent) => None,
            Ok(FoundMachine::Ended(exit)) => Some(ended(exit)),
            Ok(FoundMachine::Orphaned(_)) => self.end_orphan(uid).await?.map(ended),
            Ok(FoundMachine::Running(machine)) => Some(machine.end(grace).await?),
            // Its shim answers and its record is damaged: it can be ended all the same, but its volumes are not known.
            Err(error @ (MachineError::Record { .. } | MachineError::Invalid { .. })) => {
                tracing::warn!(uid, %error, "stop a machine whose record is damaged");
                self.kill_by_shim(uid).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.release(uid).await?;
        Ok(stopped)
    }

    async fn kill_by_shim(&self, uid: &str) -> Result<(), MachineError> {
        check_uid(uid)?;
        let shim = self.paths(uid).shim;
        if let Adopted::Running(client) = shim::adopt(&shim).await.map_err(failed(uid, "adopt", &shim))? {
            client.signal(libc::SIGTERM).await?;
            if client.wait_at_most(ORPHAN_LIMIT).await.is_none() {
                client.signal(libc::SIGKILL).await?;
                client.wait().await?;
            }
        }
        Ok(())
    }

    /// Takes back the volumes of a machine that has ended. ([`Self::stop`] does it too.)
    pub async fn release(&self, uid: &str) -> Result<(), MachineError> {
        let record = match record(uid, &self.paths(uid)) {
            Err(error) => {
                tracing::warn!(uid, %error, "the volumes of a machine whose record is damaged stay with its user");
                return Ok(());
            }
            record => record?,
        };
        if self.config.first_uid.is_some() {
            for volume in record.iter().flat_map(|record| &record.volumes) {
                self.volumes.release(volume).await?;
            }
        }
        Ok(())
    }

    /// Removes every trace of a machine, ended without a request to its guest if it still runs. Volumes stay, and so does the log of
    /// its last run for a while. Can be repeated.
    pub async fn remove(&self, uid: &str) -> Result<(), MachineError> {
        self.stop(uid, Duration::ZERO).await?;
        let paths = self.paths(uid);
        let (cgroups, group) = (self.cgroups.clone(), paths.group.clone());
        let removed = tokio::task::spawn_blocking(move || cgroups.remove(&group)).await;
        removed.map_err(|error| failed(uid, "remove", Path::new(&paths.group))(io::Error::other(error)))??;
        for file in [&paths.monitor, &paths.monitor.with_extension("fifo"), &paths.shim_socket] {
            remove_file(file).map_err(failed(uid, "remove", file))?;
        }
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.keep_last_log(uid, &paths);
        // The record last: until then the machine is on the list.
        for folder in [&paths.shim, &paths.folder] {
            remove_tree(folder).map_err(failed(uid, "remove", folder))?;
        }
        Ok(())
    }

    /// A log that cannot be kept is no reason to keep the machine.
    fn keep_last_log(&self, uid: &str, paths: &MachinePaths) {
        let kept = last_logs(&self.config.state_dir);
        let virtual_machine = record(uid, paths).ok().flatten().and_then(|record| record.virtual_machine);
        let outcome = virtual_machine
            .filter(|name| check_uid(name).is_ok())
            .map_or(Ok(()), |name| last_log::keep(&paths.shim, &kept, &name))
            .and_then(|()| last_log::prune(&kept, SystemTime::now()));
        if let Err(error) = outcome {
            tracing::warn!(uid, %error, "cannot keep the serial log of a machine's last run");
        }
    }

    /// Lists the uids of all machines of which this host has any part; unwanted ones are for [`Self::remove`].
    pub fn list(&self) -> Result<BTreeSet<String>, MachineError> {
        let mut found = names(&machines(&self.config.state_dir))?;
        let shims = names(&self.config.state_dir.join("shims"))?;
        let groups = self.cgroups.children(&self.config.instance);
        found.extend(shims.into_iter().chain(groups).filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned())));
        Ok(found)
    }

    /// Returns the hardware that new guests can have. The hypervisor is queried once.
    pub async fn offers(&self, accelerator: AcceleratorKind) -> Result<Offers, MachineError> {
        let mut known = self.offers.lock().await;
        if let Some(offers) = known.get(&(accelerator == AcceleratorKind::Kvm)) {
            return Ok(offers.clone());
        }
        let asked = self.config.hypervisor.offers(accelerator).await;
        let offers = asked.map_err(failed("", "list machine types of", Path::new(self.config.hypervisor.name())))?;
        known.insert(accelerator == AcceleratorKind::Kvm, offers.clone());
        Ok(offers)
    }

    pub(super) fn paths(&self, uid: &str) -> MachinePaths {
        MachinePaths::new(&self.config, uid)
    }

    fn machine(&self, record: MachineRecord, shim: ShimClient, socket: PathBuf) -> Machine {
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        let monitor = monitors.entry(record.uid.clone()).or_default().clone();
        Machine { record, shim, hypervisor: self.config.hypervisor.clone(), socket, monitor }
    }

    pub(super) fn user(&self, record: &MachineRecord) -> Option<User> {
        let id = self.config.first_uid? + record.user;
        Some(User { uid: id, gid: id, groups: Vec::new() })
    }

    async fn write_record(
        &self,
        config: &MachineConfig,
        paths: &MachinePaths,
        machine_type: &str,
        cpu_model: &str,
    ) -> Result<MachineRecord, MachineError> {
        let io = |operation| failed(&config.uid, operation, &paths.folder);
        let _turn = self.users.lock().await;
        fs::create_dir_all(&paths.folder).map_err(io("create"))?;
        fs::set_permissions(&paths.folder, fs::Permissions::from_mode(0o711)).map_err(io("open up"))?;
        let user = match record(&config.uid, paths)? {
            Some(record) => record.user,
            None => record::free_user(&machines(&self.config.state_dir), self.config.first_uid)
                .map_err(io("find a user for"))?,
        };
        let record = MachineRecord {
            version: MachineRecord::current_version(),
            uid: config.uid.clone(),
            name: config.name.clone(),
            epoch: config.epoch,
            user,
            volumes: config.volumes.iter().map(|volume| volume.uid.clone()).collect(),
            accelerator: config.accelerator,
            machine_type: Some(machine_type.to_owned()),
            cpu_model: Some(cpu_model.to_owned()),
            virtual_machine: Some(config.seed.instance_id.clone()),
        };
        record::write(&paths.folder, &record).map_err(io("write"))?;
        Ok(record)
    }

    fn write_seed(
        &self,
        config: &MachineConfig,
        paths: &MachinePaths,
        user: Option<&User>,
    ) -> Result<(), MachineError> {
        let io = |operation| failed(&config.uid, operation, &paths.seed);
        let seed = seed::build(&config.seed)?;
        let _ = fs::remove_file(&paths.seed);
        // Readable by its machine alone: user data may hold secrets.
        let mut options = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o400);
        let mut file = options.open(&paths.seed).map_err(io("create"))?;
        io::Write::write_all(&mut file, &seed).map_err(io("write"))?;
        match user {
            Some(user) => chown(&paths.seed, Some(user.uid), Some(user.gid)).map_err(io("hand over")),
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
        paths: &MachinePaths,
        command: GuestCommand,
        cgroups: Vec<PathBuf>,
        mut user: Option<User>,
        shim_user: Option<User>,
    ) -> Spec {
        if let Some(user) = &mut user {
            user.groups = command.groups;
        }
        let argv = [command.program.to_string_lossy().into_owned()].into_iter().chain(command.arguments).collect();
        Spec {
            env: command.environment.into_iter().collect(),
            no_new_privileges: true,
            oom_score_adj: Some(GUEST_OOM_SCORE),
            cgroups,
            shim_cgroups: self.config.shim_cgroups.clone(),
            stderr: Stderr::Separate,
            log: SERIAL_LOG,
            inherited_fds: command.fds,
            shim_user,
            user,
            ..Spec::new(format!("{PREFIX}{uid}"), argv, &paths.shim_socket)
        }
    }
}

pub(super) fn record(uid: &str, paths: &MachinePaths) -> Result<Option<MachineRecord>, MachineError> {
    record::read(&paths.folder).map_err(|source| MachineError::Record { uid: uid.to_owned(), source })
}

/// Returns the requested one, or the first on offer.
fn choose(asked: Option<&String>, offered: &[String]) -> String {
    asked.or(offered.first()).cloned().unwrap_or_default()
}

fn seed_disk(paths: &MachinePaths) -> DiskConfig {
    DiskConfig {
        id: "seed".into(),
        source: DiskSource::File { path: paths.seed.clone(), format: DiskFormat::Raw },
        serial: "cidata".into(),
        boot_index: None,
        is_read_only: true,
    }
}

/// Made here and passed on as a descriptor: the machine's user needs no folder that it may write to.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    remove_file(socket)?;
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
