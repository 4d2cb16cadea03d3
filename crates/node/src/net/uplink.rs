//! The way out of VPCs.
//!
//! Each VPC that has a way out has a pair of links to the uplink's namespace, with two addresses of the transit range of their own;
//! inside the VPC everything leaves with its address on that pair (NAT), so VPCs with equal addresses do not meet.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::netns::{Netns, NetnsError};
use crate::io::if_present;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The folder with the host's own setting and a file for each instance that changed it. Like the setting, it does not survive a restart
/// of the host.
const FORWARDING: &str = "/run/evroc-forwarding";
const BEFORE: &str = "before.json";
const USER: &str = "user";

/// The way of packets whose destination is outside of their VPC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Uplink {
    /// Nowhere: VPCs have no way out.
    #[default]
    None,
    /// Into a network namespace that is made and routed by someone else: in tests, one that plays the internet.
    Netns(PathBuf),
    /// Through the host, with its addresses.
    Host,
}

/// The host's settings before we changed them.
#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    ip_forward: String,
    boot_id: String,
}

impl Uplink {
    /// The namespace of the outer ends of the links; `None` without a way out.
    pub fn netns(&self) -> Result<Option<Netns>, NetnsError> {
        match self {
            Self::None => Ok(None),
            Self::Netns(path) => Netns::open(path).map(Some),
            Self::Host => Netns::current().map(Some),
        }
    }
}

/// The two addresses of a VPC's pair of links: the outer, then the inner. `slot` counts pairs from the start of the range.
pub fn transit_pair(transit: Ipv4Net, slot: u32) -> (Ipv4Addr, Ipv4Addr) {
    let slots = slots(transit);
    let first = u32::from(transit.network()) + slot % slots * 2;
    (first.into(), (first + 1).into())
}

/// Number of pairs in the range.
pub fn slots(transit: Ipv4Net) -> u32 {
    1 << (31 - u32::from(transit.prefix_len()).min(31))
}

/// Lets the host forward packets for `instance`. The setting before the first instance is kept until the last one takes this
/// back: in `/run/evroc-forwarding/<network namespace>/before.json`, beside a file for each instance.
pub fn allow_forwarding(instance: &str, boot_id: &str) -> io::Result<()> {
    let (folder, _lock) = locked_folder()?;
    let before = folder.join(BEFORE);
    let known = fs::read(&before).ok().and_then(|bytes| serde_json::from_slice::<Recorded>(&bytes).ok());
    let now = fs::read_to_string(IP_FORWARD)?.trim().to_owned();
    // The recorded value is older than the current one, unless the host was restarted since.
    if known.is_none_or(|known| known.boot_id != boot_id) {
        crate::io::remove_tree(&folder)?;
        fs::create_dir_all(&folder)?;
        let recorded = Recorded { ip_forward: now.clone(), boot_id: boot_id.to_owned() };
        let temporary = before.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(&recorded)?)?;
        fs::rename(&temporary, &before)?;
    }
    fs::write(user(&folder, instance), b"")?;
    if now == "1" { Ok(()) } else { fs::write(IP_FORWARD, "1") }
}

/// Whether [`allow_forwarding`] is in effect for `instance`.
pub fn uses_forwarding(instance: &str) -> io::Result<bool> {
    Ok(user(&folder()?, instance).exists())
}

/// Takes [`allow_forwarding`] back; with the last instance the host gets its own value again.
pub fn restore_forwarding(instance: &str, boot_id: &str) -> io::Result<()> {
    let (folder, _lock) = locked_folder()?;
    crate::io::remove_file(&user(&folder, instance))?;
    let is_user = |entry: fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == USER);
    match fs::read_dir(&folder) {
        Ok(entries) => {
            if entries.flatten().any(is_user) {
                return Ok(());
            }
            if let Ok(bytes) = fs::read(folder.join(BEFORE))
                && let Ok(recorded) = serde_json::from_slice::<Recorded>(&bytes)
                && recorded.boot_id == boot_id
            {
                fs::write(IP_FORWARD, recorded.ip_forward)?;
            }
            fs::remove_dir_all(&folder)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match fs::remove_dir(FORWARDING) {
        // Another namespace's folder is in it.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => {
            if_present(removed)?;
            fs::remove_file(lock_path())
        }
    }
}

fn user(folder: &Path, instance: &str) -> PathBuf {
    folder.join(format!("{instance}.{USER}"))
}

/// The folder of the calling thread's network namespace.
fn folder() -> io::Result<PathBuf> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(Path::new(FORWARDING).join(namespace.to_string()))
}

/// The folder, and the lock that keeps other instances out of it.
fn locked_folder() -> io::Result<(PathBuf, fs::File)> {
    loop {
        let lock = fs::File::create(lock_path())?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        // The previous owner of the lock may have removed the file.
        let is_current =
            fs::metadata(lock_path()).is_ok_and(|now| lock.metadata().is_ok_and(|own| own.ino() == now.ino()));
        if is_current {
            return Ok((folder()?, lock));
        }
    }
}

fn lock_path() -> PathBuf {
    Path::new(FORWARDING).with_extension("lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_stay_in_the_range_and_apart() {
        let transit: Ipv4Net = "198.18.0.0/15".parse().unwrap();
        assert_eq!(slots(transit), 65_536);
        assert_eq!(transit_pair(transit, 0), ([198, 18, 0, 0].into(), [198, 18, 0, 1].into()));
        assert_eq!(transit_pair(transit, 65_535), ([198, 19, 255, 254].into(), [198, 19, 255, 255].into()));
        assert_eq!(transit_pair(transit, 65_536), transit_pair(transit, 0));
    }

    #[test]
    #[ignore = "needs root"]
    fn forwarding_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netns");
        let netns = Netns::ensure(&path).unwrap();
        netns
            .run(|| {
                let read = || fs::read_to_string(IP_FORWARD).unwrap().trim().to_owned();
                // A new namespace takes its value from the first one.
                fs::write(IP_FORWARD, "0").unwrap();
                allow_forwarding("one", "boot").unwrap();
                allow_forwarding("one", "boot").unwrap();
                allow_forwarding("two", "boot").unwrap();
                assert_eq!(read(), "1");
                restore_forwarding("one", "boot").unwrap();
                assert_eq!(read(), "1", "another instance needs it");
                assert!(!uses_forwarding("one").unwrap() && uses_forwarding("two").unwrap());
                restore_forwarding("two", "boot").unwrap();
                assert_eq!(read(), "0");
                restore_forwarding("two", "boot").unwrap();
                allow_forwarding("one", "boot").unwrap();
                restore_forwarding("one", "a later boot").unwrap();
                assert_eq!(read(), "1", "a value of an earlier boot is not restored");
            })
            .unwrap();
        Netns::remove(&path).unwrap();
    }
}
