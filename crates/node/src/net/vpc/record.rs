//! The desired state of a VPC, as a file: `/run/<instance>/vpcs/<uid>.json`.
//!
//! A record that this program cannot read is never removed and never overwritten while machines run in its VPC.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::net::error::{NetworkError, file};
use crate::net::names::Names;
use crate::net::network::{PortSpec, VpcSpec};
use crate::uid::Uid;

/// Version of the format. To be raised when an older program would misread a record; a field that may be absent needs no new one.
const VERSION: u32 = 2;

/// The desired state of a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(default = "first_version")]
    version: u32,
    pub(super) vpc: VpcSpec,
    /// By the machine's uid.
    pub(super) ports: BTreeMap<String, PortSpec>,
    /// The number of its pair in the transit range.
    pub(super) transit_slot: Option<u32>,
    /// Specifications before a change, until the kernel has nothing of them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) previous: Vec<VpcSpec>,
}

/// Records without a version are of the first one.
fn first_version() -> u32 {
    1
}

#[derive(Deserialize)]
struct Version {
    #[serde(default = "first_version")]
    version: u32,
}

impl Record {
    /// A VPC without ports.
    pub(super) fn new(vpc: &VpcSpec) -> Self {
        Self { version: VERSION, vpc: masked(vpc), ports: BTreeMap::new(), transit_slot: None, previous: Vec::new() }
    }

    /// Changes the desired state of the VPC.
    pub(super) fn set_vpc(&mut self, vpc: &VpcSpec) {
        let vpc = masked(vpc);
        if self.vpc != vpc {
            self.previous.retain(|before| *before != vpc);
            self.previous.push(std::mem::replace(&mut self.vpc, vpc));
        }
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, NetworkError> {
        let invalid = |source| NetworkError::InvalidRecord { path: path.to_owned(), source };
        let Version { version } = serde_json::from_slice(bytes).map_err(invalid)?;
        if version > VERSION {
            return Err(NetworkError::NewerRecord { path: path.to_owned(), found: version, known: VERSION });
        }
        let mut record: Self = serde_json::from_slice(bytes).map_err(invalid)?;
        record.vpc.uid.parse::<Uid>()?;
        record.version = VERSION;
        Ok(record)
    }
}

/// The subnet's own address in place of any other in it.
fn masked(vpc: &VpcSpec) -> VpcSpec {
    VpcSpec { subnet: vpc.subnet.trunc(), ..vpc.clone() }
}

/// The folder of records.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
    names: Names,
}

/// A file in the folder.
#[derive(Debug)]
pub(super) struct Entry {
    /// The file's name without its suffix: the VPC's uid, or a name that an earlier version made from a part of the uid's hash.
    pub(super) stem: String,
    pub(super) outcome: Result<Record, NetworkError>,
}

impl Records {
    pub(super) fn open(folder: PathBuf, names: Names) -> Result<Self, NetworkError> {
        fs::create_dir_all(&folder).map_err(file("create folder", &folder))?;
        Ok(Self { folder, names })
    }

    /// Reads everything in the folder; a record that cannot be read is an entry like others.
    pub(super) fn list(&self) -> Result<Vec<Entry>, NetworkError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(file("list folder", &self.folder))? {
            let path = entry.map_err(file("list folder", &self.folder))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            // Names with a dot are files that were being written.
            if stem.starts_with('.') || path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let outcome = fs::read(&path).map_err(file("read", &path)).and_then(|bytes| Record::parse(&bytes, &path));
            found.push(Entry { stem, outcome });
        }
        Ok(found)
    }

    /// Reads the record of a VPC, under its uid or under the name that an earlier version gave it; `None` if it has none.
    pub(super) fn load(&self, uid: &Uid) -> Result<Option<Record>, NetworkError> {
        for path in [self.path(uid), self.legacy_path(uid)] {
            let Some(bytes) = crate::io::read_if_present(&path).map_err(file("read", &path))? else { continue };
            let record = Record::parse(&bytes, &path)?;
            // The name of an earlier version may be another VPC's.
            if record.vpc.uid == uid.as_str() {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Whether the name that an earlier version would have used for a VPC is another VPC's.
    pub(super) fn legacy_is_others(&self, uid: &Uid) -> bool {
        let path = self.legacy_path(uid);
        let record = fs::read(&path).ok().and_then(|bytes| Record::parse(&bytes, &path).ok());
        record.is_some_and(|record| record.vpc.uid != uid.as_str())
    }

    /// Writes a record in one step, and removes the file under the earlier name.
    pub(super) fn keep(&self, uid: &Uid, record: &Record) -> Result<(), NetworkError> {
        let path = self.path(uid);
        let bytes =
            serde_json::to_vec(record).map_err(|source| NetworkError::InvalidRecord { path: path.clone(), source })?;
        if fs::read(&path).is_ok_and(|standing| standing == bytes) {
            return Ok(());
        }
        let temporary = self.folder.join(format!(".{uid}.new"));
        crate::io::replace_file(&path, &temporary, &bytes).map_err(file("write", &path))?;
        self.remove_legacy(uid)
    }

    pub(super) fn remove(&self, uid: &Uid) -> Result<(), NetworkError> {
        let path = self.path(uid);
        crate::io::remove_file(&path).map_err(file("remove", &path))?;
        self.remove_legacy(uid)
    }

    pub(super) fn remove_all(&self) -> Result<(), NetworkError> {
        crate::io::remove_tree(&self.folder).map_err(file("remove", &self.folder))
    }

    fn remove_legacy(&self, uid: &Uid) -> Result<(), NetworkError> {
        let path = self.legacy_path(uid);
        // One that cannot be read was recovered from: its namespace is this VPC's now.
        if self.legacy_is_others(uid) {
            return Ok(());
        }
        crate::io::remove_file(&path).map_err(file("remove", &path))
    }

    fn path(&self, uid: &Uid) -> PathBuf {
        self.folder.join(format!("{uid}.json"))
    }

    fn legacy_path(&self, uid: &Uid) -> PathBuf {
        self.folder.join(format!("{}.json", self.names.legacy_netns(uid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vpc(subnet: &str) -> VpcSpec {
        VpcSpec { uid: "a".into(), subnet: subnet.parse().unwrap(), gateway: "10.0.0.1".parse().unwrap() }
    }

    fn records() -> (tempfile::TempDir, Records, Uid) {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path().to_owned(), Names::new("evroc")).unwrap();
        (folder, records, "a".parse().unwrap())
    }

    #[test]
    fn a_record_of_the_first_version_is_read_and_moves_to_its_uid() {
        let (folder, records, uid) = records();
        let legacy = folder.path().join(format!("{}.json", Names::new("evroc").legacy_netns("a")));
        let text = r#"{"vpc":{"uid":"a","subnet":"10.0.0.0/24","gateway":"10.0.0.1"},"ports":{},"transit_slot":5}"#;
        fs::write(&legacy, text).unwrap();
        let record = records.load(&uid).unwrap().unwrap();
        assert_eq!((record.version, record.transit_slot), (VERSION, Some(5)));
        records.keep(&uid, &record).unwrap();
        assert!(!legacy.exists() && folder.path().join("a.json").exists());
        assert_eq!(records.load(&uid).unwrap(), Some(record));
        // The file of another VPC whose hash begins alike is not this one's.
        fs::write(&legacy, text.replace(r#""a""#, r#""other""#)).unwrap();
        records.remove(&uid).unwrap();
        assert_eq!(records.load(&uid).unwrap(), None);
        assert!(legacy.exists());
    }

    #[test]
    fn a_newer_record_and_a_damaged_one_are_distinguished_and_listed() {
        let (folder, records, uid) = records();
        let path = folder.path().join("a.json");
        fs::write(&path, r#"{"version":99,"shape":"unknown"}"#).unwrap();
        assert!(matches!(records.load(&uid), Err(NetworkError::NewerRecord { found: 99, .. })));
        fs::write(&path, r#"{"version":2,"#).unwrap();
        assert!(matches!(records.load(&uid), Err(NetworkError::InvalidRecord { .. })));
        fs::write(folder.path().join(".b.new"), "half").unwrap();
        let all = records.list().unwrap();
        assert!(all.len() == 1 && all[0].stem == "a" && all[0].outcome.is_err(), "{all:?}");
    }

    #[test]
    fn a_subnet_is_masked_and_a_change_remembers_what_is_in_the_kernel() {
        let mut record = Record::new(&vpc("10.0.0.7/24"));
        assert_eq!(record.vpc.subnet.to_string(), "10.0.0.0/24");
        record.set_vpc(&vpc("10.0.0.9/24"));
        assert_eq!(record.previous, []);
        record.set_vpc(&vpc("10.0.0.0/16"));
        record.set_vpc(&vpc("10.0.0.0/24"));
        let previous: Vec<_> = record.previous.iter().map(|vpc| vpc.subnet.to_string()).collect();
        assert_eq!(previous, ["10.0.0.0/16"], "a range that is wanted again is not cleaned up");
    }
}
