//! Copies of a store while it is used.

use std::fs::File;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::rows::State;
use crate::contract::{Result, Revision};
use crate::error::StoreError;

const OPERATION: &str = "backup";

/// Copies what `conn` sees to the new file `target`, which appears when it is complete and on disk.
pub(super) fn write(conn: &Connection, target: &Path) -> Result<Revision> {
    let io = |source: io::Error| StoreError::backend(OPERATION, source);
    let engine = |source: rusqlite::Error| StoreError::backend(OPERATION, source);
    if target.exists() {
        return Err(io(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} exists: choose another name", target.display()),
        )));
    }
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "the target is not a file name")));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut temporary = name.to_owned();
    temporary.push(".part");
    let temporary = folder.join(temporary);
    // Left over if the process was killed in the middle of an earlier one.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let path = temporary.to_str().ok_or_else(|| io(io::Error::other("the target's path is not UTF-8")))?;
    conn.execute("VACUUM INTO ?1", [path]).map_err(engine)?;
    let copy = Connection::open_with_flags(&temporary, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(engine)?;
    let state = State::read(&copy).map_err(engine)?;
    let state = state.ok_or_else(|| io(io::Error::other("the copy's state row does not match its checksum")))?;
    drop(copy);
    File::open(&temporary).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&temporary, target).map_err(io)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(state.revision)
}
