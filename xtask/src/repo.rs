//! The repository as the checks see it: its files and its packages, read once.
//!
//! Tests build one by hand and plant a fault in it, so no check touches the disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Files and packages of one working tree.
#[derive(Default)]
pub struct Repo {
    /// Every file that git tracks or would track, by path.
    pub files: Vec<File>,
    /// The members of the workspace.
    pub packages: Vec<Package>,
}

/// One file of the tree.
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// The content; empty for a file that is not text.
    pub text: String,
}

/// One member of the workspace.
pub struct Package {
    /// Name as in its manifest.
    pub name: String,
    /// Folder from the root, as `crates/api`.
    pub dir: String,
    /// The dependencies in its manifest, of every kind.
    pub dependencies: Vec<Dependency>,
    /// Names of its integration-test binaries.
    pub test_binaries: Vec<String>,
}

/// One dependency as a manifest declares it.
pub struct Dependency {
    /// Name of the package depended on.
    pub name: String,
    /// Whether it is for tests only.
    pub dev: bool,
}

/// The root of the working tree this program was built from.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The cargo to call: the one that runs us, so that toolchain overrides hold.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

impl Repo {
    /// Reads the working tree at `root`.
    pub fn read(root: &Path) -> Result<Repo> {
        Ok(Repo { files: read_files(root)?, packages: read_packages(root)? })
    }

    /// Returns the text of one file, if it exists.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    /// The Rust files below the folder of a package.
    pub fn rust_files<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| {
            file.path.ends_with(".rs") && file.path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

impl Package {
    /// The folder's name, which is how the documents call a crate.
    pub fn short(&self) -> &str {
        self.dir.rsplit('/').next().unwrap_or(&self.dir)
    }
}

fn read_files(root: &Path) -> Result<Vec<File>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("list the files with git")?;
    if !output.status.success() {
        bail!("git ls-files in {}: {}", root.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut files = Vec::new();
    for path in output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
        let path = String::from_utf8_lossy(path).into_owned();
        // A file that git lists may be absent (deleted, not committed) or be a link or a folder.
        let Ok(content) = std::fs::read(root.join(&path)) else { continue };
        let text = if content.contains(&0) { String::new() } else { String::from_utf8(content).unwrap_or_default() };
        files.push(File { path, text });
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}

fn read_packages(root: &Path) -> Result<Vec<Package>> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .cargo_path(cargo())
        .current_dir(root)
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    let mut packages = Vec::new();
    for package in &metadata.packages {
        let manifest = package.manifest_path.as_std_path();
        let dir = manifest.parent().unwrap_or(manifest);
        let dir = dir.strip_prefix(root).unwrap_or(dir).to_string_lossy().replace('\\', "/");
        let dependencies = package
            .dependencies
            .iter()
            .map(|dependency| Dependency {
                name: dependency.name.clone(),
                dev: dependency.kind == cargo_metadata::DependencyKind::Development,
            })
            .collect();
        let test_binaries =
            package.targets.iter().filter(|target| target.is_test()).map(|target| target.name.clone()).collect();
        packages.push(Package { name: package.name.to_string(), dir, dependencies, test_binaries });
    }
    packages.sort_by(|left, right| left.dir.cmp(&right.dir));
    Ok(packages)
}

/// Repositories for the checks' tests.
#[cfg(test)]
pub mod planted {
    use super::{Dependency, File, Package, Repo};

    /// A repository of these files and nothing else.
    pub fn files(files: &[(&str, &str)]) -> Repo {
        let files = files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() }).collect();
        Repo { files, packages: Vec::new() }
    }

    /// A package in `crates/` with normal dependencies.
    pub fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.into(),
            dir: format!("crates/{}", name.trim_start_matches("evroc-")),
            dependencies: dependencies.iter().map(|name| Dependency { name: (*name).into(), dev: false }).collect(),
            test_binaries: Vec::new(),
        }
    }
}
