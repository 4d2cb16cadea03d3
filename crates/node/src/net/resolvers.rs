//! The resolvers that guests use.

use std::net::Ipv4Addr;

/// At most this many: as many as a resolver library uses.
const MAX: usize = 3;

/// The host's resolvers that a guest can use, too: those of `resolv.conf`, and where that only names a stub on the host itself
/// (systemd-resolved listens on 127.0.0.53), the upstream servers of the stub. IPv4 only, as VPCs are.
pub fn for_guests(resolv_conf: &str, behind_the_stub: &str) -> Vec<Ipv4Addr> {
    let found = usable(resolv_conf);
    if found.is_empty() { usable(behind_the_stub) } else { found }
}

/// [`for_guests`] of this host.
pub fn of_this_host() -> Vec<Ipv4Addr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    for_guests(&read("/etc/resolv.conf"), &read("/run/systemd/resolve/resolv.conf"))
}

fn usable(text: &str) -> Vec<Ipv4Addr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<Ipv4Addr>().ok())
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .take(MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_on_the_host_are_looked_behind() {
        let real = "nameserver 192.0.2.1\nnameserver 192.0.2.2 # two\n";
        for (conf, behind, want) in [
            (real, "", vec![[192, 0, 2, 1], [192, 0, 2, 2]]),
            ("# x\nnameserver 127.0.0.53\noptions edns0\n", real, vec![[192, 0, 2, 1], [192, 0, 2, 2]]),
            ("nameserver 127.0.0.1\nnameserver 192.0.2.9\n", real, vec![[192, 0, 2, 9]]),
            ("nameserver ::1\nnameserver fe80::1%eth0\n", "", vec![]),
            ("", "", vec![]),
        ] {
            assert_eq!(for_guests(conf, behind), want.into_iter().map(Ipv4Addr::from).collect::<Vec<_>>(), "{conf:?}");
        }
    }
}
