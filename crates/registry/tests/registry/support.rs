//! A registry in a temporary folder and requests to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use evroc_registry::{Algorithm, AllowAll, AnyTenant, Authorize, Digest, OCI_MANIFEST, Registry, Tenants};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

pub struct TestRegistry {
    pub folder: TempDir,
    pub registry: Registry,
    pub router: axum::Router,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no header {name}"));
        value.to_str().expect("text")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Expects a refusal with this status and code, and returns its message.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/json");
        let body = self.json();
        assert_eq!(body["errors"][0]["code"], code, "{body}");
        body["errors"][0]["message"].as_str().expect("a message").to_owned()
    }
}

pub fn digest(content: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, content).to_string()
}

impl TestRegistry {
    pub async fn new() -> Self {
        Self::with(Arc::new(AllowAll)).await
    }

    pub async fn with(authorizer: Arc<dyn Authorize>) -> Self {
        Self::of(authorizer, Arc::new(AnyTenant)).await
    }

    pub async fn of(authorizer: Arc<dyn Authorize>, tenants: Arc<dyn Tenants>) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let registry = Registry::open(folder.path(), tenants).await.expect("registry opens");
        let router = registry.router(authorizer);
        TestRegistry { folder, registry, router }
    }

    /// Opens the same folder again, as after a restart.
    pub async fn reopen(self) -> Self {
        let registry = Registry::open(self.folder.path(), Arc::new(AnyTenant)).await.expect("registry opens");
        let router = registry.router(Arc::new(AllowAll));
        TestRegistry { folder: self.folder, registry, router }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("body").to_vec();
        assert_eq!(parts.headers["docker-distribution-api-version"], "registry/2.0");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).expect("request")).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], Body::empty()).await
    }

    pub async fn head(&self, path: &str) -> Answer {
        let answer = self.request(Method::HEAD, path, &[], Body::empty()).await;
        assert!(answer.body.is_empty());
        answer
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, &[], Body::empty()).await
    }

    /// Begins an upload and returns its location.
    pub async fn begin(&self, repository: &str) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let answer = self.request(Method::POST, &path, &[], Body::empty()).await.expect(202);
        assert_eq!(answer.header("range"), "0-0");
        answer.header("location").to_owned()
    }

    /// Pushes a blob and returns its digest.
    pub async fn push_blob(&self, repository: &str, content: &[u8]) -> String {
        let location = self.begin(repository).await;
        let digest = digest(content);
        let path = format!("{location}?digest={digest}");
        let answer = self.request(Method::PUT, &path, &[], content.to_vec()).await.expect(201);
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(answer.header("location"), format!("/v2/{repository}/blobs/{digest}"));
        digest
    }

    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        content: impl Into<Body>,
    ) -> Answer {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.request(Method::PUT, &path, &[("content-type", media_type)], content).await
    }

    /// Pushes a small image and returns its manifest.
    pub async fn push_image(&self, repository: &str, tag: &str, seed: &str) -> Vec<u8> {
        let manifest = self.image(repository, seed).await.to_string().into_bytes();
        self.put_manifest(repository, tag, OCI_MANIFEST, manifest.clone()).await.expect(201);
        manifest
    }

    /// Pushes the blobs of a small image and returns a manifest for them.
    pub async fn image(&self, repository: &str, seed: &str) -> Value {
        let config = format!("{{\"seed\":\"{seed}\"}}").into_bytes();
        let layer = format!("layer of {seed}").into_bytes();
        let (config_digest, layer_digest) =
            (self.push_blob(repository, &config).await, self.push_blob(repository, &layer).await);
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer_digest,
                "size": layer.len(),
            }],
        })
    }

    /// Files and folders of repositories, and the files of content.
    pub fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).expect("folder") {
                let entry = entry.expect("entry");
                let is_folder = entry.file_type().expect("type").is_dir();
                if is_folder {
                    walk(&entry.path(), found);
                }
                if !is_folder || !entry.path().to_string_lossy().contains("/blobs/sha") {
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.folder.path(), &mut found);
        found.sort();
        found
    }

    /// Files in `uploads`.
    pub fn unfinished(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("uploads")).expect("folder").count()
    }
}
