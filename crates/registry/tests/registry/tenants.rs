//! Repositories belong to the tenant that had the name when they were pushed, not to the name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use evroc_registry::{AllowAll, OCI_MANIFEST, Tenant, TenantError, Tenants};
use serde_json::json;

use crate::support::{TestRegistry, digest};

/// Tenants by name; `None` for a failure to find out.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<Option<BTreeMap<String, Tenant>>>>);

impl Known {
    fn set(&self, tenants: &[(&str, &str, bool)]) {
        let tenant = |uid: &str, is_ending| Tenant { uid: uid.into(), is_ending };
        let all = tenants.iter().map(|(name, uid, is_ending)| ((*name).to_owned(), tenant(uid, *is_ending)));
        *self.0.lock().expect("lock") = Some(all.collect());
    }

    fn fail(&self) {
        *self.0.lock().expect("lock") = None;
    }
}

#[async_trait::async_trait]
impl Tenants for Known {
    async fn tenant(&self, name: &str) -> Result<Option<Tenant>, TenantError> {
        match &*self.0.lock().expect("lock") {
            Some(known) => Ok(known.get(name).cloned()),
            None => Err(TenantError { name: name.into(), source: "connection refused".into() }),
        }
    }
}

async fn registry() -> (TestRegistry, Known) {
    let known = Known::default();
    known.set(&[("demo", "1", false)]);
    (TestRegistry::of(Arc::new(AllowAll), Arc::new(known.clone())).await, known)
}

#[tokio::test]
async fn nothing_is_pushed_into_or_pulled_from_what_does_not_exist() {
    let (registry, known) = registry().await;
    let blob = digest(b"x");
    let requests = [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::POST, format!("blobs/uploads/?digest={blob}")),
        (Method::POST, format!("blobs/uploads/?mount={blob}&from=demo/app")),
        (Method::PATCH, "blobs/uploads/8a5e8a1c-0000-4000-8000-000000000000".to_owned()),
        (Method::PUT, "manifests/v1".to_owned()),
        (Method::DELETE, "manifests/v1".to_owned()),
        (Method::GET, "manifests/v1".to_owned()),
        (Method::GET, "tags/list".to_owned()),
        (Method::GET, format!("blobs/{blob}")),
    ];
    for (method, path) in &requests {
        let path = format!("/v2/absent/app/{path}");
        let answer = registry.request(method.clone(), &path, &[], Body::empty()).await;
        let message = answer.refused(404, "NAME_UNKNOWN");
        assert!(message.contains("no resource group \"absent\""), "{method} {path}: {message}");
    }
    assert_eq!(registry.unfinished(), 0);

    registry.push_image("demo/app", "v1", "1").await;
    known.set(&[("demo", "1", true)]);
    registry.get("/v2/demo/app/manifests/v1").await.expect(200);
    let begin = registry.request(Method::POST, "/v2/demo/app/blobs/uploads/", &[], Body::empty()).await;
    assert!(begin.refused(403, "DENIED").contains("is being deleted"));

    // What is not known now is not the same as what does not exist.
    known.fail();
    registry.get("/v2/demo/app/manifests/v1").await.refused(503, "UNKNOWN");
    known.set(&[("demo", "1", false)]);
    registry.get("/v2/demo/app/manifests/v1").await.expect(200);
}

#[tokio::test]
async fn a_later_tenant_of_the_same_name_finds_nothing() {
    let (registry, known) = registry().await;
    known.set(&[("demo", "1", false), ("demo-not", "9", false)]);
    let manifest = registry.push_image("demo/app", "v1", "1").await;
    registry.push_image("demo", "v1", "of one component").await;
    registry.push_image("demo-not/app", "v1", "1").await;

    known.set(&[("demo-not", "9", false)]);
    registry.get("/v2/demo/app/manifests/v1").await.refused(404, "NAME_UNKNOWN");
    let catalog = registry.get("/v2/_catalog").await.expect(200).json();
    assert_eq!(catalog, json!({"repositories": ["demo-not/app"]}));

    // They were not removed, as after a crash: the first look of the later tenant removes them.
    known.set(&[("demo", "2", false), ("demo-not", "9", false)]);
    for repository in ["demo/app", "demo"] {
        registry.get(&format!("/v2/{repository}/manifests/v1")).await.refused(404, "NAME_UNKNOWN");
        registry.get(&format!("/v2/{repository}/manifests/{}", digest(&manifest))).await.refused(404, "NAME_UNKNOWN");
    }
    registry.get("/v2/demo-not/app/manifests/v1").await.expect(200);
    let second = registry.push_image("demo/app", "v1", "2").await;
    assert_eq!(registry.get("/v2/demo/app/manifests/v1").await.expect(200).body, second);

    // The former tenant's end, carried out late, is not the later tenant's.
    assert_eq!(registry.registry.forget("demo", "1").await.expect("forgotten"), 0);
    registry.get("/v2/demo/app/manifests/v1").await.expect(200);
}

#[tokio::test]
async fn owners_are_known_after_a_restart_and_absent_ones_are_collected() {
    let (registry, known) = registry().await;
    let empty = registry.files();
    registry.push_image("demo/app", "v1", "1").await;
    let registry = {
        let again = evroc_registry::Registry::open(registry.folder.path(), Arc::new(known.clone())).await;
        let again = again.expect("registry opens");
        TestRegistry { router: again.router(Arc::new(AllowAll)), registry: again, folder: registry.folder }
    };
    known.set(&[("demo", "2", false)]);
    registry.get("/v2/demo/app/tags/list").await.refused(404, "NAME_UNKNOWN");
    registry.push_image("demo/app", "v1", "2").await;

    known.fail();
    assert!(registry.registry.collect_garbage(Duration::ZERO).await.is_err(), "who exists is not known");
    known.set(&[]);
    registry.registry.collect_garbage(Duration::ZERO).await.expect("collected");
    assert_eq!(registry.files(), empty);
}

#[tokio::test]
async fn a_push_that_began_under_one_tenant_does_not_end_under_the_next() {
    let (registry, known) = registry().await;
    let config = registry.push_blob("demo/app", b"{}").await;
    let upload = registry.begin("demo/app").await;
    known.set(&[("demo", "2", false)]);
    registry.get("/v2/demo/app/tags/list").await.refused(404, "NAME_UNKNOWN");
    let path = format!("{upload}?digest={}", digest(b"secret"));
    registry.request(Method::PUT, &path, &[], b"secret".to_vec()).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2}, "layers": []});
    let answer = registry.put_manifest("demo/app", "v1", OCI_MANIFEST, manifest.to_string()).await;
    answer.refused(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(registry.unfinished(), 0);
}

/// The body arrives while the tenant changes: what was admitted for the former is refused at the end.
#[tokio::test]
async fn a_body_that_outlives_its_tenant_is_refused() {
    let (registry, known) = registry().await;
    let upload = registry.begin("demo/app").await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&'static [u8], std::io::Error>>(1);
    let body = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let path = format!("{upload}?digest={}", digest(b"secret"));
    let sending = async { registry.request(Method::PUT, &path, &[], Body::from_stream(body)).await };
    let changing = async {
        sender.send(Ok(b"sec")).await.expect("received");
        // Taken in: the request was admitted.
        sender.send(Ok(b"ret")).await.expect("received");
        known.set(&[("demo", "2", false)]);
        registry.get("/v2/demo/app/tags/list").await.refused(404, "NAME_UNKNOWN");
        drop(sender);
    };
    let (answer, ()) = tokio::join!(sending, changing);
    assert_eq!(answer.status, 404, "{}", String::from_utf8_lossy(&answer.body));
    let path = format!("/v2/demo/app/blobs/{}", digest(b"secret"));
    registry.get(&path).await.refused(404, "BLOB_UNKNOWN");
}
