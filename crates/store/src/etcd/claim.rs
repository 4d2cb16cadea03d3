//! The claim on a store: the key `<prefix>/owner`, which expires with its lease unless its holder renews it.
//!
//! ```text
//!  free   ──── claim ────▶ held ── renewed ──┐      the revision that wrote the key stands in every
//!    ▲                     │ │ ◀─────────────┘      transaction: a holder that lost it writes nothing
//!    ├── released ─────────┘ │                      any more, however late its request comes
//!    ├── not renewed in time ┘
//!    └── (taken over at once by the holder of the former holder's lock: then that one is dead)
//! ```
//! The lock is a kernel lock on a folder of the instance, and ends with its process. It is identified by boot, device and inode,
//! so that a copy of the folder, another machine or another boot is another owner.

use std::fmt;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;

use super::proto;

/// The prefix of a claim, which names its format.
const FORMAT: &str = "evroc-owner/1";

/// Returns the key of the claim.
pub(super) fn key(prefix: &str) -> Bytes {
    format!("{prefix}/owner").into()
}

/// The owner of a store. Everything but the lock is for messages only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The instance's name.
    pub instance: Option<String>,
    host: String,
    process: String,
    since: String,
    /// The lock that the owner holds while it runs.
    lock: Option<String>,
}

impl Owner {
    /// Returns this process as an owner.
    pub fn new(instance: Option<String>, lock: Option<&FolderLock>, now: Timestamp) -> Self {
        Owner {
            instance,
            host: kernel("hostname").unwrap_or_else(|| "an unknown host".to_owned()),
            process: std::process::id().to_string(),
            since: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            lock: lock.map(|lock| lock.name.clone()),
        }
    }

    /// Encodes the owner for etcd.
    pub fn encode(&self) -> Bytes {
        let Owner { instance, host, process, since, lock } = self;
        let fields = [
            ("instance", instance.as_ref()),
            ("host", Some(host)),
            ("process", Some(process)),
            ("since", Some(since)),
            ("lock", lock.as_ref()),
        ];
        let mut text = format!("{FORMAT}\n");
        for (name, value) in fields {
            if let Some(value) = value {
                text.push_str(&format!("{name} {value}\n"));
            }
        }
        text.into()
    }

    /// Decodes an owner from etcd. Missing or unreadable parts are unknown, and the owner then counts as another one.
    pub fn decode(value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(value);
        let mut lines = text.lines();
        let is_known = lines.next() == Some(FORMAT);
        let fields: Vec<(&str, &str)> = lines.filter(|_| is_known).filter_map(|line| line.split_once(' ')).collect();
        let field = |name: &str| {
            let value = fields.iter().find(|(field, _)| *field == name)?.1;
            Some(value.chars().filter(|c| !c.is_control()).collect::<String>())
        };
        let known = |name: &str| field(name).unwrap_or_else(|| "unknown".to_owned());
        Owner {
            instance: field("instance"),
            host: known("host"),
            process: known("process"),
            since: known("since"),
            lock: field("lock"),
        }
    }

    /// Whether this owner, which holds its lock, has the same lock as `former`: then the former process has ended.
    pub fn succeeds(&self, former: &Owner) -> bool {
        self.lock.is_some() && self.lock == former.lock
    }

    /// Whether `other` may be this instance before a reboot. Its claim is not taken over, but it is worth waiting for its end.
    pub fn may_have_been(&self, other: &Owner) -> bool {
        self.instance.is_some() && (&self.instance, &self.host) == (&other.instance, &other.host)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(instance) = &self.instance {
            write!(f, "instance {instance}, ")?;
        }
        write!(f, "process {} on {} since {}", self.process, self.host, self.since)
    }
}

/// A lock on a folder, held until dropped and released by the kernel when the process ends.
pub(super) struct FolderLock {
    name: String,
    _held: File,
}

/// The outcome of locking a folder.
pub(super) enum Locking {
    Locked(FolderLock),
    /// Another process holds it.
    Held,
    /// It cannot be locked or identified.
    Impossible(std::io::Error),
}

impl FolderLock {
    pub fn take(folder: &Path) -> Locking {
        let opened = File::open(folder).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = match opened {
            Ok(opened) => opened,
            Err(error) => return Locking::Impossible(error),
        };
        let Some(boot) = kernel("random/boot_id") else {
            return Locking::Impossible(std::io::Error::other("the kernel does not name its boot"));
        };
        match file.try_lock() {
            Ok(()) => {
                let name = format!("{boot}/{:x}:{}", metadata.dev(), metadata.ino());
                Locking::Locked(FolderLock { name, _held: file })
            }
            Err(TryLockError::WouldBlock) => Locking::Held,
            Err(TryLockError::Error(error)) => Locking::Impossible(error),
        }
    }
}

/// Reads a kernel setting.
fn kernel(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The decision about a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Claim the store, even if another claim exists.
    Claim,
    /// Wait for the end of the claim, then decide again.
    Wait(Owner),
    /// The store belongs to another owner.
    Refuse(Owner),
}

/// Decides for `own`, which may have waited before.
pub(super) fn decide(own: &Owner, claim: Option<&proto::KeyValue>, has_waited: bool) -> Decision {
    let Some(claim) = claim else { return Decision::Claim };
    let holder = Owner::decode(&claim.value);
    if own.succeeds(&holder) {
        Decision::Claim
    } else if own.may_have_been(&holder) && !has_waited {
        Decision::Wait(holder)
    } else {
        Decision::Refuse(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(instance: &str, host: &str, lock: Option<&str>) -> Owner {
        Owner {
            instance: Some(instance.to_owned()),
            host: host.to_owned(),
            process: "7".to_owned(),
            since: "2026-01-02T03:04:05Z".to_owned(),
            lock: lock.map(str::to_owned),
        }
    }

    fn claim(owner: &Owner) -> proto::KeyValue {
        proto::KeyValue { value: owner.encode(), ..Default::default() }
    }

    #[test]
    fn an_owner_comes_back_as_it_was() {
        for owner in [owner("a", "h", Some("boot/1:2")), owner("a b", "h", None)] {
            assert_eq!(Owner::decode(&owner.encode()), owner);
        }
        let text = owner("a", "h", None).to_string();
        assert_eq!(text, "instance a, process 7 on h since 2026-01-02T03:04:05Z");
    }

    #[test]
    fn only_the_holder_of_the_same_lock_takes_over() {
        let me = owner("a", "h", Some("boot/1:2"));
        let refuse = |holder: &Owner| Decision::Refuse(holder.clone());
        let wait = |holder: &Owner| Decision::Wait(holder.clone());
        let rebooted = owner("a", "h", Some("later/1:2"));
        let unlocked = owner("a", "h", None);
        let elsewhere = owner("a", "other", Some("later/1:2"));
        let another = owner("b", "h", Some("boot/1:3"));
        for (what, holder, expected) in [
            ("its former process", &me, Decision::Claim),
            ("renamed since", &owner("z", "h", Some("boot/1:2")), Decision::Claim),
            ("before the machine was restarted", &rebooted, wait(&rebooted)),
            ("no lock is not the same lock", &unlocked, wait(&unlocked)),
            ("another host", &elsewhere, refuse(&elsewhere)),
            ("another instance", &another, refuse(&another)),
        ] {
            assert_eq!(decide(&me, Some(&claim(holder)), false), expected, "{what}");
        }
        assert_eq!(decide(&me, None, false), Decision::Claim);
        assert_eq!(decide(&me, Some(&claim(&rebooted)), true), refuse(&rebooted));
        assert_eq!(decide(&unlocked, Some(&claim(&unlocked)), true), refuse(&unlocked));
    }

    #[test]
    fn an_identity_that_is_not_recognised_is_other() {
        let me = owner("a", "h", Some("boot/1:2"));
        let newer = String::from_utf8(me.encode().to_vec()).expect("text").replace("owner/1", "owner/2");
        for value in [newer.as_bytes(), b"\xff\x00", b""] {
            let holder = Owner::decode(value);
            assert!(!me.succeeds(&holder) && !me.may_have_been(&holder));
            assert_eq!(holder.to_string(), "process unknown on unknown since unknown");
        }
    }

    #[test]
    fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let other = tempfile::tempdir().expect("temporary folder");
        let name = |locking| match locking {
            Locking::Locked(lock) => (lock.name.clone(), lock),
            Locking::Held => panic!("held"),
            Locking::Impossible(error) => panic!("{error}"),
        };
        let (first, held) = name(FolderLock::take(folder.path()));
        assert!(matches!(FolderLock::take(folder.path()), Locking::Held));
        assert_ne!(name(FolderLock::take(other.path())).0, first);
        drop(held);
        assert_eq!(name(FolderLock::take(folder.path())).0, first);
        assert!(matches!(FolderLock::take(&folder.path().join("none")), Locking::Impossible(_)));
    }
}
