//! Serves the kinds of a folder of CustomResourceDefinitions, to try kubectl on:
//!
//! ```text
//! cargo run -p evroc-apiserver --example serve -- STATE_DIR PORT [CRD_DIR]
//! KUBECONFIG=STATE_DIR/kubeconfig kubectl get disks
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evroc_apiserver::audit::FileAudit;
use evroc_apiserver::authz::GroupAuthorizer;
use evroc_apiserver::{ApiServer, ServeOptions};
use evroc_store::EmbeddedStore;
use tokio_util::sync::CancellationToken;

#[path = "../tests/api/support/pki.rs"]
mod pki;

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("usage: serve STATE_DIR PORT [CRD_DIR]"));
    let port = arguments.next().expect("usage: serve STATE_DIR PORT [CRD_DIR]");
    let crds = arguments.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/crds").into());
    std::fs::create_dir_all(&dir).unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.join("store")).await.unwrap());
    let server = ApiServer::builder(store)
        .crd_dir(crds.as_ref())
        .unwrap()
        .authorizer(Arc::new(GroupAuthorizer {
            unlimited: vec!["evroc:operators".into(), "system:controllers".into()],
        }))
        .audit(Arc::new(FileAudit::open(&dir.join("audit.jsonl")).unwrap()))
        .start()
        .await
        .unwrap();
    let pki = pki::Pki::new();
    let admin = pki.client("admin", &["evroc:operators"]);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap();
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {
            "server": format!("https://{}", listener.local_addr().unwrap()),
            "certificate-authority-data": STANDARD.encode(pki.authority_pem()),
        }}],
        "users": [{"name": "it", "user": {
            "client-certificate-data": STANDARD.encode(admin.certificate),
            "client-key-data": STANDARD.encode(admin.key),
        }}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "demo"}}],
    });
    std::fs::write(dir.join("kubeconfig"), kubeconfig.to_string()).unwrap();
    println!("KUBECONFIG={}", dir.join("kubeconfig").display());
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopper.cancel();
    });
    server.serve(vec![listener], pki.server_config(), ServeOptions::default(), stop).await.unwrap();
}
