//! Owners: the uid of the tenant that the repositories below a first component belong to.
//!
//! ```text
//! (no record) ── first request of tenant U ──> U ── forgotten: repositories, then the record ──> (no record)
//!                                              └── first request of tenant V: repositories of U, then the record is V's
//! ```
//! What is interrupted by a crash begins again, because the record goes last. Records are also in memory, behind the lock that writes of
//! references take for reading: a push that began under U does not end under V.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::PoisonError;

use super::{Storage, files};
use crate::error::{Code, RegistryError};
use crate::names::Repository;

/// Uids by first component.
pub(crate) type Owners = BTreeMap<String, String>;

impl Storage {
    /// Reads the records of a registry that is being opened.
    pub(super) fn read_owners(root: &std::path::Path) -> Result<Owners, RegistryError> {
        let folder = root.join("tenants");
        let mut owners = Owners::new();
        for name in files::names(&folder)? {
            if let Some(uid) = files::read(&folder.join(&name))? {
                owners.insert(name, String::from_utf8_lossy(uid.trim_ascii()).into_owned());
            }
        }
        Ok(owners)
    }

    /// All owners.
    pub fn owners(&self) -> Owners {
        self.referring().clone()
    }

    /// Makes `uid` the owner of all repositories below `name`. Those of another owner are removed; those without an owner, from before
    /// owners were recorded, become its own.
    pub fn bind(&self, name: &str, uid: &str) -> Result<(), RegistryError> {
        if self.referring().get(name).is_some_and(|owner| owner == uid) {
            return Ok(());
        }
        let mut owners = self.references.write().unwrap_or_else(PoisonError::into_inner);
        if owners.get(name).is_some_and(|owner| owner != uid) {
            let removed = self.delete_repositories(name)?;
            tracing::info!(name, removed, "repositories of a former tenant of the same name were removed");
        }
        files::replace(&self.temporary(), &self.owner_record(name), uid.as_bytes())?;
        owners.insert(name.to_owned(), uid.to_owned());
        Ok(())
    }

    /// Removes all repositories below `name` if they belong to `uid` or have no owner; returns how many there were.
    pub fn forget(&self, name: &str, uid: &str) -> Result<usize, RegistryError> {
        let mut owners = self.references.write().unwrap_or_else(PoisonError::into_inner);
        if owners.get(name).is_some_and(|owner| owner != uid) {
            return Ok(0);
        }
        let removed = self.delete_repositories(name)?;
        files::remove(&self.owner_record(name))?;
        owners.remove(name);
        Ok(removed)
    }

    /// Refuses what was admitted for a tenant that is no longer the owner. The caller holds the references.
    pub(super) fn check_owner(owners: &Owners, repository: &Repository, owner: &str) -> Result<(), RegistryError> {
        match owners.get(repository.first_component()) {
            Some(found) if found == owner => Ok(()),
            _ => Err(unknown_owner(repository)),
        }
    }

    /// Removes repositories and unfinished uploads. The caller holds the references alone.
    fn delete_repositories(&self, name: &str) -> Result<usize, RegistryError> {
        self.cancel_uploads(name);
        let mut removed = 0;
        for repository in self.repository_folders()? {
            if repository.first_component() != name {
                continue;
            }
            let folder = self.repository(&repository);
            // Tags first, blobs last: what still exists is complete.
            for part in files::names(&folder)?.iter().rev().filter(|part| part.starts_with('_')) {
                remove_folder(folder.join(part))?;
            }
            files::sync_folder(&folder)?;
            removed += 1;
        }
        remove_folder(self.root.join("repositories").join(name))?;
        Ok(removed)
    }

    fn owner_record(&self, name: &str) -> PathBuf {
        self.root.join("tenants").join(name)
    }
}

fn remove_folder(path: PathBuf) -> Result<(), RegistryError> {
    files::absent(fs::remove_dir_all(&path))
        .map(|_| ())
        .map_err(|error| RegistryError::io(format!("remove {}", path.display()), error))
}

/// The answer for a repository without an owner.
pub(crate) fn unknown_owner(repository: &Repository) -> RegistryError {
    let name = repository.first_component();
    RegistryError::new(
        Code::NameUnknown,
        format!(
            "repository {repository} cannot exist: there is no resource group {name:?}; repositories are named \
             <resource group>/<name>, create the resource group first"
        ),
    )
}
