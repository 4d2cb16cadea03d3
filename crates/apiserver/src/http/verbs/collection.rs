//! `deletecollection`.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::delete::{self, Deleted};
use super::delete_options::DeleteOptions;
use super::selection::{PageBounds, Selection};
use crate::http::respond::{self, shape};
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;

/// Deletes all selected objects, and responds with their list.
pub(super) async fn delete_collection(call: &Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = DeleteOptions::read(call)?;
    let cache = &call.shared().cache;
    cache.catch_up().await?;
    let selection = Selection::parse(&call.registered, &call.info, &call.query)?;
    let page = selection
        .page(cache, PageBounds::default())
        .map_err(|_| ApiError::internal("the newest state is not cached"))?;
    let mut deleted: Vec<Value> = Vec::with_capacity(page.items.len());
    for item in &page.items {
        match delete::delete_object(call, &item.key, &options).await {
            Ok(Deleted::Removed(_) | Deleted::Waiting(_)) => {}
            Err(error) if error.reason == "NotFound" => continue,
            Err(error) => return Err(error),
        }
        // The object before its deletion, even if it now waits for its finalizers.
        let mut object = shape::from_stored(&call.registered, item.parse());
        call.show(&mut object);
        deleted.push(object);
    }
    let list = json!({
        "apiVersion": call.registered.api_version,
        "kind": call.registered.kind.list_kind,
        "metadata": {"continue": "", "resourceVersion": page.revision.to_string()},
        "items": deleted,
    });
    respond::value(StatusCode::OK, &list, call.accepted.encoding)
}
