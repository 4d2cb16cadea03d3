//! Small helpers for files and blocking work that the whole crate uses.

use std::io;
use std::path::Path;

pub use evroc_tunnel::BoxDuplex;

/// Runs blocking work outside of the async workers, and passes a panic on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Turns "not found" into `None`: the outcome of an operation on something that may be absent.
pub fn if_present<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file; `None` if it is absent.
pub fn read_if_present(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if_present(std::fs::read(path))
}

/// Removes a file; an absent one counts as removed.
pub fn remove_file(path: &Path) -> io::Result<()> {
    if_present(std::fs::remove_file(path)).map(|_| ())
}

/// Removes a folder with everything in it; an absent one counts as removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    if_present(std::fs::remove_dir_all(path)).map(|_| ())
}

/// Replaces a file in one step: a reader sees the old bytes or the new ones. `temporary` is a path on the same file system that no
/// reader takes for the file. Not synced: for files that need not survive a crash of the host.
pub fn replace_file(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::write(temporary, bytes)?;
    std::fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_file_is_no_error_and_a_failed_read_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(read_if_present(&path).unwrap(), None);
        replace_file(&path, &folder.path().join(".new"), b"x").unwrap();
        assert_eq!(read_if_present(&path).unwrap().as_deref(), Some(b"x".as_slice()));
        for _ in 0..2 {
            remove_file(&path).unwrap();
            remove_tree(&path).unwrap();
        }
        assert!(read_if_present(folder.path()).is_err(), "a folder is not absent");
        assert!(remove_file(folder.path()).is_err());
    }
}
