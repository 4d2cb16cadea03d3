//! What is kept of a machine across restarts of the agent, and which user it runs as.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// `machine.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRecord {
    /// Names the machine.
    pub uid: String,
    /// For people.
    pub name: String,
    /// As in the configuration of the last start.
    pub epoch: i64,
    /// Its user is the first machine uid plus this.
    pub user: u32,
    /// Uids of the volumes it was last started with.
    pub volumes: Vec<String>,
    /// Accelerator it was last started with.
    pub accelerator: evroc_vmm::probe::Kind,
}

const NAME: &str = "machine.json";

pub(super) fn read(folder: &Path) -> io::Result<Option<MachineRecord>> {
    match std::fs::read(folder.join(NAME)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn write(folder: &Path, record: &MachineRecord) -> io::Result<()> {
    let temporary = folder.join(format!(".{NAME}.new"));
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(temporary, folder.join(NAME))?;
    std::fs::File::open(folder)?.sync_all()
}

/// The lowest number that no other machine below `machines` has.
pub(super) fn free_user(machines: &Path) -> io::Result<u32> {
    let mut taken = BTreeSet::new();
    for entry in std::fs::read_dir(machines)? {
        taken.extend(read(&entry?.path())?.map(|record| record.user));
    }
    Ok((0..).find(|number| !taken.contains(number)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_reused_but_never_shared() {
        let dir = tempfile::tempdir().unwrap();
        for (uid, user) in [("a", 0), ("b", 1), ("c", 3)] {
            let folder = dir.path().join(uid);
            std::fs::create_dir(&folder).unwrap();
            let record = MachineRecord {
                uid: uid.into(),
                name: uid.into(),
                epoch: 1,
                user,
                volumes: vec![],
                accelerator: evroc_vmm::probe::Kind::Tcg,
            };
            write(&folder, &record).unwrap();
            assert_eq!(read(&folder).unwrap(), Some(record));
        }
        std::fs::create_dir(dir.path().join("unfinished")).unwrap();
        assert_eq!(free_user(dir.path()).unwrap(), 2);
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(free_user(dir.path()).unwrap(), 0);
    }
}
