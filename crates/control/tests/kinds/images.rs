//! Images and resource groups: the real registry, controllers and API server.

use std::sync::Arc;

use bytes::Bytes;
use evroc_api::iam::ResourceGroup;
use evroc_api::run::Service;
use evroc_registry::{Algorithm, AllowAll, Digest, OCI_MANIFEST};
use evroc_testkit::Platform;
use evroc_testkit::objects::{HasConditions, of, service};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tower::ServiceExt;

async fn send(platform: &Platform, method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(Full::new(body.into())).unwrap();
    let response = platform.registry().router(Arc::new(AllowAll)).oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or_default())
}

/// Pushes an image without layers over the registry's HTTP interface; returns the answers' first refusal.
async fn push(platform: &Platform, repository: &str) -> Result<(), (u16, Value)> {
    let config = json!({"os": "linux", "architecture": "amd64", "config": {"User": "65532"}}).to_string();
    let digest = Digest::of(Algorithm::Sha256, config.as_bytes()).to_string();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": config.len()}});
    let blob =
        (Method::POST, format!("/v2/{repository}/blobs/uploads/?digest={digest}"), "application/octet-stream", config);
    let manifest = (Method::PUT, format!("/v2/{repository}/manifests/v1"), OCI_MANIFEST, manifest.to_string());
    for (method, path, kind, body) in [blob, manifest] {
        let answer = send(platform, method, &path, kind, body).await;
        if answer.0 != 201 {
            return Err(answer);
        }
    }
    Ok(())
}

async fn create_group(platform: &Platform, name: &str) {
    let group: ResourceGroup = of(json!({"apiVersion": "iam.evroclabs.net/v1alpha1", "kind": "ResourceGroup",
        "metadata": {"name": name}, "spec": {"organization": "local"}}));
    platform.create(&group).await;
    platform.until::<ResourceGroup>(name, "Ready", HasConditions::is_ready).await;
}

async fn reason_of_service(platform: &Platform, group: &str, expected: &str) {
    let services = Api::<Service>::namespaced(platform.admin(), group);
    let wanted = service("hello", &format!("{group}/hello:v1"));
    services.create(&PostParams::default(), &wanted).await.unwrap();
    evroc_testkit::eventually(expected, || async {
        let service = services.get("hello").await.map_err(|e| e.to_string())?;
        if service.reason() == expected { Ok(()) } else { Err(service.message().to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn a_later_group_of_the_same_name_has_no_images_of_the_former() {
    let platform = Platform::builder().registry().start().await;
    let refused = push(&platform, "former/hello").await.unwrap_err();
    assert_eq!((refused.0, &refused.1["errors"][0]["code"]), (404, &json!("NAME_UNKNOWN")));
    let message = refused.1["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("there is no resource group \"former\""), "{message}");

    create_group(&platform, "former").await;
    push(&platform, "former/hello").await.unwrap();
    platform.delete::<ResourceGroup>("former").await;
    platform.gone::<ResourceGroup>("former").await;
    assert_eq!(push(&platform, "former/hello").await.unwrap_err().0, 404);

    create_group(&platform, "former").await;
    reason_of_service(&platform, "former", "ImageNotFound").await;
    let (code, body) = send(&platform, Method::GET, "/v2/former/hello/manifests/v1", "", "").await;
    assert_eq!((code, &body["errors"][0]["code"]), (404, &json!("NAME_UNKNOWN")));
    push(&platform, "former/hello").await.unwrap();
    let services = Api::<Service>::namespaced(platform.admin(), "former");
    evroc_testkit::eventually("the service has an image", || async {
        let service = services.get("hello").await.map_err(|e| e.to_string())?;
        if service.reason() == "ImageNotFound" { Err(service.message().to_owned()) } else { Ok(()) }
    })
    .await;
}
