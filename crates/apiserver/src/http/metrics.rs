//! The metrics of requests.
//!
//! Names and labels are those of Kubernetes' API server where it has the value. Labels are names of registered kinds, their
//! subresources, and words of this module: what a client sends in another way becomes `other`, so that the number of series is bounded by
//! the kinds.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evroc_metrics::{Counters, Gauge, Gauges, Held, Histograms, Registry, Text, buckets, labels, words};
use http::{HeaderMap, Method, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::http::flow::Rejection;
use crate::http::request::RequestInfo;
use crate::object::body::{BoxError, ResponseBody};
use crate::object::error::ApiError;
use crate::object::kind::ResourceKind;
use crate::object::registry::Registry as Kinds;

/// Serves what is below `/metrics`: the text of other processes, so that a monitoring system needs one address and one credential.
#[async_trait]
pub trait MetricsOfOthers: Send + Sync {
    /// Returns the OpenMetrics text for the segments of the path after `/metrics`.
    ///
    /// # Errors
    /// 404 for paths that name nothing, 503 if the process does not answer.
    async fn text(&self, path: &[String]) -> Result<Bytes, ApiError>;
}

/// Answers 404 for everything.
pub(crate) struct NoOthers;

#[async_trait]
impl MetricsOfOthers for NoOthers {
    async fn text(&self, _: &[String]) -> Result<Bytes, ApiError> {
        Err(ApiError::no_such_path())
    }
}

words! {
    enum Verb {
        Get = "GET",
        List = "LIST",
        Watch = "WATCH",
        Post = "POST",
        Put = "PUT",
        Patch = "PATCH",
        Apply = "APPLY",
        Delete = "DELETE",
        DeleteCollection = "DELETECOLLECTION",
        Connect = "CONNECT",
        Other = "other",
    }
}

impl Verb {
    /// Whether requests run as long as their client likes: they are left out of latencies.
    fn is_long(self) -> bool {
        matches!(self, Verb::Watch | Verb::Connect)
    }
}

words! {
    enum Scope {
        None = "",
        Cluster = "cluster",
        Namespace = "namespace",
        Resource = "resource",
    }
}

labels! {
    /// A request, by what it is about.
    pub(crate) struct Labels {
        verb: Verb,
        group: Text,
        version: Text,
        resource: Text,
        subresource: Text,
        scope: Scope,
    }
}

impl Labels {
    /// The operation in a few words, of which there is a bounded number.
    pub(crate) fn operation(&self) -> String {
        let parts = [self.verb.word(), self.resource.as_str(), self.subresource.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

labels! {
    struct Code {
        code: u16,
    }
}

words! {
    enum RequestKind {
        ReadOnly = "readOnly",
        Mutating = "mutating",
    }
}

labels! {
    struct InFlight {
        request_kind: RequestKind,
    }
}

labels! {
    struct Rejected {
        reason: Rejection,
    }
}

/// The labels of a registered kind, made once.
struct KindLabels {
    group: Text,
    version: Text,
    resource: Text,
    subresources: HashMap<String, (Text, bool)>,
}

/// The metrics of the requests of one server.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    kinds: HashMap<String, Vec<KindLabels>>,
    none: Text,
    other: Text,
    paths: HashMap<&'static str, Text>,
    requests: Counters<(Labels, Code)>,
    seconds: Histograms<Labels>,
    long: Gauges<Labels>,
    in_flight: [Gauge; 2],
    pub(crate) storage_bytes: Gauge,
    rejected: Counters<Rejected>,
}

/// First segments of paths that are not resources; Kubernetes writes them as `subresource`.
const PATHS: [&str; 6] = ["/api", "/apis", "/metrics", "/openapi", "/version", "/"];

impl Metrics {
    pub(crate) fn new(registry: Registry, kinds: &Kinds) -> Self {
        let mut by_plural: HashMap<String, Vec<KindLabels>> = HashMap::new();
        for registered in kinds.kinds() {
            let kind = &registered.kind;
            by_plural.entry(kind.plural.clone()).or_default().push(KindLabels::of(kind));
        }
        let in_flight =
            registry.gauges::<InFlight>("apiserver_current_inflight_requests", "Requests that are being answered");
        let in_flight = [RequestKind::ReadOnly, RequestKind::Mutating]
            .map(|request_kind| in_flight.get_or_create_owned(&InFlight { request_kind }));
        Metrics {
            kinds: by_plural,
            none: "".into(),
            other: "other".into(),
            paths: PATHS.iter().map(|path| (*path, Text::from(*path))).collect(),
            requests: registry.counters("apiserver_request", "Requests that were answered"),
            seconds: registry.histograms(
                "apiserver_request_duration_seconds",
                "Time until the head of the answer, in seconds; without watches and streams",
                buckets::request,
            ),
            long: registry.gauges("apiserver_longrunning_requests", "Watches and streams that are open"),
            in_flight,
            storage_bytes: registry.register("apiserver_storage_size_bytes", "Size of the store", Gauge::default()),
            rejected: registry
                .counters("apiserver_flowcontrol_rejected_requests", "Requests that flow control refused"),
            registry,
        }
    }

    /// The labels of a request; `None` is one that was not understood. A mount is known by its path.
    pub(crate) fn labels(&self, info: Option<&RequestInfo>, mount: Option<&Text>, is_apply: bool) -> Labels {
        let none = || self.none.clone();
        let with = |verb, subresource| {
            let (group, version, resource) = (none(), none(), none());
            Labels { verb, group, version, resource, subresource, scope: Scope::None }
        };
        let Some(info) = info else { return with(Verb::Other, self.other.clone()) };
        let verb = verb_of(info.verb, is_apply);
        if let Some(mount) = mount {
            return with(verb, mount.clone());
        }
        if !info.is_resource {
            let first = info.segments.first().map_or("", String::as_str);
            let path = self.paths.iter().find(|(path, _)| path.strip_prefix('/') == Some(first));
            return with(verb, path.map_or(&self.other, |(_, path)| path).clone());
        }
        let known = self.kinds.get(&info.resource).and_then(|kinds| {
            kinds.iter().find(|kind| kind.group.as_str() == info.group && kind.version.as_str() == info.version)
        });
        let Some(kind) = known else {
            return Labels { resource: self.other.clone(), ..with(verb, none()) };
        };
        let (subresource, is_connected) = match info.subresource.as_str() {
            "" => (none(), false),
            name => kind.subresources.get(name).cloned().unwrap_or_else(|| (self.other.clone(), false)),
        };
        let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
            (false, _) => Scope::Resource,
            (true, false) => Scope::Namespace,
            (true, true) => Scope::Cluster,
        };
        Labels {
            verb: if is_connected { Verb::Connect } else { verb },
            group: kind.group.clone(),
            version: kind.version.clone(),
            resource: kind.resource.clone(),
            subresource,
            scope,
        }
    }

    /// Counts a request as being answered until the value is dropped.
    pub(crate) fn begin(&self, method: &Method) -> Held {
        let is_reading = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        Held::new(self.in_flight[usize::from(!is_reading)].clone())
    }

    /// Counts an answer; a watch or stream is counted as open until its body ends.
    pub(crate) fn end(
        &self,
        labels: Labels,
        took: Duration,
        response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        let code = response.status().as_u16();
        let is_long = labels.verb.is_long() && response.status().is_success();
        let response = if is_long {
            let held = Held::new(self.long.get_or_create_owned(&labels));
            response.map(|body| Open { body, _held: held }.boxed_unsync())
        } else {
            if !labels.verb.is_long() {
                self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
            }
            response
        };
        self.requests.get_or_create(&(labels, Code { code })).inc();
        response
    }

    /// Counts a refusal of flow control.
    pub(crate) fn reject(&self, reason: Rejection) {
        self.rejected.get_or_create(&Rejected { reason }).inc();
    }
}

impl KindLabels {
    fn of(kind: &ResourceKind) -> Self {
        let own = [
            kind.subresources.status.then_some("status"),
            kind.subresources.scale.is_some().then_some("scale"),
            (kind.group.is_empty() && kind.plural == "namespaces").then_some("finalize"),
        ];
        let own = own.into_iter().flatten().map(|name| (name.to_owned(), (Text::from(name), false)));
        let connected = kind.connect.keys().map(|name| (name.clone(), (Text::from(name.as_str()), true)));
        KindLabels {
            group: kind.group.as_str().into(),
            version: kind.version.as_str().into(),
            resource: kind.plural.as_str().into(),
            subresources: own.chain(connected).collect(),
        }
    }
}

/// Whether a patch is an apply, which Kubernetes counts as a verb of its own.
pub(crate) fn is_apply(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"))
}

fn verb_of(verb: &str, is_apply: bool) -> Verb {
    match verb {
        "get" | "head" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" | "post" => Verb::Post,
        "update" | "put" => Verb::Put,
        "patch" if is_apply => Verb::Apply,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        _ => Verb::Other,
    }
}

/// A body of a watch or stream, counted as open until it is dropped.
struct Open {
    body: ResponseBody,
    _held: Held,
}

impl Body for Open {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
