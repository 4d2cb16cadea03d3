//! A large crate stands on floors: a file imports from its own floor and from lower ones, never from a higher one.

use super::Finding;
use super::imports::between_files;
use crate::repo::Repo;

/// A crate's floors from the lowest to the highest: folders and files of its `src`, on one floor those that stand side by side.
/// `lib.rs` is on none: it only lists the public items of the crate.
const FLOORS: &[(&str, &[&[&str]])] = &[(
    "crates/apiserver",
    &[&["object"], &["state"], &["http"], &["background", "core_kinds", "fuzzing"], &["builder.rs"]],
)];

/// Finds imports that point up, and files that stand on no floor.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (dir, floors) in FLOORS {
        let src = format!("{dir}/src/");
        let place = |file: &str| {
            let path = file.strip_prefix(&src)?;
            let first = path.split('/').next()?;
            floors.iter().position(|floor| floor.contains(&first)).map(|number| (number, first.to_owned()))
        };
        let root = format!("{src}lib.rs");
        for file in repo.rust_files(dir).filter(|file| file.path.starts_with(&src) && file.path != root) {
            if place(&file.path).is_none() {
                let message = format!("it is on no floor of {dir}; move it into one: {}", names(floors));
                findings.push(Finding::error(&file.path, message));
            }
        }
        for import in between_files(repo, dir) {
            let (Some((from, _)), Some((to, above))) = (place(&import.from), place(&import.to)) else { continue };
            if from < to {
                let message = format!(
                    "it imports from {}, but `{above}` is above it (from low to high: {}); move what both need down",
                    import.to,
                    names(floors)
                );
                findings.push(Finding::error(format!("{}:{}", import.from, import.line), message));
            }
        }
    }
    findings
}

fn names(floors: &[&[&str]]) -> String {
    floors.iter().map(|floor| floor.join("+")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    #[test]
    fn a_planted_import_from_a_higher_floor_is_found_with_its_line() {
        let repo = planted::files(&[
            ("crates/apiserver/src/lib.rs", "mod http;\nmod object;\nmod state;\npub use http::audit::Audit;\n"),
            ("crates/apiserver/src/object/mod.rs", "pub mod error;\n"),
            ("crates/apiserver/src/object/error.rs", "\npub use crate::http::audit::Audit;\n"),
            ("crates/apiserver/src/http/mod.rs", "pub mod audit;\n"),
            ("crates/apiserver/src/http/audit.rs", "use crate::object::error::Error;\nfn f() { crate::state::g() }\n"),
            ("crates/apiserver/src/state/mod.rs", "pub fn g() {}\n"),
        ]);
        let findings = check(&repo);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "crates/apiserver/src/object/error.rs:2");
        assert!(findings[0].message.contains("`http` is above it"), "{findings:?}");
    }

    #[test]
    fn a_file_on_no_floor_is_found() {
        let repo = planted::files(&[
            ("crates/apiserver/src/lib.rs", "mod helpers;\n"),
            ("crates/apiserver/src/helpers.rs", ""),
        ]);
        let findings = check(&repo);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "crates/apiserver/src/helpers.rs");
    }
}
