//! Disk images on this host: `images/<name>/{disk.qcow2,image.json}`.
//!
//! ```text
//! images/tiny.1-0.1/image.json      facts, digest
//! images/tiny.1-0.1/disk.qcow2      may be replaced by a newer build at any time
//! images/.by-digest/<sha256>.qcow2  hard link, made when it was verified for the first volume: what volumes are based on
//! images/.verified.json             which files had which digest, by inode, size and time of change
//! ```
//!
//! Invariant: a file under `.by-digest` never changes, because every volume cloned from it would change with it. A new build of
//! an image is a new file under the old name ([`ImageStore::import`] renames, never overwrites).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evroc_vmm::{DiskFormat, ImageTool};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::io::remove_file;

const BY_DIGEST: &str = ".by-digest";
const VERIFIED: &str = ".verified.json";
/// The name of a file among the bases while it is being verified.
const CHECKING: &str = ".checking";

/// The content of `image.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageFacts {
    /// Name of the DiskImage, equal to the folder's.
    pub name: String,
    /// For example `debian`.
    #[serde(default)]
    pub os_image: String,
    /// For example `12`.
    #[serde(default)]
    pub os_version: String,
    /// Build, for example `0.1`.
    #[serde(default)]
    pub version: String,
    /// For example `amd64`.
    #[serde(default)]
    pub os_arch: String,
    /// Size of a disk made from it, unless its spec has another.
    #[serde(default)]
    pub default_size: Option<evroc_api::units::Size>,
    /// Digest of `disk.qcow2`, 64 hexadecimal digits.
    pub sha256: String,
    /// Size that a guest sees, in bytes: the least size of a disk made from it.
    pub virtual_size_bytes: u64,
}

/// The images of a host, as their `image.json` describes them.
#[derive(Debug, Default)]
pub struct Scan {
    /// Ordered by name.
    pub images: Vec<ImageFacts>,
    /// Those whose `image.json` cannot be read, with the reason.
    pub unreadable: BTreeMap<String, ImageError>,
}

/// The source of a host's list of images: its folder, or a list in memory for a simulated host.
pub trait Images: Send + Sync {
    /// Returns the facts of all images.
    fn scan(&self) -> Result<Scan, ImageError>;
}

impl Images for ImageStore {
    fn scan(&self) -> Result<Scan, ImageError> {
        Self::scan(self)
    }
}

/// An image that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The facts about it.
    pub facts: ImageFacts,
    /// The file that volumes are cloned from; never changes.
    pub base: PathBuf,
}

/// The fault of an image.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum ImageError {
    #[error("disk image {name:?} is not on this host, which has: {known}")]
    Unknown { name: String, known: String },
    #[error("disk image {name:?} has other bytes on this host: expected SHA-256 {wanted}, found {found}")]
    OtherBytes { name: String, wanted: String, found: String },
    #[error("disk image {name:?} is not usable: expected {expected}, found {found}")]
    Invalid { name: String, expected: String, found: String },
    #[error("disk image {name:?}: {operation} {}", path.display())]
    Io {
        name: String,
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("disk image {name:?}")]
    Tool {
        name: String,
        #[source]
        source: evroc_vmm::ImageError,
    },
    #[error("list disk images in {}", folder.display())]
    List {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The images of a host.
#[derive(Clone, Debug)]
pub struct ImageStore {
    folder: PathBuf,
    tool: ImageTool,
    /// One verification at a time: it reads the whole file, and two at once would only be slower.
    verifying: Arc<tokio::sync::Mutex<()>>,
}

/// The digests that were found, by file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Verified(BTreeMap<String, String>);

impl ImageStore {
    /// Images in `folder`, which is made if missing.
    pub fn open(folder: impl Into<PathBuf>, tool: ImageTool) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(folder.join(BY_DIGEST))?;
        for path in [&folder, &folder.join(BY_DIGEST)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { folder, tool, verifying: Arc::default() })
    }

    /// Returns the facts of all images. Nothing is verified.
    pub fn scan(&self) -> Result<Scan, ImageError> {
        let failed = |source| ImageError::List { folder: self.folder.clone(), source };
        let mut found = Scan::default();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            // Container images are in the same cache, with another kind of image.json; a half import begins with a dot.
            if name.starts_with('.') || !self.folder.join(&name).join("disk.qcow2").exists() {
                continue;
            }
            match self.facts(&name) {
                Ok(facts) => found.images.push(facts),
                Err(error) => drop(found.unreadable.insert(name, error)),
            }
        }
        found.images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Facts of one image.
    pub fn facts(&self, name: &str) -> Result<ImageFacts, ImageError> {
        let path = self.folder.join(name).join("image.json");
        let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        let text = match if is_name { std::fs::read(&path) } else { Err(io::ErrorKind::NotFound.into()) } {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.unknown(name)),
            Err(source) => return Err(ImageError::Io { name: name.into(), operation: "read", path, source }),
        };
        read_facts(name, &text)
    }

    /// Returns an image to clone from, its digest verified (once for each file) and its file kept from changing. `sha256` is the
    /// digest that its bytes must have; `None` accepts those that are on this host.
    pub async fn get(&self, name: &str, sha256: Option<&str>) -> Result<Image, ImageError> {
        let facts = self.facts(name)?;
        if let Some(wanted) = sha256.filter(|wanted| *wanted != facts.sha256) {
            let (name, wanted, found) = (name.to_owned(), wanted.to_owned(), facts.sha256);
            return Err(ImageError::OtherBytes { name, wanted, found });
        }
        let bases = self.folder.join(BY_DIGEST);
        let base = bases.join(format!("{}.qcow2", facts.sha256));
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| ImageError::Io { name: name.to_owned(), operation, path, source }
        };
        let _turn = self.verifying.lock().await;
        if base.try_exists().map_err(failed("find", &base))? {
            // Volumes may be based on it: if it is damaged it is refused, and stays.
            self.verify(&facts, &base).await?;
            return Ok(Image { facts, base });
        }
        // A base gets its name when it was verified: a refused one never has a name.
        let (disk, checked) = (self.folder.join(name).join("disk.qcow2"), bases.join(CHECKING));
        remove_file(&checked).map_err(failed("remove", &checked))?;
        std::fs::hard_link(&disk, &checked).map_err(failed("link", &disk))?;
        if let Err(error) = self.verify(&facts, &checked).await {
            remove_file(&checked).map_err(failed("remove", &checked))?;
            return Err(error);
        }
        std::fs::rename(&checked, &base).map_err(failed("name", &checked))?;
        File::open(&bases).and_then(|dir| dir.sync_all()).map_err(failed("sync", &base))?;
        Ok(Image { facts, base })
    }

    /// Takes an image from `source` (a folder with `disk.qcow2` and `image.json`, such as the build cache). Does nothing if the same
    /// is here already; replaces another of its name, without touching the volumes made from that.
    pub async fn import(&self, source: &Path) -> Result<ImageFacts, ImageError> {
        let shown = source.display().to_string();
        let failed = |operation, path: &Path| {
            let (name, path) = (shown.clone(), path.to_owned());
            move |source| ImageError::Io { name, operation, path, source }
        };
        let json = source.join("image.json");
        let text = std::fs::read(&json).map_err(failed("read", &json))?;
        let facts = read_facts("", &text)?;
        if self.facts(&facts.name).is_ok_and(|present| present == facts) {
            return Ok(facts);
        }
        let temporary = self.folder.join(format!(".{}.new", facts.name));
        let _ = std::fs::remove_dir_all(&temporary);
        std::fs::create_dir(&temporary).map_err(failed("create", &temporary))?;
        let (from, to, folder) = (source.join("disk.qcow2"), temporary.join("disk.qcow2"), temporary.clone());
        let copied = tokio::task::spawn_blocking(move || copy_image(&from, &to, &folder, &text)).await;
        copied
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(failed("copy", &source.join("disk.qcow2")))?;
        let target = self.folder.join(&facts.name);
        let old = self.folder.join(format!(".{}.old", facts.name));
        let _ = std::fs::remove_dir_all(&old);
        match std::fs::rename(&target, &old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &target)(error)),
            _ => {}
        }
        std::fs::rename(&temporary, &target).map_err(failed("name", &target))?;
        let _ = std::fs::remove_dir_all(&old);
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.folder))?;
        Ok(facts)
    }

    /// Removes base files that neither an image nor a volume uses, and forgets what was verified of files that are absent. `in_use`: the
    /// bases of all volumes. The caller sees to it that no volume is being cloned meanwhile.
    pub async fn remove_unused_bases(&self, in_use: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, ImageError> {
        let _turn = self.verifying.lock().await;
        let folder = self.folder.join(BY_DIGEST);
        let failed = |source| ImageError::List { folder: folder.clone(), source };
        let current: BTreeSet<_> =
            self.scan()?.images.into_iter().map(|facts| folder.join(format!("{}.qcow2", facts.sha256))).collect();
        let mut removed = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !in_use.contains(&path) && !current.contains(&path) {
                std::fs::remove_file(&path).map_err(failed)?;
                removed.push(path);
            }
        }
        if !removed.is_empty() {
            self.forget_absent(&folder).map_err(failed)?;
        }
        Ok(removed)
    }

    fn unknown(&self, name: &str) -> ImageError {
        let known = self.scan().unwrap_or_default().images.into_iter().map(|facts| facts.name).collect::<Vec<_>>();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ImageError::Unknown { name: name.to_owned(), known }
    }

    fn verified(&self) -> Verified {
        let text = std::fs::read(self.folder.join(VERIFIED)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Keeps only those verified digests whose files are still among the bases.
    fn forget_absent(&self, bases: &Path) -> io::Result<()> {
        let present: BTreeSet<String> =
            std::fs::read_dir(bases)?.map(|entry| identity(&entry?.path())).collect::<io::Result<_>>()?;
        let mut verified = self.verified();
        verified.0.retain(|identity, _| present.contains(identity));
        self.remember(&verified)
    }

    fn remember(&self, verified: &Verified) -> io::Result<()> {
        let temporary = self.folder.join(format!("{VERIFIED}.new"));
        std::fs::write(&temporary, serde_json::to_vec(verified)?)?;
        std::fs::rename(&temporary, self.folder.join(VERIFIED))
    }

    fn is_known_good(&self, facts: &ImageFacts, base: &Path) -> bool {
        identity(base).is_ok_and(|identity| self.verified().0.get(&identity) == Some(&facts.sha256))
    }

    async fn verify(&self, facts: &ImageFacts, base: &Path) -> Result<(), ImageError> {
        let name = || facts.name.clone();
        let failed =
            |operation| move |source| ImageError::Io { name: name(), operation, path: base.to_owned(), source };
        let invalid = |expected: String, found: String| Err(ImageError::Invalid { name: name(), expected, found });
        if self.is_known_good(facts, base) {
            return Ok(());
        }
        let path = base.to_owned();
        let digest = tokio::task::spawn_blocking(move || sha256(&path)).await;
        let digest = digest.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed("read"))?;
        if digest != facts.sha256 {
            return invalid(format!("SHA-256 {}", facts.sha256), digest);
        }
        let tool = |source| ImageError::Tool { name: name(), source };
        let info = self.tool.check_untrusted(base, None).await.map_err(tool)?;
        if info.virtual_size != facts.virtual_size_bytes {
            return invalid(
                format!("a disk of {} bytes", facts.virtual_size_bytes),
                format!("{} bytes", info.virtual_size),
            );
        }
        std::fs::set_permissions(base, std::fs::Permissions::from_mode(0o444)).map_err(failed("protect"))?;
        let mut verified = self.verified();
        verified.0.insert(identity(base).map_err(failed("look at"))?, digest);
        self.remember(&verified).map_err(failed("remember"))
    }

    /// The tool that images are inspected with.
    pub fn tool(&self) -> &ImageTool {
        &self.tool
    }

    /// Format of every image here.
    pub const FORMAT: DiskFormat = DiskFormat::Qcow2 { backing: None };
}

/// `expected_name`: the folder's; empty if it may be any.
fn read_facts(expected_name: &str, text: &[u8]) -> Result<ImageFacts, ImageError> {
    let invalid = |expected: &str, found: String| {
        Err(ImageError::Invalid { name: expected_name.to_owned(), expected: expected.to_owned(), found })
    };
    let facts: ImageFacts = match serde_json::from_slice(text) {
        Ok(facts) => facts,
        Err(error) => return invalid("image.json with name, sha256 and virtualSizeBytes", error.to_string()),
    };
    if !expected_name.is_empty() && facts.name != expected_name {
        return invalid("the folder's name in image.json", facts.name);
    }
    let is_name =
        facts.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte));
    if !is_name || facts.name.is_empty() || facts.name.starts_with('.') {
        return invalid("a name of lower-case letters, digits, '.' and '-'", facts.name);
    }
    if facts.sha256.len() != 64
        || !facts.sha256.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    {
        return invalid("a SHA-256 of 64 hexadecimal digits", facts.sha256);
    }
    Ok(facts)
}

fn copy_image(from: &Path, to: &Path, folder: &Path, facts: &[u8]) -> io::Result<()> {
    // Shares blocks where the file system can.
    std::fs::copy(from, to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o644))?;
    File::open(to)?.sync_all()?;
    std::fs::write(folder.join("image.json"), facts)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    File::open(folder.join("image.json"))?.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Identifies the content of a file as long as it is not written to.
fn identity(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    Ok(format!(
        "{}:{}:{}:{}.{:09}",
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec()
    ))
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
