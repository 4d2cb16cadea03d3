//! Stories about machines: with the simulated hypervisor, and with the real one and the tiny image.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use evroc_node::cgroup::Cgroups;
use evroc_node::image::ImageStore;
use evroc_node::machine::devices::Change;
use evroc_node::machine::guests::{GuestChange, Log};
use evroc_node::machine::owner::{Answer, Order, OwnedMachines};
use evroc_node::machine::{
    AcceleratorKind, FoundMachine, Guests, Machine, MachineConfig, MachineError, MachineRunner, RunnerConfig,
    StopManner, VolumeUse, wait_for_serial, wait_for_serial_in,
};
use evroc_node::owner::DrainFlag;
use evroc_node::pool::{ImageRef, LocalPool, NewVolume, Pool};
use evroc_node::seed::SeedInput;
use evroc_node::shim::{ProcessIdentity, ShimLauncher, User, tail};
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
            .map(|(index, uid)| VolumeUse { uid: (*uid).to_owned(), is_boot: index == 0, size_bytes: None })
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

#[tokio::test]
async fn a_simulated_machine_lives_and_leaves_nothing() {
    let mut host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let config = config("m", &["v"]);
    assert!(matches!(host.runner.observe("m").await.unwrap(), FoundMachine::Absent));
    let machine = host.runner.start(&config, None).await.unwrap();
    let child = machine.shim().record().child;
    shows(&machine, "login:").await;
    assert_eq!(host.runner.start(&config, None).await.unwrap().shim().record().child, child, "starting again finds it");
    drop(machine);

    host.restart();
    let FoundMachine::Running(machine) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
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
    assert!(matches!(host.runner.observe("m").await.unwrap(), FoundMachine::Absent));
    assert_eq!(host.runner.list().unwrap().len(), 1);
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn the_hypervisors_message_about_a_broken_disk_is_reported() {
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
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "300");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains(&format!(":/{}/vm-m", host.instance)), "{groups}");

    // A new agent finds it as it was, and its console with the past on it.
    drop(machine);
    host.restart();
    let FoundMachine::Running(machine) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(machine.shim().record().child.pid, pid);
    shows(&machine, "login:").await;
    let monitor = machine.monitor().await.unwrap();
    assert_eq!(monitor.state().await.unwrap(), GuestState::Running);
    monitor.grow_disk(&Machine::disk_id(0), 700 * MIB).await.unwrap();
    host.volumes.grown("disk", 700 * MIB).await.unwrap();

    let stopped = host.runner.stop("m", Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!((stopped.manner, stopped.exit.code), (StopManner::PoweredOff, Some(0)), "{}", host.serial("m"));
    host.runner.remove("m").await.unwrap();

    // Another machine boots from the same disk and reads the data of the first.
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
    let FoundMachine::Orphaned(reason) = host.runner.observe("m").await.unwrap() else { panic!("it lost its shim") };
    assert_eq!(reason, "its shim was killed");
    assert!(hypervisor.open().unwrap().is_some(), "looking ends nothing");
    let error = host.runner.start(&config, None).await.unwrap_err();
    assert!(error.to_string().contains("expected a machine whose hypervisor has ended"), "{error}");
    let exit = host.runner.end_orphan("m").await.unwrap().unwrap();
    assert_eq!(exit.reason, "its shim was killed");
    assert!(hypervisor.open().unwrap().is_none());
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "ready hostname=m").await;

    // A guest that is frozen cannot react and is ended.
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
    let mut changes = Guests::changes(&host.runner, "m").await.unwrap();
    let story = async {
        for marker in ["ready hostname=m", "rebooting now", "ready hostname=m"] {
            wait_for_serial_in(&mut console, &[marker]).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(BOOT * 2, story).await.is_ok(), "{}", host.serial("m"));
    let reset = async { while changes.next().await.unwrap() != GuestChange::Reset {} };
    tokio::time::timeout(BOOT, reset).await.expect("the hypervisor reported the reboot");
    let FoundMachine::Running(after) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(after.shim().record().child, machine.shim().record().child);
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_guest_that_is_still_booting_is_probed_again() {
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

#[tokio::test]
async fn a_damaged_record_stops_neither_its_machine_nor_others() {
    let host = Host::new(Simulated);
    for volume in ["v", "w"] {
        host.volumes.create(&blank(volume)).await.unwrap();
    }
    let first = host.runner.start(&config("a", &["v"]), None).await.unwrap();
    let path = host.root.path().join("state/machines/a/machine.json");
    let record = std::fs::read(&path).unwrap();
    for (damage, expected) in [
        (&b"{"[..], "machine.json cannot be understood"),
        (br#"{"version":99}"#, "machine.json is of version 99; this program knows versions up to 2"),
    ] {
        std::fs::write(&path, damage).unwrap();
        let error = host.runner.observe("a").await.unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), expected);
        assert!(first.shim().record().child.open().unwrap().is_some(), "it runs on");
        let other = host.runner.start(&config("b", &["w"]), None).await.unwrap();
        let line = status_line(other.shim().record().child.pid, "Uid:");
        assert!(line.contains(&(FIRST_UID + 1).to_string()), "users are not shared: {line}");
        host.runner.remove("b").await.unwrap();
        let error = host.runner.start(&config("b", &["v"]), None).await.unwrap_err();
        assert!(error.to_string().contains("found volume \"v\" of machine \"a\""), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), damage, "left alone");
    }
    std::fs::write(&path, record).unwrap();
    assert!(matches!(host.runner.observe("a").await.unwrap(), FoundMachine::Running(_)));
    host.runner.remove("a").await.unwrap();
    host.runner.remove("b").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_shim_that_is_silent_is_no_end() {
    let host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let machine = host.runner.start(&config("m", &["v"]), None).await.unwrap();
    let shim = machine.shim().record().shim.open().unwrap().unwrap();
    shim.signal(Signal::STOP).unwrap();
    let error = host.runner.observe("m").await.unwrap_err();
    assert!(matches!(error, MachineError::Io { operation: "adopt", .. }), "{error}");
    assert!(machine.shim().record().child.open().unwrap().is_some(), "the guest lives on");
    shim.signal(Signal::CONT).unwrap();
    let FoundMachine::Running(found) = host.runner.observe("m").await.unwrap() else { panic!("it runs") };
    assert_eq!(found.run_id(), machine.run_id());
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn two_machines_that_start_at_once_never_share_a_volume() {
    let host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let start = |uid: &'static str| {
        let (runner, config) = (host.runner.clone(), config(uid, &["v"]));
        async move { runner.start(&config, None).await.is_ok() }
    };
    let (a, b, c) = tokio::join!(start("a"), start("b"), start("c"));
    assert_eq!([a, b, c].into_iter().filter(|started| *started).count(), 1);
    for uid in ["a", "b", "c"] {
        host.runner.remove(uid).await.unwrap();
    }
    host.assert_clean().await;
}

#[tokio::test]
async fn the_log_of_the_last_run_is_kept() {
    let host = Host::new(Simulated);
    host.volumes.create(&blank("v")).await.unwrap();
    let config = config("m", &["v"]);
    let machine = host.runner.start(&config, None).await.unwrap();
    shows(&machine, "login:").await;
    host.runner.remove("m").await.unwrap();
    let log = host.runner.serial_log(Log::Previous(&config.seed.instance_id), MIB).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&log).contains("simulated login:"));
    assert!(host.runner.serial_log(Log::Previous("another"), MIB).await.unwrap().is_none());
    host.assert_clean().await;
}

#[tokio::test]
async fn the_command_line_names_no_tenant() {
    let host = Host::new(Qemu::default());
    host.volumes.create(&blank("v")).await.unwrap();
    let config = MachineConfig { name: "secret-project".into(), ..config("m", &["v"]) };
    let machine = host.runner.start(&config, None).await.unwrap();
    let pid = machine.shim().record().child.pid;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let line = String::from_utf8_lossy(&line);
    assert!(line.contains("guest=m,") && !line.contains("secret-project"), "{line}");
    let record = machine.record();
    assert!(record.machine_type.as_ref().unwrap().starts_with("pc-i440fx-"), "{record:?}");
    assert!(line.contains(record.machine_type.as_ref().unwrap()), "{line}");
    host.runner.remove("m").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn the_disks_of_a_running_guest_become_what_is_wanted() {
    let host = Host::new(Qemu::default());
    for volume in ["boot", "data"] {
        host.volumes.create(&blank(volume)).await.unwrap();
    }
    let owned = OwnedMachines::new(Arc::new(host.runner.clone()), DrainFlag::default());
    let mut config = config("m", &["boot"]);
    assert!(matches!(owned.ask("m", Order::Start(Box::new(config.clone()), None)).await.unwrap(), Answer::Runs(_)));
    let make_so =
        async |config: &MachineConfig| match owned.ask("m", Order::Devices(config.wanted_disks())).await.unwrap() {
            Answer::Changed(changes) => changes,
            other => panic!("{other:?}"),
        };
    assert_eq!(make_so(&config).await, []);

    config.volumes[0].size_bytes = Some(2 * MIB);
    config.volumes.push(VolumeUse { uid: "data".into(), is_boot: false, size_bytes: None });
    let changes = make_so(&config).await;
    assert!(matches!(changes[..], [Change::Grow { .. }, Change::Attach { .. }]), "{changes:?}");
    assert_eq!(make_so(&config).await, [], "nothing is left to do");
    let sizes: Vec<_> = host.runner.disks("m").await.unwrap().into_iter().map(|d| (d.is_hot, d.size_bytes)).collect();
    assert!(sizes.contains(&(false, 2 * MIB)) && sizes.contains(&(true, MIB)), "{sizes:?}");
    assert_eq!(host.volumes.look("boot").await.unwrap().unwrap().size_bytes, 2 * MIB, "recorded");
    let owner = |volume| host.volumes.path(volume).metadata().unwrap().uid();
    assert_eq!(owner("data"), FIRST_UID);
    let other = self::config("other", &["data"]);
    let error = host.runner.start(&other, None).await.unwrap_err();
    assert!(error.to_string().contains("found volume \"data\" of machine \"m\""), "{error}");

    config.volumes.pop();
    let changes = make_so(&config).await;
    assert!(matches!(changes[..], [Change::Detach { .. }]), "{changes:?}");
    assert_eq!(owner("data"), 0, "taken back");
    owned.ask("m", Order::Remove).await.unwrap();
    host.runner.remove("other").await.unwrap();
    host.assert_clean().await;
}

/// A small disk of its own below the volumes, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, options: &str) -> Self {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(folder).status().unwrap();
        assert!(status.success());
        Self(folder.to_owned())
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_guest_whose_host_disk_is_full_is_paused_and_goes_on_with_room() {
    let host = with_tiny().await;
    let folder = host.root.path().join("state/volumes");
    let saved = host.root.path().join("saved");
    assert!(Command::new("cp").args(["-a"]).arg(&folder).arg(&saved).status().unwrap().success());
    let disk = SmallDisk::mount(&folder, "size=40m,mode=755");
    assert!(Command::new("cp").args(["-a"]).arg(saved.join(".")).arg(&folder).status().unwrap().success());

    let mut config = config("m", &["disk"]);
    let script = "#!/bin/sh\ndd if=/dev/urandom of=/big bs=1M count=80; sync; echo \"filled $(wc -c </big)\"\n";
    config.seed.user_data = Some(script.into());
    let machine = host.runner.start(&config, None).await.unwrap();
    let full = GuestState::DiskError { is_full: true };
    let paused = async {
        while machine.state().await.unwrap() != full {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(BOOT, paused).await.is_ok(), "never paused:\n{}", host.serial("m"));
    assert!(!host.runner.resume("m").await.unwrap(), "there is no room yet");
    assert_eq!(machine.state().await.unwrap(), full);
    disk.resize("400m");
    assert!(host.runner.resume("m").await.unwrap());
    shows(&machine, "filled 83886080").await;
    assert_eq!(machine.state().await.unwrap(), GuestState::Running);

    // One that stays paused is not pressed to power off in vain.
    machine.monitor().await.unwrap().pause().await.unwrap();
    let stopped = host.runner.stop("m", BOOT).await.unwrap().unwrap();
    assert_eq!(stopped.manner, StopManner::PoweredOff, "a paused guest is resumed to be asked");
    host.runner.remove("m").await.unwrap();
    drop(disk);
    host.assert_clean().await;
}
