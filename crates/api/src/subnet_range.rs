//! The addresses of a subnet: which the platform keeps, which guests can have.

use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use thiserror::Error;

/// The shortest prefix: 16 million addresses.
const SHORTEST_PREFIX: u8 = 8;
/// The longest prefix: the network, the gateway, the platform's own address and the broadcast address, and none for guests.
const LONGEST_PREFIX: u8 = 30;
/// The addresses from the network's on that guests never have: the network's own, the gateway and the platform's.
const KEPT_AT_THE_START: u32 = 3;

/// The addresses of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetRange(Ipv4Net);

/// The reason why a text does not give the addresses of a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubnetRangeError {
    /// Not of the form `10.0.0.0/24`.
    #[error("expected a block of IPv4 addresses such as 10.0.0.0/24, found \"{0}\"")]
    NotABlock(String),
    /// The prefix is too short or too long.
    #[error("expected a prefix length from {SHORTEST_PREFIX} to {LONGEST_PREFIX}, found {0}")]
    Prefix(u8),
    /// The address is not the first of the block.
    #[error("expected the first address of the block, {expected}, found {found}")]
    NotMasked {
        /// The block that it lies in.
        expected: Ipv4Net,
        /// The given text.
        found: Ipv4Net,
    },
    /// Addresses that no machine can have.
    #[error(
        "expected addresses that machines can have, found {0}: loopback, multicast, link-local and reserved addresses are not"
    )]
    NotUsable(Ipv4Net),
}

impl FromStr for SubnetRange {
    type Err = SubnetRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let block: Ipv4Net = text.parse().map_err(|_| SubnetRangeError::NotABlock(text.to_owned()))?;
        let prefix = block.prefix_len();
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&prefix) {
            return Err(SubnetRangeError::Prefix(prefix));
        }
        if block.trunc() != block {
            return Err(SubnetRangeError::NotMasked { expected: block.trunc(), found: block });
        }
        let [first, second, ..] = block.network().octets();
        if matches!(first, 0 | 127 | 224..) || (first, second) == (169, 254) {
            return Err(SubnetRangeError::NotUsable(block));
        }
        Ok(SubnetRange(block))
    }
}

impl SubnetRange {
    /// The prefix length.
    pub fn prefix_length(&self) -> u8 {
        self.0.prefix_len()
    }

    /// The gateway's address, the first after the network's own.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + 1)
    }

    /// The addresses that guests can have, in order.
    pub fn usable(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let first = u32::from(self.0.network()) + KEPT_AT_THE_START;
        (first..u32::from(self.0.broadcast())).map(Ipv4Addr::from)
    }

    /// Whether guests can have this address.
    pub fn is_usable(&self, address: Ipv4Addr) -> bool {
        let first = u32::from(self.0.network()) + KEPT_AT_THE_START;
        (first..u32::from(self.0.broadcast())).contains(&u32::from(address))
    }

    /// How many addresses guests can have.
    pub fn usable_count(&self) -> u32 {
        u32::from(self.0.broadcast()) - u32::from(self.0.network()) - KEPT_AT_THE_START
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_block_is_refused() {
        for (text, part) in [
            ("", "such as 10.0.0.0/24"),
            ("10.0.0.0", "such as 10.0.0.0/24"),
            ("10.0.0/24", "such as 10.0.0.0/24"),
            ("10.0.0.0/33", "such as 10.0.0.0/24"),
            ("10.0.0.0/31", "from 8 to 30, found 31"),
            ("10.0.0.0/7", "from 8 to 30, found 7"),
            ("10.0.0.7/24", "10.0.0.0/24, found 10.0.0.7/24"),
            ("255.255.255.0/24", "reserved"),
            ("127.0.0.0/8", "loopback"),
            ("169.254.0.0/16", "link-local"),
            ("0.0.0.0/8", "reserved"),
        ] {
            let error = text.parse::<SubnetRange>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_lie_between_the_platforms_own_and_the_broadcast_address() {
        for (text, first, last, count) in [
            ("10.0.0.0/24", [10, 0, 0, 3], [10, 0, 0, 254], 252),
            ("192.168.4.0/29", [192, 168, 4, 3], [192, 168, 4, 6], 4),
            ("223.255.255.0/24", [223, 255, 255, 3], [223, 255, 255, 254], 252),
        ] {
            let range: SubnetRange = text.parse().unwrap();
            let usable: Vec<Ipv4Addr> = range.usable().collect();
            assert_eq!((usable[0], usable[usable.len() - 1]), (first.into(), last.into()), "{text}");
            assert_eq!((usable.len(), range.usable_count()), (count, u32::try_from(count).unwrap()), "{text}");
        }
        let range: SubnetRange = "10.0.0.0/29".parse().unwrap();
        for (last, is_usable) in [(0, false), (1, false), (2, false), (3, true), (6, true), (7, false), (8, false)] {
            assert_eq!(range.is_usable([10, 0, 0, last].into()), is_usable, "10.0.0.{last}");
        }
        let smallest: SubnetRange = "10.0.0.0/30".parse().unwrap();
        assert_eq!((smallest.usable().count(), smallest.usable_count()), (0, 0));
        assert_eq!(smallest.gateway(), Ipv4Addr::from([10, 0, 0, 1]));
        let largest: SubnetRange = "10.0.0.0/8".parse().unwrap();
        assert_eq!(largest.usable_count(), (1 << 24) - 4);
    }
}
