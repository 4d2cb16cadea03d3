//! `deletecollection`.

use std::sync::Arc;

use futures::future::join_all;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::delete::{self, Deleted};
use super::delete_options::DeleteOptions;
use super::read::plain_list;
use super::selection::{PageBounds, Selection};
use crate::http::respond::{self, shape};
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;
use crate::state::cache::object::CachedObject;

/// Deletions that run at once. Fewer share a sync of the store less well; more hold more parsed objects in memory and let one
/// request fill the store's queue.
const AT_ONCE: usize = 64;

/// Deletes all selected objects, and responds with their list as it was before: also what now waits for its finalizers. What is
/// kept of an object meanwhile is shared with the cache.
pub(super) async fn delete_collection(call: &Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = DeleteOptions::read(call)?;
    let cache = &call.shared().cache;
    cache.catch_up().await?;
    let selection = Selection::parse(&call.registered, &call.info, &call.query)?;
    let page = selection
        .page(cache, PageBounds::default())
        .map_err(|_| ApiError::internal("the newest state is not cached"))?;
    let mut deleted: Vec<Arc<CachedObject>> = Vec::with_capacity(page.items.len());
    for batch in page.items.chunks(AT_ONCE) {
        let outcomes = join_all(batch.iter().map(|item| delete::delete_object(call, &item.key, &options))).await;
        // The whole batch has ended: an error leaves no deletion that is still on its way.
        for (item, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                Ok(Deleted::Removed(_) | Deleted::Waiting(_)) => deleted.push(item.clone()),
                Err(error) if error.reason == "NotFound" => {}
                Err(error) => return Err(error),
            }
        }
    }
    let metadata = json!({"continue": "", "resourceVersion": page.revision.to_string()});
    if shape::is_plain(&call.registered, call.accepted) {
        return Ok(plain_list(&call.registered, &metadata, deleted, call.info.view.clone()));
    }
    let shown = |item: &Arc<CachedObject>| {
        let mut object = shape::from_stored(&call.registered, item.parse());
        call.show(&mut object);
        object
    };
    let list = json!({
        "apiVersion": call.registered.api_version,
        "kind": call.registered.kind.list_kind,
        "metadata": metadata,
        "items": deleted.iter().map(shown).collect::<Vec<Value>>(),
    });
    respond::value(StatusCode::OK, &list, call.accepted.encoding)
}
