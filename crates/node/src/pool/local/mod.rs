//! The pool of this host's own disk: `volumes/<uid>/{disk.qcow2,volume.json}`, qcow2 over an image or over nothing.
//!
//! Making a volume is one rename at the end, so that a volume either exists whole or not at all; making it again is adoption.
//! A volume belongs to root (0600) unless a machine has it: then its file belongs to that machine's user, and no other guest's
//! hypervisor can open it.
//!
//! A volume's header was written by a guest's hypervisor, so it is not trusted: what reads or changes it runs as
//! [`LocalPool`]'s tool user and not as root, refuses a header that names any file but the volume's base, and does so only while
//! no other process can write to the file.

mod lock;
mod record;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use evroc_vmm::{DiskSource, ImageTool};
use tokio::sync::{OwnedMutexGuard, RwLock};

use self::record::Record;
use super::{
    Abilities, Base, Fence, Growth, Holder, ImageRef, Listing, NewVolume, Owner, Pool, PoolError, PoolVolume, Usage,
    check_new, check_same, check_uid, must_grow,
};
use crate::image::ImageStore;
use crate::io::remove_tree;

/// The volumes on a host's own disk. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct LocalPool {
    folder: PathBuf,
    images: ImageStore,
    tool: ImageTool,
    /// The user that `qemu-img` changes volumes as; `None` (tests without root): the caller.
    tool_user: Option<Owner>,
    /// Held for reading from finding a base until the volume that is based on it has its name; for writing while bases are removed.
    bases: Arc<RwLock<()>>,
    turns: Turns,
}

/// One change of a volume at a time.
#[derive(Clone, Debug, Default)]
struct Turns(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl Turns {
    async fn take(&self, uid: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(uid.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

impl LocalPool {
    /// Volumes in `folder`, which is made if missing. What an interrupted call left is removed; what cannot be removed stays.
    pub fn open(folder: impl Into<PathBuf>, images: ImageStore, tool_user: Option<Owner>) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.')
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::error!(path = %entry.path().display(), %error, "cannot remove the rest of a volume");
            }
        }
        let tool = match tool_user {
            Some(owner) => images.tool().clone().as_user(owner.uid, owner.gid),
            None => images.tool().clone(),
        };
        Ok(Self { folder, images, tool, tool_user, bases: Arc::default(), turns: Turns::default() })
    }

    /// The file of a volume.
    pub fn path(&self, uid: &str) -> PathBuf {
        self.folder.join(uid).join("disk.qcow2")
    }

    fn record(&self, uid: &str) -> Result<Option<Record>, PoolError> {
        check_uid(uid)?;
        let Some(record) = Record::read(&self.folder.join(uid), uid)? else { return Ok(None) };
        // A record without its file is a volume that is lost, as one without either.
        let path = self.path(uid);
        Ok(path.try_exists().map_err(self.failed(uid, "find", &path))?.then_some(record))
    }

    fn existing(&self, uid: &str) -> Result<Record, PoolError> {
        self.record(uid)?.ok_or_else(|| PoolError::Unknown { uid: uid.to_owned() })
    }

    async fn make(&self, wanted: &NewVolume) -> Result<PoolVolume, PoolError> {
        let uid = &wanted.uid;
        let _bases = self.bases.read().await;
        let (base, path) = match &wanted.image {
            Some(image) => {
                let image = self.images.get(&image.name, image.sha256.as_deref()).await?;
                (Some(base_of(&image.facts)), Some(image.base))
            }
            None => (None, None),
        };
        check_new(wanted, base.as_ref())?;
        let record = Record::new(uid, base.map(|base| base.image), path, wanted.size_bytes);
        let temporary = self.folder.join(format!(".{uid}.new"));
        remove_tree(&temporary).map_err(self.failed(uid, "remove", &temporary))?;
        std::fs::create_dir(&temporary).map_err(self.failed(uid, "create", &temporary))?;
        let made = self.fill(&record, &temporary).await;
        if made.is_err()
            && let Err(error) = std::fs::remove_dir_all(&temporary)
        {
            tracing::warn!(uid, %error, "cannot remove a volume that could not be made");
        }
        made?;
        std::fs::rename(&temporary, self.folder.join(uid)).map_err(self.failed(uid, "name", &temporary))?;
        sync(&self.folder).map_err(self.failed(uid, "sync", &self.folder))?;
        Ok(record.volume())
    }

    /// A new file has the header that this writes, so root may make it.
    async fn fill(&self, record: &Record, folder: &Path) -> Result<(), PoolError> {
        let disk = folder.join("disk.qcow2");
        let made = match &record.base {
            Some(base) => self.images.tool().create_clone(&disk, base, record.size_bytes).await,
            None => self.images.tool().create_blank(&disk, record.size_bytes).await,
        };
        made.map_err(|source| PoolError::Tool { uid: record.uid.clone(), source })?;
        let finish = || {
            std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o600))?;
            sync(&disk)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
            record.write(folder)
        };
        finish().map_err(self.failed(&record.uid, "write", folder))
    }

    fn chown(&self, uid: &str, owner: Option<Owner>) -> Result<(), PoolError> {
        let path = self.path(uid);
        // Without root there is one user only, and nothing to hand over.
        let Owner { uid: user, gid } = match owner {
            Some(owner) => owner,
            None if rustix::process::geteuid().is_root() => Owner { uid: 0, gid: 0 },
            None => return Ok(()),
        };
        chown(&path, Some(user), Some(gid)).map_err(self.failed(uid, "hand over", &path))
    }

    fn held(&self, uid: &str) -> Result<Option<Holder>, PoolError> {
        let path = self.path(uid);
        let failed = |operation| self.failed(uid, operation, &path);
        if lock::is_locked(&path).map_err(failed("look for the lock of"))? {
            return Ok(Some(Holder { name: "a hypervisor that has the image lock".into(), has_it_open: true }));
        }
        let owner = path.metadata().map_err(failed("look at"))?.uid();
        let own = [Some(rustix::process::geteuid().as_raw()), self.tool_user.map(|user| user.uid)];
        if own.contains(&Some(owner)) {
            return Ok(None);
        }
        Ok(Some(Holder { name: format!("the machine of user {owner}"), has_it_open: false }))
    }

    /// Refuses while a hypervisor has the volume open.
    fn refuse_open(&self, uid: &str) -> Result<(), PoolError> {
        match self.held(uid)? {
            Some(holder) if holder.has_it_open => Err(PoolError::Held { uid: uid.to_owned(), holder: holder.name }),
            _ => Ok(()),
        }
    }

    fn names(&self) -> Result<BTreeSet<String>, PoolError> {
        let names = || -> io::Result<BTreeSet<String>> {
            let names = std::fs::read_dir(&self.folder)?;
            names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        let names = names().map_err(self.failed("", "list", &self.folder))?;
        Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    fn failed(&self, uid: &str, operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PoolError + use<> {
        let (uid, path) = (uid.to_owned(), path.to_owned());
        move |source| PoolError::Io { uid, operation, path, source }
    }
}

#[async_trait]
impl Pool for LocalPool {
    fn abilities(&self) -> Abilities {
        Abilities { is_host_bound: true, fence: Fence::None, can_grow_online: true, can_migrate_shared: false }
    }

    async fn ensure_base(&self, image: &ImageRef) -> Result<Base, PoolError> {
        let _bases = self.bases.read().await;
        Ok(base_of(&self.images.get(&image.name, image.sha256.as_deref()).await?.facts))
    }

    async fn create(&self, wanted: &NewVolume) -> Result<PoolVolume, PoolError> {
        check_uid(&wanted.uid)?;
        let _turn = self.turns.take(&wanted.uid).await;
        match self.record(&wanted.uid)? {
            Some(record) => check_same(&record.volume(), wanted).map(|()| record.volume()),
            None => self.make(wanted).await,
        }
    }

    async fn look(&self, uid: &str) -> Result<Option<PoolVolume>, PoolError> {
        Ok(self.record(uid)?.map(|record| record.volume()))
    }

    async fn grow(&self, uid: &str, size_bytes: u64) -> Result<Growth, PoolError> {
        check_uid(uid)?;
        let _turn = self.turns.take(uid).await;
        let record = self.existing(uid)?;
        if !must_grow(&record.volume(), size_bytes)? {
            return Ok(Growth::Done(record.volume()));
        }
        if let Some(holder) = self.held(uid)? {
            return Ok(Growth::ByHolder(holder));
        }
        if self.tool_user.is_some() {
            self.chown(uid, self.tool_user)?;
        }
        let grown = self.tool.grow(&self.path(uid), &record.format(), size_bytes).await;
        self.chown(uid, None)?;
        grown.map_err(|source| PoolError::Tool { uid: uid.to_owned(), source })?;
        let grown = Record { size_bytes, ..record };
        let folder = self.folder.join(uid);
        grown.write(&folder).map_err(self.failed(uid, "write", &folder))?;
        Ok(Growth::Done(grown.volume()))
    }

    async fn grown(&self, uid: &str, size_bytes: u64) -> Result<PoolVolume, PoolError> {
        check_uid(uid)?;
        let _turn = self.turns.take(uid).await;
        let record = self.existing(uid)?;
        if !must_grow(&record.volume(), size_bytes)? {
            return Ok(record.volume());
        }
        let grown = Record { size_bytes, ..record };
        let folder = self.folder.join(uid);
        grown.write(&folder).map_err(self.failed(uid, "write", &folder))?;
        Ok(grown.volume())
    }

    async fn delete(&self, uid: &str) -> Result<(), PoolError> {
        check_uid(uid)?;
        let _turn = self.turns.take(uid).await;
        let (folder, doomed) = (self.folder.join(uid), self.folder.join(format!(".{uid}.deleted")));
        match self.refuse_open(uid) {
            Err(PoolError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
        // The leftover of an interrupted deletion has the name that this one needs.
        remove_tree(&doomed).map_err(self.failed(uid, "remove", &doomed))?;
        // The name goes first: half a volume must not be found.
        match std::fs::rename(&folder, &doomed) {
            Ok(()) => sync(&self.folder).map_err(self.failed(uid, "sync", &self.folder))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.failed(uid, "remove", &folder)(error)),
        }
        remove_tree(&doomed).map_err(self.failed(uid, "remove", &doomed))
    }

    async fn source(&self, uid: &str, user: Option<Owner>) -> Result<DiskSource, PoolError> {
        check_uid(uid)?;
        let _turn = self.turns.take(uid).await;
        let record = self.existing(uid)?;
        self.refuse_open(uid)?;
        self.chown(uid, user)?;
        Ok(DiskSource::File { path: self.path(uid), format: record.format() })
    }

    async fn release(&self, uid: &str) -> Result<(), PoolError> {
        check_uid(uid)?;
        let _turn = self.turns.take(uid).await;
        match self.chown(uid, None) {
            Err(PoolError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    async fn holder(&self, uid: &str) -> Result<Option<Holder>, PoolError> {
        self.existing(uid)?;
        self.held(uid)
    }

    async fn usage(&self) -> Result<Usage, PoolError> {
        let disk = rustix::fs::statvfs(&self.folder)
            .map_err(|error| self.failed("", "measure", &self.folder)(error.into()))?;
        let mut usage = Usage {
            capacity_bytes: disk.f_blocks * disk.f_frsize,
            free_bytes: disk.f_bavail * disk.f_frsize,
            ..Usage::default()
        };
        for uid in self.names()? {
            // One that vanishes meanwhile, or that cannot be read, occupies nothing that could be promised.
            usage.occupied_bytes += self.path(&uid).metadata().map_or(0, |file| file.blocks() * 512);
            usage.provisioned_bytes += self.record(&uid).ok().flatten().map_or(0, |record| record.size_bytes);
        }
        Ok(usage)
    }

    async fn list(&self) -> Result<Listing, PoolError> {
        let mut listing = Listing::default();
        for uid in self.names()? {
            match self.record(&uid) {
                Ok(Some(record)) => drop(listing.volumes.insert(uid, record.volume())),
                Ok(None) => {
                    let error = PoolError::Invalid {
                        uid: uid.clone(),
                        expected: "volume.json and disk.qcow2",
                        found: "a folder without both".into(),
                    };
                    listing.unreadable.insert(uid, error);
                }
                Err(error) => drop(listing.unreadable.insert(uid, error)),
            }
        }
        Ok(listing)
    }

    async fn remove_unused_bases(&self) -> Result<Vec<String>, PoolError> {
        let _bases = self.bases.write().await;
        let mut in_use = BTreeSet::new();
        for uid in self.names()? {
            in_use.extend(self.existing(&uid)?.base);
        }
        let removed = self.images.remove_unused_bases(&in_use).await?;
        Ok(removed.iter().map(|path| path.display().to_string()).collect())
    }
}

fn base_of(facts: &crate::image::ImageFacts) -> Base {
    Base { image: facts.name.clone(), sha256: facts.sha256.clone(), virtual_size_bytes: facts.virtual_size_bytes }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
