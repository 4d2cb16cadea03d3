//! Real etcd servers for tests: processes of their own on loopback, from Debian's packages (`scripts/etcd` fetches them).

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::names;
use crate::process::{self, Running};

/// Fetching from a slow mirror; only the first run on a machine fetches.
const FETCH: Duration = Duration::from_secs(300);

/// Certificates for a server that serves TLS alone and asks its clients for certificates; files as PEM.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The authority of both sides.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A running cluster; it ends, and its data goes, when this is dropped.
pub struct Etcd {
    program: PathBuf,
    folder: PathBuf,
    /// Ports for clients and for peers.
    ports: Vec<(u16, u16)>,
    tls: Option<ServerTls>,
    options: Vec<String>,
    members: Vec<Option<Running>>,
}

impl Etcd {
    /// One server; `version` is "3.4" or "3.5".
    pub fn start(version: &str) -> Result<Etcd> {
        Etcd::start_with(version, 1, None, &[])
    }

    /// A cluster with this many members, with TLS for clients if wanted, and options for each server.
    pub fn start_with(version: &str, members: usize, tls: Option<ServerTls>, options: &[&str]) -> Result<Etcd> {
        let folder = std::env::temp_dir().join(format!("{}-etcd", names::random()));
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let mut etcd = Etcd {
            program: program(version)?,
            folder,
            ports: (0..members).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<_>>()?,
            tls,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            members: (0..members).map(|_| None).collect(),
        };
        for member in 0..members {
            etcd.start_member(member)?;
        }
        Ok(etcd)
    }

    /// `etcd://…` with all members.
    pub fn address(&self) -> String {
        let members: Vec<String> = self.ports.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        format!("etcd://{}", members.join(","))
    }

    /// Returns the folder of its data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends a member as `kill -9` does.
    pub fn kill_member(&mut self, member: usize) {
        if let Some(mut running) = self.members[member].take() {
            running.kill();
        }
    }

    /// Starts a member on the data that it has.
    pub fn start_member(&mut self, member: usize) -> Result<()> {
        let (client, peer) = self.ports[member];
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let cluster: Vec<String> =
            self.ports.iter().enumerate().map(|(m, (_, peer))| format!("m{m}=http://127.0.0.1:{peer}")).collect();
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--name=m{member}"))
            .arg(format!("--data-dir={}", self.folder.join(format!("m{member}")).display()))
            .arg(format!("--listen-client-urls={scheme}://127.0.0.1:{client}"))
            .arg(format!("--advertise-client-urls={scheme}://127.0.0.1:{client}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
            .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .args(["--log-level=error", "--logger=zap"])
            .args(&self.options);
        if let Some(tls) = &self.tls {
            command
                .arg(format!("--cert-file={}", tls.certificate.display()))
                .arg(format!("--key-file={}", tls.key.display()))
                .arg(format!("--trusted-ca-file={}", tls.ca.display()))
                .arg("--client-cert-auth");
        }
        // The settings of the machine's own etcd, if it has one, are not meant for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
            command.env_remove(name);
        }
        self.members[member] = Some(Running::start(&mut command, false)?);
        Ok(())
    }

    /// Ends all members as `kill -9` does and starts them on the data that they have.
    pub fn restart(&mut self) -> Result<()> {
        for member in 0..self.members.len() {
            self.kill_member(member);
        }
        (0..self.members.len()).try_for_each(|member| self.start_member(member))
    }

    /// Returns the members' log output so far: errors.
    pub fn log(&self) -> String {
        self.members.iter().flatten().map(Running::so_far).collect()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill_member(member);
        }
        // Nothing in it is needed any more, and a rest is found as a leftover.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The server program of a version, fetched if this machine has never had it.
pub fn program(version: &str) -> Result<PathBuf> {
    static FOUND: OnceLock<Result<String, String>> = OnceLock::new();
    let listing = FOUND.get_or_init(|| {
        let output = process::run(&mut Command::new(names::repository().join("scripts/etcd")), FETCH)
            .map_err(|error| format!("{error:#}"))?;
        if output.ok() { Ok(output.stdout) } else { Err(output.both) }
    });
    let listing = listing.as_ref().map_err(|reason| anyhow::anyhow!("scripts/etcd: {reason}"))?;
    let found = listing.lines().find_map(|line| {
        let (found, path) = line.split_once(' ')?;
        found.strip_prefix(version)?.starts_with('.').then(|| PathBuf::from(path))
    });
    let path = found.with_context(|| format!("scripts/etcd has no etcd {version}, only:\n{listing}"))?;
    ensure!(path.is_file(), "{} does not exist", path.display());
    Ok(path)
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
