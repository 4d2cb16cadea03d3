//! Letting replicas go: one that is to stop is released when no request is in it any more.

use std::sync::Arc;
use std::time::Duration;

use evroc_api::GATEWAY_FINALIZER;
use evroc_api::infra::Replica;
use evroc_controller::{chain, get, remove_finalizer};
use kube::Client;
use kube::api::Api;

use crate::connect::Pool;
use crate::table::{Replica as TableReplica, Table};
use crate::time;

/// How long a release that failed waits for its next try.
const RETRY: Duration = Duration::from_millis(500);
/// The longest that the API may take for one release.
const ANSWER: Duration = Duration::from_secs(5);

/// Releases until the process ends.
pub async fn release(client: Client, table: Arc<Table>, pool: Arc<Pool>) {
    loop {
        let mut again = false;
        for replica in table.drained() {
            match time::timeout(ANSWER, let_go(&client, &replica)).await {
                Ok(Ok(())) => table.remove_replica(&replica.key, &replica.uid),
                Ok(Err(error)) => {
                    again = true;
                    tracing::debug!(replica = replica.key.name, error = chain(&error), "cannot release replica yet");
                }
                Err(_) => again = true,
            }
        }
        pool.forget_all_but(&table.uids());
        if again {
            time::sleep(RETRY).await;
        } else {
            table.drain_changed.notified().await;
        }
    }
}

/// Lets this very replica go, not one of the same name that came after it.
async fn let_go(client: &Client, wanted: &TableReplica) -> evroc_controller::Result<()> {
    let api = Api::<Replica>::namespaced(client.clone(), &wanted.key.namespace);
    match get(&api, &wanted.key.name).await? {
        Some(replica)
            if replica.metadata.deletion_timestamp.is_some()
                && replica.metadata.uid.as_deref() == Some(&wanted.uid) =>
        {
            remove_finalizer(&api, &replica, GATEWAY_FINALIZER).await
        }
        _ => Ok(()),
    }
}
