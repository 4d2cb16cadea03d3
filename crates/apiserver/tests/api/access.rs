//! Authentication and authorisation over the network.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use evroc_apiserver::audit::{AuditRecord, AuditSink};
use evroc_apiserver::authn::{Authenticate, AuthenticatorChain, AuthnError, Identity, Peer, bearer_token};
use evroc_apiserver::health::HealthCheck;
use evroc_apiserver::mount::Mount;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::ServiceExt;

use crate::support::{DISKS, TestServer, disk};

#[tokio::test]
async fn strangers_get_health_and_nothing_else() {
    let server = TestServer::start().await;
    let ask = async |path: &str| {
        let request = http::Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap();
        let response = server.api.service().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(ask(path).await, (200, "ok".to_owned()), "{path}");
    }
    assert!(ask("/readyz?verbose").await.1.contains("[+]store ok"));
    assert_eq!(ask("/readyz/store").await.0, 200);
    assert_eq!(ask("/readyz/nothing").await.0, 404);
    for path in ["/", "/version", "/api", "/apis", "/openapi/v3", "/api/v1/namespaces", DISKS, "/no/such"] {
        assert_eq!(ask(path).await.0, 401, "{path}");
    }
}

#[tokio::test]
async fn health_does_its_work_once_however_many_ask() {
    let looks = Arc::new(AtomicUsize::new(0));
    let check = Arc::new(CountingCheck(looks.clone()));
    let (server, counts) = TestServer::observed(|builder| builder.without_controllers().health_check(check)).await;
    let before = counts.revisions.load(Ordering::SeqCst);
    let started = Instant::now();
    for number in 0..200 {
        let path = ["/readyz?verbose", "/livez", "/healthz", "/readyz/store"][number % 4];
        let request = http::Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap();
        assert_eq!(server.api.service().oneshot(request).await.unwrap().status(), 200, "{path}");
    }
    let most = 1 + started.elapsed().as_secs() as usize;
    let asked = counts.revisions.load(Ordering::SeqCst) - before;
    assert!((1..=most).contains(&asked), "the store was asked {asked} times, expected at most {most}");
    let looked = looks.load(Ordering::SeqCst);
    assert!((1..=most).contains(&looked), "the check ran {looked} times, expected at most {most}");
}

struct CountingCheck(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl HealthCheck for CountingCheck {
    fn name(&self) -> &str {
        "counting"
    }

    fn is_liveness(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn pages_of_other_hosts_open_no_websockets() {
    let server = TestServer::start_with(|builder| builder.allow_origin("console.example")).await;
    let ask = async |origin: &str| {
        let request = http::Request::get(format!("{DISKS}/a/anything"))
            .header("host", "api.example")
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("origin", origin);
        server.admin().respond(request.body(Full::default()).unwrap()).await.status().as_u16()
    };
    assert_eq!(ask("https://evil.example").await, 403);
    assert_eq!(ask("https://console.example").await, 404, "it is let in, and finds nothing");
    assert_eq!(ask("https://api.example").await, 404);
}

#[tokio::test]
async fn requests_that_no_rule_allows_are_denied_with_the_message_of_kubernetes() {
    let (server, _admin) = TestServer::with_demo().await;
    let bob = server.client("bob", &["people"]);
    let (code, refused) = bob.get(&format!("{DISKS}/a")).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "disks.test.example \"a\" is forbidden: User \"bob\" cannot get resource \"disks\" in API group \"test.example\" in the namespace \"demo\""
    );
    let (_, refused) = bob.get("/api/v1/namespaces").await;
    assert_eq!(
        refused["message"],
        "namespaces is forbidden: User \"bob\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope"
    );
    let (code, _) = bob.post(DISKS, &disk("a", 1)).await;
    assert_eq!(code, 403);
    assert_eq!(bob.get("/apis").await.0, 200, "discovery is for every authenticated caller");
    let (code, refused) = bob.get("/metrics").await;
    assert_eq!(
        (code.as_u16(), refused["message"].as_str().unwrap()),
        (403, "forbidden: User \"bob\" cannot get path \"/metrics\"")
    );
}

/// A caller who may do everything in one namespace would otherwise reach any other by a path below it.
#[tokio::test]
async fn no_namespaces_exist_below_a_namespace() {
    let (_server, admin) = TestServer::with_demo().await;
    for path in ["demo", "demo/namespaces/other", "demo/namespaces/demo", "demo/namespaces/demo/status"] {
        let (code, answer) = admin.get(&format!("/api/v1/namespaces/{path}")).await;
        assert_eq!(code == 404, path != "demo", "{path}: {answer}");
    }
    let (code, answer) = admin.delete("/api/v1/namespaces/default/namespaces/demo").await;
    assert_eq!(code, 404, "{answer}");
    assert_eq!(admin.get("/api/v1/namespaces/demo").await.1["status"]["phase"], "Active");
}

#[tokio::test]
async fn a_caller_may_ask_for_its_identity_and_permissions() {
    let (server, admin) = TestServer::with_demo().await;
    let bob = server.client("bob", &["people"]);
    let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (code, answer) = bob.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &question).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["status"]["userInfo"], json!({"username": "bob", "groups": ["people", "system:authenticated"]}));
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "group": "test.example", "resource": "disks", "namespace": "demo"}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(bob.post(path, &question).await.1["status"]["allowed"], false);
    let both = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"verb": "get", "path": "/apis"}}});
    assert_eq!(bob.post(path, &both).await.0, 400, "one question at a time");
    assert_eq!(admin.post(path, &question).await.1["status"]["allowed"], true);
}

#[derive(Default)]
struct Kept(Mutex<Vec<AuditRecord>>);

impl AuditSink for Kept {
    fn record(&self, record: AuditRecord) {
        self.0.lock().unwrap().push(record);
    }
}

#[tokio::test]
async fn every_request_is_recorded() {
    let kept = Arc::new(Kept::default());
    let sink = kept.clone();
    let server = TestServer::start_with(|it| it.audit(sink)).await;
    server.client("bob", &[]).get(&format!("{DISKS}/a")).await;
    server.admin().get(&format!("{DISKS}/none?pretty=true")).await;
    let request = http::Request::get("/apis").body(Full::<bytes::Bytes>::default()).unwrap();
    let response = server.api.service().oneshot(request).await.unwrap();
    let records = kept.0.lock().unwrap();
    let of = |code: u16| records.iter().find(|it| it.code == code).unwrap_or_else(|| panic!("no record of a {code}"));
    assert_eq!(of(401).audit_id, response.headers()["audit-id"].to_str().unwrap());
    assert_eq!((of(401).user.is_none(), of(401).reason.as_str()), (true, "no credentials were given"));
    assert_eq!(of(404).uri, format!("{DISKS}/none?pretty=true"));
    assert_eq!(of(404).reason, "disks.test.example \"none\" not found");
    let record = records.iter().find(|it| it.user.as_ref().is_some_and(|it| it.user == "bob")).unwrap();
    assert_eq!((record.verb.as_str(), record.resource.as_str(), record.namespace.as_str()), ("get", "disks", "demo"));
    assert_eq!((record.code, record.source.as_str(), record.name.as_str()), (403, "in-process", "a"));
    assert_eq!(record.reason, "not authorised");
}

/// Knows one token, and refuses another one by its reason.
struct Tokens {
    good: &'static str,
    old: &'static str,
}

#[async_trait::async_trait]
impl Authenticate for Tokens {
    async fn authenticate(&self, _: &Peer, headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        match bearer_token(headers) {
            Some(token) if token == self.good => Ok(Some(Identity::new(token, ["people"]))),
            Some(token) if token == self.old => Err(AuthnError { reason: format!("{token} has ended") }),
            _ => Ok(None),
        }
    }
}

#[tokio::test]
async fn bearer_tokens_identify_the_caller() {
    let kept = Arc::new(Kept::default());
    let sink = kept.clone();
    let chain = AuthenticatorChain(vec![
        Arc::new(Tokens { good: "bob", old: "eve" }),
        Arc::new(Tokens { good: "eve", old: "carol" }),
    ]);
    let server = TestServer::start_with(|it| it.audit(sink).authenticator(Arc::new(chain))).await;
    let ask = async |authorization: &str| {
        let request = http::Request::get("/version").header("authorization", authorization);
        let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
        let code = server.api.service().oneshot(request).await.unwrap().status().as_u16();
        let records = kept.0.lock().unwrap();
        let last = records.last().unwrap();
        (code, last.user.as_ref().map(|it| it.user.clone()), last.reason.clone())
    };
    let known = |name: &str| (200, Some(name.to_owned()), String::new());
    let unknown = |why: &str| (401, None, why.to_owned());
    assert_eq!(ask("Bearer bob").await, known("bob"));
    assert_eq!(ask("bearer  bob").await, known("bob"));
    assert_eq!(ask("Bearer eve").await, known("eve"), "refused by one, known to the next");
    assert_eq!(ask("Bearer carol").await, unknown("carol has ended"));
    for nothing in ["Bearer mallory", "Basic bob", "Bearer", "Bearer ", "bob"] {
        assert_eq!(ask(nothing).await, unknown("no credentials were given"), "{nothing:?}");
    }
}

/// Returns the user name that the server sees.
async fn who(
    request: http::Request<evroc_apiserver::body::RequestBody>,
) -> Result<http::Response<Full<bytes::Bytes>>, std::convert::Infallible> {
    let name = request.extensions().get::<Identity>().map_or("nobody", |it| it.user.as_str()).to_owned();
    Ok(http::Response::new(Full::from(name)))
}

#[tokio::test]
async fn mounted_services_pass_authentication_and_audit() {
    let kept = Arc::new(Kept::default());
    let sink = kept.clone();
    let of_server = || Arc::new(Tokens { good: "bob", old: "eve" });
    let of_service = AuthenticatorChain(vec![of_server(), Arc::new(Tokens { good: "carol", old: "eve" })]);
    let own =
        Mount::new("", "/own", tower::service_fn(who)).with_own_challenge().authenticated_by(Arc::new(of_service));
    let server = TestServer::start_with(|it| {
        it.audit(sink).authenticator(of_server()).mount(own).mount(Mount::new("", "/console", tower::service_fn(who)))
    })
    .await;
    let ask = async |path: &str, token: &str| {
        let request = http::Request::get(path).header("authorization", format!("Bearer {token}"));
        let response =
            server.api.service().oneshot(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        (code, http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes())
    };
    assert_eq!(ask("/own/x", "bob").await, (200, "bob".into()));
    assert_eq!(ask("/own/x", "mallory").await, (200, "nobody".into()), "it has credentials of its own");
    assert_eq!(ask("/own/x", "carol").await, (200, "carol".into()));
    assert_eq!(ask("/console/x", "bob").await, (200, "bob".into()));
    assert_eq!(ask("/console/x", "carol").await.0, 401, "only the other service knows her");
    let records = kept.0.lock().unwrap();
    let recorded = records.iter().map(|it| (it.uri.as_str(), it.code, it.user.as_ref().map(|it| it.user.as_str())));
    let expected = [
        ("/own/x", 200, Some("bob")),
        ("/own/x", 200, None),
        ("/own/x", 200, Some("carol")),
        ("/console/x", 200, Some("bob")),
        ("/console/x", 401, None),
    ];
    assert_eq!(recorded.collect::<Vec<_>>(), expected);
}

/// Believes everybody who says to be a controller.
struct Gullible;

#[async_trait::async_trait]
impl Authenticate for Gullible {
    async fn authenticate(&self, _: &Peer, _: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        Ok(Some(Identity::controller("it")))
    }
}

#[tokio::test]
async fn no_caller_from_the_network_is_a_controller() {
    let server = TestServer::start_with(|it| it.authenticator(Arc::new(Gullible))).await;
    let request = http::Request::get("/version").body(Full::<bytes::Bytes>::default()).unwrap();
    assert_eq!(server.api.service().oneshot(request).await.unwrap().status(), 401);
}
