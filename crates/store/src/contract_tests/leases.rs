//! Leases.

use std::sync::Arc;
use std::time::Duration;

use super::{DEADLINE, Subject, commit, describe, events_until, get, put, value, watch};
use crate::contract::{KeyRange, LeaseId, Operation, Revision, Store, Txn};
use crate::error::StoreError;

const TTL: Duration = Duration::from_secs(2);

async fn put_leased(store: &Arc<dyn Store>, key: &str, lease: LeaseId) -> Revision {
    let operation = Operation::Put { key: key.to_owned().into(), value: "leased".into(), lease: Some(lease) };
    commit(store, Txn::new().then(operation)).await
}

/// Waits until a key is deleted: when a lease's time has come, backends take a moment to notice.
async fn deleted(store: &Arc<dyn Store>, key: &str) {
    let poll = async {
        while get(store, key).await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.expect("key goes with its lease");
}

/// All keys of a lease go in one revision, and watchers receive the deletions.
pub async fn leases_end_and_take_their_keys(subject: Box<dyn Subject>) {
    let store = subject.store();
    let lease = store.lease_grant(TTL).await.expect("granted");
    assert_eq!(lease.ttl, TTL);
    put_leased(&store, "a", lease.id).await;
    put(&store, "b", "stays").await;
    let before = put_leased(&store, "c", lease.id).await;
    assert_eq!(get(&store, "a").await.expect("exists").lease, Some(lease.id));
    let mut stream = watch(&store, KeyRange::all(), before).await;
    subject.pass(TTL * 2).await;
    deleted(&store, "a").await;
    deleted(&store, "c").await;
    assert_eq!(value(&store, "b").await.as_deref(), Some("stays"));
    let mut events = describe(&events_until(&mut stream, before.next()).await);
    events.sort();
    assert_eq!(events, ["a=- (was leased)", "c=- (was leased)"]);
    assert_eq!(store.revision().await.expect("revision"), before.next());
    match store.lease_keep_alive(lease.id).await {
        Err(StoreError::LeaseNotFound { id }) => assert_eq!(id, lease.id),
        other => panic!("{other:?}"),
    }
}

/// A renewed lease lives on; a revoked one ends at once.
pub async fn leases_are_kept_alive_and_revoked(subject: Box<dyn Subject>) {
    let store = subject.store();
    let short = store.lease_grant(Duration::from_millis(300)).await;
    assert!(matches!(short, Err(StoreError::InvalidRequest(_))), "{short:?}");
    let kept = store.lease_grant(TTL * 2).await.expect("granted");
    let left = store.lease_grant(TTL * 2).await.expect("granted");
    assert_ne!(kept.id, left.id);
    put_leased(&store, "kept", kept.id).await;
    put_leased(&store, "left", left.id).await;
    subject.pass(TTL).await;
    assert_eq!(store.lease_keep_alive(kept.id).await.expect("renewed"), kept);
    subject.pass(TTL + Duration::from_millis(100)).await;
    deleted(&store, "left").await;
    assert!(get(&store, "kept").await.is_some());

    let before = store.revision().await.expect("revision");
    assert_eq!(store.lease_revoke(kept.id).await.expect("revoked"), before.next());
    assert_eq!(get(&store, "kept").await, None);
    let again = store.lease_revoke(kept.id).await;
    assert!(matches!(again, Err(StoreError::LeaseNotFound { .. })), "{again:?}");
    let empty = store.lease_grant(TTL).await.expect("granted");
    assert_eq!(store.lease_revoke(empty.id).await.expect("revoked"), before.next());
}

/// A key belongs to the lease of its last write.
pub async fn rewriting_a_key_changes_its_lease(subject: Box<dyn Subject>) {
    let store = subject.store();
    let first = store.lease_grant(TTL * 100).await.expect("granted");
    let second = store.lease_grant(TTL * 100).await.expect("granted");
    put_leased(&store, "detached", first.id).await;
    put_leased(&store, "moved", first.id).await;
    put_leased(&store, "recreated", first.id).await;
    put(&store, "detached", "free").await;
    put_leased(&store, "moved", second.id).await;
    super::delete(&store, "recreated").await;
    put(&store, "recreated", "free").await;
    let before = store.revision().await.expect("revision");
    assert_eq!(store.lease_revoke(first.id).await.expect("revoked"), before);
    for key in ["detached", "moved", "recreated"] {
        assert!(get(&store, key).await.is_some(), "{key}");
    }
    store.lease_revoke(second.id).await.expect("revoked");
    assert_eq!(get(&store, "moved").await, None);
    assert!(get(&store, "detached").await.is_some());
}

/// Leases and what belongs to them are state.
pub async fn leases_survive_a_restart(mut subject: Box<dyn Subject>) {
    let store = subject.store();
    let ends = store.lease_grant(TTL).await.expect("granted");
    let revoked = store.lease_grant(TTL * 100).await.expect("granted");
    put_leased(&store, "ends", ends.id).await;
    put_leased(&store, "revoked", revoked.id).await;
    put_leased(&store, "freed", ends.id).await;
    put(&store, "freed", "free").await;
    drop(store);
    subject.restart().await;
    let store = subject.store();
    assert_eq!(get(&store, "ends").await.expect("exists").lease, Some(ends.id));
    store.lease_revoke(revoked.id).await.expect("revoked");
    assert_eq!(get(&store, "revoked").await, None);
    subject.pass(TTL * 2).await;
    deleted(&store, "ends").await;
    assert!(get(&store, "freed").await.is_some());
}
