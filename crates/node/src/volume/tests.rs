use std::os::unix::fs::MetadataExt;

use super::*;

const MIB: u64 = 1 << 20;

struct Host {
    dir: tempfile::TempDir,
    volumes: VolumeStore,
}

impl Host {
    /// With an image `base` of 8 MiB whose default size is 1 GB.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tool = ImageTool::default();
        let build = dir.path().join("build");
        std::fs::create_dir(&build).unwrap();
        tool.create_blank(&build.join("disk.qcow2"), 8 * MIB).await.unwrap();
        let output = std::process::Command::new("sha256sum").arg(build.join("disk.qcow2")).output().unwrap();
        let digest = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
        let facts = serde_json::json!({
            "name": "base", "sha256": digest, "virtualSizeBytes": 8 * MIB, "defaultSize": { "amount": 1, "unit": "GB" },
        });
        std::fs::write(build.join("image.json"), facts.to_string()).unwrap();
        let images = ImageStore::open(dir.path().join("images"), tool).unwrap();
        images.import(&build).await.unwrap();
        let volumes = VolumeStore::open(dir.path().join("volumes"), images).unwrap();
        Self { dir, volumes }
    }
}

#[tokio::test]
async fn a_volume_is_made_once_and_removed() {
    let host = Host::new().await;
    let volume = host.volumes.create("v-1", Some("base"), None).await.unwrap();
    assert_eq!(volume.size_bytes, 1024 * MIB, "the image's default");
    assert_eq!(host.volumes.create("v-1", Some("base"), Some(5)).await.unwrap(), volume, "it is there already");
    let path = host.volumes.path("v-1");
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    assert!(path.metadata().unwrap().len() < MIB);
    assert_eq!(host.volumes.list().unwrap(), BTreeSet::from(["v-1".to_owned()]));
    assert_eq!(host.volumes.bases().unwrap(), BTreeSet::from([volume.base.unwrap()]));
    host.volumes.delete("v-1").unwrap();
    host.volumes.delete("v-1").unwrap();
    host.volumes.release("v-1").unwrap();
    assert!(matches!(host.volumes.get("v-1"), Err(VolumeError::Unknown { .. })));
    assert_eq!(std::fs::read_dir(host.dir.path().join("volumes")).unwrap().count(), 0);
}

#[tokio::test]
async fn sizes_are_checked() {
    let host = Host::new().await;
    let error = host.volumes.create("v", Some("base"), Some(MIB)).await.unwrap_err();
    let text = "Disk is too small to contain disk image: image \"base\" needs 8388608 bytes, the disk has 1048576";
    assert_eq!(error.to_string(), text);
    let error = host.volumes.create("v", None, None).await.unwrap_err();
    assert_eq!(error.to_string(), "volume \"v\": expected a size, or an image, found neither");
    host.volumes.create("v", None, Some(MIB)).await.unwrap();
    assert_eq!(host.volumes.grow("v", 2 * MIB).await.unwrap().size_bytes, 2 * MIB);
    assert_eq!(host.volumes.get("v").unwrap().size_bytes, 2 * MIB);
    let error = host.volumes.grow("v", MIB).await.unwrap_err();
    assert_eq!(error.to_string(), "volume \"v\" cannot shrink: it has 2097152 bytes, 1048576 were asked for");
    let error = host.volumes.create("v", Some("base"), None).await.unwrap_err();
    assert!(error.to_string().contains("the same image as when it was made"), "{error}");
}

#[tokio::test]
async fn an_unknown_image_is_named() {
    let host = Host::new().await;
    let error = host.volumes.create("v", Some("nope"), None).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no disk image \"nope\" on this host; there are: base");
    for uid in ["", "..", "a/b", ".hidden"] {
        assert!(host.volumes.create(uid, None, Some(MIB)).await.is_err(), "{uid:?}");
    }
}

#[tokio::test]
async fn an_interrupted_creation_leaves_nothing() {
    let host = Host::new().await;
    let folder = host.dir.path().join("volumes");
    for name in [".v.new", ".w.deleted"] {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("disk.qcow2"), "half").unwrap();
    }
    assert!(host.volumes.list().unwrap().is_empty());
    host.volumes.create("v", None, Some(MIB)).await.unwrap();
    VolumeStore::open(&folder, host.volumes.images.clone()).unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}

#[tokio::test]
async fn a_volume_belongs_to_its_machine_while_it_has_it() {
    let host = Host::new().await;
    host.volumes.create("v", None, Some(MIB)).await.unwrap();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    host.volumes.assign("v", 1_899_999_020, 1_899_999_021).unwrap();
    let metadata = host.volumes.path("v").metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1_899_999_020, 1_899_999_021));
    host.volumes.release("v").unwrap();
    assert_eq!(host.volumes.path("v").metadata().unwrap().uid(), 0);
}
