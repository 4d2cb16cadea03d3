use std::sync::Arc;

use axum::body::Body;
use axum::http::Method;
use axum::http::request::Parts;
use evroc_registry::{Action, Authorize, Denied, Repository};

use crate::support::{TestRegistry, digest};

/// `user: <group>` may push to repositories of the group; `public/` can be pulled by every known user.
struct Groups;

#[async_trait::async_trait]
impl Authorize for Groups {
    async fn authorize(&self, request: &Parts, repository: Option<&Repository>, action: Action) -> Result<(), Denied> {
        let Some(user) = request.headers.get("user").and_then(|user| user.to_str().ok()) else {
            return Err(Denied::Unauthenticated {
                challenge: "Basic realm=\"test\"".to_owned(),
                message: "log in first".to_owned(),
            });
        };
        let Some(repository) = repository else { return Ok(()) };
        let group = repository.first_component();
        if group == user || (group == "public" && action == Action::Pull) {
            return Ok(());
        }
        Err(Denied::Forbidden { message: format!("{user} may not {action:?} {repository}") })
    }
}

async fn send(registry: &TestRegistry, user: &str, method: Method, path: &str) -> crate::support::Answer {
    registry.request(method, path, &[("user", user)], Body::empty()).await
}

#[tokio::test]
async fn unknown_callers_learn_nothing() {
    let registry = TestRegistry::with(Arc::new(Groups)).await;
    for path in ["/v2/", "/v2/_catalog", "/v2/a/tags/list", "/v2/UPPER/tags/list", "/v2/nonsense"] {
        let answer = registry.get(path).await;
        assert_eq!(answer.refused(401, "UNAUTHORIZED"), "log in first", "{path}");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"test\"");
    }
    send(&registry, "a", Method::GET, "/v2/").await.expect(200);
}

#[tokio::test]
async fn every_operation_is_decided_by_repository_and_action() {
    let registry = TestRegistry::with(Arc::new(Groups)).await;
    let digest = digest(b"x");
    let operations = [
        (Method::GET, "manifests/v1".to_owned(), false),
        (Method::HEAD, "manifests/v1".to_owned(), false),
        (Method::PUT, "manifests/v1".to_owned(), true),
        (Method::DELETE, "manifests/v1".to_owned(), true),
        (Method::GET, format!("blobs/{digest}"), false),
        (Method::HEAD, format!("blobs/{digest}"), false),
        (Method::DELETE, format!("blobs/{digest}"), true),
        (Method::POST, "blobs/uploads/".to_owned(), true),
        (Method::PATCH, "blobs/uploads/1".to_owned(), true),
        (Method::PUT, "blobs/uploads/1".to_owned(), true),
        (Method::DELETE, "blobs/uploads/1".to_owned(), true),
        (Method::GET, "tags/list".to_owned(), false),
        (Method::GET, format!("referrers/{digest}"), false),
    ];
    for (method, path, writes) in operations {
        let status = async |repository: &str| {
            let path = format!("/v2/{repository}/{path}");
            send(&registry, "a", method.clone(), &path).await.status.as_u16()
        };
        assert_eq!(status("b/x").await, 403, "{method} {path}");
        assert_eq!(status("public/x").await == 403, writes, "{method} {path}");
        assert_ne!(status("a/x").await, 403, "{method} {path}");
    }
}

#[tokio::test]
async fn mounting_needs_the_right_to_read_the_source() {
    let registry = TestRegistry::with(Arc::new(Groups)).await;
    let digest = digest(b"secret");
    let path = format!("/v2/b/x/blobs/uploads/?digest={digest}");
    registry.request(Method::POST, &path, &[("user", "b")], "secret").await.expect(201);
    let mount = format!("/v2/a/x/blobs/uploads/?mount={digest}&from=b/x");
    send(&registry, "a", Method::POST, &mount).await.expect(202);
    send(&registry, "a", Method::GET, &format!("/v2/a/x/blobs/{digest}")).await.refused(404, "BLOB_UNKNOWN");
    let within = format!("/v2/b/y/blobs/uploads/?mount={digest}&from=b/x");
    send(&registry, "b", Method::POST, &within).await.expect(201);
    let catalog = send(&registry, "a", Method::GET, "/v2/_catalog").await.expect(200);
    assert_eq!(catalog.json()["repositories"], serde_json::json!([]));
}
