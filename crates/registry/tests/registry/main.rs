//! The registry as its clients see it: in process, over loopback with skopeo, and killed in the middle of an upload.

mod authorization;
mod blobs;
mod crash;
mod listings;
mod manifests;
mod skopeo;
mod support;
mod tenants;
mod uploads;
