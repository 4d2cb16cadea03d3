//! Layers that were made to harm a host, for tests; the small ones are also kept in `fuzz/corpus/layer`.

use std::io::Write;

use tar::{EntryType, Header};

/// A header without the checks that `tar::Builder` makes.
fn header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    if let Some(raw) = header.as_gnu_mut() {
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
    }
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

fn entry(archive: &mut Vec<u8>, name: &str, kind: EntryType, data: &[u8]) {
    archive.extend(header(name, kind, data.len() as u64).as_bytes());
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// A symbolic link; both names may be long.
fn link(archive: &mut Vec<u8>, name: &str, target: &str) {
    entry(archive, "long", EntryType::GNULongLink, target.as_bytes());
    if name.len() > 99 {
        entry(archive, "long", EntryType::GNULongName, name.as_bytes());
    }
    entry(archive, &name[..name.len().min(99)], EntryType::Symlink, b"");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Folders far deeper than a name is long, by links that lead down: 24,700 levels in some 800 bytes. The device node at the end made
/// an earlier unpacker remove the whole tree.
fn deep() -> Vec<u8> {
    const LEVELS: usize = 1900;
    let levels = vec!["d"; LEVELS].join("/");
    let mut archive = Vec::new();
    link(&mut archive, "s0", &levels);
    entry(&mut archive, "long", EntryType::GNULongName, levels.as_bytes());
    entry(&mut archive, "d", EntryType::Directory, b"");
    for hop in 0..13 {
        let path = format!("s{hop}/{levels}");
        link(&mut archive, &format!("s{}", hop + 1), &path);
        entry(&mut archive, "long", EntryType::GNULongName, path.as_bytes());
        entry(&mut archive, "d", EntryType::Directory, b"");
    }
    entry(&mut archive, "null", EntryType::Char, b"");
    gzip(&archive)
}

/// The same with steps that are each allowed: 100 levels at a time.
fn deep_by_small_steps() -> Vec<u8> {
    let levels = ["d"; 100].join("/");
    let mut archive = Vec::new();
    let mut at = String::new();
    for hop in 0..10 {
        let path = format!("{at}{levels}");
        entry(&mut archive, "long", EntryType::GNULongName, path.as_bytes());
        entry(&mut archive, "d", EntryType::Directory, b"");
        link(&mut archive, &format!("s{hop}"), &path);
        at = format!("s{hop}/");
    }
    gzip(&archive)
}

/// A name of 600 MB in 19 KB of zstd.
fn long_name() -> Vec<u8> {
    const LENGTH: u64 = 600 << 20;
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    zstd.write_all(header("long", EntryType::GNULongName, LENGTH).as_bytes()).unwrap();
    let piece = vec![b'a'; 1 << 20];
    for _ in 0..LENGTH >> 20 {
        zstd.write_all(&piece).unwrap();
    }
    zstd.write_all(header("a", EntryType::Regular, 0).as_bytes()).unwrap();
    zstd.finish().unwrap()
}

/// An extended header of 2 MiB.
fn long_pax() -> Vec<u8> {
    let mut archive = Vec::new();
    entry(&mut archive, "pax", EntryType::XHeader, &vec![b'a'; 2 << 20]);
    entry(&mut archive, "a", EntryType::Regular, b"");
    gzip(&archive)
}

/// A sparse file of `size` bytes that consists of one hole: 89 bytes of gzip.
pub(crate) fn sparse(size: u64) -> Vec<u8> {
    let mut header = header("hole", EntryType::GNUSparse, 0);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_real_size(size);
    }
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.resize(2048, 0);
    gzip(&archive)
}

/// A sparse file that says that its pieces are beyond its end.
fn sparse_lie() -> Vec<u8> {
    let mut header = header("lie", EntryType::GNUSparse, 1);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_real_size(1);
        gnu.sparse[0].set_offset(u64::MAX - 1);
        gnu.sparse[0].set_length(1);
    }
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend([1; 512]);
    archive
}

/// A FIFO where the runtime reads the users.
fn fifo() -> Vec<u8> {
    let mut archive = Vec::new();
    entry(&mut archive, "etc/passwd", EntryType::Fifo, b"");
    archive
}

fn device() -> Vec<u8> {
    let mut archive = Vec::new();
    entry(&mut archive, "dev/sda", EntryType::Block, b"");
    archive
}

fn links_in_a_circle() -> Vec<u8> {
    let mut archive = Vec::new();
    link(&mut archive, "a", "b/x");
    link(&mut archive, "b", "a/y");
    entry(&mut archive, "a/file", EntryType::Regular, b"x");
    archive
}

/// A size that overflows when it is rounded up to blocks.
fn huge_size() -> Vec<u8> {
    let mut header = header("huge", EntryType::Regular, 0);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.size = [0xff; 12];
        gnu.size[0] = 0x80;
    }
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// The name, the bytes, and the expected error; `Ok` where the layer is harmless once entries have been left out.
pub(crate) type Attack = (&'static str, Vec<u8>, Result<(), &'static str>);

/// All of them.
pub(crate) fn all() -> Vec<Attack> {
    vec![
        ("deep", deep(), Err("more than 256 folders deep")),
        ("deep-by-small-steps", deep_by_small_steps(), Err("more than 256 folders deep")),
        ("long-name", long_name(), Err("more than 4096 bytes")),
        ("long-pax", long_pax(), Err("more than 1 MiB")),
        ("sparse", sparse(3 << 30), Err("larger than it may be")),
        ("sparse-lie", sparse_lie(), Err("malformed")),
        ("fifo", fifo(), Ok(())),
        ("device", device(), Ok(())),
        ("links-in-a-circle", links_in_a_circle(), Err("more than 40 links")),
        ("huge-size", huge_size(), Err("larger than it may be")),
    ]
}
