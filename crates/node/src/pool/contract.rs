//! The guarantees of every pool, as tests that run on each of them.

use super::memory::MemoryPool;
use super::*;

pub(super) const MIB: u64 = 1 << 20;
/// The image that every pool under test has: 8 MiB.
pub(super) const IMAGE: &str = "base";

/// A pool, and what can be done to it from outside.
#[async_trait]
pub(super) trait Bench: Send + Sync {
    /// The pool as it is now.
    fn pool(&self) -> Box<dyn Pool>;
    /// Replaces the image with another build.
    async fn replace_image(&self);
    /// A hypervisor opens a volume, until what this returns is dropped.
    fn open(&self, uid: &str) -> Box<dyn Send>;
    /// The volume's data vanishes.
    fn lose(&self, uid: &str);
}

fn image() -> ImageRef {
    ImageRef { name: IMAGE.into(), sha256: None }
}

fn blank(uid: &str) -> NewVolume {
    NewVolume { uid: uid.into(), image: None, size_bytes: MIB }
}

fn clone(uid: &str) -> NewVolume {
    NewVolume { uid: uid.into(), image: Some(image()), size_bytes: 16 * MIB }
}

async fn uids(pool: &dyn Pool) -> Vec<String> {
    pool.list().await.unwrap().volumes.into_keys().collect()
}

async fn making_a_volume_again_finds_it(bench: &dyn Bench) {
    let pool = bench.pool();
    assert_eq!(pool.look("v-1").await.unwrap(), None);
    let made = pool.create(&clone("v-1")).await.unwrap();
    let expected = PoolVolume { uid: "v-1".into(), image: Some(IMAGE.into()), size_bytes: 16 * MIB };
    assert_eq!(made, expected);
    assert_eq!(pool.create(&clone("v-1")).await.unwrap(), made);
    assert_eq!(pool.create(&NewVolume { size_bytes: 32 * MIB, ..clone("v-1") }).await.unwrap(), made, "as it was made");
    assert_eq!(pool.look("v-1").await.unwrap(), Some(made));
    assert_eq!(uids(&*pool).await, ["v-1"]);
    let error = pool.create(&blank("v-1")).await.unwrap_err();
    assert!(error.to_string().contains("the same image as when it was made"), "{error}");
}

async fn impossible_values_are_refused(bench: &dyn Bench) {
    let pool = bench.pool();
    let error = pool.create(&NewVolume { size_bytes: MIB, ..clone("v") }).await.unwrap_err();
    let text = "Disk is too small to contain disk image: image \"base\" needs 8388608 bytes, the disk has 1048576";
    assert_eq!(error.to_string(), text);
    let error = pool.create(&NewVolume { size_bytes: 0, ..blank("v") }).await.unwrap_err();
    assert_eq!(error.to_string(), "volume \"v\": expected a size, found 0 bytes");
    let unknown = ImageRef { name: "nope".into(), sha256: None };
    let error = pool.create(&NewVolume { image: Some(unknown), ..clone("v") }).await.unwrap_err();
    assert_eq!(error.to_string(), "disk image \"nope\" is not on this host, which has: base");
    let other = ImageRef { sha256: Some("0".repeat(64)), ..image() };
    let error = pool.create(&NewVolume { image: Some(other), ..clone("v") }).await.unwrap_err();
    assert!(error.to_string().starts_with("disk image \"base\" has other bytes on this host: expected"), "{error}");
    for uid in ["", "..", "a/b", ".hidden"] {
        assert!(pool.create(&blank(uid)).await.is_err(), "{uid:?}");
        assert!(pool.look(uid).await.is_err(), "{uid:?}");
        assert!(pool.delete(uid).await.is_err(), "{uid:?}");
    }
    assert!(uids(&*pool).await.is_empty());
}

async fn a_volume_is_deleted_once_and_for_all(bench: &dyn Bench) {
    let pool = bench.pool();
    pool.create(&clone("v")).await.unwrap();
    pool.delete("v").await.unwrap();
    pool.delete("v").await.unwrap();
    pool.release("v").await.unwrap();
    assert_eq!(pool.look("v").await.unwrap(), None);
    assert!(matches!(pool.source("v", None).await, Err(PoolError::Unknown { .. })));
    assert!(matches!(pool.holder("v").await, Err(PoolError::Unknown { .. })));
    assert!(matches!(pool.grow("v", 32 * MIB).await, Err(PoolError::Unknown { .. })));
    assert!(uids(&*pool).await.is_empty());
}

async fn a_volume_grows_and_never_shrinks(bench: &dyn Bench) {
    let pool = bench.pool();
    pool.create(&clone("v")).await.unwrap();
    for _ in 0..2 {
        let Growth::Done(grown) = pool.grow("v", 32 * MIB).await.unwrap() else { panic!("it is not open") };
        assert_eq!(grown.size_bytes, 32 * MIB);
    }
    assert_eq!(pool.look("v").await.unwrap().unwrap().size_bytes, 32 * MIB);
    let error = pool.grow("v", MIB).await.unwrap_err();
    assert_eq!(error.to_string(), "volume \"v\" cannot shrink: it has 33554432 bytes, 1048576 were requested");
    assert!(matches!(pool.grown("v", MIB).await, Err(PoolError::Shrink { .. })));
    assert_eq!(pool.usage().await.unwrap().provisioned_bytes, 32 * MIB);
}

async fn an_open_volume_stays_as_it_is(bench: &dyn Bench) {
    let pool = bench.pool();
    pool.create(&clone("v")).await.unwrap();
    pool.source("v", None).await.unwrap();
    let opened = bench.open("v");
    assert!(pool.holder("v").await.unwrap().unwrap().has_it_open);
    assert!(matches!(pool.source("v", None).await, Err(PoolError::Held { .. })));
    assert!(matches!(pool.delete("v").await, Err(PoolError::Held { .. })));
    assert!(matches!(pool.grow("v", 32 * MIB).await.unwrap(), Growth::ByHolder(holder) if holder.has_it_open));
    assert_eq!(pool.look("v").await.unwrap().unwrap().size_bytes, 16 * MIB);
    assert_eq!(pool.grown("v", 32 * MIB).await.unwrap().size_bytes, 32 * MIB, "the holder has grown it");
    drop(opened);
    pool.release("v").await.unwrap();
    assert_eq!(pool.holder("v").await.unwrap(), None);
    pool.source("v", None).await.unwrap();
    pool.delete("v").await.unwrap();
}

async fn a_lost_volume_is_absent(bench: &dyn Bench) {
    let pool = bench.pool();
    pool.create(&blank("v")).await.unwrap();
    bench.lose("v");
    assert_eq!(pool.look("v").await.unwrap(), None);
    assert!(matches!(pool.source("v", None).await, Err(PoolError::Unknown { .. })));
    pool.delete("v").await.unwrap();
}

async fn bases_are_removed_with_their_last_volume(bench: &dyn Bench) {
    let pool = bench.pool();
    pool.create(&clone("old")).await.unwrap();
    let old = pool.ensure_base(&image()).await.unwrap();
    bench.replace_image().await;
    assert!(pool.remove_unused_bases().await.unwrap().is_empty(), "a volume is based on the old one");
    assert_ne!(pool.ensure_base(&image()).await.unwrap().sha256, old.sha256);
    pool.delete("old").await.unwrap();
    let removed = pool.remove_unused_bases().await.unwrap();
    assert!(removed.len() == 1 && removed[0].contains(&old.sha256), "{removed:?}");
    assert!(pool.remove_unused_bases().await.unwrap().is_empty(), "the current one stays");
    pool.create(&clone("new")).await.unwrap();
}

async fn bases_are_not_removed_under_a_clone(bench: &dyn Bench) {
    let pool = bench.pool();
    let made = (0..8).map(|n| {
        let pool = bench.pool();
        async move { pool.create(&clone(&format!("v{n}"))).await.unwrap() }
    });
    let removals = async {
        for _ in 0..20 {
            assert!(pool.remove_unused_bases().await.unwrap().is_empty());
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(futures::future::join_all(made), bench.replace_image(), removals);
    for uid in uids(&*pool).await {
        pool.source(&uid, None).await.unwrap();
        pool.grow(&uid, 64 * MIB).await.unwrap();
    }
}

async fn an_operation_that_a_pool_does_not_support_is_an_error(bench: &dyn Bench) {
    let pool = bench.pool();
    if pool.abilities().fence != Fence::Range {
        assert_eq!(pool.fence("h").await.unwrap_err().to_string(), "the storage pool cannot fence a host");
        assert!(matches!(pool.unfence("h").await, Err(PoolError::Unsupported { .. })));
    }
}

/// One test for each guarantee and pool.
macro_rules! suite {
    ($($guarantee:ident)*) => {
        mod on_memory { $(#[tokio::test] async fn $guarantee() { super::$guarantee(&super::Memory::new()).await })* }
        mod on_local { $(#[tokio::test] async fn $guarantee() {
            super::$guarantee(&crate::pool::local::tests::Host::new().await).await
        })* }
    };
}

suite! {
    making_a_volume_again_finds_it
    impossible_values_are_refused
    a_volume_is_deleted_once_and_for_all
    a_volume_grows_and_never_shrinks
    an_open_volume_stays_as_it_is
    a_lost_volume_is_absent
    bases_are_removed_with_their_last_volume
    bases_are_not_removed_under_a_clone
    an_operation_that_a_pool_does_not_support_is_an_error
}

struct Memory(MemoryPool);

impl Memory {
    fn new() -> Self {
        let pool = MemoryPool::new(1 << 40);
        pool.add_image(Base { image: IMAGE.into(), sha256: "a".repeat(64), virtual_size_bytes: 8 * MIB });
        Self(pool)
    }
}

struct Opened(MemoryPool, String);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.close(&self.1);
    }
}

#[async_trait]
impl Bench for Memory {
    fn pool(&self) -> Box<dyn Pool> {
        Box::new(self.0.clone())
    }

    async fn replace_image(&self) {
        self.0.add_image(Base { image: IMAGE.into(), sha256: "b".repeat(64), virtual_size_bytes: 8 * MIB });
    }

    fn open(&self, uid: &str) -> Box<dyn Send> {
        self.0.open(uid, "a hypervisor").unwrap();
        Box::new(Opened(self.0.clone(), uid.to_owned()))
    }

    fn lose(&self, uid: &str) {
        self.0.lose(uid);
    }
}
