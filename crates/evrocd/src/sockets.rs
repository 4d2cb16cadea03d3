//! Sockets of the machine, from the kernel's tables: who listens where.

use std::net::IpAddr;

/// Listening sockets of the machine, from `/proc/net/tcp` and `tcp6`: address, port, inode.
pub fn listening() -> Vec<(IpAddr, u16, u64)> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|path| parse_listening(&std::fs::read_to_string(path).unwrap_or_default()))
        .collect()
}

fn parse_listening(text: &str) -> Vec<(IpAddr, u16, u64)> {
    const LISTEN: &str = "0A";
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if *fields.get(3)? != LISTEN {
                return None;
            }
            let (address, port) = fields[1].split_once(':')?;
            // Each group of eight digits is a word in the machine's byte order.
            let bytes: Vec<u8> = (0..address.len() / 8)
                .filter_map(|word| u32::from_str_radix(&address[word * 8..word * 8 + 8], 16).ok())
                .flat_map(u32::to_ne_bytes)
                .collect();
            let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
                Ok(four) => IpAddr::from(four),
                Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
            };
            Some((address, u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
        })
        .collect()
}

/// Describes the process that listens on a port, as far as the caller may see it.
pub fn holder_of(port: u16) -> Option<String> {
    let inodes: Vec<u64> =
        listening().into_iter().filter(|(_, found, _)| *found == port).map(|(_, _, inode)| inode).collect();
    crate::process::all().into_iter().find_map(|process| {
        let holds = sockets_of(process.id.pid).iter().any(|(_, inode)| inodes.contains(inode));
        let name = process.program.file_name()?.to_string_lossy().into_owned();
        holds.then(|| format!("process {} ({name})", process.id.pid))
    })
}

/// Open sockets of a process: descriptor and inode.
pub fn sockets_of(pid: i32) -> Vec<(i32, u64)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, inode))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn tables_of_the_kernel_are_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
             1: 0100007F:192B 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n";
        assert_eq!(parse_listening(text), [(IpAddr::from([127, 0, 0, 1]), 6443, 4711)]);
        let six = "h\n 0: 00000000000000000000000001000000:01BB 0:0 0A 0:0 0:0 0 0 0 99 1\n";
        assert_eq!(parse_listening(six), [(IpAddr::V6(Ipv6Addr::LOCALHOST), 443, 99)]);
    }
}
