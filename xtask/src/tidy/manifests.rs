//! Dependencies and their features are declared once, at the workspace root; every crate takes the common lints.
//!
//! Two crates that ask for different features of one library build it twice, and a build of one crate alone has
//! another graph than the whole.

use super::Finding;
use crate::repo::Repo;

/// Finds manifests that declare what belongs to the root.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &repo.files {
        // A workspace of its own has nothing to take from the root.
        let is_member = !file.text.lines().any(|line| line.trim() == "[workspace]");
        if !file.path.ends_with("/Cargo.toml") || !is_member {
            continue;
        }
        let mut section = "";
        let mut takes_lints = false;
        for (number, line) in file.text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
                continue;
            }
            takes_lints |= section == "lints" && line == "workspace = true";
            if line.is_empty() || !is_dependencies(section) {
                continue;
            }
            let from_root = line.ends_with(".workspace = true") || line.ends_with("= { workspace = true }");
            let optional = line.ends_with("= { workspace = true, optional = true }");
            // A crate's tests may ask for more of the crate itself: that is one build either way.
            let itself = line.contains("path = \".\"") && section == "dev-dependencies";
            if !from_root && !optional && !itself {
                let place = format!("{}:{}", file.path, number + 1);
                let message = format!(
                    "a member says `name.workspace = true` and nothing else, found `{line}`; version and features go to the root Cargo.toml"
                );
                findings.push(Finding::error(place, message));
            }
        }
        if file.text.contains("[package]") && !takes_lints {
            findings.push(Finding::error(&file.path, "expected `[lints]` with `workspace = true`; add it"));
        }
    }
    findings
}

fn is_dependencies(section: &str) -> bool {
    ["dependencies", "dev-dependencies", "build-dependencies"].iter().any(|name| section.ends_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    #[test]
    fn features_versions_and_missing_lints_are_found() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"c\"] }\nd = \"1\"\n";
        let findings = check(&planted::files(&[("crates/x/Cargo.toml", text)]));
        let places: Vec<&str> = findings.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["crates/x/Cargo.toml:5", "crates/x/Cargo.toml:6", "crates/x/Cargo.toml"]);
    }

    #[test]
    fn a_plain_member_passes() {
        let text = "[package]\nname = \"x\"\n[lints]\nworkspace = true\n[dependencies]\na.workspace = true # why\n\n[[test]]\nname = \"t\"\n";
        assert_eq!(check(&planted::files(&[("crates/x/Cargo.toml", text)])), []);
    }
}
