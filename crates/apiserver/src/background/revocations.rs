//! Keeps the list of revoked credentials as the objects of the kinds that revoke some say.

use std::collections::HashSet;

use tokio::sync::broadcast::error::RecvError;

use crate::http::server::ApiServer;
use crate::http::server::shared::Shared;

/// Reads the list, before the first request is answered, and starts the task that keeps it; the task ends with the server.
pub(crate) fn start(server: &ApiServer) {
    let shared = server.shared.clone();
    if !shared.cache.kinds().any(|(registered, _)| registered.kind.revokes.is_some()) {
        return;
    }
    let mut notices = shared.cache.notices();
    shared.revoked.set(listed(&shared));
    tokio::spawn(async move {
        loop {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = shared.stopping.cancelled() => return,
            };
            match notice {
                Ok(notice) if notice.registered.kind.revokes.is_none() => {}
                Ok(_) | Err(RecvError::Lagged(_)) => shared.revoked.set(listed(&shared)),
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Returns all credentials that an object revokes.
fn listed(shared: &Shared) -> HashSet<String> {
    let mut all = HashSet::new();
    for (registered, objects) in shared.cache.kinds() {
        let Some(revokes) = &registered.kind.revokes else { continue };
        for object in objects.select(|_| true) {
            all.extend(revokes(&object.parse()));
        }
    }
    all
}
