//! The OCI runtime as a program: the four commands of its contract. Errors have the runtime's own message.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;

/// No command of the runtime takes longer but on a host that is beyond help.
const DEADLINE: Duration = Duration::from_secs(60);

/// A command of the runtime that failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It ran and failed.
    #[error("{program} {command} {id}: {message}")]
    Refused {
        /// The runtime.
        program: String,
        /// The command.
        command: &'static str,
        /// The container.
        id: String,
        /// The runtime's message.
        message: String,
    },
    /// It did not run.
    #[error("execute {} {command} {id}", program.display())]
    Execute {
        /// The runtime.
        program: PathBuf,
        /// The command.
        command: &'static str,
        /// The container.
        id: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// An OCI runtime and where it keeps its state.
#[derive(Debug, Clone)]
pub struct Runtime {
    program: PathBuf,
    root: PathBuf,
}

#[derive(Deserialize)]
struct State {
    status: RuntimeStatus,
}

/// The status of a container in the OCI runtime specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeStatus {
    /// It is being created.
    Creating,
    /// Its processes exist, but its program was not executed yet.
    Created,
    /// Its program runs.
    Running,
    /// Its program has ended.
    Stopped,
    /// A status that only this runtime has, such as `paused`.
    #[serde(other)]
    Other,
}

impl Runtime {
    /// `program` with its state below `root`.
    pub fn new(program: &Path, root: &Path) -> Self {
        Self { program: program.to_owned(), root: root.to_owned() }
    }

    /// Returns the folder of its state, which has a folder per container.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The command line that creates a container (for the shim to execute) and leaves the first process' pid in `pid_file`.
    /// Complaints go to `log`: see [`Runtime::complaint`].
    pub fn create_argv(&self, id: &str, bundle: &Path, pid_file: &Path, log: &Path) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            text(&self.program),
            "--root".into(),
            text(&self.root),
            "--log".into(),
            text(log),
            "--log-format".into(),
            "json".into(),
            "create".into(),
            "--bundle".into(),
            text(bundle),
            "--pid-file".into(),
            text(pid_file),
            id.into(),
        ]
    }

    /// The last error that the runtime wrote to `log`.
    pub fn complaint(log: &Path) -> Option<String> {
        let text = std::fs::read_to_string(log).ok()?;
        let line = text.lines().rev().find(|line| line.contains("\"error\""))?;
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(entry["msg"].as_str()?.to_owned())
    }

    /// Returns the status of the container; `None` if the runtime does not know it.
    pub async fn status(&self, id: &str) -> Result<Option<RuntimeStatus>, RuntimeError> {
        if !self.root.join(id).exists() {
            return Ok(None);
        }
        let output = self.execute("state", &[], id).await?;
        Ok(serde_json::from_slice::<State>(&output).ok().map(|state| state.status))
    }

    /// Lets the created container execute its program.
    pub async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.execute("start", &[], id).await.map(drop)
    }

    /// Ends the container if it still runs and forgets it. Deleting an unknown one is fine.
    pub async fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        let state = self.root.join(id);
        if !state.exists() {
            return Ok(());
        }
        let result = self.execute("delete", &["--force"], id).await;
        // `--force` makes runc silent about a state that it cannot read, such as one that was half written.
        if result.is_ok() {
            let _ = std::fs::remove_dir_all(&state);
        }
        result.map(drop)
    }

    async fn execute(&self, command: &'static str, flags: &[&str], id: &str) -> Result<Vec<u8>, RuntimeError> {
        let output = tokio::process::Command::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .arg(command)
            .args(flags)
            .arg(id)
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(DEADLINE, output)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| RuntimeError::Execute {
                program: self.program.clone(),
                command,
                id: id.to_owned(),
                source,
            })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(RuntimeError::Refused {
            program: self.program.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            command,
            id: id.to_owned(),
            message: match stderr.trim() {
                "" => output.status.to_string(),
                arguments => arguments.to_owned(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_error_is_found_in_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(Runtime::complaint(&log), None);
        let lines = [
            r#"{"level":"warning","msg":"something","time":"2026-01-01T00:00:00Z"}"#,
            r#"{"level":"error","msg":"runc create failed: out of luck","time":"2026-01-01T00:00:00Z"}"#,
        ];
        std::fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(Runtime::complaint(&log).as_deref(), Some("runc create failed: out of luck"));
    }
}
