//! Two locks: one per instance, held by its supervisor as long as it lives, and one for the machine, held while something is assigned
//! (a range of uids, a port) or a shared file is edited.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use evroc_iam::files::FileError;
use rustix::fs::{FlockOperation, flock};

use super::{INSTANCES_DIR, InstanceName};

/// Locks are for their owner only: any process that can open a file can lock it, and keep the operator waiting.
const MODE: u32 = 0o600;

/// The reason why a lock could not be acquired.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another supervisor holds it.
    #[error("instance {0} is already run by another supervisor")]
    Held(InstanceName),
    /// The file could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The right to run an instance. Ends with the process, also after a crash.
#[derive(Debug)]
pub struct InstanceLock {
    file: File,
    path: PathBuf,
}

impl InstanceLock {
    /// Takes the lock of `instance`, or fails when it is held.
    pub fn acquire(instance: &InstanceName) -> Result<Self, LockError> {
        let path = path_of(instance);
        loop {
            let file = open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(LockError::Held(instance.clone())),
                Err(errno) => return Err(FileError::new("lock", &path, errno.into()).into()),
            }
            // A purge may have removed the file between open and lock; then the lock is on a file that no other process will find.
            if is_still_at(&file, &path) {
                return Ok(Self { file, path });
            }
        }
    }

    /// Takes over a lock that this process already held before it replaced itself by a newer program.
    pub fn inherited(instance: &InstanceName, file: File) -> Option<Self> {
        let path = path_of(instance);
        is_still_at(&file, &path).then_some(Self { file, path })
    }

    /// Removes the lock's file: the last step of a purge.
    pub fn remove(self) -> Result<(), FileError> {
        fs::remove_file(&self.path).map_err(|source| FileError::new("remove", &self.path, source))
    }
}

impl AsFd for InstanceLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Waits for the machine-wide lock on `what` ("registry", "hosts").
pub fn registry_lock(what: &str) -> Result<File, FileError> {
    // A dot cannot be in an instance's name: no clash with an instance's own lock.
    let path = Path::new(INSTANCES_DIR).join(format!(".{what}.lock"));
    let file = open(&path)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| FileError::new("lock", &path, errno.into()))?;
    Ok(file)
}

fn path_of(instance: &InstanceName) -> PathBuf {
    Path::new(INSTANCES_DIR).join(format!("{instance}.lock"))
}

fn open(path: &Path) -> Result<File, FileError> {
    fs::create_dir_all(INSTANCES_DIR)
        .map_err(|source| FileError::new("create folder", Path::new(INSTANCES_DIR), source))?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(path)
        .and_then(|file| {
            // A file of an earlier version may be readable by everybody.
            file.set_permissions(fs::Permissions::from_mode(MODE))?;
            Ok(file)
        })
        .map_err(|source| FileError::new("open", path, source))
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(found)) => held.ino() == found.ino() && held.dev() == found.dev(),
        _ => false,
    }
}
