//! The API as clients see it that we did not write: kubectl old and new, the `kube` crate's runtime, programs in Python and
//! JavaScript. They talk over TLS to the platform in this process, with simulated hosts, so a story takes seconds.
//!
//! `scripts/install-test-clients` brings the clients.

mod javascript;
mod kubectl;
mod python;
mod runtime;
mod schema;
mod tables;
mod tokens;
mod views;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evroc_testkit::{Endpoint, Platform};
use evroc_tests::process::{self, Output};
use serde_json::Value;

/// For one command of a client. The slowest are programs in Python that import half a second of libraries.
const PATIENCE: Duration = Duration::from_secs(40);

/// A platform with its API on a socket.
struct World {
    platform: Platform,
    endpoint: Endpoint,
    /// The operator's kubeconfig.
    kubeconfig: PathBuf,
}

impl World {
    async fn start() -> Self {
        let platform = Platform::start().await;
        let endpoint = platform.listen().await;
        let user = endpoint.certificate("admin", "evroc:operators");
        let kubeconfig = endpoint.kubeconfig("", &user);
        World { platform, endpoint, kubeconfig }
    }

    /// A folder that goes with the world: for the files that clients leave in their working folder, in their home and among temporary files.
    fn folder(&self) -> &Path {
        self.kubeconfig.parent().unwrap_or(Path::new("/"))
    }

    fn kubectl(&self, program: &str) -> Kubectl {
        Kubectl { program: tools().join(program), kubeconfig: self.kubeconfig.clone() }
    }

    /// The newest kubectl with another identity, or at another address.
    fn kubectl_as(&self, path: &str, user: &Value) -> Kubectl {
        Kubectl { program: tools().join(NEWEST), kubeconfig: self.endpoint.kubeconfig(path, user) }
    }
}

/// Debian's kubectl, and the newest.
const OLD: &str = "kubectl-debian/usr/bin/kubectl";
const NEWEST: &str = "bin/kubectl";

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools")
}

/// Runs a program without blocking the platform, which lives in this process too.
async fn run(command: Command) -> Output {
    run_within(command, PATIENCE).await
}

async fn run_within(mut command: Command, patience: Duration) -> Output {
    let shown = format!("{command:?}");
    let running = tokio::task::spawn_blocking(move || process::run(&mut command, patience));
    running.await.expect("a thread").unwrap_or_else(|error| {
        panic!("{shown}: {error:#}; scripts/install-test-clients brings the clients");
    })
}

/// One kubectl with one kubeconfig.
#[derive(Clone)]
struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Runs a line as a user types it after `kubectl`, by a shell; `$kubectl` in it is this kubectl.
    async fn output(&self, line: &str) -> Output {
        let home = self.kubeconfig.with_extension("home");
        std::fs::create_dir_all(&home).expect("a home folder");
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -o pipefail; \"$kubectl\" {line}")]);
        shell.env("kubectl", &self.program).env("KUBECONFIG", &self.kubeconfig).env("HOME", home);
        run(shell).await
    }

    /// Runs and expects success; returns the output.
    async fn ok(&self, line: &str) -> String {
        let output = self.output(line).await;
        assert!(output.ok(), "kubectl {line}: {}\n{}", output.ending(), output.both);
        output.stdout
    }

    /// Runs and expects failure; returns the error output.
    async fn refused(&self, line: &str) -> String {
        let output = self.output(line).await;
        assert!(!output.ok() && !output.timed_out, "kubectl {line} should be refused\n{}", output.both);
        output.both
    }
}
