//! Blobs: reading, whole or in part, and deleting.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, StatusCode, header};
use std::io::{Seek, SeekFrom};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{Answer, CONTENT_DIGEST, Server, header_value, text_header};
use crate::error::{Code, RegistryError};
use crate::names::{Digest, Repository};
use crate::storage::blocking;

/// Bytes read from the disk at once.
const READ_BYTES: usize = 256 << 10;

impl Server {
    pub(super) async fn get_blob(&self, parts: &Parts, repository: &Repository, digest: Digest) -> Answer {
        let (name, wanted) = (repository.clone(), digest.clone());
        let mut blob = blocking(&self.storage, move |storage| storage.open_blob(&name, &wanted)).await?;
        let size = blob.size;
        let range = match text_header(parts, header::RANGE) {
            Some(range) if parts.method == Method::GET => parse_range(range, size),
            _ => Range::Whole,
        };
        let (status, start, length) = match range {
            Range::Whole => (StatusCode::OK, 0, size),
            Range::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
            Range::Unsatisfiable => {
                return Err(RegistryError::new(
                    Code::SizeInvalid,
                    format!("range lies outside of blob {digest}, which has {size} bytes"),
                )
                .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
                .with_header(header::CONTENT_RANGE, &format!("bytes */{size}")));
            }
        };
        let body = if parts.method == Method::HEAD {
            Body::empty()
        } else {
            blob.file
                .seek(SeekFrom::Start(start))
                .map_err(|error| RegistryError::io(format!("read blob {digest}"), error))?;
            let file = tokio::fs::File::from_std(blob.file).take(length);
            Body::from_stream(ReaderStream::with_capacity(file, READ_BYTES))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header_value("application/octet-stream")?);
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::ACCEPT_RANGES, header_value("bytes")?);
        headers.insert(header::ETAG, header_value(format_args!("\"{digest}\""))?);
        headers.insert(CONTENT_DIGEST, header_value(&digest)?);
        if status == StatusCode::PARTIAL_CONTENT {
            let value = format!("bytes {start}-{}/{size}", start + length - 1);
            headers.insert(header::CONTENT_RANGE, header_value(value)?);
        }
        Ok(response)
    }

    pub(super) async fn delete_blob(&self, repository: &Repository, digest: Digest) -> Answer {
        let repository = repository.clone();
        blocking(&self.storage, move |storage| storage.delete_blob(&repository, &digest)).await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// First and last byte.
    Part(u64, u64),
    Unsatisfiable,
}

/// Reads a `Range` header. Anything but one range of bytes is ignored, as HTTP allows.
fn parse_range(header: &str, size: u64) -> Range {
    let parse = || {
        let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
        if first.is_empty() {
            let length: u64 = last.parse().ok()?;
            if length == 0 || size == 0 {
                return Some(Range::Unsatisfiable);
            }
            return Some(Range::Part(size.saturating_sub(length), size - 1));
        }
        let first: u64 = first.parse().ok()?;
        let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
        if last < first {
            return None;
        }
        if first >= size {
            return Some(Range::Unsatisfiable);
        }
        Some(Range::Part(first, last.min(size - 1)))
    };
    parse().unwrap_or(Range::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_bytes() {
        let cases = [
            ("bytes=0-0", Range::Part(0, 0)),
            ("bytes=2-5", Range::Part(2, 5)),
            ("bytes=2-", Range::Part(2, 9)),
            ("bytes=2-99", Range::Part(2, 9)),
            ("bytes=-3", Range::Part(7, 9)),
            ("bytes=-99", Range::Part(0, 9)),
            ("bytes=10-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=5-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=x", Range::Whole),
            ("lines=0-1", Range::Whole),
        ];
        for (header, range) in cases {
            assert_eq!(parse_range(header, 10), range, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Range::Unsatisfiable);
    }
}
