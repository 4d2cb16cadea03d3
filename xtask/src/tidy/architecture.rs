//! ARCHITECTURE.md is the map: a crate that is not on it does not exist for a reader.

use super::Finding;
use crate::repo::Repo;

const MAP: &str = "ARCHITECTURE.md";

/// Finds crates that the map leaves out, and crates on the map that do not exist.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let Some(map) = repo.text(MAP) else {
        return vec![Finding::error(MAP, "there is no such file; it holds the map of the crates and the invariants")];
    };
    let mut findings = Vec::new();
    for package in repo.packages.iter().filter(|package| package.dir.starts_with("crates/")) {
        let short = package.short();
        let named = [format!("{short}/"), format!("`{short}`"), format!("`crates/{short}`"), format!("evroc-{short}")];
        if !named.iter().any(|name| map.contains(name.as_str())) {
            findings
                .push(Finding::error(MAP, format!("{} is not on the map; add a line on what it is for", package.dir)));
        }
    }
    for (number, line) in map.lines().enumerate() {
        for word in line.split(|c: char| !(c.is_alphanumeric() || "/_-".contains(c))) {
            let Some(name) = word.trim_end_matches('/').strip_prefix("crates/") else { continue };
            let dir = name.split('/').next().unwrap_or_default();
            if !dir.is_empty() && !repo.packages.iter().any(|package| package.short() == dir) {
                let message = format!("crates/{dir} is on the map and not in the tree; correct the map");
                findings.push(Finding::error(format!("{MAP}:{}", number + 1), message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    #[test]
    fn a_missing_map_a_missing_crate_and_a_ghost_are_found() {
        let mut repo = planted::files(&[]);
        assert_eq!(check(&repo).len(), 1);
        repo = planted::files(&[(MAP, "crates/\n  api/  kinds\nsee crates/ghost/src\n")]);
        repo.packages = vec![planted::package("evroc-api", &[]), planted::package("evroc-store", &[])];
        let messages: Vec<String> = check(&repo).into_iter().map(|finding| finding.message).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(messages[0].contains("crates/store") && messages[1].contains("crates/ghost"));
    }
}
