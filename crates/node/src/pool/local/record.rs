//! `volume.json`: the facts about a volume beside its file.

use std::io;
use std::path::{Path, PathBuf};

use evroc_vmm::DiskFormat;
use serde::{Deserialize, Serialize};

use super::sync;
use crate::io::read_if_present;
use crate::pool::{PoolError, PoolVolume};

/// The version that this program writes. A record of a higher one may mean what this program does not know, so it is left alone.
const VERSION: u32 = 1;
const NAME: &str = "volume.json";

/// A volume's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// The version that wrote it; the first wrote none.
    #[serde(default = "first_version")]
    pub version: u32,
    pub uid: String,
    /// Name of the image that it was cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The file that it is based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    pub size_bytes: u64,
}

fn first_version() -> u32 {
    1
}

/// The fields of every version of a record.
#[derive(Deserialize)]
struct AnyVersion {
    #[serde(default = "first_version")]
    version: u32,
}

impl Record {
    pub fn new(uid: &str, image: Option<String>, base: Option<PathBuf>, size_bytes: u64) -> Self {
        Self { version: VERSION, uid: uid.to_owned(), image, base, size_bytes }
    }

    pub fn volume(&self) -> PoolVolume {
        PoolVolume { uid: self.uid.clone(), image: self.image.clone(), size_bytes: self.size_bytes }
    }

    pub fn format(&self) -> DiskFormat {
        DiskFormat::Qcow2 { backing: self.base.clone() }
    }

    /// Reads the record in a volume's folder; `None` if there is none.
    pub fn read(folder: &Path, uid: &str) -> Result<Option<Self>, PoolError> {
        let path = folder.join(NAME);
        let read = read_if_present(&path).map_err(|source| PoolError::Io {
            uid: uid.into(),
            operation: "read",
            path: path.clone(),
            source,
        });
        let Some(text) = read? else { return Ok(None) };
        let unreadable = |source| PoolError::Record { uid: uid.into(), path: path.clone(), source };
        let AnyVersion { version } = serde_json::from_slice(&text).map_err(unreadable)?;
        if version > VERSION {
            return Err(PoolError::Newer { uid: uid.into(), found: version, known: VERSION });
        }
        serde_json::from_slice(&text).map(Some).map_err(unreadable)
    }

    /// Writes the record in a volume's folder, whole or not at all.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let (temporary, path) = (folder.join(".volume.json.new"), folder.join(NAME));
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        sync(&temporary)?;
        std::fs::rename(temporary, path)?;
        sync(folder)
    }
}
