//! An API server with the kinds of the cloud and nothing else, and a plain client for it.

use std::sync::Arc;

use bytes::Bytes;
use evroc_apiserver::authz::GroupAuthorizer;
use evroc_apiserver::server::IdentityService;
use evroc_apiserver::{ApiServer, Builder, Identity};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

/// A server; its store goes with it.
pub struct Server {
    api: ApiServer,
    service: IdentityService,
    _dir: tempfile::TempDir,
}

impl Server {
    /// A server with the namespace `demo`.
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// The same with more.
    pub async fn start_with(more: impl FnOnce(Builder) -> Builder) -> Self {
        let (store, dir) = evroc_testkit::empty_store().await;
        let authorizer = GroupAuthorizer { unlimited: vec!["operators".into(), "system:controllers".into()] };
        let mut builder = ApiServer::builder(store).authorizer(Arc::new(authorizer));
        for kind in evroc_control::kinds::all().expect("kinds") {
            builder = builder.kind(kind);
        }
        let api = more(builder).start().await.expect("a server");
        let service = api.service_as(Identity::new("admin", ["operators"]));
        let server = Server { api, service, _dir: dir };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}});
        let (code, answer) = server.send(Method::POST, "/api/v1/namespaces", "application/json", &namespace).await;
        assert_eq!(code, 201, "{answer}");
        server
    }

    /// The server as another caller has it.
    pub fn service_as(&self, caller: Identity) -> IdentityService {
        self.api.service_as(caller)
    }

    /// A client within the process.
    pub fn client(&self) -> kube::Client {
        self.api.client_as(Identity::controller("test"), "demo")
    }

    /// One request.
    pub async fn send(&self, method: Method, path: &str, media_type: &str, body: &Value) -> (StatusCode, Value) {
        let (code, answer, _) = self.send_and_see(method, path, media_type, body).await;
        (code, answer)
    }

    /// One request; the answer comes with its warnings.
    pub async fn send_and_see(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: &Value,
    ) -> (StatusCode, Value, Vec<String>) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        let response = self.service.clone().oneshot(request).await.expect("an answer");
        let code = response.status();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned()).collect();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null), warnings)
    }

    /// Creates an object.
    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, "application/json", body).await
    }

    /// Changes an object.
    pub async fn merge(&self, path: &str, patch: &Value) -> (StatusCode, Value) {
        self.send(Method::PATCH, path, "application/merge-patch+json", patch).await
    }
}

/// The path of a kind's objects, and an object of the kind without a name.
pub fn kind(plural: &str) -> (String, Value) {
    let definitions = evroc_api::definitions();
    let definition = definitions.iter().find(|it| it.spec.names.plural == plural);
    let spec = &definition.unwrap_or_else(|| panic!("no kind {plural}")).spec;
    let version = &spec.versions[0].name;
    let group_version = format!("{}/{version}", spec.group);
    let path = match spec.scope.as_str() {
        "Namespaced" => format!("/apis/{group_version}/namespaces/demo/{plural}"),
        _ => format!("/apis/{group_version}/{plural}"),
    };
    (path, json!({"apiVersion": group_version, "kind": spec.names.kind, "metadata": {}, "spec": {}}))
}
