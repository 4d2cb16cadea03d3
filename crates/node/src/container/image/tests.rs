use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::container::digest::HashingReader;
use crate::container::fake::{FakeRegistry, Layer};
use crate::container::fetch::{ByteStream, FetchError};

fn good_config() -> Value {
    json!({"architecture": "amd64", "os": "linux", "config": {"User": "65532:65532", "Env": null, "Cmd": ["/app"]}})
}

async fn pull(
    registry: FakeRegistry,
    digest: Digest,
) -> (tempfile::TempDir, Arc<FakeRegistry>, Result<Image, ImageError>) {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(registry);
    let store = ImageStore::open(folder.path(), registry.clone(), Unpacker::InProcess).unwrap();
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
#[ignore = "needs root"]
async fn layers_of_every_compression_are_unpacked_once_and_shared() {
    let mut registry = FakeRegistry::default();
    let base = Layer::plain(&[("base", "1")]);
    let first = registry.add(&[base.clone(), Layer::gzip(&[("a", "2")]), Layer::zstd(&[("b", "3")])], good_config());
    let second = registry.add(&[base, Layer::gzip(&[("c", "4")])], good_config());
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(registry);
    let store = ImageStore::open(folder.path(), registry.clone(), Unpacker::InProcess).unwrap();
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
    let store = ImageStore::open(folder.path(), Arc::new(FakeRegistry::default()), Unpacker::InProcess).unwrap();
    assert_eq!(store.ensure(&reference(first)).await.unwrap().layers, one.layers);
    assert!(names(&folder.path().join("tmp")).is_empty());

    let mounted = HashSet::from([one.layers[0].clone()]);
    let kept = HashSet::from([second]);
    assert_eq!(store.prune(&kept, &mounted, Duration::from_secs(3600)).unwrap(), Pruned::default(), "used just now");
    assert_eq!(store.prune(&kept, &mounted, Duration::ZERO).unwrap(), Pruned { images: 1, layers: 1 });
    assert!(one.layers[0].exists(), "a container is mounted from it");
    assert_eq!(store.prune(&kept, &HashSet::new(), Duration::ZERO).unwrap(), Pruned { images: 0, layers: 1 });
    assert_eq!(names(&folder.path().join("layers")).len(), 2);
    assert!(store.ensure(&reference(second)).await.is_ok());
    assert!(names(&folder.path().join("tmp")).is_empty());
}

#[tokio::test]
#[ignore = "needs root"]
async fn an_index_leads_to_our_platform() {
    let mut registry = FakeRegistry::default();
    let arm = registry
        .add(&[Layer::gzip(&[("arm", "1")])], json!({"architecture": "arm64", "os": "linux", "config": {"User": "1"}}));
    let ours = registry.add(&[Layer::gzip(&[("ours", "1")])], good_config());
    let index = registry.add_index(&[(arm, "linux", "arm64"), (ours, "linux", "amd64")]);
    let only_arm = registry.add_index(&[(arm, "linux", "arm64"), (arm, "linux", "s390x")]);
    let (_folder, registry, image) = pull(registry, index).await;
    assert!(image.unwrap().layers[0].join("ours").exists());
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path(), registry, Unpacker::InProcess).unwrap();
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
#[ignore = "needs root"]
async fn damage_is_named_and_leaves_nothing() {
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
#[ignore = "needs root"]
async fn a_layer_that_is_not_its_diff_id_is_refused() {
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

    async fn check_blob(&self, repository: &str, digest: Digest) -> Result<(), FetchError> {
        self.0.check_blob(repository, digest).await
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_broken_transfer_can_be_tried_again() {
    let mut registry = FakeRegistry::default();
    let digest = registry.add(&[Layer::gzip(&[("a", "1")])], good_config());
    let folder = tempfile::tempdir().unwrap();
    let store =
        ImageStore::open(folder.path(), Arc::new(BrokenPipe(registry, AtomicUsize::new(0))), Unpacker::InProcess)
            .unwrap();
    let error = store.ensure(&reference(digest)).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().starts_with("receive layer"), "{error}");
    assert!(names(&folder.path().join("tmp")).is_empty());
    store.ensure(&reference(digest)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_same_layer_twice_is_stacked_once() {
    let mut registry = FakeRegistry::default();
    let (empty, other) = (Layer::gzip(&[]), Layer::gzip(&[("a", "1")]));
    let digest = registry.add(&[empty.clone(), other.clone(), empty, other], good_config());
    let (_folder, registry, image) = pull(registry, digest).await;
    let layers = image.unwrap().layers;
    assert_eq!((layers.len(), layers[0].join("a").exists(), layers[1].join("a").exists()), (2, true, false));
    assert_eq!(registry.layer_fetches.load(Ordering::Relaxed), 2);
}

/// The registry with one repository, `demo/hello`; others have what their list names.
struct Repositories(FakeRegistry, HashMap<&'static str, HashSet<Digest>>);

impl Repositories {
    fn check(&self, repository: &str, digest: Digest) -> Result<(), FetchError> {
        match self.1.get(repository).is_none_or(|has| has.contains(&digest)) {
            true => Ok(()),
            false => Err(FetchError::NotFound { url: format!("/{repository}/{digest}") }),
        }
    }
}

#[async_trait]
impl ImageFetch for Repositories {
    async fn manifest(&self, repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        self.check(repository, digest)?;
        self.0.manifest(repository, digest).await
    }

    async fn blob(&self, repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        self.check(repository, digest)?;
        self.0.blob(repository, digest).await
    }

    async fn check_blob(&self, repository: &str, digest: Digest) -> Result<(), FetchError> {
        self.check(repository, digest)?;
        self.0.check_blob(repository, digest).await
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_layer_needs_the_possession_of_its_blob() {
    let mut registry = FakeRegistry::default();
    let private = Layer::gzip(&[("secret", "of a")]);
    let of_a = registry.add(std::slice::from_ref(&private), good_config());
    // The diff id of the other's layer, with a blob of one's own.
    let junk = Layer { diff_id: private.diff_id, ..Layer::gzip(&[("junk", "of b")]) };
    let by_diff_id = registry.add(&[junk], good_config());
    // The other's blob, which one's own repository does not have.
    let mut config = good_config();
    config["author"] = "b".into();
    let by_blob = registry.add(std::slice::from_ref(&private), config);
    let of_b = registry.blobs.keys().copied().filter(|digest| *digest != private.digest() && *digest != of_a).collect();
    let folder = tempfile::tempdir().unwrap();
    let registry = Repositories(registry, HashMap::from([("demo/b", of_b)]));
    let store = ImageStore::open(folder.path(), Arc::new(registry), Unpacker::InProcess).unwrap();
    store.ensure(&reference(of_a)).await.unwrap();
    let by_b = |digest| ImageReference { repository: "demo/b".into(), ..reference(digest) };
    for (digest, want) in [(by_diff_id, "after decompression"), (by_blob, "fetch layer"), (of_a, "fetch manifest")] {
        let error = store.ensure(&by_b(digest)).await.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_leftover_that_cannot_be_removed_does_not_stop_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let tmp = folder.path().join("tmp");
    fs::create_dir_all(tmp.join("half")).unwrap();
    // Root itself cannot remove what something is mounted on.
    rustix::mount::mount_bind(tmp.join("half"), tmp.join("half")).unwrap();
    let mut registry = FakeRegistry::default();
    let digest = registry.add(&[Layer::gzip(&[("a", "1")])], good_config());
    let opened = ImageStore::open(folder.path(), Arc::new(registry), Unpacker::InProcess);
    let pulled = match &opened {
        Ok(store) => store.ensure(&reference(digest)).await.is_ok(),
        Err(_) => false,
    };
    for entry in fs::read_dir(folder.path()).unwrap() {
        let _ = rustix::mount::unmount(entry.unwrap().path().join("half"), rustix::mount::UnmountFlags::DETACH);
    }
    assert!(pulled, "{:?}", opened.err());
}

#[test]
fn a_flood_of_zeros_is_stopped() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&[0; 1000]).unwrap();
    let bytes = gzip.finish().unwrap();
    let mut reader = HashingReader::new(flate2::read::GzDecoder::new(&bytes[..]), 999);
    assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}
