//! The registry on disk. Everything here blocks; the HTTP side calls it from blocking threads.
//!
//! ```text
//! <root>/format                                            "1"
//! <root>/blobs/<algorithm>/<2 hex digits>/<hex>            content of blobs and manifests, named by its digest
//! <root>/uploads/<uuid>                                    what is being written; emptied at start
//! <root>/tenants/<first component>                        uid of the owner of all repositories below
//! <root>/repositories/<name>/_blobs/<algorithm>/<hex>      empty: the repository has the blob
//! <root>/repositories/<name>/_manifests/<algorithm>/<hex>  media type of the manifest
//! <root>/repositories/<name>/_tags/<tag>                   digest of the manifest
//! <root>/repositories/<name>/_referrers/<algorithm>/<hex of the subject>/<algorithm>-<hex>   descriptor
//! ```
//! A component of a repository's name never begins with `_`. Content comes to its place by rename after it was synced
//! and its digest was verified, and before anything refers to it; so a crash leaves files in `uploads` and nothing else.

mod files;
mod garbage;
mod listings;
mod manifests;
mod owners;
#[cfg(test)]
mod tests;
mod uploads;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use uuid::Uuid;

use crate::error::{Code, RegistryError};
use crate::names::{Algorithm, Digest, Repository};

pub use garbage::GarbageReport;
pub(crate) use listings::Page;
pub use manifests::StoredManifest;
use owners::Owners;
pub(crate) use owners::unknown_owner;
pub(crate) use uploads::{Session, Sessions};

/// The layout that this version writes.
const FORMAT: &str = "1";

/// A registry's folder.
pub(crate) struct Storage {
    root: PathBuf,
    sessions: Mutex<Sessions>,
    /// The owners of repositories. Held for writing while references are removed or change their owner, for reading while content
    /// comes to be referred to.
    references: RwLock<Owners>,
    /// Digests that were referred to since the collection of garbage began that is under way.
    linked: Mutex<Option<HashSet<Digest>>>,
    /// Held by a collection of garbage.
    collecting: Mutex<()>,
}

/// A blob that can be read.
pub(crate) struct Blob {
    pub file: File,
    pub size: u64,
}

impl Storage {
    /// Opens the folder, making it if it does not exist, and removes interrupted uploads.
    pub fn open(root: &Path) -> Result<Self, RegistryError> {
        files::make_folder(root)?;
        let storage = Storage {
            root: root.to_owned(),
            sessions: Mutex::new(HashMap::new()),
            references: RwLock::new(Storage::read_owners(root)?),
            linked: Mutex::default(),
            collecting: Mutex::default(),
        };
        for folder in ["blobs", "uploads", "repositories", "tenants"] {
            files::make_folder(&root.join(folder))?;
        }
        let uploads = root.join("uploads");
        for name in files::names(&uploads)? {
            let path = uploads.join(name);
            fs::remove_file(&path).map_err(|error| RegistryError::io(format!("remove {}", path.display()), error))?;
        }
        let format = root.join("format");
        match files::read(&format)? {
            None => files::replace(&storage.temporary(), &format, FORMAT.as_bytes())?,
            Some(found) if found.trim_ascii() == FORMAT.as_bytes() => {}
            Some(found) => {
                return Err(RegistryError::new(
                    Code::Unknown,
                    format!(
                        "registry {} has format {:?}, this version supports format {FORMAT}: use the version that wrote it",
                        root.display(),
                        String::from_utf8_lossy(&found)
                    ),
                ));
            }
        }
        Ok(storage)
    }

    /// A name for a file that is being written.
    fn temporary(&self) -> PathBuf {
        self.root.join("uploads").join(Uuid::new_v4().to_string())
    }

    fn content(&self, digest: &Digest) -> PathBuf {
        let blobs = self.root.join("blobs").join(digest.algorithm().as_str());
        blobs.join(&digest.hex()[..2]).join(digest.hex())
    }

    fn repository(&self, repository: &Repository) -> PathBuf {
        self.root.join("repositories").join(repository.as_str())
    }

    fn blob_link(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.link(repository, "_blobs", digest)
    }

    fn link(&self, repository: &Repository, kind: &str, digest: &Digest) -> PathBuf {
        let folder = self.repository(repository).join(kind);
        folder.join(digest.algorithm().as_str()).join(digest.hex())
    }

    fn referring(&self) -> RwLockReadGuard<'_, Owners> {
        self.references.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the repository has the blob.
    pub fn has_blob(&self, repository: &Repository, digest: &Digest) -> bool {
        self.blob_link(repository, digest).is_file() && self.content(digest).is_file()
    }

    /// Opens a blob that the repository has.
    pub fn open_blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob, RegistryError> {
        if !self.has_blob(repository, digest) {
            return Err(unknown_blob(repository, digest));
        }
        let path = self.content(digest);
        let open = || {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            Ok(Blob { file, size })
        };
        match files::absent(open()) {
            Ok(Some(blob)) => Ok(blob),
            Ok(None) => Err(unknown_blob(repository, digest)),
            Err(error) => Err(RegistryError::io(format!("open blob {digest}"), error)),
        }
    }

    /// Reads a blob of at most `limit` bytes and verifies it.
    pub fn read_blob(&self, repository: &Repository, digest: &Digest, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let mut blob = self.open_blob(repository, digest)?;
        if blob.size > limit as u64 {
            return Err(RegistryError::new(
                Code::SizeInvalid,
                format!("blob {digest} has {} bytes, expected at most {limit}", blob.size),
            ));
        }
        let mut content = Vec::new();
        blob.file.read_to_end(&mut content).map_err(|error| RegistryError::io(format!("read blob {digest}"), error))?;
        let found = Digest::of(digest.algorithm(), &content);
        if found != *digest {
            return Err(RegistryError::new(
                Code::Unknown,
                format!("registry is damaged: content of blob {digest} has digest {found}; push the image again"),
            ));
        }
        Ok(content)
    }

    /// Lets `to` of `owner` have a blob that `from` has; returns whether `from` has it.
    pub fn mount_blob(
        &self,
        from: &Repository,
        to: &Repository,
        owner: &str,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let referring = self.referring();
        Storage::check_owner(&referring, to, owner)?;
        if !self.has_blob(from, digest) {
            return Ok(false);
        }
        self.link_blob(to, digest)?;
        Ok(true)
    }

    fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), RegistryError> {
        self.note_link(digest);
        files::replace(&self.temporary(), &self.blob_link(repository, digest), b"")
    }

    /// Takes a blob from the repository. Its content goes with the next collection of garbage.
    pub fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), RegistryError> {
        match files::remove(&self.blob_link(repository, digest))? {
            true => Ok(()),
            false => Err(unknown_blob(repository, digest)),
        }
    }

    /// The digests whose files are below `folder`.
    fn digests(&self, folder: &Path) -> Result<Vec<Digest>, RegistryError> {
        let mut digests = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for hex in files::names(&folder.join(algorithm.as_str()))? {
                digests.extend(Digest::from_str(&format!("{}:{hex}", algorithm.as_str())));
            }
        }
        Ok(digests)
    }
}

fn unknown_blob(repository: &Repository, digest: &Digest) -> RegistryError {
    RegistryError::new(Code::BlobUnknown, format!("repository {repository} has no blob {digest}"))
        .with_detail(serde_json::json!({ "digest": digest.to_string() }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs file operations where they may block.
pub(crate) async fn blocking<T: Send + 'static>(
    storage: &Arc<Storage>,
    work: impl FnOnce(&Storage) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    let storage = storage.clone();
    tokio::task::spawn_blocking(move || work(&storage))
        .await
        .unwrap_or_else(|error| Err(RegistryError::io("run a file operation", error.into())))
}
