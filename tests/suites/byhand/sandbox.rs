//! Things that a test creates on the machine, each removed when it goes out of scope: folder, network namespace, process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::names;
use evroc_tests::process::eventually;

/// A temporary folder.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one with a random name.
    pub fn new() -> Result<Folder> {
        let path = std::env::temp_dir().join(names::random());
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Folder(path))
    }

    /// The path of something in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// A named network namespace with its loopback up.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one with a random name.
    pub fn new() -> Result<Namespace> {
        let namespace = Namespace { name: names::random() };
        run(Command::new("ip").args(["netns", "add", &namespace.name]))
            .context("make a network namespace (root is needed)")?;
        namespace.output(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The file that stands for it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A command that runs in it. By `nsenter`: `ip netns exec` would hide the control groups.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command in it and returns its output; an error when it fails.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(arguments))
    }

    /// Makes a tap with an address.
    pub fn add_tap(&self, name: &str, address: &str) -> Result<()> {
        self.output(&["ip", "tuntap", "add", "dev", name, "mode", "tap"])?;
        self.output(&["ip", "address", "add", address, "dev", name])?;
        self.output(&["ip", "link", "set", name, "up"])?;
        Ok(())
    }

    /// Starts a DHCP server that gives one address to every client.
    pub fn dhcp_server(&self, folder: &Folder, link: &str, own: &str, offered: &str) -> Result<Process> {
        let script = names::repository().join("tests/suites/byhand/dhcp.py");
        let script = script.to_str().context("the clone's path is not UTF-8")?;
        let server =
            Process::start(&mut self.command(&["python3", script, link, own, offered]), folder.join("dhcp.log"))?;
        server.wait_for("serving", Duration::from_secs(20))?;
        Ok(server)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("network namespace {} stays behind: {error:#}", self.name);
        }
    }
}

/// A process whose output goes to a file, and that is killed when it goes out of scope.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Process> {
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Process { child: child.with_context(|| format!("start {command:?}"))?, log })
    }

    /// Returns what it has written so far.
    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// Waits until it has written the text.
    pub fn wait_for(&self, arguments: &str, within: Duration) -> Result<()> {
        ensure!(eventually(within, || self.log().contains(arguments)), "expected `{arguments}`, found: {}", self.log());
        Ok(())
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut status = None;
        eventually(within, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        match status {
            Some(status) => Ok(status),
            None => bail!("it still runs after {} s; its output: {}", within.as_secs(), self.log()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and returns its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The text of a file; empty when there is none yet.
pub fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
