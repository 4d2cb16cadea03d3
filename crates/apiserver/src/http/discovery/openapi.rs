//! `/openapi/v2` and `/openapi/v3`: built once, served with their hash as ETag, as JSON and as protobuf.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::http::request::negotiate::accept_ranges;
use crate::http::respond;
use crate::object::body::{self, ResponseBody};
use crate::object::error::ApiError;
use crate::object::openapi::{self, KindInfo};
use crate::object::registry::{Registered, Registry};

const TITLE: &str = "evroc";
/// Media types of the v2 protobuf form; the response has the first.
const V2_PROTO: [&str; 3] = [
    openapi::V2_PROTO,
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.googleapis.gnostic.openapiv2+protobuf",
];
/// Media types of the v3 protobuf form; the response has the first.
const V3_PROTO: [&str; 2] = [openapi::V3_PROTO, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"];

struct Document {
    json: Bytes,
    protobuf: Bytes,
    hash: String,
}

/// A document that is built on first use.
#[derive(Default)]
pub(super) struct Cached {
    v2: OnceLock<Document>,
    v3: OnceLock<HashMap<String, Document>>,
}

fn info(registered: &Registered) -> KindInfo<'_> {
    let kind = &registered.kind;
    KindInfo {
        group: &kind.group,
        version: &kind.version,
        kind: &kind.kind,
        list_kind: &kind.list_kind,
        plural: &kind.plural,
        singular: &kind.singular,
        namespaced: kind.is_namespaced(),
        schema: &kind.schema,
        has_status: kind.subresources.status,
        has_scale: kind.subresources.scale.is_some(),
        connects: kind.connect.keys().map(String::as_str).collect(),
        selectable: kind.selectable_fields.iter().map(String::as_str).collect(),
    }
}

impl Cached {
    /// Answers the paths below `/openapi`.
    pub(super) fn answer(
        &self,
        registry: &Registry,
        path: &[&str],
        hash: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response<ResponseBody>, ApiError> {
        match path {
            ["v2"] => serve(self.v2(registry), headers, &V2_PROTO),
            ["v3"] => {
                let documents: Vec<(String, String)> =
                    self.v3(registry).iter().map(|(path, it)| (path.clone(), it.hash.clone())).collect();
                Ok(respond::json(StatusCode::OK, &openapi::v3_index(&sorted(documents))))
            }
            ["v3", rest @ ..] => {
                let path = rest.join("/");
                let document = self.v3(registry).get(&path).ok_or_else(ApiError::no_such_path)?;
                match hash {
                    None => serve(document, headers, &V3_PROTO),
                    Some(hash) if hash == document.hash => {
                        let mut response = serve(document, headers, &V3_PROTO)?;
                        // A document addressed by its hash never changes, so clients may cache it.
                        let for_good = HeaderValue::from_static("public, immutable, max-age=31536000");
                        response.headers_mut().insert(header::CACHE_CONTROL, for_good);
                        Ok(response)
                    }
                    Some(_) => moved(&format!("/openapi/v3/{path}?hash={}", document.hash)),
                }
            }
            _ => Err(ApiError::no_such_path()),
        }
    }

    fn v2(&self, registry: &Registry) -> &Document {
        self.v2.get_or_init(|| {
            let kinds: Vec<KindInfo<'_>> = registry.kinds().iter().map(|it| info(it)).collect();
            let document = openapi::v2_document(TITLE, env!("CARGO_PKG_VERSION"), &kinds);
            make(&document, openapi::v2_protobuf(&document))
        })
    }

    fn v3(&self, registry: &Registry) -> &HashMap<String, Document> {
        self.v3.get_or_init(|| {
            let mut documents = HashMap::new();
            for (group, versions) in registry.groups() {
                for version in versions {
                    let kinds: Vec<KindInfo<'_>> = registry.of_version(group, version).map(|it| info(it)).collect();
                    let document = openapi::v3_document(TITLE, env!("CARGO_PKG_VERSION"), &kinds);
                    let path =
                        if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
                    documents.insert(path, make(&document, openapi::v3_protobuf(&document)));
                }
            }
            documents
        })
    }
}

fn moved(address: &str) -> Result<Response<ResponseBody>, ApiError> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let address = HeaderValue::from_str(address).map_err(ApiError::internal)?;
    response.headers_mut().insert(header::LOCATION, address);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn sorted(mut documents: Vec<(String, String)>) -> Vec<(String, String)> {
    documents.sort();
    documents
}

fn make(document: &serde_json::Value, protobuf: Vec<u8>) -> Document {
    let json = serde_json::to_vec(document).unwrap_or_default();
    Document { hash: openapi::hash(&json), json: json.into(), protobuf: protobuf.into() }
}

fn serve(document: &Document, headers: &HeaderMap, protobuf: &[&str]) -> Result<Response<ResponseBody>, ApiError> {
    let ranges = accept_ranges(headers);
    let wanted = ranges.iter().find_map(|range| match range.media_type.as_str() {
        "application/json" | "*/*" | "application/*" => Some(None),
        other => protobuf.iter().any(|it| it.eq_ignore_ascii_case(other)).then(|| protobuf.first().copied()),
    });
    let (media_type, bytes) = match wanted {
        None if !ranges.is_empty() => return Err(ApiError::not_acceptable("application/json")),
        None | Some(None) => ("application/json", &document.json),
        Some(Some(media_type)) => (media_type, &document.protobuf),
    };
    let tag = format!("\"{}\"", document.hash);
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|it| it.as_bytes() == tag.as_bytes());
    let media_type = HeaderValue::from_str(media_type).map_err(ApiError::internal)?;
    let mut response = if is_known {
        respond::with_type(StatusCode::NOT_MODIFIED, media_type, body::empty())
    } else {
        respond::with_type(StatusCode::OK, media_type, body::full(bytes.clone()))
    };
    let out = response.headers_mut();
    out.insert(header::ETAG, HeaderValue::from_str(&tag).map_err(ApiError::internal)?);
    out.append(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}
