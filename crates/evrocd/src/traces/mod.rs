//! Spans on their way to a collector, as OTLP over HTTP (protobuf).
//!
//! ```text
//! span! in any crate ─▶ layer of tracing ─▶ bounded queue ─▶ a thread, batches ─▶ client ─▶ POST <endpoint>/v1/traces
//!                                             full: dropped                         fails: said once, pauses that grow
//! ```
//! Nothing in the way of a request waits for the collector.

mod client;
mod pauses;
pub mod propagation;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::roles::RoleConfig;
use client::Client;

/// The most spans that wait to be sent. Too low loses spans of a burst; too high keeps memory while the collector does not answer.
const QUEUE: usize = 4096;
/// The most spans of one message.
const BATCH: usize = 512;
/// The longest that a span waits for others to be sent with. Too high has an operator wait for what was just done; too low sends many small
/// messages.
const DELAY: Duration = Duration::from_secs(3);
/// How long the collector may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the end of a role may wait for the last spans to be sent.
const LAST: Duration = Duration::from_secs(2);

/// The reason why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint is not one.
    #[error("--otlp-endpoint: expected http://HOST:PORT of a collector for OTLP over HTTP, found {0:?}")]
    Endpoint(String),
    /// The exporter refused its settings.
    #[error("preparing the export of spans to {endpoint}")]
    Exporter {
        /// Where to.
        endpoint: String,
        /// The cause.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
}

/// Checks the address of a collector and returns it without a slash at its end.
pub fn endpoint(text: &str) -> Result<String, TraceError> {
    let wrong = || TraceError::Endpoint(text.to_owned());
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let is_good = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    let is_good = is_good && uri.query().is_none() && !uri.authority().is_some_and(|it| it.as_str().contains('@'));
    if is_good { Ok(text.trim_end_matches('/').to_owned()) } else { Err(wrong()) }
}

/// The export of a role's spans, until it is dropped or flushed.
pub struct Export(SdkTracerProvider);

impl Export {
    /// Prepares the export to the role's collector, if it has one; requests are sent by the runtime.
    pub fn begin(config: &RoleConfig, runtime: &Handle) -> Result<Option<Self>, TraceError> {
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
        let url = format!("{endpoint}/v1/traces");
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(runtime.clone(), ANSWER))
            .with_endpoint(&url)
            .with_timeout(ANSWER)
            // The client has pauses of its own, which last longer.
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|source| TraceError::Exporter { endpoint: url, source })?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let resource = Resource::builder_empty()
            .with_service_name(format!("evrocd-{}", config.role))
            .with_attributes([
                KeyValue::new("service.namespace", config.instance.clone()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", format!("{}-{}", config.host_name, std::process::id())),
                KeyValue::new("host.name", config.host_name.clone()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .build();
        propagation::install();
        Ok(Some(Self(provider)))
    }

    /// The layer that takes the spans, and nothing else.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let tracer = self.0.tracer("evrocd");
        // A span begins when its first child does, so that a trace can be adopted after the caller was authenticated.
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_context_activation(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(evroc_metrics::spans::TARGET, Level::TRACE))
    }

    /// Sends what is left; waits for it a short time.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn an_endpoint_is_plain_http_without_secrets() {
        assert_eq!(endpoint("http://127.0.0.1:4318").unwrap(), "http://127.0.0.1:4318");
        assert_eq!(endpoint("http://[::1]:4318/otlp/").unwrap(), "http://[::1]:4318/otlp");
        for wrong in ["127.0.0.1:4318", "https://collector:4318", "http://", "http://a:b@collector", "http://c/?key=1"]
        {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
