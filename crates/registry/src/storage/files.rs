//! Files that are either there as a whole or not at all, also after a crash.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::RegistryError;

/// Makes a folder and its parents, durably.
pub(super) fn make_folder(path: &Path) -> Result<(), RegistryError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(RegistryError::io(format!("create folder {}", path.display()), error));
            }
            _ => sync_folder(parent)?,
        }
    }
    Ok(())
}

/// Makes entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), RegistryError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| RegistryError::io(format!("sync folder {}", path.display()), error))
}

/// Moves a complete, synced file to its place, replacing an existing one.
pub(super) fn place(temporary: &Path, target: &Path) -> Result<(), RegistryError> {
    let folder = target.parent().unwrap_or(target);
    make_folder(folder)?;
    fs::rename(temporary, target)
        .map_err(|error| RegistryError::io(format!("rename to {}", target.display()), error))?;
    sync_folder(folder)
}

/// Writes a file atomically by way of `temporary`, which must be on the same file system.
pub(super) fn replace(temporary: &Path, target: &Path, content: &[u8]) -> Result<(), RegistryError> {
    let write = || -> io::Result<()> {
        let mut file = File::create(temporary)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| RegistryError::io(format!("write {}", target.display()), error))?;
    place(temporary, target)
}

/// Reads a file; `None` if it is absent.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    absent(fs::read(path)).map_err(|error| RegistryError::io(format!("read {}", path.display()), error))
}

/// Removes a file durably; returns whether it existed.
pub(super) fn remove(path: &Path) -> Result<bool, RegistryError> {
    let removed = absent(fs::remove_file(path))
        .map_err(|error| RegistryError::io(format!("remove {}", path.display()), error))?;
    if removed.is_some()
        && let Some(folder) = path.parent()
    {
        sync_folder(folder)?;
    }
    Ok(removed.is_some())
}

/// The names in a folder in order; none if it is absent.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, RegistryError> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // A name that is not text was not created by us.
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    };
    absent(list())
        .map(Option::unwrap_or_default)
        .map_err(|error| RegistryError::io(format!("list {}", folder.display()), error))
}

/// Turns "not found" into `None`; a file in the place of a folder counts as not found.
pub(super) fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(error),
        },
    }
}
