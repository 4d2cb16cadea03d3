//! `namespaces/finalize`: replaces the namespace's own finalizers.

use http::{Response, StatusCode};

use super::call::Call;
use super::decode::decode;
use super::update::{self, Wanted, check_revision};
use crate::http::request::options::WriteOptions;
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;

/// Replaces `spec.finalizers`.
pub(super) async fn finalize(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let object = decode(call, options)?;
    let wire = update::change(call, |call, live| {
        check_revision(call, &object, live)?;
        let mut wanted = live.object.clone();
        wanted["spec"] = object.get("spec").cloned().unwrap_or_default();
        Ok(Wanted { object: wanted, is_tracked: true })
    })
    .await?;
    call.answer(StatusCode::OK, wire)
}
