//! The published API beside that of the last release.

use std::collections::BTreeMap;
use std::path::PathBuf;

use evroc_testkit::Platform;
use evroc_tests::published::{compare, surface, unlisted};
use serde_json::Value;

use super::all_is_well;

/// The documents of the last release; `cargo xtask release-openapi` writes it.
const RELEASED: &str = "tests/released-openapi.json";

#[tokio::test]
async fn clients_of_the_last_release_find_the_api_they_use() {
    let platform = Platform::start().await;
    let client = platform.client_as(evroc_iam::Identity::operator());
    let get = async |path: &str| -> Value {
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        client.request(request).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let index = get("/openapi/v3").await;
    let mut documents = BTreeMap::new();
    for (path, entry) in index["paths"].as_object().expect("paths") {
        documents.insert(path.clone(), get(entry["serverRelativeURL"].as_str().expect("an address")).await);
    }
    let today = surface(&documents);
    let text = |file: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if std::env::var_os("EVROC_RELEASE_OPENAPI").is_some() {
        let pretty = serde_json::to_string_pretty(&today).expect("JSON") + "\n";
        return std::fs::write(text(RELEASED), pretty).expect(RELEASED);
    }
    let read = |file: &str| std::fs::read_to_string(text(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let released: Value = serde_json::from_str(&read(RELEASED)).expect(RELEASED);
    assert!(released["apis/compute.evroclabs.net/v1alpha1"]["schemas"].as_object().is_some_and(|it| it.len() > 5));
    let wanted = unlisted(&compare::incompatible(&released, &today), &read("CHANGELOG.md"));
    assert!(
        wanted.is_empty(),
        "clients of the last release would miss something: undo it, or write into CHANGELOG.md under `## Unreleased`\n{}",
        wanted.join("\n")
    );
    all_is_well(&platform).await;
}
