//! Disk images: a folder with `disk.qcow2` and `image.json` becomes `<state>/node/images/<name>/`, all of it or nothing.
//!
//! `image.json` names the image (`name`, else the folder's name) and may carry `sha256` and `size` of the disk, which are then checked. An
//! existing image is never changed: disks are clones that read from it. An import that was interrupted leaves a folder
//! `.import-…`, which the next one removes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use evroc_iam::files;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use sha2::{Digest, Sha256};

const DISK: &str = "disk.qcow2";
const DESCRIPTION: &str = "image.json";
const UNFINISHED: &str = ".import-";
/// First bytes of a qcow2 file.
const MAGIC: &[u8] = b"QFI\xfb";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default, alias = "sizeBytes")]
    size: Option<u64>,
}

/// The result of an import.
#[derive(Debug, PartialEq, Eq)]
pub enum Imported {
    /// It was imported.
    New(String),
    /// It existed with the same content.
    Same(String),
}

/// Imports every image folder in `folder`, or `folder` itself if it is one. Returns a sentence for each that was new.
pub fn import_all(images: &Path, folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    if folder.join(DESCRIPTION).exists() {
        found.push(folder.to_owned());
    } else {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?.flatten() {
            if entry.path().join(DESCRIPTION).exists() && entry.path().join(DISK).exists() {
                found.push(entry.path());
            }
        }
        found.sort();
    }
    let mut notes = Vec::new();
    for source in found {
        if let Imported::New(name) = import(images, &source)? {
            notes.push(format!("imported image {name}"));
        }
    }
    Ok(notes)
}

/// Imports one image folder.
pub fn import(images: &Path, source: &Path) -> anyhow::Result<Imported> {
    let description_path = source.join(DESCRIPTION);
    let text = fs::read(&description_path).with_context(|| format!("cannot read {}", description_path.display()))?;
    let description: Description = serde_json::from_slice(&text)
        .with_context(|| format!("{}: expected JSON with the image's name", description_path.display()))?;
    let name = match &description.name {
        Some(name) => name.clone(),
        None => source.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    check_name(&name).with_context(|| description_path.display().to_string())?;
    check_disk(&source.join(DISK), &description)?;

    let lock = File::create(images.join(".lock")).with_context(|| format!("cannot write to {}", images.display()))?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot lock the images")?;
    remove_unfinished(images)?;
    let target = images.join(&name);
    if target.exists() {
        return is_same(&target, source, &name);
    }
    let unfinished = images.join(format!("{UNFINISHED}{name}-{}", std::process::id()));
    place(&unfinished, source, &text).and_then(|()| Ok(fs::rename(&unfinished, &target)?)).map_err(|error| {
        let _ = fs::remove_dir_all(&unfinished);
        error.context(format!("cannot place image {name} in {}", images.display()))
    })?;
    files::sync_folder(images)?;
    Ok(Imported::New(name))
}

/// Removes what interrupted imports left. The caller holds the lock, or nothing else runs.
fn remove_unfinished(images: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(images)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path()).with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn place(folder: &Path, source: &Path, description: &[u8]) -> anyhow::Result<()> {
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let disk = folder.join(DISK);
    fs::copy(source.join(DISK), &disk)?;
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o644))?;
    File::open(&disk)?.sync_all()?;
    files::write_atomic(&folder.join(DESCRIPTION), description, 0o644, None)?;
    Ok(())
}

/// An image of this name exists: accepted when it is the same disk, otherwise refused.
fn is_same(target: &Path, source: &Path, name: &str) -> anyhow::Result<Imported> {
    let (old, new) = (target.join(DISK), source.join(DISK));
    let length = |path: &PathBuf| fs::metadata(path).map(|found| found.len()).ok();
    let old_text = fs::read(target.join(DESCRIPTION)).unwrap_or_default();
    let new_text = fs::read(source.join(DESCRIPTION)).unwrap_or_default();
    if length(&old) == length(&new) && (old_text == new_text || digest(&old)? == digest(&new)?) {
        return Ok(Imported::Same(name.to_owned()));
    }
    bail!(
        "image {name} exists already with another content; disks may read from it, so it is not replaced: give the new image another name, or remove {} once no disk uses it",
        target.display()
    )
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    anyhow::ensure!(
        fits,
        "name {name:?}: expected small letters, digits, dashes and dots, at most 63, a letter or digit first"
    );
    Ok(())
}

fn check_disk(path: &Path, description: &Description) -> anyhow::Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut magic = [0u8; 4];
    let is_qcow2 = file.read_exact(&mut magic).is_ok() && magic == MAGIC;
    anyhow::ensure!(is_qcow2, "{}: expected a qcow2 disk, found something else or a truncated file", path.display());
    let length = file.metadata()?.len();
    if let Some(size) = description.size
        && size != length
    {
        bail!("{} is truncated or damaged: expected {size} bytes, found {length}; build it again", path.display());
    }
    if let Some(wanted) = &description.sha256 {
        let found = digest(path)?;
        anyhow::ensure!(
            wanted.eq_ignore_ascii_case(&found),
            "{} is damaged: expected SHA-256 {wanted}, found {found}; build it again",
            path.display()
        );
    }
    Ok(())
}

fn digest(path: &Path) -> anyhow::Result<String> {
    let mut hasher = HashWriter(Sha256::new());
    io::copy(&mut File::open(path)?, &mut hasher).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hasher.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(folder: &Path, content: &[u8], description: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(DISK), [MAGIC, content].concat()).unwrap();
        fs::write(folder.join(DESCRIPTION), description).unwrap();
    }

    #[test]
    fn an_image_is_placed_once_and_never_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (images, source) = (folder.path().join("images"), folder.path().join("tiny"));
        fs::create_dir(&images).unwrap();
        image(&source, b"one", r#"{"name":"tiny.1-0.1"}"#);
        // Remains of an interrupted import.
        fs::create_dir(images.join(".import-tiny.1-0.1-7")).unwrap();
        assert_eq!(import(&images, &source).unwrap(), Imported::New("tiny.1-0.1".into()));
        assert!(!images.join(".import-tiny.1-0.1-7").exists());
        assert_eq!(import(&images, &source).unwrap(), Imported::Same("tiny.1-0.1".into()));
        assert_eq!(fs::metadata(images.join("tiny.1-0.1/disk.qcow2")).unwrap().permissions().mode() & 0o777, 0o644);
        image(&source, b"two", r#"{"name":"tiny.1-0.1","x":1}"#);
        assert!(import(&images, &source).unwrap_err().to_string().contains("with another content"));
        assert_eq!(import_all(&images, folder.path()).unwrap_err().to_string().matches("tiny").count(), 2);
    }

    #[test]
    fn damaged_images_are_named_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (images, source) = (folder.path().join("images"), folder.path().join("x"));
        fs::create_dir(&images).unwrap();
        for (description, want) in [
            (r#"{"name":"../x"}"#, "x/image.json"),
            ("{", "expected JSON"),
            (r#"{"name":"x","size":99}"#, "expected 99 bytes, found 7"),
            (r#"{"name":"x","sha256":"00"}"#, "is damaged"),
        ] {
            image(&source, b"one", description);
            let text = format!("{:#}", import(&images, &source).unwrap_err());
            assert!(text.contains(want), "{description}: {text}");
        }
        fs::write(source.join(DISK), "QF").unwrap();
        fs::write(source.join(DESCRIPTION), "{}").unwrap();
        assert!(import(&images, &source).unwrap_err().to_string().contains("expected a qcow2 disk"));
        assert!(import(&images, &folder.path().join("missing")).is_err());
        assert!(!images.join("x").exists());
    }
}
