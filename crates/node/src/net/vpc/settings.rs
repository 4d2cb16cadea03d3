//! The kernel's settings (sysctl) of namespaces and links.

use std::fs;
use std::io;
use std::path::Path;

use crate::net::error::{NetworkError, file};

/// Settings of a whole namespace, made before any link is in it.
pub(super) fn set_namespace_defaults() -> Result<(), NetworkError> {
    set("net/ipv6/conf/all/disable_ipv6", "1", true)?;
    set("net/ipv6/conf/default/disable_ipv6", "1", true)?;
    set("net/ipv4/conf/all/rp_filter", "1", false)?;
    set("net/ipv4/conf/default/rp_filter", "1", false)?;
    set("net/ipv4/conf/all/send_redirects", "0", false)?;
    set("net/ipv4/conf/default/send_redirects", "0", false)?;
    set("net/ipv4/conf/all/accept_redirects", "0", false)?;
    set("net/ipv4/ip_forward", "1", false)
}

/// Settings of a tap or of one end of the uplink's pair. `neigh/default` does not exist in namespaces other than the first, so the
/// delay of proxy ARP is set here.
pub(super) fn set_link_defaults(link: &str, is_tap: bool) -> Result<(), NetworkError> {
    set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1", true)?;
    set(&format!("net/ipv4/neigh/{link}/proxy_delay"), "0", false)?;
    if is_tap { set(&format!("net/ipv4/conf/{link}/proxy_arp"), "1", false) } else { Ok(()) }
}

/// Sets a value in the calling thread's namespace. `is_optional`: kernels without IPv6 are fine.
fn set(key: &str, value: &str, is_optional: bool) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys").join(key);
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_optional => Ok(()),
        other => other.map_err(file("set", &path)),
    }
}
