//! Kinds of the operator's own (`evrocd up --crd-dir`): the supervisor checks the files and copies them to where control, which has no
//! rights of its own, can read them.

use anyhow::{Context, bail};
use evroc_apiserver::ResourceKind;
use evroc_iam::files;

use crate::instance::InstanceRecord;
use crate::roles::Role;
use crate::supervisor::role_owner;

/// Replaces control's copy by the content of the remembered folder.
pub fn install(record: &InstanceRecord) -> anyhow::Result<()> {
    let copy = record.layout().definitions();
    match std::fs::remove_dir_all(&copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", copy.display()));
        }
        _ => {}
    }
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
    std::fs::create_dir(&copy)
        .and_then(|()| std::os::unix::fs::chown(&copy, Some(owner.uid), Some(owner.gid)))
        .and_then(|()| std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700)))
        .with_context(|| format!("cannot make {}", copy.display()))?;
    for entry in std::fs::read_dir(given).with_context(|| format!("cannot read {}", given.display()))? {
        let path = entry?.path();
        let is_definition = path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
        if let (true, Some(name)) = (is_definition, path.file_name()) {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files::write_atomic(&copy.join(name), &bytes, 0o600, Some(owner))?;
        }
    }
    Ok(())
}
