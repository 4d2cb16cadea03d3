//! Stories about machines: with the simulated hypervisor, and with the real one and the tiny image.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use evroc_node::cgroup::Cgroups;
use evroc_node::image::ImageStore;
use evroc_node::machine::{
    AcceleratorKind, Found, Machine, MachineConfig, MachineError, MachineRunner, RunnerConfig, StopManner, VolumeUse,
    wait_for_serial, wait_for_serial_in,
};
use evroc_node::pool::{ImageRef, LocalPool, NewVolume, Pool};
use evroc_node::seed::SeedInput;
use evroc_node::shim::{ProcessIdentity, ShimLauncher, User, tail};
use evroc_vmm::{GuestState, Hypervisor, ImageTool, Qemu, Simulated};
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

    /// Another agent takes over: it knows nothing but what is on disk.
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
    let config = RunnerConfig {
        instance: instance.to_owned(),
        state_dir: root.join("state"),
        run_dir: root.join("run"),
        hypervisor: hypervisor.clone(),
        shim: ShimLauncher::new(env!("CARGO_BIN_EXE_evroc-test-shim"), &[]),
        shim_user: Some(User { uid: FIRST_UID - 1, gid: FIRST_UID - 1, groups: Vec::new() }),
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
            .map(|(index, uid)| VolumeUse { uid: (*uid).to_owned(), is_boot: index == 0 })
            .collect(),
        seed: SeedInput {
            instance_id: uuid::Uuid::new_v4().to_string(),
            hostname: uid.into(),
            authorized_keys: Vec::new(),
            user_data: None,
        },
        accelerator: AcceleratorKind::Tcg,
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

#[tokio::test]
async fn a_simulated_machine_lives_and_leaves_nothing() {
    let mut host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let config = config("m", &["v"]);
    assert!(matches!(host.runner.observe("m").await.unwrap(), Found::Absent));
    let machine = host.runner.start(&config, None).await.unwrap();
    let child = machine.shim().record().child;
    shows(&machine, "login:").await;
    assert_eq!(host.runner.start(&config, None).await.unwrap().shim().record().child, child, "starting again finds it");
    drop(machine);

    host.restart();
    let Found::Running(machine) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(machine.record().epoch, 7);
    assert_eq!(machine.monitor().await.unwrap().state().await.unwrap(), GuestState::Running);
    let stopped = host.runner.stop("m", Duration::from_secs(20)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::PoweredOff, Some(0)));
    let again = host.runner.stop("m", Duration::from_secs(20)).await.unwrap().unwrap();
    assert_eq!(again.manner, StopManner::AlreadyEnded);

    host.runner.start(&config, None).await.unwrap();
    host.runner.remove("m").await.unwrap();
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn machines_have_users_of_their_own_and_volumes_to_themselves() {
    let host = Host::new(Simulated);
    for volume in ["v", "w"] {
        host.volumes.create(&blank(volume)).await.unwrap();
    }
    let first = host.runner.start(&config("a", &["v"]), None).await.unwrap();
    let error = host.runner.start(&config("b", &["v"]), None).await.unwrap_err();
    let text = "machine \"b\": expected volumes that no other running machine has, found volume \"v\" of machine \"a\"";
    assert_eq!(error.to_string(), text);
    let second = host.runner.start(&config("b", &["w"]), None).await.unwrap();
    let owner = |volume| host.volumes.path(volume).metadata().unwrap().uid();
    assert_eq!((owner("v"), owner("w")), (FIRST_UID, FIRST_UID + 1));
    for (machine, uid) in [(&first, FIRST_UID), (&second, FIRST_UID + 1)] {
        assert_eq!(status_line(machine.shim().record().child.pid, "Uid:"), format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"));
    }
    assert_eq!(host.runner.list().unwrap().len(), 2);
    host.runner.remove("a").await.unwrap();
    assert_eq!(owner("v"), 0, "taken back");
    host.runner.remove("b").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_missing_volume_is_named_and_the_rest_can_be_removed() {
    let host = Host::new(Simulated);
    let error = host.runner.start(&config("m", &["nope"]), None).await.unwrap_err();
    assert_eq!(error.to_string(), "volume \"nope\" is not on this host");
    assert!(matches!(host.runner.observe("m").await.unwrap(), Found::Absent));
    assert_eq!(host.runner.list().unwrap().len(), 1);
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn what_the_hypervisor_says_of_a_broken_disk_is_told() {
    let host = Host::new(Qemu::default());
    host.volumes.create(&blank("v")).await.unwrap();
    std::fs::write(host.volumes.path("v"), "no longer a disk").unwrap();
    let error = host.runner.start(&config("m", &["v"]), None).await.unwrap_err();
    assert!(matches!(error, MachineError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("Image is not in qcow2 format"), "{error}");
    assert_eq!(host.volumes.path("v").metadata().unwrap().uid(), 0, "taken back");
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_real_guest_boots_is_adopted_keeps_its_disk_and_powers_off() {
    let mut host = with_tiny().await;
    let mut config = config("m", &["disk"]);
    config.seed.user_data = Some("#!/bin/sh\necho the-marker >/marker; sync; echo marker written\n".into());
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "ready hostname=m").await;
    shows(&machine, "marker written").await;
    shows(&machine, "login:").await;

    // As little power as possible, and within its limits.
    let pid = machine.shim().record().child.pid;
    assert_eq!(status_line(pid, "Uid:"), format!("Uid:\t{FIRST_UID}\t{FIRST_UID}\t{FIRST_UID}\t{FIRST_UID}"));
    assert_eq!(status_line(pid, "CapEff:"), "CapEff:\t0000000000000000");
    assert_eq!(status_line(pid, "NoNewPrivs:"), "NoNewPrivs:\t1");
    assert_eq!(status_line(pid, "Seccomp:"), "Seccomp:\t2");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains(&format!(":/{}/vm-m", host.instance)), "{groups}");

    // A new agent finds it as it was, and its console with the past on it.
    drop(machine);
    host.restart();
    let Found::Running(machine) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(machine.shim().record().child.pid, pid);
    shows(&machine, "login:").await;
    let monitor = machine.monitor().await.unwrap();
    assert_eq!(monitor.state().await.unwrap(), GuestState::Running);
    monitor.grow_disk(&Machine::disk_id(0), 700 * MIB).await.unwrap();
    host.volumes.grown("disk", 700 * MIB).await.unwrap();

    let stopped = host.runner.stop("m", Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::PoweredOff, Some(0)), "{}", host.serial("m"));
    host.runner.remove("m").await.unwrap();

    // Another machine boots from the same disk and reads what the first wrote.
    let mut config = self::config("other", &["disk"]);
    config.seed.user_data = Some("#!/bin/sh\necho \"found $(cat /marker)\"\n".into());
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "found the-marker").await;
    host.runner.remove("other").await.unwrap();
    host.volumes.delete("disk").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_guest_whose_shim_was_killed_is_ended_and_can_start_again() {
    let host = with_tiny().await;
    let config = config("m", &["disk"]);
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "ready hostname=m").await;
    let hypervisor = machine.shim().record().child;
    kill(machine.shim().record().shim);
    assert!(hypervisor.open().unwrap().is_some(), "the guest survives its shim until the agent looks");
    let Found::Ended(exit) = host.runner.observe("m").await.unwrap() else { panic!("it was ended") };
    assert_eq!(exit.reason, "its shim was killed");
    assert!(hypervisor.open().unwrap().is_none());
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "ready hostname=m").await;

    // A guest that is frozen cannot be asked and is ended.
    let monitor = machine.monitor().await.unwrap();
    monitor.pause().await.unwrap();
    let stopped = host.runner.stop("m", Duration::from_millis(200)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::Quit, Some(0)));
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_guest_that_reboots_goes_on_in_the_same_process() {
    let host = with_tiny().await;
    let mut config = config("m", &["disk"]);
    config.seed.user_data = Some("#!/bin/sh\necho rebooting now; reboot\n".into());
    let machine = host.runner.start(&config, None).await.unwrap();
    let mut console = machine.console(MIB as usize).await.unwrap();
    let story = async {
        for marker in ["ready hostname=m", "rebooting now", "ready hostname=m"] {
            wait_for_serial_in(&mut console, &[marker]).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(BOOT * 2, story).await.is_ok(), "{}", host.serial("m"));
    let Found::Running(after) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(after.shim().record().child, machine.shim().record().child);
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_guest_that_is_still_booting_is_asked_again() {
    let host = with_tiny().await;
    host.runner.start(&config("m", &["disk"]), None).await.unwrap();
    let stopped = host.runner.stop("m", BOOT).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::PoweredOff, Some(0)), "{}", host.serial("m"));
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_hypervisor_that_does_not_listen_is_killed() {
    let host = Host::new(Qemu::default());
    host.volumes.create(&blank("v")).await.unwrap();
    let machine = host.runner.start(&config("m", &["v"]), None).await.unwrap();
    let child = machine.shim().record().child.open().unwrap().unwrap();
    child.signal(Signal::STOP).unwrap();
    let stopped = host.runner.stop("m", Duration::from_millis(200)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.signal), (StopManner::Killed, Some(9)));
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}
