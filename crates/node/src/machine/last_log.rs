//! The log of a virtual machine's last run outlives the run's machine, so that a crash leaves its evidence.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::io::{if_present, remove_tree};
use crate::shim::log_files;

/// How long a log is kept after its run. Too short deletes it before it is read; too long keeps the output of deleted guests.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Moves the log of a shim to `kept/<virtual_machine>`, in place of the one from before.
pub(super) fn keep(shim: &Path, kept: &Path, virtual_machine: &str) -> io::Result<()> {
    let Some(files) = if_present(log_files(shim))?.filter(|files| !files.is_empty()) else { return Ok(()) };
    let folder = kept.join(virtual_machine);
    remove_tree(&folder)?;
    std::fs::create_dir_all(&folder)?;
    for file in files {
        if let Some(name) = file.file_name() {
            std::fs::rename(&file, folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes those whose time is over.
pub(super) fn prune(kept: &Path, now: SystemTime) -> io::Result<()> {
    let Some(entries) = if_present(std::fs::read_dir(kept))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let age = now.duration_since(entry.metadata()?.modified()?).unwrap_or_default();
        if age > LIFE {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::tail;

    #[test]
    fn the_last_run_replaces_the_one_before_and_goes_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let (shim, kept) = (dir.path().join("shim"), dir.path().join("kept"));
        keep(&shim, &kept, "vm").unwrap();
        assert!(!kept.exists());
        for text in ["first", "second"] {
            std::fs::create_dir_all(&shim).unwrap();
            std::fs::write(shim.join("log"), text).unwrap();
            keep(&shim, &kept, "vm").unwrap();
        }
        assert_eq!(tail(&kept.join("vm"), 100).unwrap(), b"second");
        prune(&kept, SystemTime::now() + LIFE / 2).unwrap();
        assert!(kept.join("vm").exists());
        prune(&kept, SystemTime::now() + LIFE * 2).unwrap();
        assert!(!kept.join("vm").exists());
    }
}
