//! Traces of real requests, as a collector receives them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;

use crate::client::{ask, ask_api, ask_gateway};
use crate::fixture::{Instance, eventually};

const OF_API: &str = "00000000000000000000000000000a01";
const OF_STRANGER: &str = "00000000000000000000000000000a02";
const OF_GATEWAY: &str = "00000000000000000000000000000a03";
const PARENT: &str = "00000000000000b1";

/// A span with the role that sent it.
#[derive(Clone, Debug)]
struct Seen {
    role: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: Vec<(String, String)>,
}

impl Seen {
    fn has(&self, name: &str, value: &str) -> bool {
        self.attributes.iter().any(|(key, is)| key == name && is == value)
    }
}

/// A collector for OTLP over HTTP.
#[derive(Clone)]
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Seen>>>,
    /// The senders of the messages.
    senders: Arc<Mutex<Vec<String>>>,
    /// Whether messages are answered with 503.
    refuses: Arc<AtomicBool>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self { url, spans: Arc::default(), senders: Arc::default(), refuses: Arc::default() };
        let own = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                own.receive(stream.unwrap());
            }
        });
        collector
    }

    fn receive(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let mut line = String::new();
            if stream.read_line(&mut line).unwrap() == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            head += &line;
        }
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: application/x-protobuf"), "{head}");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let sent = ExportTraceServiceRequest::decode(&body[..]).expect("OTLP");
        let service = |of: &ResourceSpans| {
            let attributes = texts(&of.resource.as_ref().expect("a resource").attributes);
            attributes.into_iter().find(|(key, _)| key == "service.name").expect("a service").1
        };
        self.senders.lock().unwrap().extend(sent.resource_spans.first().map(service));
        self.spans.lock().unwrap().extend(sent.resource_spans.into_iter().flat_map(|of| {
            let role = service(&of);
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.map(move |span| Seen {
                role: role.clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: texts(&span.attributes),
            })
        }));
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        let status = if self.refuses.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
        let head = "Content-Type: application/x-protobuf\r\nConnection: close\r\n";
        let stream = stream.get_mut();
        write!(stream, "HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n", answer.len()).unwrap();
        stream.write_all(&answer).unwrap();
    }

    fn all(&self) -> Vec<Seen> {
        self.spans.lock().unwrap().clone()
    }

    fn wait(&self, what: &str, is_it: impl Fn(&Seen) -> bool) -> Seen {
        eventually(what, || self.all().into_iter().find(&is_it))
    }

    /// Waits for a child in `role` of a span that `is_parent` describes, with both.
    fn wait_for_child(&self, what: &str, role: &str, is_parent: impl Fn(&Seen) -> bool) -> (Seen, Seen) {
        eventually(what, || {
            let all = self.all();
            all.iter().filter(|parent| is_parent(parent)).find_map(|parent| {
                let is_child = |it: &&Seen| it.parent == parent.id && it.trace == parent.trace && it.role == role;
                all.iter().find(is_child).map(|child| (parent.clone(), child.clone()))
            })
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |it: &KeyValue| match it.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|it| (it.key.clone(), text(it))).collect()
}

fn header(trace: &str) -> String {
    format!("traceparent: 00-{trace}-{PARENT}-01\r\n")
}

#[test]
fn a_collector_receives_requests_and_reconciliations_as_traces() {
    let collector = Collector::start();
    let instance = Instance::new();
    instance.start(&["--otlp-endpoint", &collector.url, "--uplink", "none"]);

    // The API goes on with the trace of a caller that it knows, and not with that of another.
    let list = "/apis/compute.evroclabs.net/v1alpha1/namespaces/demo/disks";
    let operator = instance.kubeconfig();
    assert_eq!(ask(&instance, Some(&operator), "GET", list, &header(OF_API), "").unwrap(), 200);
    assert_eq!(ask(&instance, None, "GET", list, &header(OF_STRANGER), "").unwrap(), 401);
    let request = collector.wait("the span of the request", |it| it.trace == OF_API);
    assert_eq!((request.role.as_str(), request.name.as_str()), ("evrocd-control", "LIST disks"));
    assert_eq!(request.parent, PARENT);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("verb", "list"),
        ("group", "compute.evroclabs.net"),
        ("resource", "disks"),
        ("namespace", "demo"),
        ("user_agent.original", "a-test"),
    ] {
        assert!(request.has(name, value), "{name} is not {value}: {request:?}");
    }
    let refused = |it: &Seen| it.has("http.response.status_code", "401") && it.has("user_agent.original", "a-test");
    let refused = collector.wait("the span of the refused request", refused);
    assert_ne!(refused.trace, OF_STRANGER);

    // A reconciliation in control and one in the node, each with its requests to the API.
    let disk = r#"{"apiVersion":"compute.evroclabs.net/v1alpha1","kind":"Disk","metadata":{"name":"traced"},"spec":{"diskSize":{"amount":1,"unit":"GB"}}}"#;
    assert_eq!(ask(&instance, Some(&operator), "POST", list, "Content-Type: application/json\r\n", disk).unwrap(), 201);
    let of = |it: &Seen, role: &str, name: &str| it.role == role && it.name == name;
    let (parent, child) = collector.wait_for_child("a request of the disk's controller", "evrocd-control", |it| {
        of(it, "evrocd-control", "reconcile disk") && it.has("name", "traced") && it.has("namespace", "demo")
    });
    assert!(
        parent.parent.is_empty() && child.has("http.request.method", "GET") || child.has("verb", "patch"),
        "{child:?}"
    );
    let of_host = |it: &Seen| it.has("resource", "hosts") && it.attributes.iter().any(|(key, _)| key == "name");
    let report = collector.wait("a request about the host", of_host);
    let host = &report.attributes.iter().find(|(key, _)| key == "name").unwrap().1;
    let volumes = "/apis/infra.evroclabs.net/v1alpha1/namespaces/demo/volumes";
    let volume = format!(
        r#"{{"apiVersion":"infra.evroclabs.net/v1alpha1","kind":"Volume","metadata":{{"name":"traced"}},"spec":{{"hostName":"{host}","sizeBytes":1048576}}}}"#
    );
    assert_eq!(
        ask(&instance, Some(&operator), "POST", volumes, "Content-Type: application/json\r\n", &volume).unwrap(),
        201
    );
    let (parent, _) = collector.wait_for_child("a request of the node to the API", "evrocd-control", |it| {
        of(it, "evrocd-node", "reconcile volume")
    });
    assert!(parent.has("result", "success") || parent.has("result", "requeue_after"), "{parent:?}");

    // The gateway goes on with every client's trace.
    assert_eq!(ask_gateway(&instance, "nobody", &header(OF_GATEWAY)).unwrap(), 404);
    let request = collector.wait("the span of the gateway", |it| it.trace == OF_GATEWAY && it.parent == PARENT);
    assert_eq!((request.role.as_str(), request.name.as_str()), ("evrocd-edge", "GET"));
    assert!(request.has("url.path", "/a/path") && request.has("http.response.status_code", "404"), "{request:?}");
    collector.wait("its child", |it| it.parent == request.id && it.name == "find replica");

    // What is left is sent when a role ends.
    let last = "00000000000000000000000000000a04";
    assert_eq!(ask(&instance, Some(&operator), "GET", list, &header(last), "").unwrap(), 200);
    instance.must(&["down"]);
    assert!(collector.all().iter().any(|it| it.trace == last), "the last span was sent before the end");
    let secrets =
        collector.all().into_iter().find(|it| it.attributes.iter().any(|(_, value)| value.contains("secret")));
    assert!(secrets.is_none(), "{secrets:?}");

    // Remembered, until it is taken back.
    assert_eq!(instance.record()["otlpEndpoint"], collector.url);
    instance.start(&["--otlp-endpoint", "none"]);
    assert!(instance.record()["otlpEndpoint"].is_null());
}

#[test]
fn a_collector_that_fails_is_named_once_and_disturbs_nobody() {
    let collector = Collector::start();
    collector.refuses.store(true, Ordering::SeqCst);
    let instance = Instance::new();
    instance.start(&["--otlp-endpoint", &collector.url, "--uplink", "none"]);
    let log = instance.state().join("log/control.log");
    let lines = |what: &str| std::fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains(what)).count();
    let messages = || collector.senders.lock().unwrap().iter().filter(|role| *role == "evrocd-control").count();
    eventually("control has tried several times", || {
        assert_eq!(ask_api(&instance, "/version").unwrap(), 200);
        (messages() >= 3).then_some(())
    });
    let failure = format!("{}/v1/traces\" error=\"the answer is 503", collector.url);
    assert_eq!((lines("cannot export spans"), lines(&failure)), (1, 1));
    collector.refuses.store(false, Ordering::SeqCst);
    eventually("the log says that it works", || (lines("spans are exported again") == 1).then_some(()));
}
