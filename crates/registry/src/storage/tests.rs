//! Steps between those of a collection of garbage, and between the start and the end of a push, one by one.

use std::time::Duration;

use bytes::Bytes;

use super::Storage;
use crate::error::Code;
use crate::manifest::{Manifest, OCI_MANIFEST};
use crate::names::{Algorithm, Digest, Reference, Repository};

fn storage() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path()).unwrap();
    storage.bind("a", "1").unwrap();
    (folder, storage)
}

fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

fn push(storage: &Storage, name: &str, content: &'static [u8]) -> Digest {
    let session = storage.begin_upload(&repository(name), "1").unwrap();
    session.append(&[Bytes::from_static(content)]).unwrap();
    let digest = Digest::of(Algorithm::Sha256, content);
    storage.finish_upload(&session, &digest).unwrap();
    digest
}

#[test]
fn content_that_is_linked_between_mark_and_sweep_is_kept() {
    let (_folder, storage) = storage();
    let shared = push(&storage, "a/one", b"shared");
    let stray = push(&storage, "a/one", b"stray");
    storage.begin_collection();
    let (report, needed) = storage.mark(Duration::ZERO).unwrap();
    assert_eq!((report.links, needed.len()), (2, 0), "no manifest names them");
    assert_eq!(push(&storage, "a/two", b"shared"), shared, "pushed again, just now");
    let report = storage.sweep(report, &needed, Duration::ZERO).unwrap();
    assert_eq!(report.contents, 1);
    assert!(storage.has_blob(&repository("a/two"), &shared));
    assert!(!storage.has_blob(&repository("a/one"), &stray));
}

#[test]
fn what_was_admitted_for_a_former_owner_does_not_become_visible() {
    let (_folder, storage) = storage();
    let repository = repository("a/app");
    let config = push(&storage, "a/app", b"{}");
    let document = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": 2}});
    let content = document.to_string().into_bytes();
    let manifest = Manifest::parse(Some(OCI_MANIFEST), &content).unwrap();
    let tag: Reference = "v1".parse().unwrap();
    storage.put_manifest(&repository, "1", &tag, &manifest, &content).unwrap();

    storage.bind("a", "2").unwrap();
    let session = storage.begin_upload(&repository, "2").unwrap();
    session.append(&[Bytes::from_static(b"{}")]).unwrap();
    storage.finish_upload(&session, &config).unwrap();
    let refused = storage.put_manifest(&repository, "1", &tag, &manifest, &content).unwrap_err();
    assert_eq!(refused.code(), Code::NameUnknown);
    let refused = storage.mount_blob(&repository, &self::repository("a/other"), "1", &config).unwrap_err();
    assert_eq!(refused.code(), Code::NameUnknown);
    // An upload of the former owner that was not cancelled.
    let session = storage.begin_upload(&repository, "1").unwrap();
    session.append(&[Bytes::from_static(b"late")]).unwrap();
    let late = Digest::of(Algorithm::Sha256, b"late");
    assert_eq!(storage.finish_upload(&session, &late).unwrap_err().code(), Code::NameUnknown);
    assert!(!storage.has_blob(&repository, &late));
    storage.put_manifest(&repository, "2", &tag, &manifest, &content).unwrap();
}
