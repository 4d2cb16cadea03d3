//! One integration-test binary per package: every further one links the whole graph again.

use super::Finding;
use crate::repo::Repo;

/// Finds packages with several integration-test binaries.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let several = repo.packages.iter().filter(|package| package.test_binaries.len() > 1);
    several
        .map(|package| {
            let message = format!(
                "{} has {} test binaries ({}), expected one; make them modules of tests/<name>/main.rs with `autotests = false`",
                package.name,
                package.test_binaries.len(),
                package.test_binaries.join(", "),
            );
            Finding::error(format!("{}/Cargo.toml", package.dir), message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted::package;

    #[test]
    fn a_second_binary_is_found() {
        let mut planted = package("evroc-node", &[]);
        planted.test_binaries = vec!["node".into()];
        assert_eq!(check(&Repo { files: Vec::new(), packages: vec![planted] }), []);
        let mut planted = package("evroc-node", &[]);
        planted.test_binaries = vec!["node".into(), "shim".into()];
        assert_eq!(check(&Repo { files: Vec::new(), packages: vec![planted] }).len(), 1);
    }
}
