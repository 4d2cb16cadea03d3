//! The informers of a process: one for each kind that is in use.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use tokio::task::JoinSet;

use super::{Informer, Kind};

/// Returns each kind's shared informer. The watches end when the last clone is dropped.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    by_kind: HashMap<TypeId, Box<dyn Any + Send>>,
    watches: JoinSet<()>,
}

impl Informers {
    /// Informers that read with this client.
    pub fn new(client: Client) -> Self {
        Self { client, inner: Arc::default() }
    }

    /// The informer of a kind; the first call starts its watch.
    pub fn of<K: Kind>(&self) -> Informer<K> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner.by_kind.get(&TypeId::of::<K>()).and_then(|it| it.downcast_ref::<Informer<K>>());
        if let Some(informer) = known {
            return informer.clone();
        }
        let (informer, work) = Informer::<K>::new(self.client.clone());
        inner.watches.spawn(work);
        inner.by_kind.insert(TypeId::of::<K>(), Box::new(informer.clone()));
        informer
    }
}
