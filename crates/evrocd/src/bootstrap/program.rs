//! The copy of the running program in the state folder.
//!
//! Unprivileged roles cannot execute the program where it was built (a home folder is 0700), and a rebuild must not change what the next
//! shim runs. The copy is replaced by a rename: processes that run the old one keep it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use evroc_iam::files::{self, FileError};
use sha2::{Digest, Sha256};

const SELF: &str = "/proc/self/exe";

/// SHA-256 of the running program, in hex.
pub fn digest_of_self() -> Result<String, FileError> {
    digest(Path::new(SELF))
}

fn digest(path: &Path) -> Result<String, FileError> {
    let fail = |source| FileError::new("read", path, source);
    let mut file = File::open(path).map_err(fail)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes sure that `program` is a copy of the running program, whose digest is `own`. Returns whether it had to be written.
///
/// Beside it, `evrocd.sha256` holds the copy's digest; it is removed before the program changes and written after, so that it never vouches
/// for another file.
pub fn install_program(program: &Path, own: &str) -> Result<bool, FileError> {
    let mark = program.with_extension("sha256");
    let size = |path: &Path| std::fs::metadata(path).map(|found| found.len()).ok();
    let marked = files::read_if_exists(&mark)?.is_some_and(|bytes| bytes == own.as_bytes());
    if marked && size(program).is_some() && size(program) == size(Path::new(SELF)) {
        return Ok(false);
    }
    match std::fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FileError::new("remove", &mark, error)),
        _ => {}
    }
    let folder = program.parent().unwrap_or(Path::new("/"));
    let temporary = folder.join(format!("{}evrocd-{}", files::TEMPORARY_PREFIX, std::process::id()));
    let copy = || {
        std::fs::copy(SELF, &temporary)?;
        let file = File::open(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
        file.sync_all()?;
        std::fs::rename(&temporary, program)
    };
    copy().map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        FileError::new("copy the program to", program, source)
    })?;
    files::sync_folder(folder)?;
    files::write_atomic(&mark, own.as_bytes(), 0o644, None)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_made_once_and_again_when_it_differs() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("evrocd");
        let own = digest_of_self().unwrap();
        assert!(install_program(&program, &own).unwrap());
        assert!(!install_program(&program, &own).unwrap());
        assert_eq!(digest(&program).unwrap(), own);
        // Another program's mark, a missing mark and a missing program are each a reason to copy again.
        std::fs::write(program.with_extension("sha256"), "other").unwrap();
        assert!(install_program(&program, &own).unwrap());
        std::fs::remove_file(program.with_extension("sha256")).unwrap();
        assert!(install_program(&program, &own).unwrap());
        std::fs::remove_file(&program).unwrap();
        assert!(install_program(&program, &own).unwrap());
        assert_eq!(std::fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
