//! Controllers that come back soon after the API was restarted.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use kube::runtime::controller::{Action, Controller, ReconcileRequest, trigger_self};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, applier, reflector, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::metrics::Measured;
use crate::{Error, Result};

/// First pause after a watch failed. Watches fail together when the API server is restarted, and each counts.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause: how late a controller may notice that the API server is back. The server is the platform's own, and few watch it this
/// way; the usual 30 s are for thousands.
const LONGEST: Duration = Duration::from_secs(1);

/// Pauses between tries to watch.
#[derive(Debug)]
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST;
    }
}

/// A controller of the objects that `config` selects.
pub fn controller<K>(api: Api<K>, config: watcher::Config) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    Controller::new(api, config).trigger_backoff(pauses())
}

/// The pauses between tries to watch, for a watch that is not a controller's.
pub fn pauses() -> impl Backoff {
    Pauses::default()
}

/// Runs a controller that reconciles an object also when `requests` names it, until the process ends. Errors are handled by
/// `error_policy`; the objects are kept in the store (`reflector::store()`).
pub async fn run_on<K, C, F>(
    api: Api<K>,
    config: watcher::Config,
    requests: impl Stream<Item = ObjectRef<K>> + Send + 'static,
    reconcile: impl Fn(Arc<K>, Arc<C>) -> F + Send + 'static,
    error_policy: impl Fn(Arc<K>, &Error, Arc<C>) -> Action + Send + Sync + 'static,
    context: Arc<C>,
    (reader, writer): (reflector::Store<K>, reflector::store::Writer<K>),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    C: Send + Sync + 'static,
    F: Future<Output = Result<Action>> + Send + 'static,
{
    let objects = reflector(writer, watcher(api, config)).applied_objects().backoff(Pauses(FIRST));
    let named = requests.map(|object| Ok(ReconcileRequest::from(object)));
    let queue = futures::stream::select(trigger_self(objects, ()).boxed(), named.boxed());
    let measured = Measured::of::<K>();
    // A task for each reconciliation, as `Controller::run` has it; a panic goes on in here.
    let reconcile = move |object: Arc<K>, context| {
        let span = measured.span(object.meta());
        let task = tokio::spawn(reconcile(object, context).instrument(span.clone()));
        let ended = async move { task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) };
        measured.clone().reconcile(span, ended).boxed()
    };
    let config = kube::runtime::controller::Config::default();
    crate::drive(applier(reconcile, error_policy, context, reader, queue, config).boxed()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew() {
        let mut pauses = Pauses::default();
        let all: Vec<u128> = pauses.by_ref().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(all, [50, 100, 200, 400, 800, 1000, 1000]);
        pauses.reset();
        assert_eq!(pauses.next(), Some(FIRST));
    }
}
