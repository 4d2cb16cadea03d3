//! Files that are either old or new, never half.
//!
//! Flow: write a temporary file in the same folder, set mode and owner, `fsync` it, rename it over the target, `fsync` the folder.
//! A crash before the rename leaves a `.tmp-*` file, which [`remove_leftovers`] clears at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Start of the names of temporary files made here.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// A file operation that failed: what was being done, to which path, and the system's reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct FileError {
    /// The operation, as a verb: "write", "create folder".
    pub operation: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Names the operation and the path of a failed system call.
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }
}

/// The owner of a file, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// The owner with the same number as user and group.
    pub fn same(id: u32) -> Self {
        Self { uid: id, gid: id }
    }
}

/// Writes `bytes` to `path` so that a reader, also one after a crash, sees the old content or all of the new.
///
/// The file gets exactly `mode` (whatever the umask) and, when given, `owner` before it becomes visible.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<(), FileError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(
        "{TEMPORARY_PREFIX}{name}-{}-{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    let result = write_temporary(&temporary, bytes, mode, owner)
        .map_err(|source| FileError::new("write", path, source))
        .and_then(|()| fs::rename(&temporary, path).map_err(|source| FileError::new("replace", path, source)));
    if result.is_err() {
        // The error that matters is the one above; what is left is cleared at the next start.
        let _ = fs::remove_file(&temporary);
        return result;
    }
    sync_folder(folder)
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    if let Some(owner) = owner {
        fchown(&file, Some(owner.uid), Some(owner.gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Makes a rename or a removal inside `folder` durable.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| FileError::new("sync folder", folder, source))
}

/// Reads a file, or `None` when there is none.
pub fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::new("read", path, source)),
    }
}

/// Removes temporary files that an interrupted [`write_atomic`] left in `folder`; returns what it removed.
pub fn remove_leftovers(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut removed = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
        Err(source) => return Err(FileError::new("list", folder, source)),
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) && entry.path().is_file() {
            fs::remove_file(entry.path()).map_err(|source| FileError::new("remove", &entry.path(), source))?;
            removed.push(entry.path());
        }
    }
    Ok(removed)
}
