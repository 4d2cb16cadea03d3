//! Certificates, tokens and authorisation decisions.
//!
//! Everything here is either a pure function over values (identities, rules, tokens) or a small, crash-safe operation on named files
//! (the certificate authority and the certificates that it gives out). The crate knows no API server, no kind and no network.
//!
//! - [`authority`]: the installation's own certificate authority, made at first start and repaired when it was left half made.
//! - [`leaf`]: certificates of servers and clients, with renewal.
//! - [`identity`]: the identity that a verified client certificate or token gives.
//! - [`token`]: signed bearer tokens (ES256).
//! - [`authz`]: who may do what. Deny by default.
//! - [`rotation`]: a new authority and a new token key in the place of the old ones.
//! - [`kubeconfig`] and [`ssh`]: the files that a user gets.
//! - [`files`]: write a file so that a crash leaves the old or the new one, never a part.

pub mod authority;
pub mod authz;
pub mod files;
pub mod identity;
pub mod kubeconfig;
pub mod leaf;
pub mod rotation;
pub mod ssh;
pub mod token;

pub use authority::{Authority, AuthorityError, AuthorityPaths};
pub use identity::{Identity, IdentityError};
pub use leaf::{LeafError, LeafSpec};
pub use token::{Claims, TokenError, TokenKey, TokenVerifier};

#[cfg(test)]
mod tests;
