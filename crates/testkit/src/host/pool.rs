//! The storage pool of a simulated host: one in memory that can be made to misbehave.

use async_trait::async_trait;
use evroc_node::image::ImageError;
use evroc_node::pool::{
    Abilities, Base, DiskSource, Growth, Holder, ImageRef, Listing, MemoryPool, NewVolume, Owner, Pool, PoolError,
    PoolVolume, Usage,
};
use tokio::sync::watch;

use super::Behaviour;

/// A pool in memory, with a host's misbehaviour planted into it.
#[derive(Clone, Debug)]
pub(super) struct SimPool {
    pub inner: MemoryPool,
    pub behaviour: watch::Receiver<Behaviour>,
}

impl SimPool {
    /// Waits while the host does not do this.
    async fn wait_while(&self, does_not: impl Fn(&Behaviour) -> bool) {
        // The sender is dropped with the host: then the outcome has no receiver.
        let _ = self.behaviour.clone().wait_for(|behaviour| !does_not(behaviour)).await;
    }

    fn refuse_missing(&self, image: Option<&ImageRef>) -> Result<(), PoolError> {
        let behaviour = self.behaviour.borrow();
        match image.filter(|image| behaviour.missing_images.contains(&image.name)) {
            Some(image) => Err(ImageError::Unknown { name: image.name.clone(), known: "none".into() }.into()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Pool for SimPool {
    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    async fn ensure_base(&self, image: &ImageRef) -> Result<Base, PoolError> {
        self.refuse_missing(Some(image))?;
        self.inner.ensure_base(image).await
    }

    async fn create(&self, wanted: &NewVolume) -> Result<PoolVolume, PoolError> {
        self.wait_while(|behaviour| behaviour.volumes_never_ready).await;
        self.refuse_missing(wanted.image.as_ref())?;
        self.inner.create(wanted).await
    }

    async fn look(&self, uid: &str) -> Result<Option<PoolVolume>, PoolError> {
        if self.behaviour.borrow().pool_cannot_look {
            let source = std::io::Error::other("planted by a test");
            return Err(PoolError::Io { uid: uid.to_owned(), operation: "read", path: "/memory".into(), source });
        }
        self.inner.look(uid).await
    }

    async fn grow(&self, uid: &str, size_bytes: u64) -> Result<Growth, PoolError> {
        self.inner.grow(uid, size_bytes).await
    }

    async fn grown(&self, uid: &str, size_bytes: u64) -> Result<PoolVolume, PoolError> {
        self.inner.grown(uid, size_bytes).await
    }

    async fn delete(&self, uid: &str) -> Result<(), PoolError> {
        self.wait_while(|behaviour| behaviour.volumes_never_go).await;
        self.inner.delete(uid).await
    }

    async fn source(&self, uid: &str, user: Option<Owner>) -> Result<DiskSource, PoolError> {
        self.inner.source(uid, user).await
    }

    async fn release(&self, uid: &str) -> Result<(), PoolError> {
        self.inner.release(uid).await
    }

    async fn holder(&self, uid: &str) -> Result<Option<Holder>, PoolError> {
        self.inner.holder(uid).await
    }

    async fn usage(&self) -> Result<Usage, PoolError> {
        self.inner.usage().await
    }

    async fn list(&self) -> Result<Listing, PoolError> {
        self.inner.list().await
    }

    async fn remove_unused_bases(&self) -> Result<Vec<String>, PoolError> {
        self.inner.remove_unused_bases().await
    }
}
