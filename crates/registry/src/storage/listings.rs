//! Listings: tags of a repository, repositories.

use std::path::Path;
use std::str::FromStr;

use super::{Storage, files};
use crate::error::{Code, RegistryError};
use crate::names::{Repository, Tag};

/// Part of a sorted list.
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    /// Whether there is more after the last item.
    pub more: bool,
}

impl<T> Page<T> {
    /// The items after `last`, at most `limit`.
    pub fn of(all: Vec<T>, last: Option<&str>, limit: Option<usize>, name: impl Fn(&T) -> &str) -> Self {
        let mut items: Vec<T> = all.into_iter().filter(|item| last.is_none_or(|last| name(item) > last)).collect();
        let limit = limit.unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        Page { items, more }
    }
}

impl Storage {
    /// Whether anything was ever pushed to the repository.
    pub fn has_repository(&self, repository: &Repository) -> bool {
        self.repository(repository).join("_manifests").is_dir()
    }

    pub(super) fn unknown_repository(&self, repository: &Repository) -> RegistryError {
        RegistryError::new(
            Code::NameUnknown,
            format!("repository {repository} does not exist: it comes to be when an image is pushed to it"),
        )
    }

    /// All tags in order.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, RegistryError> {
        if !self.has_repository(repository) {
            return Err(self.unknown_repository(repository));
        }
        let names = files::names(&self.repository(repository).join("_tags"))?;
        Ok(names.iter().filter_map(|name| Tag::from_str(name).ok()).collect())
    }

    /// All repositories to which a manifest was pushed, in order.
    pub fn repositories(&self) -> Result<Vec<Repository>, RegistryError> {
        let mut found = self.repository_folders()?;
        found.retain(|repository| self.has_repository(repository));
        Ok(found)
    }

    /// All repositories that have a folder with content of their own, in order.
    pub(super) fn repository_folders(&self) -> Result<Vec<Repository>, RegistryError> {
        let mut found = Vec::new();
        collect(&self.root.join("repositories"), "", &mut found)?;
        found.sort_unstable();
        Ok(found)
    }
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<Repository>) -> Result<(), RegistryError> {
    let names = files::names(folder)?;
    if names.iter().any(|name| name.starts_with('_')) {
        found.extend(Repository::from_str(prefix));
    }
    for name in names.iter().filter(|name| !name.starts_with('_')) {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        collect(&folder.join(name), &path, found)?;
    }
    Ok(())
}
