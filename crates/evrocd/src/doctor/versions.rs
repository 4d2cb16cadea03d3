//! Versions of the programs that confine workloads. Pure: judges what the programs print about themselves.

use std::cmp::Ordering;

/// The first runc of upstream without CVE-2024-21626 (a working folder below /proc/self/fd leads out of the container).
const RUNC: &str = "1.1.12";
/// Earlier versions into which a Debian release brought the fix: 11 and 12.
const RUNC_PATCHED: [&str; 2] = ["1.0.0~rc93+ds1-5+deb11u3", "1.1.5+ds1-1+deb12u1"];
/// The oldest QEMU that guests were tested with, Debian 12's.
const QEMU: &str = "7.2";

/// Judges the output of `runc --version`: `runc version 1.1.5+ds1`, and with Debian's `commit: 1.1.5+ds1-1+deb12u1`.
pub fn runc_problem(output: &str) -> Option<String> {
    let field = |name: &str| output.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let Some(version) = field("runc version") else {
        return Some(format!("runc does not say its version: expected {RUNC} or newer"));
    };
    let upstream = version.split(['+', '-', '~']).next().unwrap_or_default();
    // A candidate of a release is older than the release.
    let is_new = compare(upstream, RUNC).is_ge() && !version.starts_with(&format!("{RUNC}-rc"));
    let package = field("commit:").filter(|commit| commit.contains('-')).unwrap_or(version);
    let is_patched = RUNC_PATCHED.iter().any(|patched| {
        let upstream = |version: &str| version.split('-').next().unwrap_or_default().to_owned();
        upstream(package) == upstream(patched) && compare(package, patched).is_ge()
    });
    (!is_new && !is_patched).then(|| {
        format!(
            "runc {package} lets containers out (CVE-2024-21626): expected {RUNC} or newer, or Debian 12's {} or newer; \
             install the updates of this machine",
            RUNC_PATCHED[1]
        )
    })
}

/// Judges the output of `qemu-system-x86_64 --version`: `QEMU emulator version 7.2.9 (Debian …)`.
pub fn qemu_problem(output: &str) -> Option<String> {
    let version = output.lines().next().and_then(|line| line.split("version ").nth(1)?.split_whitespace().next());
    match version {
        None => Some(format!("QEMU does not say its version: expected {QEMU} or newer")),
        Some(version) if compare(version, QEMU).is_lt() => {
            Some(format!("QEMU {version} is too old: expected {QEMU} or newer; install the updates of this machine"))
        }
        Some(_) => None,
    }
}

/// Compares two versions as dpkg does (deb-version(7)), without epochs: runs of digits as numbers, everything else letter by letter, where
/// letters come before other signs and `~` before everything, the end included.
fn compare(one: &str, other: &str) -> Ordering {
    fn split<'a>(text: &mut &'a str, is_part: fn(&char) -> bool) -> &'a str {
        let end = text.find(|letter: char| !is_part(&letter)).unwrap_or(text.len());
        let (part, rest) = text.split_at(end);
        *text = rest;
        part
    }
    let weight = |letter: Option<char>| match letter {
        Some('~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => letter as i64,
        Some(letter) => letter as i64 + 256,
    };
    let (mut one, mut other) = (one, other);
    while !one.is_empty() || !other.is_empty() {
        let parts = [&mut one, &mut other].map(|text| split(text, |letter| !letter.is_ascii_digit()));
        let length = parts[0].chars().count().max(parts[1].chars().count());
        let weights = parts.map(|part| (0..length).map(|at| weight(part.chars().nth(at))).collect::<Vec<_>>());
        let numbers = [&mut one, &mut other].map(|text| split(text, char::is_ascii_digit).trim_start_matches('0'));
        let order =
            weights[0].cmp(&weights[1]).then(numbers[0].len().cmp(&numbers[1].len())).then(numbers[0].cmp(numbers[1]));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        let ascending = [
            ["1.0~rc1", "1.0"],
            ["1.0", "1.0+ds1"],
            ["1.0a", "1.0+"],
            ["1.9", "1.10"],
            ["1.1.5+ds1-1", "1.1.5+ds1-1+deb12u1"],
            ["1.1.5+ds1-1+deb12u1", "1.1.5+ds1-1+deb12u2"],
            ["1.1.5+ds1-1+deb12u9", "1.1.5+ds1-1+deb12u10"],
        ];
        for [lower, higher] in ascending {
            assert_eq!(compare(lower, higher), Ordering::Less, "{lower} {higher}");
            assert_eq!(compare(higher, lower), Ordering::Greater, "{lower} {higher}");
        }
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
    }

    #[test]
    fn a_runc_that_lets_containers_out_is_refused() {
        let debian =
            |version: &str, commit: &str| format!("runc version {version}\ncommit: {commit}\nspec: 1.0.2-dev\n");
        let good = [
            debian("1.1.5+ds1", "1.1.5+ds1-1+deb12u1"),
            debian("1.1.5+ds1", "1.1.5+ds1-1+deb12u2"),
            debian("1.0.0~rc93+ds1", "1.0.0~rc93+ds1-5+deb11u5"),
            debian("1.1.15+ds1", "1.1.15+ds1-2"),
            debian("1.1.12", "v1.1.12-0-g51d5e946"),
            debian("1.2.4", "v1.2.4-0-g6c52b3f"),
            debian("1.3.0-rc.1", "v1.3.0-rc.1-0-ga00ce11e"),
            "runc version 1.1.12\n".to_owned(),
        ];
        for output in good {
            assert_eq!(runc_problem(&output), None, "{output}");
        }
        let bad = [
            debian("1.1.5+ds1", "1.1.5+ds1-1"),
            debian("1.1.5", "v1.1.5-0-gf19387a6"),
            debian("1.1.11", "v1.1.11-0-g4bccb38c"),
            debian("1.0.0~rc93+ds1", "1.0.0~rc93+ds1-5+deb11u2"),
            debian("1.1.12-rc.1", "v1.1.12-rc.1-0-g1"),
            "crun version 1.8\n".to_owned(),
            String::new(),
        ];
        for output in bad {
            assert!(runc_problem(&output).is_some_and(|problem| problem.contains("1.1.12")), "{output}");
        }
    }

    #[test]
    fn a_qemu_that_was_never_tested_is_refused() {
        for good in ["QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7)\n", "QEMU emulator version 10.0.2\nCopyright\n"]
        {
            assert_eq!(qemu_problem(good), None, "{good}");
        }
        for bad in ["QEMU emulator version 5.2.0 (Debian 1:5.2+dfsg-11)\n", "QEMU emulator version 7.1.93\n", ""] {
            assert!(qemu_problem(bad).is_some_and(|problem| problem.contains("7.2")), "{bad}");
        }
    }
}
