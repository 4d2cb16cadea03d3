//! The host's images: fetched once by digest, verified, unpacked once, shared by every container.
//!
//! ```text
//! <root>/images/<digest>.json           a complete image: its configuration and the list of its layers
//! <root>/layers/<blob>/tree/            one unpacked layer, by the digest of its compressed blob; never changed
//! <root>/layers/<blob>/layer.json       its size, and the diff id that it was verified to have
//! <root>/tmp/                           what is being made
//! <root>/leftovers-<id>/                `tmp` of an earlier start, on its way out
//! ```
//! [`receive`] verifies documents, [`layer`] layers, [`prune`] removes what nothing uses, [`error`] says why an image is absent.
//!
//! A name in `images` or `layers` exists only when all of it is on disk, so whatever was interrupted is in `tmp`. The root is closed to
//! everybody else: a layer may hold a program that is root's and sets the user id, which is harmless in a container only.
//!
//! The modification time of a record is when its image or layer was last used.

mod error;
mod layer;
mod prune;
mod receive;
mod resolve;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::fetch::ImageFetch;
use super::manifest::ImageConfig;
use super::unpack::{Limits, OPAQUE_XATTR, Unpacker};
use crate::metrics;

pub use error::ImageError;
pub use prune::Pruned;

use error::disk;

/// More do not fit into one page of mount options, and no builder makes more than 127.
const MAX_LAYERS: usize = 127;
/// The most that one image may take on the disk, all layers together. Lower refuses honest images (those for machine learning reach
/// some 20 GB, and a layer of the largest seen has 300,000 entries); higher lets a few megabytes fill the disk or use up its inodes.
const IMAGE_LIMITS: Limits = Limits { bytes: 32 << 30, entries: 2_000_000, room: u64::MAX };
/// Layers that are unpacked at the same time. Higher makes each slower and takes more memory.
const UNPACKING_AT_ONCE: usize = 4;
/// Repositories that are remembered to have shown an image; others are queried again.
const MAX_REPOSITORIES: usize = 32;

/// Names an image for [`ImageStore::ensure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// As the user wrote it, for messages.
    pub written: String,
    /// Repository on the registry: `demo/hello`.
    pub repository: String,
    /// The digest of the manifest or index.
    pub digest: Digest,
}

/// A complete image on this host.
#[derive(Debug, Clone)]
pub struct Image {
    /// As the user wrote it.
    pub written: String,
    /// How to run it.
    pub config: ImageConfig,
    /// Folders to stack with overlayfs, the uppermost first, each once.
    pub layers: Vec<PathBuf>,
}

/// The facts about a complete image.
#[derive(Serialize, Deserialize)]
struct Record {
    config: ImageConfig,
    /// Blobs of the layers, lowest first.
    #[serde(default)]
    layers: Vec<Digest>,
    /// Repositories that had the image and all of its layers.
    #[serde(default)]
    repositories: BTreeSet<String>,
}

/// The images of one node. Cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    root: PathBuf,
    fetch: Arc<dyn ImageFetch>,
    unpacker: Unpacker,
    /// One fetch per layer at a time, however many replicas wait for it.
    busy: Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>,
    unpacking: Arc<tokio::sync::Semaphore>,
    /// Held while a record is read and marked, and while records are removed.
    records: Arc<Mutex<()>>,
}

impl ImageStore {
    /// Opens the store below `root` (made if needed). What an interrupted start left is removed in the background: a leftover that
    /// cannot be removed must not stop a host.
    pub fn open(root: &Path, fetch: Arc<dyn ImageFetch>, unpacker: Unpacker) -> Result<Self, ImageError> {
        fs::create_dir_all(root).map_err(disk("create folder", root))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(disk("close folder", root))?;
        let temporary = root.join("tmp");
        let leftovers = root.join(format!("{LEFTOVERS}{}", uuid::Uuid::new_v4().simple()));
        crate::io::if_present(fs::rename(&temporary, &leftovers)).map_err(disk("rename", &temporary))?;
        for entry in fs::read_dir(root).map_err(disk("list folder", root))?.filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(LEFTOVERS) {
                layer::remove_soon(entry.path());
            }
        }
        for folder in ["images", "layers", "tmp"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(disk("create folder", &path))?;
        }
        let unpacking = Arc::new(tokio::sync::Semaphore::new(UNPACKING_AT_ONCE));
        Ok(Self { root: root.to_owned(), fetch, unpacker, busy: Arc::default(), unpacking, records: Arc::default() })
    }

    /// Returns the image, fetched and unpacked if it is not here yet. Dropping the future stops the fetch and leaves nothing.
    pub async fn ensure(&self, reference: &ImageReference) -> Result<Image, ImageError> {
        if let Some(image) = self.present(reference)? {
            return Ok(image);
        }
        metrics::measured(metrics::Work::Pull, self.fetch_all(reference)).await
    }

    /// Fetches and unpacks what is absent of an image.
    async fn fetch_all(&self, reference: &ImageReference) -> Result<Image, ImageError> {
        let (config, layers) = self.resolve(reference).await?;
        let mut left = IMAGE_LIMITS;
        let mut counted = HashSet::new();
        for (layer, diff_id) in layers.iter().zip(&config.rootfs.diff_ids) {
            let record = self.ensure_layer(reference, layer, *diff_id, left).await?;
            if counted.insert(layer.digest) {
                left.bytes -= record.bytes;
                left.entries -= record.entries;
            }
        }
        let path = self.record_path(reference.digest);
        let mut repositories = self.record(&path).map(|record| record.repositories).unwrap_or_default();
        if repositories.len() >= MAX_REPOSITORIES {
            repositories.clear();
        }
        repositories.insert(reference.repository.clone());
        let record = Record { config, layers: layers.iter().map(|layer| layer.digest).collect(), repositories };
        let temporary = self.temporary_path();
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        write_synced(&temporary, &bytes).map_err(disk("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(disk("rename to", &path))?;
        Ok(self.assemble(reference, record))
    }

    /// The image, if all of it is here and the repository is known to have it.
    fn present(&self, reference: &ImageReference) -> Result<Option<Image>, ImageError> {
        let path = self.record_path(reference.digest);
        let _no_pruning = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = self.record(&path) else { return Ok(None) };
        let is_complete = record.layers.len() == record.config.rootfs.diff_ids.len()
            && record.layers.iter().all(|blob| self.layer(*blob).is_some());
        if !is_complete || !record.repositories.contains(&reference.repository) {
            return Ok(None);
        }
        touch(&path);
        Ok(Some(self.assemble(reference, record)))
    }

    /// A record; what cannot be read (half a block after a power cut) is fetched again.
    fn record(&self, path: &Path) -> Option<Record> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn assemble(&self, reference: &ImageReference, record: Record) -> Image {
        let mut layers = Vec::new();
        for blob in record.layers.iter().rev() {
            let path = self.tree_path(*blob);
            // overlayfs refuses the same layer twice. The lower one would show nothing that the upper one does not.
            if layers.contains(&path) {
                continue;
            }
            // overlayfs does not look at this attribute on the root folder of a layer, so we do.
            let is_opaque = rustix::fs::lgetxattr(&path, OPAQUE_XATTR, &mut [0_u8; 4][..]).is_ok();
            layers.push(path);
            if is_opaque {
                break;
            }
        }
        Image { written: reference.written.clone(), config: record.config, layers }
    }

    /// The folder of the store.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn record_path(&self, digest: Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", digest.hex()))
    }

    fn temporary_path(&self) -> PathBuf {
        self.root.join("tmp").join(uuid::Uuid::new_v4().to_string())
    }
}

const LEFTOVERS: &str = "leftovers-";

/// Marks a record as used now. One that cannot be marked is only removed earlier.
fn touch(path: &Path) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    if let Err(error) = rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()) {
        tracing::debug!(path = %path.display(), %error, "mark an image as used");
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
