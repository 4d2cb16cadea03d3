//! Converts etcd's errors to those of the contract.

use tonic::{Code, Status};

use super::Address;
use crate::error::StoreError;

/// The reason why the store in an etcd could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The TLS material cannot be used.
    #[error("TLS to {address} cannot be set up from the certificates and key given")]
    Tls {
        /// The cluster.
        address: Address,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// No member answered.
    #[error("no member of {address} answers: is etcd started, and are its address and certificates right?")]
    Unreachable {
        /// The cluster.
        address: Address,
        /// The last member's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The prefix belongs to another program.
    #[error(
        "{address} holds something else: the key {key} was not written by this program. Choose another prefix: etcd://HOST:PORT/PREFIX"
    )]
    Foreign {
        /// The cluster.
        address: Address,
        /// The other program's key.
        key: String,
    },
    /// Another process uses the store.
    #[error(
        "store {address} is in use by {holder}: stop it first, two clouds cannot share a prefix. If it is dead, {until}; \
         or choose another prefix: etcd://HOST:PORT/PREFIX"
    )]
    InUse {
        /// The cluster and the prefix.
        address: Address,
        /// The holder.
        holder: String,
        /// The advice for the case that its holder is dead.
        until: String,
    },
    /// Another process of this instance uses it.
    #[error("store {address} is in use by {holder}: stop it first, two processes cannot share a store")]
    Locked {
        /// The cluster and the prefix.
        address: Address,
        /// The holder.
        holder: String,
    },
    /// The store to read does not exist.
    #[error("{address} holds no store: expected one that a cloud has used")]
    Missing {
        /// The cluster.
        address: Address,
    },
    /// The store to create already exists.
    #[error("{address} already holds a store: choose another prefix, or remove all keys below {}/", address.prefix())]
    Exists {
        /// The cluster.
        address: Address,
    },
}

/// The errors with a meaning in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Compacted,
    Future,
    LeaseNotFound,
    NoSpace,
    TooLarge,
    TooManyOperations,
    Other,
}

/// Several of etcd's errors share a code. Their messages are part of its protocol: its own clients compare them.
pub(super) fn refusal(status: &Status) -> Refusal {
    let says = |words: &str| status.message().contains(words);
    match status.code() {
        Code::OutOfRange if says("has been compacted") => Refusal::Compacted,
        Code::OutOfRange if says("future revision") => Refusal::Future,
        Code::NotFound if says("lease not found") => Refusal::LeaseNotFound,
        Code::ResourceExhausted if says("database space exceeded") => Refusal::NoSpace,
        Code::InvalidArgument if says("request is too large") => Refusal::TooLarge,
        // The transport's own limit, a little above the previous one.
        Code::ResourceExhausted if says("message larger than max") => Refusal::TooLarge,
        Code::InvalidArgument if says("too many operations") => Refusal::TooManyOperations,
        _ => Refusal::Other,
    }
}

/// A failure without a meaning in the contract.
pub(super) fn failed(operation: &'static str, status: Status) -> StoreError {
    match refusal(&status) {
        Refusal::NoSpace => StoreError::DiskFull { detail: format!("etcd: {}", status.message()) },
        _ => StoreError::backend(operation, ServerStatus(status)),
    }
}

/// Formats a status in one line; its `Display` dumps all of its fields.
#[derive(Debug)]
pub(super) struct ServerStatus(pub Status);

impl std::fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = if self.0.message().is_empty() { self.0.code().description() } else { self.0.message() };
        write!(f, "etcd: {message}")
    }
}

impl std::error::Error for ServerStatus {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
