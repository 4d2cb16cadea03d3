//! Stories about containers, with the real OCI runtime.

mod images;
mod isolation;
mod lifecycle;
mod runtime;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evroc_node::container::bundle::Workload;
use evroc_node::container::image::Image;
use evroc_node::container::manifest::{ImageConfig, Platform, RootFs, RunConfig};
use evroc_node::container::runner::{
    CREATE_DEADLINE, Container, ContainerError, ContainerRunner, ContainerRunnerConfig, ContainerSpec, FoundContainer,
};
use evroc_node::container::unpack::{UnpackLauncher, Unpacker};
use evroc_node::dial::Dialer;
use evroc_node::shim::{ShimLauncher, ShimUsers, tail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 8080;
const FIRST_SHIM_UID: u32 = 1_999_999_004;
const UNPACKER_ID: u32 = 1_999_999_005;

/// An instance with a name of its own, and a layer with the test program in it. Ends everything and looks for leftovers.
struct Host {
    root: tempfile::TempDir,
    instance: String,
    runner: ContainerRunner,
    image: Image,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::Builder::new().prefix("evroc-run-").tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let instance = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let layer = root.path().join("layer");
        copy_program(Path::new(env!("CARGO_BIN_EXE_evroc-test-container")), &layer);
        let image = Image {
            written: "demo/test:v1".into(),
            config: ImageConfig {
                platform: Platform { architecture: "amd64".into(), os: "linux".into() },
                config: RunConfig {
                    user: "65532:65532".into(),
                    entrypoint: vec!["/app".into()],
                    ..RunConfig::default()
                },
                rootfs: RootFs { diff_ids: Vec::new() },
            },
            layers: vec![layer],
        };
        let runner = runner(root.path(), &instance);
        Self { root, instance, runner, image }
    }

    fn spec(&self, uid: &str, args: &[&str]) -> ContainerSpec {
        ContainerSpec {
            uid: uid.into(),
            image: self.image.clone(),
            workload: Workload {
                command: Vec::new(),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                env: vec![("GREETING".into(), "hello".into())],
                port: PORT,
                memory_bytes: 64 << 20,
                cpu_millis: 1000,
                hostname: format!("test-{uid}"),
            },
        }
    }

    fn log(&self, uid: &str) -> String {
        String::from_utf8_lossy(&tail(&self.runner.shim_dir(uid), u64::MAX).unwrap()).into_owned()
    }

    /// Everything of this instance that is still on the machine.
    fn leftovers(&self) -> Vec<String> {
        let marker = self.root.path().to_str().unwrap();
        let mut found: Vec<_> = std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(marker))
            .map(|line| format!("mount {line}"))
            .collect();
        let groups =
            std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path().join(&self.instance));
        found.extend(groups.filter(|path| path.exists()).map(|path| format!("group {}", path.display())));
        for folder in ["node/shims", "run/netns", "run/bundles", "run/runc", "run/shim"] {
            let entries = std::fs::read_dir(self.root.path().join(folder)).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        found
            .extend(lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(marker)));
        found
    }

    /// The end of every story: nothing is left.
    async fn finish(self) {
        for uid in self.runner.known() {
            self.runner.remove(&uid).await.unwrap();
        }
        eventually("nothing is left", async || {
            let left = self.leftovers();
            if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
        })
        .await;
    }
}

/// A test that failed cleans up, too.
impl Drop for Host {
    fn drop(&mut self) {
        let runner = self.runner.clone();
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for uid in runner.known() {
                    let _ = runner.remove(&uid).await;
                }
            });
        });
        let _ = cleaning.join();
    }
}

fn config(root: &Path, instance: &str) -> ContainerRunnerConfig {
    ContainerRunnerConfig {
        instance: instance.to_owned(),
        state_dir: root.join("node"),
        run_dir: root.join("run"),
        runtime: find_runtime(),
        shim: ShimLauncher::new(env!("CARGO_BIN_EXE_evroc-test-shim"), &[]),
        // As in a real instance: users that own nothing.
        shim_users: Some(ShimUsers::new(root.join("node/shims"), FIRST_SHIM_UID, 100)),
        shim_cgroups: Vec::new(),
        create_deadline: CREATE_DEADLINE,
    }
}

fn runner(root: &Path, instance: &str) -> ContainerRunner {
    ContainerRunner::new(config(root, instance), Dialer::start().unwrap()).unwrap()
}

fn unpacker() -> Unpacker {
    Unpacker::Process(UnpackLauncher::new(env!("CARGO_BIN_EXE_evroc-test-unpack"), &[], UNPACKER_ID))
}

fn find_runtime() -> PathBuf {
    let paths = ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"];
    paths.into_iter().map(PathBuf::from).find(|path| path.exists()).expect("runc is installed")
}

/// Copies a program and the libraries it needs below `layer`.
fn copy_program(program: &Path, layer: &Path) {
    let listing = std::process::Command::new("ldd").arg(program).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let libraries = listing.split_whitespace().filter(|word| word.starts_with('/'));
    std::fs::create_dir_all(layer).unwrap();
    std::fs::copy(program, layer.join("app")).unwrap();
    for library in libraries {
        let target = layer.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(library, target).unwrap();
    }
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(now) => assert!(Instant::now() < limit, "never happened: {what}; now: {now}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the report of the test program about its surroundings.
async fn ask(container: &Container) -> String {
    let mut stream = container.connect(PORT).await.unwrap();
    stream.write_all(b"go").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn section<'a>(answer: &'a str, name: &str) -> &'a str {
    let start = answer.find(&format!("== {name}\n")).unwrap_or_else(|| panic!("no {name} in:\n{answer}"));
    let text = &answer[start + name.len() + 4..];
    text.split("\n== ").next().unwrap().trim()
}

/// A runtime that does `instead` of one of its commands.
fn script(host: &Host, command: &str, instead: &str) -> PathBuf {
    let path = host.root.path().join(format!("no-{command}-runtime"));
    let script = format!(
        "#!/bin/sh\nfor word; do [ \"$word\" = {command} ] && {instead}\ndone\nexec {} \"$@\"\n",
        find_runtime().display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// A runner whose runtime creates containers but never starts them.
fn half_runner(host: &Host) -> ContainerRunner {
    let called = format!("touch {}/start-was-called && exec sleep 1000", host.root.path().display());
    let path = script(host, "start", &called);
    let config = ContainerRunnerConfig { runtime: path, ..config(host.root.path(), &host.instance) };
    ContainerRunner::new(config, Dialer::start().unwrap()).unwrap()
}
