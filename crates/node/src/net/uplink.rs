//! How VPCs reach the world.
//!
//! Each VPC that has a way out has a pair of links to the uplink's namespace, with two addresses of the transit range of their own;
//! inside the VPC everything leaves with its address on that pair (NAT), so VPCs with equal addresses do not meet.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::netns::{Netns, NetnsError};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Where packets of VPCs go that are for nobody in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Uplink {
    /// Nowhere: there is no way out.
    #[default]
    None,
    /// Into a network namespace that somebody else made and routes from: in tests one that plays the internet.
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
    /// The namespace that the outer ends of the links are in; `None` where there is no way out.
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

/// Lets the host forward packets, and records what was set before in `record`.
pub fn allow_forwarding(record: &Path, boot_id: &str) -> io::Result<()> {
    let now = fs::read_to_string(IP_FORWARD)?.trim().to_owned();
    let known = fs::read(record).ok().and_then(|bytes| serde_json::from_slice::<Recorded>(&bytes).ok());
    // What is recorded is older than what we see, unless the host was restarted since.
    if known.is_none_or(|known| known.boot_id != boot_id) {
        let recorded = Recorded { ip_forward: now.clone(), boot_id: boot_id.to_owned() };
        let temporary = record.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(&recorded)?)?;
        fs::rename(&temporary, record)?;
    }
    if now == "1" { Ok(()) } else { fs::write(IP_FORWARD, "1") }
}

/// Puts back what [`allow_forwarding`] recorded.
pub fn restore_forwarding(record: &Path, boot_id: &str) -> io::Result<()> {
    let bytes = match fs::read(record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if let Ok(recorded) = serde_json::from_slice::<Recorded>(&bytes)
        && recorded.boot_id == boot_id
    {
        fs::write(IP_FORWARD, recorded.ip_forward)?;
    }
    fs::remove_file(record)
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
    fn forwarding_is_put_back() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netns");
        let netns = Netns::ensure(&path).unwrap();
        netns
            .run(|| {
                let record = folder.path().join("record.json");
                let read = || fs::read_to_string(IP_FORWARD).unwrap().trim().to_owned();
                // A new namespace takes its value from the first one.
                fs::write(IP_FORWARD, "0").unwrap();
                allow_forwarding(&record, "boot").unwrap();
                allow_forwarding(&record, "boot").unwrap();
                assert_eq!(read(), "1");
                restore_forwarding(&record, "boot").unwrap();
                assert_eq!(read(), "0");
                restore_forwarding(&record, "boot").unwrap();
                allow_forwarding(&record, "boot").unwrap();
                restore_forwarding(&record, "a later boot").unwrap();
                assert_eq!(read(), "1", "what an earlier boot had is of no interest");
                assert!(!record.exists());
            })
            .unwrap();
        Netns::remove(&path).unwrap();
    }
}
