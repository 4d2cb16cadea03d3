use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::launch::seal;
use super::*;
use crate::container::attacks;

enum Item<'a> {
    File(&'a str, &'a str),
    Folder(&'a str),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
    Device(&'a str),
    Fifo(&'a str),
}

/// Writes an archive without the checks that `tar::Builder` makes of names.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let (name, kind, link, data) = match item {
            Item::File(name, data) => (name, tar::EntryType::Regular, "", *data),
            Item::Folder(name) => (name, tar::EntryType::Directory, "", ""),
            Item::Symlink(name, to) => (name, tar::EntryType::Symlink, *to, ""),
            Item::Hardlink(name, to) => (name, tar::EntryType::Link, *to, ""),
            Item::Device(name) => (name, tar::EntryType::Char, "", ""),
            Item::Fifo(name) => (name, tar::EntryType::Fifo, "", ""),
        };
        let mut header = tar::Header::new_gnu();
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o640 });
        header.set_uid(1234);
        header.set_gid(1235);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 100_000, room: u64::MAX };

/// Unpacks `wire` into `<folder>/layer`, and seals it, as root.
fn unpack_bytes(wire: &[u8], limits: Limits) -> (TempDir, Result<Unpacked, UnpackError>) {
    let outer = tempfile::tempdir().unwrap();
    let layer = outer.path().join("layer");
    std::fs::create_dir(&layer).unwrap();
    let result = unpack_layer(wire, &layer, limits);
    if let Ok(unpacked) = &result {
        seal(&layer, unpacked).unwrap();
    }
    (outer, result)
}

fn unpack(items: &[Item<'_>]) -> (TempDir, Result<Unpacked, UnpackError>) {
    unpack_bytes(&archive(items), LIMITS)
}

#[test]
#[ignore = "needs root"]
fn files_keep_owner_mode_and_time() {
    let (outer, result) = unpack(&[Item::Folder("a/"), Item::File("a/f", "hello"), Item::Hardlink("a/g", "a/f")]);
    result.unwrap();
    let meta = std::fs::metadata(outer.path().join("layer/a/g")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (1234, 1235, 2));
    assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime()), (0o640, 1_700_000_000));
    assert_eq!(std::fs::metadata(outer.path().join("layer/a")).unwrap().mtime(), 1_700_000_000);
}

#[test]
#[ignore = "needs root"]
fn whiteouts_become_overlayfs_ones() {
    let (outer, result) = unpack(&[
        Item::File("a/.wh.gone", ""),
        Item::File("b/.wh..wh..opq", ""),
        Item::File(".wh.c", ""),
        Item::File("c/new", "x"),
        Item::Folder("d"),
        Item::File(".wh.d", ""),
        Item::File(".wh..wh.plnk", ""),
    ]);
    result.unwrap();
    let layer = outer.path().join("layer");
    let gone = std::fs::symlink_metadata(layer.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["b", "c", "d"] {
        let mut value = [0_u8; 8];
        let count = rustix::fs::lgetxattr(layer.join(opaque), OPAQUE_XATTR, &mut value).unwrap();
        assert_eq!(&value[..count], b"y", "{opaque}");
    }
    assert!(layer.join("c/new").is_file());
    assert!(!layer.join(".wh..wh.plnk").exists() && !layer.join("b/.wh..wh..opq").exists());
}

#[test]
#[ignore = "needs root"]
fn nothing_escapes() {
    let hostile: &[(&str, &[Item<'_>])] = &[
        ("dots", &[Item::File("../evil", "x")]),
        ("dots inside", &[Item::File("a/../../evil", "x")]),
        ("absolute", &[Item::File("/evil", "x")]),
        ("relative link", &[Item::Symlink("l", ".."), Item::File("l/evil", "x")]),
        ("absolute link", &[Item::Symlink("l", "/"), Item::File("l/evil", "x")]),
        ("link to a file outside", &[Item::Symlink("evil", "../evil"), Item::File("evil", "x")]),
        ("hard link out", &[Item::Hardlink("evil", "../secret")]),
        ("hard link through a link", &[Item::Symlink("l", ".."), Item::Hardlink("x", "l/secret")]),
        ("whiteout through a link", &[Item::Symlink("l", ".."), Item::File("l/.wh.secret", "")]),
        ("whiteout of the parent", &[Item::File(".wh...", "")]),
        ("folder through a link", &[Item::Symlink("l", "../evil"), Item::Folder("l/x")]),
    ];
    for (name, items) in hostile {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("layer")).unwrap();
        std::fs::write(outer.path().join("secret"), "secret").unwrap();
        // Refused or kept inside: both are fine.
        let _ = unpack_layer(&archive(items)[..], &outer.path().join("layer"), LIMITS);
        let mut names: Vec<_> = std::fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["layer", "secret"], "{name}");
        let secret = std::fs::metadata(outer.path().join("secret")).unwrap();
        assert!(secret.nlink() == 1 && secret.len() == 6 && secret.is_file(), "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn devices_and_fifos_are_left_out_with_what_links_to_them() {
    let (outer, result) = unpack(&[
        Item::File("etc/passwd", "x"),
        Item::Fifo("etc/passwd"),
        Item::Device("dev/sda"),
        Item::Hardlink("dev/disk", "dev/sda"),
        Item::File("a", "x"),
    ]);
    result.unwrap();
    let names = |folder: &str| std::fs::read_dir(outer.path().join("layer").join(folder)).unwrap().count();
    assert_eq!((names("etc"), names("dev"), names("")), (0, 0, 3));
}

#[test]
#[ignore = "needs root"]
fn a_file_replaces_a_folder_of_its_layer() {
    let (outer, result) = unpack(&[Item::File("a/b/c", "x"), Item::Symlink("a", "etc")]);
    result.unwrap();
    assert_eq!(std::fs::read_link(outer.path().join("layer/a")).unwrap(), std::path::Path::new("etc"));
}

#[test]
#[ignore = "needs root"]
fn links_are_followed_inside_the_layer() {
    let (outer, result) = unpack(&[
        Item::Symlink("lib", "usr/lib"),
        Item::Symlink("usr/lib64", "/../lib/./"),
        Item::File("lib/a", "1"),
        Item::File("usr/lib64/b", "2"),
        Item::Symlink("x", "../../y"),
        Item::File("x/c", "3"),
        Item::Hardlink("d", "lib/a"),
    ]);
    result.unwrap();
    for path in ["usr/lib/a", "usr/lib/b", "y/c", "d"] {
        assert!(outer.path().join("layer").join(path).is_file(), "{path}");
    }
}

/// The error that each attack of [`attacks`] meets.
#[test]
#[ignore = "needs root"]
fn attacks_are_stopped_early() {
    for (name, wire, want) in attacks::all() {
        let (outer, result) = unpack_bytes(&wire, LIMITS);
        match (want, result) {
            (Ok(()), Ok(_)) => {}
            (Err(want), Err(error)) => {
                assert!(error.is_permanent() && error.to_string().contains(want), "{name}: {error}");
                assert!(error.to_string().len() < 1000, "{name}");
            }
            (want, result) => panic!("{name}: expected {want:?}, found {result:?}"),
        }
        crate::container::remove_tree::remove_tree(outer.path()).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn limits_count_the_whole_layer() {
    let items = [Item::File("a", "0123456789"), Item::File("b", "0123456789")];
    let with = |bytes, entries| unpack_bytes(&archive(&items), Limits { bytes, entries, ..LIMITS }).1;
    assert_eq!(with(20, 2).map(|unpacked| (unpacked.bytes, unpacked.entries)), Ok((20, 2)));
    assert!(matches!(with(19, 2), Err(UnpackError::TooLarge(_))));
    assert!(matches!(with(20, 1), Err(UnpackError::TooLarge(_))));
    let full = unpack_bytes(&archive(&items), Limits { room: 19, ..LIMITS }).1.unwrap_err();
    assert!(matches!(full, UnpackError::DiskFull(_)) && !full.is_permanent(), "{full}");
}

#[test]
#[ignore = "needs root"]
fn holes_stay_holes() {
    let wire = attacks::sparse(1 << 30);
    let (outer, result) = unpack_bytes(&wire, Limits { bytes: 2 << 30, ..LIMITS });
    assert_eq!(result.unwrap().bytes, 1 << 30);
    let meta = std::fs::metadata(outer.path().join("layer/hole")).unwrap();
    assert_eq!(meta.len(), 1 << 30);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
}

#[test]
#[ignore = "needs root"]
fn a_cut_off_archive_is_an_error() {
    let full = archive(&[Item::File("a", "0123456789")]);
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(unpack_layer(&full[..515], folder.path(), LIMITS), Err(UnpackError::Unreadable(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Random bytes and random flips in a good archive neither panic nor leave the folder.
    #[test]
    fn damaged_archives_stay_inside(position in 0_usize..2048, byte: u8) {
        let mut bytes = archive(&[
            Item::Folder("a"), Item::Symlink("a/l", ".."), Item::File("a/f", "x"), Item::Hardlink("b", "a/f"),
        ]);
        bytes[position] = byte;
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("layer")).unwrap();
        let _ = unpack_layer(&bytes[..], &outer.path().join("layer"), LIMITS);
        prop_assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
