//! Computes the status of a subnet: pure.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::networking::{Subnet, SubnetStatus};
use k8s_openapi::jiff::Timestamp;

use crate::context::usable;

/// The status of a subnet with this number of addresses in use.
pub(super) fn status(subnet: &Subnet, in_use: usize, now: Timestamp) -> SubnetStatus {
    let mut status = subnet.status.clone().unwrap_or_default();
    let in_use = i64::try_from(in_use).unwrap_or(i64::MAX);
    let range = subnet.spec.stored_range();
    status.using_ipv4_address_count = Some(in_use);
    let all = range.as_ref().ok().map(|range| i64::from(range.usable_count()));
    status.available_ipv4_address_count = all.map(|all| (all - in_use).max(0));
    let verdict = match range {
        Ok(_) => usable(&subnet.metadata),
        Err(error) => Verdict::no("CidrInvalid", format!("spec.ipv4CidrBlock.block: {error}")),
    };
    conditions::set(&mut status.conditions, READY, &verdict, subnet.metadata.generation, now);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use evroc_api::networking::{CidrBlock, NameRef, SubnetSpec};

    #[test]
    fn addresses_are_counted_by_the_real_prefix() {
        let shown = |block: &str, in_use| {
            let spec = SubnetSpec {
                vpc_ref: NameRef { name: "default".into() },
                ipv4_cidr_block: CidrBlock { block: block.into() },
            };
            let status = status(&Subnet::new("default", spec), in_use, Timestamp::UNIX_EPOCH);
            (status.using_ipv4_address_count.unwrap(), status.available_ipv4_address_count)
        };
        assert_eq!(shown("10.0.0.0/24", 2), (2, Some(250)));
        assert_eq!(shown("10.0.0.0/29", 4), (4, Some(0)));
        assert_eq!(shown("10.0.0.0/29", 5), (5, Some(0)), "never less than none");
        assert_eq!(shown("10.0.0.0/8", 0), (0, Some((1 << 24) - 4)));
        assert_eq!(shown("10.0.0.0/30", 0), (0, Some(0)), "all four are the platform's");
        assert_eq!(shown("10.0.0.7/24", 0), (0, Some(252)), "an earlier version accepted host bits");
        for none in ["nonsense", "10.0.0.0/32", "10.0.0.0/7", "127.0.0.0/8"] {
            assert_eq!(shown(none, 0), (0, None), "{none}");
        }
    }
}
