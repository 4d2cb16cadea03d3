//! Kinds of the operator's own (`evrocd up --crd-dir`): the supervisor checks the files and copies them to where control, which has no
//! rights of its own, can read them.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, bail};
use evroc_apiserver::ResourceKind;
use evroc_iam::files;

use crate::instance::InstanceRecord;
use crate::roles::Role;
use crate::supervisor::role_owner;

/// Replaces control's copy by the content of the remembered folder.
pub fn install(record: &InstanceRecord) -> anyhow::Result<()> {
    let copy = record.layout().definitions();
    remove(&copy)?;
    let Some(given) = &record.crd_dir else { return Ok(()) };
    let kinds = ResourceKind::in_dir(given).map_err(anyhow::Error::from)?;
    if kinds.is_empty() {
        bail!(
            "{}: expected CustomResourceDefinitions in its .yaml, .yml or .json files, found none; name another folder, or `none`",
            given.display()
        );
    }
    if let Some(kind) = kinds.iter().find(|it| it.group.is_empty() || it.group.ends_with(".evroclabs.net")) {
        bail!("{}: expected a group of your own, found {:?} of kind {}", given.display(), kind.group, kind.kind);
    }
    let owner = role_owner(record, Role::Control);
    // Made where control cannot put a link in its place, and handed over as a whole.
    let new = record.layout().state.join(".definitions.new");
    remove(&new)?;
    DirBuilder::new().mode(0o700).create(&new).with_context(|| format!("cannot make {}", new.display()))?;
    for entry in std::fs::read_dir(given).with_context(|| format!("cannot read {}", given.display()))? {
        let path = entry?.path();
        let is_definition = path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
        if let (true, Some(name)) = (is_definition, path.file_name()) {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files::write_atomic(&new.join(name), &bytes, 0o600, Some(owner))?;
        }
    }
    std::os::unix::fs::chown(&new, Some(owner.uid), Some(owner.gid))
        .and_then(|()| std::fs::rename(&new, &copy))
        .with_context(|| format!("cannot make {}", copy.display()))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", folder.display()))
        }
        _ => Ok(()),
    }
}
