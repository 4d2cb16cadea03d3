use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::container::digest::HashingReader;
use crate::container::fake::{FakeRegistry, Layer};
use crate::container::fetch::{ByteStream, FetchError};

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn good_config() -> Value {
    json!({"architecture": "amd64", "os": "linux", "config": {"User": "65532:65532", "Env": null, "Cmd": ["/app"]}})
}

async fn pull(
    registry: FakeRegistry,
    digest: Digest,
) -> (tempfile::TempDir, Arc<FakeRegistry>, Result<Image, ImageError>) {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(registry);
    let store = ImageStore::open(folder.path(), registry.clone()).unwrap();
    let image = store.ensure(&reference(digest)).await;
    (folder, registry, image)
}

fn reference(digest: Digest) -> ImageReference {
    ImageReference { written: "demo/hello:v1".into(), repository: "demo/hello".into(), digest }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn layers_of_every_compression_are_unpacked_once_and_shared() {
    if !is_root() {
        return;
    }
    let mut registry = FakeRegistry::default();
    let base = Layer::plain(&[("base", "1")]);
    let first = registry.add(&[base.clone(), Layer::gzip(&[("a", "2")]), Layer::zstd(&[("b", "3")])], good_config());
    let second = registry.add(&[base, Layer::gzip(&[("c", "4")])], good_config());
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(registry);
    let store = ImageStore::open(folder.path(), registry.clone()).unwrap();
    let (first_ref, second_ref) = (reference(first), reference(second));
    let (one, same, two) = tokio::join!(store.ensure(&first_ref), store.ensure(&first_ref), store.ensure(&second_ref));
    let (one, same, two) = (one.unwrap(), same.unwrap(), two.unwrap());
    assert_eq!(one.layers, same.layers);
    assert_eq!(one.layers.len(), 3);
    // Uppermost first.
    assert_eq!(fs::read_to_string(one.layers[0].join("b")).unwrap(), "3");
    assert_eq!(fs::read_to_string(one.layers[2].join("base")).unwrap(), "1");
    assert_eq!(one.layers[2], two.layers[1]);
    assert_eq!(registry.layer_fetches.load(Ordering::Relaxed), 4, "each layer once");
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(names(&folder.path().join("tmp")).is_empty());

    // A second start needs no network, and removes what an interrupted one left.
    fs::create_dir(folder.path().join("tmp/half")).unwrap();
    let store = ImageStore::open(folder.path(), Arc::new(FakeRegistry::default())).unwrap();
    assert_eq!(store.ensure(&reference(first)).await.unwrap().layers, one.layers);
    assert!(names(&folder.path().join("tmp")).is_empty());

    assert_eq!(store.prune(&HashSet::from([second])).unwrap(), 2);
    assert_eq!(names(&folder.path().join("layers")).len(), 2);
    assert!(store.ensure(&reference(second)).await.is_ok());
}

#[tokio::test]
async fn an_index_leads_to_our_platform() {
    if !is_root() {
        return;
    }
    let mut registry = FakeRegistry::default();
    let arm = registry
        .add(&[Layer::gzip(&[("arm", "1")])], json!({"architecture": "arm64", "os": "linux", "config": {"User": "1"}}));
    let ours = registry.add(&[Layer::gzip(&[("ours", "1")])], good_config());
    let index = registry.add_index(&[(arm, "linux", "arm64"), (ours, "linux", "amd64")]);
    let only_arm = registry.add_index(&[(arm, "linux", "arm64"), (arm, "linux", "s390x")]);
    let (_folder, registry, image) = pull(registry, index).await;
    assert!(image.unwrap().layers[0].join("ours").exists());
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path(), registry).unwrap();
    assert_eq!(
        store.ensure(&reference(only_arm)).await.unwrap_err().to_string(),
        "image \"demo/hello:v1\" is for linux/arm64, linux/s390x: evroc Run needs linux/amd64; build it with `--platform linux/amd64`"
    );
    assert!(store.ensure(&reference(arm)).await.unwrap_err().to_string().contains("is for linux/arm64:"));
}

#[tokio::test]
async fn root_is_refused_before_any_layer_is_fetched() {
    let mut registry = FakeRegistry::default();
    let digest = registry.add(
        &[Layer::gzip(&[("a", "1")])],
        json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/app"]}}),
    );
    let (_folder, registry, image) = pull(registry, digest).await;
    let error = image.unwrap_err();
    assert!(error.is_permanent());
    assert_eq!(
        error.to_string(),
        "image \"demo/hello:v1\" runs as root (USER is not set): evroc Run needs a non-root user; add \"USER 65532:65532\" to the Dockerfile"
    );
    assert_eq!(registry.layer_fetches.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn damage_is_named_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    type Damage = fn(&mut FakeRegistry, Digest);
    let cases: [(&str, Damage, &str); 6] = [
        ("changed layer", |r, d| r.blob_mut(d)[20] ^= 1, "is damaged: expected sha256:"),
        ("short layer", |r, d| r.blob_mut(d).truncate(30), "is damaged: expected"),
        ("long layer", |r, d| r.blob_mut(d).push(0), "more"),
        ("other content", |r, d| *r.blob_mut(d) = vec![0; 10], "is damaged"),
        ("missing", |r, d| drop(r.blobs.remove(&d)), "fetch layer"),
        ("empty", |r, d| r.blob_mut(d).clear(), "is damaged"),
    ];
    for (name, damage, want) in cases {
        let mut registry = FakeRegistry::default();
        let layer = Layer::gzip(&[("a", "content of some length, so that a flipped byte hits it")]);
        let digest = registry.add(std::slice::from_ref(&layer), good_config());
        damage(&mut registry, layer.digest());
        let (folder, _, image) = pull(registry, digest).await;
        let error = image.unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
        for empty in ["tmp", "layers", "images"] {
            assert!(names(&folder.path().join(empty)).is_empty(), "{name}: {empty}");
        }
    }
}

#[tokio::test]
async fn a_layer_that_is_not_its_diff_id_is_refused() {
    if !is_root() {
        return;
    }
    let mut registry = FakeRegistry::default();
    let mut config = good_config();
    config["rootfs"] = json!({"type": "layers", "diff_ids": [Digest::of(b"something else")]});
    let digest = registry.add(&[Layer::gzip(&[("a", "1")])], config);
    let (_folder, _, image) = pull(registry, digest).await;
    assert!(image.unwrap_err().to_string().contains("after decompression"));
}

#[tokio::test]
async fn a_lying_manifest_is_found_out() {
    let mut registry = FakeRegistry::default();
    let digest = registry.add(&[Layer::gzip(&[("a", "1")])], good_config());
    registry.blobs.get_mut(&digest).unwrap().push(b' ');
    let (_folder, _, image) = pull(registry, digest).await;
    assert!(image.unwrap_err().to_string().contains("manifest sha256:"));
}

struct BrokenPipe(FakeRegistry, AtomicUsize);

#[async_trait]
impl ImageFetch for BrokenPipe {
    async fn manifest(&self, repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        self.0.manifest(repository, digest).await
    }

    async fn blob(&self, repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        // The configuration passes, the first try of the layer breaks off.
        if self.1.fetch_add(1, Ordering::Relaxed) == 1 {
            let half = Bytes::from(self.0.blobs[&digest][..40].to_vec());
            let broken = futures::stream::iter([Ok(half), Err(io::Error::other("connection reset"))]);
            return Ok(Box::pin(broken));
        }
        self.0.blob(repository, digest).await
    }
}

#[tokio::test]
async fn a_broken_transfer_can_be_tried_again() {
    if !is_root() {
        return;
    }
    let mut registry = FakeRegistry::default();
    let digest = registry.add(&[Layer::gzip(&[("a", "1")])], good_config());
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path(), Arc::new(BrokenPipe(registry, AtomicUsize::new(0)))).unwrap();
    let error = store.ensure(&reference(digest)).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().starts_with("receive layer"), "{error}");
    assert!(names(&folder.path().join("tmp")).is_empty());
    store.ensure(&reference(digest)).await.unwrap();
}

#[test]
fn a_flood_of_zeros_is_stopped() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&[0; 1000]).unwrap();
    let bytes = gzip.finish().unwrap();
    let mut reader = HashingReader::new(flate2::read::GzDecoder::new(&bytes[..]), 999);
    assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}
