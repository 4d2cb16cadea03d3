//! The source of images: the distribution protocol's read side, small enough to fake in tests.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio_stream::StreamExt;

use super::digest::Digest;

/// How long the registry may be silent. Too low breaks pulls on a busy host; too high keeps a replica waiting on a
/// dead connection.
const SILENCE: Duration = Duration::from_secs(30);

/// Manifest kinds that we can read, for `Accept`.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// The bytes of a manifest or blob, as they arrive.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Reads manifests and blobs of a registry. The returned bytes are not trusted: the caller checks digest and size.
#[async_trait]
pub trait ImageFetch: Send + Sync {
    /// `GET /v2/<repository>/manifests/<digest>`.
    async fn manifest(&self, repository: &str, digest: Digest) -> Result<ByteStream, FetchError>;
    /// `GET /v2/<repository>/blobs/<digest>`.
    async fn blob(&self, repository: &str, digest: Digest) -> Result<ByteStream, FetchError>;
    /// `HEAD /v2/<repository>/blobs/<digest>`: an error unless the repository has the blob.
    async fn check_blob(&self, repository: &str, digest: Digest) -> Result<(), FetchError>;
}

/// The reason why a request to the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The registry does not have it.
    #[error("{url} does not exist")]
    NotFound {
        /// The requested reference.
        url: String,
    },
    /// It answered with something else than 200.
    #[error("{url} answered {status}")]
    Status {
        /// The requested reference.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// The request could not be sent.
    #[error("get {url}")]
    Transport {
        /// The requested reference.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl FetchError {
    /// Whether a later request can succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotFound { .. } => false,
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Transport { .. } => true,
        }
    }
}

/// [`ImageFetch`] over HTTPS with the node's client certificate.
pub struct RegistryClient {
    tls: watch::Receiver<Arc<rustls::ClientConfig>>,
    client: Mutex<(Arc<rustls::ClientConfig>, HttpsClient)>,
    base: String,
}

type HttpsClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

impl RegistryClient {
    /// A client of the registry at `base` (such as `https://127.0.0.1:6443`); `tls` holds the roots to trust and the
    /// client certificate to show, and may change.
    pub fn new(base: impl Into<String>, tls: watch::Receiver<Arc<rustls::ClientConfig>>) -> Self {
        let settings = tls.borrow().clone();
        let client = Mutex::new((settings.clone(), Self::connector(&settings)));
        Self { tls, client, base: base.into().trim_end_matches('/').to_owned() }
    }

    /// The client with the certificate of this moment; what runs goes on with the one that it began with.
    fn client(&self) -> HttpsClient {
        let settings = self.tls.borrow().clone();
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&client.0, &settings) {
            *client = (settings.clone(), Self::connector(&settings));
        }
        client.1.clone()
    }

    fn connector(tls: &rustls::ClientConfig) -> HttpsClient {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        connector.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Client::builder(TokioExecutor::new()).build(connector)
    }

    async fn get(&self, path: String, accept: &'static str) -> Result<ByteStream, FetchError> {
        let response = self.request(http::Method::GET, path, accept).await?;
        let stream = response.into_body().into_data_stream().timeout(SILENCE).map(|item| match item {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the registry stopped sending")),
        });
        Ok(Box::pin(stream))
    }

    async fn request(
        &self,
        method: http::Method,
        path: String,
        accept: &'static str,
    ) -> Result<http::Response<Incoming>, FetchError> {
        let url = format!("{}{path}", self.base);
        let transport =
            |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Transport { url: url.clone(), source };
        let request = http::Request::builder()
            .method(method)
            .uri(&url)
            .header(header::ACCEPT, accept)
            .body(Empty::new())
            .map_err(|source| transport(source.into()))?;
        let response = tokio::time::timeout(SILENCE, self.client().request(request))
            .await
            .map_err(|elapsed| transport(elapsed.into()))?
            .map_err(|source| transport(source.into()))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(FetchError::NotFound { url }),
            status => Err(FetchError::Status { url, status }),
        }
    }
}

#[async_trait]
impl ImageFetch for RegistryClient {
    async fn manifest(&self, repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        self.get(format!("/v2/{repository}/manifests/{digest}"), MANIFEST_TYPES).await
    }

    async fn blob(&self, repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        self.get(format!("/v2/{repository}/blobs/{digest}"), "*/*").await
    }

    async fn check_blob(&self, repository: &str, digest: Digest) -> Result<(), FetchError> {
        self.request(http::Method::HEAD, format!("/v2/{repository}/blobs/{digest}"), "*/*").await.map(drop)
    }
}
