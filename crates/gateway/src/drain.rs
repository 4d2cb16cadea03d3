//! Letting replicas go: one that is to stop is released when no request is in it any more.

use std::sync::Arc;
use std::time::Duration;

use evroc_api::GATEWAY_FINALIZER;
use evroc_api::infra::Replica;
use evroc_controller::{chain, get, remove_finalizer};
use kube::Client;
use kube::api::Api;

use crate::connect::Pool;
use crate::table::{Key, Table};

/// How long a release that failed waits for its next try.
const RETRY: Duration = Duration::from_millis(500);

/// Releases until the process ends.
pub async fn release(client: Client, table: Arc<Table>, pool: Arc<Pool>) {
    loop {
        let mut again = false;
        for key in table.drained() {
            match let_go(&client, &key).await {
                Ok(()) => table.remove_replica(&key),
                Err(error) => {
                    again = true;
                    tracing::debug!(replica = key.name, error = chain(&error), "cannot release replica yet");
                }
            }
        }
        pool.forget_all_but(&table.uids());
        if again {
            tokio::time::sleep(RETRY).await;
        } else {
            table.drain_changed.notified().await;
        }
    }
}

async fn let_go(client: &Client, key: &Key) -> evroc_controller::Result<()> {
    let api = Api::<Replica>::namespaced(client.clone(), &key.namespace);
    match get(&api, &key.name).await? {
        Some(replica) if replica.metadata.deletion_timestamp.is_some() => remove_finalizer(&api, &replica, GATEWAY_FINALIZER).await,
        _ => Ok(()),
    }
}
