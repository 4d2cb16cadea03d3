//! Finds the owner of an item, by the names that the design gives to everything an instance creates.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::Class;
use crate::PREFIX;

/// The folder in which every instance of the machine is registered, one `<name>.json` each.
pub const REGISTRY: &str = "/var/lib/evroc-instances";

/// Instances that do not belong to the run: clouds from `make run`.
#[derive(Debug, Clone, Default)]
pub struct Foreign {
    instances: Vec<Instance>,
}

#[derive(Debug, Clone)]
struct Instance {
    name: String,
    /// The beginning of its links' names: `i` and four hex digits of the name's hash.
    link_prefix: String,
}

impl Foreign {
    /// The instances registered on this machine whose names are not a test's.
    pub fn registered() -> Foreign {
        let names = names_in(Path::new(REGISTRY));
        let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.starts_with(PREFIX)).collect();
        Foreign::of(&names)
    }

    /// These instances.
    pub fn of(names: &[&str]) -> Foreign {
        let instance = |name: &&str| Instance { name: (*name).to_owned(), link_prefix: link_prefix(name) };
        Foreign { instances: names.iter().map(instance).collect() }
    }

    /// The names of these instances.
    pub fn names(&self) -> Vec<String> {
        self.instances.iter().map(|instance| instance.name.clone()).collect()
    }

    /// Both.
    pub fn and(mut self, other: Foreign) -> Foreign {
        self.instances.extend(other.instances);
        self
    }

    /// Whether the item belongs to one of these instances.
    pub fn owns(&self, class: Class, item: &str) -> bool {
        self.instances.iter().any(|instance| match class {
            Class::Link => item.starts_with(&instance.link_prefix),
            _ => names_instance(item, &instance.name),
        })
    }
}

/// The beginning of the names of an instance's links: a name of 15 characters has no room for the instance's own.
pub fn link_prefix(instance: &str) -> String {
    let hash = Sha256::digest(instance.as_bytes());
    format!("i{:02x}{:02x}", hash[0], hash[1])
}

/// Whether the text has the instance's name as a word: `/run/evroc/x` and `evroc-vpc-1`, not `evroc-instances` or `evrocd`.
fn names_instance(text: &str, instance: &str) -> bool {
    text.match_indices(instance).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let rest = &text[at + instance.len()..];
        let free_before = !before.is_some_and(|c| c.is_alphanumeric() || "-_.".contains(c));
        let derived = ["-vpc-", "-ctr-", "-egress-"].iter().any(|kind| rest.starts_with(kind));
        let ends = !rest.chars().next().is_some_and(|c| c.is_alphanumeric() || "-_.".contains(c))
            || [".json", ".lock"].iter().any(|end| rest.starts_with(end));
        free_before && (ends || derived)
    })
}

fn names_in(registry: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(registry).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_owns_what_carries_its_name_and_no_more() {
        let foreign = Foreign::of(&["evroc"]);
        for (class, item) in [
            (Class::File, "/run/evroc"),
            (Class::File, "/var/lib/evroc-instances/evroc.json"),
            (Class::File, "/var/lib/evroc-instances/evroc.lock"),
            (Class::NetworkNamespace, "evroc-vpc-0a1b2c3d"),
            (Class::Cgroup, "memory:/evroc/m-1"),
            (Class::NftTable, "inet evroc"),
            (Class::HostsLine, "# evroc"),
        ] {
            assert!(foreign.owns(class, item), "{item}");
        }
        for (class, item) in [
            (Class::File, "/run/evroc-x"),
            (Class::File, "/var/lib/evroc-instances/evt-1.json"),
            (Class::NetworkNamespace, "evt-1-vpc-0a1b2c3d"),
            (Class::Link, "evroc"),
        ] {
            assert!(!foreign.owns(class, item), "{item}");
        }
        assert!(foreign.owns(Class::Link, &format!("{}t00112233", link_prefix("evroc"))));
    }
}
