//! Hypervisor drivers: QEMU over QMP, and a simulated one.
//!
//! This crate describes, starts and controls guests. It knows no API kind, no shim and no network: its user
//! runs [`GuestCommand`] in a process of its own choosing and passes the descriptors that the command names.
//!
//! ```text
//! GuestConfig ──Hypervisor::command──► GuestCommand ──(shim of the node)──► process ◄──Hypervisor::connect── Monitor
//! ```
//!
//! Invariants:
//! - A guest boots by firmware from the bytes of its disks: there is no way to name a kernel.
//! - No image header is trusted: format, backing file and their absence are always given explicitly.
//! - The network is a tap that the caller opened; there is no user-mode network.

pub mod config;
pub mod driver;
pub mod event;
pub mod image;
pub mod probe;
pub mod qemu;
pub mod qmp;
pub mod simulated;

pub use config::{Accelerator, DiskConfig, DiskFormat, DiskSource, GuestConfig, HotDisk, NicConfig};
pub use driver::{Access, ActualDisk, GuestCommand, GuestState, Hypervisor, Monitor, MonitorError, NeededFile, Offers};
pub use event::{Events, GuestEvent};
pub use image::{ImageError, ImageInfo, ImageTool};
pub use qemu::Qemu;
pub use simulated::Simulated;
