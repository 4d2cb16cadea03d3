//! Keeps a claim: renews its lease, and releases it at the end.
//!
//! If a member does not answer, the call is repeated at it and then at another one: nothing can be written meanwhile, and etcd's
//! response decides. The process ends only when etcd reports that the claim has expired: its state may then be outdated, and
//! another process may have taken over.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::oneshot;
use tonic::Status;

use super::claim::{FolderLock, Owner};
use super::client::{Client, Effect};
use super::error::{Refusal, refusal};
use super::{Inner, LEASE_KEEP_ALIVE, LEASE_REVOKE, proto, seconds};

/// The number of renewals within the duration of a claim. Fewer lose the claim after a few lost responses, more only cost.
const RENEWALS: u32 = 6;
/// How long a response to a renewal may take, as a fraction of the claim's duration: enough time must remain to ask other members.
const PATIENCE: u32 = 8;
/// How long the release may take: a process that is stopping does not wait for an unreachable etcd.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// A claim that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The etcd revision that wrote it, which every transaction compares.
    pub revision: i64,
    /// Its lease.
    pub lease: i64,
    pub ttl: Duration,
}

/// The claim is lost: no write of this process is accepted any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the store {address} is used by another process now: {holder}")]
    Taken { address: super::Address, holder: Owner },
    #[error(
        "the claim on the store {address} has ended: it was not renewed in time, or it was removed; it has no holder now"
    )]
    Ended { address: super::Address },
}

/// The task that keeps a claim. It releases the claim when this is dropped.
pub(super) struct Keeper {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Keeper {
    pub fn start(inner: Arc<Inner>, held: Held, lock: Option<FolderLock>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::select! {
                // Also when the sender is dropped.
                _ = stopped => {
                    release(&inner.client, held.lease).await;
                }
                () = keep(&inner, held) => {}
            }
            // Not earlier: another process with the lock would consider the claim abandoned.
            drop(lock);
        });
        Keeper { stop, task }
    }

    /// Releases the claim.
    pub async fn stop(self) {
        drop(self.stop);
        // It fails only if the runtime ends; the claim then expires with its lease.
        let _ = self.task.await;
    }
}

/// Renews until the claim is lost.
async fn keep(inner: &Inner, held: Held) {
    let pause = held.ttl / RENEWALS;
    loop {
        tokio::time::sleep(pause).await;
        let answer = tokio::time::timeout(held.ttl / PATIENCE, renew(&inner.client, held.lease)).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(Some(_)) => {}
            Ok(None) => return inner.lose().await,
            Err(status) => {
                tracing::warn!(error = status.message(), "renewing the claim on the store failed, trying again");
                inner.client.leave_current();
            }
        }
    }
}

/// Renews a lease and returns its remaining time; `None` if it has ended.
pub(super) async fn renew(client: &Client, lease: i64) -> Result<Option<Duration>, Status> {
    let question = proto::LeaseKeepAliveRequest { id: lease };
    // The stream stays open until the response arrives.
    let questions = futures::stream::once(async move { question }).chain(futures::stream::pending());
    let mut answers = client.stream(LEASE_KEEP_ALIVE, questions).await?;
    let answer: Option<proto::LeaseKeepAliveResponse> = answers.message().await?;
    let renewed = answer.ok_or_else(|| Status::unavailable("the stream ended without an answer"))?;
    Ok((renewed.ttl > 0).then(|| seconds(renewed.ttl)))
}

/// Revokes the lease of a claim, which deletes the claim.
pub(super) async fn release(client: &Client, lease: i64) {
    let request = proto::LeaseRevokeRequest { id: lease };
    let revoked = client.call::<_, proto::LeaseRevokeResponse>(LEASE_REVOKE, Effect::Write, request);
    match tokio::time::timeout(RELEASE_TIMEOUT, revoked).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) if refusal(&status) == Refusal::LeaseNotFound => {}
        Ok(Err(status)) => {
            tracing::warn!(error = status.message(), "releasing the claim on the store failed, it will expire")
        }
        Err(_) => tracing::warn!("releasing the claim on the store timed out, it will expire"),
    }
}
