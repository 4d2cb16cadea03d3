//! The links of a network namespace.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;

/// Links by name, with the index by which the kernel distinguishes two links that had one name after each other.
pub type Links = BTreeMap<String, u32>;

/// Lists the links of the calling thread's namespace.
pub fn list() -> io::Result<Links> {
    let mut links = Links::new();
    // SAFETY: `if_nameindex` gives null or an array that ends with a null name; every name in it is NUL-terminated and lives until
    // `if_freenameindex`, which is called once, after the last access.
    unsafe {
        let first = libc::if_nameindex();
        if first.is_null() {
            return Err(io::Error::last_os_error());
        }
        let mut entry = first;
        while !(*entry).if_name.is_null() {
            links.insert(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned(), (*entry).if_index);
            entry = entry.add(1);
        }
        libc::if_freenameindex(first);
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_link_is_listed_with_its_index() {
        assert_eq!(list().unwrap().get("lo"), Some(&1));
    }
}
