use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::files::{read_if_exists, remove_leftovers, write_atomic};

#[test]
fn a_file_is_replaced_with_the_requested_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    write_atomic(&path, b"one", 0o600, None).unwrap();
    write_atomic(&path, b"two", 0o644, None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_failed_write_leaves_the_old_file_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/folder/key");
    let error = write_atomic(&missing, b"x", 0o600, None).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot write {}", missing.display()));
    assert_eq!(read_if_exists(&missing).unwrap(), None);
}

#[test]
fn leftovers_of_an_interrupted_write_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".tmp-ca.key-17-0"), "half").unwrap();
    fs::write(folder.path().join("ca.key"), "whole").unwrap();
    assert_eq!(remove_leftovers(folder.path()).unwrap().len(), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(remove_leftovers(&folder.path().join("missing")).unwrap().is_empty());
}
