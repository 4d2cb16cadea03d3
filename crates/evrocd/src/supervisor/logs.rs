//! Rotation of log files by size: `control.log` becomes `control.log.1`, and so on up to [`KEPT`].

use std::fs;
use std::path::{Path, PathBuf};

use evroc_iam::files::FileError;

/// Size from which a log is rotated, in bytes. Too small loses the history of a busy minute; too large fills small disks.
pub const LARGEST: u64 = 16 << 20;
/// How many old files are kept.
pub const KEPT: u32 = 3;

/// Renames `path` out of the way when it is larger than `largest`. Returns whether it did; the writer must then reopen `path`.
pub fn rotate(path: &Path, largest: u64) -> Result<bool, FileError> {
    match fs::metadata(path) {
        Ok(found) if found.len() > largest => {}
        _ => return Ok(false),
    }
    for number in (1..KEPT).rev() {
        let from = numbered(path, number);
        if from.exists() {
            fs::rename(&from, numbered(path, number + 1)).map_err(|source| FileError::new("rename", &from, source))?;
        }
    }
    fs::rename(path, numbered(path, 1)).map_err(|source| FileError::new("rename", path, source))?;
    Ok(true)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The last lines of a log, for an error message; empty when there is none.
pub fn tail(path: &Path, lines: usize) -> Vec<String> {
    let Ok(bytes) = fs::read(path) else { return Vec::new() };
    let start = bytes.len().saturating_sub(64 * 1024);
    let text = String::from_utf8_lossy(&bytes[start..]).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_logs_move_up_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        assert!(!rotate(&path, 3).unwrap());
        for round in 0..5 {
            fs::write(&path, format!("round {round}")).unwrap();
            assert!(rotate(&path, 3).unwrap());
            assert!(!path.exists());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEPT as usize);
        assert_eq!(fs::read_to_string(folder.path().join("node.log.1")).unwrap(), "round 4");
        assert_eq!(fs::read_to_string(folder.path().join("node.log.3")).unwrap(), "round 2");
        fs::write(&path, "abc").unwrap();
        assert!(!rotate(&path, 3).unwrap(), "not larger than the limit");
        assert_eq!(tail(&folder.path().join("node.log.1"), 5), ["round 4"]);
        assert!(tail(&folder.path().join("missing"), 5).is_empty());
    }
}
