//! Places for connections: a total, a share for one address, and some that only the platform and its operators get.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places of a server.
#[derive(Debug)]
pub(super) struct Slots {
    general: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    per_address: usize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
    /// Whether it is one of those that only some callers may keep.
    pub(super) is_reserved: bool,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub(super) fn new(all: usize, reserved: usize, per_address: usize) -> Arc<Self> {
        let reserved = reserved.min(all);
        Arc::new(Slots {
            general: Arc::new(Semaphore::new(all - reserved)),
            reserved: Arc::new(Semaphore::new(reserved)),
            per_address,
            addresses: Mutex::default(),
        })
    }

    /// A place for a connection from an address; a reserved one if all others are taken. `None`: it has to be closed.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = network(address);
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.get(&address).copied().unwrap_or_default() >= self.per_address {
            return None;
        }
        let (is_reserved, permit) = match self.general.clone().try_acquire_owned() {
            Ok(permit) => (false, permit),
            Err(_) => (true, self.reserved.clone().try_acquire_owned().ok()?),
        };
        *addresses.entry(address).or_default() += 1;
        Some(Slot { slots: self.clone(), address, is_reserved, _permit: permit })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut addresses = self.slots.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// The unit that counts as one address: of IPv6 the network of 64 bits, in which a host may take any.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_gets_its_share_and_gives_it_back() {
        let slots = Slots::new(10, 0, 2);
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let held = (slots.take(one), slots.take(one));
        assert!(held.0.is_some() && held.1.is_some());
        assert!(slots.take(one).is_none());
        assert!(slots.take(address("::ffff:10.0.0.1")).is_none(), "the same address in IPv6");
        assert!(slots.take(other).is_some());
        drop(held);
        assert!(slots.take(one).is_some());
        assert_eq!(slots.addresses.lock().unwrap().len(), 0, "no address is remembered");
        let held = (slots.take(address("2001:db8::1")), slots.take(address("2001:db8::2")));
        assert!(held.0.is_some() && slots.take(address("2001:db8::3")).is_none(), "a network of 64 bits is one");
    }

    #[test]
    fn the_last_places_are_reserved() {
        let slots = Slots::new(3, 1, 10);
        let held: Vec<_> = (0..4).map(|_| slots.take(address("10.0.0.1"))).collect();
        let reserved: Vec<_> = held.iter().map(|it| it.as_ref().map(|slot| slot.is_reserved)).collect();
        assert_eq!(reserved, [Some(false), Some(false), Some(true), None]);
    }
}
