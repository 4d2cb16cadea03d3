//! The server on loopback, with certificates, and a kubeconfig for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evroc_apiserver::ServeOptions;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::TestServer;
use super::pki::Pki;

/// A server that listens.
pub struct NetworkServer {
    pub server: TestServer,
    pub pki: Pki,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub serving: JoinHandle<std::io::Result<()>>,
}

impl NetworkServer {
    pub async fn start() -> Self {
        Self::over(TestServer::start().await).await
    }

    pub async fn over(server: TestServer) -> Self {
        Self::over_with(server, ServeOptions::default()).await
    }

    /// A server with limits of its own.
    pub async fn over_with(server: TestServer, options: ServeOptions) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pki = Pki::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (api, tls, token) = (server.api.clone(), pki.server_config(), stop.clone());
        let serving = tokio::spawn(async move { api.serve(vec![listener], tls, options, token).await });
        NetworkServer { server, pki, address, stop, serving }
    }

    /// A kubeconfig for a user in the namespace `demo`.
    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> serde_json::Value {
        let client = self.pki.client(user, groups);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": STANDARD.encode(self.pki.authority_pem()),
            }}],
            "users": [{"name": "it", "user": {
                "client-certificate-data": STANDARD.encode(client.certificate),
                "client-key-data": STANDARD.encode(client.key),
            }}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "demo"}}],
        })
    }

    /// Writes the operator's kubeconfig into the server's folder.
    pub fn write_kubeconfig(&self) -> PathBuf {
        let path = self.server.state.dir().join("kubeconfig");
        std::fs::write(&path, self.kubeconfig("admin", &["evroc:operators"]).to_string()).unwrap();
        path
    }

    /// A `kube` client for the operator, over TLS.
    pub async fn kube(&self) -> kube::Client {
        let kubeconfig: kube::config::Kubeconfig =
            serde_json::from_value(self.kubeconfig("admin", &["evroc:operators"])).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// A TLS connection of a user, or without a client certificate.
    pub async fn tls(&self, caller: Option<(&str, &[&str])>, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pki.authority_pem().as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match caller {
            None => config.with_no_client_auth(),
            Some((user, groups)) => {
                let client = self.pki.client(user, groups);
                let certificate = CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let socket = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }

    /// A bare HTTP/1.1 connection of a user.
    pub async fn http1(
        &self,
        user: &str,
        groups: &[&str],
    ) -> hyper::client::conn::http1::SendRequest<http_body_util::Empty<bytes::Bytes>> {
        let stream = self.tls(Some((user, groups)), "http/1.1").await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }
}
