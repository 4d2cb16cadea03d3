//! Unpacked layers: each fetched and verified once, by the digest of its compressed blob.
//!
//! The blob's digest and not the diff id is the key: an image may name any diff id, also that of a layer whose content its owner has
//! never seen. That a blob gives a diff id is written down when it has been verified.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::error::{ImageError, disk};
use super::{ImageReference, ImageStore, write_synced};
use crate::container::digest::Digest;
use crate::container::fetch::ByteStream;
use crate::container::manifest::Descriptor;
use crate::container::remove_tree::remove_tree;
use crate::container::unpack::{Limits, Transferred, UnpackError, Unpacked, seal};

/// Room on the disk that layers leave for others, in bytes: the store of the API may be on the same disk, and a failed sync ends it.
const RESERVED_BYTES: u64 = 1 << 30;
/// Inodes that layers leave for others.
const RESERVED_INODES: u64 = 10_000;

/// The facts about an unpacked layer: `layer.json`, which exists only once the layer is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerRecord {
    /// The digest of the uncompressed archive.
    pub(super) diff_id: Digest,
    /// Bytes of its files.
    pub(super) bytes: u64,
    /// Entries of its archive.
    pub(super) entries: u64,
}

/// A folder that is removed when it is dropped before it got its name.
pub(super) struct Temporary {
    path: PathBuf,
    is_kept: bool,
}

impl Temporary {
    pub(super) fn create(path: PathBuf) -> Result<Self, ImageError> {
        fs::create_dir(&path).map_err(disk("create folder", &path))?;
        Ok(Self { path, is_kept: false })
    }
}

impl Temporary {
    /// Blocking.
    fn remove(&mut self) {
        self.is_kept = true;
        remove_or_warn(&self.path);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_kept {
            remove_soon(std::mem::take(&mut self.path));
        }
    }
}

/// Removes a tree on a thread of its own; what cannot be removed is left for the next start.
pub(super) fn remove_soon(path: PathBuf) {
    let work = move || remove_or_warn(&path);
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => drop(std::thread::spawn(work)),
    }
}

fn remove_or_warn(path: &Path) {
    if let Err(error) = remove_tree(path) {
        tracing::warn!(path = %path.display(), %error, "remove a leftover of an image");
    }
}

impl ImageStore {
    /// The folder to hand to overlayfs.
    pub(super) fn tree_path(&self, blob: Digest) -> PathBuf {
        self.layer_path(blob).join("tree")
    }

    pub(super) fn layer_path(&self, blob: Digest) -> PathBuf {
        self.root.join("layers").join(blob.hex())
    }

    /// Returns the facts about a layer, if all of it is on disk.
    pub(super) fn layer(&self, blob: Digest) -> Option<LayerRecord> {
        let bytes = fs::read(self.layer_path(blob).join("layer.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Marks a layer as used now.
    fn touch_layer(&self, blob: Digest) {
        super::touch(&self.layer_path(blob).join("layer.json"));
    }

    /// Returns the layer, fetched and unpacked if it is not here yet. `left` is the budget that the image has left.
    pub(super) async fn ensure_layer(
        &self,
        reference: &ImageReference,
        layer: &Descriptor,
        diff_id: Digest,
        left: Limits,
    ) -> Result<LayerRecord, ImageError> {
        let blob = layer.digest;
        let lock = self.busy.lock().unwrap_or_else(PoisonError::into_inner).entry(blob).or_default().clone();
        let _busy = Busy { store: self, blob, lock: lock.clone() };
        let _one_at_a_time = lock.lock().await;
        let record = match self.layer(blob) {
            Some(record) => {
                self.touch_layer(blob);
                self.check_shown(reference, layer).await?;
                record
            }
            None => self.fetch_layer(reference, layer, left).await?,
        };
        if record.diff_id != diff_id {
            return Err(ImageError::Mismatch {
                image: reference.written.clone(),
                what: format!("layer {blob}"),
                expected: format!("{diff_id} after decompression"),
                found: record.diff_id.to_string(),
            });
        }
        if record.bytes > left.bytes || record.entries > left.entries {
            let problem = "the layers together are larger than an image may be when unpacked".to_owned();
            return Err(unpack_error(reference, layer, UnpackError::TooLarge(problem)));
        }
        Ok(record)
    }

    /// Verifies that the repository has the blob: a layer that another tenant's image brought is not for everyone.
    async fn check_shown(&self, reference: &ImageReference, layer: &Descriptor) -> Result<(), ImageError> {
        self.fetch.check_blob(&reference.repository, layer.digest).await.map_err(|source| ImageError::Fetch {
            image: reference.written.clone(),
            what: format!("layer {}", layer.digest),
            source,
        })
    }

    async fn fetch_layer(
        &self,
        reference: &ImageReference,
        layer: &Descriptor,
        left: Limits,
    ) -> Result<LayerRecord, ImageError> {
        let _few_at_once = self.unpacking.acquire().await;
        let what = || format!("layer {}", layer.digest);
        let image = || reference.written.clone();
        let limits = Limits { room: room(&self.root)?, ..left };
        if layer.size > limits.room {
            let problem = format!("the host's disk has room for {} MB more of layers", limits.room / 1_000_000);
            return Err(unpack_error(reference, layer, UnpackError::DiskFull(problem)));
        }
        let stream = self
            .fetch
            .blob(&reference.repository, layer.digest)
            .await
            .map_err(|source| ImageError::Fetch { image: image(), what: what(), source })?;
        let mut temporary = Temporary::create(self.temporary_path())?;
        let filled = self.fill(reference, layer, stream, &temporary.path, limits).await;
        let (store, blob) = (self.clone(), layer.digest);
        let work = move || match filled {
            Ok(unpacked) => store.finish_layer(&mut temporary, blob, &unpacked),
            Err(error) => {
                temporary.remove();
                Err(error)
            }
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Unpacks a layer from the wire and checks its digest.
    async fn fill(
        &self,
        reference: &ImageReference,
        layer: &Descriptor,
        stream: ByteStream,
        folder: &Path,
        limits: Limits,
    ) -> Result<Unpacked, ImageError> {
        let what = || format!("layer {}", layer.digest);
        let image = || reference.written.clone();
        let tree = folder.join("tree");
        fs::create_dir(&tree).map_err(disk("create folder", &tree))?;
        let mismatch =
            |expected: String, found: String| ImageError::Mismatch { image: image(), what: what(), expected, found };
        let transferred = self.unpacker.unpack(stream, layer.size, &tree, limits).await;
        let Transferred { digest, bytes, outcome } = transferred.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => mismatch(format!("{} bytes", layer.size), "more".into()),
            _ => ImageError::Receive { image: image(), what: what(), source: error },
        })?;
        // A damaged transfer shows as nonsense in the archive: name the damage, not the nonsense.
        if bytes != layer.size {
            return Err(mismatch(format!("{} bytes", layer.size), format!("{bytes} bytes")));
        }
        if digest != layer.digest {
            return Err(mismatch(layer.digest.to_string(), digest.to_string()));
        }
        outcome.map_err(|error| match error {
            // The received bytes match their descriptor, so trying again gives the same.
            UnpackError::Unreadable(text) => unpack_error(reference, layer, UnpackError::Refused(text)),
            error => unpack_error(reference, layer, error),
        })
    }

    /// Gives a complete layer its name.
    fn finish_layer(
        &self,
        temporary: &mut Temporary,
        blob: Digest,
        unpacked: &Unpacked,
    ) -> Result<LayerRecord, ImageError> {
        let tree = temporary.path.join("tree");
        seal(&tree, unpacked).map_err(disk("mark opaque folders of", &tree))?;
        let record = LayerRecord { diff_id: unpacked.diff_id, bytes: unpacked.bytes, entries: unpacked.entries };
        let path = temporary.path.join("layer.json");
        write_synced(&path, &serde_json::to_vec(&record).unwrap_or_default()).map_err(disk("write", &path))?;
        // The rename that follows must not reach the disk before the files do.
        let root = fs::File::open(&tree).map_err(disk("open", &tree))?;
        rustix::fs::syncfs(&root).map_err(|error| disk("sync", &tree)(error.into()))?;
        let path = self.layer_path(blob);
        if path.exists() {
            // Half a layer, or one as an earlier release kept them.
            self.discard(&path)?;
        }
        fs::rename(&temporary.path, &path).map_err(disk("rename to", &path))?;
        temporary.is_kept = true;
        Ok(record)
    }

    /// Takes a folder out of sight at once, since half a layer must not look complete, and removes it. Blocking.
    pub(super) fn discard(&self, path: &Path) -> Result<(), ImageError> {
        let doomed = self.temporary_path();
        fs::rename(path, &doomed).map_err(disk("rename", path))?;
        remove_tree(&doomed).map_err(disk("remove", &doomed))
    }
}

fn unpack_error(reference: &ImageReference, layer: &Descriptor, source: UnpackError) -> ImageError {
    ImageError::Unpack { image: reference.written.clone(), layer: layer.digest, source }
}

/// Bytes that layers may take of the disk.
fn room(root: &Path) -> Result<u64, ImageError> {
    let state = rustix::fs::statvfs(root).map_err(|error| disk("look for room in", root)(error.into()))?;
    // Some file systems make inodes as they need them, and report 0.
    if state.f_files != 0 && state.f_favail < RESERVED_INODES {
        return Ok(0);
    }
    Ok((state.f_bavail * state.f_frsize).saturating_sub(RESERVED_BYTES))
}

/// A layer that is being fetched or checked. The last one that is dropped removes the entry.
struct Busy<'a> {
    store: &'a ImageStore,
    blob: Digest,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut busy = self.store.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's, ours, and the clone that `ensure_layer` locks.
        if Arc::strong_count(&self.lock) <= 3 {
            busy.remove(&self.blob);
        }
    }
}
