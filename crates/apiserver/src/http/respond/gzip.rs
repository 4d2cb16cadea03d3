//! Compresses large responses, piece by piece.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body;
use http_body_util::BodyExt;

use crate::object::body::{self, BoxError, ResponseBody};

/// The size below which responses are not compressed, as in Kubernetes: it would cost more than it saves.
const THRESHOLD: u64 = 128 * 1024;

/// Compresses the body if the client accepts it and it is large, or of unknown length.
pub(crate) fn compress(request: &HeaderMap, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let accepted = request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            parts.next() == Some("gzip") && parts.all(|parameter| !matches!(parameter, "q=0" | "q=0.0"))
        });
    let small = response.body().size_hint().exact().is_some_and(|length| length <= THRESHOLD);
    if !accepted || small || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let state = Some((body.into_data_stream(), GzEncoder::new(Vec::new(), Compression::fast())));
    let pieces = futures::stream::unfold(state, |state| async move {
        let (mut input, mut encoder) = state?;
        loop {
            match input.next().await {
                Some(Ok(piece)) => {
                    if let Err(error) = encoder.write_all(&piece) {
                        return Some((Err(BoxError::from(error)), None));
                    }
                    let ready = std::mem::take(encoder.get_mut());
                    if !ready.is_empty() {
                        return Some((Ok(Bytes::from(ready)), Some((input, encoder))));
                    }
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None => return Some((encoder.finish().map(Bytes::from).map_err(BoxError::from), None)),
            }
        }
    });
    Response::from_parts(parts, body::stream(pieces))
}
