//! A store for a test that needs an API server and no platform around it.

use std::sync::Arc;

use evroc_store::EmbeddedStore;
use tempfile::TempDir;

/// Opens an empty store in a folder of its own, which is removed when the second value is dropped.
///
/// # Panics
/// If the folder or the store cannot be made.
pub async fn empty_store() -> (Arc<EmbeddedStore>, TempDir) {
    let dir = tempfile::tempdir().expect("a folder for a store");
    let store = EmbeddedStore::open(dir.path().join("store")).await.expect("an empty store");
    (Arc::new(store), dir)
}
