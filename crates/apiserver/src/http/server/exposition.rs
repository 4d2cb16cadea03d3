//! `GET /metrics`: the text, and what of it is read from the server's state.

use std::sync::Arc;

use bytes::Bytes;
use evroc_metrics::{CONTENT_TYPE, Text, labels};
use http::{HeaderMap, HeaderValue, Response};

use super::shared::Shared;
use crate::http::request::RequestInfo;
use crate::http::respond;
use crate::object::body::{self, ResponseBody};
use crate::object::error::ApiError;

labels! {
    struct ObjectsOf {
        group: Text,
        resource: Text,
    }
}

/// Has the text contain what the server holds: objects by kind, the revision, the audit log.
pub(crate) fn measure_state(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.metrics.registry.at_scrape(move |scrape| {
        let Some(shared) = weak.upgrade() else { return Ok(()) };
        let objects = shared.cache.kinds().map(|(registered, kind)| {
            let (group, resource) = (registered.kind.group.as_str().into(), registered.kind.plural.as_str().into());
            (ObjectsOf { group, resource }, kind.count() as f64)
        });
        scrape.gauges("apiserver_storage_objects", "Objects in the store", objects)?;
        let revision = shared.cache.revision() as f64;
        scrape.gauge(
            "evroc_apiserver_cache_revision",
            "Revision of the store that reads are answered from",
            revision,
        )?;
        let audited = shared.audit.written_bytes() as f64;
        scrape.counter("evroc_apiserver_audit_written_bytes", "Bytes written to the audit log", audited)
    });
}

/// Answers `/metrics` and what is below it; `None` for other paths.
pub(crate) async fn answer(
    shared: &Shared,
    info: &RequestInfo,
    headers: &HeaderMap,
) -> Option<Result<Response<ResponseBody>, ApiError>> {
    let (first, rest) = info.segments.split_first()?;
    if first != "metrics" {
        return None;
    }
    if !matches!(info.verb, "get" | "head") {
        return Some(Err(ApiError::method_not_allowed()));
    }
    let text = match rest {
        [] => Ok(own(shared).await.into()),
        rest => shared.others.text(rest).await,
    };
    Some(text.map(|text: Bytes| {
        let mut response = Response::new(body::full(text));
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        respond::compress(headers, response)
    }))
}

async fn own(shared: &Shared) -> String {
    // Not read at the scrape itself, which cannot wait. A store that fails is seen elsewhere.
    let size = shared.store.used_bytes().await.ok();
    let size = size.and_then(|bytes| i64::try_from(bytes).ok());
    if let Some(bytes) = size {
        shared.metrics.storage_bytes.set(bytes);
    }
    shared.metrics.registry.text()
}
