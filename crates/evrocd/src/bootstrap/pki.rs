//! The certificate authority, the token key and the certificates of the roles, as an instance keeps them.
//!
//! | file | readable by | who needs it |
//! |---|---|---|
//! | `pki/authority/` | root | the supervisor, which alone issues certificates |
//! | `pki/ca.crt` | everybody | all who check a certificate |
//! | `control/pki/token.key` | control | control, which signs tokens while it serves |
//! | `control/pki/server.key`, `edge/*.key`, `node/node.key` | the role | the role |

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use evroc_iam::files::Owner;
use evroc_iam::identity::{GROUP_EDGES, GROUP_NODES, USER_EDGE, USER_NODE_PREFIX};
use evroc_iam::leaf::{self, LeafPaths, LeafSpec};
use evroc_iam::rotation::{PkiFiles, Rotation, Stage};
use evroc_iam::{Authority, TokenKey};

use super::{BootstrapError, Trust, host_name, refresh_user_files};
use crate::instance::InstanceRecord;
use crate::roles::Role;

/// The files of an instance's keys.
pub fn pki_files(record: &InstanceRecord) -> PkiFiles {
    let layout = record.layout();
    PkiFiles {
        authority: layout.authority(),
        trusted: layout.public_authority(),
        token: layout.role("control").join("pki"),
        token_owner: Some(Owner::same(record.uids.control())),
    }
}

/// A certificate of a role.
pub struct RoleLeaf {
    /// The role that uses it.
    pub role: Role,
    /// Names and purpose.
    pub spec: LeafSpec,
    /// Where it is.
    pub paths: LeafPaths,
    owner: Owner,
}

/// The certificates of all roles.
pub fn role_leaves(record: &InstanceRecord) -> Vec<RoleLeaf> {
    let layout = record.layout();
    let (control, edge) = (Owner::same(record.uids.control()), Owner::same(record.uids.edge()));
    let pki = layout.role("control").join("pki");
    let node = LeafSpec::client(format!("{USER_NODE_PREFIX}{}", host_name()), GROUP_NODES);
    let leaf = |role, spec, folder: PathBuf, name, owner| {
        let paths = LeafPaths::in_folder(&folder, name);
        RoleLeaf { role, spec, paths, owner }
    };
    vec![
        leaf(Role::Control, LeafSpec::control_server(&record.domain), pki, "server", control),
        leaf(Role::Edge, LeafSpec::client(USER_EDGE, GROUP_EDGES), layout.role("edge"), "edge", edge),
        leaf(Role::Edge, LeafSpec::gateway_server(&record.domain), layout.role("edge"), "serving", edge),
        leaf(Role::Node, node, layout.role("node"), "node", Owner::same(0)),
    ]
}

/// The result of [`ensure_certificates`].
pub struct Certificates {
    /// To issue the caller's certificate with.
    pub trust: Trust,
    /// A sentence for each thing that was made or renewed.
    pub notes: Vec<String>,
    /// Roles whose files changed and that must read them again if they run.
    pub changed: Vec<Role>,
    /// Whether the trust in a former authority has ended: connections that it let in must end.
    pub trust_ended: bool,
    /// When the first of them is to be looked at again: seconds since 1970.
    pub renewal: i64,
}

/// Makes, finishes or renews the authority, the token key and the certificates of the roles.
pub fn ensure_certificates(record: &InstanceRecord, now: SystemTime) -> Result<Certificates, BootstrapError> {
    let files = pki_files(record);
    let (authority, mut notes) = Authority::open_or_create(&files.signing(), &record.instance, now)?;
    TokenKey::open_or_create(&files.token_key(), files.token_owner)?;
    let published = files.publish(now)?;
    let mut changed = Vec::new();
    if published.changed {
        changed.extend(Role::ALL);
    }
    if published.ended {
        notes.push("a former certificate authority is not trusted any more".into());
    }
    let life = Duration::from_secs(record.leaf_life_seconds);
    let mut renewal = published.next_end.and_then(|end| i64::try_from(end).ok()).unwrap_or(i64::MAX);
    for leaf in role_leaves(record) {
        let ensured = leaf::ensure(&authority, &leaf.spec, &leaf.paths, Some(leaf.owner), life, now)?;
        renewal = renewal.min(ensured.renewal);
        if let Some(reason) = ensured.replaced {
            if reason != "there was none" {
                notes.push(format!("replaced {}: {reason}", leaf.paths.certificate.display()));
            }
            changed.push(leaf.role);
        }
    }
    let trust = Trust { authority, trusted: published.text };
    Ok(Certificates { trust, notes, changed, trust_ended: published.ended, renewal })
}

/// The result of a stage of a rotation.
pub struct StageDone {
    /// A sentence for each thing.
    pub notes: Vec<String>,
    /// Whether all roles must have loaded their files before the next stage.
    pub must_load: bool,
}

/// Carries out one stage of a rotation.
pub fn carry_out(record: &InstanceRecord, rotation: &Rotation, now: SystemTime) -> Result<StageDone, BootstrapError> {
    let files = pki_files(record);
    let mut notes = Vec::new();
    match rotation.stage {
        Stage::Prepare => {
            files.prepare(&record.instance, now)?;
            notes.push("made a new authority and a new token key".to_owned());
        }
        Stage::Publish => {
            let certificates = ensure_certificates(record, now)?;
            notes.push("both authorities are trusted".to_owned());
            notes.extend(refresh_user_files(record, &certificates.trust, now));
        }
        Stage::Switch => {
            files.switch(rotation, now)?;
            notes.push("the new authority and the new token key sign".to_owned());
        }
        Stage::Reissue => {
            let certificates = ensure_certificates(record, now)?;
            notes.extend(certificates.notes);
            notes.extend(refresh_user_files(record, &certificates.trust, now));
        }
    }
    Ok(StageDone { notes, must_load: matches!(rotation.stage, Stage::Publish | Stage::Reissue) })
}

/// Finishes a rotation that was interrupted, for an instance of which nothing runs. Returns a sentence for each thing that was done.
pub fn resume_rotation(record: &InstanceRecord, now: SystemTime) -> Result<Vec<String>, BootstrapError> {
    let files = pki_files(record);
    let mut notes = Vec::new();
    let mut rotation = files.rotation()?;
    while let Some(current) = rotation.filter(Rotation::goes_on) {
        notes.extend(carry_out(record, &current, now)?.notes);
        rotation = files.finish_stage(current)?;
    }
    Ok(notes)
}
