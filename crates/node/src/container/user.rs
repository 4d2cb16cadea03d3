//! The user of a container: the image's USER, which must not be root.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// A `passwd` or `group` larger than this is not read.
const MAX_FILE: u64 = 1 << 20;

/// The ids that a container's first process gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Never 0.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// Groups that list the user, when USER names no group.
    pub additional_gids: Vec<u32>,
    /// From the image's `/etc/passwd`, for `$HOME`.
    pub home: Option<String>,
}

/// The reason why an image may not run. Display completes "image "x" …" for the reader; only a new image helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No USER, or one that means root.
    #[error("runs as root ({found}): evroc Run needs a non-root user; add \"USER 65532:65532\" to the Dockerfile")]
    Root {
        /// The image's USER.
        found: String,
    },
    /// A name that the image does not know.
    #[error(
        "has USER {user:?}, but {file} in the image has no {name:?}: use a number, as in \"USER 65532:65532\", or add the entry"
    )]
    Unknown {
        /// The whole of USER.
        user: String,
        /// The file that was searched.
        file: &'static str,
        /// The name that is missing.
        name: String,
    },
}

/// Refuses root without looking at the image's files, so that the refusal comes before any layer is fetched.
pub fn refuse_obvious_root(user: &str) -> Result<(), UserError> {
    let name = user.split(':').next().unwrap_or_default();
    if name.is_empty() {
        return Err(UserError::Root { found: "USER is not set".into() });
    }
    if name == "root" || name.parse::<u32>() == Ok(0) {
        return Err(UserError::Root { found: format!("USER is {user:?}") });
    }
    Ok(())
}

/// Resolves USER (`user`, `user:group`; names or numbers) with the image's own files below `root`.
pub fn resolve(user: &str, root: &Path) -> Result<User, UserError> {
    refuse_obvious_root(user)?;
    let read = |path| read_in_root(root, path).unwrap_or_default();
    resolve_with(user, &read("etc/passwd"), &read("etc/group"))
}

fn resolve_with(user: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) if !group.is_empty() => (name, Some(group)),
        Some((name, _)) => (name, None),
        None => (user, None),
    };
    let number = parse_id(name);
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 4 && (fields[0] == name || (number.is_some() && parse_id(fields[2]) == number)));
    let unknown = |file, name: &str| UserError::Unknown { user: user.into(), file, name: name.into() };
    let uid = match (number, &entry) {
        (Some(uid), _) => uid,
        (None, Some(fields)) => parse_id(fields[2]).ok_or_else(|| unknown("/etc/passwd", name))?,
        (None, None) => return Err(unknown("/etc/passwd", name)),
    };
    if uid == 0 {
        return Err(UserError::Root { found: format!("USER is {user:?}, which is uid 0 in the image's /etc/passwd") });
    }
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3);
    let (gid, additional_gids) = match group_name {
        Some(group_name) => {
            let gid = parse_id(group_name)
                .or_else(|| groups().find(|fields| fields[0] == group_name).and_then(|fields| parse_id(fields[2])))
                .ok_or_else(|| unknown("/etc/group", group_name))?;
            (gid, Vec::new())
        }
        None => {
            let gid = entry.as_ref().and_then(|fields| parse_id(fields[3])).unwrap_or(0);
            let login = entry.as_ref().map(|fields| fields[0]);
            let listed = groups().filter(|fields| {
                login.is_some_and(|login| fields.get(3).is_some_and(|all| all.split(',').any(|one| one == login)))
            });
            (gid, listed.filter_map(|fields| parse_id(fields[2])).filter(|other| *other != gid).collect())
        }
    };
    let home = entry.and_then(|fields| fields.get(5).map(|home| (*home).to_owned())).filter(|home| !home.is_empty());
    Ok(User { uid, gid, additional_gids, home })
}

/// A user or group number; the highest one is no id but "unchanged" to the kernel.
fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// Reads a file of the image as the container would see it: links are followed, but not out of `root`.
fn read_in_root(root: &Path, path: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let root: OwnedFd = rustix::fs::openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    // NONBLOCK: the image may have a FIFO at this path.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(root, path, flags | OFlags::NONBLOCK, Mode::empty(), resolve).ok()?;
    let file = std::fs::File::from(file);
    file.metadata().ok().filter(|meta| meta.is_file())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\ntoor:x:0:0::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napps:x:1001:\nextra:x:2000:other,app\n";

    #[test]
    fn users_are_resolved_as_docker_does() {
        let user = |uid, gid, more: &[u32], home: Option<&str>| User {
            uid,
            gid,
            additional_gids: more.into(),
            home: home.map(Into::into),
        };
        for (text, want) in [
            ("65532:65532", user(65532, 65532, &[], None)),
            ("65532", user(65532, 0, &[], None)),
            ("1000", user(1000, 1001, &[2000], Some("/home/app"))),
            ("app", user(1000, 1001, &[2000], Some("/home/app"))),
            ("app:", user(1000, 1001, &[2000], Some("/home/app"))),
            ("app:extra", user(1000, 2000, &[], Some("/home/app"))),
            ("app:7", user(1000, 7, &[], Some("/home/app"))),
            ("5:extra", user(5, 2000, &[], None)),
        ] {
            assert_eq!(resolve_with(text, PASSWD, GROUP), Ok(want), "{text}");
        }
    }

    #[test]
    fn root_is_refused_by_every_name() {
        for (text, want) in [
            (
                "",
                "runs as root (USER is not set): evroc Run needs a non-root user; add \"USER 65532:65532\" to the Dockerfile",
            ),
            (
                "0",
                "runs as root (USER is \"0\"): evroc Run needs a non-root user; add \"USER 65532:65532\" to the Dockerfile",
            ),
            (
                "root:app",
                "runs as root (USER is \"root:app\"): evroc Run needs a non-root user; add \"USER 65532:65532\" to the Dockerfile",
            ),
        ] {
            assert_eq!(refuse_obvious_root(text).unwrap_err().to_string(), want);
        }
        assert!(refuse_obvious_root(":5").is_err() && refuse_obvious_root("00").is_err());
        assert!(matches!(resolve_with("toor", PASSWD, GROUP), Err(UserError::Root { .. })));
    }

    #[test]
    fn unknown_names_are_reported() {
        assert_eq!(
            resolve_with("nginx", PASSWD, GROUP).unwrap_err().to_string(),
            "has USER \"nginx\", but /etc/passwd in the image has no \"nginx\": use a number, as in \"USER 65532:65532\", or add the entry"
        );
        assert!(matches!(resolve_with("app:web", PASSWD, GROUP), Err(UserError::Unknown { file: "/etc/group", .. })));
        assert!(matches!(resolve_with("4294967295", PASSWD, GROUP), Err(UserError::Unknown { .. })));
    }

    #[test]
    fn image_links_do_not_lead_to_the_hosts_files() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("etc/passwd")).unwrap();
        assert_eq!(read_in_root(root.path(), "etc/passwd"), None);
        std::fs::write(root.path().join("etc/hostname"), PASSWD).unwrap();
        assert_eq!(resolve("app", root.path()).map(|user| user.uid), Ok(1000));
    }
}
