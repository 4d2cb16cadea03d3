//! The host's images: fetched once by digest, verified, unpacked once, shared by every container.
//!
//! ```text
//! <root>/images/<digest>.json   a complete image: its configuration and the list of its layers
//! <root>/layers/<diff id>/      one unpacked layer, never changed after it got its name
//! <root>/tmp/                   what is being made; emptied at start
//! ```
//! [`receive`] verifies what comes, [`error`] says why an image is not there.
//!
//! A name in `images` or `layers` exists only when all of it is on disk, so whatever was interrupted is in `tmp`. The root is closed to
//! everybody else: a layer may hold a program that is root's and sets the user id, which is harmless in a container only.

mod error;
mod receive;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::digest::Digest;
use super::fetch::ImageFetch;
use super::manifest::{Descriptor, Document, ImageConfig, Platform};
use super::unpack::OPAQUE_XATTR;
use super::user::refuse_obvious_root;

pub use error::ImageError;

use error::disk;
use receive::{receive, unpack_to};

/// More do not fit into one page of mount options, and no builder makes more than 127.
const MAX_LAYERS: usize = 127;

/// Names an image for [`ImageStore::ensure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// As the user wrote it, for messages.
    pub written: String,
    /// Repository on the registry: `demo/hello`.
    pub repository: String,
    /// Of the manifest or index.
    pub digest: Digest,
}

/// A complete image on this host.
#[derive(Debug, Clone)]
pub struct Image {
    /// As the user wrote it.
    pub written: String,
    /// How to run it.
    pub config: ImageConfig,
    /// Folders to stack with overlayfs, the uppermost first.
    pub layers: Vec<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    config: ImageConfig,
}

/// The images of one node.
#[derive(Clone)]
pub struct ImageStore {
    root: PathBuf,
    fetch: Arc<dyn ImageFetch>,
    /// One fetch per layer at a time, however many replicas wait for it.
    busy: Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>,
}

impl ImageStore {
    /// Opens the store below `root` (made if needed) and removes what an interrupted start left.
    pub fn open(root: &Path, fetch: Arc<dyn ImageFetch>) -> Result<Self, ImageError> {
        fs::create_dir_all(root).map_err(disk("create folder", root))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(disk("close folder", root))?;
        let temporary = root.join("tmp");
        match fs::remove_dir_all(&temporary) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ImageError::Disk { operation: "empty folder", path: temporary, source });
            }
            _ => {}
        }
        for folder in ["images", "layers", "tmp"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(disk("create folder", &path))?;
        }
        Ok(Self { root: root.to_owned(), fetch, busy: Arc::default() })
    }

    /// The image, fetched and unpacked if it is not here yet.
    pub async fn ensure(&self, reference: &ImageReference) -> Result<Image, ImageError> {
        if let Some(image) = self.present(reference)? {
            return Ok(image);
        }
        let (config, layers) = self.resolve(reference).await?;
        for (layer, diff_id) in layers.iter().zip(&config.rootfs.diff_ids) {
            self.ensure_layer(reference, layer, *diff_id).await?;
        }
        let path = self.record_path(reference.digest);
        let temporary = self.root.join("tmp").join(uuid::Uuid::new_v4().to_string());
        let record = serde_json::to_vec(&Record { config: config.clone() }).unwrap_or_default();
        write_synced(&temporary, &record).map_err(disk("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(disk("rename to", &path))?;
        self.assemble(reference, config)
    }

    /// The image, if all of it is here.
    fn present(&self, reference: &ImageReference) -> Result<Option<Image>, ImageError> {
        let path = self.record_path(reference.digest);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(disk("read", &path))?,
        };
        // What cannot be read (half a block after a power cut) is fetched again.
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
        if record.config.rootfs.diff_ids.iter().any(|diff_id| !self.layer_path(*diff_id).is_dir()) {
            return Ok(None);
        }
        self.assemble(reference, record.config).map(Some)
    }

    fn assemble(&self, reference: &ImageReference, config: ImageConfig) -> Result<Image, ImageError> {
        let mut layers = Vec::new();
        for diff_id in config.rootfs.diff_ids.iter().rev() {
            let path = self.layer_path(*diff_id);
            // overlayfs does not look at this attribute on the root folder of a layer, so we do.
            let is_opaque = rustix::fs::lgetxattr(&path, OPAQUE_XATTR, &mut [0_u8; 4][..]).is_ok();
            layers.push(path);
            if is_opaque {
                break;
            }
        }
        Ok(Image { written: reference.written.clone(), config, layers })
    }

    /// From the digest to a configuration that we can run, and the layers to fetch (lowest first).
    async fn resolve(&self, reference: &ImageReference) -> Result<(ImageConfig, Vec<Descriptor>), ImageError> {
        let image = || reference.written.clone();
        let invalid = |what: &str, problem: String| ImageError::Invalid { image: image(), what: what.into(), problem };
        let mut digest = reference.digest;
        let mut document = self.manifest(reference, digest, None).await?;
        if let Document::Index(entries) = document {
            let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(Platform::is_supported);
            let entry = entries.iter().find(fits).ok_or_else(|| ImageError::Platform {
                image: image(),
                found: platforms(entries.iter().filter_map(|entry| entry.platform.as_ref())),
            })?;
            digest = entry.digest;
            document = self.manifest(reference, digest, Some(entry.size)).await?;
        }
        let Document::Manifest { config: config_at, layers } = document else {
            return Err(invalid("index", "an index inside an index".into()));
        };
        let what = format!("configuration {}", config_at.digest);
        let stream = self
            .fetch
            .blob(&reference.repository, config_at.digest)
            .await
            .map_err(|source| ImageError::Fetch { image: image(), what: what.clone(), source })?;
        let bytes = receive(reference, &what, stream, config_at.digest, Some(config_at.size)).await?;
        let config: ImageConfig =
            serde_json::from_slice(&bytes).map_err(|error| invalid("configuration", error.to_string()))?;
        if !config.platform.is_supported() {
            return Err(ImageError::Platform { image: image(), found: platforms([&config.platform].into_iter()) });
        }
        if layers.len() != config.rootfs.diff_ids.len() {
            let (found, expected) = (config.rootfs.diff_ids.len(), layers.len());
            return Err(invalid(
                "configuration",
                format!("expected {expected} diff_ids, as many as layers, found {found}"),
            ));
        }
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            return Err(invalid("manifest", format!("expected 1 to {MAX_LAYERS} layers, found {}", layers.len())));
        }
        refuse_obvious_root(&config.config.user).map_err(|source| ImageError::User { image: image(), source })?;
        Ok((config, layers))
    }

    async fn manifest(
        &self,
        reference: &ImageReference,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<Document, ImageError> {
        let what = format!("manifest {digest}");
        let stream = self.fetch.manifest(&reference.repository, digest).await.map_err(|source| ImageError::Fetch {
            image: reference.written.clone(),
            what: what.clone(),
            source,
        })?;
        let bytes = receive(reference, &what, stream, digest, size).await?;
        Document::parse(&bytes).map_err(|problem| ImageError::Invalid {
            image: reference.written.clone(),
            what,
            problem,
        })
    }

    async fn ensure_layer(
        &self,
        reference: &ImageReference,
        layer: &Descriptor,
        diff_id: Digest,
    ) -> Result<(), ImageError> {
        let lock = self.busy.lock().unwrap_or_else(PoisonError::into_inner).entry(diff_id).or_default().clone();
        let result = {
            let _one_at_a_time = lock.lock().await;
            if self.layer_path(diff_id).is_dir() {
                Ok(())
            } else {
                self.fetch_layer(reference, layer.clone(), diff_id).await
            }
        };
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Two: the map's and ours.
        if Arc::strong_count(&lock) == 2 {
            busy.remove(&diff_id);
        }
        result
    }

    async fn fetch_layer(
        &self,
        reference: &ImageReference,
        layer: Descriptor,
        diff_id: Digest,
    ) -> Result<(), ImageError> {
        let what = format!("layer {}", layer.digest);
        let stream = self
            .fetch
            .blob(&reference.repository, layer.digest)
            .await
            .map_err(|source| ImageError::Fetch { image: reference.written.clone(), what, source })?;
        let temporary = self.root.join("tmp").join(uuid::Uuid::new_v4().to_string());
        let path = self.layer_path(diff_id);
        let image = reference.written.clone();
        let bridge = SyncIoBridge::new(StreamReader::new(stream));
        tokio::task::spawn_blocking(move || {
            let result = unpack_to(&image, bridge, &layer, diff_id, &temporary)
                .and_then(|()| fs::rename(&temporary, &path).map_err(disk("rename to", &path)));
            if result.is_err() {
                let _ = fs::remove_dir_all(&temporary);
            }
            result
        })
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Removes images that are not in `keep`, and layers that no kept image uses. Layers of running containers must be kept by
    /// keeping their images. Returns the number of layers removed.
    pub fn prune(&self, keep: &HashSet<Digest>) -> Result<usize, ImageError> {
        let mut layers = HashSet::new();
        let images = self.root.join("images");
        for entry in fs::read_dir(&images).map_err(disk("list folder", &images))? {
            let path = entry.map_err(disk("list folder", &images))?.path();
            let kept = keep.iter().any(|digest| self.record_path(*digest) == path);
            let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            match record {
                Some(record) if kept => layers.extend(record.config.rootfs.diff_ids),
                _ => fs::remove_file(&path).map_err(disk("remove", &path))?,
            }
        }
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = 0;
        let folder = self.root.join("layers");
        for entry in fs::read_dir(&folder).map_err(disk("list folder", &folder))? {
            let path = entry.map_err(disk("list folder", &folder))?.path();
            let is_used = layers.iter().chain(busy.keys()).any(|diff_id| self.layer_path(*diff_id) == path);
            if !is_used {
                // Out of sight first: a half-removed layer must not look complete.
                let doomed = self.root.join("tmp").join(uuid::Uuid::new_v4().to_string());
                fs::rename(&path, &doomed).map_err(disk("rename", &path))?;
                fs::remove_dir_all(&doomed).map_err(disk("remove", &doomed))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn record_path(&self, digest: Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", digest.hex()))
    }

    fn layer_path(&self, diff_id: Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

fn platforms<'a>(platforms: impl Iterator<Item = &'a Platform>) -> String {
    let mut names: Vec<_> = platforms
        .map(|platform| match (platform.os.as_str(), platform.architecture.as_str()) {
            ("", _) | (_, "") => "an unnamed platform".to_owned(),
            (os, architecture) => format!("{os}/{architecture}"),
        })
        .collect();
    names.dedup();
    if names.is_empty() { "no platform".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
