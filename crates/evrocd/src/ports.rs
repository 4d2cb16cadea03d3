//! The instance's two ports: chosen once, remembered, and bound on 127.0.0.1 and ::1 by the supervisor, which keeps them while roles come
//! and go.
//!
//! Which ports are tried, in this order ([`candidates`]):
//!
//! | flag | remembered | tried |
//! |---|---|---|
//! | none | none | default, fallback, any free |
//! | none | chosen by us | remembered, default, fallback, any free |
//! | none | chosen by flag | remembered only |
//! | 0 | chosen as "any" | remembered, any free |
//! | 0 | otherwise | any free |
//! | N | | N only |
//!
//! A port that another instance remembers counts as taken, even while that instance is stopped, unless a flag names it.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use serde::{Deserialize, Serialize};

use crate::sockets::holder_of;

/// The reason why a port was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The default or its fallback.
    Default,
    /// Any free one, because the flag was 0 or because default and fallback were taken.
    Any,
    /// The flag named it.
    Flag,
}

/// A chosen port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortChoice {
    /// The port.
    pub port: u16,
    /// The reason.
    pub origin: Origin,
}

/// The purpose of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// `API` or `HTTPS`.
    pub name: &'static str,
    /// The flag that sets it.
    pub flag: &'static str,
    /// Tried first.
    pub default: u16,
    /// Tried when that is taken.
    pub fallback: u16,
}

/// The Kubernetes-style API.
pub const API: Purpose = Purpose { name: "API", flag: "--api-port", default: 6443, fallback: 16443 };
/// The HTTPS gateway.
pub const HTTPS: Purpose = Purpose { name: "HTTPS", flag: "--https-port", default: 443, fallback: 8443 };

/// A port to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// This one.
    Port(PortChoice),
    /// Whichever the kernel gives.
    AnyFree,
}

/// Returns the ports to try. Pure.
pub fn candidates(
    purpose: Purpose,
    flag: Option<u16>,
    remembered: Option<PortChoice>,
    reserved: &BTreeSet<u16>,
) -> Vec<Candidate> {
    let mut list = Vec::new();
    match (flag, remembered) {
        (Some(0), Some(old)) if old.origin == Origin::Any => list.extend([Candidate::Port(old), Candidate::AnyFree]),
        (Some(0), _) => list.push(Candidate::AnyFree),
        (Some(port), _) => return vec![Candidate::Port(PortChoice { port, origin: Origin::Flag })],
        (None, Some(old)) if old.origin == Origin::Flag => return vec![Candidate::Port(old)],
        (None, old) => {
            list.extend(old.map(Candidate::Port));
            for port in [purpose.default, purpose.fallback] {
                if old.is_none_or(|old| old.port != port) {
                    list.push(Candidate::Port(PortChoice { port, origin: Origin::Default }));
                }
            }
            list.push(Candidate::AnyFree);
        }
    }
    list.retain(|candidate| match candidate {
        Candidate::Port(choice) => !reserved.contains(&choice.port) || remembered.is_some_and(|old| old == *choice),
        Candidate::AnyFree => true,
    });
    list
}

/// The reason why no port could be bound.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The only candidate is taken.
    #[error("{purpose} port {port} is taken{holder}: choose another with {flag}, or 0 for any free one")]
    Taken {
        /// Its purpose.
        purpose: &'static str,
        /// The port.
        port: u16,
        /// ` by process … (…)`, or empty.
        holder: String,
        /// The flag.
        flag: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Binding failed for another reason than that it is taken.
    #[error("cannot listen on a loopback address for the {purpose} port ({flag})")]
    Bind {
        /// Its purpose.
        purpose: &'static str,
        /// The flag.
        flag: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// The bound sockets of one port: 127.0.0.1 and, where the machine has it, ::1.
#[derive(Debug)]
pub struct Bound {
    /// The sockets.
    pub listeners: Vec<TcpListener>,
    /// The port.
    pub choice: PortChoice,
    /// A sentence when it is another port than before or than the default.
    pub note: Option<String>,
}

/// Binds the first candidate that is free.
pub fn bind(
    purpose: Purpose,
    candidates: &[Candidate],
    remembered: Option<PortChoice>,
    reserved: &BTreeSet<u16>,
) -> Result<Bound, PortError> {
    let fail = |source| PortError::Bind { purpose: purpose.name, flag: purpose.flag, source };
    for candidate in candidates {
        match candidate {
            Candidate::Port(choice) => match bind_pair(choice.port) {
                Ok(listeners) => {
                    return Ok(Bound { listeners, choice: *choice, note: note(purpose, remembered, choice.port) });
                }
                Err(source) if source.kind() == io::ErrorKind::AddrInUse && candidates.len() == 1 => {
                    let holder = holder_of(choice.port).map_or(String::new(), |holder| format!(" by {holder}"));
                    return Err(PortError::Taken {
                        purpose: purpose.name,
                        port: choice.port,
                        holder,
                        flag: purpose.flag,
                        source,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(fail(error)),
            },
            Candidate::AnyFree => {
                let mut last = io::Error::from(io::ErrorKind::AddrInUse);
                for _ in 0..64 {
                    match bind_any(reserved) {
                        Ok((listeners, port)) => {
                            let choice = PortChoice { port, origin: Origin::Any };
                            return Ok(Bound { listeners, choice, note: note(purpose, remembered, port) });
                        }
                        Err(error) => last = error,
                    }
                }
                return Err(fail(last));
            }
        }
    }
    Err(fail(io::ErrorKind::AddrInUse.into()))
}

fn note(purpose: Purpose, remembered: Option<PortChoice>, port: u16) -> Option<String> {
    let Purpose { name, flag, default, .. } = purpose;
    match remembered {
        Some(old) if old.port != port => {
            Some(format!("the {name} port is now {port} (it was {}): kubeconfig and URLs follow", old.port))
        }
        None if port != default => {
            Some(format!("the {name} port is {port} and is kept from now on ({flag} changes it)"))
        }
        _ => None,
    }
}

fn bind_pair(port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?];
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
        Ok(listener) => listeners.push(listener),
        // A machine without IPv6 is a normal machine.
        Err(error)
            if error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
        Err(error) => return Err(error),
    }
    for listener in &listeners {
        // The longest queue that the kernel grants: connections wait in it while a role restarts.
        rustix::net::listen(listener, 4096)?;
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

fn bind_any(reserved: &BTreeSet<u16>) -> io::Result<(Vec<TcpListener>, u16)> {
    let port = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.local_addr()?.port();
    if reserved.contains(&port) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    Ok((bind_pair(port)?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(port: u16, origin: Origin) -> Option<PortChoice> {
        Some(PortChoice { port, origin })
    }

    #[test]
    fn the_order_of_ports_is_the_table_above() {
        use Origin::{Any, Default, Flag};
        let reserved = BTreeSet::from([16443, 7000]);
        let none = BTreeSet::new();
        let show = |flag, remembered, reserved: &BTreeSet<u16>| {
            candidates(API, flag, remembered, reserved)
                .iter()
                .map(|candidate| match candidate {
                    Candidate::Port(choice) => choice.port.to_string(),
                    Candidate::AnyFree => "any".into(),
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (flag, remembered, reserved, want) in [
            (None, None, &none, "6443 16443 any"),
            (None, None, &reserved, "6443 any"),
            (None, old(16443, Default), &none, "16443 6443 any"),
            (None, old(16443, Default), &reserved, "16443 6443 any"),
            (None, old(40000, Any), &none, "40000 6443 16443 any"),
            (None, old(7443, Flag), &none, "7443"),
            (Some(0), None, &none, "any"),
            (Some(0), old(40000, Any), &none, "40000 any"),
            (Some(0), old(6443, Default), &none, "any"),
            (Some(7000), None, &reserved, "7000"),
            (Some(7000), old(6443, Default), &none, "7000"),
        ] {
            assert_eq!(show(flag, remembered, reserved), want, "{flag:?} {remembered:?}");
        }
    }

    #[test]
    fn a_taken_port_is_replaced_or_named() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let none = BTreeSet::new();
        let purpose = Purpose { default: port, ..API };
        let bound = bind(
            purpose,
            &[Candidate::Port(PortChoice { port, origin: Origin::Default }), Candidate::AnyFree],
            None,
            &none,
        );
        let bound = bound.unwrap();
        assert_ne!(bound.choice.port, port);
        assert_eq!(bound.choice.origin, Origin::Any);
        assert!(bound.note.unwrap().contains("is kept from now on"));
        for listener in &bound.listeners {
            assert_eq!(listener.local_addr().unwrap().port(), bound.choice.port);
        }
        let only = [Candidate::Port(PortChoice { port, origin: Origin::Flag })];
        let text = bind(purpose, &only, None, &none).unwrap_err().to_string();
        assert!(text.contains(&format!("API port {port} is taken by process {}", std::process::id())), "{text}");
        assert!(text.contains("--api-port"), "{text}");
    }
}
