//! Credentials that are revoked while they are used.

use std::sync::Arc;

use evroc_apiserver::authn::Peer;
use evroc_apiserver::{Identity, ResourceKind, Scope};
use http::Request;
use http_body_util::{BodyExt, Full};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::pki::{Pki, read_certificate};
use crate::support::{DISKS, TestServer, disk};

const REVOCATIONS: &str = "/apis/test.example/v1/revocations";

fn kind() -> ResourceKind {
    let schema =
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"id": {"type": "string"}}}}});
    let mut kind = ResourceKind::new("test.example", "v1", "Revocation", "revocations", schema);
    kind.scope = Scope::Cluster;
    kind.revokes = Some(Arc::new(|object: &Value| {
        object.pointer("/spec/id").and_then(Value::as_str).map(str::to_owned).into_iter().collect()
    }));
    kind
}

#[tokio::test]
async fn a_revoked_credential_ends_requests_and_watches() {
    let server = TestServer::start_with(|builder| builder.kind(kind())).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    let pki = Pki::new();
    let (one, other) = (pki.client("one", &["evroc:operators"]), pki.client("other", &["evroc:operators"]));
    let leaf = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    let ask = async |pem: &str, path: &str| {
        let peer = Peer::new(None, Arc::new([leaf(pem)]), None);
        let request = Request::get(path).extension(peer).body(Full::<bytes::Bytes>::default()).unwrap();
        server.api.service().oneshot(request).await.unwrap()
    };
    let watch = format!("{DISKS}?watch=true");
    let mut watching = ask(&one.certificate, &watch).await.into_body();
    let mut undisturbed = ask(&other.certificate, &watch).await.into_body();
    admin.create(DISKS, &disk("a", 1)).await;
    assert!(watching.frame().await.unwrap().unwrap().data_ref().unwrap().starts_with(b"{\"type\":\"ADDED\""));
    assert!(undisturbed.frame().await.unwrap().is_ok());

    let identity: Identity = read_certificate(&leaf(&one.certificate)).unwrap();
    let serial = identity.credentials().next().expect("a serial number").to_owned();
    let revocation = json!({"apiVersion": "test.example/v1", "kind": "Revocation", "metadata": {"name": "lost"}, "spec": {"id": serial}});
    admin.create(REVOCATIONS, &revocation).await;
    assert!(watching.frame().await.unwrap().is_err(), "the watch ends");
    assert_eq!(ask(&one.certificate, DISKS).await.status(), 401);
    assert_eq!(ask(&other.certificate, DISKS).await.status(), 200);
    admin.create(DISKS, &disk("b", 1)).await;
    assert!(undisturbed.frame().await.unwrap().is_ok(), "the streams of others go on");

    drop((watching, undisturbed, admin));
    let TestServer { api, state } = server;
    api.shut_down();
    drop(api);
    let server = TestServer::start_over(state, |builder| builder.kind(kind())).await;
    let peer = Peer::new(None, Arc::new([leaf(&one.certificate)]), None);
    let request = Request::get(DISKS).extension(peer).body(Full::<bytes::Bytes>::default()).unwrap();
    assert_eq!(server.api.service().oneshot(request).await.unwrap().status(), 401, "from the first request on");
    let (code, _) = server.admin().delete(&format!("{REVOCATIONS}/lost")).await;
    assert_eq!(code, 200);
}
