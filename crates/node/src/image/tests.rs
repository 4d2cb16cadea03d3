use super::*;

struct Host {
    dir: tempfile::TempDir,
    images: ImageStore,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = ImageStore::open(dir.path().join("images"), ImageTool::default()).unwrap();
        Self { dir, images }
    }

    /// A build of `name` whose content depends on `size`.
    async fn build(&self, name: &str, size: u64) -> PathBuf {
        let folder = self.dir.path().join(format!("build-{name}-{size}"));
        std::fs::create_dir(&folder).unwrap();
        let disk = folder.join("disk.qcow2");
        self.images.tool().create_blank(&disk, size).await.unwrap();
        let facts = serde_json::json!({ "name": name, "sha256": sha256(&disk).unwrap(), "virtualSizeBytes": size, "format": "qcow2" });
        std::fs::write(folder.join("image.json"), facts.to_string()).unwrap();
        folder
    }
}

#[tokio::test]
async fn an_image_is_imported_verified_and_remembered() {
    let host = Host::new();
    let build = host.build("tiny.1-0.1", 1 << 20).await;
    host.images.import(&build).await.unwrap();
    host.images.import(&build).await.unwrap();
    let image = host.images.get("tiny.1-0.1", None).await.unwrap();
    assert_eq!(image.base.metadata().unwrap().mode() & 0o777, 0o444);
    assert_eq!(host.images.verified().0.len(), 1);
    assert_eq!(host.images.get("tiny.1-0.1", None).await.unwrap(), image);
    assert_eq!(host.images.scan().unwrap().images, [image.facts]);
}

#[tokio::test]
async fn a_newer_build_leaves_the_old_base_alone() {
    let host = Host::new();
    host.images.import(&host.build("a", 1 << 20).await).await.unwrap();
    let old = host.images.get("a", None).await.unwrap();
    host.images.import(&host.build("a", 2 << 20).await).await.unwrap();
    let new = host.images.get("a", None).await.unwrap();
    assert_ne!(old.base, new.base);
    assert!(old.base.exists());
    let used = BTreeSet::from([old.base.clone()]);
    assert!(host.images.remove_unused_bases(&used).await.unwrap().is_empty());
    assert_eq!(host.images.verified().0.len(), 2);
    assert_eq!(host.images.remove_unused_bases(&BTreeSet::new()).await.unwrap(), [old.base]);
    assert_eq!(host.images.verified().0.len(), 1, "its digest is forgotten");
    host.images.get("a", None).await.unwrap();
}

#[tokio::test]
async fn a_damaged_image_is_refused_and_a_good_one_can_take_its_place() {
    let host = Host::new();
    let build = host.build("a", 1 << 20).await;
    let mut bytes = std::fs::read(build.join("disk.qcow2")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let good = std::fs::read(build.join("disk.qcow2")).unwrap();
    std::fs::write(build.join("disk.qcow2"), bytes).unwrap();
    host.images.import(&build).await.unwrap();
    let error = host.images.get("a", None).await.unwrap_err();
    assert!(error.to_string().contains("expected SHA-256 "), "{error}");
    std::fs::write(host.images.folder.join("a/disk.qcow2"), good).unwrap();
    host.images.get("a", None).await.unwrap();
}

#[tokio::test]
async fn an_unknown_image_is_refused_with_the_available_ones() {
    let host = Host::new();
    assert!(host.images.get("nope", None).await.unwrap_err().to_string().ends_with("which has: none"));
    host.images.import(&host.build("a", 1 << 20).await).await.unwrap();
    for name in ["nope", "", "../a", ".by-digest"] {
        let error = host.images.get(name, None).await.unwrap_err();
        assert!(matches!(error, ImageError::Unknown { .. }), "{error}");
        assert!(error.to_string().ends_with("which has: a"), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_size_or_a_backing_file_is_refused() {
    let host = Host::new();
    let build = host.build("a", 1 << 20).await;
    let json = std::fs::read_to_string(build.join("image.json")).unwrap().replace("1048576", "9");
    std::fs::write(build.join("image.json"), json).unwrap();
    host.images.import(&build).await.unwrap();
    let error = host.images.get("a", None).await.unwrap_err();
    assert_eq!(error.to_string(), "disk image \"a\" is not usable: expected a disk of 9 bytes, found 1048576 bytes");

    let build = host.build("b", 1 << 20).await;
    let disk = build.join("disk.qcow2");
    std::fs::remove_file(&disk).unwrap();
    host.images.tool().create_clone(&disk, Path::new("/etc/passwd"), 1 << 20).await.unwrap_err();
    host.images.tool().create_clone(&disk, &host.build("c", 1 << 20).await.join("disk.qcow2"), 1 << 20).await.unwrap();
    let facts = serde_json::json!({ "name": "b", "sha256": sha256(&disk).unwrap(), "virtualSizeBytes": 1 << 20 });
    std::fs::write(build.join("image.json"), facts.to_string()).unwrap();
    host.images.import(&build).await.unwrap();
    let error = host.images.get("b", None).await.unwrap_err();
    assert!(matches!(error, ImageError::Tool { source: evroc_vmm::ImageError::Unsafe { .. }, .. }), "{error}");
    let bases = host.images.folder.join(BY_DIGEST);
    assert_eq!(std::fs::read_dir(bases).unwrap().count(), 0, "a refused base does not stay");
}

#[tokio::test]
async fn other_bytes_under_the_name_are_refused() {
    let host = Host::new();
    let facts = host.images.import(&host.build("a", 1 << 20).await).await.unwrap();
    host.images.get("a", Some(&facts.sha256)).await.unwrap();
    let wanted = "0".repeat(64);
    let error = host.images.get("a", Some(&wanted)).await.unwrap_err();
    let text =
        format!("disk image \"a\" has other bytes on this host: expected SHA-256 {wanted}, found {}", facts.sha256);
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_base_that_volumes_may_have_is_kept_although_it_is_damaged() {
    let host = Host::new();
    host.images.import(&host.build("a", 1 << 20).await).await.unwrap();
    let base = host.images.get("a", None).await.unwrap().base;
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o644)).unwrap();
    let bytes = std::fs::read(&base).unwrap();
    std::fs::write(&base, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(host.images.get("a", None).await, Err(ImageError::Invalid { .. })));
    assert!(base.exists());
}

#[test]
fn an_image_that_cannot_be_read_is_reported_and_the_others_are_found() {
    let host = Host::new();
    let folder = host.images.folder.join("broken");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("disk.qcow2"), "").unwrap();
    std::fs::write(folder.join("image.json"), "{").unwrap();
    let scan = host.images.scan().unwrap();
    assert!(scan.images.is_empty());
    assert_eq!(scan.unreadable.keys().collect::<Vec<_>>(), ["broken"]);
}
