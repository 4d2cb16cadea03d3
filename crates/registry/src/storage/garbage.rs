//! Removing what nothing refers to any more.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::{Storage, files};
use crate::error::RegistryError;
use crate::manifest::Manifest;
use crate::names::{Algorithm, Digest, Reference, Repository};

/// The result of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbageReport {
    /// Blobs that repositories had but none of their manifests referred to.
    pub links: usize,
    /// Files of content.
    pub contents: usize,
    /// Bytes of content.
    pub bytes: u64,
}

impl Storage {
    /// Removes blobs that no manifest of their repository refers to and that came there longer than `grace` ago (a
    /// push sends blobs first), then all content that no repository has. Pushes wait meanwhile.
    pub fn collect_garbage(&self, grace: Duration) -> Result<GarbageReport, RegistryError> {
        let _exclusive = self.references.write().unwrap_or_else(PoisonError::into_inner);
        let mut report = GarbageReport::default();
        let mut needed = HashSet::new();
        for repository in self.repository_folders()? {
            let manifests = self.digests(&self.repository(&repository).join("_manifests"))?;
            let referred = self.referred_blobs(&repository, &manifests)?;
            needed.extend(manifests);
            for digest in self.digests(&self.repository(&repository).join("_blobs"))? {
                let link = self.blob_link(&repository, &digest);
                let keep = match &referred {
                    Some(referred) => referred.contains(&digest) || !is_older(&link, grace),
                    None => true,
                };
                if keep {
                    needed.insert(digest);
                } else {
                    files::remove(&link)?;
                    report.links += 1;
                }
            }
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.root.join("blobs").join(algorithm.as_str());
            for shard in files::names(&folder)? {
                for hex in files::names(&folder.join(&shard))? {
                    let Ok(digest) = format!("{}:{hex}", algorithm.as_str()).parse::<Digest>() else {
                        continue;
                    };
                    let path = self.content(&digest);
                    if needed.contains(&digest) || !is_older(&path, grace) {
                        continue;
                    }
                    report.bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
                    files::remove(&path)?;
                    report.contents += 1;
                }
            }
        }
        Ok(report)
    }

    /// Removes all repositories whose name begins with `prefix`, such as `demo/`.
    pub fn delete_repositories(&self, prefix: &str) -> Result<usize, RegistryError> {
        let _exclusive = self.references.write().unwrap_or_else(PoisonError::into_inner);
        let mut removed = 0;
        for repository in self.repository_folders()? {
            if !repository.as_str().starts_with(prefix) {
                continue;
            }
            let folder = self.repository(&repository);
            // Tags first, blobs last: everything that remains is complete.
            for name in files::names(&folder)?.iter().rev().filter(|name| name.starts_with('_')) {
                let path = folder.join(name);
                fs::remove_dir_all(&path)
                    .map_err(|error| RegistryError::io(format!("remove {}", path.display()), error))?;
            }
            files::sync_folder(&folder)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// The blobs that manifests refer to; `None` if one cannot be read, so that nothing is judged superfluous.
    fn referred_blobs(
        &self,
        repository: &Repository,
        manifests: &[Digest],
    ) -> Result<Option<HashSet<Digest>>, RegistryError> {
        let mut referred = HashSet::new();
        for digest in manifests {
            let parsed = self
                .manifest(repository, &Reference::Digest(digest.clone()))
                .and_then(|found| Manifest::parse(Some(&found.media_type), &found.content));
            match parsed {
                Ok(manifest) => referred.extend(manifest.blobs),
                Err(error) => {
                    tracing::warn!(%repository, %digest, %error, "manifest cannot be read, keeping all blobs of its repository");
                    return Ok(None);
                }
            }
        }
        Ok(Some(referred))
    }
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|elapsed| elapsed >= age))
}
