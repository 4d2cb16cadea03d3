//! The platform's API on a socket, for clients in other processes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evroc_apiserver::{ApiServer, ServeOptions};
use evroc_iam::leaf::{self, OPERATOR_LIFE, ROLE_LIFE};
use evroc_iam::{Authority, AuthorityPaths, LeafSpec};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::platform::{DOMAIN, GROUP};

/// The API over TLS on a free port of loopback. Dropping it closes the port.
pub struct Endpoint {
    address: SocketAddr,
    authority: Authority,
    stop: CancellationToken,
    dir: TempDir,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Endpoint {
    pub(crate) async fn open(server: ApiServer) -> Self {
        // A process has one provider; a second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| dir.path().join(name);
        let paths =
            AuthorityPaths { key: file("ca.key"), certificate: file("ca.crt"), public_copy: file("public-ca.crt") };
        let now = SystemTime::now();
        let (authority, _) = Authority::open_or_create(&paths, "testkit", now).expect("an authority");
        let own = leaf::issue(&authority, &LeafSpec::control_server(DOMAIN), ROLE_LIFE, now).expect("a certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate_der().clone()).expect("the authority as root");
        let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
        let mut tls = rustls::ServerConfig::builder()
            .with_client_cert_verifier(clients.expect("a verifier of clients"))
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("a certificate")],
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key"),
            )
            .expect("settings of TLS");
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the port's address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            server.serve(vec![listener], Arc::new(tls), ServeOptions::default(), stopped).await.expect("serve the API");
        });
        Endpoint { address, authority, stop, dir }
    }

    /// `https://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The file with the authority's certificate.
    pub fn authority_file(&self) -> PathBuf {
        self.dir.path().join("public-ca.crt")
    }

    /// The `user` of a kubeconfig who has a certificate.
    pub fn certificate(&self, user: &str, group: &str) -> Value {
        let leaf = leaf::issue(&self.authority, &LeafSpec::client(user, group), OPERATOR_LIFE, SystemTime::now());
        let leaf = leaf.expect("a certificate");
        json!({
            "client-certificate-data": STANDARD.encode(leaf.certificate),
            "client-key-data": STANDARD.encode(leaf.key),
        })
    }

    /// A kubeconfig in a file of its own: for the server's address with `path` behind it, for a `user`; without a namespace where
    /// there is a path.
    pub fn kubeconfig(&self, path: &str, user: &Value) -> PathBuf {
        let mut context = json!({"cluster": "it", "user": "it"});
        if path.is_empty() {
            context["namespace"] = json!(GROUP);
        }
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("{}{path}", self.url()),
                "certificate-authority-data": STANDARD.encode(self.authority.certificate_pem()),
            }}],
            "users": [{"name": "it", "user": user}],
            "contexts": [{"name": "it", "context": context}],
        });
        let (mut file, path) = tempfile::Builder::new()
            .prefix("kubeconfig-")
            .tempfile_in(self.dir.path())
            .and_then(|file| file.keep().map_err(|error| error.error))
            .expect("a file");
        std::io::Write::write_all(&mut file, config.to_string().as_bytes()).expect("write a kubeconfig");
        path
    }
}
