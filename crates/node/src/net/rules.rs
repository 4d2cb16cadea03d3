//! The nftables rule sets, as text for `nft -f -`: pure functions of the desired state.
//!
//! Each text is one transaction that replaces the whole table, so packets see the old rules or the new ones; connections that are
//! established stay so (they live in conntrack, not in the table).

use std::fmt::Write;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::mac::MacAddress;

/// The inputs of a VPC's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcRules<'a> {
    /// Name of the table.
    pub table: &'a str,
    /// Matches the names of all taps.
    pub tap_pattern: &'a str,
    /// The link that leads out, if any does.
    pub uplink: Option<&'a str>,
    /// The VPC's addresses.
    pub subnet: Ipv4Net,
    /// The gateway's address among them.
    pub gateway: Ipv4Addr,
    /// The addresses that each tap may send from.
    pub ports: Vec<PortRule>,
}

/// The addresses that a tap may send from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRule {
    /// The tap.
    pub link: String,
    /// The machine's link address.
    pub mac: MacAddress,
    /// The machine's address.
    pub address: Ipv4Addr,
}

/// The table in a VPC's namespace.
pub fn vpc_table(rules: &VpcRules<'_>) -> String {
    let VpcRules { table, tap_pattern, uplink, subnet, gateway, ports } = rules;
    let mut ports = ports.clone();
    ports.sort();
    let links = ports.iter().map(|port| format!("\"{}\" . {}", port.link, port.mac));
    let sources = ports.iter().map(|port| format!("\"{}\" . {} . {}", port.link, port.mac, port.address));
    let mut text = replace(table);
    let _ = write!(
        text,
        "table inet {table} {{
\tset links {{
\t\ttype ifname . ether_addr
{links}\t}}

\tset sources {{
\t\ttype ifname . ether_addr . ipv4_addr
{sources}\t}}

\tchain spoofing {{
\t\ttype filter hook prerouting priority raw; policy accept;
\t\tiifname != \"{tap_pattern}\" accept
\t\tiifname . ether saddr . ip saddr @sources accept
\t\tiifname . ether saddr @links ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
\t\tdrop
\t}}

\tchain to_host {{
\t\ttype filter hook input priority filter; policy drop;
\t\tiifname \"lo\" accept
\t\tct state established,related accept
\t\tiifname \"{tap_pattern}\" udp sport 68 udp dport 67 accept
\t\tiifname \"{tap_pattern}\" ip daddr {gateway} icmp type echo-request accept
\t}}

\tchain through {{
\t\ttype filter hook forward priority filter; policy drop;
",
        links = elements(links),
        sources = elements(sources),
    );
    if let Some(uplink) = uplink {
        let _ = writeln!(text, "\t\toifname \"{uplink}\" tcp flags syn / syn,rst tcp option maxseg size set rt mtu");
        let _ = writeln!(text, "\t\tiifname \"{uplink}\" tcp flags syn / syn,rst tcp option maxseg size set rt mtu");
    }
    text.push_str("\t\tct state invalid drop\n\t\tct state established,related accept\n");
    let _ = writeln!(text, "\t\tiifname \"{tap_pattern}\" oifname \"{tap_pattern}\" accept");
    if let Some(uplink) = uplink {
        let _ = writeln!(text, "\t\tiifname \"{tap_pattern}\" oifname \"{uplink}\" accept");
    }
    text.push_str("\t}\n");
    if let Some(uplink) = uplink {
        let _ = write!(
            text,
            "
\tchain egress {{
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname \"{uplink}\" ip saddr {subnet} masquerade
\t}}
"
        );
    }
    text.push_str("}\n");
    text
}

/// The host's own table, when it is the uplink: packets may leave VPCs, and only answers may enter them.
pub fn host_table(table: &str, uplink_pattern: &str, transit: Ipv4Net) -> String {
    let mut text = replace(table);
    let _ = write!(
        text,
        "table inet {table} {{
\tchain through {{
\t\ttype filter hook forward priority filter; policy accept;
\t\tiifname \"{uplink_pattern}\" oifname \"{uplink_pattern}\" drop
\t\toifname \"{uplink_pattern}\" ct state established,related accept
\t\toifname \"{uplink_pattern}\" drop
\t\tiifname \"{uplink_pattern}\" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
\t}}

\tchain to_host {{
\t\ttype filter hook input priority filter; policy accept;
\t\tiifname \"{uplink_pattern}\" ct state established,related accept
\t\tiifname \"{uplink_pattern}\" drop
\t}}

\tchain egress {{
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr {transit} oifname != \"{uplink_pattern}\" masquerade
\t}}
}}
"
    );
    text
}

/// Removes a table; an absent one counts as removed.
pub fn remove_table(table: &str) -> String {
    replace(table)
}

/// Begins a transaction without the table. `delete` alone fails when the table is absent.
fn replace(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

fn elements(all: impl Iterator<Item = String>) -> String {
    let all: Vec<_> = all.collect();
    if all.is_empty() {
        return String::new();
    }
    format!("\t\telements = {{\n\t\t\t{},\n\t\t}}\n", all.join(",\n\t\t\t"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::check_in;

    fn rules(uplink: Option<&'static str>) -> VpcRules<'static> {
        let port = |link: &str, mac: &str, address: &str| PortRule {
            link: link.into(),
            mac: mac.parse().unwrap(),
            address: address.parse().unwrap(),
        };
        VpcRules {
            table: "evroc",
            tap_pattern: "i1234t*",
            uplink,
            subnet: "10.0.0.0/24".parse().unwrap(),
            gateway: "10.0.0.1".parse().unwrap(),
            ports: vec![
                port("i1234tbbbbbbbb", "02:e7:0c:00:00:04", "10.0.0.4"),
                port("i1234taaaaaaaa", "02:e7:0c:00:00:03", "10.0.0.3"),
            ],
        }
    }

    #[test]
    fn rule_sets_are_the_golden_ones() {
        check_in("net", "vpc.nft", &vpc_table(&rules(Some("i1234ucccccccc"))));
        check_in("net", "vpc-without-uplink.nft", &vpc_table(&VpcRules { ports: Vec::new(), ..rules(None) }));
        check_in("net", "host.nft", &host_table("evroc", "i1234p*", "198.18.0.0/15".parse().unwrap()));
    }
}
