//! Volumes on this host: `volumes/<uid>/{disk.qcow2,volume.json}`, qcow2 over an image or over nothing.
//!
//! Making a volume is one rename at the end, so that a volume either exists whole or not at all; making it again is adoption.
//! A volume belongs to root (0600) unless a machine has it: then its file belongs to that machine's user, and no other guest's
//! hypervisor can open it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use evroc_vmm::{DiskFormat, ImageTool};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::image::{ImageError, ImageStore};

/// What a volume is, as `volume.json` keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Names it on this host.
    pub uid: String,
    /// Name of the image it was cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The file it stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// Size that a guest sees, in bytes.
    pub size_bytes: u64,
}

impl Volume {
    /// How to open it.
    pub fn format(&self) -> DiskFormat {
        DiskFormat::Qcow2 { backing: self.base.clone() }
    }

    /// What a guest sees as serial number: the first 20 characters of the uid without its dashes.
    pub fn serial(&self) -> String {
        self.uid.chars().filter(char::is_ascii_alphanumeric).take(20).collect()
    }
}

/// What is wrong with a volume.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum VolumeError {
    /// The wording is what clients of the real service look for.
    #[error("Disk is too small to contain disk image: image {image:?} needs {needed} bytes, the disk has {size}")]
    TooSmall { image: String, needed: u64, size: u64 },
    #[error("volume {uid:?}: expected {expected}, found {found}")]
    Invalid { uid: String, expected: &'static str, found: String },
    #[error("volume {uid:?} cannot shrink: it has {size} bytes, {asked} were asked for")]
    Shrink { uid: String, size: u64, asked: u64 },
    #[error("there is no volume {uid:?} on this host")]
    Unknown { uid: String },
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

/// The volumes of a host.
#[derive(Clone, Debug)]
pub struct VolumeStore {
    folder: PathBuf,
    images: ImageStore,
    tool: ImageTool,
}

impl VolumeStore {
    /// Volumes in `folder`, which is made if missing. What an interrupted call left is removed.
    pub fn open(folder: impl Into<PathBuf>, images: ImageStore) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let tool = images.tool().clone();
        Ok(Self { folder, images, tool })
    }

    /// Makes a volume, or finds that it is there. `size_bytes` may be `None` for one with an image: then it is the image's
    /// default size.
    pub async fn create(&self, uid: &str, image: Option<&str>, size_bytes: Option<u64>) -> Result<Volume, VolumeError> {
        check_uid(uid)?;
        match self.get(uid) {
            Ok(volume) if volume.image.as_deref() == image => return Ok(volume),
            Ok(volume) => {
                let found = format!("{:?}", volume.image);
                return Err(VolumeError::Invalid {
                    uid: uid.into(),
                    expected: "the same image as when it was made",
                    found,
                });
            }
            Err(VolumeError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
        let image = match image {
            Some(name) => Some(self.images.get(name).await?),
            None => None,
        };
        let default = image.as_ref().map(|image| {
            let default = image.facts.default_size.and_then(evroc_api::units::Size::bytes);
            default.unwrap_or_default().max(image.facts.virtual_size_bytes)
        });
        let Some(size_bytes) = size_bytes.or(default).filter(|size| *size > 0) else {
            return Err(VolumeError::Invalid {
                uid: uid.into(),
                expected: "a size, or an image",
                found: "neither".into(),
            });
        };
        if let Some(image) = &image
            && size_bytes < image.facts.virtual_size_bytes
        {
            let (image, needed) = (image.facts.name.clone(), image.facts.virtual_size_bytes);
            return Err(VolumeError::TooSmall { image, needed, size: size_bytes });
        }
        let volume = Volume {
            uid: uid.to_owned(),
            image: image.as_ref().map(|image| image.facts.name.clone()),
            base: image.map(|image| image.base),
            size_bytes,
        };
        let temporary = self.folder.join(format!(".{uid}.new"));
        let _ = std::fs::remove_dir_all(&temporary);
        let failed = self.failed(uid, "create", &temporary);
        std::fs::create_dir(&temporary).map_err(failed)?;
        let made = self.fill(&volume, &temporary).await;
        if made.is_err() {
            let _ = std::fs::remove_dir_all(&temporary);
        }
        made?;
        std::fs::rename(&temporary, self.folder.join(uid)).map_err(self.failed(uid, "name", &temporary))?;
        sync(&self.folder).map_err(self.failed(uid, "sync", &self.folder))?;
        Ok(volume)
    }

    async fn fill(&self, volume: &Volume, folder: &Path) -> Result<(), VolumeError> {
        let disk = folder.join("disk.qcow2");
        let made = match &volume.base {
            Some(base) => self.tool.create_clone(&disk, base, volume.size_bytes).await,
            None => self.tool.create_blank(&disk, volume.size_bytes).await,
        };
        made.map_err(|source| VolumeError::Tool { uid: volume.uid.clone(), source })?;
        let finish = || {
            std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o600))?;
            sync(&disk)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
            write_record(folder, volume)
        };
        finish().map_err(self.failed(&volume.uid, "write", folder))
    }

    /// A volume that was made.
    pub fn get(&self, uid: &str) -> Result<Volume, VolumeError> {
        check_uid(uid)?;
        let path = self.folder.join(uid).join("volume.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| self.failed(uid, "read", &path)(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(VolumeError::Unknown { uid: uid.to_owned() }),
            Err(error) => Err(self.failed(uid, "read", &path)(error)),
        }
    }

    /// The file of a volume.
    pub fn path(&self, uid: &str) -> PathBuf {
        self.folder.join(uid).join("disk.qcow2")
    }

    /// Gives a volume's file to the user of the machine that is about to use it.
    pub fn assign(&self, uid: &str, owner: u32, group: u32) -> Result<(), VolumeError> {
        let path = self.path(uid);
        chown(&path, Some(owner), Some(group)).map_err(self.failed(uid, "hand over", &path))
    }

    /// Takes it back. It is no error if the volume has gone.
    pub fn release(&self, uid: &str) -> Result<(), VolumeError> {
        match self.assign(uid, 0, 0) {
            Err(VolumeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Grows a volume that no running machine has. (Online: the monitor's `grow_disk`, then [`Self::record_size`].)
    pub async fn grow(&self, uid: &str, size_bytes: u64) -> Result<Volume, VolumeError> {
        let volume = self.get(uid)?;
        if size_bytes < volume.size_bytes {
            return Err(VolumeError::Shrink { uid: uid.to_owned(), size: volume.size_bytes, asked: size_bytes });
        }
        let grown = self.tool.grow(&self.path(uid), &volume.format(), size_bytes).await;
        grown.map_err(|source| VolumeError::Tool { uid: uid.to_owned(), source })?;
        self.record_size(uid, size_bytes)
    }

    /// Notes that a volume has grown.
    pub fn record_size(&self, uid: &str, size_bytes: u64) -> Result<Volume, VolumeError> {
        let volume = Volume { size_bytes, ..self.get(uid)? };
        let folder = self.folder.join(uid);
        write_record(&folder, &volume).map_err(self.failed(uid, "write", &folder))?;
        Ok(volume)
    }

    /// Removes a volume; it is no error if there is none. Whether a machine uses it is for the caller to know.
    pub fn delete(&self, uid: &str) -> Result<(), VolumeError> {
        check_uid(uid)?;
        let (folder, doomed) = (self.folder.join(uid), self.folder.join(format!(".{uid}.deleted")));
        // The name goes first: half a volume must not be found.
        match std::fs::rename(&folder, &doomed) {
            Ok(()) => sync(&self.folder).map_err(self.failed(uid, "sync", &self.folder))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.failed(uid, "remove", &folder)(error)),
        }
        match std::fs::remove_dir_all(&doomed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(uid, "remove", &doomed)(error)),
            _ => Ok(()),
        }
    }

    /// All volumes on this host: what is here and wanted by no object is an orphan.
    pub fn list(&self) -> io::Result<BTreeSet<String>> {
        let names = std::fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: io::Result<BTreeSet<_>> = names.collect();
        Ok(names?.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    /// The base files that volumes stand on.
    pub fn bases(&self) -> io::Result<BTreeSet<PathBuf>> {
        Ok(self.list()?.iter().filter_map(|uid| self.get(uid).ok()?.base).collect())
    }

    fn failed(&self, uid: &str, operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError + use<> {
        let (uid, path) = (uid.to_owned(), path.to_owned());
        move |source| VolumeError::Io { uid, operation, path, source }
    }
}

/// A uid becomes a folder's name.
fn check_uid(uid: &str) -> Result<(), VolumeError> {
    let is_plain = uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_plain && (1..=64).contains(&uid.len()) {
        return Ok(());
    }
    Err(VolumeError::Invalid {
        uid: uid.to_owned(),
        expected: "a uid of letters, digits and '-'",
        found: format!("{uid:?}"),
    })
}

fn write_record(folder: &Path, volume: &Volume) -> io::Result<()> {
    let (temporary, path) = (folder.join(".volume.json.new"), folder.join("volume.json"));
    std::fs::write(&temporary, serde_json::to_vec(volume)?)?;
    sync(&temporary)?;
    std::fs::rename(temporary, path)?;
    sync(folder)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
