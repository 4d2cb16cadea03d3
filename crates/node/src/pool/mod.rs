//! Storage pools: where the bytes of this host's volumes are.
//!
//! A pool is a driver with declared abilities ([`Pool`], [`Abilities`]): what the agent and the machines do with volumes goes through
//! the trait, and what a backend needs stays in it.
//!
//! ```text
//!              create(uid)                    source(uid, user): a hypervisor may open it
//!   absent ───────────────► a volume ◄────────────────────────────► held
//!     ▲                      │    ▲                release(uid)       │
//!     └──────────────────────┘    └───────────────────────────────────┘
//!           delete(uid): refused while it is held
//! ```
//!
//! Guarantees of every pool, held by the contract suite (`contract.rs`):
//! - Volumes are named by the uid of their Volume object. Every call can be repeated, also after a crash in its middle.
//! - A volume exists whole or not at all.
//! - A volume that a hypervisor has open is not deleted, not grown behind its back and not handed to another.
//! - What cannot be read is an error and stays as it is; it is never taken for absent.

#[cfg(test)]
mod contract;
pub mod local;
pub mod memory;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
pub use evroc_vmm::DiskSource;
use thiserror::Error;

pub use self::local::LocalPool;
pub use self::memory::MemoryPool;
use crate::image::ImageError;
use crate::uid::Uid;

/// How a pool keeps a host that cannot be reached from writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It cannot: a volume's data is on one host, and only that host can prove that there is no writer.
    None,
    /// The image lock of the hypervisor, which outlives a stopped process and not a dead one.
    Lock,
    /// The storage refuses every client of a host ([`Pool::fence`]).
    Range,
}

/// The abilities of a pool. Planners read these, never the pool's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whether the volumes are on one host and lost with it.
    pub is_host_bound: bool,
    /// How a host is kept from writing.
    pub fence: Fence,
    /// Whether a volume can grow while a guest uses it ([`Growth::ByHolder`]).
    pub can_grow_online: bool,
    /// Whether two hosts can open a volume during a live migration.
    pub can_migrate_shared: bool,
}

/// An image to clone from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// The DiskImage's name.
    pub name: String,
    /// The SHA-256 that its bytes must have, in hexadecimal; any if it is not known.
    pub sha256: Option<String>,
}

/// An image that volumes can be cloned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The DiskImage's name.
    pub image: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Size that a guest sees, in bytes: the least size of a clone.
    pub virtual_size_bytes: u64,
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// The uid of the Volume object: letters, digits and `-`.
    pub uid: String,
    /// The image that it begins as a copy of; none for a blank one.
    pub image: Option<ImageRef>,
    /// Size that a guest sees, in bytes.
    pub size_bytes: u64,
}

/// A volume that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolVolume {
    /// The uid of the Volume object.
    pub uid: String,
    /// Name of the image that it was cloned from.
    pub image: Option<String>,
    /// Size that a guest sees, in bytes.
    pub size_bytes: u64,
}

/// The process that has a volume open or may open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// For people: a process, a user or a host.
    pub name: String,
    /// Whether it has the volume open; otherwise it was only handed the volume.
    pub has_it_open: bool,
}

/// The user that a hypervisor runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its uid.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
}

/// The outcome of a request to grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    /// The volume has this size now.
    Done(PoolVolume),
    /// A hypervisor has it open, and only that may change it: once it has (the monitor's `grow_disk`), [`Pool::grown`] records it.
    ByHolder(Holder),
}

/// How full a pool is, in bytes, as seen from this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All that it can hold.
    pub capacity_bytes: u64,
    /// The bytes that can still be written.
    pub free_bytes: u64,
    /// The bytes that its volumes occupy.
    pub occupied_bytes: u64,
    /// The sum of its volumes' sizes: what their guests may write in the end.
    pub provisioned_bytes: u64,
}

/// All volumes of a pool, as seen from this host.
#[derive(Debug, Default)]
pub struct Listing {
    /// By uid.
    pub volumes: BTreeMap<String, PoolVolume>,
    /// Those that cannot be read, with the reason.
    pub unreadable: BTreeMap<String, PoolError>,
}

/// The reason why an operation on a volume failed.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum PoolError {
    /// The wording is what clients of the real service look for.
    #[error("Disk is too small to contain disk image: image {image:?} needs {needed} bytes, the disk has {size}")]
    TooSmall { image: String, needed: u64, size: u64 },
    #[error("volume {uid:?}: expected {expected}, found {found}")]
    Invalid { uid: String, expected: &'static str, found: String },
    #[error("volume {uid:?} cannot shrink: it has {size} bytes, {requested} were requested")]
    Shrink { uid: String, size: u64, requested: u64 },
    #[error("volume {uid:?} is not on this host")]
    Unknown { uid: String },
    #[error("volume {uid:?} is in use by {holder}")]
    Held { uid: String, holder: String },
    #[error("volume {uid:?}: its record has version {found}; this program reads up to {known}")]
    Newer { uid: String, found: u32, known: u32 },
    #[error("volume {uid:?}: its record {} cannot be read", path.display())]
    Record {
        uid: String,
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the storage pool cannot {operation}")]
    Unsupported { operation: &'static str },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("volume {uid:?}")]
    Tool {
        uid: String,
        #[source]
        source: evroc_vmm::ImageError,
    },
    #[error("volume {uid:?}: {operation} {}", path.display())]
    Io {
        uid: String,
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A place for volumes. The module says what each pool guarantees.
#[async_trait]
pub trait Pool: Debug + Send + Sync {
    /// Returns its abilities.
    fn abilities(&self) -> Abilities;

    /// Makes an image ready for cloning.
    async fn ensure_base(&self, image: &ImageRef) -> Result<Base, PoolError>;

    /// Makes a volume, or finds that it exists. An existing one keeps its size.
    async fn create(&self, wanted: &NewVolume) -> Result<PoolVolume, PoolError>;

    /// Looks for a volume: `None` if it does not exist, an error if that cannot be found out.
    async fn look(&self, uid: &str) -> Result<Option<PoolVolume>, PoolError>;

    /// Makes a volume at least this big. One that is as big already stays as it is.
    async fn grow(&self, uid: &str, size_bytes: u64) -> Result<Growth, PoolError>;

    /// Records that the holder has made a volume this big.
    async fn grown(&self, uid: &str, size_bytes: u64) -> Result<PoolVolume, PoolError>;

    /// Removes a volume; an absent one is no error. Refused while it is open.
    async fn delete(&self, uid: &str) -> Result<(), PoolError>;

    /// Hands a volume to the hypervisor of this host that runs as `user` (`None`: as the caller), and returns how to open it. Refused
    /// while it is open.
    async fn source(&self, uid: &str, user: Option<Owner>) -> Result<DiskSource, PoolError>;

    /// Takes a volume back from the user that [`Self::source`] handed it to. An absent one is no error.
    async fn release(&self, uid: &str) -> Result<(), PoolError>;

    /// Returns the process that has a volume open or may open it.
    async fn holder(&self, uid: &str) -> Result<Option<Holder>, PoolError>;

    /// How full it is.
    async fn usage(&self) -> Result<Usage, PoolError>;

    /// All its volumes: what no object wants is an orphan, which is reported and never deleted.
    async fn list(&self) -> Result<Listing, PoolError>;

    /// Removes bases that neither an image nor a volume uses, and returns the removed names, for people. Removes nothing while it
    /// cannot read every volume.
    async fn remove_unused_bases(&self) -> Result<Vec<String>, PoolError>;

    /// Keeps a host from writing to any volume of the pool, until [`Self::unfence`]. Only pools with [`Fence::Range`] can.
    async fn fence(&self, _host: &str) -> Result<(), PoolError> {
        Err(PoolError::Unsupported { operation: "fence a host" })
    }

    /// Lets a host write again.
    async fn unfence(&self, _host: &str) -> Result<(), PoolError> {
        Err(PoolError::Unsupported { operation: "lift the fence of a host" })
    }
}

/// The serial number that a guest sees: the first 20 characters of a uid without its dashes.
pub fn serial(uid: &str) -> String {
    uid.chars().filter(char::is_ascii_alphanumeric).take(20).collect()
}

/// Refuses a uid that could not be the name of a folder or an image.
pub(crate) fn check_uid(uid: &str) -> Result<(), PoolError> {
    uid.parse::<Uid>().map(drop).map_err(|_| PoolError::Invalid {
        uid: uid.to_owned(),
        expected: "a uid of letters, digits and '-'",
        found: format!("{uid:?}"),
    })
}

/// Refuses what no volume can be made of: decided in one place for all pools.
pub(crate) fn check_new(wanted: &NewVolume, base: Option<&Base>) -> Result<(), PoolError> {
    if wanted.size_bytes == 0 {
        let (uid, found) = (wanted.uid.clone(), "0 bytes".to_owned());
        return Err(PoolError::Invalid { uid, expected: "a size", found });
    }
    match base {
        Some(base) if wanted.size_bytes < base.virtual_size_bytes => Err(PoolError::TooSmall {
            image: base.image.clone(),
            needed: base.virtual_size_bytes,
            size: wanted.size_bytes,
        }),
        _ => Ok(()),
    }
}

/// Refuses to take an existing volume for another one.
pub(crate) fn check_same(found: &PoolVolume, wanted: &NewVolume) -> Result<(), PoolError> {
    if found.image.as_deref() == wanted.image.as_ref().map(|image| image.name.as_str()) {
        return Ok(());
    }
    Err(PoolError::Invalid {
        uid: wanted.uid.clone(),
        expected: "the same image as when it was made",
        found: format!("{:?}", found.image),
    })
}

/// Whether a volume of this size has to change to have that one; refuses to shrink.
pub(crate) fn must_grow(volume: &PoolVolume, size_bytes: u64) -> Result<bool, PoolError> {
    if size_bytes < volume.size_bytes {
        return Err(PoolError::Shrink { uid: volume.uid.clone(), size: volume.size_bytes, requested: size_bytes });
    }
    Ok(size_bytes > volume.size_bytes)
}
