use std::os::fd::AsRawFd;

use super::*;
use crate::pool::contract::{Bench, IMAGE, MIB};

/// A host with an image of 8 MiB.
pub(in crate::pool) struct Host {
    dir: tempfile::TempDir,
    images: ImageStore,
    pool: LocalPool,
}

impl Host {
    pub(in crate::pool) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = ImageStore::open(dir.path().join("images"), ImageTool::default()).unwrap();
        // The tool's user must be able to get at the volumes.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let tool_user = rustix::process::geteuid().is_root().then_some(Owner { uid: TOOL_USER, gid: TOOL_USER });
        let pool = LocalPool::open(dir.path().join("volumes"), images.clone(), tool_user).unwrap();
        let host = Self { dir, images, pool };
        host.import("one", 1 << 16).await;
        host
    }

    /// Imports a build of the image whose bytes follow from `cluster_size`.
    async fn import(&self, build: &str, cluster_size: u64) {
        let build = self.dir.path().join(build);
        std::fs::create_dir(&build).unwrap();
        let disk = build.join("disk.qcow2");
        let status = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-o", &format!("cluster_size={cluster_size}")])
            .arg(&disk)
            .arg((8 * MIB).to_string())
            .status();
        assert!(status.unwrap().success());
        let output = std::process::Command::new("sha256sum").arg(&disk).output().unwrap();
        let digest = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
        let facts = serde_json::json!({ "name": IMAGE, "sha256": digest, "virtualSizeBytes": 8 * MIB });
        std::fs::write(build.join("image.json"), facts.to_string()).unwrap();
        self.images.import(&build).await.unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("volumes")
    }
}

const TOOL_USER: u32 = 1_899_999_030;

/// The lock that QEMU has on an image that it writes to. It ends when this is dropped, and not only when the file is closed: a
/// process that another test forks at that moment has a copy of the descriptor until it executes its program.
pub(super) struct ImageLock(File);

/// Takes the lock that QEMU takes on an image that it writes to.
pub(super) fn hold(path: &Path) -> ImageLock {
    let lock = ImageLock(File::options().read(true).write(true).open(path).unwrap());
    lock.set(libc::F_RDLCK).unwrap();
    lock
}

impl ImageLock {
    fn set(&self, kind: i32) -> io::Result<()> {
        #[allow(unsafe_code)]
        // SAFETY: a zeroed `struct flock` is valid, and the descriptor is open.
        let outcome = unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, 201, 1);
            libc::fcntl(self.0.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock)
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for ImageLock {
    fn drop(&mut self) {
        self.set(libc::F_UNLCK).unwrap();
    }
}

#[async_trait]
impl Bench for Host {
    fn pool(&self) -> Box<dyn Pool> {
        Box::new(self.pool.clone())
    }

    async fn replace_image(&self) {
        self.import("two", 1 << 12).await;
    }

    fn open(&self, uid: &str) -> Box<dyn Send> {
        Box::new(hold(&self.pool.path(uid)))
    }

    fn lose(&self, uid: &str) {
        std::fs::remove_file(self.pool.path(uid)).unwrap();
    }
}

fn blank(uid: &str) -> NewVolume {
    NewVolume { uid: uid.into(), image: None, size_bytes: MIB }
}

#[tokio::test]
async fn a_volume_takes_what_its_guest_has_written_and_is_roots() {
    let host = Host::new().await;
    host.pool.create(&NewVolume { size_bytes: 1 << 40, ..blank("v") }).await.unwrap();
    let metadata = host.pool.path("v").metadata().unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o600);
    let usage = host.pool.usage().await.unwrap();
    assert_eq!(usage.provisioned_bytes, 1 << 40);
    assert!(usage.occupied_bytes > 0 && usage.occupied_bytes < MIB, "{usage:?}");
}

#[tokio::test]
async fn every_state_that_a_killed_agent_leaves_is_got_over() {
    let host = Host::new().await;
    let whole = host.folder().join("whole");
    host.pool.create(&blank("whole")).await.unwrap();
    for (half, files) in [(".a.new", &[][..]), (".b.new", &["disk.qcow2"]), (".c.new", &["disk.qcow2", "volume.json"])]
    {
        let half = host.folder().join(half);
        std::fs::create_dir(&half).unwrap();
        for file in files {
            std::fs::copy(whole.join(file), half.join(file)).unwrap();
        }
    }
    std::fs::create_dir(host.folder().join(".d.deleted")).unwrap();
    std::fs::write(host.folder().join(".d.deleted/disk.qcow2"), "half").unwrap();
    assert_eq!(host.pool.list().await.unwrap().volumes.len(), 1);
    for uid in ["a", "b", "c", "d"] {
        host.pool.create(&blank(uid)).await.unwrap();
    }
    host.pool.delete("d").await.unwrap();
    std::fs::create_dir(host.folder().join(".e.new")).unwrap();
    LocalPool::open(host.folder(), host.images.clone(), None).unwrap();
    assert_eq!(std::fs::read_dir(host.folder()).unwrap().count(), 4);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_reported_and_its_volume_and_base_stay() {
    let host = Host::new().await;
    for uid in ["good", "torn", "newer"] {
        let image = Some(ImageRef { name: IMAGE.into(), sha256: None });
        host.pool.create(&NewVolume { uid: uid.into(), image, size_bytes: 16 * MIB }).await.unwrap();
    }
    std::fs::write(host.folder().join("torn/volume.json"), "{\"uid\":").unwrap();
    std::fs::write(host.folder().join("newer/volume.json"), r#"{"version":2,"where":"elsewhere"}"#).unwrap();
    let listing = host.pool.list().await.unwrap();
    assert_eq!(listing.volumes.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(listing.unreadable.keys().collect::<Vec<_>>(), ["newer", "torn"]);
    let text = listing.unreadable["newer"].to_string();
    assert_eq!(text, "volume \"newer\": its record has version 2; this program reads up to 1");
    host.import("two", 1 << 12).await;
    host.pool.remove_unused_bases().await.unwrap_err();
    for uid in ["torn", "newer"] {
        assert!(host.pool.look(uid).await.is_err(), "not absent");
        assert!(host.pool.create(&blank(uid)).await.is_err(), "not made again");
        assert!(host.pool.path(uid).exists());
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_volume_belongs_to_its_machine_while_it_has_it() {
    let host = Host::new().await;
    host.pool.create(&blank("v")).await.unwrap();
    host.pool.source("v", Some(Owner { uid: 1_899_999_020, gid: 1_899_999_021 })).await.unwrap();
    let metadata = host.pool.path("v").metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1_899_999_020, 1_899_999_021));
    let holder = host.pool.holder("v").await.unwrap().unwrap();
    assert_eq!((holder.name.as_str(), holder.has_it_open), ("the machine of user 1899999020", false));
    assert!(matches!(host.pool.grow("v", 2 * MIB).await.unwrap(), Growth::ByHolder(_)), "it may be opened at any time");
    host.pool.release("v").await.unwrap();
    assert_eq!(host.pool.path("v").metadata().unwrap().uid(), 0);
    assert!(matches!(host.pool.grow("v", 2 * MIB).await.unwrap(), Growth::Done(_)));
    assert_eq!(host.pool.path("v").metadata().unwrap().uid(), 0, "the tool's user has it no longer");
}

/// A guest that has taken over its hypervisor can write its disk's header.
#[tokio::test]
async fn a_header_that_names_other_files_is_not_grown() {
    let host = Host::new().await;
    let target = host.dir.path().join("target");
    let target_size = 3 * MIB;
    for (uid, option) in
        [("data", "data_file=TARGET,data_file_raw=on"), ("backing", "backing_file=TARGET,backing_fmt=raw")]
    {
        host.pool.create(&blank(uid)).await.unwrap();
        std::fs::File::create(&target).unwrap().set_len(target_size).unwrap();
        let path = host.pool.path(uid);
        std::fs::remove_file(&path).unwrap();
        let status = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-o", &option.replace("TARGET", target.to_str().unwrap())])
            .arg(&path)
            .arg(MIB.to_string())
            .status();
        assert!(status.unwrap().success());
        std::fs::File::create(&target).unwrap().set_len(target_size).unwrap();
        let error = host.pool.grow(uid, 64 * MIB).await.unwrap_err();
        assert!(matches!(error, PoolError::Tool { source: evroc_vmm::ImageError::Unsafe { .. }, .. }), "{error:?}");
        assert_eq!(target.metadata().unwrap().len(), target_size, "not touched");
        assert_eq!(host.pool.look(uid).await.unwrap().unwrap().size_bytes, MIB);
    }
}
