//! `ip` and `nft`, run inside a network namespace with a script on their standard input.
//!
//! Both are the kernel's own tools, take a whole transaction or batch at once and speak an interface that stays; their output is
//! never parsed, only their exit code.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::netns::{Netns, NetnsError};

/// A tool that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CommandError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("execute {program}: is it installed? (package {package})")]
    Execute {
        program: &'static str,
        package: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} in {namespace}: {message}")]
    Refused { program: &'static str, namespace: String, message: String },
}

/// Runs the lines of `script` with `ip -batch`, and stops at the first that fails. Blocking.
pub fn ip_batch(netns: &Netns, script: &str) -> Result<(), CommandError> {
    if script.is_empty() {
        return Ok(());
    }
    run(netns, "ip", "iproute2", &["-batch", "-"], script)
}

/// Runs `script` with `nft` as one transaction. Blocking.
pub fn nft(netns: &Netns, script: &str) -> Result<(), CommandError> {
    run(netns, "nft", "nftables", &["-f", "-"], script)
}

fn run(
    netns: &Netns,
    program: &'static str,
    package: &'static str,
    arguments: &[&str],
    script: &str,
) -> Result<(), CommandError> {
    // The child inherits the namespace of the thread that starts it.
    netns.run(|| {
        let execute = |source| CommandError::Execute { program, package, source };
        let mut child = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(execute)?;
        // A tool that ends early says why on its standard error; that matters more than the broken pipe.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output().map_err(execute)?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let message = if stderr.trim().is_empty() { output.status.to_string() } else { stderr.trim().to_owned() };
        Err(CommandError::Refused { program, namespace: netns.path().display().to_string(), message })
    })?
}
