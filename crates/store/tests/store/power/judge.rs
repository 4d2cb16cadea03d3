//! The properties that hold after any crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use evroc_store::embedded::{EmbeddedStore, OpenError, Options};
use evroc_store::{KeyRange, KeyValue, RangeRequest, Revision, Store};

use super::record::Event;
use super::workload;
use crate::support::{try_put, value};

/// Opens the state of a crash in `folder` and compares it with the promises before.
pub async fn judge(folder: &Path, before: &[Event], may_refuse: bool) -> Result<(), String> {
    let open = async || {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let options = Options::new(folder).readers(1).on_fatal(|error| panic!("store failed: {error}"));
            match options.open().await {
                Ok(store) => return Ok(store),
                // A process that another test is just starting holds all files for a moment.
                Err(OpenError::Locked { .. }) if Instant::now() < deadline => tokio::task::yield_now().await,
                Err(error) => return Err(format!("it does not open: {error}")),
            }
        }
    };
    let store = match open().await {
        Ok(store) => store,
        // Damage is reported: that suffices.
        Err(_) if may_refuse => return Ok(()),
        Err(error) => return Err(error),
    };
    let found = match contents(&store).await {
        Ok(found) => found,
        Err(_) if may_refuse => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut acknowledged = BTreeMap::new();
    for event in before {
        if let Event::Ack(revision, keys) = event {
            acknowledged.insert(keys[0].clone(), *revision);
        }
    }
    for (first, keys) in workload::all() {
        check_transaction(&found, &keys, acknowledged.get(&first).copied())?;
    }
    let newest = store.revision().await.map_err(|error| error.to_string())?;
    if let Some(promised) = acknowledged.values().max()
        && newest.0 < *promised
    {
        return Err(format!("it is at revision {newest}, but {promised} was acknowledged"));
    }
    // It goes on, and new writes stay.
    let written = try_put(&store, "after", "the crash").await.map_err(|error| format!("it takes no write: {error}"))?;
    if written != newest.next() {
        return Err(format!("the first write after revision {newest} has {written}"));
    }
    store.close().await;
    drop(store);
    let store = open().await.map_err(|error| format!("a second time, {error}"))?;
    match value(&store, "after").await {
        Ok(Some(found)) if found == "the crash" => Ok(()),
        other => Err(format!("the write after the crash reads as {other:?}")),
    }
}

async fn contents(store: &EmbeddedStore) -> Result<BTreeMap<Vec<u8>, KeyValue>, String> {
    let page = store
        .range(RangeRequest::new(KeyRange::all()))
        .await
        .map_err(|error| format!("it is not readable: {error}"))?;
    Ok(page.items.into_iter().map(|item| (item.key.to_vec(), item)).collect())
}

/// A transaction that was acknowledged exists as written; of others everything or nothing exists.
fn check_transaction(
    found: &BTreeMap<Vec<u8>, KeyValue>,
    keys: &[String],
    acknowledged: Option<u64>,
) -> Result<(), String> {
    let items: Vec<_> = keys.iter().map(|key| found.get(key.as_bytes())).collect();
    let existing = items.iter().flatten().count();
    if let Some(revision) = acknowledged
        && existing < keys.len()
    {
        return Err(format!("{keys:?} was acknowledged at revision {revision}, {existing} of its keys exist"));
    }
    if existing != 0 && existing != keys.len() {
        return Err(format!("of the transaction {keys:?} only {existing} keys exist"));
    }
    for (key, item) in keys.iter().zip(items.iter().flatten()) {
        if item.value != workload::content(key) {
            return Err(format!("{key} has another value than was written"));
        }
        let expected = acknowledged.map_or(items[0].map_or(Revision::ZERO, |first| first.mod_revision), Revision);
        if item.mod_revision != expected {
            return Err(format!("{key} is of revision {}, expected {expected}", item.mod_revision));
        }
    }
    Ok(())
}
