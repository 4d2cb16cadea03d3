//! Stories about machines: with the simulated hypervisor, and with the real one and the tiny image.

mod confined;
mod disks;
mod guests;
mod lifecycle;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use evroc_node::cgroup::Cgroups;
use evroc_node::drain_flag::DrainFlag;
use evroc_node::image::ImageStore;
use evroc_node::machine::devices::Change;
use evroc_node::machine::guests::{GuestChange, Log};
use evroc_node::machine::owner::{Answer, Order, OwnedMachines};
use evroc_node::machine::{
    AcceleratorKind, FoundMachine, Guests, Machine, MachineConfig, MachineError, MachineRunner, MachineRunnerConfig,
    StopManner, VolumeUse, wait_for_serial, wait_for_serial_in,
};
use evroc_node::pool::{ImageRef, LocalPool, NewVolume, Pool};
use evroc_node::seed::SeedInput;
use evroc_node::shim::{ProcessIdentity, ShimLauncher, ShimUsers, tail};
use evroc_vmm::{GuestState, Hypervisor, ImageTool, Qemu, Simulated};
use futures::StreamExt;
use rustix::process::Signal;

const MIB: u64 = 1 << 20;
const FIRST_UID: u32 = 1_899_998_000;
/// A boot takes three seconds on an idle machine; tests run beside builds.
const BOOT: Duration = Duration::from_secs(120);

/// An instance with a name of its own. Ends everything and looks for leftovers.
struct Host {
    root: tempfile::TempDir,
    instance: String,
    hypervisor: Arc<dyn Hypervisor>,
    runner: MachineRunner,
    volumes: LocalPool,
    images: ImageStore,
}

impl Host {
    fn new(hypervisor: impl Hypervisor + 'static) -> Self {
        let root = tempfile::Builder::new().prefix("evroc-vm-").tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let instance = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let state = root.path().join("state");
        let images = ImageStore::open(state.join("images"), ImageTool::default()).unwrap();
        let volumes = LocalPool::open(state.join("volumes"), images.clone(), None).unwrap();
        let hypervisor: Arc<dyn Hypervisor> = Arc::new(hypervisor);
        let runner = runner(root.path(), &instance, &hypervisor, &volumes);
        Self { root, instance, hypervisor, runner, volumes, images }
    }

    /// Another agent takes over: it knows only the records on disk.
    fn restart(&mut self) {
        self.runner = runner(self.root.path(), &self.instance, &self.hypervisor, &self.volumes);
    }

    fn serial(&self, uid: &str) -> String {
        String::from_utf8_lossy(&tail(&self.runner.shim_dir(uid), MIB).unwrap()).into_owned()
    }

    async fn assert_clean(&self) {
        assert!(self.runner.list().unwrap().is_empty());
        assert_eq!(processes_naming(self.root.path()), Vec::<String>::new());
        for folder in Cgroups::discover().unwrap().folders(&self.instance) {
            assert!(!folder.exists(), "{} is left", folder.display());
        }
        for folder in ["run/vm", "run/shim", "state/machines", "state/shims"] {
            let path = self.root.path().join(folder);
            assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "{} is not empty", path.display());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root.path().join("state/shims")).into_iter().flatten().flatten() {
            let text = std::fs::read(entry.path().join("pid.json")).unwrap_or_default();
            let Ok(record) = serde_json::from_slice::<evroc_node::shim::PidRecord>(&text) else { continue };
            for process in [record.shim, record.child] {
                kill(process);
            }
        }
        let cgroups = Cgroups::discover().unwrap();
        for name in cgroups.children(&self.instance) {
            let _ = cgroups.remove(&format!("/{}/{name}", self.instance));
        }
    }
}

fn runner(root: &Path, instance: &str, hypervisor: &Arc<dyn Hypervisor>, volumes: &LocalPool) -> MachineRunner {
    let config = MachineRunnerConfig {
        instance: instance.to_owned(),
        state_dir: root.join("state"),
        run_dir: root.join("run"),
        hypervisor: hypervisor.clone(),
        shim: ShimLauncher::new(env!("CARGO_BIN_EXE_evroc-test-shim"), &[]),
        shim_users: Some(ShimUsers::new(root.join("state/shims"), FIRST_UID - 100, 100)),
        shim_cgroups: Vec::new(),
        first_uid: Some(FIRST_UID),
    };
    MachineRunner::new(config, Arc::new(volumes.clone())).unwrap()
}

fn blank(uid: &str) -> NewVolume {
    NewVolume { uid: uid.into(), image: None, size_bytes: MIB }
}

fn config(uid: &str, volumes: &[&str]) -> MachineConfig {
    MachineConfig {
        uid: uid.into(),
        name: format!("test-{uid}"),
        epoch: 7,
        vcpus: 1,
        memory_bytes: 256 * MIB,
        volumes: volumes
            .iter()
            .enumerate()
            .map(|(index, uid)| VolumeUse {
                uid: (*uid).to_owned(),
                disk_uid: Some(format!("d15c-{uid}")),
                is_boot: index == 0,
                size_bytes: None,
            })
            .collect(),
        seed: SeedInput {
            instance_id: uuid::Uuid::new_v4().to_string(),
            hostname: uid.into(),
            authorized_keys: Vec::new(),
            user_data: None,
        },
        accelerator: AcceleratorKind::Tcg,
        machine_type: None,
        cpu_model: None,
    }
}

fn kill(process: ProcessIdentity) {
    if let Ok(Some(handle)) = process.open() {
        handle.signal(Signal::KILL).unwrap();
        assert!(handle.wait_blocking(Duration::from_secs(20)).unwrap());
    }
}

fn processes_naming(root: &Path) -> Vec<String> {
    let marker = root.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(marker)).collect()
}

fn status_line(pid: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
}

/// The build cache's tiny image; another can be given by its folder in EVROC_TINY_IMAGE.
fn tiny() -> PathBuf {
    if let Some(folder) = std::env::var_os("EVROC_TINY_IMAGE") {
        return folder.into();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/build");
    let output = Command::new(script).args(["--list", "tiny.1-0.1"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let folder = text.trim().strip_prefix("tiny.1-0.1 ").filter(|folder| *folder != "-");
    PathBuf::from(folder.expect("the tiny image is not built: run images/build tiny.1-0.1"))
}

/// A host with the real hypervisor and a volume `disk` made from the tiny image.
async fn with_tiny() -> Host {
    let host = Host::new(Qemu::default());
    host.images.import(&tiny()).await.unwrap();
    let image = Some(ImageRef { name: "tiny.1-0.1".into(), sha256: None });
    host.volumes.create(&NewVolume { uid: "disk".into(), image, size_bytes: 600 * MIB }).await.unwrap();
    host
}

async fn shows(machine: &Machine, marker: &str) {
    let found = wait_for_serial(machine.shim(), &[marker], BOOT).await.unwrap();
    let log = String::from_utf8_lossy(&tail(machine.shim().dir(), MIB).unwrap()).into_owned();
    assert!(found.is_some(), "{marker:?} never came on the console:\n{log}");
}
