//! Checks the dependencies between crates: the shape of the system, from the manifests.

use super::Finding;
use crate::repo::Repo;

/// A crate and the dependencies it must not have, with the reason that the finding prints.
const DENIED: &[(&str, &[&str], &str)] = &[
    ("evroc-compute", &["evroc-network", "evroc-run"], "compute, network and run meet as API objects"),
    ("evroc-network", &["evroc-compute", "evroc-run"], "compute, network and run meet as API objects"),
    ("evroc-run", &["evroc-compute", "evroc-network"], "compute, network and run meet as API objects"),
    ("evroc-api", &["tokio", "hyper", "hyper-util", "axum", "rustix", "libc", "tracing"], "the kinds do no I/O"),
    (
        "evroc-store",
        &["serde", "serde_json", "kube", "k8s-openapi", "evroc-api"],
        "the store keeps bytes and never parses an object",
    ),
    ("evroc-apiserver", &["evroc-api"], "the API server knows no kind by name: kinds are registered"),
    ("evroc-vmm", &["evroc-api", "kube", "k8s-openapi"], "hypervisor drivers never see an API type"),
    (
        "evroc-metrics",
        &["evroc-api", "evroc-controller", "evroc-store", "kube", "k8s-openapi", "tokio", "hyper", "axum"],
        "every crate may measure itself: the metrics depend on none and do not serve",
    ),
    (
        "evroc-tunnel",
        &["evroc-api", "evroc-apiserver", "evroc-node", "kube", "k8s-openapi"],
        "a tunnel carries streams and does not know what they are for; both of its ends depend on it",
    ),
];

/// Crates that only some crates may depend on. Tests count too, so that no suite bypasses the API.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("evroc-store", &["evroc-apiserver", "evroc-testkit", "evrocd"], "only the API server reads or writes the store"),
    (
        "evroc-apiserver",
        &["evroc-control", "evroc-testkit", "evrocd"],
        "everything but the process that serves the API is a client of it",
    ),
    ("evroc-control", &["evroc-testkit", "evrocd"], "it is the control role: its parts are used alone, or all of it"),
    (
        "evroc-node",
        &["evroc-testkit", "evrocd"],
        "control talks to hosts through objects, never by calling a host; simulated hosts run its agents",
    ),
    ("evroc-vmm", &["evroc-node", "evrocd"], "only the host agent drives hypervisors"),
    (
        "evroc-tunnel",
        &["evroc-control", "evroc-node", "evroc-testkit", "evrocd"],
        "streams are the one exception from control and hosts meeting as objects",
    ),
    // The gateway takes descriptors of connections from the host agent, over a socket, and the command line closes its standard
    // output; they make no other system call.
    (
        "rustix",
        &["evroc-node", "evroc-vmm", "evrocd", "evroc-gateway", "evroc-cli"],
        "only the host agent and the supervisor make system calls",
    ),
    ("libc", &["evroc-node", "evroc-vmm", "evrocd"], "only the host agent and the supervisor make system calls"),
    (
        "anyhow",
        &["evrocd", "evroc-cli", "evroc-testkit", "evroc-tests", "evroc-api-suite", "evroc-bench", "xtask"],
        "libraries have typed errors",
    ),
    ("xtask", &[], "it is a program"),
    ("evrocd", &[], "it is a program"),
    ("evroc-cli", &[], "it is a program"),
];

/// The CLI is an API client and nothing more: of the workspace it may use only this.
const CLI_MAY_USE: &[&str] = &["evroc-api"];

/// Finds dependencies that go across or around the layers.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &repo.packages {
        let manifest = format!("{}/Cargo.toml", package.dir);
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let denied = DENIED
                .iter()
                .filter(|(owner, names, _)| !dependency.dev && *owner == package.name && names.contains(&name));
            let reserved = RESERVED.iter().filter(|(what, users, _)| {
                *what == name && *what != package.name && !users.contains(&package.name.as_str())
            });
            for reason in denied.map(|rule| rule.2).chain(reserved.map(|rule| rule.2)) {
                findings.push(Finding::error(
                    &manifest,
                    format!("{} must not depend on {name}: {reason}; remove the dependency", package.name),
                ));
            }
            if package.name == "evroc-cli" && name.starts_with("evroc-") && !CLI_MAY_USE.contains(&name) {
                let message = format!("the CLI is an API client and nothing more; remove the dependency on {name}");
                findings.push(Finding::error(&manifest, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted::package;

    fn found(name: &str, dependencies: &[&str]) -> Vec<Finding> {
        check(&Repo { files: Vec::new(), packages: vec![package(name, dependencies)] })
    }

    #[test]
    fn every_forbidden_edge_is_found() {
        for (name, dependency) in [
            ("evroc-compute", "evroc-run"),
            ("evroc-run", "evroc-network"),
            ("evroc-compute", "evroc-store"),
            ("evroc-api", "tokio"),
            ("evroc-store", "serde_json"),
            ("evroc-vmm", "kube"),
            ("evroc-tunnel", "evroc-api"),
            ("evroc-metrics", "evroc-controller"),
            ("evroc-apiserver", "evroc-tunnel"),
            ("evroc-gateway", "evroc-node"),
            ("evroc-registry", "rustix"),
            ("evroc-cli", "evroc-iam"),
            ("evroc-iam", "anyhow"),
        ] {
            assert_eq!(found(name, &["serde_never", dependency]).len(), 1, "{name} -> {dependency}");
        }
    }

    #[test]
    fn the_allowed_edges_pass() {
        assert_eq!(found("evroc-apiserver", &["evroc-store", "tokio"]), []);
        assert_eq!(found("evrocd", &["evroc-store", "evroc-node", "rustix", "anyhow"]), []);
        assert_eq!(found("evroc-cli", &["evroc-api", "anyhow"]), []);
    }
}
