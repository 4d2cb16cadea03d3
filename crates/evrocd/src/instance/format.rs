//! The state folder's version, written first of all, so that a newer program's state is named and not misread.

use std::path::{Path, PathBuf};

use evroc_iam::files::{self, FileError};
use serde::{Deserialize, Serialize};

/// Version of the layout of the state folder that this program writes. Raise it, and add a step to [`MIGRATIONS`], when a file moves or
/// changes its meaning.
pub const CURRENT: u32 = 1;

/// One step from the version at its index plus one to the next; each must be safe to run twice.
type Migration = fn(&Path) -> Result<(), FileError>;
const MIGRATIONS: &[Migration] = &[];

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
    for version in found.format..current {
        migrations[version as usize - 1](state)?;
        write(version + 1)?;
    }
    Ok(Some(format!("migrated {} from format {} to {current}", state.display(), found.format)))
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
        assert!(fs::read_to_string(state.join("format")).unwrap().contains("\"format\":1"));
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
        fn first(state: &Path) -> Result<(), FileError> {
            files::write_atomic(&state.join("first"), b"", 0o644, None)
        }
        fn second(state: &Path) -> Result<(), FileError> {
            assert!(state.join("first").exists());
            files::write_atomic(&state.join("second"), b"", 0o644, None)
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("format"), r#"{"format":1}"#).unwrap();
        let note = ensure(folder.path(), 3, &[first, second]).unwrap().unwrap();
        assert!(note.contains("from format 1 to 3"), "{note}");
        assert!(folder.path().join("second").exists());
        assert_eq!(ensure(folder.path(), 3, &[first, second]).unwrap(), None);
    }
}
