//! Manifests and configurations as they come over the wire, verified before use.

use futures::StreamExt;

use super::ImageReference;
use super::error::ImageError;
use crate::container::digest::Digest;
use crate::container::fetch::ByteStream;

/// Manifests and configurations are text of some kilobytes; the registry itself refuses larger ones.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// Receives a small document and checks it.
pub(super) async fn receive(
    reference: &ImageReference,
    what: &str,
    mut stream: ByteStream,
    digest: Digest,
    size: Option<u64>,
) -> Result<Vec<u8>, ImageError> {
    let mismatch = |expected: String, found: String| ImageError::Mismatch {
        image: reference.written.clone(),
        what: what.into(),
        expected,
        found,
    };
    let limit = size.unwrap_or(MAX_DOCUMENT_BYTES).min(MAX_DOCUMENT_BYTES);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|source| ImageError::Receive {
            image: reference.written.clone(),
            what: what.into(),
            source,
        })?;
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Err(mismatch(format!("at most {limit} bytes"), "more".into()));
        }
    }
    if size.is_some_and(|size| size != bytes.len() as u64) {
        return Err(mismatch(format!("{limit} bytes"), format!("{} bytes", bytes.len())));
    }
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(mismatch(digest.to_string(), found.to_string()));
    }
    Ok(bytes)
}
