//! A server in this process, over a store of its own, and a plain client for it.

pub mod network;
pub mod observed;
pub mod pki;
pub mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evroc_apiserver::authn::CertificateAuthenticator;
use evroc_apiserver::authz::GroupAuthorizer;
use evroc_apiserver::server::IdentityService;
use evroc_apiserver::{ApiServer, Builder, Identity};
use evroc_store::Store;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

pub use observed::{Counts, ObservedStore};
pub use store::TestState;

/// The file that defines the kinds of the tests.
pub fn crd_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/crds"))
}

/// A running server.
pub struct TestServer {
    pub api: ApiServer,
    pub state: TestState,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub async fn start_with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        Self::start_over(TestState::new().await, configure).await
    }

    /// A server, and what it asks of its store.
    pub async fn observed(configure: impl FnOnce(Builder) -> Builder) -> (Self, Arc<Counts>) {
        let state = TestState::new().await;
        let store = ObservedStore::new(state.open().await);
        let counts = store.counts.clone();
        (Self::start_with_store(state, Arc::new(store), configure).await, counts)
    }

    /// A server over a state that an earlier one may have left.
    pub async fn start_over(state: TestState, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let store = state.open().await;
        Self::start_with_store(state, store, configure).await
    }

    async fn start_with_store(
        state: TestState,
        store: Arc<dyn Store>,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let unlimited = vec!["evroc:operators".into(), "system:controllers".into()];
        let builder = ApiServer::builder(store)
            .authenticator(Arc::new(CertificateAuthenticator::new(pki::read_certificate)))
            .authorizer(Arc::new(GroupAuthorizer { unlimited }))
            .crd_dir(crd_dir())
            .unwrap();
        let api = configure(builder).start().await.unwrap();
        TestServer { api, state }
    }

    /// A client with all rights.
    pub fn admin(&self) -> Client {
        self.client("admin", &["evroc:operators"])
    }

    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        Client(self.api.service_as(Identity::new(user, groups.iter().copied())))
    }

    /// A server with the namespace `demo`.
    pub async fn with_demo() -> (Self, Client) {
        let server = Self::start().await;
        let admin = server.admin();
        admin.make_namespace("demo").await;
        (server, admin)
    }
}

/// Sends requests and reads whole answers.
#[derive(Clone)]
pub struct Client(pub IdentityService);

pub const DISKS: &str = "/apis/test.example/v1/namespaces/demo/disks";

pub fn disk(name: &str, size: u32) -> Value {
    json!({
        "apiVersion": "test.example/v1", "kind": "Disk",
        "metadata": {"name": name, "namespace": "demo"}, "spec": {"sizeGb": size},
    })
}

impl Client {
    pub async fn respond(&self, request: Request<Full<Bytes>>) -> Response<evroc_apiserver::body::ResponseBody> {
        self.0.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .header("user-agent", "suite/1")
            .body(Full::new(body.into()))
            .unwrap();
        let response = self.respond(request).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::String(String::from_utf8_lossy(&bytes).into_owned())))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, "application/json", "").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> (StatusCode, Value) {
        let request = Request::builder().uri(path).header("accept", accept).body(Full::default()).unwrap();
        let response = self.respond(request).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::PATCH, path, "application/merge-patch+json", body.to_string()).await
    }

    pub async fn apply(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::PATCH, path, "application/apply-patch+yaml", body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, "application/json", "").await
    }

    /// Creates and expects success.
    pub async fn create(&self, path: &str, body: &Value) -> Value {
        let (code, object) = self.post(path, body).await;
        assert_eq!(code, 201, "{object}");
        object
    }

    pub async fn make_namespace(&self, name: &str) -> Value {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.create("/api/v1/namespaces", &body).await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Events {
        let request = Request::builder().uri(path).body(Full::default()).unwrap();
        let response = self.respond(request).await;
        assert_eq!(response.status(), 200, "{path}");
        Events { body: response.into_body(), buffer: Vec::new() }
    }
}

/// The lines of a watch.
pub struct Events {
    body: evroc_apiserver::body::ResponseBody,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` if the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame())
                .await
                .expect("an event within 20 s")?
                .unwrap();
            self.buffer.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// `TYPE name` of the next event.
    pub async fn brief(&mut self) -> String {
        let event = self.next().await.expect("another event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-").to_owned();
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

/// Waits until a request answers so.
pub async fn eventually(client: &Client, path: &str, what: &str, is_so: impl Fn(StatusCode, &Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (code, value) = client.get(path).await;
        if is_so(code, &value) {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path}: not {what} within 20 s: {code} {value}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until an object is deleted.
pub async fn eventually_deleted(client: &Client, path: &str) {
    eventually(client, path, "gone", |code, _| code == 404).await;
}

/// Names of a list's items.
pub fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap()).collect()
}
