//! Finds the accelerator that really works on this host, by booting a guest.
//!
//! The presence of `/dev/kvm` proves nothing: there are hosts (nested, or with a software KVM made for special kernels) where it
//! opens, accepts a guest, and the guest hangs. So a small guest is booted as the user that will run the real ones, and has to
//! say something on its serial port in time. The verdict is remembered as long as kernel, QEMU, processor and payload stay the
//! same.
#![allow(unsafe_code)]

mod boot_sector;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt;

pub use crate::config::Kind;
use crate::config::{Accelerator, DiskConfig, DiskFormat, DiskSource, GuestConfig};
use crate::driver::Hypervisor;
use crate::image::{ImageError, ImageTool};
use crate::qemu::Qemu;

/// The time limit for the marker of a guest with KVM. A healthy host needs one to three seconds; a host busy with a build, five.
pub const KVM_LIMIT: Duration = Duration::from_secs(20);
/// Time for a guest without: the tiny image needs three to five seconds on an idle host.
pub const TCG_LIMIT: Duration = Duration::from_secs(90);

/// How to probe.
#[derive(Clone, Debug)]
pub struct Probe {
    /// QEMU.
    pub qemu: Qemu,
    /// `qemu-img`.
    pub image_tool: ImageTool,
    /// The system to boot.
    pub payload: Payload,
    /// User and group that run guests; `None` is the caller.
    pub user: Option<(u32, u32)>,
    /// The folder for a temporary folder; the user above must be able to reach it.
    pub folder: PathBuf,
    /// Normally `/dev/kvm`.
    pub kvm_device: PathBuf,
    /// Time with KVM, see [`KVM_LIMIT`].
    pub kvm_limit: Duration,
    /// Time without, see [`TCG_LIMIT`].
    pub tcg_limit: Duration,
}

/// The system that is booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A qcow2 image with a real kernel, which prints `marker` when it is up. What to trust.
    Image {
        /// The disk; it is not written to.
        disk: PathBuf,
        /// Text on the serial console.
        marker: String,
    },
    /// A boot sector made here. It can show that KVM fails, not that it works: a software KVM was seen that runs this and hangs
    /// every stock kernel. So the verdict is never KVM, and is made again once there is an image.
    BootSector,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResult {
    /// The accelerator for guests.
    pub accelerator: Kind,
    /// One sentence for people: why.
    pub reason: String,
    /// The cost of it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_note: Option<String>,
    /// When it was found.
    pub probed_at: jiff::Timestamp,
    /// The circumstances that it holds for.
    pub holds_for: Circumstances,
}

/// A verdict is void when any of these changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Circumstances {
    /// `uname -r`.
    pub kernel: String,
    /// First line of `qemu --version`.
    pub qemu: String,
    /// Model name of the first processor.
    pub cpu: String,
    /// `image` or `boot sector`.
    pub payload: String,
    /// Whether there was a KVM device to try.
    pub has_kvm: bool,
    /// The group that may use the device, where it matters: a QEMU that has to open it by itself.
    #[serde(default)]
    pub kvm_group: Option<u32>,
}

/// No guest can run on this host.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum ProbeError {
    #[error("probe: {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("probe: prepare a disk")]
    Image(#[from] ImageError),
    #[error("probe: {0}")]
    Config(#[from] crate::config::ConfigError),
    #[error("no guest runs on this host: without acceleration: {0}")]
    NothingWorks(String),
}

impl Probe {
    /// A probe with usual places and limits.
    pub fn new(payload: Payload, folder: impl Into<PathBuf>) -> Self {
        Self {
            qemu: Qemu::default(),
            image_tool: ImageTool::default(),
            payload,
            user: None,
            folder: folder.into(),
            kvm_device: "/dev/kvm".into(),
            kvm_limit: KVM_LIMIT,
            tcg_limit: TCG_LIMIT,
        }
    }

    /// The verdict in `cache` if it still holds, else a new one, written there.
    pub async fn run_cached(&self, cache: &Path) -> Result<ProbeResult, ProbeError> {
        self.sweep();
        let circumstances = self.circumstances().await?;
        let known = std::fs::read(cache).ok().and_then(|text| serde_json::from_slice::<ProbeResult>(&text).ok());
        if let Some(verdict) = known.filter(|verdict| verdict.holds_for == circumstances) {
            return Ok(verdict);
        }
        let verdict = self.run(circumstances).await?;
        let failed = |source| ProbeError::Io { operation: "write", path: cache.to_owned(), source };
        let temporary = cache.with_extension("new");
        let text = serde_json::to_vec_pretty(&verdict).map_err(|error| failed(error.into()))?;
        std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, cache)).map_err(failed)?;
        Ok(verdict)
    }

    /// Returns the circumstances of this moment.
    pub async fn circumstances(&self) -> Result<Circumstances, ProbeError> {
        let failed = |source| ProbeError::Io { operation: "execute", path: self.qemu.program().to_owned(), source };
        let version = self.qemu.version().await.map_err(failed)?;
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Circumstances {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            qemu: version,
            cpu: cpu.map(|(_, model)| model.to_owned()).unwrap_or_default(),
            payload: match self.payload {
                Payload::Image { .. } => "image".into(),
                Payload::BootSector => "boot sector".into(),
            },
            has_kvm: self.kvm_device.exists(),
            kvm_group: self.qemu.kvm_group(),
        })
    }

    /// Folders of probes that were killed: named after processes that do not exist any more.
    fn sweep(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid =
                name.to_str().and_then(|name| name.strip_prefix("probe-")?.split('-').next()?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    async fn run(&self, holds_for: Circumstances) -> Result<ProbeResult, ProbeError> {
        let verdict = |accelerator, reason, cost_note| ProbeResult {
            accelerator,
            reason,
            cost_note,
            probed_at: jiff::Timestamp::now(),
            holds_for: holds_for.clone(),
        };
        let without = match std::fs::OpenOptions::new().read(true).write(true).open(&self.kvm_device) {
            Ok(device) => {
                let accelerator = Accelerator::Kvm { fd: device.as_raw_fd() };
                match self.boot(accelerator, self.kvm_limit).await? {
                    Ok(()) if self.payload != Payload::BootSector => {
                        return Ok(verdict(Kind::Kvm, "a probe guest booted with KVM".into(), None));
                    }
                    Ok(()) => format!(
                        "{} runs a boot sector, but there is no image on this host to show that a kernel boots with it",
                        self.kvm_device.display()
                    ),
                    Err(failure) => format!(
                        "{0} is there, but a probe guest did not boot with it: {failure}{1}",
                        self.kvm_device.display(),
                        self.qemu.kvm_advice()
                    ),
                }
            }
            Err(error) => format!("{} cannot be used: {error}", self.kvm_device.display()),
        };
        if let Err(failure) = self.boot(Accelerator::Tcg, self.tcg_limit).await? {
            return Err(ProbeError::NothingWorks(failure));
        }
        let cost = "guests run by software translation (QEMU's TCG), often ten times slower than on hardware";
        Ok(verdict(Kind::Tcg, without, Some(cost.into())))
    }

    /// Boots the payload; the inner error says how it failed.
    async fn boot(&self, accelerator: Accelerator, limit: Duration) -> Result<Result<(), String>, ProbeError> {
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
        let words = if text.trim().is_empty() { String::from_utf8_lossy(&seen).into_owned() } else { text };
        Ok(Err(format!("it ended at once: {}", words.trim())))
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

/// Opens the KVM device for a guest whose user may not.
pub fn open_kvm() -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/kvm")
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
