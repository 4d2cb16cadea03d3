//! The state folder's version, written first of all, so that a newer program's state is named and not misread.

use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use evroc_iam::files::{self, FileError};
use serde::{Deserialize, Serialize};

/// Version of the layout of the state folder that this program writes. Raise it, and add a step to [`MIGRATIONS`], when a file moves or
/// changes its meaning.
pub const CURRENT: u32 = 2;

/// One step from the version at its index plus one to the next; each must be safe to run twice. Returns what it changed.
type Migration = fn(&Path) -> Result<String, FileError>;
const MIGRATIONS: &[Migration] = &[authority_to_root];

/// Moves the authority's key out of the folder of control, whose user could read it, into one that only root may open.
fn authority_to_root(state: &Path) -> Result<String, FileError> {
    let (from, to) = (state.join("control/pki"), state.join("pki/authority"));
    for folder in [state.join("pki"), to.clone()] {
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(FileError::new("create folder", &folder, error));
            }
            _ => {}
        }
    }
    let set_mode = std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o700));
    set_mode.map_err(|source| FileError::new("change the mode of", &to, source))?;
    for (name, mode) in [("ca.key", 0o600), ("ca.crt", 0o644)] {
        let old = from.join(name);
        // Control can put a link in its place, behind which root would read anything.
        let opened =
            std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&old);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(FileError::new("open", &old, source)),
        };
        let mut bytes = Vec::new();
        let read = file.by_ref().take(LARGEST_KEY).read_to_end(&mut bytes);
        read.map_err(|source| FileError::new("read", &old, source))?;
        files::write_atomic(&to.join(name), &bytes, mode, None)?;
        std::fs::remove_file(&old).map_err(|source| FileError::new("remove", &old, source))?;
    }
    Ok(format!("the key of the certificate authority is root's alone, in {}", to.display()))
}

/// Largest key or certificate that is moved; ours have less than 1 KiB.
const LARGEST_KEY: u64 = 1 << 16;

/// The reason why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer program.
    #[error(
        "{} was written by evrocd {written_by} (format {found}); this is evrocd {}, which knows formats up to {CURRENT}: start the newer evrocd, or choose another --instance",
        state.display(), env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The state folder.
        state: PathBuf,
        /// Its version.
        found: u32,
        /// The version that wrote it.
        written_by: String,
    },
    /// Something else lives there.
    #[error(
        "{} is not an evroc state folder (it holds {found:?} and no file `format`): move it away, or choose another --instance or --state-dir-root",
        state.display()
    )]
    Foreign {
        /// The folder.
        state: PathBuf,
        /// Something that was found in it.
        found: String,
    },
    /// The version file cannot be understood.
    #[error("{} is damaged: expected JSON with a number `format`; put it back from a backup, or write {{\"format\":{CURRENT}}} if you know the version", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Format {
    format: u32,
    #[serde(default)]
    written_by: String,
}

/// Makes sure that the folder `state` exists and is of the current version; migrates an older one. Returns the migration done, if
/// any.
pub fn ensure_format(state: &Path) -> Result<Option<String>, FormatError> {
    ensure(state, CURRENT, MIGRATIONS)
}

fn ensure(state: &Path, current: u32, migrations: &[Migration]) -> Result<Option<String>, FormatError> {
    let path = state.join("format");
    let write = |format| {
        let content = Format { format, written_by: env!("CARGO_PKG_VERSION").into() };
        files::write_atomic(&path, &serde_json::to_vec(&content).unwrap_or_default(), 0o644, None)
    };
    let Some(bytes) = files::read_if_exists(&path)? else {
        std::fs::create_dir_all(state).map_err(|source| FileError::new("create folder", state, source))?;
        let mut entries = std::fs::read_dir(state).map_err(|source| FileError::new("list", state, source))?;
        let foreign = entries.find_map(|entry| {
            let name = entry.ok()?.file_name().to_string_lossy().into_owned();
            (!name.starts_with(files::TEMPORARY_PREFIX) && name != "lost+found").then_some(name)
        });
        if let Some(found) = foreign {
            return Err(FormatError::Foreign { state: state.to_owned(), found });
        }
        write(current)?;
        return Ok(None);
    };
    let found: Format = serde_json::from_slice(&bytes).map_err(|_| FormatError::Damaged { path: path.clone() })?;
    if found.format > current {
        return Err(FormatError::Newer { state: state.to_owned(), found: found.format, written_by: found.written_by });
    }
    if found.format == 0 {
        return Err(FormatError::Damaged { path });
    }
    if found.format == current {
        return Ok(None);
    }
    let mut changes = Vec::new();
    for version in found.format..current {
        changes.push(migrations[version as usize - 1](state)?);
        write(version + 1)?;
    }
    let changes = changes.join("; ");
    Ok(Some(format!("migrated {} from format {} to {current}: {changes}", state.display(), found.format)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_new_folder_gets_the_current_version() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        assert_eq!(ensure_format(&state).unwrap(), None);
        assert_eq!(ensure_format(&state).unwrap(), None);
        assert!(fs::read_to_string(state.join("format")).unwrap().contains(&format!("\"format\":{CURRENT}")));
    }

    #[test]
    fn foreign_newer_and_damaged_folders_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("somebody's"), "x").unwrap();
        assert!(ensure_format(folder.path()).unwrap_err().to_string().contains("is not an evroc state folder"));
        fs::write(folder.path().join("format"), r#"{"format":7,"writtenBy":"9.9.9"}"#).unwrap();
        let text = ensure_format(folder.path()).unwrap_err().to_string();
        assert!(text.contains("written by evrocd 9.9.9 (format 7)"), "{text}");
        for damaged in ["", "{", "{\"format\":0}"] {
            fs::write(folder.path().join("format"), damaged).unwrap();
            assert!(ensure_format(folder.path()).unwrap_err().to_string().contains("is damaged"));
        }
    }

    #[test]
    fn an_older_folder_is_migrated_step_by_step() {
        fn first(state: &Path) -> Result<String, FileError> {
            files::write_atomic(&state.join("first"), b"", 0o644, None)?;
            Ok("one".into())
        }
        fn second(state: &Path) -> Result<String, FileError> {
            assert!(state.join("first").exists());
            files::write_atomic(&state.join("second"), b"", 0o644, None)?;
            Ok("two".into())
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("format"), r#"{"format":1}"#).unwrap();
        let note = ensure(folder.path(), 3, &[first, second]).unwrap().unwrap();
        assert!(note.ends_with("from format 1 to 3: one; two"), "{note}");
        assert!(folder.path().join("second").exists());
        assert_eq!(ensure(folder.path(), 3, &[first, second]).unwrap(), None);
    }

    #[test]
    fn the_authority_moves_out_of_reach_of_control_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let (from, to) = (state.join("control/pki"), state.join("pki/authority"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("ca.key"), "key").unwrap();
        fs::write(from.join("ca.crt"), "certificate").unwrap();
        authority_to_root(state).unwrap();
        authority_to_root(state).unwrap();
        assert_eq!(fs::read_to_string(to.join("ca.key")).unwrap(), "key");
        assert_eq!(fs::read_to_string(to.join("ca.crt")).unwrap(), "certificate");
        assert_eq!(fs::metadata(to.join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&from).unwrap().count(), 0);
        fs::write(state.join("secret"), "of another").unwrap();
        std::os::unix::fs::symlink(state.join("secret"), from.join("ca.key")).unwrap();
        assert!(authority_to_root(state).is_err());
        assert_eq!(fs::read_to_string(to.join("ca.key")).unwrap(), "key");
    }
}
