//! The shared parts of all controllers: observing by informers, writing status, finalizers, retries.
//!
//! A controller reconciles from state, never from the event: its input is a key, it reads everything for that key, a pure
//! function plans, and what is left to do is carried out. Every step may be repeated: a crash between two is harmless.

mod events;
mod informer;
mod metrics;
mod queue;
mod refusals;
mod watching;
mod write;

pub use informer::{Change, Index, Informer, Informers, Kind};
pub use metrics::measured;
pub use queue::Queue;
pub use refusals::Refusals;
pub use watching::{controller, pauses, run_on};
pub use write::{
    add_finalizer, create_or_adopt, delete_if_present, get, owned_by, remove_finalizer, report_status, write_status,
};

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource};
use thiserror::Error;

/// How long a controller waits before it tries a key again that failed. Too low floods the log while a cause lasts; too
/// high keeps a user waiting after the cause is removed.
const RETRY_AFTER_ERROR: Duration = Duration::from_secs(2);

/// The source of the time: an argument, so that tests set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The inputs of every controller.
#[derive(Clone)]
pub struct Context {
    /// The API, with the controller's own identity.
    pub client: Client,
    /// The time.
    pub clock: Clock,
}

impl Context {
    /// A context on the system's clock.
    pub fn new(client: Client) -> Self {
        Self { client, clock: Arc::new(Timestamp::now) }
    }

    /// The time now, in whole seconds as the API writes times.
    pub fn now(&self) -> Timestamp {
        let now = (self.clock)();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }
}

/// The reason why a reconciliation could not finish; it is tried again.
#[derive(Debug, Error)]
pub enum Error {
    /// The API refused or did not answer.
    #[error("{operation}")]
    Api {
        /// The operation.
        operation: String,
        /// The API's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object was changed meanwhile: look again.
    #[error("{0}: the object was changed meanwhile")]
    Changed(String),
    /// An object can never be created as it is: the refusal belongs into a condition.
    #[error("{operation}: {message}")]
    Refused {
        /// The operation.
        operation: String,
        /// The API's answer.
        message: String,
    },
    /// A ledger has no room for an object: it may be placed elsewhere.
    #[error("{operation}: {message}")]
    Full {
        /// The operation.
        operation: String,
        /// The ledger, and the amounts.
        message: String,
    },
    /// Another object holds what an object claims: the platform may choose another.
    #[error("{operation}: {field}: {message}")]
    Held {
        /// The operation.
        operation: String,
        /// The field that makes the claim.
        field: String,
        /// The claimed thing, and its holder.
        message: String,
    },
    /// The watch of this kind is too far behind to decide anything.
    #[error("the watch of kind {0} is behind")]
    Behind(String),
    /// An object could not be read or written as JSON.
    #[error("{operation}")]
    Json {
        /// The operation.
        operation: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// The result of a reconciliation.
pub type Result<T> = std::result::Result<T, Error>;

/// Gives an API error the name of the operation that met it.
pub fn api_error(operation: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    let operation = operation.into();
    move |source| match &source {
        kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict" => Error::Changed(operation),
        _ => Error::Api { operation, source: Box::new(source) },
    }
}

/// Decides the retry of a failed reconciliation: after a lost race it is tried again at once, otherwise after a pause.
pub fn retry<K: Resource, C>(object: Arc<K>, error: &Error, _context: Arc<C>) -> Action
where
    K::DynamicType: Default,
{
    if matches!(error, Error::Changed(_) | Error::Held { .. }) {
        return Action::requeue(Duration::from_millis(20));
    }
    tracing::warn!(
        kind = %K::kind(&K::DynamicType::default()), name = object.meta().name, namespace = object.meta().namespace,
        error = chain(error), "reconciliation failed, will be tried again"
    );
    Action::requeue(RETRY_AFTER_ERROR)
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Runs a controller's stream until it ends; results were handled by [`retry`].
pub async fn drive<K, E>(stream: impl Stream<Item = std::result::Result<(ObjectRef<K>, Action), E>>)
where
    K: Resource,
    K::DynamicType: Eq + Hash,
    E: std::error::Error,
{
    stream
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(error = chain(&error), "controller stream");
            }
        })
        .await;
}
