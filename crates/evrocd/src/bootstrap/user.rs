//! The caller's own files: `~/.evroc/<instance>/{kubeconfig,id_ed25519,id_ed25519.pub}`.
//!
//! The caller is who ran `sudo` (SUDO_UID), else root. Root never writes into a folder that another user controls: a symbolic link there
//! would make it write anywhere. For another user a helper process with that user's rights does it (`evrocd user-files`, the wanted files
//! on standard input).

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use evroc_iam::files;
use evroc_iam::identity::{GROUP_OPERATORS, USER_ADMIN};
use evroc_iam::kubeconfig::Kubeconfig;
use evroc_iam::leaf::{self, LeafSpec, OPERATOR_LIFE};
use evroc_iam::{Authority, ssh};
use serde::{Deserialize, Serialize};

use super::{BootstrapError, login};
use crate::instance::{InstanceRecord, Ports, UserFiles};
use crate::status::report;

/// Largest file of a user that is looked at; a kubeconfig of ours has about 5 KB.
const LARGEST: u64 = 1 << 20;

/// The user on whose behalf a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home folder.
    pub home: PathBuf,
}

impl Caller {
    /// The caller of this process: who ran `sudo`, else the process's user.
    pub fn current() -> Self {
        let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let (uid, gid) = match (own.0, number("SUDO_UID"), number("SUDO_GID")) {
            (0, Some(uid), Some(gid)) => (uid, gid),
            _ => own,
        };
        let from_environment = || std::env::var_os("HOME").filter(|_| uid == own.0).map(PathBuf::from);
        // An explicit HOME of root's own wins over the user database: tests and build machines set it.
        let home = from_environment().or_else(|| home_of(uid)).unwrap_or_else(|| PathBuf::from("/root"));
        Self { uid, gid, home }
    }

    /// Returns the folder of the caller's files of an instance.
    pub fn folder(&self, instance: &str) -> PathBuf {
        self.home.join(".evroc").join(instance)
    }
}

/// A user's home folder by the user database, which may be a network's and not only /etc/passwd.
#[allow(unsafe_code)]
fn home_of(uid: u32) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut buffer = vec![0u8; 16 * 1024];
    // SAFETY: `passwd` is plain old data for which all zeros is a valid value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut result = std::ptr::null_mut();
    // SAFETY: all pointers are to live values of this frame; the length is the buffer's.
    let code =
        unsafe { libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr().cast(), buffer.len(), &raw mut result) };
    if code != 0 || result.is_null() || entry.pw_dir.is_null() {
        return None;
    }
    // SAFETY: on success pw_dir is a terminated string inside `buffer`, which is still alive.
    let home = unsafe { std::ffi::CStr::from_ptr(entry.pw_dir) };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(home.to_bytes())))
}

/// The files that the helper is to write.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wanted {
    folder: PathBuf,
    files: Vec<WantedFile>,
    /// With no files: the registry whose login is forgotten too.
    #[serde(default)]
    registry: Option<String>,
}

/// A file for a user.
#[derive(Debug, Serialize, Deserialize)]
pub struct WantedFile {
    /// Its name in the folder.
    pub name: String,
    /// Its text.
    pub content: String,
    /// Its mode bits.
    pub mode: u32,
}

/// The authority that issues certificates, and all that are trusted.
pub struct Trust {
    /// It issues.
    pub authority: Authority,
    /// The certificates of the trusted ones, as PEM.
    pub trusted: String,
}

/// The kubeconfig in `folder`, if the one that is there does not fit any more.
fn kubeconfig(
    record: &InstanceRecord,
    ports: &Ports,
    trust: &Trust,
    folder: &Path,
    now: SystemTime,
) -> Result<Option<WantedFile>, BootstrapError> {
    let Trust { authority, trusted } = trust;
    let kubeconfig = Kubeconfig {
        instance: &record.instance,
        user: USER_ADMIN,
        namespace: "demo",
        api_port: ports.api.port,
        https_port: ports.https.port,
        domain: &record.domain,
        authority_pem: trusted,
    };
    let spec = LeafSpec::client(USER_ADMIN, GROUP_OPERATORS);
    let current = read_small(&folder.join("kubeconfig"));
    let is_good = current.as_deref().and_then(|text| kubeconfig.accepted_leaf(text)).is_some_and(|pem| {
        leaf::why_unfit(authority, &spec, pem.certificate.as_bytes(), pem.key.as_bytes(), now).is_none()
    });
    if is_good {
        return Ok(None);
    }
    let content = kubeconfig.render(&leaf::issue(authority, &spec, OPERATOR_LIFE, now)?);
    Ok(Some(WantedFile { name: "kubeconfig".into(), content, mode: 0o600 }))
}

/// Replaces the kubeconfigs of all users of the instance that do not fit any more; one that its user has removed stays away. Returns a
/// sentence for each.
pub fn refresh_user_files(record: &InstanceRecord, trust: &Trust, now: SystemTime) -> Vec<String> {
    let Some(ports) = &record.ports else { return Vec::new() };
    let mut notes = Vec::new();
    for user in &record.user_files {
        let path = user.folder.join("kubeconfig");
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        let written = kubeconfig(record, ports, trust, &user.folder, now).and_then(|file| {
            let Some(file) = file else { return Ok(false) };
            let wanted = Wanted { folder: user.folder.clone(), files: vec![file], registry: None };
            as_user(record, user.uid, user.gid, &wanted).map(|()| true)
        });
        match written {
            Ok(true) => notes.push(format!("wrote {}", path.display())),
            Ok(false) => {}
            // It is one user's; the cloud goes on for all others.
            Err(error) => notes.push(format!("warning: {:#}", anyhow::Error::from(error))),
        }
    }
    notes
}

/// Makes sure that `caller` has a kubeconfig that fits the instance and an SSH key pair. Returns the folder, for the record.
pub fn ensure_user_files(
    record: &InstanceRecord,
    ports: &Ports,
    trust: &Trust,
    caller: &Caller,
    now: SystemTime,
) -> Result<UserFiles, BootstrapError> {
    let folder = caller.folder(&record.instance);
    let mut files: Vec<WantedFile> = kubeconfig(record, ports, trust, &folder, now)?.into_iter().collect();
    let comment = format!("evroc@{}", record.instance);
    let private = read_small(&folder.join("id_ed25519"));
    match private.as_deref().map(|text| ssh::public_line_of(text, &comment)) {
        // A key that is not ours to understand is the user's: leave it.
        Some(None) => {}
        Some(Some(public)) => {
            if read_small(&folder.join("id_ed25519.pub")).is_none() {
                files.push(WantedFile { name: "id_ed25519.pub".into(), content: public, mode: 0o644 });
            }
        }
        None => {
            let pair = ssh::generate(&comment)?;
            files.push(WantedFile { name: "id_ed25519".into(), content: pair.private, mode: 0o600 });
            files.push(WantedFile { name: "id_ed25519.pub".into(), content: pair.public, mode: 0o644 });
        }
    }
    if !files.is_empty() {
        let wanted = Wanted { folder: folder.clone(), files, registry: None };
        as_user(record, caller.uid, caller.gid, &wanted)?;
    }
    Ok(UserFiles { uid: caller.uid, gid: caller.gid, folder })
}

/// Writes files into a folder of the caller's, which is made if it is absent; files of the same names are replaced.
pub fn write_files(
    record: &InstanceRecord,
    caller: &Caller,
    folder: &Path,
    files: Vec<WantedFile>,
) -> Result<(), BootstrapError> {
    let wanted = Wanted { folder: folder.to_owned(), files, registry: None };
    as_user(record, caller.uid, caller.gid, &wanted)
}

/// Removes what [`ensure_user_files`] and a login to the registry wrote, and the folders when that empties them.
pub fn remove_user_files(record: &InstanceRecord, user: &UserFiles) -> Result<(), BootstrapError> {
    let registry = record.ports.map(|ports| report::urls(&record.domain, ports.api.port, ports.https.port).registry);
    let wanted = Wanted { folder: user.folder.clone(), files: Vec::new(), registry };
    as_user(record, user.uid, user.gid, &wanted)
}

fn as_user(record: &InstanceRecord, uid: u32, gid: u32, wanted: &Wanted) -> Result<(), BootstrapError> {
    let fail = |reason: String| BootstrapError::User { folder: wanted.folder.clone(), uid, reason };
    if rustix::process::getuid().as_raw() == uid {
        return apply(wanted).map_err(|error| fail(error.to_string()));
    }
    let run = || {
        let mut child = Command::new(record.layout().program())
            .arg("user-files")
            .uid(uid)
            .gid(gid)
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(&serde_json::to_vec(wanted)?)?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The helper's whole work: reads a [`Wanted`] from `input` and carries it out with the rights of the process.
pub fn write_for_user(input: &mut dyn Read) -> io::Result<()> {
    let mut text = String::new();
    input.read_to_string(&mut text)?;
    apply(&serde_json::from_str(&text)?)
}

/// Writes the wanted files; without any, removes ours.
fn apply(wanted: &Wanted) -> io::Result<()> {
    let folder = &wanted.folder;
    if wanted.files.is_empty() {
        // The last two are what `evroc compute vm ssh` has ssh write.
        for name in ["kubeconfig", "id_ed25519", "id_ed25519.pub", "known_hosts", "known_hosts.old"] {
            match fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Only when empty: what else a user put there stays.
        let _ = fs::remove_dir(folder);
        if let Some(parent) = folder.parent() {
            let _ = fs::remove_dir(parent);
        }
        // The folder is `<home>/.evroc/<instance>`.
        if let (Some(home), Some(registry)) = (folder.ancestors().nth(2), &wanted.registry) {
            login::forget(home, registry)?;
        }
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if fs::metadata(folder)?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("{} belongs to another user", folder.display())));
    }
    files::remove_leftovers(folder).map_err(to_io)?;
    for file in &wanted.files {
        files::write_atomic(&folder.join(&file.name), file.content.as_bytes(), file.mode, None).map_err(to_io)?;
    }
    Ok(())
}

fn to_io(error: files::FileError) -> io::Error {
    io::Error::new(error.source.kind(), format!("{error}: {}", error.source))
}

/// A regular file's text, if it is small; `None` otherwise. Links are not followed.
fn read_small(path: &Path) -> Option<String> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let found = file.metadata().ok()?;
    if !found.is_file() || found.len() > LARGEST {
        return None;
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_written_for_their_user_only_and_removed_again() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".evroc/x");
        let file = WantedFile { name: "kubeconfig".into(), content: "secret".into(), mode: 0o600 };
        let wanted = serde_json::to_vec(&Wanted { folder: folder.clone(), files: vec![file], registry: None }).unwrap();
        write_for_user(&mut wanted.as_slice()).unwrap();
        fs::write(folder.join("known_hosts"), "").unwrap();
        assert_eq!(fs::metadata(folder.join("kubeconfig")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(folder.join("mine"), "").unwrap();
        let nothing = serde_json::to_vec(&Wanted { folder: folder.clone(), files: vec![], registry: None }).unwrap();
        write_for_user(&mut nothing.as_slice()).unwrap();
        assert!(!folder.join("kubeconfig").exists() && folder.join("mine").exists());
        fs::remove_file(folder.join("mine")).unwrap();
        write_for_user(&mut nothing.as_slice()).unwrap();
        assert!(!home.path().join(".evroc").exists());
    }

    #[test]
    fn links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("target"), "x").unwrap();
        std::os::unix::fs::symlink(home.path().join("target"), home.path().join("link")).unwrap();
        assert_eq!(read_small(&home.path().join("link")), None);
        assert_eq!(read_small(&home.path().join("target")).as_deref(), Some("x"));
    }

    #[test]
    fn root_has_a_home() {
        assert!(home_of(0).is_some());
        assert!(home_of(4_000_000_000).is_none());
    }
}
