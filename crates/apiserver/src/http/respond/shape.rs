//! Shapes of objects and lists: tables, metadata only, or another kind with the same storage.

use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::http::request::Query;
use crate::http::request::negotiate::{Accepted, Encoding, Shape};
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;
use crate::object::registry::Registered;
use crate::object::table::{self, IncludeObject};

/// Whether the bytes of the cache can be sent unchanged.
pub(crate) fn is_plain(registered: &Registered, accepted: Accepted) -> bool {
    accepted == Accepted::default() && registered.kind.shared_storage.is_none()
}

/// Converts a stored object to this kind's form.
pub(crate) fn from_stored(registered: &Registered, stored: Value) -> Value {
    match &registered.kind.shared_storage {
        None => stored,
        Some(shared) => (shared.from_stored)(&stored),
    }
}

/// Parses the `includeObject` parameter.
pub(crate) fn include_object(query: &Query) -> Result<IncludeObject, ApiError> {
    match query.text("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(ApiError::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
    }
}

/// Returns the response with one object, given as bytes of the cache.
pub(crate) fn object(
    registered: &Registered,
    accepted: Accepted,
    query: &Query,
    code: StatusCode,
    wire: Bytes,
) -> Result<Response<ResponseBody>, ApiError> {
    if is_plain(registered, accepted) {
        return Ok(super::json_bytes(code, wire));
    }
    let stored: Value = serde_json::from_slice(&wire).map_err(ApiError::internal)?;
    value(registered, accepted, query, code, &from_stored(registered, stored))
}

/// Returns the response with one object of this kind.
pub(crate) fn value(
    registered: &Registered,
    accepted: Accepted,
    query: &Query,
    code: StatusCode,
    object: &Value,
) -> Result<Response<ResponseBody>, ApiError> {
    let shaped = shape(registered, accepted.shape, query, object, true)?;
    super::value(code, &shaped, accepted.encoding)
}

/// Returns the columns of a table.
pub(crate) fn columns(registered: &Registered) -> Value {
    let table = table::to_table(&registered.columns, &[], &json!({}), IncludeObject::None, true, Timestamp::now());
    table["columnDefinitions"].clone()
}

/// Converts an object of this kind to a shape.
pub(crate) fn shape(
    registered: &Registered,
    shape: Shape,
    query: &Query,
    object: &Value,
    with_headers: bool,
) -> Result<Value, ApiError> {
    Ok(match shape {
        Shape::Object => object.clone(),
        Shape::Partial => table::partial_object_metadata(object),
        Shape::Table => {
            let revision = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_else(|| json!(""));
            table::to_table(
                &registered.columns,
                &[object],
                &json!({"resourceVersion": revision}),
                include_object(query)?,
                with_headers,
                Timestamp::now(),
            )
        }
    })
}

/// Converts a list of this kind to a shape.
pub(crate) fn list(
    registered: &Registered,
    accepted: Accepted,
    query: &Query,
    metadata: &Value,
    objects: &[Value],
) -> Result<Response<ResponseBody>, ApiError> {
    let mut metadata = metadata.clone();
    if accepted.shape != Shape::Object
        && metadata["continue"] == ""
        && let Some(map) = metadata.as_object_mut()
    {
        map.shift_remove("continue");
    }
    let shaped = match accepted.shape {
        Shape::Object => json!({
            "apiVersion": registered.api_version,
            "kind": registered.kind.list_kind,
            "metadata": metadata,
            "items": objects,
        }),
        Shape::Partial => json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadataList",
            "metadata": metadata,
            // An empty list is null, as Go encodes it.
            "items": (!objects.is_empty())
                .then(|| objects.iter().map(table::partial_object_metadata).collect::<Vec<_>>()),
        }),
        Shape::Table => {
            let rows: Vec<&Value> = objects.iter().collect();
            table::to_table(&registered.columns, &rows, &metadata, include_object(query)?, true, Timestamp::now())
        }
    };
    super::value(StatusCode::OK, &shaped, accepted.encoding)
}

/// Whether a watch supports this form.
pub(crate) fn is_streamable(accepted: Accepted) -> bool {
    accepted.encoding == Encoding::Json
}
