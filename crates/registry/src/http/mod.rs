//! The specification's end points over a [`Storage`].
//!
//! Repository names contain slashes, so paths are parsed here and not by a router. Every request is authorised before
//! anything of a repository is looked at.

mod blobs;
mod manifests;
mod uploads;

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::auth::{Action, Authorize, Denied};
use crate::divided::Divided;
use crate::error::{Code, RegistryError};
use crate::names::{Digest, Reference, Repository};
use crate::storage::Storage;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

type Answer = Result<Response, RegistryError>;

/// The state shared by the handlers.
pub(crate) struct Server {
    pub storage: Arc<Storage>,
    pub divided: Divided,
    pub authorizer: Arc<dyn Authorize>,
}

/// The meaning of a path.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Base,
    Catalog,
    Tags(&'a str),
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    BeginUpload(&'a str),
    Upload(&'a str, &'a str),
    Referrers(&'a str, &'a str),
}

impl<'a> Route<'a> {
    /// Finds the route of a path below `/v2`.
    fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v2")?;
        if path.is_empty() || path == "/" {
            return Some(Route::Base);
        }
        let path = path.strip_prefix('/')?;
        if path == "_catalog" {
            return Some(Route::Catalog);
        }
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Some(Route::Tags(name));
        }
        if let Some(name) = path.strip_suffix("/blobs/uploads/").or(path.strip_suffix("/blobs/uploads")) {
            return Some(Route::BeginUpload(name));
        }
        let (rest, last) = path.rsplit_once('/')?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Some(Route::Upload(name, last));
        }
        let (name, kind) = rest.rsplit_once('/')?;
        match kind {
            "manifests" => Some(Route::Manifest(name, last)),
            "blobs" => Some(Route::Blob(name, last)),
            "referrers" => Some(Route::Referrers(name, last)),
            _ => None,
        }
    }

    fn repository(&self) -> Option<&'a str> {
        match self {
            Route::Base | Route::Catalog => None,
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::BeginUpload(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => Some(name),
        }
    }
}

/// A router for `/v2/` and everything below.
pub(crate) fn router(server: Server) -> axum::Router {
    let server = Arc::new(server);
    axum::Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .with_state(server)
}

async fn serve(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let answer = server.answer(&parts, body).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    if is_head {
        // The length stays that of what GET would return.
        let (mut parts, body) = response.into_parts();
        if let Some(size) = http_body::Body::size_hint(&body).exact()
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
        {
            parts.headers.insert(header::CONTENT_LENGTH, size.into());
        }
        return Response::from_parts(parts, Body::empty());
    }
    response
}

impl Server {
    async fn answer(&self, parts: &Parts, body: Body) -> Answer {
        let route = Route::of(parts.uri.path());
        let action = match parts.method {
            Method::GET | Method::HEAD => Action::Pull,
            _ => Action::Push,
        };
        let repository = route.as_ref().and_then(Route::repository).map(str::parse::<Repository>);
        let known = match &repository {
            Some(Ok(repository)) => Some(repository),
            Some(Err(_)) | None => None,
        };
        // Without a repository only the caller's identity matters.
        let requested = if known.is_some() { action } else { Action::Pull };
        self.authorize(parts, known, requested).await?;
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let (Some(route), repository) = (route, repository.transpose()?) else {
            return Err(no_such_path(parts));
        };
        let Some(repository) = repository else {
            return match (&parts.method, route) {
                (&Method::GET | &Method::HEAD, Route::Base) => Ok(json(&serde_json::json!({}))),
                (&Method::GET | &Method::HEAD, Route::Catalog) => self.catalog(parts, &query).await,
                _ => Err(not_allowed(parts)),
            };
        };
        let repository = &repository;
        let owner = &self.divided.admit(repository, action).await?;
        match (&parts.method, route) {
            (&Method::GET | &Method::HEAD, Route::Tags(_)) => self.tags(repository, &query).await,
            (&Method::GET | &Method::HEAD, Route::Referrers(_, digest)) => {
                self.referrers(repository, digest.parse()?, &query).await
            }
            (&Method::GET | &Method::HEAD, Route::Manifest(_, reference)) => {
                let reference = known_reference(repository, reference)?;
                self.get_manifest(parts, repository, reference).await
            }
            (&Method::PUT, Route::Manifest(_, reference)) => {
                self.put_manifest(parts, body, repository, owner, reference.parse()?).await
            }
            (&Method::DELETE, Route::Manifest(_, reference)) => {
                self.delete_manifest(repository, reference.parse()?).await
            }
            (&Method::GET | &Method::HEAD, Route::Blob(_, digest)) => {
                self.get_blob(parts, repository, digest.parse()?).await
            }
            (&Method::DELETE, Route::Blob(_, digest)) => self.delete_blob(repository, digest.parse()?).await,
            (&Method::POST, Route::BeginUpload(_)) => self.begin_upload(parts, body, repository, owner, &query).await,
            (&Method::GET | &Method::HEAD, Route::Upload(_, id)) => self.upload_status(repository, id).await,
            (&Method::PATCH, Route::Upload(_, id)) => self.append_upload(parts, body, repository, id).await,
            (&Method::PUT, Route::Upload(_, id)) => self.finish_upload(parts, body, repository, id, &query).await,
            (&Method::DELETE, Route::Upload(_, id)) => self.cancel_upload(repository, id).await,
            _ => Err(not_allowed(parts)),
        }
    }

    async fn authorize(
        &self,
        parts: &Parts,
        repository: Option<&Repository>,
        action: Action,
    ) -> Result<(), RegistryError> {
        self.authorizer.authorize(parts, repository, action).await.map_err(|denied| match denied {
            Denied::Unauthenticated { challenge, message } => {
                RegistryError::new(Code::Unauthorized, message).with_header(header::WWW_AUTHENTICATE, &challenge)
            }
            Denied::Forbidden { message } => RegistryError::new(Code::Denied, message),
        })
    }
}

/// A reference in a request to read: an invalid name cannot exist.
fn known_reference(repository: &Repository, reference: &str) -> Result<Reference, RegistryError> {
    reference.parse().map_err(|error: RegistryError| match error.code() {
        Code::DigestInvalid => error,
        _ => RegistryError::new(
            Code::ManifestUnknown,
            format!("repository {repository} has no manifest {reference:?}: {error}"),
        ),
    })
}

fn no_such_path(parts: &Parts) -> RegistryError {
    RegistryError::new(Code::Unsupported, format!("no such path: {}", parts.uri.path()))
        .with_status(StatusCode::NOT_FOUND)
}

fn not_allowed(parts: &Parts) -> RegistryError {
    RegistryError::new(Code::Unsupported, format!("{} is not supported for {}", parts.method, parts.uri.path()))
}

fn json(value: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, value.to_string()).into_response()
}

/// A request header as text.
fn text_header(parts: &Parts, name: HeaderName) -> Option<&str> {
    parts.headers.get(name)?.to_str().ok()
}

/// A response header whose value was made of parsed names.
fn header_value(value: impl std::fmt::Display) -> Result<HeaderValue, RegistryError> {
    HeaderValue::from_str(&value.to_string())
        .map_err(|error| RegistryError::io("build a header", std::io::Error::other(error)))
}

/// The parameters of a URL.
struct Query(HashMap<String, String>);

impl Query {
    fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn digest(&self) -> Result<Option<Digest>, RegistryError> {
        self.get("digest").map(str::parse).transpose()
    }

    /// The page size and where the page begins.
    fn page(&self) -> Result<(Option<usize>, Option<&str>), RegistryError> {
        let limit = self.get("n").map(|n| {
            n.parse().map_err(|_| {
                RegistryError::new(Code::Unsupported, format!("n: found {n:?}, expected a number"))
                    .with_status(StatusCode::BAD_REQUEST)
            })
        });
        Ok((limit.transpose()?, self.get("last")))
    }
}

/// Decodes `%41` and `+`.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or_default() as u8;
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_any_number_of_slashes() {
        let cases = [
            ("/v2", Some(Route::Base)),
            ("/v2/", Some(Route::Base)),
            ("/v2/_catalog", Some(Route::Catalog)),
            ("/v2/a/b/c/tags/list", Some(Route::Tags("a/b/c"))),
            ("/v2/a/manifests/v1", Some(Route::Manifest("a", "v1"))),
            ("/v2/a/blobs/sha256:1", Some(Route::Blob("a", "sha256:1"))),
            ("/v2/a/b/blobs/uploads/", Some(Route::BeginUpload("a/b"))),
            ("/v2/a/b/blobs/uploads", Some(Route::BeginUpload("a/b"))),
            ("/v2/a/b/blobs/uploads/1", Some(Route::Upload("a/b", "1"))),
            ("/v2/a/referrers/sha256:1", Some(Route::Referrers("a", "sha256:1"))),
            ("/v2/manifests/manifests/manifests", Some(Route::Manifest("manifests", "manifests"))),
            ("/v2/a", None),
            ("/v2/a/b", None),
            ("/v2x/a/manifests/v1", None),
        ];
        for (path, route) in cases {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("digest=sha256%3Aab&from=a%2fb&x&n=1+2&bad=%4");
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!(query.get("from"), Some("a/b"));
        assert_eq!(query.get("x"), Some(""));
        assert_eq!(query.get("n"), Some("1 2"));
        assert_eq!(query.get("bad"), Some("%4"));
    }
}
