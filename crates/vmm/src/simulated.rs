//! A guest that is a shell script: it can be started, adopted, powered down and killed as a real one can, in a millisecond and a
//! megabyte. For tests of hosts and of many machines; it has no disks and no network.

#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::config::Kind;
use crate::config::{ConfigError, GuestConfig, HotDisk};
use crate::driver::{ActualDisk, GuestCommand, GuestState, Hypervisor, Monitor, MonitorError, Offers};
use crate::event::Events;

/// The text that the guest prints when it is up.
pub const PROMPT: &str = "simulated login: ";

/// The driver.
#[derive(Clone, Debug, Default)]
pub struct Simulated;

/// The script's monitor is a FIFO beside the socket that a real hypervisor would listen on.
fn control(socket: &Path) -> PathBuf {
    socket.with_extension("fifo")
}

/// Path of a listening unix socket.
fn socket_path(fd: RawFd) -> Option<PathBuf> {
    // SAFETY: the caller of `command` promises that the descriptor is open; a number that is not gives an error.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let address = UnixListener::from(fd.try_clone_to_owned().ok()?).local_addr().ok()?;
    address.as_pathname().map(Path::to_owned)
}

const SCRIPT: &str = r#"
exec 3<>"$CONTROL"
printf 'simulated login: '
cat <&0 &
while read -r command <&3; do
  case $command in
    powerdown) echo 'powering off'; exit 0 ;;
    quit) exit 0 ;;
    crash) echo 'simulated crash' >&2; exit 1 ;;
  esac
done
"#;

#[async_trait]
impl Hypervisor for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn offers(&self, _: Kind) -> std::io::Result<Offers> {
        let name = |name: &str| vec![name.to_owned()];
        Ok(Offers { machine_types: name("simulated-1"), cpu_models: name("simulated-1") })
    }

    fn command(&self, guest: &GuestConfig) -> Result<GuestCommand, ConfigError> {
        guest.validate()?;
        let refused =
            |found: String| ConfigError { field: "monitorFd".into(), expected: "a listening unix socket", found };
        let socket = socket_path(guest.monitor_fd).ok_or_else(|| refused(guest.monitor_fd.to_string()))?;
        let control = control(&socket);
        let _ = std::fs::remove_file(&control);
        let everybody = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &control, rustix::fs::FileType::Fifo, everybody, 0)
            .and_then(|()| rustix::fs::chmod(&control, everybody))
            .map_err(|errno| refused(format!("{}: {errno}", control.display())))?;
        Ok(GuestCommand {
            program: "/bin/sh".into(),
            arguments: ["-c", SCRIPT].map(str::to_owned).to_vec(),
            environment: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("CONTROL".into(), control.to_string_lossy().into_owned()),
            ],
            fds: Vec::new(),
            groups: Vec::new(),
            files: None,
        })
    }

    async fn connect(&self, socket: &Path, limit: Duration) -> Result<Box<dyn Monitor>, MonitorError> {
        let monitor = SimulatedMonitor { control: control(socket) };
        let connected = async {
            while let Err(error) = monitor.open() {
                tracing::trace!(%error, "simulated guest is not up yet");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(limit, connected).await {
            Ok(()) => Ok(Box::new(monitor)),
            Err(_) => Err(MonitorError::Late { command: "connect".into(), limit }),
        }
    }
}

#[derive(Debug)]
struct SimulatedMonitor {
    control: PathBuf,
}

impl SimulatedMonitor {
    /// Fails if no script reads.
    fn open(&self) -> std::io::Result<std::fs::File> {
        std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&self.control)
    }

    fn record(&self, command: &'static str) -> Result<(), MonitorError> {
        let commands = self.open().and_then(|mut control| writeln!(control, "{command}"));
        commands.map_err(|_| MonitorError::Closed { command: command.into() })
    }

    fn unsupported<T>(what: &'static str) -> Result<T, MonitorError> {
        Err(MonitorError::Unsupported { driver: "simulated", what })
    }
}

#[async_trait]
impl Monitor for SimulatedMonitor {
    async fn state(&self) -> Result<GuestState, MonitorError> {
        self.open().map(|_| GuestState::Running).map_err(|_| MonitorError::Closed { command: "state".into() })
    }
    async fn power_down(&self) -> Result<(), MonitorError> {
        self.record("powerdown")
    }
    async fn quit(&self) -> Result<(), MonitorError> {
        self.record("quit")
    }
    async fn pause(&self) -> Result<(), MonitorError> {
        Self::unsupported("pausing")
    }
    async fn reset(&self) -> Result<(), MonitorError> {
        Self::unsupported("resetting")
    }
    async fn resume(&self) -> Result<(), MonitorError> {
        Self::unsupported("resuming")
    }
    async fn grow_disk(&self, _: &str, _: u64) -> Result<(), MonitorError> {
        Self::unsupported("growing a disk online")
    }
    async fn attach_disk(&self, _: &HotDisk) -> Result<(), MonitorError> {
        Self::unsupported("hot swap")
    }
    async fn detach_disk(&self, _: &str) -> Result<(), MonitorError> {
        Self::unsupported("hot swap")
    }
    async fn disks(&self) -> Result<Vec<ActualDisk>, MonitorError> {
        Self::unsupported("listing disks")
    }
    fn events(&self) -> Events {
        Events::none()
    }
    async fn closed(&self) {
        while self.open().is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
