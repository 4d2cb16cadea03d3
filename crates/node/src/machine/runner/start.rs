//! Starts a machine.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evroc_vmm::{
    Accelerator, Access, DiskConfig, DiskFormat, DiskSource, GuestCommand, GuestConfig, NeededFile, NicConfig, qemu,
};

use super::{FoundMachine, MachineRunner, SERIAL_LOG, record};
use crate::io::remove_file;
use crate::machine::error::{MachineError, failed};
use crate::machine::exclusive::refuse_shared_volumes;
use crate::machine::paths::{MachinePaths, PREFIX, machines};
use crate::machine::record::MachineRecord;
use crate::machine::running::{Machine, disk_id};
use crate::machine::{AcceleratorKind, MachineConfig, Nic, VolumeUse, limits};
use crate::pool::Owner;
use crate::seed;
use crate::shim::{ChosenUser, Confinement, GUEST_OOM_SCORE, Spec, Stderr, User, Visible};

impl MachineRunner {
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
            disks.push(self.disk(index, volume, user.as_ref()).await?);
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
        // Where guests run as the user of this process, it has no right to give them namespaces.
        let confinement = match (user.is_some(), &command.files) {
            (true, Some(files)) => Some(confinement(&paths.root, files).map_err(failed(uid, "create", &paths.root))?),
            _ => None,
        };

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
        let spec = Spec { confinement, ..spec };
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

    async fn disk(&self, index: usize, volume: &VolumeUse, user: Option<&User>) -> Result<DiskConfig, MachineError> {
        let owner = user.map(|user| Owner { uid: user.uid, gid: user.gid });
        Ok(DiskConfig {
            id: disk_id(index),
            source: self.volumes.source(&volume.uid, owner).await?,
            serial: volume.serial(),
            boot_index: volume.is_boot.then_some(0),
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

/// The files of the host that a guest's process sees.
fn confinement(root: &Path, files: &[NeededFile]) -> io::Result<Confinement> {
    fs::create_dir_all(root)?;
    let exists = |file: &&NeededFile| fs::symlink_metadata(&file.path).is_ok();
    let visible = |file: &NeededFile| Visible {
        path: file.path.clone(),
        is_writable: matches!(file.access, Access::Write | Access::Device),
        is_device: file.access == Access::Device,
    };
    Ok(Confinement { root: root.to_owned(), visible: files.iter().filter(exists).map(visible).collect() })
}

/// Returns the requested one, or the first on offer.
fn choose(requested: Option<&String>, offered: &[String]) -> String {
    requested.or(offered.first()).cloned().unwrap_or_default()
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
