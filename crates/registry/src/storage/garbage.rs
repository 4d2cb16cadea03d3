//! Removing what nothing refers to any more.
//!
//! ```text
//! mark   repository by repository, each alone: blobs that no manifest names lose their link after the grace period,
//!        all other links are noted
//! sweep  folder by folder (1/256 of the content), each alone: content that is not noted is removed after the grace period
//! ```
//! Pushes wait for one repository or one folder, not for the whole collection. What a push links in the meantime is noted as well (see
//! [`Storage::note_link`]), so that content is never removed below a link, whatever the grace period is. A collection that is cut off by a
//! crash has removed unneeded links or content; the next one begins again.
//!
//! Manifests are kept, also those without a tag: images are pulled by digest, and a revision keeps its digest when the tag moves on.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::{Storage, files, lock};
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
    /// Repositories that had nothing left.
    pub repositories: usize,
}

impl Storage {
    /// Removes blobs that no manifest of their repository refers to and that came there longer than `grace` ago (a
    /// push sends blobs first), then all content that no repository has.
    pub fn collect_garbage(&self, grace: Duration) -> Result<GarbageReport, RegistryError> {
        let _one_at_a_time = lock(&self.collecting);
        self.begin_collection();
        let collected = self.mark(grace).and_then(|(report, needed)| self.sweep(report, &needed, grace));
        *lock(&self.linked) = None;
        collected
    }

    /// Has links noted from now on.
    pub(super) fn begin_collection(&self) {
        // Alone, so that no push is between its note and its link.
        let _alone = self.references.write().unwrap_or_else(PoisonError::into_inner);
        *lock(&self.linked) = Some(HashSet::new());
    }

    /// Notes that something refers to a digest, for a collection that is under way. The caller holds the references.
    pub(super) fn note_link(&self, digest: &Digest) {
        if let Some(linked) = &mut *lock(&self.linked) {
            linked.insert(digest.clone());
        }
    }

    pub(super) fn mark(&self, grace: Duration) -> Result<(GarbageReport, HashSet<Digest>), RegistryError> {
        let mut report = GarbageReport::default();
        let mut needed = HashSet::new();
        for repository in self.repository_folders()? {
            let _alone = self.references.write().unwrap_or_else(PoisonError::into_inner);
            self.mark_repository(&repository, grace, &mut report, &mut needed)?;
        }
        Ok((report, needed))
    }

    fn mark_repository(
        &self,
        repository: &Repository,
        grace: Duration,
        report: &mut GarbageReport,
        needed: &mut HashSet<Digest>,
    ) -> Result<(), RegistryError> {
        let manifests = self.digests(&self.repository(repository).join("_manifests"))?;
        let referred = self.referred_blobs(repository, &manifests)?;
        let mut is_empty = manifests.is_empty();
        needed.extend(manifests);
        for digest in self.digests(&self.repository(repository).join("_blobs"))? {
            let link = self.blob_link(repository, &digest);
            let keep = match &referred {
                Some(referred) => referred.contains(&digest) || !is_older(&link, grace),
                None => true,
            };
            if keep {
                is_empty = false;
                needed.insert(digest);
            } else {
                files::remove(&link)?;
                report.links += 1;
            }
        }
        let folder = self.repository(repository);
        if is_empty && is_older(&folder, grace) {
            self.remove_repository(&folder)?;
            report.repositories += 1;
        }
        Ok(())
    }

    /// Removes the folder of an empty repository, and those around it that hold nothing else.
    fn remove_repository(&self, folder: &Path) -> Result<(), RegistryError> {
        let failed = |path: &Path, error| RegistryError::io(format!("remove {}", path.display()), error);
        for part in files::names(folder)?.iter().rev().filter(|part| part.starts_with('_')) {
            let part = folder.join(part);
            fs::remove_dir_all(&part).map_err(|error| failed(&part, error))?;
        }
        let repositories = self.root.join("repositories");
        let mut empty = Some(folder);
        while let Some(folder) = empty.filter(|folder| *folder != repositories) {
            match fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => break,
                Err(error) => return Err(failed(folder, error)),
            }
            empty = folder.parent();
        }
        files::sync_folder(empty.unwrap_or(&repositories))
    }

    pub(super) fn sweep(
        &self,
        mut report: GarbageReport,
        needed: &HashSet<Digest>,
        grace: Duration,
    ) -> Result<GarbageReport, RegistryError> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.root.join("blobs").join(algorithm.as_str());
            for shard in files::names(&folder)? {
                let _alone = self.references.write().unwrap_or_else(PoisonError::into_inner);
                for hex in files::names(&folder.join(&shard))? {
                    let Ok(digest) = format!("{}:{hex}", algorithm.as_str()).parse::<Digest>() else {
                        continue;
                    };
                    let path = self.content(&digest);
                    let is_linked = lock(&self.linked).as_ref().is_some_and(|linked| linked.contains(&digest));
                    if is_linked || needed.contains(&digest) || !is_older(&path, grace) {
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
