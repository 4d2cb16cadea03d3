//! Names and addresses that VPCs of a host must not share in the uplink's namespace: the pair of transit addresses, and the short
//! name of the outer link.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Claims of all VPCs on this host. Each call is short and waits for nothing, so one lock is enough.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<String, Claim>>);

#[derive(Debug, Default)]
struct Claim {
    outer: String,
    slot: Option<u32>,
}

impl Claims {
    /// Claims the outer link's name for a VPC. Fails with the owner of that name if it is another VPC: the names are made from a part
    /// of a hash.
    pub(super) fn claim_link(&self, uid: &str, outer: &str) -> Result<(), String> {
        let mut all = self.all();
        match all.iter().find(|(other, claim)| other.as_str() != uid && claim.outer == outer) {
            Some((owner, _)) => Err(owner.clone()),
            None => {
                all.entry(uid.to_owned()).or_default().outer = outer.to_owned();
                Ok(())
            }
        }
    }

    /// Claims a pair of addresses; false if another VPC has it.
    pub(super) fn claim_slot(&self, uid: &str, slot: u32) -> bool {
        let mut all = self.all();
        let is_taken = all.iter().any(|(other, claim)| other != uid && claim.slot == Some(slot));
        if !is_taken {
            all.entry(uid.to_owned()).or_default().slot = Some(slot);
        }
        !is_taken
    }

    /// Releases the claims of a VPC.
    pub(super) fn release(&self, uid: &str) {
        self.all().remove(uid);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_vpcs_share_a_link_name_or_a_slot() {
        let claims = Claims::default();
        assert_eq!(claims.claim_link("a", "p1"), Ok(()));
        assert_eq!(claims.claim_link("a", "p1"), Ok(()));
        assert_eq!(claims.claim_link("b", "p1"), Err("a".to_owned()));
        assert!(claims.claim_slot("a", 7) && claims.claim_slot("a", 7));
        assert!(!claims.claim_slot("b", 7) && claims.claim_slot("b", 8));
        claims.release("a");
        assert!(claims.claim_slot("b", 7));
        assert_eq!(claims.claim_link("b", "p1"), Ok(()));
    }
}
