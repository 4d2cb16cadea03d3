//! Small JSON files that are either the old or the new version, even after a crash.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes `value` to `dir/name` by way of a temporary file: synced before it takes the name, and the folder after.
pub(crate) fn write_json<T: Serialize>(dir: &Path, name: &str, mode: u32, value: &T) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.new"));
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    // The folder may belong to a less privileged user: a link planted under this name is not followed.
    remove_path(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Room for the record of the end on a disk that is full by then; see [`release_reserve`].
const RESERVE: &str = ".reserve";
/// Blocks for `exit.json` and its folder entry.
const RESERVE_BYTES: usize = 16 << 10;

/// Takes room on the disk. Not zeros: some file systems would take none.
pub(crate) fn take_reserve(dir: &Path) -> io::Result<()> {
    remove(dir, RESERVE)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(RESERVE))?;
    file.write_all(&[0x5a; RESERVE_BYTES])?;
    file.sync_all()
}

/// Gives it back.
pub(crate) fn release_reserve(dir: &Path) -> io::Result<()> {
    remove(dir, RESERVE)
}

/// Reads `dir/name`; `None` if it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    match std::fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes `dir/name`; an absent file is no error.
pub(crate) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    remove_path(&dir.join(name))
}

/// Removes a file; an absent one is no error.
pub(crate) fn remove_path(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a shim lives in this folder.
pub fn is_locked(dir: &Path) -> io::Result<bool> {
    let file = match File::open(dir.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
