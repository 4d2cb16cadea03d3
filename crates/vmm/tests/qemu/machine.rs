//! A guest in the real QEMU, spoken to by QMP.

use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::Duration;

use evroc_vmm::{
    Accelerator, DiskConfig, DiskFormat, DiskSource, GuestConfig, GuestState, HotDisk, Hypervisor, ImageTool,
    MonitorError, Qemu,
};

const MIB: u64 = 1 << 20;
const QCOW2: DiskFormat = DiskFormat::Qcow2 { backing: None };

fn file(path: &std::path::Path) -> DiskSource {
    DiskSource::File { path: path.to_owned(), format: QCOW2 }
}

#[tokio::test]
async fn a_guest_is_paused_grown_swapped_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let tool = ImageTool::default();
    let (disk, extra) = (dir.path().join("disk"), dir.path().join("extra"));
    tool.create_blank(&disk, 10 * MIB).await.unwrap();
    tool.create_blank(&extra, 5 * MIB).await.unwrap();
    let socket = dir.path().join("monitor");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let guest = GuestConfig {
        name: "test".into(),
        uuid: "3f0c6c5e-6a9f-4a55-8a0e-000000000002".into(),
        vcpus: 2,
        memory_bytes: 64 * MIB,
        accelerator: Accelerator::Tcg,
        machine_type: "pc-i440fx-7.2".into(),
        cpu_model: "x86-64-v3".into(),
        disks: vec![DiskConfig {
            id: "disk0".into(),
            source: file(&disk),
            serial: "s0".into(),
            boot_index: Some(0),
            is_read_only: false,
        }],
        nic: None,
        monitor_fd: listener.as_raw_fd(),
    };
    let qemu = Qemu::default();
    let command = qemu.command(&guest).unwrap();
    let mut child = tokio::process::Command::new(&command.program)
        .args(&command.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    drop(listener);
    let monitor = qemu.connect(&socket, Duration::from_secs(30)).await.unwrap();
    assert_eq!(monitor.state().await.unwrap(), GuestState::Running);
    monitor.pause().await.unwrap();
    assert_eq!(monitor.state().await.unwrap(), GuestState::Paused);
    monitor.resume().await.unwrap();

    monitor.grow_disk("disk0", 20 * MIB).await.unwrap();
    let error = monitor.grow_disk("disk9", 20 * MIB).await.unwrap_err();
    assert!(matches!(&error, MonitorError::Refused { command, .. } if command == "block_resize"), "{error}");

    let hot = HotDisk { id: "hot1".into(), source: file(&extra), serial: "h1".into() };
    monitor.attach_disk(&hot).await.unwrap();
    monitor.attach_disk(&hot).await.unwrap();
    let in_use = tool.grow(&extra, &QCOW2, 6 * MIB).await.unwrap_err();
    assert!(in_use.to_string().contains("lock"), "QEMU holds the disk: {in_use}");
    monitor.detach_disk("hot1").await.unwrap();
    monitor.detach_disk("hot1").await.unwrap();
    tool.grow(&extra, &QCOW2, 6 * MIB).await.unwrap();

    // The guest does not handle the power button yet, so this changes nothing.
    monitor.power_down().await.unwrap();
    assert_eq!(monitor.state().await.unwrap(), GuestState::Running);
    monitor.quit().await.unwrap();
    monitor.closed().await;
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(tool.info(&disk, &QCOW2).await.unwrap().virtual_size, 20 * MIB);
    assert!(matches!(monitor.state().await, Err(MonitorError::Closed { .. })));
}
