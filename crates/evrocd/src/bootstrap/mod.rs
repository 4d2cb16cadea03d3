//! Everything that must stand before roles start: folders with owners and modes, the copy of the program, certificates and keys, and the
//! caller's own files. Each step looks first and does nothing when all is well, so that an interrupted first start is simply finished.

mod login;
mod pki;
mod program;
mod user;

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use evroc_iam::files::{self, FileError, Owner};

use crate::instance::{InstanceRecord, Layout};
use crate::roles::EtcdSettings;

pub use pki::{carry_out, ensure_certificates, pki_files, resume_rotation, role_leaves};
pub use program::{digest_of_self, install_program};
pub use user::{
    Caller, Trust, WantedFile, ensure_user_files, refresh_user_files, remove_user_files, write_files, write_for_user,
};

/// The reason why the preparation failed.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] evroc_iam::AuthorityError),
    /// A certificate.
    #[error(transparent)]
    Leaf(#[from] evroc_iam::LeafError),
    /// The token key.
    #[error(transparent)]
    Token(#[from] evroc_iam::TokenError),
    /// The authority's replacement.
    #[error(transparent)]
    Rotation(#[from] evroc_iam::rotation::RotationError),
    /// The caller's SSH key.
    #[error(transparent)]
    Ssh(#[from] evroc_iam::ssh::NoRandom),
    /// The caller's files.
    #[error("cannot write {} as user {uid}: {reason}", folder.display())]
    User {
        /// `~/.evroc/<instance>`.
        folder: std::path::PathBuf,
        /// The user.
        uid: u32,
        /// The helper process's message.
        reason: String,
    },
}

/// Name of this host in the API: the kernel's host name, made to fit an object's name.
pub fn host_name() -> String {
    let raw = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    object_name(raw.trim())
}

fn object_name(raw: &str) -> String {
    let mut name: String = raw
        .to_ascii_lowercase()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' })
        .take(63)
        .collect();
    while name.contains("..") {
        name = name.replace("..", ".");
    }
    let trimmed = name.trim_matches(|letter| letter == '-' || letter == '.');
    if trimmed.is_empty() { "host".to_owned() } else { trimmed.replace(".-", ".").replace("-.", ".") }
}

/// Makes the folders of an instance, with their owners and modes, and clears what interrupted writes left in them.
pub fn ensure_folders(record: &InstanceRecord) -> Result<Vec<String>, BootstrapError> {
    let layout = record.layout();
    let root = Owner { uid: 0, gid: 0 };
    let control = Owner::same(record.uids.control());
    let edge = Owner::same(record.uids.edge());
    let state = &layout.state;
    let mut notes = Vec::new();
    for (path, mode, owner) in [
        (state.clone(), 0o755, root),
        (state.join("bin"), 0o755, root),
        (state.join("pki"), 0o755, root),
        (layout.authority(), 0o700, root),
        (state.join("log"), 0o755, root),
        (state.join("control"), 0o700, control),
        (state.join("control/pki"), 0o700, control),
        (state.join("control/store"), 0o700, control),
        (state.join("control/registry"), 0o700, control),
        (state.join("edge"), 0o700, edge),
        (state.join("node"), 0o711, root),
        (state.join("node/images"), 0o755, root),
        (state.join("node/volumes"), 0o711, root),
        (state.join("node/machines"), 0o711, root),
        (state.join("node/containers"), 0o711, root),
        (state.join("node/shims"), 0o711, root),
        (layout.run.clone(), 0o755, root),
        (layout.run.join("shim"), 0o711, root),
    ] {
        ensure_folder(&path, mode, owner)?;
    }
    for folder in ["", "bin", "pki", "pki/authority", "control/pki", "control", "edge", "node"] {
        for path in files::remove_leftovers(&state.join(folder))? {
            notes.push(format!("removed {}, left by an interrupted write", path.display()));
        }
    }
    Ok(notes)
}

fn ensure_folder(path: &Path, mode: u32, owner: Owner) -> Result<(), FileError> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(FileError::new("create folder", path, source)),
    }
    // Some are in folders of unprivileged roles, which may put a link in their place at any moment: what is changed is what was opened.
    let folder = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|source| FileError::new("use as folder", path, source))?;
    let found = folder.metadata().map_err(|source| FileError::new("look at", path, source))?;
    if (found.uid(), found.gid()) != (owner.uid, owner.gid) {
        fchown(&folder, Some(owner.uid), Some(owner.gid))
            .map_err(|source| FileError::new("change the owner of", path, source))?;
    }
    if found.permissions().mode() & 0o7777 != mode {
        folder
            .set_permissions(fs::Permissions::from_mode(mode))
            .map_err(|source| FileError::new("change the mode of", path, source))?;
    }
    Ok(())
}

/// The folder of copies of the etcd's certificates and key, which control may read: the operator's own files may be root's.
pub fn installed_etcd(etcd: &EtcdSettings, pki: &Path) -> EtcdSettings {
    let copy = |given: &Option<std::path::PathBuf>, name: &str| given.as_ref().map(|_| pki.join(name));
    EtcdSettings {
        address: etcd.address.clone(),
        ca: copy(&etcd.ca, "etcd-ca.crt"),
        certificate: copy(&etcd.certificate, "etcd.crt"),
        key: copy(&etcd.key, "etcd.key"),
    }
}

/// Copies the etcd's certificates and key to where control reads them.
pub fn install_etcd_files(record: &InstanceRecord, etcd: &EtcdSettings) -> Result<(), BootstrapError> {
    let copies = installed_etcd(etcd, &record.layout().role("control").join("pki"));
    let owner = Owner::same(record.uids.control());
    for (from, to) in [(&etcd.ca, copies.ca), (&etcd.certificate, copies.certificate), (&etcd.key, copies.key)] {
        let (Some(from), Some(to)) = (from, to) else { continue };
        let bytes = fs::read(from).map_err(|source| FileError::new("read", from, source))?;
        files::write_atomic(&to, &bytes, 0o600, Some(owner))?;
    }
    Ok(())
}

/// Opens a log file for appending, owned by the role that writes it.
pub fn open_log(layout: &Layout, name: &str, owner: Owner) -> Result<fs::File, FileError> {
    let path = layout.log(name);
    let file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(|source| FileError::new("open", &path, source))?;
    fchown(&file, Some(owner.uid), Some(owner.gid))
        .map_err(|source| FileError::new("change the owner of", &path, source))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn a_link_in_place_of_a_folder_changes_nothing_behind_it() {
        let root = tempfile::tempdir().unwrap();
        let owner = Owner { uid: 4711, gid: 4711 };
        let (folder, link) = (root.path().join("folder"), root.path().join("link"));
        ensure_folder(&folder, 0o711, owner).unwrap();
        ensure_folder(&folder, 0o700, owner).unwrap();
        let seen = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            (found.uid(), found.gid(), found.permissions().mode() & 0o7777)
        };
        assert_eq!(seen(&folder), (4711, 4711, 0o700));
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(ensure_folder(&link, 0o777, Owner { uid: 0, gid: 0 }).is_err());
        assert_eq!(seen(&folder), (4711, 4711, 0o700));
        fs::write(root.path().join("file"), "").unwrap();
        assert!(ensure_folder(&root.path().join("file"), 0o777, owner).is_err());
    }

    #[test]
    fn host_names_become_object_names() {
        for (raw, want) in [
            ("vm", "vm"),
            ("Build-Host.Example.ORG", "build-host.example.org"),
            ("my_host", "my-host"),
            ("-x-", "x"),
            ("", "host"),
            ("(none)", "none"),
            ("a..b", "a.b"),
        ] {
            assert_eq!(object_name(raw), want, "{raw:?}");
        }
    }
}
