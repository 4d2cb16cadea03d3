//! The certificate authority, the token key and the certificates of the roles, as an instance keeps them.
//!
//! | file | readable by | who needs it |
//! |---|---|---|
//! | `pki/authority/ca.key` | root | the supervisor, which alone issues certificates |
//! | `pki/ca.crt` | everybody | all who check a certificate |
//! | `control/pki/token.key` | control | control, which signs tokens while it serves |
//! | `control/pki/server.key`, `edge/*.key`, `node/node.key` | the role | the role |

use std::time::{Duration, SystemTime};

use evroc_iam::files::Owner;
use evroc_iam::identity::{GROUP_EDGES, GROUP_NODES, USER_EDGE, USER_NODE_PREFIX};
use evroc_iam::leaf::{self, LeafPaths, LeafSpec};
use evroc_iam::{Authority, AuthorityPaths, TokenKey};

use super::{BootstrapError, host_name};
use crate::instance::InstanceRecord;

/// The result of [`ensure_certificates`].
pub struct Certificates {
    /// The authority, to issue the caller's certificate with.
    pub authority: Authority,
    /// A sentence for each thing that was made or renewed.
    pub notes: Vec<String>,
    /// Roles whose files changed and that must read them again if they run.
    pub changed: Vec<&'static str>,
    /// When the first of them is to be renewed: seconds since 1970.
    pub renewal: i64,
}

/// Makes, finishes or renews the authority, the token key and the certificates of the roles.
pub fn ensure_certificates(record: &InstanceRecord, now: SystemTime) -> Result<Certificates, BootstrapError> {
    let layout = record.layout();
    let control = Owner::same(record.uids.control());
    let edge = Owner::same(record.uids.edge());
    let pki = layout.state.join("control/pki");
    let secret = layout.authority();
    let paths = AuthorityPaths {
        key: secret.join("ca.key"),
        certificate: secret.join("ca.crt"),
        public_copy: layout.public_authority(),
    };
    let (authority, mut notes) = Authority::open_or_create(&paths, &record.instance, now)?;
    TokenKey::open_or_create(&pki.join("token.key"), Some(control))?;

    let root = Owner { uid: 0, gid: 0 };
    let mut changed = Vec::new();
    let mut renewal = i64::MAX;
    let life = Duration::from_secs(record.leaf_life_seconds);
    for (role, spec, folder, name, owner) in [
        ("control", LeafSpec::control_server(&record.domain), pki.clone(), "server", control),
        ("edge", LeafSpec::client(USER_EDGE, GROUP_EDGES), layout.role("edge"), "edge", edge),
        ("edge", LeafSpec::gateway_server(&record.domain), layout.role("edge"), "serving", edge),
        (
            "node",
            LeafSpec::client(format!("{USER_NODE_PREFIX}{}", host_name()), GROUP_NODES),
            layout.role("node"),
            "node",
            root,
        ),
    ] {
        let paths = LeafPaths::in_folder(&folder, name);
        let ensured = leaf::ensure(&authority, &spec, &paths, Some(owner), life, now)?;
        renewal = renewal.min(ensured.renewal);
        if let Some(reason) = ensured.replaced {
            if reason != "there was none" {
                notes.push(format!("replaced {}: {reason}", paths.certificate.display()));
            }
            changed.push(role);
        }
    }
    changed.dedup();
    Ok(Certificates { authority, notes, changed, renewal })
}
