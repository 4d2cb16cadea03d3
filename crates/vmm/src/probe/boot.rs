//! Boots the payload once and watches its serial port.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::{Kind, Payload, Probe, ProbeError, boot_sector};
use crate::config::{Accelerator, DiskConfig, DiskFormat, DiskSource, GuestConfig};
use crate::driver::Hypervisor;

impl Probe {
    /// Boots the payload; the inner error says how it failed.
    pub(super) async fn boot(
        &self,
        accelerator: Accelerator,
        limit: Duration,
    ) -> Result<Result<(), String>, ProbeError> {
        let folder = Folder::new(&self.folder, self.user)?;
        let (disk, marker) = self.prepare_disk(&folder.path).await?;
        let socket = folder.path.join("monitor");
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| ProbeError::Io { operation, path, source }
        };
        let monitor = std::os::unix::net::UnixListener::bind(&socket).map_err(failed("listen on", &socket))?;
        let guest = GuestConfig {
            name: "probe".into(),
            uuid: "00000000-0000-4000-8000-000000000000".into(),
            vcpus: 1,
            memory_bytes: 256 << 20,
            accelerator,
            machine_type: "pc".into(),
            cpu_model: crate::qemu::default_cpu_model(match accelerator {
                Accelerator::Kvm { .. } => Kind::Kvm,
                Accelerator::Tcg => Kind::Tcg,
            }),
            disks: vec![disk],
            nic: None,
            monitor_fd: monitor.as_raw_fd(),
        };
        let command = self.qemu.command(&guest)?;
        let mut process = tokio::process::Command::new(&command.program);
        process.args(&command.arguments).env_clear().current_dir("/").kill_on_drop(true);
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let user = self.user.map(|(uid, gid)| (uid, gid, command.groups));
        prepare_child(&mut process, command.fds, user);
        let mut child = process.spawn().map_err(failed("execute", self.qemu.program()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let outcome = tokio::time::timeout(limit, read_until(stdout, marker.as_bytes())).await;
        let _ = child.kill().await;
        let seen = match outcome {
            Ok(Ok(())) => return Ok(Ok(())),
            Ok(Err(seen)) => seen,
            Err(_) => return Ok(Err(format!("no sign of life on its serial port within {} s", limit.as_secs()))),
        };
        let mut text = String::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_string(&mut text).await;
        }
        let output = if text.trim().is_empty() { String::from_utf8_lossy(&seen).into_owned() } else { text };
        Ok(Err(format!("it ended at once: {}", output.trim())))
    }

    async fn prepare_disk(&self, folder: &Path) -> Result<(DiskConfig, String), ProbeError> {
        let path = folder.join("disk");
        let (format, marker) = match &self.payload {
            Payload::Image { disk, marker } => {
                let size = self.image_tool.info(disk, &DiskFormat::Qcow2 { backing: None }).await?.virtual_size;
                self.image_tool.create_clone(&path, disk, size).await?;
                (DiskFormat::Qcow2 { backing: Some(disk.clone()) }, marker.clone())
            }
            Payload::BootSector => {
                let failed = |source| ProbeError::Io { operation: "write", path: path.clone(), source };
                std::fs::write(&path, boot_sector::disk()).map_err(failed)?;
                (DiskFormat::Raw, boot_sector::MARKER.to_owned())
            }
        };
        if let Some((uid, gid)) = self.user {
            let failed = |source| ProbeError::Io { operation: "hand over", path: path.clone(), source };
            chown(&path, Some(uid), Some(gid)).map_err(failed)?;
        }
        let disk = DiskConfig {
            id: "disk".into(),
            source: DiskSource::File { path, format },
            serial: "probe".into(),
            boot_index: Some(0),
            is_read_only: false,
        };
        Ok((disk, marker))
    }
}

/// Makes the child this user (id, group, further groups), lets it have these descriptors under their own numbers, and lets it end with
/// us: a guest that hangs would stay for ever if we were killed while we wait for it.
fn prepare_child(command: &mut tokio::process::Command, fds: Vec<RawFd>, user: Option<(u32, u32, Vec<u32>)>) {
    let parent = rustix::process::getpid();
    // SAFETY: system calls only, which may be made after a fork; nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            if let Some((uid, gid, groups)) = &user {
                let is_done = libc::setgroups(groups.len(), groups.as_ptr()) == 0
                    && libc::setgid(*gid) == 0
                    && libc::setuid(*uid) == 0;
                if !is_done {
                    return Err(io::Error::last_os_error());
                }
            }
            // After the change of user, which would clear it. It goes by the thread that forks: a worker of the runtime, which lives
            // as long as the process.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            for fd in &fds {
                if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Reads until the text has come; the error is what came instead.
async fn read_until(stream: Option<impl AsyncReadExt + Unpin>, text: &[u8]) -> Result<(), Vec<u8>> {
    let mut seen = Vec::new();
    let Some(mut stream) = stream else { return Err(seen) };
    loop {
        match stream.read_buf(&mut seen).await {
            Ok(1..) if seen.windows(text.len()).any(|window| window == text) => return Ok(()),
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(seen),
        }
    }
}

/// A folder that goes with its owner.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(parent: &Path, user: Option<(u32, u32)>) -> Result<Self, ProbeError> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = parent.join(format!("probe-{}-{number}", std::process::id()));
        let make = || {
            std::fs::create_dir(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
            user.map_or(Ok(()), |(uid, gid)| chown(&path, Some(uid), Some(gid)))
        };
        make().map_err(|source| ProbeError::Io { operation: "create", path: path.clone(), source })?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
