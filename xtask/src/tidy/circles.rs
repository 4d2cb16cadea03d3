//! Files that import each other in a circle can neither be understood nor moved one by one.
//!
//! A file may use what stands in the modules around it (`super::Error`): a folder's `mod.rs` and its files belong together. Every
//! other circle is one.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::imports::{Import, between_files, is_parent};
use crate::repo::Repo;

/// Files that may stand in a circle, by the folder of their crate. The list can only shrink: a file on it that is in no circle any
/// more is a finding too.
struct Exception {
    dir: &'static str,
    /// Below the crate's `src`.
    files: &'static [&'static str],
    /// The reason why it is allowed.
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[Exception {
    dir: "crates/testkit",
    files: &["endpoint.rs", "gateway.rs", "objects.rs", "platform.rs"],
    reason: "`Platform` is one type whose methods are in several files, for tests only",
}];

/// Finds circles of imports between the files of a crate.
pub fn check(repo: &Repo) -> Vec<Finding> {
    find(repo, EXCEPTIONS)
}

fn find(repo: &Repo, exceptions: &[Exception]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &repo.packages {
        let imports: Vec<Import> = between_files(repo, &package.dir)
            .into_iter()
            .filter(|it| !(is_parent(&it.to, &it.from) || it.is_reexport && is_parent(&it.from, &it.to)))
            .collect();
        let src = format!("{}/src/", package.dir);
        let exceptions: Vec<&Exception> = exceptions.iter().filter(|it| it.dir == package.dir).collect();
        let mut in_circles = BTreeSet::new();
        for circle in circles(&imports) {
            in_circles.extend(circle.iter().cloned());
            let is_listed = |file: &str, it: &Exception| it.files.contains(&file.trim_start_matches(&src));
            if exceptions.iter().any(|it| circle.iter().all(|file| is_listed(file, it))) {
                continue;
            }
            let listed = exceptions.iter().find(|it| circle.iter().any(|file| is_listed(file, it)));
            findings.push(describe(&circle, &imports, listed.map(|it| it.reason)));
        }
        for file in exceptions.iter().flat_map(|it| it.files) {
            let path = format!("{src}{file}");
            if !in_circles.contains(path.as_str()) {
                let message =
                    "it is in no circle of imports any more; take it off the list in xtask/src/tidy/circles.rs";
                findings.push(Finding::error(path, message));
            }
        }
    }
    findings
}

/// The largest sets of files that reach each other.
fn circles(imports: &[Import]) -> Vec<BTreeSet<&str>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        next.entry(&import.from).or_default().insert(&import.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|file| (*file, reach(file, &next))).collect();
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|it| it.contains(to));
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for file in next.keys() {
        if !seen.contains(file) && reaches(file, file) {
            let circle: BTreeSet<&str> = reached[file].iter().copied().filter(|other| reaches(other, file)).collect();
            seen.extend(circle.iter().copied());
            circles.push(circle);
        }
    }
    circles
}

fn reach<'a>(from: &'a str, next: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        open.extend(next.get(file).into_iter().flatten().copied().filter(|to| reached.insert(*to)));
    }
    reached
}

fn describe(circle: &BTreeSet<&str>, imports: &[Import], reason: Option<&str>) -> Finding {
    let inside: Vec<&Import> =
        imports.iter().filter(|it| circle.contains(it.from.as_str()) && circle.contains(it.to.as_str())).collect();
    let arrows: Vec<String> =
        inside.iter().map(|it| format!("{}:{} imports from {}", it.from, it.line, it.to)).collect();
    let place = inside.first().map_or_else(String::new, |it| format!("{}:{}", it.from, it.line));
    Finding::error(
        place,
        format!(
            "{} files import each other in a circle: {}; move what they share into a file of its own{}",
            circle.len(),
            arrows.join(", "),
            reason.map(|reason| format!(" (a smaller circle is listed: {reason})")).unwrap_or_default()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    fn repo(files: &[(&str, &str)]) -> Repo {
        Repo { packages: vec![planted::package("evroc-a", &[])], ..planted::files(files) }
    }

    const CIRCLE: [(&str, &str); 4] = [
        ("crates/a/src/lib.rs", "mod x;\nmod y;\nmod z;\n"),
        ("crates/a/src/x.rs", "use crate::y::Y;\n"),
        ("crates/a/src/y.rs", "use crate::z::Z;\n"),
        ("crates/a/src/z.rs", "\nfn f() { crate::x::x() }\n"),
    ];

    #[test]
    fn a_planted_circle_is_found_with_its_lines() {
        let findings = find(&repo(&CIRCLE), &[]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "crates/a/src/x.rs:1");
        assert!(findings[0].message.contains("3 files"), "{findings:?}");
        assert!(findings[0].message.contains("crates/a/src/z.rs:2 imports from crates/a/src/x.rs"), "{findings:?}");
    }

    #[test]
    fn a_folder_and_its_files_belong_together() {
        let files = [
            ("crates/a/src/lib.rs", "mod x;\n"),
            ("crates/a/src/x/mod.rs", "mod y;\nmod z;\npub use y::Y;\nuse z::z;\npub struct Error;\n"),
            ("crates/a/src/x/y.rs", "use super::Error;\npub struct Y;\n"),
            ("crates/a/src/x/z.rs", "use super::{Error, Y};\n"),
        ];
        assert_eq!(find(&repo(&files), &[]), []);
    }

    #[test]
    fn a_listed_circle_passes_and_must_not_grow_or_be_forgotten() {
        let listed = |files: &'static [&'static str]| [Exception { dir: "crates/a", files, reason: "they are old" }];
        assert_eq!(find(&repo(&CIRCLE), &listed(&["x.rs", "y.rs", "z.rs"])), []);
        let findings = find(&repo(&CIRCLE), &listed(&["x.rs", "y.rs"]));
        assert!(findings[0].message.contains("a smaller circle is listed: they are old"), "{findings:?}");
        let findings = find(&repo(&CIRCLE), &listed(&["x.rs", "y.rs", "z.rs", "lib.rs"]));
        assert_eq!(findings[0].place, "crates/a/src/lib.rs", "{findings:?}");
    }
}
