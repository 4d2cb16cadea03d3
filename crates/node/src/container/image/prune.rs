//! Removes images and layers that nothing uses.
//!
//! In use is what the caller names, what a container is mounted from, and what was asked for a short time ago: a fetch that is on its
//! way marks its layers as used when it takes them, so it never loses one to a concurrent removal.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::error::{ImageError, disk};
use super::{ImageStore, Record};
use crate::container::digest::Digest;

/// How much was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Records of images.
    pub images: usize,
    /// Unpacked layers.
    pub layers: usize,
}

impl ImageStore {
    /// Removes images that are not in `images` and were not used for `grace`, and layers that neither a kept image nor one of the
    /// `mounted` folders is and that were not used for `grace` either. Blocking.
    pub fn prune(
        &self,
        images: &HashSet<Digest>,
        mounted: &HashSet<PathBuf>,
        grace: Duration,
    ) -> Result<Pruned, ImageError> {
        let mut pruned = Pruned::default();
        let mut used = HashSet::new();
        let kept: HashSet<PathBuf> = images.iter().map(|digest| self.record_path(*digest)).collect();
        let no_use = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for path in entries(&self.root.join("images"))? {
            match self.record(&path) {
                Some(Record { layers, .. }) if kept.contains(&path) || is_fresh(&path, grace) => used.extend(layers),
                _ => {
                    fs::remove_file(&path).map_err(disk("remove", &path))?;
                    pruned.images += 1;
                }
            }
        }
        drop(no_use);
        let used: HashSet<PathBuf> = used.into_iter().map(|blob| self.layer_path(blob)).collect();
        for path in entries(&self.root.join("layers"))? {
            let is_used = used.contains(&path)
                || mounted.contains(&path.join("tree"))
                // As an earlier release kept them.
                || mounted.contains(&path);
            if !is_used && self.discard_unless_busy(&path, grace)? {
                pruned.layers += 1;
            }
        }
        Ok(pruned)
    }

    fn discard_unless_busy(&self, path: &Path, grace: Duration) -> Result<bool, ImageError> {
        let doomed = self.temporary_path();
        {
            // Every user of a layer is in this map and marks the layer before it leaves.
            let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            if busy.keys().any(|blob| self.layer_path(*blob) == path) || is_fresh(&path.join("layer.json"), grace) {
                return Ok(false);
            }
            fs::rename(path, &doomed).map_err(disk("rename", path))?;
        }
        crate::container::remove_tree::remove_tree(&doomed).map_err(disk("remove", &doomed))?;
        Ok(true)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let entries = fs::read_dir(folder).map_err(disk("list folder", folder))?;
    entries.map(|entry| Ok(entry.map_err(disk("list folder", folder))?.path())).collect()
}

/// Whether a record was used less than `grace` ago.
fn is_fresh(path: &Path, grace: Duration) -> bool {
    let Ok(used) = fs::metadata(path).and_then(|meta| meta.modified()) else { return false };
    // One from the future was used just now, by another clock.
    SystemTime::now().duration_since(used).map_or(true, |age| age < grace)
}
