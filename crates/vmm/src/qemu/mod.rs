//! QEMU: the driver for real guests.

mod arguments;
mod files;
mod hardware;
mod monitor;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

pub use arguments::arguments;
pub use monitor::QemuMonitor;

use crate::config::Kind;
use crate::config::{Accelerator, ConfigError, GuestConfig};
use crate::driver::{GuestCommand, Hypervisor, Monitor, MonitorError, Offers};
use crate::qmp::Qmp;

/// Memory that QEMU itself may need beside the guest's: its heap, device state, translated code under TCG (128 MiB, see
/// `arguments`). Too low and the kernel kills guests under load; too high and hosts take fewer guests than they could.
pub const OVERHEAD_BYTES: u64 = 320 << 20;

/// The CPU model of new guests.
pub(crate) fn default_cpu_model(accelerator: Kind) -> String {
    hardware::cpu_models(accelerator).swap_remove(0)
}

/// The line with which QEMU says that a signal from outside ended it, in what it wrote last to standard error. Its exit code is then 0, as
/// after the guest has powered itself off.
pub fn ended_from_outside(stderr_tail: &str) -> Option<&str> {
    stderr_tail.lines().rev().find(|line| line.contains(": terminating on signal ")).map(str::trim)
}

/// QEMU on x86-64.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    /// Whether it can be handed an open `/dev/kvm`: from version 8 on. An older one has to open it by itself.
    takes_open_kvm: bool,
}

impl Qemu {
    /// `program`: absolute path of `qemu-system-x86_64`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), takes_open_kvm: true }
    }

    /// The same, as it is used with the version that is installed.
    pub async fn as_installed(mut self) -> std::io::Result<Self> {
        self.takes_open_kvm = major_version(&self.version().await?).is_none_or(|major| major >= 8);
        Ok(self)
    }

    /// Returns the first line of the program's version output.
    pub async fn version(&self) -> std::io::Result<String> {
        let output = tokio::process::Command::new(&self.program).arg("--version").output().await?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    }

    /// The group that a guest's user has to be in to use KVM, where there is one that others are in; never root's.
    pub fn kvm_group(&self) -> Option<u32> {
        let device = std::fs::metadata("/dev/kvm").ok().filter(|_| !self.takes_open_kvm)?;
        (device.mode() & 0o060 == 0o060 && device.gid() != 0).then(|| device.gid())
    }

    /// The advice where guests may not use KVM.
    pub fn kvm_advice(&self) -> &'static str {
        if self.takes_open_kvm || self.kvm_group().is_some() {
            return "";
        }
        "; this QEMU opens the device as the guest's user: let a group use it (`chgrp kvm /dev/kvm && chmod 660 /dev/kvm`), or install QEMU 8 \
         or newer"
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// `QEMU emulator version 7.2.22 (Debian …)` is 7.
fn major_version(line: &str) -> Option<u32> {
    line.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

impl Default for Qemu {
    /// Returns the path of Debian's package.
    fn default() -> Self {
        Self::new("/usr/bin/qemu-system-x86_64")
    }
}

#[async_trait]
impl Hypervisor for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    async fn offers(&self, accelerator: Kind) -> std::io::Result<Offers> {
        let output = tokio::process::Command::new(&self.program).args(["-machine", "help"]).output().await?;
        let machine_types = hardware::machine_types(&String::from_utf8_lossy(&output.stdout));
        if machine_types.is_empty() {
            return Err(std::io::Error::other("QEMU offers no versioned machine type pc-i440fx-*"));
        }
        Ok(Offers { machine_types, cpu_models: hardware::cpu_models(accelerator) })
    }

    fn command(&self, guest: &GuestConfig) -> Result<GuestCommand, ConfigError> {
        guest.validate()?;
        let mut fds = vec![guest.monitor_fd];
        fds.extend(guest.nic.as_ref().map(|nic| nic.tap_fd));
        let mut groups = Vec::new();
        match guest.accelerator {
            Accelerator::Kvm { fd } if self.takes_open_kvm => fds.push(fd),
            Accelerator::Kvm { .. } => groups.extend(self.kvm_group()),
            Accelerator::Tcg => {}
        }
        let opens_kvm = matches!(guest.accelerator, Accelerator::Kvm { .. }) && !self.takes_open_kvm;
        Ok(GuestCommand {
            program: self.program.clone(),
            arguments: arguments(guest, self.takes_open_kvm),
            environment: Vec::new(),
            fds,
            groups,
            files: Some(files::needed(&self.program, &guest.disks, opens_kvm)),
        })
    }

    async fn connect(&self, socket: &Path, limit: Duration) -> Result<Box<dyn Monitor>, MonitorError> {
        Ok(Box::new(QemuMonitor::new(Qmp::connect(socket, limit).await?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(major_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"), Some(7));
        assert_eq!(major_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)"), Some(10));
        assert_eq!(major_version("something else"), None);
    }
}
