//! The machine's record of an instance: `/var/lib/evroc-instances/<name>.json`, readable by everybody, written by the supervisor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evroc_iam::files::{self, FileError};
use evroc_iam::leaf::ROLE_LIFE;
use serde::{Deserialize, Serialize};

use super::{INSTANCES_DIR, InstanceName, Layout};
use crate::ports::PortChoice;
use crate::process::ProcessId;
use crate::roles::{DEFAULT_UPLINK, EtcdSettings, FIRST_ZONE, SCALE_TO_ZERO_SECONDS};

/// First uid that instances use. High enough that no user database or container tool's default range is near; below 2^31, because some
/// tools read uids as signed numbers.
const FIRST_UID: u32 = 1_900_000_000;
/// How many uids an instance owns: two roles and one user per guest.
const UIDS: u32 = 65_536;
/// Version of the record.
const VERSION: u32 = 1;

/// A range of user (and group) ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidRange {
    /// First id.
    pub base: u32,
    /// How many.
    pub count: u32,
}

impl UidRange {
    /// The user of role `control`.
    pub fn control(self) -> u32 {
        self.base + 1
    }

    /// The user of role `edge`.
    pub fn edge(self) -> u32 {
        self.base + 2
    }

    /// Whether an id is in the range.
    pub fn contains(self, uid: u32) -> bool {
        uid >= self.base && uid - self.base < self.count
    }

    fn overlaps(self, other: Self) -> bool {
        u64::from(self.base) < u64::from(other.base) + u64::from(other.count)
            && u64::from(other.base) < u64::from(self.base) + u64::from(self.count)
    }
}

/// The two ports of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Kubernetes-style API.
    pub api: PortChoice,
    /// HTTPS gateway.
    pub https: PortChoice,
}

/// The user who owns the written files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFiles {
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// `~/.evroc/<instance>`.
    pub folder: PathBuf,
}

/// One instance's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceRecord {
    /// Version of this file.
    pub version: u32,
    /// Name.
    pub instance: String,
    /// Version of the evrocd that wrote it.
    pub evrocd: String,
    /// Parent of the state folder.
    pub state_root: PathBuf,
    /// Users of the instance.
    pub uids: UidRange,
    /// Ports, once chosen.
    #[serde(default)]
    pub ports: Option<Ports>,
    /// Domain of the fixed names and services.
    pub domain: String,
    /// Whether /etc/hosts has the fixed names.
    pub hosts_block: bool,
    /// Folder of built images that is imported at start.
    #[serde(default)]
    pub image_dir: Option<PathBuf>,
    /// Folder of CustomResourceDefinitions whose kinds are served too.
    #[serde(default)]
    pub crd_dir: Option<PathBuf>,
    /// How long a service without requests keeps its last container.
    #[serde(default = "default_scale_to_zero")]
    pub scale_to_zero_seconds: u64,
    /// Life of the certificates of roles.
    #[serde(default = "default_leaf_life")]
    pub leaf_life_seconds: u64,
    /// The zone of this host.
    #[serde(default = "default_zone")]
    pub zone: String,
    /// The way out of VPCs: `none`, `host`, or `netns:<path>`.
    #[serde(default = "default_uplink")]
    pub uplink: String,
    /// The collector of traces.
    #[serde(default)]
    pub otlp_endpoint: Option<String>,
    /// The etcd that holds the state, with the paths that the operator gave; without it, the embedded store does.
    #[serde(default)]
    pub etcd: Option<EtcdSettings>,
    /// Users who got a kubeconfig and a key.
    #[serde(default)]
    pub user_files: Vec<UserFiles>,
    /// Boot that the processes below belong to.
    #[serde(default)]
    pub boot_id: String,
    /// The supervisor, while one runs or after one died.
    #[serde(default)]
    pub supervisor: Option<ProcessId>,
    /// Role processes by role name.
    #[serde(default)]
    pub roles: BTreeMap<String, ProcessId>,
}

fn default_scale_to_zero() -> u64 {
    SCALE_TO_ZERO_SECONDS
}

fn default_leaf_life() -> u64 {
    ROLE_LIFE.as_secs()
}

fn default_uplink() -> String {
    DEFAULT_UPLINK.to_owned()
}

fn default_zone() -> String {
    FIRST_ZONE.to_owned()
}

/// The reason why a record could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file cannot be understood.
    #[error(
        "{} is damaged ({reason}); it holds the instance's ports and users: put it back from a backup, or remove it together with the state folder",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// All ranges are taken.
    #[error(
        "no free range of {UIDS} user ids from {FIRST_UID} upward: remove unused instances with `evrocd down --purge --instance NAME` (see {INSTANCES_DIR})"
    )]
    NoUids,
}

impl InstanceRecord {
    /// A new record; ports are chosen later, when they are bound.
    pub fn new(instance: &InstanceName, state_root: &Path, uid_base: u32, domain: &str) -> Self {
        Self {
            version: VERSION,
            instance: instance.to_string(),
            evrocd: env!("CARGO_PKG_VERSION").to_owned(),
            state_root: state_root.to_owned(),
            uids: UidRange { base: uid_base, count: UIDS },
            ports: None,
            domain: domain.to_owned(),
            hosts_block: true,
            image_dir: None,
            crd_dir: None,
            scale_to_zero_seconds: default_scale_to_zero(),
            leaf_life_seconds: default_leaf_life(),
            zone: default_zone(),
            uplink: default_uplink(),
            otlp_endpoint: None,
            etcd: None,
            user_files: Vec::new(),
            boot_id: String::new(),
            supervisor: None,
            roles: BTreeMap::new(),
        }
    }

    /// Returns the path of the record of `instance`.
    pub fn path(instance: &InstanceName) -> PathBuf {
        Path::new(INSTANCES_DIR).join(format!("{instance}.json"))
    }

    /// Reads the record of `instance`; `None` when there is none.
    pub fn load(instance: &InstanceName) -> Result<Option<Self>, RecordError> {
        read(&Self::path(instance))
    }

    /// Writes the record, atomically.
    pub fn save(&self) -> Result<(), FileError> {
        let path = Path::new(INSTANCES_DIR).join(format!("{}.json", self.instance));
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        files::write_atomic(&path, &bytes, 0o644, None)
    }

    /// Removes what interrupted writes of this record left. The caller holds the instance's lock, so no other process writes it now.
    pub fn remove_leftovers(instance: &InstanceName) -> Result<(), FileError> {
        let prefix = format!("{}{instance}.json-", files::TEMPORARY_PREFIX);
        for entry in std::fs::read_dir(INSTANCES_DIR).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                std::fs::remove_file(entry.path()).map_err(|source| FileError::new("remove", &entry.path(), source))?;
            }
        }
        Ok(())
    }

    /// Returns the paths of this instance's files.
    pub fn layout(&self) -> Layout {
        Layout { state: self.state_root.join(&self.instance), run: Path::new("/run").join(&self.instance) }
    }
}

fn read(path: &Path) -> Result<Option<InstanceRecord>, RecordError> {
    let Some(bytes) = files::read_if_exists(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| RecordError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// All records of the machine; damaged ones of other instances are skipped with a warning.
pub fn all_records() -> Result<Vec<InstanceRecord>, RecordError> {
    let folder = Path::new(INSTANCES_DIR);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(FileError::new("list", folder, source).into()),
    };
    let mut records = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "skipped an instance's record"),
        }
    }
    records.sort_by(|a, b| a.instance.cmp(&b.instance));
    Ok(records)
}

/// The first range of uids that overlaps neither another instance's nor a range that the system gave out (`/etc/subuid`: lines of
/// `name:first:count`).
pub fn choose_uid_base(taken: &[UidRange], subuid: &str) -> Result<u32, RecordError> {
    let mut ranges = taken.to_vec();
    ranges.extend(subuid.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        Some(UidRange { base: fields.next()?.trim().parse().ok()?, count: fields.next()?.trim().parse().ok()? })
    }));
    let mut base = FIRST_UID;
    loop {
        let candidate = UidRange { base, count: UIDS };
        if !ranges.iter().any(|range| range.overlaps(candidate)) {
            return Ok(base);
        }
        base = base.checked_add(UIDS).filter(|base| *base < i32::MAX as u32 - UIDS).ok_or(RecordError::NoUids)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_ranges_do_not_overlap() {
        let range = |base| UidRange { base, count: UIDS };
        let second = FIRST_UID + UIDS;
        for (taken, subuid, want) in [
            (vec![], "", FIRST_UID),
            (vec![range(FIRST_UID)], "", second),
            (vec![range(second)], "", FIRST_UID),
            (vec![range(FIRST_UID), range(second)], "", second + UIDS),
            (vec![], "joe:100000:65536\n", FIRST_UID),
            (vec![], "joe:1900000500:10\nnonsense\n", second),
            (vec![range(FIRST_UID + 5)], "", second + UIDS),
        ] {
            assert_eq!(choose_uid_base(&taken, subuid).unwrap(), want, "{taken:?} {subuid:?}");
        }
        let everything = UidRange { base: FIRST_UID, count: u32::MAX - FIRST_UID };
        assert!(matches!(choose_uid_base(&[everything], ""), Err(RecordError::NoUids)));
        assert!(range(FIRST_UID).contains(FIRST_UID + 1) && !range(FIRST_UID).contains(second));
    }

    #[test]
    fn a_record_survives_its_file() {
        let name: InstanceName = "x".parse().unwrap();
        let record = InstanceRecord::new(&name, Path::new("/var/lib"), FIRST_UID, "evroc.localhost");
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<InstanceRecord>(&text).unwrap(), record);
        assert_eq!(record.layout().program(), Path::new("/var/lib/x/bin/evrocd"));
    }
}
