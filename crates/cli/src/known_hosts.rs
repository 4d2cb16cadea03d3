//! The file of host keys that `vm ssh` knows guests by.
//!
//! A guest has a host key for as long as it has its boot disk, so its name in the file is made of the VM and the disk: a VM that boots
//! from another disk is met for the first time, instead of stopping with a warning about an attack. Names of guests that are gone are taken
//! out.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use anyhow::Context;

/// More than anybody's guests: what other resource groups left is dropped from the front.
const MOST_LINES: usize = 1_000;

/// The name of a guest in the file.
pub fn alias(namespace: &str, vm_uid: &str, boot_disk_uid: &str) -> String {
    format!("{namespace}.{vm_uid}.{boot_disk_uid}")
}

/// Takes out the guests of this resource group that are gone: `vms` are the uids of those that exist, `alias` is the guest that is
/// about to be met.
pub fn tidy(path: &Path, namespace: &str, vms: &BTreeSet<String>, alias: &str) -> anyhow::Result<()> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let Some(kept) = kept(&text, namespace, vms, alias) else { return Ok(()) };
    let new = path.with_extension("new");
    let replaced = std::fs::write(&new, kept).and_then(|()| std::fs::rename(&new, path));
    replaced.with_context(|| format!("cannot write {}", path.display()))
}

/// The lines to keep, if there are others.
fn kept(text: &str, namespace: &str, vms: &BTreeSet<String>, alias: &str) -> Option<String> {
    let is_current = |line: &&str| {
        let name = line.split([' ', '\t', ',']).next().unwrap_or_default();
        let Some((group, rest)) = name.split_once('.') else {
            // A name as an earlier version wrote it, hashed or not, is not looked for any more.
            return line.trim_start().starts_with('#');
        };
        let vm = rest.split('.').next().unwrap_or_default();
        group != namespace || name == alias || (vms.contains(vm) && !alias.starts_with(&format!("{group}.{vm}.")))
    };
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let current: Vec<&str> = all.iter().copied().filter(is_current).collect();
    let kept = &current[current.len().saturating_sub(MOST_LINES)..];
    (kept.len() < all.len()).then(|| kept.iter().map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_of(lines: &[&str]) -> Option<Vec<String>> {
        let vms = ["u1", "u2"].map(str::to_owned).into();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        kept(&text, "demo", &vms, &alias("demo", "u1", "new")).map(|text| text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn guests_that_are_gone_are_taken_out() {
        let lines = [
            "demo.u1.old ssh-ed25519 AAAA",
            "demo.u1.new ssh-ed25519 AAAA",
            "demo.u2.disk ssh-ed25519 AAAA",
            "demo.gone.disk ssh-ed25519 AAAA",
            "other.u9.disk ssh-ed25519 AAAA",
            "3f0c6c5e-6a9f-4a55-8a0e-000000000001 ssh-ed25519 AAAA",
            "|1|hashed= ssh-ed25519 AAAA",
        ];
        assert_eq!(kept_of(&lines).unwrap(), [lines[1], lines[2], lines[4]]);
        assert_eq!(kept_of(&[lines[1], lines[2], lines[4]]), None, "nothing to write");
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let lines: Vec<String> = (0..1_500).map(|number| format!("group{number}.u.d ssh-ed25519 AAAA")).collect();
        let kept = kept_of(&lines.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert_eq!((kept.len(), kept.last()), (MOST_LINES, lines.last()));
    }
}
