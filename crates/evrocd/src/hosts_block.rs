//! The instance's marked block in /etc/hosts: the fixed names (`api.`, `iam.`, `console.`, `registry.` under the domain) on loopback.
//!
//! Everything outside the block stays as it is, byte for byte. Edits by several instances are one after another (machine-wide lock). The
//! file is replaced by a rename; where it is a bind mount, as in containers, it is written in place.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use evroc_iam::files::{self, FileError, Owner};
use evroc_iam::leaf::FIXED_NAMES;

use crate::instance::{InstanceName, registry_lock};

/// A hosts file.
pub struct HostsFile {
    path: PathBuf,
}

impl HostsFile {
    /// The system's.
    pub fn system() -> Self {
        Self { path: PathBuf::from("/etc/hosts") }
    }

    /// Makes sure that the block exists and is correct.
    pub fn ensure(&self, instance: &InstanceName, domain: &str) -> Result<(), FileError> {
        self.edit(instance, Some(&block(instance, domain)))
    }

    /// Makes sure that the block is absent.
    pub fn remove(&self, instance: &InstanceName) -> Result<(), FileError> {
        self.edit(instance, None)
    }

    fn edit(&self, instance: &InstanceName, block: Option<&str>) -> Result<(), FileError> {
        let _lock = registry_lock("hosts")?;
        self.edit_locked(instance, block)
    }

    fn edit_locked(&self, instance: &InstanceName, block: Option<&str>) -> Result<(), FileError> {
        // A link is followed: the file that it names is changed, the link stays.
        let path = match fs::canonicalize(&self.path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.path.clone(),
            Err(source) => return Err(FileError::new("find", &self.path, source)),
        };
        let old = files::read_if_exists(&path)?;
        let text = String::from_utf8_lossy(old.as_deref().unwrap_or_default()).into_owned();
        let new = with_block(&text, instance, block);
        if new == text {
            return Ok(());
        }
        replace(&path, new.as_bytes())
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let (mode, owner) = match fs::metadata(path) {
        Ok(found) => (found.permissions().mode() & 0o7777, Some(Owner { uid: found.uid(), gid: found.gid() })),
        Err(_) => (0o644, None),
    };
    match files::write_atomic(path, bytes, mode, owner) {
        Ok(()) => Ok(()),
        // A mount point cannot be renamed over; a folder may be read-only while the mounted file is not.
        Err(_) if path.exists() => fs::write(path, bytes).map_err(|source| FileError::new("write", path, source)),
        Err(error) => Err(error),
    }
}

fn markers(instance: &InstanceName) -> (String, String) {
    (
        format!("# evroc {instance} begin: written by evrocd, removed by `evrocd down --purge`"),
        format!("# evroc {instance} end"),
    )
}

fn block(instance: &InstanceName, domain: &str) -> String {
    let (begin, end) = markers(instance);
    let names: Vec<String> = FIXED_NAMES.iter().map(|name| format!("{name}.{domain}")).collect();
    let names = names.join(" ");
    format!("{begin}\n127.0.0.1 {names}\n::1 {names}\n{end}\n")
}

/// The file's text with the instance's block replaced, added at the end, or (without a block) removed. A block without its end, left by a
/// careless hand, reaches only as far as lines that look like ours.
fn with_block(text: &str, instance: &InstanceName, block: Option<&str>) -> String {
    let (begin, end) = markers(instance);
    let begin = begin.split(':').next().unwrap_or_default().to_owned();
    let mut result = String::with_capacity(text.len() + 256);
    let mut placed = false;
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let word = line.trim_end();
        if word.starts_with(&begin) {
            inside = true;
            if let (Some(block), false) = (block, placed) {
                result.push_str(block);
                placed = true;
            }
            continue;
        }
        if inside {
            if word == end {
                inside = false;
                continue;
            }
            if word.starts_with("127.0.0.1 api.") || word.starts_with("::1 api.") {
                continue;
            }
            inside = false;
        }
        result.push_str(line);
    }
    if let (Some(block), false) = (block, placed) {
        if !result.is_empty() && !result.ends_with('\n') {
            result.push('\n');
        }
        result.push_str(block);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> InstanceName {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_is_added_changed_and_removed_and_the_rest_stays() {
        let old = "127.0.0.1 localhost\n# mine\n10.1.2.3 nas";
        let a = name("a");
        let with_a = with_block(old, &a, Some(&block(&a, "evroc.localhost")));
        assert!(with_a.starts_with("127.0.0.1 localhost\n# mine\n10.1.2.3 nas\n# evroc a begin"));
        assert!(with_a.contains("\n127.0.0.1 api.evroc.localhost iam.evroc.localhost console.evroc.localhost registry.evroc.localhost\n::1 api."));
        assert_eq!(with_block(&with_a, &a, Some(&block(&a, "evroc.localhost"))), with_a);
        // Another instance whose name begins the same way is another.
        let ab = name("ab");
        let both = with_block(&with_a, &ab, Some(&block(&ab, "other.example")));
        let changed = with_block(&both, &a, Some(&block(&a, "new.example")));
        assert!(
            changed.contains("api.new.example")
                && changed.contains("api.other.example")
                && !changed.contains("evroc.localhost")
        );
        assert_eq!(with_block(&with_block(&changed, &a, None), &ab, None), format!("{old}\n"));
        assert_eq!(with_block(old, &a, None), old);
        assert_eq!(with_block("", &a, None), "");
    }

    #[test]
    fn half_a_block_takes_nothing_else_with_it() {
        let a = name("a");
        let damaged = "# evroc a begin: x\n127.0.0.1 api.evroc.localhost\n10.1.2.3 nas\n";
        assert_eq!(with_block(damaged, &a, None), "10.1.2.3 nas\n");
        let twice = format!("{0}{0}", block(&a, "x.y"));
        assert_eq!(with_block(&twice, &a, Some(&block(&a, "x.y"))), block(&a, "x.y"));
    }

    #[test]
    fn mode_and_link_stay() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        fs::write(&real, "127.0.0.1 localhost\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o664)).unwrap();
        std::os::unix::fs::symlink(&real, folder.path().join("hosts")).unwrap();
        let hosts = HostsFile { path: folder.path().join("hosts") };
        hosts.edit_locked(&name("a"), Some("# evroc a begin\n# evroc a end\n")).unwrap();
        assert!(fs::symlink_metadata(folder.path().join("hosts")).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o664);
        assert!(fs::read_to_string(&real).unwrap().ends_with("# evroc a end\n"));
    }
}
