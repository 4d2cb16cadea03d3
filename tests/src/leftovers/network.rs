//! Named network namespaces, links of the host, and its nftables tables.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Names in /run/netns.
pub fn namespaces() -> BTreeSet<String> {
    names("/run/netns")
}

/// Links of the namespace that this process is in.
pub fn links() -> BTreeSet<String> {
    names("/sys/class/net")
}

/// Tables as `<family> <name>`; empty where nft is not installed.
pub fn nft_tables() -> BTreeSet<String> {
    let Ok(output) = Command::new("nft").args(["-j", "list", "tables"]).output() else { return BTreeSet::new() };
    tables_in(&output.stdout)
}

fn tables_in(json: &[u8]) -> BTreeSet<String> {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(json) else { return BTreeSet::new() };
    let entries = answer["nftables"].as_array().into_iter().flatten();
    let tables =
        entries.filter_map(|entry| Some((entry["table"]["family"].as_str()?, entry["table"]["name"].as_str()?)));
    tables.map(|(family, name)| format!("{family} {name}")).collect()
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_from_json() {
        let json =
            br#"{"nftables":[{"metainfo":{"version":"1.0.6"}},{"table":{"family":"inet","name":"evroc","handle":1}}]}"#;
        assert_eq!(tables_in(json), BTreeSet::from(["inet evroc".to_owned()]));
        assert_eq!(tables_in(b""), BTreeSet::new());
    }
}
