//! The address of an etcd cluster: `etcd://host:port,host:port/prefix`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The default prefix of keys.
const DEFAULT_PREFIX: &str = "/evroc";
/// The maximum length of a prefix. It is part of every key that is sent, so a long one leaves less space for values.
const PREFIX_BYTES: usize = 64;
/// etcd's port for clients.
const DEFAULT_PORT: u16 = 2379;

/// The members of an etcd cluster, and the prefix of one cloud's keys in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host:port` of each member.
    pub(super) endpoints: Vec<String>,
    /// Begins with `/` and does not end with it.
    pub(super) prefix: String,
}

impl Address {
    /// `host:port` of each member.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Whether every member is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.endpoints.iter().all(|endpoint| {
            let host = endpoint.rsplit_once(':').map_or(endpoint.as_str(), |(host, _)| host);
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
        })
    }

    /// Returns the prefix of this store's keys.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The reason why a text is not an address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{text}\" is not the address of an etcd: {reason}; expected etcd://HOST:PORT[,HOST:PORT…][/PREFIX]")]
pub struct AddressError {
    text: String,
    reason: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fail = |reason: String| AddressError { text: text.to_owned(), reason };
        let rest = text.strip_prefix("etcd://").ok_or_else(|| fail("it does not begin with etcd://".into()))?;
        let (members, prefix) = match rest.split_once('/') {
            Some((members, prefix)) => (members, format!("/{}", prefix.trim_end_matches('/'))),
            None => (rest, DEFAULT_PREFIX.to_owned()),
        };
        let prefix = if prefix == "/" { DEFAULT_PREFIX.to_owned() } else { prefix };
        if prefix.len() > PREFIX_BYTES || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(fail(format!("the prefix must be at most {PREFIX_BYTES} printable characters")));
        }
        let endpoints = members.split(',').map(|member| endpoint(member).map_err(&fail)).collect::<Result<_, _>>()?;
        Ok(Address { endpoints, prefix })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd://{}{}", self.endpoints.join(","), self.prefix)
    }
}

/// A member as `host:port`.
fn endpoint(member: &str) -> Result<String, String> {
    if member.is_empty() {
        return Err("a member is empty".to_owned());
    }
    if member.contains(['@', '?', '#']) || member.chars().any(char::is_whitespace) {
        return Err(format!("\"{member}\" is not HOST:PORT"));
    }
    // An IPv6 address is in brackets.
    let has_port = member.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let whole = if has_port { member.to_owned() } else { format!("{member}:{DEFAULT_PORT}") };
    let authority: http::uri::Authority = whole.parse().map_err(|_| format!("\"{member}\" is not HOST:PORT"))?;
    match authority.port_u16() {
        Some(port) if port > 0 && !authority.host().is_empty() => Ok(whole),
        _ => Err(format!("the port of \"{member}\" is not a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, endpoints, prefix) in [
            ("etcd://a:1", &["a:1"][..], "/evroc"),
            ("etcd://a", &["a:2379"], "/evroc"),
            ("etcd://a:1,b.c:2/", &["a:1", "b.c:2"], "/evroc"),
            ("etcd://[::1]:7,127.0.0.1:8/clouds/x/", &["[::1]:7", "127.0.0.1:8"], "/clouds/x"),
            ("etcd://[::1]", &["[::1]:2379"], "/evroc"),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(
                (address.endpoints().to_vec(), address.prefix()),
                (endpoints.iter().map(|e| (*e).to_owned()).collect(), prefix)
            );
            assert_eq!(address.to_string().parse::<Address>().expect(text), address);
        }
    }

    #[test]
    fn members_of_this_machine_are_known() {
        for (text, is_loopback) in [
            ("etcd://127.0.0.1", true),
            ("etcd://127.0.0.2:1,[::1]:2,localhost:3", true),
            ("etcd://127.0.0.1,10.0.0.1", false),
            ("etcd://localhost.example.org", false),
            ("etcd://[::2]", false),
        ] {
            assert_eq!(text.parse::<Address>().expect(text).is_loopback(), is_loopback, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_one_sentence() {
        for (text, reason) in [
            ("http://a:1", "does not begin with etcd://"),
            ("etcd://", "a member is empty"),
            ("etcd://a:1,", "a member is empty"),
            ("etcd://a:0", "not a number from 1"),
            ("etcd://a:99999", "not a number from 1"),
            ("etcd://a:x", "a:x"),
            ("etcd://me:pw@a:1", "is not HOST:PORT"),
            ("etcd://a b:1", "is not HOST:PORT"),
            ("etcd://a:1/a b", "printable"),
        ] {
            let message = text.parse::<Address>().expect_err(text).to_string();
            assert!(message.contains(reason) && message.contains("expected etcd://HOST:PORT"), "{message}");
        }
    }
}
