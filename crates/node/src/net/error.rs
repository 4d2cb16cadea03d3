//! The errors of the host's network.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::command::CommandError;
use super::netns::NetnsError;
use crate::uid::InvalidUid;

/// A failed operation on the host's network.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NetworkError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Uid(#[from] InvalidUid),
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("create tap {link}")]
    Tap {
        link: String,
        #[source]
        source: io::Error,
    },
    #[error("start the DHCP server of VPC {vpc}")]
    Dhcp {
        vpc: String,
        #[source]
        source: io::Error,
    },
    #[error("VPC {vpc} has no port for machine {machine}: call ensure_port first")]
    UnknownPort { vpc: String, machine: String },
    #[error("the record {} cannot be parsed", path.display())]
    InvalidRecord {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the record {} has version {found}, and this program knows versions up to {known}", path.display())]
    NewerRecord { path: PathBuf, found: u32, known: u32 },
    #[error("machines run in the namespace of VPC {vpc}, but it has no record")]
    NoRecord { vpc: String },
    #[error("what VPC {vpc} should be is not known, so it is left alone")]
    Unreadable {
        vpc: String,
        #[source]
        source: Arc<NetworkError>,
    },
    #[error("link {link} belongs to {owner}, and {other} would have the same name")]
    NameTaken { link: String, owner: String, other: String },
    #[error("the owner of VPC {vpc} ended before it answered")]
    OwnerEnded { vpc: String },
    #[error("the transit range {0} is used up: widen it")]
    TransitFull(Ipv4Net),
    #[error("address {address} in VPC {vpc} belongs to machine {owner}, so machine {machine} cannot have it")]
    AddressTaken { vpc: String, address: std::net::Ipv4Addr, owner: String, machine: String },
}

impl NetworkError {
    /// Whether a living process still holds the machine's tap.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Tap { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
    }
}

/// Adds the operation and the path to an I/O error.
pub(super) fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> NetworkError + use<> {
    let path = path.to_owned();
    move |source| NetworkError::File { operation, path: path.clone(), source }
}
