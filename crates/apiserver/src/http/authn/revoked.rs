//! Credentials that are not accepted any more although their time has not ended.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::object::identity::Identity;

/// The list of revoked credentials, which changes while requests and streams run.
#[derive(Debug)]
pub(crate) struct Revoked {
    credentials: watch::Sender<Arc<HashSet<String>>>,
}

impl Default for Revoked {
    fn default() -> Self {
        Revoked { credentials: watch::Sender::new(Arc::default()) }
    }
}

impl Revoked {
    /// Replaces the list.
    pub(crate) fn set(&self, credentials: HashSet<String>) {
        self.credentials.send_if_modified(|now| {
            let is_other = **now != credentials;
            if is_other {
                *now = Arc::new(credentials);
            }
            is_other
        });
    }

    /// Whether a credential of the caller is revoked.
    pub(crate) fn has(&self, identity: &Identity) -> bool {
        let list = self.credentials.borrow();
        !list.is_empty() && identity.credentials().any(|it| list.contains(it))
    }

    /// Returns a future that ends when a credential of the caller is revoked; `None` for callers without one.
    pub(crate) fn of(&self, identity: &Identity) -> Option<impl Future<Output = ()> + Send + 'static> {
        let own: Vec<String> = identity.credentials().map(str::to_owned).collect();
        if own.is_empty() {
            return None;
        }
        let mut list = self.credentials.subscribe();
        Some(async move {
            if list.wait_for(|list| own.iter().any(|it| list.contains(it))).await.is_err() {
                // The server has ended, and its streams with it.
                std::future::pending::<()>().await;
            }
        })
    }
}
