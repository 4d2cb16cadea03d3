//! `get` and `list`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use evroc_store::{KeyRange, RangeRequest, StoreError};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::selection::{PageBounds, Selection};
use crate::http::request::query::revision_parameter;
use crate::http::request::token::ContinueToken;
use crate::http::request::view::ViewNamespace;
use crate::http::respond::{self, shape};
use crate::object::body::{self, ResponseBody};
use crate::object::error::ApiError;
use crate::object::registry::Registered;
use crate::state::cache::CacheError;
use crate::state::cache::kind::Page;
use crate::state::cache::object::CachedObject;
use crate::state::storage::keys::{self, ObjectKey};

/// The size of pieces of a list. A piece is sent before the next one is copied, which limits the memory of a list.
const PIECE_BYTES: usize = 64 * 1024;

impl From<CacheError> for ApiError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Behind { requested, current } => ApiError::future_revision(requested, current),
            CacheError::Store(error) => ApiError::from(error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge { limit, .. } => ApiError::too_large(limit),
            StoreError::Closed => ApiError::unavailable("the store is closed: the server is stopping"),
            StoreError::Compacted { .. } => ApiError::expired("The resourceVersion for the provided list is too old."),
            other => {
                tracing::error!(error = %other, cause = ?std::error::Error::source(&other), "store failed");
                ApiError::internal(other)
            }
        }
    }
}

/// Returns the 410 for a page whose revision is compacted, with a token that continues at the newest revision.
fn expired_page(token: &ContinueToken) -> ApiError {
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    error.goes_on = ContinueToken { revision: None, after: token.after.clone() }.encode();
    error
}

/// Returns one object.
pub(crate) async fn get(call: &Call) -> Result<Response<ResponseBody>, ApiError> {
    let cache = &call.shared().cache;
    match revision_parameter(&call.query)? {
        None => {
            cache.catch_up().await?;
        }
        Some(revision) => cache.wait_for(revision).await?,
    }
    let kind = cache.kind(&call.registered.storage);
    let object = kind.get(call.key().as_str()).filter(|object| call.is_shown(object));
    let object = object.ok_or_else(|| ApiError::not_found(call.named(&call.info.name)))?;
    call.answer(StatusCode::OK, object.wire.clone())
}

/// Returns a list, or a page of one.
pub(crate) async fn list(call: &Call) -> Result<Response<ResponseBody>, ApiError> {
    let query = &call.query;
    // Malformed parameters are reported before invalid combinations.
    query.number("limit")?;
    query.number("timeoutSeconds")?;
    let selection = Selection::parse(&call.registered, &call.info, query)?;
    let page = select(call, &selection).await?;
    let mut metadata = json!({"continue": "", "resourceVersion": page.revision.to_string()});
    if page.more
        && let Some(last) = page.items.last()
    {
        let token = ContinueToken { revision: Some(page.revision), after: last.key.clone() };
        metadata["continue"] = json!(token.encode());
        if !selection.has_selectors() {
            metadata["remainingItemCount"] = json!(page.remaining);
        }
    }
    let registered = &call.registered;
    if shape::is_plain(registered, call.accepted) {
        return Ok(plain_list(registered, &metadata, page.items, call.info.view.clone()));
    }
    let shown = |item: &Arc<CachedObject>| {
        let mut object = shape::from_stored(registered, item.parse());
        call.show(&mut object);
        object
    };
    let objects: Vec<Value> = page.items.iter().map(shown).collect();
    shape::list(registered, call.accepted, query, &metadata, &objects)
}

/// Returns the requested page.
async fn select(call: &Call, selection: &Selection) -> Result<Page, ApiError> {
    let query = &call.query;
    let cache = &call.shared().cache;
    let limit = query.number("limit")?.filter(|limit| *limit > 0).map(|limit| limit as usize);
    let token = query.text("continue").map(|text| ContinueToken::parse(text, &selection.namespace)).transpose()?;
    let revision = revision_parameter(query)
        .map_err(|error| ApiError::bad_request(format!("invalid resource version: {}", error.message)))?;
    let matching = query.text("resourceVersionMatch");
    if token.is_some() && revision.is_some_and(|it| it > 0) {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    // With resourceVersion 0 the limit is ignored: only consistent lists have pages, as in Kubernetes.
    let limit = limit.filter(|_| revision != Some(0) || token.is_some());
    let (at, after) = match (&token, revision, matching) {
        (Some(ContinueToken { revision: Some(revision), after }), _, _) => {
            cache.wait_for(*revision).await?;
            (Some(*revision), Some(after.as_str()))
        }
        (Some(ContinueToken { revision: None, after }), _, _) => {
            cache.catch_up().await?;
            (None, Some(after.as_str()))
        }
        // Pages begin at the given revision, as in Kubernetes.
        (None, Some(exact), matching)
            if matching == Some("Exact") || (matching.is_none() && exact > 0 && limit.is_some()) =>
        {
            if selection.names_one() {
                // A list of one named object has no pages, so a limit does not make the revision exact.
                wait_for_one(call, exact).await?;
                (Some(exact).filter(|_| matching.is_some()), None)
            } else {
                cache.wait_for(exact).await?;
                (Some(exact), None)
            }
        }
        (None, Some(at_least), _) if at_least > 0 => {
            cache.wait_for(at_least).await?;
            (None, None)
        }
        (None, Some(_), _) => (None, None),
        (None, None, _) => {
            cache.catch_up().await?;
            (None, None)
        }
    };
    match (selection.page(cache, PageBounds { after, limit, at }), at) {
        (Ok(page), _) => Ok(page),
        (Err(_), Some(at)) => older_page(call, selection, after, limit, at).await.map_err(|error| match &token {
            Some(token) if error.code == StatusCode::GONE => expired_page(token),
            _ => error,
        }),
        (Err(too_old), None) => Err(ApiError::internal(format!("cache begins at {}", too_old.oldest))),
    }
}

/// Waits for a revision in a list of one named object. Kubernetes reads that object from its store, which knows at once whether a
/// revision is in the future, and gives no retry time.
async fn wait_for_one(call: &Call, revision: u64) -> Result<(), ApiError> {
    let cache = &call.shared().cache;
    cache.catch_up().await?;
    if cache.revision() >= revision {
        return Ok(());
    }
    let mut error = ApiError::future_revision(revision, cache.revision());
    error.retry_after_seconds = 0;
    Err(error)
}

/// Returns a page as of a revision that is only in the store.
async fn older_page(
    call: &Call,
    selection: &Selection,
    after: Option<&str>,
    limit: Option<usize>,
    at: u64,
) -> Result<Page, ApiError> {
    let registered = &call.registered;
    let prefix = keys::prefix(&registered.storage);
    let base =
        if selection.namespace.is_empty() { prefix.clone() } else { format!("{prefix}{}/", selection.namespace) };
    let mut range = KeyRange::prefix(base);
    if let Some(after) = after {
        range = range.after(format!("{prefix}{after}").as_bytes());
    }
    let mut items: Vec<Arc<CachedObject>> = Vec::new();
    loop {
        let request = RangeRequest::new(range.clone()).limit(1_000).at(at.into());
        let page = call.shared().store.range(request).await?;
        for item in &page.items {
            let key = String::from_utf8_lossy(&item.key[prefix.len()..]);
            let object =
                CachedObject::from_stored(registered, ObjectKey::from_text(&key), item.mod_revision.0, &item.value)
                    .map_err(ApiError::internal)?;
            if !selection.matches(&object) {
                continue;
            }
            if limit.is_some_and(|limit| items.len() >= limit) {
                return Ok(Page { items, revision: at, more: true, remaining: 1 });
            }
            items.push(Arc::new(object));
        }
        match page.items.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => return Ok(Page { items, revision: at, more: false, remaining: 0 }),
        }
    }
}

/// Returns a list assembled from the bytes of the cache, in pieces.
pub(super) fn plain_list(
    registered: &Registered,
    metadata: &Value,
    items: Vec<Arc<CachedObject>>,
    view: Option<ViewNamespace>,
) -> Response<ResponseBody> {
    let head = format!(
        "{{\"apiVersion\":{},\"kind\":{},\"metadata\":{metadata},\"items\":[",
        json!(registered.api_version),
        json!(registered.kind.list_kind)
    );
    let total: usize = items.iter().map(|item| item.wire.len() + 1).sum();
    let references = registered.kind.namespace_references;
    let mut pieces =
        Pieces { head: Some(head), items: items.into_iter(), view, references, is_first: true, is_done: false };
    if total <= PIECE_BYTES {
        let mut whole = BytesMut::with_capacity(total + 256);
        for piece in pieces.by_ref() {
            whole.put(piece);
        }
        return respond::json_bytes(StatusCode::OK, whole.freeze());
    }
    let stream = futures::stream::iter(pieces.map(Ok));
    respond::with_type(StatusCode::OK, HeaderValue::from_static("application/json"), body::stream(stream))
}

struct Pieces {
    head: Option<String>,
    items: std::vec::IntoIter<Arc<CachedObject>>,
    view: Option<ViewNamespace>,
    references: &'static [&'static str],
    is_first: bool,
    is_done: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.is_done {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES.min(4096));
        if let Some(head) = self.head.take() {
            piece.put(head.as_bytes());
        }
        while piece.len() < PIECE_BYTES {
            let Some(item) = self.items.next() else {
                piece.put(&b"]}\n"[..]);
                self.is_done = true;
                break;
            };
            if !std::mem::take(&mut self.is_first) {
                piece.put_u8(b',');
            }
            match &self.view {
                None => piece.put(&item.wire[..]),
                Some(view) => piece.put(view.show_cached(&item.wire, self.references)),
            }
        }
        Some(piece.freeze())
    }
}
