//! The users of shims. Each shim has one of its own, so that one that was taken over by what it reads from its workload finds neither the
//! output nor the socket of another.
//!
//! A shim owns its folder; so the folders are the record of who has which user, also for the next agent. Users of shims that are just being
//! started are remembered in memory.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::spec::User;

/// A range of users for the shims whose folders are in one folder. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct ShimUsers {
    folder: PathBuf,
    first: u32,
    count: u32,
    starting: Arc<Mutex<BTreeSet<u32>>>,
}

/// The user of a shim that is being started. To be held until the shim runs.
#[derive(Debug)]
pub struct ChosenUser {
    id: u32,
    users: ShimUsers,
}

impl ShimUsers {
    /// `count` users from `first` on; `folder` holds the folders of all shims.
    pub fn new(folder: impl Into<PathBuf>, first: u32, count: u32) -> Self {
        Self { folder: folder.into(), first, count, starting: Arc::default() }
    }

    /// Chooses a user for the shim with the folder `id`: the one that owned the folder before, else an unused one.
    pub fn choose(&self, id: &str) -> io::Result<ChosenUser> {
        let mut starting = self.starting();
        let mut taken = starting.clone();
        let mut before = None;
        for entry in crate::io::if_present(fs::read_dir(&self.folder))?.into_iter().flatten() {
            let entry = entry?;
            // One that vanishes meanwhile has nobody's user.
            let Some(found) = crate::io::if_present(entry.metadata())? else { continue };
            if entry.file_name() == id {
                before = Some(found.uid());
            } else {
                taken.insert(found.uid());
            }
        }
        let range = self.first..self.first.saturating_add(self.count);
        let is_free = |user: &u32| range.contains(user) && !taken.contains(user);
        let chosen = before.filter(is_free).or_else(|| range.clone().find(is_free));
        let id = chosen.ok_or_else(|| io::Error::other(format!("all {} users of shims are in use", self.count)))?;
        starting.insert(id);
        drop(starting);
        Ok(ChosenUser { id, users: self.clone() })
    }

    fn starting(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChosenUser {
    /// The user, in a group of its own.
    pub fn user(&self) -> User {
        User { uid: self.id, gid: self.id, groups: vec![] }
    }
}

impl Drop for ChosenUser {
    fn drop(&mut self) {
        self.users.starting().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn users_are_chosen_until_there_are_none_left() {
        let folder = tempfile::tempdir().unwrap();
        let users = ShimUsers::new(folder.path(), 5000, 2);
        let (one, two) = (users.choose("a").unwrap(), users.clone().choose("b").unwrap());
        assert_eq!((one.user().uid, two.user().uid), (5000, 5001));
        assert!(users.choose("c").unwrap_err().to_string().contains("in use"));
        drop(one);
        assert_eq!(users.choose("c").unwrap().user().gid, 5000);
        let absent = ShimUsers::new(folder.path().join("absent"), 5000, 1);
        assert_eq!(absent.choose("a").unwrap().user().uid, 5000);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_folder_keeps_its_user_and_no_other_shim_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        for (id, owner) in [("a", 5000), ("b", 5001), ("old", 4)] {
            fs::create_dir(folder.path().join(id)).unwrap();
            chown(folder.path().join(id), Some(owner), Some(owner)).unwrap();
        }
        let users = ShimUsers::new(folder.path(), 5000, 10);
        let again = users.choose("b").unwrap();
        assert_eq!(again.user().uid, 5001, "its own again");
        assert_eq!(users.choose("new").unwrap().user().uid, 5002);
        assert_eq!(users.choose("old").unwrap().user().uid, 5002, "one of the range from now on");
    }
}
