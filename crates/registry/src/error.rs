//! Errors with the codes and JSON of the specification.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use thiserror::Error;

/// The specification's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// No such blob in the repository.
    BlobUnknown,
    /// An upload that cannot continue as requested.
    BlobUploadInvalid,
    /// No such upload: finished, cancelled, expired or interrupted by a restart.
    BlobUploadUnknown,
    /// Not a digest, or not that of the content.
    DigestInvalid,
    /// A manifest refers to something that the repository does not have.
    ManifestBlobUnknown,
    /// Not a manifest that can be accepted.
    ManifestInvalid,
    /// No such manifest in the repository.
    ManifestUnknown,
    /// Not the name of a repository.
    NameInvalid,
    /// No such repository.
    NameUnknown,
    /// Content and declared length differ.
    SizeInvalid,
    /// The caller is not authenticated.
    Unauthorized,
    /// The caller may not do this.
    Denied,
    /// Too many requests, or too many uploads at a time.
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    /// Not an operation of this registry.
    Unsupported,
    /// An internal failure.
    Unknown,
}

/// A failed request.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct RegistryError {
    code: Code,
    status: StatusCode,
    message: String,
    detail: Vec<serde_json::Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
    #[source]
    source: Option<std::io::Error>,
}

impl RegistryError {
    /// A refusal with the status that the specification pairs with the code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let status = match code {
            Code::BlobUnknown | Code::BlobUploadUnknown | Code::ManifestUnknown | Code::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            Code::BlobUploadInvalid
            | Code::DigestInvalid
            | Code::ManifestBlobUnknown
            | Code::ManifestInvalid
            | Code::NameInvalid
            | Code::SizeInvalid => StatusCode::BAD_REQUEST,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::Denied => StatusCode::FORBIDDEN,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Code::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        };
        RegistryError { code, status, message: message.into(), detail: Vec::new(), headers: Vec::new(), source: None }
    }

    /// A file operation that failed.
    pub(crate) fn io(operation: impl Into<String>, source: std::io::Error) -> Self {
        let mut error = RegistryError::new(Code::Unknown, operation);
        if source.kind() == std::io::ErrorKind::StorageFull {
            error.status = StatusCode::INSUFFICIENT_STORAGE;
            error.message.push_str(": the registry's disk is full");
        }
        error.source = Some(source);
        error
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn with_detail(mut self, detail: serde_json::Value) -> Self {
        self.detail.push(detail);
        self
    }

    pub(crate) fn with_header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

#[derive(Serialize)]
struct Body<'a> {
    errors: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    code: Code,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a serde_json::Value>,
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.source {
            tracing::error!(operation = self.message, %cause, "registry request failed");
        }
        let item = |detail| Item { code: self.code, message: &self.message, detail };
        let errors = match &self.detail[..] {
            [] => vec![item(None)],
            details => details.iter().map(|detail| item(Some(detail))).collect(),
        };
        let body = serde_json::to_vec(&Body { errors }).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}
