//! Manifests, tags and referrers.

use bytes::Bytes;
use http::StatusCode;

use super::{Storage, files};
use crate::error::{Code, RegistryError};
use crate::manifest::{Descriptor, Manifest};
use crate::names::{Algorithm, Digest, Reference, Repository, Tag};

/// A manifest as it was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub content: Bytes,
}

impl Storage {
    /// Stores a manifest of a repository of `owner` under its digest and, if it is pushed by tag, lets the tag point to it.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        owner: &str,
        reference: &Reference,
        manifest: &Manifest,
        content: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = match reference {
            Reference::Tag(_) => Digest::of(Algorithm::Sha256, content),
            Reference::Digest(expected) => {
                let found = Digest::of(expected.algorithm(), content);
                if found != *expected {
                    return Err(RegistryError::new(
                        Code::DigestInvalid,
                        format!("manifest has digest {found}, expected {expected}"),
                    ));
                }
                found
            }
        };
        let referring = self.referring();
        Storage::check_owner(&referring, repository, owner)?;
        self.note_link(&digest);
        self.require_references(repository, manifest)?;
        files::replace(&self.temporary(), &self.content(&digest), content)?;
        let link = self.link(repository, "_manifests", &digest);
        files::replace(&self.temporary(), &link, manifest.media_type.as_bytes())?;
        if let Some(subject) = &manifest.subject {
            let descriptor = Descriptor {
                media_type: manifest.media_type.clone(),
                digest: digest.to_string(),
                size: content.len() as u64,
                artifact_type: manifest.artifact_type.clone(),
                annotations: manifest.annotations.clone(),
                urls: Vec::new(),
            };
            let descriptor = serde_json::to_vec(&descriptor)
                .map_err(|error| RegistryError::io("encode a referrer", error.into()))?;
            let path = self.referrer(repository, subject, &digest);
            files::replace(&self.temporary(), &path, &descriptor)?;
        }
        if let Reference::Tag(tag) = reference {
            let path = self.tag(repository, tag);
            files::replace(&self.temporary(), &path, digest.to_string().as_bytes())?;
        }
        Ok(digest)
    }

    /// All that a manifest refers to must be in its repository already, so that what can be pulled is complete.
    fn require_references(&self, repository: &Repository, manifest: &Manifest) -> Result<(), RegistryError> {
        let blobs = manifest.blobs.iter().filter(|digest| !self.has_blob(repository, digest));
        let manifests = manifest.manifests.iter().filter(|digest| {
            !(self.link(repository, "_manifests", digest).is_file() && self.content(digest).is_file())
        });
        let missing: Vec<_> = blobs.chain(manifests).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let error = RegistryError::new(
            Code::ManifestBlobUnknown,
            format!(
                "manifest refers to {} blobs or manifests that repository {repository} does not have: push them first",
                missing.len()
            ),
        );
        Err(missing
            .into_iter()
            .fold(error, |error, digest| error.with_detail(serde_json::json!({ "digest": digest.to_string() }))))
    }

    /// Returns the manifest that a reference refers to.
    pub fn resolve(&self, repository: &Repository, reference: &Reference) -> Result<Digest, RegistryError> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => {
                let content = files::read(&self.tag(repository, tag))?
                    .ok_or_else(|| self.unknown_manifest(repository, reference))?;
                std::str::from_utf8(&content)
                    .ok()
                    .and_then(|digest| digest.trim().parse().ok())
                    .ok_or_else(|| damaged(format!("tag {tag} of {repository} does not hold a digest")))?
            }
        };
        if !self.link(repository, "_manifests", &digest).is_file() {
            return Err(self.unknown_manifest(repository, reference));
        }
        Ok(digest)
    }

    /// Reads a manifest and verifies it.
    pub fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<StoredManifest, RegistryError> {
        let digest = self.resolve(repository, reference)?;
        let unknown = || self.unknown_manifest(repository, reference);
        let media_type = files::read(&self.link(repository, "_manifests", &digest))?;
        let media_type = String::from_utf8(media_type.ok_or_else(unknown)?)
            .map_err(|_| damaged(format!("media type of manifest {digest} is not text")))?;
        let content = files::read(&self.content(&digest))?
            .ok_or_else(|| damaged(format!("content of manifest {digest} is missing")))?;
        let found = Digest::of(digest.algorithm(), &content);
        if found != digest {
            return Err(damaged(format!("content of manifest {digest} has digest {found}")));
        }
        Ok(StoredManifest { digest, media_type, content: content.into() })
    }

    /// Removes a tag, or a manifest with all its tags.
    pub fn delete_manifest(&self, repository: &Repository, reference: &Reference) -> Result<(), RegistryError> {
        let digest = match reference {
            Reference::Tag(tag) => {
                return match files::remove(&self.tag(repository, tag))? {
                    true => Ok(()),
                    false => Err(self.unknown_manifest(repository, reference)),
                };
            }
            Reference::Digest(digest) => digest,
        };
        let manifest = self.manifest(repository, reference);
        if let Err(error) = &manifest
            && error.status() == StatusCode::NOT_FOUND
        {
            return Err(self.unknown_manifest(repository, reference));
        }
        for tag in self.tags(repository)? {
            if self.resolve(repository, &Reference::Tag(tag.clone())).is_ok_and(|d| d == *digest) {
                files::remove(&self.tag(repository, &tag))?;
            }
        }
        if let Ok(manifest) = manifest
            && let Ok(parsed) = Manifest::parse(Some(&manifest.media_type), &manifest.content)
            && let Some(subject) = parsed.subject
        {
            files::remove(&self.referrer(repository, &subject, digest))?;
        }
        files::remove(&self.link(repository, "_manifests", digest))?;
        Ok(())
    }

    /// The manifests whose subject is `subject`.
    pub fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let folder = self.link(repository, "_referrers", subject);
        let mut descriptors = Vec::new();
        for name in files::names(&folder)? {
            let Some(content) = files::read(&folder.join(&name))? else {
                continue;
            };
            let descriptor = serde_json::from_slice(&content)
                .map_err(|error| damaged(format!("referrer {name} of {subject}: {error}")))?;
            descriptors.push(descriptor);
        }
        Ok(descriptors)
    }

    pub(super) fn tag(&self, repository: &Repository, tag: &Tag) -> std::path::PathBuf {
        self.repository(repository).join("_tags").join(tag.as_str())
    }

    fn referrer(&self, repository: &Repository, subject: &Digest, digest: &Digest) -> std::path::PathBuf {
        let name = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
        self.link(repository, "_referrers", subject).join(name)
    }

    fn unknown_manifest(&self, repository: &Repository, reference: &Reference) -> RegistryError {
        if !self.has_repository(repository) {
            return self.unknown_repository(repository);
        }
        RegistryError::new(Code::ManifestUnknown, format!("repository {repository} has no manifest {reference}"))
    }
}

fn damaged(what: String) -> RegistryError {
    RegistryError::new(Code::Unknown, format!("registry is damaged: {what}; push the image again"))
}
