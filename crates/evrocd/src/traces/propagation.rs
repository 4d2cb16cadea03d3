//! Traces that go on in another process: the headers of W3C Trace Context.

use evroc_metrics::spans::{self, Propagation};
use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tower::util::MapRequestLayer;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// Has all crates of the process use these headers.
pub(super) fn install() {
    spans::propagate(Propagation { adopt, write });
}

/// Names the current span in all requests of a client.
pub fn layer<B>() -> MapRequestLayer<fn(http::Request<B>) -> http::Request<B>> {
    MapRequestLayer::new(|mut request| {
        spans::write(request.headers_mut());
        request
    })
}

/// The span that the headers name, if they name one and only one.
fn named(headers: &HeaderMap) -> Context {
    if headers.get_all(PARENT).iter().count() != 1 {
        return Context::new();
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

fn adopt(span: &Span, headers: &HeaderMap) {
    let parent = named(headers);
    if !parent.span().span_context().is_valid() {
        return;
    }
    if let Err(error) = span.set_parent(parent) {
        tracing::debug!(%error, "cannot continue the trace of a request");
    }
}

fn write(span: &Span, headers: &mut HeaderMap) {
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return;
    }
    headers.remove(PARENT);
    headers.remove(STATE);
    TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
    if headers.get(STATE).is_some_and(http::HeaderValue::is_empty) {
        headers.remove(STATE);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn passed_on(sent: &[(&'static str, &str)]) -> HeaderMap {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_context_activation(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            let span = evroc_metrics::span!("request");
            adopt(&span, &headers);
            write(&span, &mut headers);
            headers
        })
    }

    #[test]
    fn a_trace_goes_on_under_a_new_span() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let headers = passed_on(&[(PARENT, &parent), (STATE, "vendor=1")]);
        let written = headers[PARENT].to_str().unwrap();
        assert!(written.contains(TRACE) && written.ends_with("-01") && written != parent, "{written}");
        assert_eq!(headers[STATE], "vendor=1");
        let unsampled = passed_on(&[(PARENT, &parent.replace("-01", "-00"))]);
        assert!(unsampled[PARENT].to_str().unwrap().ends_with("-00"));
    }

    #[test]
    fn a_parent_that_is_none_begins_a_trace() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for wrong in [&[(PARENT, "x"), (STATE, "vendor=1")][..], &[(PARENT, &parent), (PARENT, &parent)], &[]] {
            let headers = passed_on(wrong);
            let all: Vec<_> = headers.get_all(PARENT).iter().collect();
            assert!(all.len() == 1 && !all[0].to_str().unwrap().contains(TRACE), "{all:?}");
            assert!(!headers.contains_key(STATE), "the state belongs to the other trace");
        }
    }
}
