//! Keeps a claim: renews its lease, and gives it back at the end.
//!
//! A member that does not answer is asked again, and then another one: nothing can be written meanwhile, and what etcd says
//! when it answers decides. Only its word that the claim is gone ends the process: what this process knows may be old by
//! then, and another one may act on what it knows better.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::oneshot;
use tonic::Status;

use super::claim::{FolderLock, Owner};
use super::client::{Client, Effect};
use super::error::{Refusal, refusal};
use super::{Inner, LEASE_KEEP_ALIVE, LEASE_REVOKE, proto, seconds};

/// A claim is renewed so many times while it would last: fewer lose it to a few lost answers, more only cost.
const RENEWALS: u32 = 6;
/// How long an answer to a renewal may take, in parts of a claim's time: there must be room to ask others then.
const PATIENCE: u32 = 8;
/// How long giving it back may take: a process that is told to end does not wait for an etcd that is away.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// A claim that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The revision that wrote it, in etcd's counting: it stands in every transaction.
    pub revision: i64,
    /// Its lease.
    pub lease: i64,
    pub ttl: Duration,
}

/// Nothing that this process writes is accepted any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the store {address} is used by another process now: {holder}")]
    Taken { address: super::Address, holder: Owner },
    #[error(
        "the claim on the store {address} has ended: it was not renewed in time, or it was removed; nobody holds it now"
    )]
    Ended { address: super::Address },
}

/// The task that keeps a claim. It gives the claim back when this is dropped.
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
            // Not before: whoever has the lock takes the claim for one of the dead.
            drop(lock);
        });
        Keeper { stop, task }
    }

    /// Gives the claim back.
    pub async fn stop(self) {
        drop(self.stop);
        // It fails only if the runtime ends, and the claim with its lease then.
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
                tracing::warn!(error = status.message(), "the claim on the store could not be renewed, trying again");
                inner.client.leave_current();
            }
        }
    }
}

/// Renews a lease: how long it lasts now; `None` if it has ended.
pub(super) async fn renew(client: &Client, lease: i64) -> Result<Option<Duration>, Status> {
    let question = proto::LeaseKeepAliveRequest { id: lease };
    // The stream stays open until the answer is there.
    let questions = futures::stream::once(async move { question }).chain(futures::stream::pending());
    let mut answers = client.stream(LEASE_KEEP_ALIVE, questions).await?;
    let answer: Option<proto::LeaseKeepAliveResponse> = answers.message().await?;
    let renewed = answer.ok_or_else(|| Status::unavailable("the stream ended without an answer"))?;
    Ok((renewed.ttl > 0).then(|| seconds(renewed.ttl)))
}

/// Ends a lease of a claim; the claim goes with it.
pub(super) async fn release(client: &Client, lease: i64) {
    let request = proto::LeaseRevokeRequest { id: lease };
    let revoked = client.call::<_, proto::LeaseRevokeResponse>(LEASE_REVOKE, Effect::Write, request);
    match tokio::time::timeout(RELEASE_TIMEOUT, revoked).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) if refusal(&status) == Refusal::LeaseNotFound => {}
        Ok(Err(status)) => tracing::warn!(error = status.message(), "the claim on the store is left to end by itself"),
        Err(_) => tracing::warn!("the claim on the store is left to end by itself: etcd does not answer"),
    }
}
