//! The store under a test's server: embedded, or in a real etcd where `EVROC_TEST_STORE` names one (`etcd-3.4`, `etcd-3.5`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evroc_store::{EmbeddedStore, Store, etcd};
use evroc_tests::etcd::Etcd;
use tempfile::TempDir;

/// Names the store of all tests of the run.
const VARIABLE: &str = "EVROC_TEST_STORE";

/// The state that a server leaves to the next one.
pub struct TestState {
    dir: TempDir,
    etcd: Option<Etcd>,
}

impl TestState {
    /// An empty store that was never opened.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let etcd = match std::env::var(VARIABLE).ok().as_deref() {
            None | Some("" | "embedded") => None,
            Some(other) => {
                let version = other.strip_prefix("etcd-").map(str::to_owned);
                let version =
                    version.unwrap_or_else(|| panic!("{VARIABLE}={other}: expected embedded, etcd-3.4 or etcd-3.5"));
                Some(tokio::task::spawn_blocking(move || Etcd::start(&version)).await.unwrap().unwrap())
            }
        };
        TestState { dir, etcd }
    }

    /// A folder for the files of the test itself.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Opens the store, as soon as its former owner has let go of it.
    pub async fn open(&self) -> Arc<dyn Store> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let opened: Result<Arc<dyn Store>, String> = match &self.etcd {
                Some(server) => {
                    let options = etcd::Options::new(server.address().parse().unwrap()).home(self.dir.path());
                    options.open().await.map(|store| Arc::new(store) as _).map_err(|error| error.to_string())
                }
                None => {
                    let opened = EmbeddedStore::open(self.dir.path().join("store")).await;
                    opened.map(|store| Arc::new(store) as _).map_err(|error| error.to_string())
                }
            };
            match opened {
                Ok(store) => return store,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            // Between two polls.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
