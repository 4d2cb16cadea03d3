//! Serves kinds from CustomResourceDefinitions on loopback, for trying kubectl and for the suite in `tests/api`:
//!
//! ```text
//! cargo run -p evroc-apiserver --example serve -- --crd-dir FOLDER [--state FOLDER] [--port PORT] [--bare]
//! ```
//!
//! It says `KUBECONFIG=…` when it is ready and ends when its standard input does. At a line `forget` it compacts its store and starts again,
//! so that nothing of its history is left, and says `FORGOTTEN` when it is ready again. Without `--state` nothing of it is left, and
//! `EVROC_TEST_STORE` says over which store it serves (`embedded`, or `etcd-3.4` for an etcd of its own). `--bare` leaves
//! out what Kubernetes' own server for custom resources does not have by itself: core kinds, namespaces, garbage collection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evroc_apiserver::audit::{AuditLimits, FileAudit};
use evroc_apiserver::authn::CertificateAuthenticator;
use evroc_apiserver::authz::GroupAuthorizer;
use evroc_apiserver::{ApiServer, ServeOptions};
use evroc_store::{EmbeddedStore, Store};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

#[path = "../tests/api/support/pki.rs"]
mod pki;
#[path = "../tests/api/support/store.rs"]
mod store;

#[derive(Default)]
struct Arguments {
    crd_dirs: Vec<PathBuf>,
    state: Option<PathBuf>,
    port: u16,
    bare: bool,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let mut parsed = Arguments::default();
        let mut all = std::env::args().skip(1);
        while let Some(name) = all.next() {
            let mut value = || all.next().ok_or_else(|| format!("{name}: expected a value"));
            match name.as_str() {
                "--crd-dir" => parsed.crd_dirs.push(value()?.into()),
                "--state" => parsed.state = Some(value()?.into()),
                "--port" => parsed.port = value()?.parse().map_err(|error| format!("--port: {error}"))?,
                "--bare" => parsed.bare = true,
                _ => return Err(format!("{name}: expected --crd-dir, --state, --port or --bare")),
            }
        }
        Ok(parsed)
    }
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse().unwrap_or_else(|problem| {
        eprintln!("serve: {problem}");
        std::process::exit(2);
    });
    // Ends an etcd, and removes everything, when it is dropped.
    let temporary = store::TestState::new().await;
    let (dir, store): (_, Arc<dyn Store>) = match arguments.state.clone() {
        None => (temporary.dir().to_owned(), temporary.open().await),
        Some(dir) => {
            std::fs::create_dir_all(&dir).expect("make the state folder");
            let store = EmbeddedStore::open(dir.join("store")).await.expect("open the store");
            (dir, Arc::new(store))
        }
    };
    let pki = pki::Pki::new();
    let admin = pki.client("admin", &["evroc:operators"]);
    let listener = std::net::TcpListener::bind(("127.0.0.1", arguments.port)).expect("listen");
    listener.set_nonblocking(true).expect("listen");
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {
            "server": format!("https://{}", listener.local_addr().expect("an address")),
            "certificate-authority-data": STANDARD.encode(pki.authority_pem()),
        }}],
        "users": [{"name": "it", "user": {
            "client-certificate-data": STANDARD.encode(admin.certificate),
            "client-key-data": STANDARD.encode(admin.key),
        }}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "demo"}}],
    });
    std::fs::write(dir.join("kubeconfig"), kubeconfig.to_string()).expect("write the kubeconfig");
    let mut wanted = BufReader::new(tokio::io::stdin()).lines();
    let mut reply = format!("KUBECONFIG={}", dir.join("kubeconfig").display());
    loop {
        let server = start(&arguments, store.clone(), &dir).await;
        let again = listener.try_clone().expect("keep the address");
        let again = tokio::net::TcpListener::from_std(again).expect("listen");
        let stop = CancellationToken::new();
        let serving = server.serve(vec![again], pki.server_config(), ServeOptions::default(), stop.clone());
        let ending = async {
            println!("{reply}");
            // Without a further line the starter has ended, or wants the server's end.
            let line = wanted.next_line().await.expect("read a command");
            stop.cancel();
            line
        };
        let (served, line) = tokio::join!(serving, ending);
        served.expect("serve");
        drop(server);
        match line.as_deref() {
            None => break,
            Some("forget") => {
                let now = store.revision().await.expect("the revision of the store");
                store.compact(now).await.expect("compact the store");
            }
            Some(other) => panic!("{other:?}: expected \"forget\""),
        }
        reply = "FORGOTTEN".into();
    }
}

/// A server over the store.
async fn start(arguments: &Arguments, store: Arc<dyn Store>, dir: &Path) -> ApiServer {
    let unlimited = vec!["evroc:operators".into(), "system:controllers".into()];
    let mut builder = ApiServer::builder(store)
        .authenticator(Arc::new(CertificateAuthenticator::new(pki::read_certificate)))
        .authorizer(Arc::new(GroupAuthorizer { unlimited }))
        .audit(Arc::new(
            FileAudit::open(&dir.join("audit.jsonl"), AuditLimits::default()).expect("open the audit log"),
        ));
    for crds in &arguments.crd_dirs {
        builder = builder.crd_dir(crds).expect("read the definitions");
    }
    if arguments.bare {
        builder = builder.without_controllers().without_core_kinds();
    }
    builder.start().await.expect("start the server")
}
