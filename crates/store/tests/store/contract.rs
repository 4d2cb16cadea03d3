//! The contract's suite on every backend.

use std::sync::Arc;
use std::time::Duration;

use evroc_store::clock::ManualClock;
use evroc_store::contract_tests::Subject;
use evroc_store::embedded::{EmbeddedStore, Options};
use evroc_store::{EtcdStore, Store, etcd};
use evroc_tests::etcd::Etcd;
use tempfile::TempDir;

pub struct Embedded {
    folder: TempDir,
    clock: ManualClock,
    store: Option<Arc<EmbeddedStore>>,
}

pub async fn embedded() -> Embedded {
    let mut subject =
        Embedded { folder: tempfile::tempdir().expect("temporary folder"), clock: ManualClock::default(), store: None };
    subject.open().await;
    subject
}

impl Embedded {
    async fn open(&mut self) {
        let options = Options::new(self.folder.path()).clock(self.clock.clone());
        self.store = Some(Arc::new(options.open().await.expect("store opens")));
    }
}

#[async_trait::async_trait]
impl Subject for Embedded {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("store is open")
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    async fn restart(&mut self) {
        self.store.take().expect("store is open").close().await;
        self.open().await;
    }
}

/// A claim is given back, and taken again.
const CLAIMS: u64 = 2;

/// The store in an etcd of its own.
pub struct InEtcd {
    etcd: Etcd,
    store: Option<Arc<EtcdStore>>,
}

pub async fn etcd(version: &'static str) -> InEtcd {
    let started = tokio::task::spawn_blocking(move || Etcd::start(version));
    let etcd = started.await.expect("started").expect("etcd starts");
    let mut subject = InEtcd { etcd, store: None };
    subject.open().await;
    subject
}

impl InEtcd {
    async fn open(&mut self) {
        let address = self.etcd.address().parse().expect("an address");
        match etcd::Options::new(address).open().await {
            Ok(store) => self.store = Some(Arc::new(store)),
            Err(error) => panic!("{error:?}\n{}", self.etcd.log()),
        }
    }
}

#[async_trait::async_trait]
impl Subject for InEtcd {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("store is open")
    }

    async fn pass(&self, time: Duration) {
        // Its clock is its own: between two looks of the caller (poll) that much has to go by.
        tokio::time::sleep(time).await;
    }

    async fn restart(&mut self) {
        self.store.take().expect("store is open").close().await;
        self.etcd.restart().expect("etcd starts again");
        self.open().await;
    }

    fn restart_takes(&self) -> u64 {
        CLAIMS
    }
}

/// A store below a prefix of an etcd that others have started; a restart is one of this side.
pub struct Prefixed {
    address: String,
    store: Arc<EtcdStore>,
}

impl Prefixed {
    pub async fn open(address: String) -> Self {
        let options = etcd::Options::new(address.parse().expect("an address"));
        Prefixed { address, store: Arc::new(options.open().await.expect("store opens")) }
    }
}

#[async_trait::async_trait]
impl Subject for Prefixed {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn pass(&self, time: Duration) {
        // As above: a pause of the caller's poll.
        tokio::time::sleep(time).await;
    }

    async fn restart(&mut self) {
        self.store.close().await;
        *self = Prefixed::open(self.address.clone()).await;
    }

    fn restart_takes(&self) -> u64 {
        CLAIMS
    }
}

mod on_embedded {
    use super::embedded;
    evroc_store::contract_tests!(embedded);
}

mod on_etcd_3_4 {
    async fn subject() -> super::InEtcd {
        super::etcd("3.4").await
    }
    evroc_store::contract_tests!(subject);
}

mod on_etcd_3_5 {
    async fn subject() -> super::InEtcd {
        super::etcd("3.5").await
    }
    evroc_store::contract_tests!(subject);
}
