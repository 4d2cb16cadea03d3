//! The metrics of the requests for each service.
//!
//! Series of a service exist as long as the service: [`Metrics::forget`] removes them. A request for something else is counted under the
//! reason why it went nowhere, never under the host that it named.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evroc_metrics::{Counter, Counters, Gauge, Histogram, Histograms, Registry, Scrape, Text, buckets, labels, words};
use http::StatusCode;
use tokio::time::Instant;

use crate::time;

labels! {
    struct ServiceLabels {
        namespace: Text,
        service: Text,
    }
}

labels! {
    struct ClassLabels {
        response_code_class: Class,
    }
}

words! {
    enum Class {
        Informational = "1xx",
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }
}

const CLASSES: [Class; 5] =
    [Class::Informational, Class::Success, Class::Redirection, Class::ClientError, Class::ServerError];

words! {
    /// Why a request was for no service.
    pub(crate) enum Unrouted {
        /// It is no request for a host.
        Invalid = "invalid",
        /// No service has the host's name.
        NoService = "no_service",
        /// The gateway does not know the services yet.
        Starting = "starting",
    }
}

labels! {
    struct UnroutedLabels {
        reason: Unrouted,
    }
}

words! {
    enum ReplicaState {
        Ready = "ready",
        Starting = "starting",
        Draining = "draining",
    }
}

labels! {
    struct ReplicaLabels {
        state: ReplicaState,
    }
}

/// The replicas and requests of a service's revision at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Present {
    pub ready: usize,
    pub starting: usize,
    pub draining: usize,
    pub waiting: i32,
    pub in_flight: i32,
}

/// The handles of one service.
pub(crate) struct ServiceMetrics {
    labels: ServiceLabels,
    answers: [Counter; 5],
    seconds: Histogram,
    cold_starts: Counter,
    cold_seconds: Histogram,
    cold: Mutex<Cold>,
}

impl ServiceMetrics {
    /// The service's namespace and name.
    pub(crate) fn name(&self) -> (&str, &str) {
        (self.labels.namespace.as_str(), self.labels.service.as_str())
    }

    /// An answer to a request that came `began`.
    pub(crate) fn answered(&self, status: StatusCode, began: Instant) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.answers[class].inc();
        self.seconds.observe(since(began).as_secs_f64());
    }

    fn cold(&self) -> MutexGuard<'_, Cold> {
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests that wait while a service has no replica that is ready.
#[derive(Debug, Default)]
struct Cold {
    requests: usize,
    /// When the first of them came; `None` also when one of them has its replica.
    since: Option<Instant>,
}

/// A request that found no replica that is ready, until it is dropped.
pub(crate) struct ColdWait(Arc<ServiceMetrics>);

impl ColdWait {
    pub(crate) fn begin(service: Arc<ServiceMetrics>) -> Self {
        let mut cold = service.cold();
        cold.requests += 1;
        cold.since.get_or_insert_with(time::now);
        drop(cold);
        Self(service)
    }

    /// The request has a replica.
    pub(crate) fn warm(self) {
        let began = self.0.cold().since.take();
        if let Some(began) = began {
            self.0.cold_starts.inc();
            self.0.cold_seconds.observe(since(began).as_secs_f64());
        }
    }
}

impl Drop for ColdWait {
    fn drop(&mut self) {
        let mut cold = self.0.cold();
        cold.requests -= 1;
        if cold.requests == 0 {
            cold.since = None;
        }
    }
}

fn since(began: Instant) -> Duration {
    time::now().saturating_duration_since(began)
}

/// Writes the replicas and requests of all services.
pub(crate) fn write_present(scrape: &mut Scrape<'_>, present: &[(Arc<ServiceMetrics>, Present)]) -> std::fmt::Result {
    let replicas = present.iter().flat_map(|(service, now)| {
        let of = |state, number: usize| ((service.labels.clone(), ReplicaLabels { state }), number as f64);
        [
            of(ReplicaState::Ready, now.ready),
            of(ReplicaState::Starting, now.starting),
            of(ReplicaState::Draining, now.draining),
        ]
    });
    scrape.gauges("evroc_gateway_replicas", "Replicas of the revision that requests go to", replicas)?;
    let of = |look: fn(&Present) -> i32| {
        present.iter().map(move |(service, now)| (service.labels.clone(), f64::from(look(now))))
    };
    let waiting = of(|now| now.waiting);
    scrape.gauges("evroc_gateway_requests_waiting", "Requests that wait for a replica", waiting)?;
    scrape.gauges("evroc_gateway_requests_in_flight", "Requests in replicas", of(|now| now.in_flight))
}

/// Namespace and name.
type Name = (String, String);

/// The metrics of a gateway.
pub(crate) struct Metrics {
    answers: Counters<(ServiceLabels, ClassLabels)>,
    seconds: Histograms<ServiceLabels>,
    cold_starts: Counters<ServiceLabels>,
    cold_seconds: Histograms<ServiceLabels>,
    unrouted: Counters<UnroutedLabels>,
    pub(crate) connections: Gauge,
    pub(crate) refused_connections: Counter,
    services: Mutex<HashMap<Name, Arc<ServiceMetrics>>>,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Arc<Self> {
        Arc::new(Self {
            answers: registry.counters("evroc_gateway_requests", "Requests that were answered"),
            seconds: registry.histograms(
                "evroc_gateway_request_duration_seconds",
                "Time until the head of the answer, in seconds, with the wait for a replica",
                buckets::request,
            ),
            cold_starts: registry
                .counters("evroc_gateway_cold_starts", "Times that requests waited for a first replica"),
            cold_seconds: registry.histograms(
                "evroc_gateway_cold_start_duration_seconds",
                "Time from the first request that waits to the first that has a replica, in seconds",
                buckets::work,
            ),
            unrouted: registry.counters("evroc_gateway_unrouted_requests", "Requests for no service"),
            connections: registry.register("evroc_gateway_connections", "Connections of clients", Gauge::default()),
            refused_connections: registry.register(
                "evroc_gateway_refused_connections",
                "Connections that were refused because their address has its share",
                Counter::default(),
            ),
            services: Mutex::default(),
        })
    }

    fn services(&self) -> MutexGuard<'_, HashMap<Name, Arc<ServiceMetrics>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handles of a service that exists.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Arc<ServiceMetrics> {
        let mut services = self.services();
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(known) = services.get(&key) {
            return known.clone();
        }
        let labels = ServiceLabels { namespace: namespace.into(), service: name.into() };
        let answers = CLASSES.map(|response_code_class| {
            self.answers.get_or_create_owned(&(labels.clone(), ClassLabels { response_code_class }))
        });
        let new = Arc::new(ServiceMetrics {
            answers,
            seconds: self.seconds.get_or_create_owned(&labels),
            cold_starts: self.cold_starts.get_or_create_owned(&labels),
            cold_seconds: self.cold_seconds.get_or_create_owned(&labels),
            cold: Mutex::default(),
            labels,
        });
        services.insert(key, new.clone());
        new
    }

    /// Removes the series of a service that is deleted. A request under way counts into nothing.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let Some(known) = self.services().remove(&(namespace.to_owned(), name.to_owned())) else { return };
        let labels = &known.labels;
        for response_code_class in CLASSES {
            self.answers.remove(&(labels.clone(), ClassLabels { response_code_class }));
        }
        self.seconds.remove(labels);
        self.cold_starts.remove(labels);
        self.cold_seconds.remove(labels);
    }

    /// A request that is for no service.
    pub(crate) fn unrouted(&self, reason: Unrouted) {
        self.unrouted.get_or_create(&UnroutedLabels { reason }).inc();
    }
}
