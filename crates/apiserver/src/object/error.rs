//! Errors as Kubernetes reports them: `metav1.Status` with code, reason, message and details.

use std::ops::{Deref, DerefMut};

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::object::field_error::{FieldError, first_errors};
use crate::object::schema::status;

/// One cause of an error, often a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// For example `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The message for people.
    pub message: String,
    /// The field's path, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// An error that is sent to the client as a `Status`. Boxed, since every result carries one; [`Refusal`] has the contents.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.message)]
pub struct ApiError(Box<Refusal>);

impl Deref for ApiError {
    type Target = Refusal;

    fn deref(&self) -> &Refusal {
        &self.0
    }
}

impl DerefMut for ApiError {
    fn deref_mut(&mut self) -> &mut Refusal {
        &mut self.0
    }
}

/// The contents of an [`ApiError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub code: StatusCode,
    /// Kubernetes' reason, for example `NotFound`.
    pub reason: &'static str,
    /// The message for people.
    pub message: String,
    /// The object's name, or empty.
    pub name: String,
    /// The group, or empty.
    pub group: String,
    /// The plural, or the kind for invalid objects; or empty.
    pub kind: String,
    /// The object's uid, or empty.
    pub uid: String,
    /// All causes.
    pub causes: Vec<Cause>,
    /// When to try again; 0 for not at all.
    pub retry_after_seconds: u32,
    /// A `continue` token with which the client can still continue the list, or empty.
    pub goes_on: String,
    /// Sent as warning headers with the error.
    pub warnings: Vec<String>,
}

/// The names used in messages.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Group of the resource.
    pub group: &'a str,
    /// Plural (or kind, for [`ApiError::invalid`]).
    pub resource: &'a str,
    /// The object's name.
    pub name: &'a str,
}

impl Named<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }
}

impl ApiError {
    /// Returns an error without details.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        ApiError(Box::new(Refusal {
            code,
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
            goes_on: String::new(),
            warnings: Vec::new(),
        }))
    }

    fn about(mut self, named: Named<'_>) -> Self {
        self.name = named.name.into();
        self.group = named.group.into();
        self.kind = named.resource.into();
        self
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 404 for a path that names nothing.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// 404 for an object.
    pub fn not_found(named: Named<'_>) -> Self {
        let message = format!("{} {:?} not found", named.qualified(), named.name);
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(named)
    }

    /// 409 for a create.
    pub fn already_exists(named: Named<'_>) -> Self {
        let message = format!("{} {:?} already exists", named.qualified(), named.name);
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(named)
    }

    /// 409 for anything else.
    pub fn conflict(named: Named<'_>, why: impl AsRef<str>) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {:?}: {}", named.qualified(), named.name, why.as_ref());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(named)
    }

    /// 409 for a write with an old resourceVersion.
    pub fn modified(named: Named<'_>) -> Self {
        Self::conflict(
            named,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403.
    pub fn forbidden(named: Named<'_>, why: impl AsRef<str>) -> Self {
        let subject = if named.name.is_empty() {
            format!("{} is forbidden: {}", named.qualified(), why.as_ref())
        } else {
            format!("{} {:?} is forbidden: {}", named.qualified(), named.name, why.as_ref())
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", subject).about(named)
    }

    /// 422 with a cause for each error; `named.resource` is the kind.
    pub fn invalid(named: Named<'_>, errors: &[FieldError]) -> Self {
        let errors = first_errors(errors);
        let message = format!("{} {:?} is invalid: {}", named.qualified(), named.name, status::aggregate(errors));
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(named);
        error.causes = errors
            .iter()
            .map(|it| Cause { reason: it.reason.as_str().into(), message: it.body(), field: it.path.clone() })
            .collect();
        error
    }

    /// 405 for a path that is no resource.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 405 for a resource; the name is not part of it.
    pub fn verb_not_supported(named: Named<'_>, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", named.qualified());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).about(Named { name: "", ..named })
    }

    /// 500 without a reason, as Kubernetes answers errors of the client that it does not classify.
    pub fn unclassified(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 406.
    pub fn not_acceptable(accepted: &str) -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            format!("only the following media types are accepted: {accepted}"),
        )
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 410 for a resourceVersion or continue token whose history has been compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 504 for a resourceVersion that has not happened yet.
    pub fn future_revision(requested: u64, current: u64) -> Self {
        let mut error = Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            format!("Timeout: Too large resource version: {requested}, current: {current}"),
        );
        error.causes = vec![Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }];
        error.retry_after_seconds = 1;
        error
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        error.retry_after_seconds = 1;
        error
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.retry_after_seconds = 1;
        error
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !self.goes_on.is_empty() {
            status["metadata"]["continue"] = json!(self.goes_on);
        }
        let mut details = serde_json::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                details.insert(key.into(), Value::String(text.clone()));
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".into(), json!(self.causes));
        }
        if self.retry_after_seconds > 0 {
            details.insert("retryAfterSeconds".into(), json!(self.retry_after_seconds));
        }
        if !details.is_empty() || matches!(self.code, StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY) {
            status["details"] = Value::Object(details);
        }
        status["code"] = json!(self.code.as_u16());
        status
    }
}
