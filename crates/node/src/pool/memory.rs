//! A pool without storage, for simulated hosts and tests: it keeps the promises of every pool, and nothing outlives the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use evroc_vmm::{DiskFormat, DiskSource};

use super::{
    Abilities, Base, Fence, Growth, Holder, ImageRef, Listing, NewVolume, Owner, Pool, PoolError, PoolVolume, Usage,
    check_new, check_same, check_uid, must_grow,
};
use crate::image::ImageError;

/// Volumes in memory. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct MemoryPool(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    capacity_bytes: u64,
    images: BTreeMap<String, Base>,
    /// Bases that were used, by digest.
    bases: BTreeSet<String>,
    volumes: BTreeMap<String, Volume>,
}

#[derive(Debug)]
struct Volume {
    volume: PoolVolume,
    base: Option<String>,
    handed_to: Option<Owner>,
    open_by: Option<String>,
}

impl Volume {
    fn holder(&self) -> Option<Holder> {
        match (&self.open_by, self.handed_to) {
            (Some(name), _) => Some(Holder { name: name.clone(), has_it_open: true }),
            (None, Some(owner)) => {
                Some(Holder { name: format!("the machine of user {}", owner.uid), has_it_open: false })
            }
            (None, None) => None,
        }
    }
}

impl MemoryPool {
    /// A pool of this size without images.
    pub fn new(capacity_bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(State { capacity_bytes, ..State::default() })))
    }

    /// Adds an image, or replaces the one of its name; volumes of the old one stay as they are.
    pub fn add_image(&self, image: Base) {
        self.state().images.insert(image.image.clone(), image);
    }

    /// Opens a volume as a hypervisor does, until [`Self::close`].
    ///
    /// # Errors
    /// If it is open already, or absent.
    pub fn open(&self, uid: &str, holder: &str) -> Result<(), PoolError> {
        let mut state = self.state();
        let volume = state.existing(uid)?;
        if let Some(other) = &volume.open_by {
            return Err(PoolError::Held { uid: uid.to_owned(), holder: other.clone() });
        }
        volume.open_by = Some(holder.to_owned());
        Ok(())
    }

    /// Closes a volume that [`Self::open`] opened.
    pub fn close(&self, uid: &str) {
        if let Some(volume) = self.state().volumes.get_mut(uid) {
            volume.open_by = None;
        }
    }

    /// Loses a volume, as a disk that breaks does.
    pub fn lose(&self, uid: &str) {
        self.state().volumes.remove(uid);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn existing(&mut self, uid: &str) -> Result<&mut Volume, PoolError> {
        check_uid(uid)?;
        self.volumes.get_mut(uid).ok_or_else(|| PoolError::Unknown { uid: uid.to_owned() })
    }

    fn base(&mut self, image: &ImageRef) -> Result<Base, PoolError> {
        let known = || self.images.keys().cloned().collect::<Vec<_>>().join(", ");
        let base = self
            .images
            .get(&image.name)
            .cloned()
            .ok_or_else(|| ImageError::Unknown { name: image.name.clone(), known: known() })?;
        if let Some(wanted) = image.sha256.clone().filter(|wanted| *wanted != base.sha256) {
            return Err(ImageError::OtherBytes { name: base.image, wanted, found: base.sha256 }.into());
        }
        self.bases.insert(base.sha256.clone());
        Ok(base)
    }
}

#[async_trait]
impl Pool for MemoryPool {
    fn abilities(&self) -> Abilities {
        Abilities { is_host_bound: true, fence: Fence::None, can_grow_online: true, can_migrate_shared: false }
    }

    async fn ensure_base(&self, image: &ImageRef) -> Result<Base, PoolError> {
        self.state().base(image)
    }

    async fn create(&self, wanted: &NewVolume) -> Result<PoolVolume, PoolError> {
        check_uid(&wanted.uid)?;
        let mut state = self.state();
        if let Some(found) = state.volumes.get(&wanted.uid) {
            return check_same(&found.volume, wanted).map(|()| found.volume.clone());
        }
        let base = wanted.image.as_ref().map(|image| state.base(image)).transpose()?;
        check_new(wanted, base.as_ref())?;
        let image = base.as_ref().map(|base| base.image.clone());
        let volume = PoolVolume { uid: wanted.uid.clone(), image, size_bytes: wanted.size_bytes };
        let base = base.map(|base| base.sha256);
        let made = Volume { volume: volume.clone(), base, handed_to: None, open_by: None };
        state.volumes.insert(wanted.uid.clone(), made);
        Ok(volume)
    }

    async fn look(&self, uid: &str) -> Result<Option<PoolVolume>, PoolError> {
        check_uid(uid)?;
        Ok(self.state().volumes.get(uid).map(|volume| volume.volume.clone()))
    }

    async fn grow(&self, uid: &str, size_bytes: u64) -> Result<Growth, PoolError> {
        let mut state = self.state();
        let volume = state.existing(uid)?;
        if !must_grow(&volume.volume, size_bytes)? {
            return Ok(Growth::Done(volume.volume.clone()));
        }
        if let Some(holder) = volume.holder() {
            return Ok(Growth::ByHolder(holder));
        }
        volume.volume.size_bytes = size_bytes;
        Ok(Growth::Done(volume.volume.clone()))
    }

    async fn grown(&self, uid: &str, size_bytes: u64) -> Result<PoolVolume, PoolError> {
        let mut state = self.state();
        let volume = state.existing(uid)?;
        if must_grow(&volume.volume, size_bytes)? {
            volume.volume.size_bytes = size_bytes;
        }
        Ok(volume.volume.clone())
    }

    async fn delete(&self, uid: &str) -> Result<(), PoolError> {
        check_uid(uid)?;
        let mut state = self.state();
        match state.volumes.get(uid).and_then(|volume| volume.open_by.clone()) {
            Some(holder) => Err(PoolError::Held { uid: uid.to_owned(), holder }),
            None => {
                state.volumes.remove(uid);
                Ok(())
            }
        }
    }

    async fn source(&self, uid: &str, user: Option<Owner>) -> Result<DiskSource, PoolError> {
        let mut state = self.state();
        let volume = state.existing(uid)?;
        if let Some(holder) = volume.open_by.clone() {
            return Err(PoolError::Held { uid: uid.to_owned(), holder });
        }
        volume.handed_to = user;
        Ok(DiskSource::File { path: format!("/memory/{uid}").into(), format: DiskFormat::Raw })
    }

    async fn release(&self, uid: &str) -> Result<(), PoolError> {
        check_uid(uid)?;
        if let Some(volume) = self.state().volumes.get_mut(uid) {
            volume.handed_to = None;
        }
        Ok(())
    }

    async fn holder(&self, uid: &str) -> Result<Option<Holder>, PoolError> {
        Ok(self.state().existing(uid)?.holder())
    }

    async fn usage(&self) -> Result<Usage, PoolError> {
        let state = self.state();
        let provisioned_bytes = state.volumes.values().map(|volume| volume.volume.size_bytes).sum();
        let capacity_bytes = state.capacity_bytes;
        Ok(Usage { capacity_bytes, free_bytes: capacity_bytes, occupied_bytes: 0, provisioned_bytes })
    }

    async fn list(&self) -> Result<Listing, PoolError> {
        let volumes = self.state().volumes.iter().map(|(uid, volume)| (uid.clone(), volume.volume.clone())).collect();
        Ok(Listing { volumes, unreadable: BTreeMap::new() })
    }

    async fn remove_unused_bases(&self) -> Result<Vec<String>, PoolError> {
        let mut state = self.state();
        let current = state.images.values().map(|image| image.sha256.clone());
        let used: BTreeSet<String> =
            current.chain(state.volumes.values().filter_map(|volume| volume.base.clone())).collect();
        let removed = state.bases.difference(&used).cloned().collect();
        state.bases.retain(|base| used.contains(base));
        Ok(removed)
    }
}
