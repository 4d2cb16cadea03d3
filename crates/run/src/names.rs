//! Names that follow from a service.

use evroc_api::run::Service;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

/// The revision of a service's present template.
pub fn revision_name(service: &Service) -> String {
    format!("{}-{:05}", service.name_any(), service.metadata.generation.unwrap_or(1))
}

/// The service's host name: `svc-<id>.<domain>`. The id follows from the uid: stable for the service's life, and never
/// the same again for a later service of the same name.
pub fn host_name(service: &Service, domain: &str) -> String {
    let hash = Sha256::digest(service.uid().unwrap_or_default());
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let id: String = hash.iter().take(10).map(|byte| char::from(letters[usize::from(byte % 32)])).collect();
    format!("svc-{id}.{domain}")
}
