//! Forbids calls by crate: the kinds do no I/O; the control side starts no process and makes no system calls.

use super::{Finding, scrub};
use crate::repo::Repo;

struct Rule {
    dirs: &'static [&'static str],
    paths: &'static [&'static str],
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        dirs: &["crates/api"],
        paths: &["std::fs", "std::net::Tcp", "std::net::Udp", "std::process", "std::thread", "std::env", "tokio::"],
        reason: "the kinds do no I/O, so that they build and behave the same on every system",
    },
    Rule {
        dirs: &[
            "crates/api",
            "crates/store",
            "crates/apiserver",
            "crates/iam",
            "crates/compute",
            "crates/network",
            "crates/run",
            "crates/controller",
            "crates/control",
            "crates/tunnel",
            "crates/registry",
            "crates/gateway",
        ],
        paths: &[
            "process::Command",
            "tokio::process",
            "rustix::mount",
            "rustix::process",
            "rustix::thread",
            "libc::",
            "AF_NETLINK",
            "nix::",
        ],
        reason: "only node, vmm and the supervisor start processes, mount or open netlink",
    },
    Rule {
        dirs: &["crates/compute", "crates/network", "crates/run", "crates/controller", "crates/control"],
        paths: &["std::fs", "tokio::fs"],
        reason: "it has no files: state is in the API, and what it needs at start is handed to it",
    },
    Rule {
        dirs: &[
            "crates/compute",
            "crates/network",
            "crates/run",
            "crates/controller",
            "crates/registry",
            "crates/gateway",
            "crates/node",
        ],
        paths: &["evroc_store", "evroc_apiserver"],
        reason: "everything but the API server is a client of the API",
    },
];

/// Finds uses of items that a crate must do without, outside its tests.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        for file in rule.dirs.iter().flat_map(|dir| repo.rust_files(dir)) {
            // An example is a program of its own and no part of the crate.
            if scrub::is_test_file(&file.path) || file.path.contains("/examples/") {
                continue;
            }
            let code = scrub::code(&file.text);
            for (number, line) in scrub::without_tests(&code).lines().enumerate() {
                for word in rule.paths.iter().filter(|word| contains_path(line, word)) {
                    let message = format!("`{word}` must not be used here: {}", rule.reason);
                    findings.push(Finding::error(format!("{}:{}", file.path, number + 1), message));
                }
            }
        }
    }
    findings
}

/// Whether the line has the path, not as the tail of a longer word (`my_libc::`).
fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || character == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    #[test]
    fn a_planted_use_is_found_with_its_line() {
        let repo = planted::files(&[("crates/api/src/lib.rs", "//! x\nuse std::fs;\n")]);
        assert_eq!(check(&repo)[0].place, "crates/api/src/lib.rs:2");
        let repo = planted::files(&[("crates/run/src/a.rs", "fn f() { std::process::Command::new(\"x\"); }")]);
        assert_eq!(check(&repo).len(), 1);
        let repo = planted::files(&[("crates/gateway/src/a.rs", "use tokio::process::Command;")]);
        assert_eq!(check(&repo).len(), 2);
    }

    #[test]
    fn tests_comments_and_other_crates_are_free() {
        let repo = planted::files(&[
            (
                "crates/api/src/lib.rs",
                "// std::fs\nlet x = \"std::fs\";\n#[cfg(test)]\nmod tests {\n use std::fs;\n}\n",
            ),
            ("crates/api/src/disk/tests.rs", "use std::fs;"),
            ("crates/api/examples/x.rs", "use std::fs;"),
            ("crates/node/src/lib.rs", "use std::fs; use std::process::Command;"),
            ("crates/store/src/lib.rs", "use std::fs;"),
        ]);
        assert_eq!(check(&repo), []);
    }
}
