//! The folder of a store: its lock and the mark of the newest acknowledged revision.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::open_error::OpenError;
use crate::contract::Revision;

pub(super) fn make_folder(folder: &Path) -> Result<(), OpenError> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|source| OpenError::Io {
        operation: "create folder",
        path: folder.to_owned(),
        source,
    })?;
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), OpenError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| OpenError::Io {
        operation: "sync folder",
        path: folder.to_owned(),
        source,
    })
}

fn open_file(folder: &Path, name: &str) -> Result<File, OpenError> {
    let path = folder.join(name);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| OpenError::Io { operation: "open", path, source })
}

/// A lock that is held while the store is open. The kernel releases it when the process ends.
pub(super) struct FolderLock(#[expect(dead_code, reason = "held for its lock")] File);

impl FolderLock {
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let mut file = open_file(folder, "lock")?;
        let io = |operation| {
            let path = folder.join("lock");
            move |source| OpenError::Io { operation, path, source }
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Best effort: it is only used in an error message.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "unknown".to_owned(),
                    known => known.to_owned(),
                };
                return Err(OpenError::Locked { folder: folder.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io("write"))?;
        Ok(FolderLock(file))
    }
}

/// The newest acknowledged revision with a checksum.
pub(super) struct Mark(File);

impl Mark {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        Ok(Mark(open_file(folder, "acknowledged")?))
    }

    /// Reads the mark. `None` if it is absent or unreadable: it may not have been written before a power loss.
    pub(super) fn read(&self) -> Option<Revision> {
        let mut bytes = [0; 12];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        let (revision, crc) = bytes.split_at(8);
        if crc32fast::hash(revision).to_be_bytes() != crc {
            return None;
        }
        Some(Revision(u64::from_be_bytes(revision.try_into().ok()?)))
    }

    pub fn write(&self, revision: Revision) -> io::Result<()> {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&revision.0.to_be_bytes());
        let crc = crc32fast::hash(&bytes[..8]);
        bytes[8..].copy_from_slice(&crc.to_be_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}
