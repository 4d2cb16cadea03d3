//! A store in a temporary folder.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evroc_store::embedded::{EmbeddedStore, Options};
use evroc_store::{Operation, Result, Revision, Store, Txn};

/// Opens a store whose failures are panics and not the end of the test's process.
pub async fn open(folder: &Path) -> Arc<EmbeddedStore> {
    let options = Options::new(folder).on_fatal(|error| panic!("store failed: {error}"));
    Arc::new(options.open().await.expect("store opens"))
}

/// Writes one key.
pub async fn put(store: &dyn Store, key: &str, value: impl Into<Bytes>) -> Revision {
    try_put(store, key, value).await.expect("written")
}

/// Writes one key, if that is possible.
pub async fn try_put(store: &dyn Store, key: &str, value: impl Into<Bytes>) -> Result<Revision> {
    let txn = Txn::new().then(Operation::put(key.to_owned(), value));
    Ok(store.txn(txn).await?.committed().expect("no conditions"))
}

/// The newest value of a key.
pub async fn value(store: &dyn Store, key: &str) -> Result<Option<Bytes>> {
    Ok(store.get(key.as_bytes(), None).await?.0.map(|item| item.value))
}
