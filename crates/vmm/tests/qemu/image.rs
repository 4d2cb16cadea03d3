//! Disk files with the real qemu-img.

use evroc_vmm::{DiskFormat, ImageError, ImageTool};

const MIB: u64 = 1 << 20;
const QCOW2: DiskFormat = DiskFormat::Qcow2 { backing: None };

#[tokio::test]
async fn a_clone_is_small_and_has_the_requested_size() {
    let dir = tempfile::tempdir().unwrap();
    let tool = ImageTool::default();
    let (base, clone) = (dir.path().join("base"), dir.path().join("clone"));
    tool.create_blank(&base, 64 * MIB).await.unwrap();
    tool.create_clone(&clone, &base, 10_000 * MIB).await.unwrap();
    let info = tool.info(&clone, &QCOW2).await.unwrap();
    assert_eq!((info.virtual_size, info.format.as_str()), (10_000 * MIB, "qcow2"));
    assert_eq!(info.backing_filename.as_deref(), base.to_str());
    assert!(info.actual_size < MIB, "nothing is copied: {info:?}");

    let error = tool.grow(&clone, &QCOW2, 11_000 * MIB).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsafe { .. }), "a backing file that was not expected is not opened: {error}");
    let format = DiskFormat::Qcow2 { backing: Some(base) };
    tool.grow(&clone, &format, 11_000 * MIB).await.unwrap();
    tool.grow(&clone, &format, 11_000 * MIB).await.unwrap();
    assert_eq!(tool.info(&clone, &format).await.unwrap().virtual_size, 11_000 * MIB);
    let error = tool.grow(&clone, &format, 5 * MIB).await.unwrap_err();
    assert!(
        matches!(error, ImageError::Shrink { found, requested, .. } if found == 11_000 * MIB && requested == 5 * MIB)
    );
    assert!(tool.create_blank(&clone, MIB).await.is_err(), "a disk is never overwritten");
}

#[tokio::test]
async fn images_that_name_other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tool = ImageTool::default();
    let base = dir.path().join("base");
    tool.create_blank(&base, MIB).await.unwrap();
    tool.check_untrusted(&base, None).await.unwrap();

    let clone = dir.path().join("clone");
    tool.create_clone(&clone, &base, MIB).await.unwrap();
    let error = tool.check_untrusted(&clone, None).await.unwrap_err();
    assert!(error.to_string().contains("expected no backing file, found backing file"), "{error}");
    tool.check_untrusted(&clone, Some(&base)).await.unwrap();

    let external = dir.path().join("external");
    let option = format!("data_file={},data_file_raw=on", dir.path().join("data").display());
    let status = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o", &option])
        .arg(&external)
        .arg("1M")
        .status();
    assert!(status.unwrap().success());
    let error = tool.check_untrusted(&external, None).await.unwrap_err();
    assert!(error.to_string().contains("data file"), "{error}");

    let text = dir.path().join("text");
    std::fs::write(&text, "no image at all").unwrap();
    let error = tool.check_untrusted(&text, None).await.unwrap_err();
    assert!(error.to_string().contains("not in qcow2 format"), "{error}");
}

#[tokio::test]
async fn a_guest_cannot_smuggle_a_header_into_its_raw_disk() {
    let dir = tempfile::tempdir().unwrap();
    let tool = ImageTool::default();
    let (qcow2, raw) = (dir.path().join("a"), dir.path().join("b"));
    tool.create_blank(&qcow2, 512 * MIB).await.unwrap();
    std::fs::copy(&qcow2, &raw).unwrap();
    let size = raw.metadata().unwrap().len().next_multiple_of(512);
    assert_eq!(tool.info(&raw, &DiskFormat::Raw).await.unwrap().virtual_size, size);
}
