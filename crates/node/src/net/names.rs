//! Names of what an instance makes in the kernel.

use sha2::{Digest, Sha256};

/// Gives the names of one instance's namespaces, links and tables. Links have at most 15 characters and all begin with a prefix of
/// the instance's own, so that leftovers can be counted by instance.
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

    /// What the names of all links begin with.
    pub fn link_prefix(&self) -> &str {
        &self.link_prefix
    }

    /// What the names of all namespaces of VPCs begin with.
    pub fn netns_prefix(&self) -> String {
        format!("{}-vpc-", self.instance)
    }

    /// The name of the nftables tables, in whatever namespace.
    pub fn table(&self) -> &str {
        &self.instance
    }

    /// The namespace of a VPC.
    pub fn netns(&self, vpc_uid: &str) -> String {
        format!("{}{}", self.netns_prefix(), hex(vpc_uid, 8))
    }

    /// The tap of a machine.
    pub fn tap(&self, machine_uid: &str) -> String {
        format!("{}t{}", self.link_prefix, hex(machine_uid, 8))
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

    /// A pattern for all of those ends, for nftables.
    pub fn outer_uplink_pattern(&self) -> String {
        format!("{}p*", self.link_prefix)
    }
}

/// The first hexadecimal digits of a text's SHA-256.
pub(super) fn hex(text: &str, digits: usize) -> String {
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
        assert_eq!(Names::new("evroc").netns("x"), format!("evroc-vpc-{}", hex("x", 8)));
    }
}
