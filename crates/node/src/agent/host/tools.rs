//! The programs that the host's packages bring. One that is absent stops what needs it and nothing else: the host reports it, and goes
//! on as soon as it is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evroc_api::conditions::Verdict;

use super::{HostConditions, Topic};

/// How often a host looks whether the programs are installed.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Where programs without a folder in their name are looked for: the path of the node and of what it starts.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program that this host needs.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Its name, or its path.
    pub program: PathBuf,
    /// The Debian package that it is in.
    pub package: &'static str,
    /// The feature that does not work without it.
    pub purpose: &'static str,
}

impl Tool {
    fn verdict(&self) -> Verdict {
        if is_installed(&self.program, &PATH) {
            return Verdict::yes("Installed", "every program that this host needs is installed");
        }
        let message = format!("not installed (package {}), {}", self.package, self.purpose);
        Verdict::no("ToolMissing", message)
    }
}

/// The programs of a host with guests, networks and containers. `runtime`: the OCI runtime.
pub fn all(runtime: &Path) -> Vec<Tool> {
    let tool = |program: &str, package, purpose| Tool { program: program.into(), package, purpose };
    vec![
        tool("ip", "iproute2", "virtual machines get no network"),
        tool("nft", "nftables", "virtual machines get no network"),
        tool("qemu-system-x86_64", "qemu-system-x86", "virtual machines do not start"),
        tool("qemu-img", "qemu-utils", "disks cannot be made or changed"),
        Tool { program: runtime.to_owned(), package: "runc", purpose: "containers do not start" },
    ]
}

/// Reports on the programs until the process ends, with a look `every` so often.
pub async fn run(tools: Vec<Tool>, conditions: HostConditions, every: Duration) {
    loop {
        for tool in &tools {
            let verdict = tool.verdict();
            let (is_missing, message) = (verdict.status == "False", verdict.message.clone());
            let is_new = conditions.set(Topic::ToolsInstalled, tool.program.display().to_string(), verdict);
            if is_new && is_missing {
                tracing::error!(program = %tool.program.display(), problem = message, "a program is missing");
            }
        }
        tokio::time::sleep(every).await;
    }
}

fn is_installed(program: &Path, path: &[impl AsRef<Path>]) -> bool {
    let is_program =
        |path: &Path| fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    if program.components().count() > 1 {
        return is_program(program);
    }
    path.iter().any(|folder| is_program(&folder.as_ref().join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_installed_where_it_can_be_executed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool");
        let found = || {
            let (by_name, by_path) = (is_installed(Path::new("tool"), &[folder.path()]), is_installed(&path, &PATH));
            assert_eq!(by_name, by_path);
            by_name
        };
        assert!(!found());
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!found());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(found());
    }

    #[tokio::test]
    async fn a_missing_program_is_reported_until_it_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("runc");
        let conditions = HostConditions::default();
        let reporting = tokio::spawn(run(
            vec![Tool { program: program.clone(), package: "runc", purpose: "containers do not start" }],
            conditions.clone(),
            Duration::from_millis(5),
        ));
        let mut changes = conditions.changes();
        changes.changed().await.unwrap();
        let verdict = conditions.verdicts()[&Topic::ToolsInstalled].clone();
        let expected = format!("{}: not installed (package runc), containers do not start", program.display());
        assert_eq!((verdict.status, verdict.reason.as_str(), verdict.message), ("False", "ToolMissing", expected));
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        changes.changed().await.unwrap();
        assert_eq!(conditions.verdicts()[&Topic::ToolsInstalled].status, "True");
        reporting.abort();
    }
}
