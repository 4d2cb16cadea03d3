//! Manifests, and the lists of tags, referrers and repositories.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{Answer, CONTENT_DIGEST, Query, Server, header_value, json, text_header};
use crate::auth::Action;
use crate::error::{Code, RegistryError};
use crate::manifest::{MANIFEST_BYTES, Manifest, OCI_INDEX};
use crate::names::{Digest, Reference, Repository, Tag};
use crate::storage::{Page, blocking};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The default number of repositories on a page of the catalogue.
const CATALOG_PAGE: usize = 1000;

impl Server {
    pub(super) async fn get_manifest(&self, parts: &Parts, repository: &Repository, reference: Reference) -> Answer {
        let repository = repository.clone();
        let found = blocking(&self.storage, move |storage| storage.manifest(&repository, &reference)).await?;
        let etag = format!("\"{}\"", found.digest);
        let unchanged =
            text_header(parts, header::IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag));
        let mut response =
            if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { Response::new(Body::from(found.content)) };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header_value(&found.media_type)?);
        headers.insert(header::ETAG, header_value(etag)?);
        headers.insert(CONTENT_DIGEST, header_value(&found.digest)?);
        Ok(response)
    }

    pub(super) async fn put_manifest(
        &self,
        parts: &Parts,
        body: Body,
        repository: &Repository,
        owner: &str,
        reference: Reference,
    ) -> Answer {
        let content = match Limited::new(body, MANIFEST_BYTES).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(RegistryError::new(
                    Code::ManifestInvalid,
                    format!("manifest is larger than {MANIFEST_BYTES} bytes"),
                )
                .with_status(StatusCode::PAYLOAD_TOO_LARGE));
            }
            Err(error) => {
                return Err(RegistryError::new(Code::ManifestInvalid, format!("manifest was not received: {error}")));
            }
        };
        let manifest = Manifest::parse(text_header(parts, header::CONTENT_TYPE), &content)?;
        let subject = manifest.subject.clone();
        let (name, owner, pushed_as) = (repository.clone(), owner.to_owned(), reference.clone());
        let digest = blocking(&self.storage, move |storage| {
            storage.put_manifest(&name, &owner, &pushed_as, &manifest, &content)
        })
        .await?;
        tracing::info!(%repository, %reference, %digest, "manifest pushed");
        let mut response = StatusCode::CREATED.into_response();
        let headers = response.headers_mut();
        let location = format!("/v2/{repository}/manifests/{reference}");
        headers.insert(header::LOCATION, header_value(location)?);
        headers.insert(CONTENT_DIGEST, header_value(digest)?);
        if let Some(subject) = subject {
            headers.insert(SUBJECT, header_value(subject)?);
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(&self, repository: &Repository, reference: Reference) -> Answer {
        let name = repository.clone();
        blocking(&self.storage, move |storage| storage.delete_manifest(&name, &reference)).await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }

    pub(super) async fn tags(&self, repository: &Repository, query: &Query) -> Answer {
        let (limit, last) = query.page()?;
        let name = repository.clone();
        let tags = blocking(&self.storage, move |storage| storage.tags(&name)).await?;
        let page = Page::of(tags, last, limit, Tag::as_str);
        let names: Vec<_> = page.items.iter().map(Tag::as_str).collect();
        let body = json(&serde_json::json!({ "name": repository.as_str(), "tags": names }));
        let path = format!("/v2/{repository}/tags/list");
        with_next(body, &path, limit, page.more, names.last().copied())
    }

    pub(super) async fn referrers(&self, repository: &Repository, subject: Digest, query: &Query) -> Answer {
        let name = repository.clone();
        let mut found = blocking(&self.storage, move |storage| storage.referrers(&name, &subject)).await?;
        let filter = query.get("artifactType");
        if let Some(kind) = filter {
            found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(kind));
        }
        let mut response = json(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": found,
        }));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
        if filter.is_some() {
            headers.insert(FILTERS, HeaderValue::from_static("artifactType"));
        }
        Ok(response)
    }

    /// Lists the repositories that the client may read.
    pub(super) async fn catalog(&self, parts: &Parts, query: &Query) -> Answer {
        let (limit, last) = query.page()?;
        let limit = limit.unwrap_or(CATALOG_PAGE);
        let all = blocking(&self.storage, |storage| storage.repositories()).await?;
        let mut readable = Vec::new();
        for repository in all {
            let is_present = match self.divided.admit(&repository, Action::Pull).await {
                Ok(_) => true,
                Err(error) if error.status().is_client_error() => false,
                Err(error) => return Err(error),
            };
            if is_present && self.authorize(parts, Some(&repository), Action::Pull).await.is_ok() {
                readable.push(repository);
            }
        }
        let page = Page::of(readable, last, Some(limit), Repository::as_str);
        let names: Vec<_> = page.items.iter().map(Repository::as_str).collect();
        let body = json(&serde_json::json!({ "repositories": names }));
        with_next(body, "/v2/_catalog", Some(limit), page.more, names.last().copied())
    }
}

/// Adds the link to the next page.
fn with_next(mut response: Response, path: &str, limit: Option<usize>, more: bool, last: Option<&str>) -> Answer {
    if more && let (Some(limit), Some(last)) = (limit, last) {
        let link = format!("<{path}?n={limit}&last={last}>; rel=\"next\"");
        response.headers_mut().insert(header::LINK, header_value(link)?);
    }
    Ok(response)
}
