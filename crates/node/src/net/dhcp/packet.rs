//! DHCP messages (RFC 2131, options of RFC 2132), as much as a server of fixed addresses needs.
//!
//! Written by hand because guests send arbitrary bytes to a process that runs as root: the codec crate that was tried panics on
//! options of an odd length. Nothing here indexes by a number from the wire without a check.

use std::net::Ipv4Addr;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Fixed fields before the cookie.
const HEADER: usize = 236;
/// Relays and some clients drop packets that are shorter than a BOOTP message.
const MIN_LENGTH: usize = 300;

const PAD: u8 = 0;
const END: u8 = 255;

/// Codes of the options that are used here.
pub mod code {
    #![allow(missing_docs)]
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
}

/// The type of a message (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
    Inform = 8,
}

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The type; `None` for kinds that are never answered.
    pub kind: Option<Kind>,
    /// The client's number for the exchange.
    pub id: [u8; 4],
    /// Flags, given back as they came.
    pub flags: [u8; 2],
    /// The address that the client has already, or unspecified.
    pub client_address: Ipv4Addr,
    /// The client's link address.
    pub mac: [u8; 6],
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
}

impl Request {
    /// Reads a datagram; `None` if it is no request of an Ethernet client.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // Operation 1 = request, hardware type 1 = Ethernet, address length 6.
        if bytes.get(..3)? != [1, 1, 6] || bytes.get(HEADER..HEADER + 4)? != COOKIE {
            return None;
        }
        let mut request = Self {
            kind: None,
            id: field(bytes, 4)?,
            flags: field(bytes, 10)?,
            client_address: field::<4>(bytes, 12)?.into(),
            mac: field(bytes, 28)?,
            requested: None,
            server: None,
        };
        let mut rest = bytes.get(HEADER + 4..)?;
        while let Some((code, after)) = rest.split_first() {
            match *code {
                END => break,
                PAD => rest = after,
                code => {
                    let (length, after) = after.split_first()?;
                    let (value, after) = after.split_at_checked(usize::from(*length))?;
                    let address = || <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
                    match code {
                        code::KIND => {
                            request.kind = match value {
                                [1] => Some(Kind::Discover),
                                [3] => Some(Kind::Request),
                                [8] => Some(Kind::Inform),
                                _ => None,
                            }
                        }
                        code::REQUESTED_ADDRESS => request.requested = address(),
                        code::SERVER => request.server = address(),
                        _ => {}
                    }
                    rest = after;
                }
            }
        }
        Some(request)
    }
}

fn field<const N: usize>(bytes: &[u8], start: usize) -> Option<[u8; N]> {
    bytes.get(start..start + N)?.try_into().ok()
}

/// A server's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The type.
    pub kind: Kind,
    /// The address that the client gets, or unspecified.
    pub your_address: Ipv4Addr,
    /// The address that the client has already, or unspecified.
    pub client_address: Ipv4Addr,
    /// Options after kind, in order.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Reply {
    /// Adds an option; a value longer than an option can be is left out.
    pub fn option(&mut self, code: u8, value: impl Into<Vec<u8>>) {
        let value = value.into();
        if value.len() <= usize::from(u8::MAX) {
            self.options.push((code, value));
        }
    }

    /// Adds an option that is a list of addresses.
    pub fn addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) {
        self.option(code, addresses.iter().flat_map(Ipv4Addr::octets).collect::<Vec<_>>());
    }

    /// The datagram that answers `request`.
    pub fn to_bytes(&self, request: &Request) -> Vec<u8> {
        let mut bytes = vec![2, 1, 6, 0];
        bytes.extend(request.id);
        bytes.extend([0, 0]);
        bytes.extend(request.flags);
        bytes.extend(self.client_address.octets());
        bytes.extend(self.your_address.octets());
        // The next server of a network boot and the relay: there are none.
        bytes.extend([0; 8]);
        bytes.extend(request.mac);
        bytes.resize(HEADER, 0);
        bytes.extend(COOKIE);
        bytes.extend([code::KIND, 1, self.kind as u8]);
        for (code, value) in &self.options {
            bytes.extend([*code, value.len() as u8]);
            bytes.extend(value);
        }
        bytes.push(END);
        bytes.resize(bytes.len().max(MIN_LENGTH), PAD);
        bytes
    }
}
