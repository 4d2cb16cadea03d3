//! Uploads: in one request, in chunks, or by mounting another repository's blob. Content goes to the disk as it comes.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use http::request::Parts;
use http::{HeaderName, StatusCode, header};
use tokio::sync::OwnedMutexGuard;

use super::{Answer, CONTENT_DIGEST, Query, Server, header_value, text_header};
use crate::auth::Action;
use crate::error::{Code, RegistryError};
use crate::names::{Digest, Repository};
use crate::storage::{Session, blocking};

/// Bytes of a body that are written at once: enough to make the change of threads cheap.
const WRITE_BYTES: usize = 1 << 20;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

impl Server {
    pub(super) async fn begin_upload(
        &self,
        parts: &Parts,
        body: Body,
        repository: &Repository,
        owner: &str,
        query: &Query,
    ) -> Answer {
        if let Some(mount) = query.get("mount") {
            let digest: Digest = mount.parse()?;
            if self.mount(parts, repository, owner, query.get("from"), &digest).await? {
                return created(repository, &digest);
            }
        }
        let digest = query.digest()?;
        let (name, owner) = (repository.clone(), owner.to_owned());
        let session = blocking(&self.storage, move |storage| storage.begin_upload(&name, &owner)).await?;
        let Some(digest) = digest else {
            return accepted(&session, StatusCode::ACCEPTED);
        };
        // The whole content in one request: no other request knows the upload, so it is removed if the request fails.
        match self.receive_and_finish(parts, body, &session, &digest).await {
            Ok(()) => created(repository, &digest),
            Err(error) => {
                let abandoned = session.clone();
                blocking(&self.storage, move |storage| storage.cancel_upload(&abandoned)).await?;
                Err(error)
            }
        }
    }

    /// Takes a blob over from another repository, if the client may read it there.
    async fn mount(
        &self,
        parts: &Parts,
        repository: &Repository,
        owner: &str,
        from: Option<&str>,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let Some(Ok(from)) = from.map(str::parse::<Repository>) else {
            return Ok(false);
        };
        // A caller who may not read there learns nothing: an upload begins, as if the blob did not exist.
        if self.authorize(parts, Some(&from), Action::Pull).await.is_err() {
            return Ok(false);
        }
        match self.divided.admit(&from, Action::Pull).await {
            Ok(_) => {}
            Err(error) if error.status().is_client_error() => return Ok(false),
            Err(error) => return Err(error),
        }
        let (to, owner, digest) = (repository.clone(), owner.to_owned(), digest.clone());
        blocking(&self.storage, move |storage| storage.mount_blob(&from, &to, &owner, &digest)).await
    }

    pub(super) async fn upload_status(&self, repository: &Repository, id: &str) -> Answer {
        let session = self.storage.upload(repository, id)?;
        accepted(&session, StatusCode::NO_CONTENT)
    }

    pub(super) async fn append_upload(&self, parts: &Parts, body: Body, repository: &Repository, id: &str) -> Answer {
        let session = self.storage.upload(repository, id)?;
        let _sending = exclusive(&session)?;
        check_start(parts, &session)?;
        self.receive(parts, body, &session).await?;
        accepted(&session, StatusCode::ACCEPTED)
    }

    pub(super) async fn finish_upload(
        &self,
        parts: &Parts,
        body: Body,
        repository: &Repository,
        id: &str,
        query: &Query,
    ) -> Answer {
        let session = self.storage.upload(repository, id)?;
        let digest = query.digest()?.ok_or_else(|| {
            RegistryError::new(Code::DigestInvalid, "digest: missing in the query of the request that ends an upload")
        })?;
        let _sending = exclusive(&session)?;
        check_start(parts, &session)?;
        self.receive_and_finish(parts, body, &session, &digest).await?;
        created(repository, &digest)
    }

    pub(super) async fn cancel_upload(&self, repository: &Repository, id: &str) -> Answer {
        let session = self.storage.upload(repository, id)?;
        blocking(&self.storage, move |storage| storage.cancel_upload(&session)).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    async fn receive_and_finish(
        &self,
        parts: &Parts,
        body: Body,
        session: &Arc<Session>,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        self.receive(parts, body, session).await?;
        let (session, digest) = (session.clone(), digest.clone());
        blocking(&self.storage, move |storage| storage.finish_upload(&session, &digest)).await
    }

    /// Writes a body to an upload while it comes. What came before a failure stays and can be continued.
    async fn receive(&self, parts: &Parts, body: Body, session: &Arc<Session>) -> Result<(), RegistryError> {
        let before = session.size();
        let mut stream = body.into_data_stream();
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut waiting = 0;
        let mut failed = None;
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => {
                    waiting += piece.len();
                    pieces.push(piece);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            if waiting >= WRITE_BYTES {
                waiting = 0;
                self.write(session, std::mem::take(&mut pieces)).await?;
            }
        }
        if !pieces.is_empty() {
            self.write(session, pieces).await?;
        }
        if let Some(error) = failed {
            return Err(RegistryError::new(
                Code::BlobUploadInvalid,
                format!("upload was interrupted after {} bytes: {error}", session.size()),
            ));
        }
        let received = session.size() - before;
        let declared = text_header(parts, header::CONTENT_LENGTH).and_then(|n| n.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared != received) {
            return Err(RegistryError::new(
                Code::SizeInvalid,
                format!("body has {received} bytes, Content-Length says {}", declared.unwrap_or_default()),
            ));
        }
        Ok(())
    }

    async fn write(&self, session: &Arc<Session>, pieces: Vec<Bytes>) -> Result<(), RegistryError> {
        let session = session.clone();
        blocking(&self.storage, move |_| session.append(&pieces)).await
    }
}

/// One request at a time sends content.
fn exclusive(session: &Arc<Session>) -> Result<OwnedMutexGuard<()>, RegistryError> {
    session.sending.clone().try_lock_owned().map_err(|_| {
        RegistryError::new(Code::BlobUploadInvalid, format!("upload {} is being sent by another request", session.id))
            .with_status(StatusCode::CONFLICT)
    })
}

/// Chunks come in order: a `Content-Range` (`<first>-<last>`, without a unit) begins where the upload ends.
fn check_start(parts: &Parts, session: &Session) -> Result<(), RegistryError> {
    let Some(range) = text_header(parts, header::CONTENT_RANGE) else {
        return Ok(());
    };
    let size = session.size();
    let range = range.trim().strip_prefix("bytes ").unwrap_or(range.trim());
    let parsed = range.split('/').next().and_then(|range| range.split_once('-'));
    let parsed = parsed.and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)));
    let length = text_header(parts, header::CONTENT_LENGTH).and_then(|n| n.parse::<u64>().ok());
    let problem = match parsed {
        None => Some(format!("found {range:?}, expected <first>-<last>")),
        Some((first, _)) if first != size => Some(format!("begins at {first}, expected {size}")),
        Some((first, last)) if length.is_some_and(|length| first + length != last.saturating_add(1)) => {
            Some(format!("{range} does not have as many bytes as Content-Length says"))
        }
        Some(_) => None,
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(RegistryError::new(Code::BlobUploadInvalid, format!("Content-Range: {problem}"))
            .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
            .with_header(header::LOCATION, &location(session))
            .with_header(header::RANGE, &received(size))),
    }
}

fn location(session: &Session) -> String {
    format!("/v2/{}/blobs/uploads/{}", session.repository, session.id)
}

/// The received range, as the specification writes it: an empty upload is `0-0` too.
fn received(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn accepted(session: &Session, status: StatusCode) -> Answer {
    let mut response = status.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header_value(location(session))?);
    headers.insert(header::RANGE, header_value(received(session.size()))?);
    headers.insert(UPLOAD_ID, header_value(session.id)?);
    Ok(response)
}

fn created(repository: &Repository, digest: &Digest) -> Result<Response, RegistryError> {
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, header_value(format_args!("/v2/{repository}/blobs/{digest}"))?);
    headers.insert(CONTENT_DIGEST, header_value(digest)?);
    Ok(response)
}
