//! Stories about image layers and the confined process that unpacks them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use evroc_node::container::digest::Digest;
use evroc_node::container::fetch::{ByteStream, FetchError, ImageFetch};
use evroc_node::container::image::{ImageReference, ImageStore};
use evroc_node::container::unpack::{UnpackLauncher, Unpacker};
use serde_json::json;

#[path = "../../src/container/attacks.rs"]
mod attacks;

const UNPACKER_ID: u32 = 1_999_999_005;

/// Blobs by digest; a blob that is listed as endless never ends.
#[derive(Default)]
struct Registry {
    blobs: HashMap<Digest, Vec<u8>>,
    endless: bool,
}

impl Registry {
    fn put(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest, bytes);
        digest
    }

    /// An image of one layer; the diff id is that of the layer where it is a plain archive.
    fn image(&mut self, layer: Vec<u8>) -> Digest {
        let (size, diff_id) = (layer.len(), Digest::of(&layer));
        let layer = self.put(layer);
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"User": "65532:65532"},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let config = json!({"size": config.len(), "digest": self.put(config)});
        let layers = [json!({"digest": layer, "size": size})];
        self.put(serde_json::to_vec(&json!({"schemaVersion": 2, "config": config, "layers": layers})).unwrap())
    }

    fn get(&self, digest: Digest) -> Result<ByteStream, FetchError> {
        let bytes = self.blobs.get(&digest).ok_or_else(|| FetchError::NotFound { url: digest.to_string() })?;
        let chunks: Vec<_> = bytes.chunks(1 << 16).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let stream = futures::stream::iter(chunks);
        let is_layer = !bytes.starts_with(b"{");
        match self.endless && is_layer {
            true => Ok(Box::pin(futures::StreamExt::chain(stream, futures::stream::pending()))),
            false => Ok(Box::pin(stream)),
        }
    }
}

#[async_trait]
impl ImageFetch for Registry {
    async fn manifest(&self, _repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        self.get(digest)
    }

    async fn blob(&self, _repository: &str, digest: Digest) -> Result<ByteStream, FetchError> {
        self.get(digest)
    }

    async fn check_blob(&self, _repository: &str, digest: Digest) -> Result<(), FetchError> {
        self.get(digest).map(drop)
    }
}

fn open(folder: &Path, registry: Registry) -> ImageStore {
    let launcher = UnpackLauncher::new(env!("CARGO_BIN_EXE_evroc-test-unpack"), &[], UNPACKER_ID);
    ImageStore::open(folder, Arc::new(registry), Unpacker::Process(launcher)).unwrap()
}

fn reference(digest: Digest) -> ImageReference {
    ImageReference { written: "demo/test:v1".into(), repository: "demo/test".into(), digest }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A value of `/proc/<pid>/status` in KiB.
fn kib(pid: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The process that unpacks into `folder`.
fn unpacker_of(folder: &Path) -> Option<String> {
    let folder = folder.to_string_lossy().into_owned();
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let line = String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?).into_owned();
        let is_it = line.contains("evroc-test-unpack") && line.contains(&folder);
        is_it.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

#[tokio::test]
async fn attacks_cost_the_host_nothing() {
    for (name, wire, want) in attacks::all() {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let digest = registry.image(wire);
        let before = kib("self", "VmHWM:");
        let result = open(folder.path(), registry).ensure(&reference(digest)).await;
        if let Err(want) = want {
            let error = result.unwrap_err();
            let text = with_causes(&error);
            assert!(error.is_permanent() && text.len() < 2000, "{name}: {text}");
            // A sparse file within the limit of an image is allowed: it costs nothing.
            assert!(text.contains(want) || name == "sparse", "{name}: {text}");
        }
        assert!(kib("self", "VmHWM:") < before + (100 << 10), "{name} made the agent grow");
        assert_eq!(names(&folder.path().join("tmp")), Vec::<PathBuf>::new(), "{name}");
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn the_process_has_nothing_but_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut registry = Registry { endless: true, ..Registry::default() };
    let digest = registry.image(vec![b'x'; 100]);
    let store = open(folder.path(), registry);
    let pulling = tokio::spawn(async move { store.ensure(&reference(digest)).await.map(drop) });
    // It waits for more of the layer, so it has confined itself when its user has changed.
    let pid = eventually("it is confined", || {
        let pid = unpacker_of(folder.path())?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.contains("NoNewPrivs:\t1").then_some(pid)
    })
    .await;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let id = UNPACKER_ID.to_string();
    assert_eq!(field("Uid:"), [id.as_str(); 4].join(" "));
    assert_eq!((field("Gid:"), field("Groups:")), ([id.as_str(); 4].join(" "), String::new()));
    // CHOWN, DAC_OVERRIDE, FOWNER and FSETID.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), "000000000000001b", "{set}");
    }
    let link = |name: &str, pid: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    for namespace in ["ns/mnt", "ns/net", "ns/ipc", "ns/uts"] {
        assert_ne!(link(namespace, &pid), link(namespace, "self"), "{namespace}");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains("nosuid,nodev,noexec"), "{mounts}");
    let descriptors = names(Path::new(&format!("/proc/{pid}/fd")));
    let is_foreign =
        |path: &PathBuf| std::fs::read_link(path).is_ok_and(|to| to.starts_with("/") && to != Path::new("/dev/null"));
    assert!(!descriptors.iter().any(|path| is_foreign(path) && !path.ends_with("3")), "{descriptors:?}");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for limit in ["Max cpu time", "Max file size", "Max open files", "Max address space", "Max processes"] {
        assert!(!limits.lines().find(|line| line.starts_with(limit)).unwrap().contains("unlimited"), "{limits}");
    }

    // The user of the image gives up: process and folder are removed.
    pulling.abort();
    eventually("the process has ended", || unpacker_of(folder.path()).is_none().then_some(())).await;
    eventually("nothing is left", || names(&folder.path().join("tmp")).is_empty().then_some(())).await;
}
