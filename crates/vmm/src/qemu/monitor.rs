//! A guest in QEMU, spoken to by QMP.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::arguments::block_device;
use crate::config::{DiskFormat, DiskSource, HotDisk};
use crate::driver::{ActualDisk, GuestState, Monitor, MonitorError};
use crate::event::Events;
use crate::qmp::{COMMAND_LIMIT, Qmp};

/// See [`Monitor`].
#[derive(Clone, Debug)]
pub struct QemuMonitor {
    qmp: Qmp,
}

impl QemuMonitor {
    /// Sends commands through `qmp`.
    pub fn new(qmp: Qmp) -> Self {
        Self { qmp }
    }

    /// The connection, for what [`Monitor`] does not have.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    async fn run(&self, command: &str, arguments: Value) -> Result<(), MonitorError> {
        self.qmp.execute(command, arguments).await.map(|_| ())
    }
}

#[async_trait]
impl Monitor for QemuMonitor {
    async fn state(&self) -> Result<GuestState, MonitorError> {
        let command = "query-status";
        let answer = self.qmp.execute(command, Value::Null).await?;
        match answer.get("status").and_then(Value::as_str) {
            Some("running") => Ok(GuestState::Running),
            Some("shutdown") => Ok(GuestState::ShutDown),
            Some(
                "paused" | "prelaunch" | "inmigrate" | "finish-migrate" | "postmigrate" | "save-vm" | "restore-vm"
                | "debug",
            ) => Ok(GuestState::Paused),
            Some("suspended") => Ok(GuestState::Asleep),
            Some("io-error") => Ok(GuestState::DiskError { is_full: self.is_a_disk_full().await? }),
            Some("guest-panicked") => Ok(GuestState::Crashed),
            Some("internal-error" | "watchdog" | "colo") => Ok(GuestState::Broken),
            _ => Err(MonitorError::Answer {
                command: command.into(),
                expected: "a run state",
                found: answer.to_string(),
            }),
        }
    }

    async fn power_down(&self) -> Result<(), MonitorError> {
        self.run("system_powerdown", Value::Null).await
    }

    async fn quit(&self) -> Result<(), MonitorError> {
        match self.run("quit", Value::Null).await {
            // The process may end before its answer arrives.
            Err(MonitorError::Closed { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    async fn pause(&self) -> Result<(), MonitorError> {
        self.run("stop", Value::Null).await
    }

    async fn reset(&self) -> Result<(), MonitorError> {
        self.run("system_reset", Value::Null).await
    }

    async fn resume(&self) -> Result<(), MonitorError> {
        self.run("cont", Value::Null).await
    }

    async fn grow_disk(&self, id: &str, size_bytes: u64) -> Result<(), MonitorError> {
        self.run("block_resize", json!({ "node-name": id, "size": size_bytes })).await
    }

    /// Can be repeated after a failure in the middle.
    async fn attach_disk(&self, disk: &HotDisk) -> Result<(), MonitorError> {
        disk.validate()?;
        let device = format!("{}-device", disk.id);
        if !self.has_node(&disk.id).await? {
            // Those of a try that failed half-way.
            self.qmp.remove_files(&disk.id).await?;
            let source = self.hand_over(&disk.id, &disk.source).await?;
            self.run("blockdev-add", block_device(&disk.id, &source, false)).await?;
        }
        let added = self
            .run(
                "device_add",
                json!({ "driver": "scsi-hd", "bus": "scsi.0", "id": device, "drive": disk.id, "serial": disk.serial }),
            )
            .await;
        match added {
            Err(MonitorError::Refused { description, .. }) if description.contains("Duplicate device ID") => Ok(()),
            Err(error) => {
                let _ = self.run("blockdev-del", json!({ "node-name": disk.id })).await;
                let _ = self.qmp.remove_files(&disk.id).await;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    async fn detach_disk(&self, id: &str) -> Result<(), MonitorError> {
        let device = format!("{id}-device");
        let mut events = self.qmp.events();
        match self.run("device_del", json!({ "id": device })).await {
            Err(MonitorError::Refused { class, .. }) if class == "DeviceNotFound" => {}
            Err(error) => return Err(error),
            Ok(()) => {
                let ended = async {
                    while let Ok(event) = events.recv().await {
                        if event.name == "DEVICE_DELETED" && event.data["device"] == device.as_str() {
                            break;
                        }
                    }
                };
                let late = |_| MonitorError::Late { command: "device_del".into(), limit: COMMAND_LIMIT };
                tokio::time::timeout(COMMAND_LIMIT, ended).await.map_err(late)?;
            }
        }
        if self.has_node(id).await? {
            self.run("blockdev-del", json!({ "node-name": id })).await?;
        }
        self.qmp.remove_files(id).await
    }

    async fn disks(&self) -> Result<Vec<ActualDisk>, MonitorError> {
        let answer = self.qmp.execute("query-block", Value::Null).await?;
        answer.as_array().into_iter().flatten().filter(|disk| disk.get("inserted").is_some()).map(actual).collect()
    }

    fn events(&self) -> Events {
        Events::new(self.qmp.events())
    }

    async fn closed(&self) {
        self.qmp.closed().await;
    }
}

/// One entry of `query-block`. Devices of the command line sit on the bus as virtio, those that were attached as SCSI.
fn actual(entry: &Value) -> Result<ActualDisk, MonitorError> {
    let inserted = &entry["inserted"];
    let fields = (
        inserted["node-name"].as_str(),
        inserted["file"].as_str(),
        inserted["image"]["virtual-size"].as_u64(),
        entry["qdev"].as_str(),
    );
    let (Some(id), Some(path), Some(size_bytes), Some(device)) = fields else {
        let expected = "a node name, a file, a size and a device";
        return Err(MonitorError::Answer { command: "query-block".into(), expected, found: entry.to_string() });
    };
    let is_hot = !device.ends_with("/virtio-backend");
    Ok(ActualDisk { id: id.to_owned(), path: path.into(), size_bytes, is_hot })
}

impl QemuMonitor {
    /// Opens a disk's files for QEMU, which may be in a mount namespace that does not have them.
    async fn hand_over(&self, id: &str, source: &DiskSource) -> Result<DiskSource, MonitorError> {
        let give = async |path: &Path, is_writable: bool| {
            let failed = |source| MonitorError::Open { path: path.to_owned(), source };
            let file = OpenOptions::new().read(true).write(is_writable).open(path).map_err(failed)?;
            Ok::<_, MonitorError>(PathBuf::from(format!("/dev/fdset/{}", self.qmp.add_file(file.as_fd(), id).await?)))
        };
        let DiskSource::File { path, format } = source;
        let format = match format {
            DiskFormat::Qcow2 { backing: Some(backing) } => {
                DiskFormat::Qcow2 { backing: Some(give(backing, false).await?) }
            }
            other => other.clone(),
        };
        Ok(DiskSource::File { path: give(path, true).await?, format })
    }

    async fn is_a_disk_full(&self) -> Result<bool, MonitorError> {
        let answer = self.qmp.execute("query-block", Value::Null).await?;
        Ok(answer.as_array().is_some_and(|disks| disks.iter().any(|disk| disk["io-status"] == "nospace")))
    }

    async fn has_node(&self, id: &str) -> Result<bool, MonitorError> {
        let nodes = self.qmp.execute("query-named-block-nodes", json!({ "flat": true })).await?;
        Ok(nodes.as_array().is_some_and(|nodes| nodes.iter().any(|node| node["node-name"] == id)))
    }
}
