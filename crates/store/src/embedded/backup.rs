//! Backups of a store that is in use.

use std::fs::File;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::rows::{self, State};
use crate::contract::{Result, Revision};
use crate::error::StoreError;

const OPERATION: &str = "backup";

/// Copies the state that `conn` sees to the new file `target`, which appears once it is complete and on disk.
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
    // Left over if the process was killed during an earlier backup.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let path = temporary.to_str().ok_or_else(|| io(io::Error::other("the target's path is not UTF-8")))?;
    conn.execute("VACUUM INTO ?1", [path]).map_err(engine)?;
    let copy = Connection::open_with_flags(&temporary, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(engine)?;
    let state = verify(&copy)?;
    drop(copy);
    File::open(&temporary).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&temporary, target).map_err(io)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(state.revision)
}

/// Verifies a copy: each row matches its checksum, and none is missing.
fn verify(copy: &Connection) -> Result<State> {
    let failed = |detail: String| StoreError::backend(OPERATION, detail);
    let state = State::read(copy).map_err(|source| StoreError::backend(OPERATION, source))?;
    let state = state.ok_or_else(|| failed("the copy's state row does not match its checksum".to_owned()))?;
    let mut found = State::default();
    let mut statement = copy.prepare(&rows::select_from()).map_err(rows::read_failed)?;
    let mut read = statement.query([0, i64::MAX]).map_err(rows::read_failed)?;
    while let Some(row) = read.next().map_err(rows::read_failed)? {
        let head = rows::decode_head(row)?;
        rows::decode_value(row, &head)?;
        found.add_row(head.row);
    }
    if (found.rows, found.digest) != (state.rows, state.digest) {
        return Err(failed(format!("the copy holds {} changes, the original {}", found.rows, state.rows)));
    }
    Ok(state)
}
