//! An instance that is removed at the end of the test.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
pub const EVROCD: &str = env!("CARGO_BIN_EXE_evrocd");
/// How long anything may take on a busy machine before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// An instance with a random name and free ports.
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Home folder of the "user" who runs the commands.
    pub home: tempfile::TempDir,
}

impl Instance {
    /// A name, as yet without anything behind it.
    pub fn new() -> Self {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        // As all tests of the project: leftovers are counted by this prefix.
        let name = format!("evt-{:08x}", hasher.finish() as u32);
        Self { name, home: tempfile::tempdir().unwrap() }
    }

    /// A running instance.
    pub fn up() -> Self {
        let instance = Self::new();
        instance.start(&[]);
        instance
    }

    /// Runs a subcommand.
    pub fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// Starts a subcommand and does not wait for it.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(Path::new(EVROCD), arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// A subcommand, ready to start.
    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).args(["--instance", &self.name]).env("HOME", self.home.path());
        command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        command
    }

    /// Runs a subcommand that must work; returns its output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(Path::new(EVROCD), arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Runs a subcommand that must fail; returns its error output.
    pub fn must_fail(&self, arguments: &[&str]) -> String {
        let output = self.run(Path::new(EVROCD), arguments);
        assert!(!output.status.success(), "{arguments:?} should fail: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// `evrocd up --detach` on any free ports, without a block in /etc/hosts.
    pub fn start(&self, more: &[&str]) -> String {
        let mut arguments = vec!["up", "--detach", "--no-hosts-block"];
        if !self.has_record() {
            arguments.extend(["--api-port", "0", "--https-port", "0"]);
        }
        arguments.extend(more);
        self.must(&arguments)
    }

    /// Runs `evrocd status -o json`, with any exit code.
    pub fn status(&self) -> Value {
        let output = self.run(Path::new(EVROCD), &["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        })
    }

    /// Whether the machine knows the instance.
    pub fn has_record(&self) -> bool {
        self.record_path().exists()
    }

    /// The instance's record.
    pub fn record(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.record_path()).unwrap()).unwrap()
    }

    /// Replaces the record.
    pub fn write_record(&self, record: &Value) {
        std::fs::write(self.record_path(), record.to_string()).unwrap();
    }

    /// Supervisors of the instance by their command line, also one that has not reported anything yet.
    pub fn supervisors(&self) -> Vec<i32> {
        processes()
            .into_iter()
            .filter(|(_, line)| line.contains("--detached-child") && line.contains(&self.name))
            .map(|(pid, _)| pid)
            .collect()
    }

    fn record_path(&self) -> PathBuf {
        Path::new("/var/lib/evroc-instances").join(format!("{}.json", self.name))
    }

    /// `/var/lib/<instance>`.
    pub fn state(&self) -> PathBuf {
        Path::new("/var/lib").join(&self.name)
    }

    /// The operator's kubeconfig.
    pub fn kubeconfig(&self) -> String {
        std::fs::read_to_string(self.home.path().join(format!(".evroc/{}/kubeconfig", self.name))).unwrap()
    }

    /// API and HTTPS port.
    pub fn ports(&self) -> (u16, u16) {
        let record = self.record();
        let port = |name: &str| u16::try_from(record["ports"][name]["port"].as_u64().unwrap()).unwrap();
        (port("api"), port("https"))
    }

    /// Pids of the roles that are ready now.
    pub fn ready_roles(&self) -> BTreeMap<String, i32> {
        let status = self.status();
        let roles = status["supervisor"]["roles"].as_object().cloned().unwrap_or_default();
        roles
            .into_iter()
            .filter(|(_, role)| role["state"] == "ready")
            .map(|(name, role)| (name, i32::try_from(role["pid"].as_i64().unwrap()).unwrap()))
            .collect()
    }

    /// Waits until all three roles are ready, other processes than those in `before`.
    pub fn all_ready_but(&self, before: &[i32]) -> BTreeMap<String, i32> {
        eventually("all roles are ready", || {
            let roles = self.ready_roles();
            (roles.len() == 3 && roles.values().all(|pid| !before.contains(pid))).then_some(roles)
        })
    }

    /// The supervisor's pid.
    pub fn supervisor(&self) -> i32 {
        i32::try_from(self.status()["supervisor"]["pid"].as_i64().expect("a supervisor runs")).unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["supervisor", "control", "edge", "node"] {
                let log = std::fs::read_to_string(self.state().join(format!("log/{name}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {name}.log\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
            }
        }
        let output = self.run(Path::new(EVROCD), &["down", "--purge", "--timeout", "5"]);
        if !std::thread::panicking() {
            let printed = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&printed));
            assert_eq!(leftovers(&self.name), Vec::<String>::new());
        }
    }
}

/// Waits for a condition.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        pause();
    }
}

/// A moment between two looks.
pub fn pause() {
    pause_for(Duration::from_millis(20));
}

/// Lets time pass, where the moment itself is varied.
pub fn pause_for(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}

/// Sends a signal to a process, or to a process group by its negative number.
pub fn signal(pid: i32, name: &str) {
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};
    let signal = match name {
        "KILL" => Signal::KILL,
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "HUP" => Signal::HUP,
        other => panic!("no signal {other}"),
    };
    let target = Pid::from_raw(pid.abs()).unwrap();
    let result = if pid < 0 { kill_process_group(target, signal) } else { kill_process(target, signal) };
    // A process that has just ended is what most callers want.
    assert!(matches!(result, Ok(()) | Err(rustix::io::Errno::SRCH)), "SIG{name} to {pid}: {result:?}");
}

/// Whether a process lives (a zombie does not).
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// All processes with their command lines.
fn processes() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect()
}

/// Everything on the machine that carries the instance's name.
pub fn leftovers(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in [format!("/var/lib/{name}"), format!("/run/{name}")] {
        found.extend(Path::new(&path).exists().then_some(path));
    }
    for entry in std::fs::read_dir("/var/lib/evroc-instances").into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        found.extend(file.contains(name).then_some(file));
    }
    let named = processes().into_iter().filter(|(_, line)| line.contains(name));
    found.extend(named.map(|(pid, line)| format!("process {pid}: {line}")));
    for (folder, what) in [("/run/netns", "network namespace"), ("/sys/fs/cgroup", "cgroup")] {
        let hierarchies = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in hierarchies {
            let own = entry.file_name().to_string_lossy().starts_with(name);
            if own || entry.path().join(name).exists() {
                found.push(format!("{what} {}", entry.path().display()));
            }
        }
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    found.extend(hosts.lines().filter(|line| line.contains(name)).map(|line| format!("/etc/hosts: {line}")));
    found
}
