//! `scale`: the number of replicas of an object, as `autoscaling/v1` Scale.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::strategy;
use super::submit::{self, Live};
use super::update::{self, Wanted, check_revision};
use crate::http::request::content;
use crate::http::respond;
use crate::object::body::ResponseBody;
use crate::object::error::{ApiError, Named};
use crate::object::field_error::FieldError;
use crate::object::kind::ScalePaths;
use crate::object::patch;

/// Reads or writes the scale.
pub(super) async fn scale(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let paths = call.registered.kind.subresources.scale.clone().ok_or_else(ApiError::no_such_path)?;
    match call.info.verb {
        "get" => {
            call.shared().cache.catch_up().await?;
            let live =
                submit::load(call, &call.key()).ok_or_else(|| ApiError::not_found(call.named(&call.info.name)))?;
            answer(call, to_scale(&live.object, &paths))
        }
        "update" | "patch" => write(call, &paths).await,
        _ => Err(ApiError::verb_not_supported(call.named(""), call.info.verb)),
    }
}

fn answer(call: &Call, mut scale: Value) -> Result<Response<ResponseBody>, ApiError> {
    call.show(&mut scale);
    respond::value(StatusCode::OK, &scale, call.accepted.encoding)
}

async fn write(call: &mut Call, paths: &ScalePaths) -> Result<Response<ResponseBody>, ApiError> {
    let is_patch = call.info.verb == "patch";
    let wire = update::change(call, |call, live| {
        let current = to_scale(&live.object, paths);
        let wanted = if is_patch {
            match content::media_type(&call.headers).as_str() {
                "application/json-patch+json" => patch::apply_json_patch(&current, &call.body)?,
                "application/merge-patch+json" => patch::apply_merge_patch(&current, &call.body)?,
                _ => {
                    return Err(ApiError::unsupported_media_type(
                        "application/json-patch+json, application/merge-patch+json",
                    ));
                }
            }
        } else {
            content::decode_object(&call.headers, &call.body)?.0
        };
        from_scale(call, live, &wanted, paths)
    })
    .await?;
    let object: Value = serde_json::from_slice(&wire).map_err(ApiError::internal)?;
    answer(call, to_scale(&object, paths))
}

fn from_scale(call: &Call, live: &Live, scale: &Value, paths: &ScalePaths) -> Result<Wanted, ApiError> {
    check_revision(call, scale, live)?;
    let given = scale.pointer("/spec/replicas").filter(|it| !it.is_null());
    if let Some(other) = given.filter(|it| it.as_i64().is_none_or(|count| i32::try_from(count).is_err())) {
        let found = if other.is_number() { format!("number {other}") } else { patch::json_kind(other).to_owned() };
        let problem =
            format!("json: cannot unmarshal {found} into Go struct field ScaleSpec.spec.replicas of type int32");
        if call.info.verb != "patch" {
            return Err(ApiError::bad_request(problem));
        }
        let cause = FieldError::invalid("patch", scale.to_string().into(), problem);
        return Err(ApiError::invalid(Named { group: "", resource: "", name: "" }, &[cause]));
    }
    let replicas = given.and_then(Value::as_i64).unwrap_or_default();
    if replicas < 0 {
        let error = FieldError::invalid(&paths.spec_replicas_path, json!(replicas), "should be a non-negative integer");
        return Err(ApiError::invalid(call.named_kind(&call.info.name), &[error]));
    }
    let mut object = live.object.clone();
    let mut at = &mut object;
    for part in parts(&paths.spec_replicas_path) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = json!(replicas);
    Ok(Wanted { object, is_tracked: false })
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|part| !part.is_empty())
}

fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    parts(path).try_fold(object, |at, part| at.get(part))
}

fn to_scale(object: &Value, paths: &ScalePaths) -> Value {
    let text = |field: &str| strategy::metadata_text(object, field).to_owned();
    let mut metadata = json!({"name": text("name")});
    for field in ["namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !text(field).is_empty() {
            metadata[field] = json!(text(field));
        }
    }
    let number = |path: &str| find(object, path).and_then(Value::as_i64).unwrap_or_default();
    let mut status = json!({"replicas": number(&paths.status_replicas_path)});
    if let Some(selector) = paths.label_selector_path.as_deref().and_then(|path| find(object, path)) {
        status["selector"] = selector.clone();
    }
    // Zero replicas are omitted, as Go does.
    let spec = match number(&paths.spec_replicas_path) {
        0 => json!({}),
        count => json!({"replicas": count}),
    };
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}
