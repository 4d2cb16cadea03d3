//! Names of what an instance makes in the kernel.

use sha2::{Digest, Sha256};

/// Gives the names of one instance's links and tables. Links have at most 15 characters and all begin with a prefix of the instance's
/// own, so that leftovers can be counted by instance; the rest is a part of a hash, so two owners can have one name: the maker of a
/// link compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    instance: String,
    link_prefix: String,
}

impl Names {
    /// The names of `instance`.
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), link_prefix: format!("i{}", hex(instance, 4)) }
    }

    /// The prefix of all links' names.
    pub fn link_prefix(&self) -> &str {
        &self.link_prefix
    }

    /// Whether a name in `/run/netns` is one that an earlier version gave to a VPC's namespace.
    pub fn is_legacy_netns(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.instance).and_then(|rest| rest.strip_prefix("-vpc-"));
        rest.is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// The name of the nftables tables, in every namespace.
    pub fn table(&self) -> &str {
        &self.instance
    }

    /// The name that an earlier version gave to a VPC's namespace and record: two VPCs can have the same.
    pub fn legacy_netns(&self, vpc_uid: &str) -> String {
        format!("{}-vpc-{}", self.instance, hex(vpc_uid, 8))
    }

    /// The tap of a machine.
    pub fn tap(&self, machine_uid: &str) -> String {
        format!("{}t{}", self.link_prefix, hex(machine_uid, 8))
    }

    /// Whether a link is one of this instance: the prefix, a letter for the kind, eight hexadecimal digits.
    pub fn is_link(&self, link: &str) -> bool {
        let Some((kind, digits)) = link.strip_prefix(&self.link_prefix).and_then(|rest| rest.split_at_checked(1))
        else {
            return false;
        };
        ["t", "u", "p"].contains(&kind) && digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// Whether a link is a tap of this instance.
    pub fn is_tap(&self, link: &str) -> bool {
        link.strip_prefix(&self.link_prefix).is_some_and(|rest| rest.starts_with('t'))
    }

    /// A pattern for all taps, for nftables.
    pub fn tap_pattern(&self) -> String {
        format!("{}t*", self.link_prefix)
    }

    /// The VPC's end of its way out.
    pub fn inner_uplink(&self, vpc_uid: &str) -> String {
        format!("{}u{}", self.link_prefix, hex(vpc_uid, 8))
    }

    /// The other end of it, in the uplink's namespace.
    pub fn outer_uplink(&self, vpc_uid: &str) -> String {
        format!("{}p{}", self.link_prefix, hex(vpc_uid, 8))
    }

    /// The start of the search for a VPC's pair of transit addresses: spread over the range, so that instances rarely meet.
    pub fn first_slot(&self, vpc_uid: &str) -> u32 {
        let hash = Sha256::digest(format!("{}/{vpc_uid}", self.instance));
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
    }

    /// A pattern for all of those ends, for nftables.
    pub fn outer_uplink_pattern(&self) -> String {
        format!("{}p*", self.link_prefix)
    }
}

/// The first hexadecimal digits of a text's SHA-256.
fn hex(text: &str, digits: usize) -> String {
    let hash = Sha256::digest(text);
    hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..digits].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let names = Names::new("a-name-of-20-letters");
        let all = [names.tap("m"), names.inner_uplink("v"), names.outer_uplink("v")];
        assert!(all.iter().all(|name| name.len() <= 15 && name.starts_with(names.link_prefix())), "{all:?}");
        assert_ne!(names.tap("m"), Names::new("b").tap("m"));
        assert!(names.is_tap(&names.tap("m")) && !names.is_tap(&names.inner_uplink("m")) && !names.is_tap("eth0"));
        assert!(all.iter().all(|name| names.is_link(name) && !Names::new("b").is_link(name)));
        for other in
            ["eth0", "", &format!("{}x12345678", names.link_prefix()), &format!("{}té234567", names.link_prefix())]
        {
            assert!(!names.is_link(other), "{other}");
        }
        let legacy = names.legacy_netns("x");
        assert!(legacy.len() > names.link_prefix().len() && names.is_legacy_netns(&legacy));
        assert!(!names.is_legacy_netns("a-name-of-20-letters-vpc-x") && !names.is_legacy_netns(&format!("b{legacy}")));
    }
}
