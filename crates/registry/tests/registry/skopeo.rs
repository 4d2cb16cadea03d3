//! skopeo as the outside judge. Where it is not installed the tests say so and pass, unless `REQUIRE_SKOPEO` is set.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use evroc_registry::{Algorithm, DOCKER_MANIFEST, Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::support::TestRegistry;

fn skopeo_is_missing() -> bool {
    let found = std::process::Command::new("skopeo").arg("--version").stdout(Stdio::null()).status();
    let missing = found.is_err();
    assert!(!missing || std::env::var_os("REQUIRE_SKOPEO").is_none(), "skopeo is not installed");
    if missing {
        eprintln!("skopeo is not installed: not tested");
    }
    missing
}

async fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = tokio::process::Command::new("skopeo")
        .args(["--insecure-policy"])
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .expect("skopeo runs");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

async fn serve(registry: &TestRegistry) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = registry.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Writes an OCI layout with one image of two gzip layers and returns the manifest's digest.
fn oci_layout(folder: &Path, tag: &str) -> String {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("folder");
    let write = |content: &[u8]| {
        let digest = Digest::of(Algorithm::Sha256, content);
        std::fs::write(blobs.join(digest.hex()), content).expect("blob");
        digest.to_string()
    };
    let mut layers = Vec::new();
    let mut unpacked = Vec::new();
    for (name, size) in [("hello", 10), ("large", 3 << 20)] {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        let content: Vec<u8> = (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
        archive.append_data(&mut header, name, &content[..]).expect("entry");
        let archive = archive.into_inner().expect("archive");
        unpacked.push(Digest::of(Algorithm::Sha256, &archive).to_string());
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &archive).expect("packed");
        let packed = packed.finish().expect("packed");
        layers.push(json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": write(&packed), "size": packed.len(),
        }));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "User": "1000:1000" },
        "rootfs": { "type": "layers", "diff_ids": unpacked },
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": write(config.as_bytes()), "size": config.len(),
        },
        "layers": layers,
    })
    .to_string();
    let digest = write(manifest.as_bytes());
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{
            "mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }],
    });
    std::fs::write(folder.join("index.json"), index.to_string()).expect("index");
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("layout");
    digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_pushes_inspects_and_pulls() {
    if skopeo_is_missing() {
        return;
    }
    let registry = TestRegistry::new().await;
    let address = serve(&registry).await;
    let files = tempfile::tempdir().expect("temporary folder");
    let (source, target) = (files.path().join("source"), files.path().join("target"));
    let digest = oci_layout(&source, "v1");
    let (source, target) = (format!("oci:{}:v1", source.display()), format!("oci:{}:v1", target.display()));
    let image = format!("docker://{address}/demo/hello:v1");

    skopeo(&["copy", "--dest-tls-verify=false", &source, &image]).await;
    let inspected: Value =
        serde_json::from_slice(&skopeo(&["inspect", "--tls-verify=false", &image]).await).expect("JSON");
    assert_eq!(inspected["Digest"], digest.as_str());
    assert_eq!(inspected["RepoTags"], json!(["v1"]));
    assert_eq!(inspected["Layers"].as_array().expect("layers").len(), 2);

    skopeo(&["copy", "--src-tls-verify=false", &image, &target]).await;
    let index = std::fs::read(files.path().join("target/index.json")).expect("index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    assert_eq!(index["manifests"][0]["digest"], digest.as_str());
    for entry in std::fs::read_dir(files.path().join("source/blobs/sha256")).expect("folder") {
        let entry = entry.expect("entry");
        let copied = files.path().join("target/blobs/sha256").join(entry.file_name());
        assert!(std::fs::read(entry.path()).expect("read") == std::fs::read(copied).expect("copied"));
    }

    // Between repositories (the client mounts blobs), and back by digest.
    let other = format!("docker://{address}/demo/other:latest");
    skopeo(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &image, &other]).await;
    let by_digest = format!("docker://{address}/demo/other@{digest}");
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &by_digest]).await;
    assert_eq!(Digest::of(Algorithm::Sha256, &raw).to_string(), digest);
    let listed = skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{address}/demo/other")]).await;
    let listed: Value = serde_json::from_slice(&listed).expect("JSON");
    assert_eq!(listed["Tags"], json!(["latest"]));

    skopeo(&["delete", "--tls-verify=false", &image]).await;
    registry.get("/v2/demo/hello/manifests/v1").await.refused(404, "MANIFEST_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_pushes_docker_manifests_and_indexes() {
    if skopeo_is_missing() {
        return;
    }
    let registry = TestRegistry::new().await;
    let address = serve(&registry).await;
    let files = tempfile::tempdir().expect("temporary folder");
    let source = files.path().join("source");
    oci_layout(&source, "v1");
    let source = format!("oci:{}:v1", source.display());
    let docker = format!("docker://{address}/demo/docker:v1");
    skopeo(&["copy", "--format", "v2s2", "--dest-tls-verify=false", &source, &docker]).await;
    let pushed = registry.get("/v2/demo/docker/manifests/v1").await.expect(200);
    assert_eq!(pushed.header("content-type"), DOCKER_MANIFEST);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &docker]).await;
    assert!(raw == pushed.body);
    let folder = format!("dir:{}", files.path().join("pulled").display());
    skopeo(&["copy", "--src-tls-verify=false", &docker, &folder]).await;
    let pulled = std::fs::read(files.path().join("pulled/manifest.json")).expect("manifest");
    assert!(pulled == pushed.body);

    // An index with all that it refers to.
    let child = pushed.header("docker-content-digest").to_owned();
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{
            "mediaType": DOCKER_MANIFEST, "digest": child, "size": pushed.body.len(),
            "platform": { "os": "linux", "architecture": "amd64" },
        }],
    });
    registry.put_manifest("demo/docker", "multi", OCI_INDEX, index.to_string()).await.expect(201);
    let (from, to) = (format!("docker://{address}/demo/docker:multi"), format!("docker://{address}/other/multi:v1"));
    skopeo(&["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]).await;
    let copied = registry.get("/v2/other/multi/manifests/v1").await.expect(200);
    assert_eq!(copied.body, index.to_string().into_bytes());
}
