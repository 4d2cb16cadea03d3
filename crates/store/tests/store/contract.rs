//! The contract's suite on the embedded backend.

use std::sync::Arc;
use std::time::Duration;

use evroc_store::clock::ManualClock;
use evroc_store::contract_tests::Subject;
use evroc_store::embedded::{EmbeddedStore, Options};
use evroc_store::{Store, contract_tests};
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

contract_tests!(embedded);
