//! Finds the working accelerator with the real QEMU.

use std::time::Duration;

use evroc_vmm::probe::{Kind, Payload, Probe, ProbeError, ProbeResult};

fn probe(dir: &std::path::Path) -> Probe {
    let user = rustix::process::geteuid().is_root().then_some((1_899_999_010, 1_899_999_010));
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Probe { user, kvm_device: dir.join("no-kvm"), ..Probe::new(Payload::BootSector, dir) }
}

#[tokio::test]
async fn a_boot_sector_speaks_without_acceleration_and_the_verdict_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let probe = probe(dir.path());
    let cache = dir.path().join("accel.json");
    // A leftover of a killed agent: no process has this number.
    std::fs::create_dir(dir.path().join("probe-99999999-0")).unwrap();
    let verdict = probe.run_cached(&cache).await.unwrap();
    assert_eq!(verdict.accelerator, Kind::Tcg);
    assert!(verdict.reason.contains("no-kvm cannot be used: No such file"), "{}", verdict.reason);
    assert!(verdict.cost_note.is_some());
    assert_eq!(probe.run_cached(&cache).await.unwrap(), verdict);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the cache is left");

    // Another kernel: probed again.
    let mut old: ProbeResult = serde_json::from_slice(&std::fs::read(&cache).unwrap()).unwrap();
    old.holds_for.kernel = "another".into();
    std::fs::write(&cache, serde_json::to_vec(&old).unwrap()).unwrap();
    let again = probe.run_cached(&cache).await.unwrap();
    assert_eq!(again.holds_for, verdict.holds_for);
    assert_ne!(again.probed_at, verdict.probed_at);
}

#[tokio::test]
async fn a_hardware_device_that_does_not_work_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = probe(dir.path());
    probe.kvm_device = "/dev/null".into();
    let verdict = probe.run_cached(&dir.path().join("accel.json")).await.unwrap();
    assert_eq!(verdict.accelerator, Kind::Tcg);
    assert!(
        verdict.reason.starts_with("/dev/null is there, but a probe guest did not boot with it: it ended at once"),
        "{}",
        verdict.reason
    );
}

#[tokio::test]
async fn no_guest_at_all_is_an_error_with_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = probe(dir.path());
    probe.tcg_limit = Duration::from_millis(1);
    let error = probe.run_cached(&dir.path().join("accel.json")).await.unwrap_err();
    assert!(matches!(error, ProbeError::NothingWorks(_)));
    assert!(error.to_string().contains("no sign of life"), "{error}");
}

/// In another process, because it is killed: this same test binary, instructed by the environment.
#[test]
fn a_probe_does_not_outlive_its_agent() {
    let marker = "EVROC_TEST_PROBE_FOLDER";
    if let Some(folder) = std::env::var_os(marker) {
        let folder = std::path::PathBuf::from(folder);
        // Prints no marker: it waits until we are killed.
        let mut hanging = probe(&folder);
        hanging.payload = Payload::Image { disk: folder.join("blank"), marker: "never".into() };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            hanging.image_tool.create_blank(&folder.join("blank"), 1 << 20).await.unwrap();
            hanging.run_cached(&folder.join("accel.json")).await.unwrap();
        });
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut agent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "probe::a_probe_does_not_outlive_its_agent"])
        .env(marker, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let hypervisors = || {
        let marker = dir.path().to_str().unwrap().to_owned();
        let lines = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let is_ours = |line: &Vec<u8>| {
            line.starts_with(b"/usr/bin/qemu-system") && String::from_utf8_lossy(line).contains(&marker)
        };
        lines.filter(is_ours).count()
    };
    eventually("a hypervisor runs", || hypervisors() == 1);
    agent.kill().unwrap();
    agent.wait().unwrap();
    eventually("it has ended", || hypervisors() == 0);
}

/// For a condition without a runtime.
#[allow(clippy::disallowed_methods)]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < limit, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
