//! The sources that wake a controller's keys, and the loop that reconciles them.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::informer::{Change, Informer, Kind};
use crate::metrics::{Measured, Waiting};
use crate::{Result, drive, retry};

/// The keys of a kind that are to be reconciled. Every change of an object of the kind wakes its key.
pub struct Queue<K: Kind> {
    primary: Informer<K>,
    debounce: Duration,
    waiting: Arc<Waiting>,
    wake: mpsc::UnboundedSender<ObjectRef<K>>,
    woken: mpsc::UnboundedReceiver<ObjectRef<K>>,
}

impl<K: Kind> Queue<K> {
    /// A queue that only the kind's own changes fill.
    pub fn new(primary: &Informer<K>) -> Self {
        let (wake, woken) = mpsc::unbounded_channel();
        Self { primary: primary.clone(), debounce: Duration::ZERO, waiting: Arc::new(Waiting::of::<K>()), wake, woken }
            .on(primary, |change: &Change<K>| change.both().last().map(ObjectRef::from_obj).into_iter().collect())
    }

    /// Waits this long after a key was woken for the last time: for what changes in bursts and may lag behind.
    #[must_use]
    pub fn debounced(self, debounce: Duration) -> Self {
        Self { debounce, ..self }
    }

    /// Wakes the keys that `keys` gives for a change of another kind, or none.
    #[must_use]
    pub fn on<C: Kind>(
        self,
        informer: &Informer<C>,
        keys: impl Fn(&Change<C>) -> Vec<ObjectRef<K>> + Send + Sync + 'static,
    ) -> Self {
        let (wake, waiting) = (self.wake.clone(), Arc::downgrade(&self.waiting));
        informer.listen(move |change| {
            // A queue that ended has no receiver.
            let Some(waiting) = waiting.upgrade() else { return };
            for key in keys(change) {
                waiting.add(&key);
                drop(wake.send(key));
            }
        });
        self
    }

    /// Wakes the owner of an object of another kind that changed.
    #[must_use]
    pub fn owns<C: Kind>(self, informer: &Informer<C>) -> Self {
        self.on(informer, |change: &Change<C>| {
            let mut owners: Vec<ObjectRef<K>> = change.both().flat_map(owners_of).collect();
            owners.dedup();
            owners
        })
    }

    /// Reconciles keys until the future is dropped. Different keys are reconciled at the same time, at most `concurrency` of them (0 for any
    /// number), one key never twice at a time.
    pub async fn run<C, F>(
        self,
        concurrency: u16,
        reconcile: impl Fn(Arc<K>, Arc<C>) -> F + Send + 'static,
        context: Arc<C>,
    ) where
        C: Send + Sync + 'static,
        F: Future<Output = Result<Action>> + Send + 'static,
    {
        let (waiting, measured) = (self.waiting.clone(), Measured::of::<K>());
        let work = applier(
            move |object: Arc<K>, context| {
                waiting.take(object.meta().namespace.as_deref(), &object.name_any());
                let span = measured.span(object.meta());
                measured.clone().reconcile(span, reconcile(object, context)).boxed()
            },
            retry,
            context,
            self.primary.store(),
            UnboundedReceiverStream::new(self.woken).map(Ok::<_, std::convert::Infallible>),
            Config::default().concurrency(concurrency).debounce(self.debounce),
        );
        drive(work.inspect(|result| {
            if let Err(kube::runtime::controller::Error::ObjectNotFound(key)) = result {
                self.waiting.take(key.namespace.as_deref(), &key.name);
            }
        }))
        .await;
    }
}

/// The objects of kind `K` that own an object.
fn owners_of<K: Kind>(object: &impl Resource) -> Vec<ObjectRef<K>> {
    let namespace = object.meta().namespace.as_deref();
    object.owner_references().iter().filter_map(|owner| ObjectRef::from_owner_ref(namespace, owner, ())).collect()
}
