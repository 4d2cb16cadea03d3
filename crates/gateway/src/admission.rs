//! Bounds the connections that are open at a time, so that no client can use up the process's descriptors.
//!
//! An address may have as many connections as there are free places: one greedy client gets half of them, two get a third each, and a
//! newcomer always finds a place. Addresses of IPv6 count by their /64, which is what one customer of a network is given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// The most connections at a time. Each may take a second descriptor, for its container or for control: twice this number has to stay
/// below the limit of open files. Too low refuses clients although the machine could serve them.
pub const MOST: usize = 8192;

/// Counts the open connections.
pub struct Admission {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place; dropping it frees the place.
pub struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// Makes an admission for at most `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// Returns a place for a connection from `peer`, or none when its address already has as many as are free.
    pub fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let address = network(peer.ip());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.by_address.get(&address).copied().unwrap_or_default();
        if own >= self.most.saturating_sub(open.all) {
            return None;
        }
        open.all += 1;
        open.by_address.insert(address, own + 1);
        Some(Place { admission: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        match open.by_address.get_mut(&self.address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                open.by_address.remove(&self.address);
            }
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 5000)
    }

    #[test]
    fn a_greedy_address_leaves_room_for_others() {
        let admission = Admission::new(90);
        let enter = |address: &str| -> Vec<Place> { std::iter::from_fn(|| admission.enter(from(address))).collect() };
        let first = enter("192.0.2.1");
        assert_eq!(first.len(), 45, "half of the places");
        let second = enter("192.0.2.2");
        assert_eq!(second.len(), 23, "half of the rest, rounded up");
        assert!(admission.enter(from("192.0.2.1")).is_none());
        assert!(admission.enter(from("192.0.2.3")).is_some(), "a newcomer always finds a place");
        drop(first);
        drop(second);
        assert_eq!(admission.open.lock().unwrap().all, 0);
        assert!(admission.open.lock().unwrap().by_address.is_empty());
    }

    #[test]
    fn addresses_of_one_customer_count_together() {
        let admission = Admission::new(4);
        let _places = [admission.enter(from("2001:db8::1")).unwrap(), admission.enter(from("2001:db8::2")).unwrap()];
        assert!(admission.enter(from("2001:db8::3")).is_none());
        assert!(admission.enter(from("2001:db8:0:1::3")).is_some());
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
