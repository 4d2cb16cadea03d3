//! QEMU: the driver for real guests.

mod arguments;
mod monitor;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

pub use arguments::arguments;
pub use monitor::QemuMonitor;

use crate::config::{Accelerator, ConfigError, GuestConfig};
use crate::driver::{Capabilities, GuestCommand, Hypervisor, Monitor, MonitorError};
use crate::qmp::Qmp;

/// Memory that QEMU itself may need beside the guest's: its heap, device state, translated code under TCG (128 MiB, see
/// `arguments`). Too low and the kernel kills guests under load; too high and hosts take fewer guests than they could.
pub const OVERHEAD_BYTES: u64 = 320 << 20;

/// QEMU on x86-64.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
}

impl Qemu {
    /// `program`: absolute path of `qemu-system-x86_64`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Default for Qemu {
    /// Where Debian puts it.
    fn default() -> Self {
        Self::new("/usr/bin/qemu-system-x86_64")
    }
}

#[async_trait]
impl Hypervisor for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { can_hot_swap: true, can_grow_online: true, can_pause: true }
    }

    fn command(&self, guest: &GuestConfig) -> Result<GuestCommand, ConfigError> {
        guest.validate()?;
        let mut fds = vec![guest.monitor_fd];
        fds.extend(guest.nic.as_ref().map(|nic| nic.tap_fd));
        if let Accelerator::Kvm { fd } = guest.accelerator {
            fds.push(fd);
        }
        Ok(GuestCommand { program: self.program.clone(), arguments: arguments(guest), environment: Vec::new(), fds })
    }

    async fn connect(&self, socket: &Path, limit: Duration) -> Result<Box<dyn Monitor>, MonitorError> {
        Ok(Box::new(QemuMonitor::new(Qmp::connect(socket, limit).await?)))
    }
}
