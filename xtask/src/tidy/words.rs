//! Texts that no file may contain: traces of the machine or the occasion at which it was written.
//!
//! Paths and hosts are not listed here: they are asked of the machine that runs the check (the folder of the clone, its package
//! sources), so the rule holds on every machine and this file gives nothing away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::repo::{self, Repo};

/// First folders that exist on every machine and so identify none.
const COMMON_ROOTS: &[&str] = &[
    "bin", "boot", "dev", "etc", "home", "lib", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys",
    "tmp", "usr", "var", "Users",
];

/// Hosts in a machine's settings that do not identify the machine.
const PUBLIC_HOSTS: &[&str] = &["github.com", "localhost", "127.0.0.1"];

/// Phrases about the making of a change instead of the thing; history belongs into the commit message.
const PHRASES: &[&str] = &[
    "in this session",
    "previous session",
    "next session",
    "earlier session",
    "language model",
    "as an ai ",
    "subagent",
    "co-authored-by",
];

/// Returns texts of this machine that no file may contain.
pub struct Traces {
    paths: Vec<String>,
    hosts: BTreeSet<String>,
}

/// Finds traces of this machine and of the making.
pub fn check(repo: &Repo) -> Vec<Finding> {
    find(repo, &Traces::of_this_machine())
}

fn find(repo: &Repo, traces: &Traces) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &repo.files {
        if file.path == "xtask/src/tidy/words.rs" {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            let place = || format!("{}:{}", file.path, number + 1);
            for path in traces.paths.iter().filter(|path| contains_path(line, path)) {
                findings.push(Finding::error(
                    place(),
                    format!("`{path}` exists on this machine only; make it relative or a setting"),
                ));
            }
            for host in traces.hosts.iter().filter(|host| line.contains(host.as_str())) {
                findings.push(Finding::error(
                    place(),
                    format!("`{host}` is this machine's package source; take it from the client's settings"),
                ));
            }
            let lower = line.to_lowercase();
            for phrase in PHRASES.iter().filter(|phrase| lower.contains(**phrase)) {
                findings.push(Finding::error(
                    place(),
                    format!("`{phrase}` is about the making, not the thing; describe the thing"),
                ));
            }
            if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
                findings.push(Finding::error(place(), "a merge conflict is left here"));
            }
        }
    }
    findings
}

/// Whether the line names the absolute path itself, not a relative path that ends alike.
fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let part = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || "_-.}$/)".contains(c));
        let after = line[at + path.len()..].chars().next();
        !part(line[..at].chars().next_back()) && !after.is_some_and(|c| c.is_alphanumeric() || "_-".contains(c))
    })
}

impl Traces {
    fn of_this_machine() -> Traces {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let mut hosts = BTreeSet::new();
        for (name, value) in std::env::vars() {
            let name = name.to_uppercase();
            if ["PIP_", "CARGO_", "NPM_", "UV_"].iter().any(|prefix| name.starts_with(prefix))
                || name.ends_with("_PROXY")
            {
                hosts.extend(hosts_in(&value));
            }
        }
        let apt =
            std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
        let files = [".cargo/config.toml", ".cargo/config", ".npmrc", ".pip/pip.conf", ".config/pip/pip.conf"]
            .map(|file| home.join(file));
        let system = ["/etc/apt/sources.list", "/etc/pip.conf", "/etc/npmrc"].map(PathBuf::from);
        for file in files.into_iter().chain(system).chain(apt) {
            hosts.extend(hosts_in(&std::fs::read_to_string(file).unwrap_or_default()));
        }
        Traces { paths: paths_of(&repo::root(), &home), hosts }
    }
}

/// The clone's own folder, the uncommon folder it stands in, and the home of a person.
fn paths_of(root: &Path, home: &Path) -> Vec<String> {
    let mut paths = vec![root.to_string_lossy().into_owned()];
    if let Some(first) = root.components().nth(1) {
        let first = first.as_os_str().to_string_lossy();
        if !COMMON_ROOTS.contains(&first.as_ref()) {
            paths = vec![format!("/{first}")];
        }
    }
    // Every machine and every guest has a /root; the files of a toolchain in it are this machine's.
    if home == Path::new("/root") {
        paths.extend([".cargo", ".rustup"].map(|folder| home.join(folder).to_string_lossy().into_owned()));
    } else if home.components().count() > 2 {
        paths.push(home.to_string_lossy().into_owned());
    }
    paths
}

/// Hosts of the addresses in a text, without those that everybody has.
fn hosts_in(text: &str) -> BTreeSet<String> {
    let addresses = text.match_indices("://").map(|(at, mark)| &text[at + mark.len()..]);
    let hosts = addresses.filter_map(|rest| {
        let authority = rest.split(|c: char| c == '/' || c.is_whitespace() || "\"',;".contains(c)).next()?;
        let host = authority.rsplit('@').next()?.split(':').next()?;
        (host.contains('.') || host.len() > 8).then(|| host.to_owned())
    });
    hosts.filter(|host| !PUBLIC_HOSTS.contains(&host.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    fn traces() -> Traces {
        Traces {
            paths: paths_of(Path::new("/builds/cloud"), Path::new("/home/jane")),
            hosts: hosts_in("index = https://me:pw@mirror.example.net:8081/simple"),
        }
    }

    #[test]
    fn planted_paths_hosts_and_phrases_are_found() {
        for line in [
            "let x = \"/builds/cloud/target\";",
            "see /builds.",
            "/home/jane/notes",
            "pip --index-url http://mirror.example.net/x",
            "done in the previous Session",
            "<<<<<<< HEAD",
        ] {
            let repo = planted::files(&[("docs/a.md", line)]);
            assert_eq!(find(&repo, &traces()).len(), 1, "{line}");
        }
    }

    #[test]
    fn ordinary_text_passes() {
        for line in [
            "a TLS session is resumed",
            "${dir}/builds/x and target/builds",
            "/home/evroc-user/.ssh",
            "/buildsystem",
            "https://github.com/somebody/something",
        ] {
            let repo = planted::files(&[("docs/a.md", line)]);
            assert_eq!(find(&repo, &traces()), [], "{line}");
        }
    }
}
