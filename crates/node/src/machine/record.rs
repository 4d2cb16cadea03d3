//! The record of a machine that survives restarts of the agent, and the choice of the user that it runs as.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::io::{if_present, read_if_present};

/// Version of the record that this program writes. A record of a newer version is left alone.
const VERSION: u32 = 2;
const NAME: &str = "machine.json";
/// Present once the API has deleted the machine: only then may its leftovers be removed without its object.
const DELETED: &str = "deleted";

/// `machine.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRecord {
    /// [`VERSION`] of the writer; the first had none.
    #[serde(default = "first_version")]
    pub version: u32,
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
    /// The machine type that it was last started with; absent from records of the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_type: Option<String>,
    /// Likewise the CPU model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// Uid of the virtual machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine: Option<String>,
}

fn first_version() -> u32 {
    1
}

impl MachineRecord {
    /// The version that is written now.
    pub(super) fn current_version() -> u32 {
        VERSION
    }
}

/// The reason why a record cannot be used. The machine itself may run.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum RecordError {
    #[error("{NAME} cannot be read")]
    Read(#[source] io::Error),
    #[error("{NAME} cannot be understood")]
    Parse(#[source] serde_json::Error),
    #[error("{NAME} is of version {found}; this program knows versions up to {VERSION}")]
    Newer { found: u32 },
}

pub(super) fn read(folder: &Path) -> Result<Option<MachineRecord>, RecordError> {
    let Some(text) = read_if_present(&folder.join(NAME)).map_err(RecordError::Read)? else { return Ok(None) };
    // The version alone first: what else a newer record has is not known.
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default = "first_version")]
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(&text).map_err(RecordError::Parse)?;
    if version > VERSION {
        return Err(RecordError::Newer { found: version });
    }
    serde_json::from_slice(&text).map(Some).map_err(RecordError::Parse)
}

pub(super) fn write(folder: &Path, record: &MachineRecord) -> io::Result<()> {
    let temporary = folder.join(format!(".{NAME}.new"));
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, folder.join(NAME))?;
    std::fs::File::open(folder)?.sync_all()
}

/// Notes that the API has deleted the machine.
pub(super) fn mark_deleted(folder: &Path) -> io::Result<()> {
    // Without its folder, nothing of the machine is on this host.
    if_present(std::fs::write(folder.join(DELETED), b"")).map(|_| ())
}

pub(super) fn is_deleted(folder: &Path) -> io::Result<bool> {
    folder.join(DELETED).try_exists()
}

/// The lowest number that no other machine below `machines` has. A machine whose record cannot be read keeps the user that its seed
/// disk belongs to.
pub(super) fn free_user(machines: &Path, first_uid: Option<u32>) -> io::Result<u32> {
    let mut taken = BTreeSet::new();
    for entry in std::fs::read_dir(machines)? {
        let folder = entry?.path();
        match read(&folder) {
            Ok(record) => taken.extend(record.map(|record| record.user)),
            Err(_) => taken.extend(user_of_seed(&folder, first_uid)),
        }
    }
    Ok((0..).find(|number| !taken.contains(number)).unwrap_or_default())
}

/// The number of the user that a machine was last started as, found without its record.
fn user_of_seed(folder: &Path, first_uid: Option<u32>) -> Option<u32> {
    folder.join("seed.img").metadata().ok()?.uid().checked_sub(first_uid?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, user: u32) -> MachineRecord {
        MachineRecord {
            version: VERSION,
            uid: uid.into(),
            name: uid.into(),
            epoch: 1,
            user,
            volumes: vec![],
            accelerator: evroc_vmm::probe::Kind::Tcg,
            machine_type: None,
            cpu_model: None,
            virtual_machine: None,
        }
    }

    #[test]
    fn users_are_reused_but_never_shared() {
        let dir = tempfile::tempdir().unwrap();
        for (uid, user) in [("a", 0), ("b", 1), ("c", 3)] {
            let folder = dir.path().join(uid);
            std::fs::create_dir(&folder).unwrap();
            write(&folder, &record(uid, user)).unwrap();
            assert_eq!(read(&folder).unwrap(), Some(record(uid, user)));
        }
        std::fs::create_dir(dir.path().join("unfinished")).unwrap();
        assert_eq!(free_user(dir.path(), None).unwrap(), 2);
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(free_user(dir.path(), None).unwrap(), 0);
    }

    #[test]
    fn a_damaged_record_keeps_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(NAME), "{").unwrap();
        std::fs::write(folder.join("seed.img"), "").unwrap();
        // The seed belongs to the user who runs the test, who plays the second machine's user.
        let own = folder.join("seed.img").metadata().unwrap().uid();
        let first = own.saturating_sub(1);
        let kept = own - first;
        std::fs::create_dir(dir.path().join("b")).unwrap();
        write(&dir.path().join("b"), &record("b", 1 - kept)).unwrap();
        assert_eq!(free_user(dir.path(), Some(first)).unwrap(), 2);
    }

    #[test]
    fn old_records_are_read_and_newer_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let old = r#"{"uid":"a","name":"vm","epoch":7,"user":3,"volumes":["v"],"accelerator":"tcg"}"#;
        std::fs::write(dir.path().join(NAME), old).unwrap();
        let read = || super::read(dir.path());
        assert_eq!(read().unwrap().map(|record| (record.version, record.user)), Some((1, 3)));
        std::fs::write(dir.path().join(NAME), r#"{"version":3,"uid":"a","shape":"unknown"}"#).unwrap();
        assert_eq!(
            read().unwrap_err().to_string(),
            "machine.json is of version 3; this program knows versions up to 2"
        );
        std::fs::write(dir.path().join(NAME), "").unwrap();
        assert!(matches!(read().unwrap_err(), RecordError::Parse(_)));
    }
}
