//! The description of a guest, independent of the hypervisor.

use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most disks that fit on the bus: ten of the user's (the limit of `diskRefs`) and the seed.
pub const MAX_DISKS: usize = 11;

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// Appears in the process list, which every user of the host can read. Letters, digits, `-` and `.` only.
    pub name: String,
    /// Shown to the guest as its SMBIOS system id.
    pub uuid: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in bytes, a multiple of 1 MiB.
    pub memory_bytes: u64,
    /// The accelerator of the guest.
    pub accelerator: Accelerator,
    /// The board and its devices: one of [`crate::Offers::machine_types`].
    pub machine_type: String,
    /// The processor: one of [`crate::Offers::cpu_models`].
    pub cpu_model: String,
    /// Disks in the order in which the guest sees them (`/dev/vda`, …).
    pub disks: Vec<DiskConfig>,
    /// The network device.
    pub nic: Option<NicConfig>,
    /// A listening unix socket for the monitor, open in the process that executes the command.
    pub monitor_fd: RawFd,
}

/// An accelerator, with the means to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Accelerator {
    /// Hardware, through this open `/dev/kvm`: the guest's user may not open it.
    Kvm {
        /// Open descriptor of `/dev/kvm`.
        fd: RawFd,
    },
    /// Translation in software.
    Tcg,
}

/// An accelerator, without the means to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Hardware virtualisation.
    Kvm,
    /// Translation in software.
    Tcg,
}

impl Kind {
    /// Returns the name as in the status of hosts and machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// A disk that the guest has from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Name for the monitor, unique in the guest: letters, digits and `-`, beginning with a letter.
    pub id: String,
    /// The storage of its bytes.
    pub source: DiskSource,
    /// The serial number that the guest sees, at most 20 bytes (`VIRTIO_BLK_ID_BYTES`).
    pub serial: String,
    /// Place in the firmware's boot order; lowest first, `None` is never tried.
    pub boot_index: Option<u32>,
    /// Whether the guest may only read.
    pub is_read_only: bool,
}

/// The storage of a disk's bytes, and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// A file of the host.
    File {
        /// The file, by its absolute path.
        path: PathBuf,
        /// Its format; never guessed.
        format: DiskFormat,
    },
}

/// Format of a disk file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// The file's bytes are the disk's.
    Raw,
    /// qcow2 over `backing`, itself qcow2 without a backing file, or over nothing.
    Qcow2 {
        /// The image it was cloned from.
        backing: Option<PathBuf>,
    },
}

/// A disk that is attached to a running guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotDisk {
    /// As in [`DiskConfig`].
    pub id: String,
    /// As in [`DiskConfig`].
    pub source: DiskSource,
    /// As in [`DiskConfig`]; SCSI shows up to 36 bytes.
    pub serial: String,
}

/// The network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicConfig {
    /// An attached tap, open in the process that executes the command.
    pub tap_fd: RawFd,
    /// Link address, `xx:xx:xx:xx:xx:xx`.
    pub mac: String,
    /// MTU announced to the guest's driver.
    pub mtu: Option<u16>,
}

/// A guest that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct ConfigError {
    /// Path of the field.
    pub field: String,
    /// The allowed values.
    pub expected: &'static str,
    /// The given value.
    pub found: String,
}

impl GuestConfig {
    /// Checks what would otherwise become a cryptic message of the hypervisor, or an option of its own making: every text ends up
    /// in a comma-separated argument.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |field: &str, expected, found: &dyn std::fmt::Debug| {
            Err(ConfigError { field: field.to_owned(), expected, found: format!("{found:?}") })
        };
        if !is_plain(&self.name, 64) {
            return fail("name", "1 to 64 letters, digits, '-' and '.'", &self.name);
        }
        if self.uuid.len() != 36 || !self.uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return fail("uuid", "a UUID", &self.uuid);
        }
        for (field, name) in [("machineType", &self.machine_type), ("cpuModel", &self.cpu_model)] {
            if !is_plain(name, 64) {
                return fail(field, "1 to 64 letters, digits, '-' and '.'", name);
            }
        }
        if !(1..=255).contains(&self.vcpus) {
            return fail("vcpus", "1 to 255", &self.vcpus);
        }
        if self.memory_bytes < 16 << 20 || !self.memory_bytes.is_multiple_of(1 << 20) {
            return fail("memoryBytes", "at least 16 MiB, in whole MiB", &self.memory_bytes);
        }
        if self.disks.len() > MAX_DISKS {
            return fail("disks", "at most 11", &self.disks.len());
        }
        if !self.disks.iter().any(|disk| disk.boot_index.is_some()) {
            return fail("disks", "one to boot from", &"none");
        }
        for (index, disk) in self.disks.iter().enumerate() {
            check_disk(&format!("disks[{index}]"), &disk.id, &disk.serial, 20)?;
            if self.disks[..index].iter().any(|other| other.id == disk.id) {
                return fail(&format!("disks[{index}].id"), "a name used once", &disk.id);
            }
        }
        if let Some(nic) = &self.nic
            && !is_mac(&nic.mac)
        {
            return fail("nic.mac", "xx:xx:xx:xx:xx:xx, not a group address", &nic.mac);
        }
        Ok(())
    }
}

impl HotDisk {
    /// As [`GuestConfig::validate`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_disk("disk", &self.id, &self.serial, 36)
    }
}

fn check_disk(field: &str, id: &str, serial: &str, longest_serial: usize) -> Result<(), ConfigError> {
    let fail = |name: &str, expected, found: &str| {
        Err(ConfigError { field: format!("{field}.{name}"), expected, found: format!("{found:?}") })
    };
    // QEMU limits node names to 31 bytes; "-file" and "-base" are appended.
    if !is_plain(id, 26) || !id.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return fail("id", "1 to 26 letters, digits and '-', beginning with a letter", id);
    }
    if !is_plain(serial, longest_serial) {
        return fail("serial", "letters, digits, '-' and '.', at most 20 bytes (36 on SCSI)", serial);
    }
    Ok(())
}

fn is_plain(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

fn is_mac(text: &str) -> bool {
    let bytes: Vec<_> =
        text.split(':').map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten()).collect();
    bytes.len() == 6 && bytes.iter().all(Option::is_some) && bytes[0].is_some_and(|first| first & 1 == 0)
}
