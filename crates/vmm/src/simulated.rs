//! A guest that is a shell script: it can be started, adopted, powered down and killed as a real one can, in a millisecond and a
//! megabyte. For tests of hosts and of many machines; it has no disks and no network.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::config::{ConfigError, GuestConfig, HotDisk};
use crate::driver::{Capabilities, GuestCommand, GuestState, Hypervisor, Monitor, MonitorError};

/// What the guest prints when it is up.
pub const PROMPT: &str = "simulated login: ";

/// The driver.
#[derive(Clone, Debug, Default)]
pub struct Simulated;

/// The script's monitor is a FIFO: beside the socket that a real hypervisor would have been given, under the guest's uuid.
fn control(folder: &Path, uuid: &str) -> PathBuf {
    folder.join(format!("evroc-simulated-{uuid}"))
}

const SCRIPT: &str = r#"
rm -f "$CONTROL"
mkfifo -m 600 "$CONTROL" || exit 1
exec 3<>"$CONTROL"
printf 'simulated login: '
cat <&0 &
while read -r command <&3; do
  case $command in
    powerdown) echo 'powering off'; rm -f "$CONTROL"; exit 0 ;;
    quit) rm -f "$CONTROL"; exit 0 ;;
    crash) echo 'simulated crash' >&2; exit 1 ;;
  esac
done
"#;

#[async_trait]
impl Hypervisor for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn command(&self, guest: &GuestConfig) -> Result<GuestCommand, ConfigError> {
        guest.validate()?;
        let control = control(&std::env::temp_dir(), &guest.uuid);
        Ok(GuestCommand {
            program: "/bin/sh".into(),
            arguments: ["-c", SCRIPT].map(str::to_owned).to_vec(),
            environment: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("CONTROL".into(), control.to_string_lossy().into_owned()),
            ],
            fds: Vec::new(),
        })
    }

    /// The file name of `socket`, without its extension, is the guest's uuid.
    async fn connect(&self, socket: &Path, limit: Duration) -> Result<Box<dyn Monitor>, MonitorError> {
        let uuid = socket.file_stem().unwrap_or_default().to_string_lossy();
        let monitor = SimulatedMonitor { control: control(&std::env::temp_dir(), &uuid) };
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

    fn say(&self, command: &'static str) -> Result<(), MonitorError> {
        let said = self.open().and_then(|mut control| writeln!(control, "{command}"));
        said.map_err(|_| MonitorError::Closed { command: command.into() })
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
        self.say("powerdown")
    }
    async fn quit(&self) -> Result<(), MonitorError> {
        self.say("quit")
    }
    async fn pause(&self) -> Result<(), MonitorError> {
        Self::unsupported("pausing")
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
    async fn closed(&self) {
        while self.control.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
