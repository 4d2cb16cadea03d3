//! Finds the accelerator that really works on this host, by booting a guest.
//!
//! The presence of `/dev/kvm` proves nothing: there are hosts (nested, or with a software KVM made for special kernels) where it
//! opens, accepts a guest, and the guest hangs. So a small guest is booted as the user that will run the real ones, and has to
//! say something on its serial port in time. The verdict is remembered as long as kernel, QEMU, processor and payload stay the
//! same.
mod boot;
mod boot_sector;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::Accelerator;
pub use crate::config::Kind;
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
}

/// Opens the KVM device for a guest whose user may not.
pub fn open_kvm() -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/kvm")
}
