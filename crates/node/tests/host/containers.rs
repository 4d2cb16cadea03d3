//! Stories about containers, with the real OCI runtime.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evroc_node::container::bundle::Workload;
use evroc_node::container::image::Image;
use evroc_node::container::manifest::{ImageConfig, Platform, RootFs, RunConfig};
use evroc_node::container::runner::{
    CREATE_DEADLINE, Container, ContainerError, ContainerRunner, ContainerSpec, FoundContainer, RunnerConfig,
};
use evroc_node::container::unpack::{UnpackLauncher, Unpacker};
use evroc_node::dial::Dialer;
use evroc_node::shim::{ShimLauncher, User, tail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 8080;
const SHIM_ID: u32 = 1_999_999_004;
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

fn config(root: &Path, instance: &str) -> RunnerConfig {
    RunnerConfig {
        instance: instance.to_owned(),
        state_dir: root.join("node"),
        run_dir: root.join("run"),
        runtime: find_runtime(),
        shim: ShimLauncher::new(env!("CARGO_BIN_EXE_evroc-test-shim"), &[]),
        // As in a real instance: a user that owns nothing.
        shim_user: Some(User { uid: SHIM_ID, gid: SHIM_ID, groups: Vec::new() }),
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

#[tokio::test]
async fn a_container_sees_its_port_and_nothing_else() {
    let host = Host::new();
    let started = Instant::now();
    let container = host.runner.start(&host.spec("a", &["serve"])).await.unwrap();
    container.wait_ready(PORT).await.unwrap();
    println!("started and ready in {:?}", started.elapsed());
    let answer = ask(&container).await;
    let status = section(&answer, "status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), "65532 65532 65532 65532");
    assert_eq!(field("Gid:"), "65532 65532 65532 65532");
    assert_eq!(field("Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:"), field("Umask:")), ("1".into(), "2".into(), "0022".into()));
    assert_eq!(field("NSpid:"), "1");
    assert_eq!(section(&answer, "pids"), "1");
    assert_eq!(section(&answer, "net").lines().count(), 3, "lo and two lines of heading");
    assert_eq!(section(&answer, "routes").lines().count(), 1, "the heading");
    assert!(section(&answer, "egress").contains("Network is unreachable"));
    assert!(section(&answer, "write /").contains("Read-only file system"));
    for path in ["/tmp", "/run", "/dev/shm"] {
        assert_eq!(section(&answer, &format!("write {path}")), "allowed", "{path}");
    }
    assert!(section(&answer, "write /proc/sys").contains("error"));
    assert_eq!(section(&answer, "hostname"), "test-a");
    assert!(section(&answer, "hosts").contains("127.0.0.1\ttest-a"));
    assert!(!section(&answer, "cgroup").contains(&host.instance));
    assert_eq!((section(&answer, "env PORT"), section(&answer, "env GREETING")), ("8080", "hello"));
    for mount in section(&answer, "mounts").lines().filter(|line| !line.contains(" /dev/pts ")) {
        assert!(mount.contains("nosuid") || mount.contains(" ro,"), "{mount}");
    }
    eventually("the output is in the log", async || {
        let log = host.log("a");
        if log.contains(" stdout F serving\n") { Ok(()) } else { Err(log) }
    })
    .await;

    let exit = container.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.oom), (Some(0), None, false));
    host.finish().await;
}

#[tokio::test]
async fn a_container_outlives_its_agent() {
    let host = Host::new();
    let container = host.runner.start(&host.spec("a", &["serve"])).await.unwrap();
    container.wait_ready(PORT).await.unwrap();
    let pid = container.shim().record().child.pid;
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");
    drop(container);
    let again = runner(host.root.path(), &host.instance);
    assert_eq!(again.known(), BTreeSet::from(["a".to_owned()]));
    let FoundContainer::Running(container) = again.find("a").await.unwrap() else { panic!("it runs") };
    assert_eq!(container.shim().record().child.pid, pid);
    assert_eq!(again.start(&host.spec("a", &["serve"])).await.unwrap().shim().record().child.pid, pid);
    assert_eq!(section(&ask(&container).await, "hostname"), "test-a");
    host.finish().await;
}

#[tokio::test]
async fn a_container_whose_agent_died_halfway_is_started_by_the_next() {
    let host = Host::new();
    // The agent dies between the runtime's `create` and `start`: that `start` hangs, and has no caller any more.
    let half = half_runner(&host);
    let spec = host.spec("a", &["serve"]);
    let starting = tokio::spawn(async move { half.start(&spec).await.map(drop) });
    let created = host.root.path().join("start-was-called");
    eventually("the container is created", async || created.exists().then_some(()).ok_or("not yet".into())).await;
    starting.abort();
    let _ = starting.await;
    assert!(matches!(host.runner.find("a").await.unwrap(), FoundContainer::Created(_)), "looking starts nothing");
    assert!(matches!(host.runner.find("a").await.unwrap(), FoundContainer::Created(_)), "nor does looking again");
    let container = host.runner.start(&host.spec("a", &["serve"])).await.unwrap();
    container.wait_ready(PORT).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn a_shim_that_does_not_answer_is_no_evidence_about_its_container() {
    let host = Host::new();
    let container = host.runner.start(&host.spec("a", &["serve"])).await.unwrap();
    container.wait_ready(PORT).await.unwrap();
    let record = container.shim().record().clone();
    let shim = record.shim.open().unwrap().unwrap();
    shim.signal(rustix::process::Signal::STOP).unwrap();
    // Longer than a shim may be silent.
    let error = host.runner.find("a").await.unwrap_err();
    assert!(error.to_string().contains("adopt shim"), "{error}");
    assert!(host.runner.start(&host.spec("a", &["serve"])).await.is_err(), "nothing is started on a guess");
    assert_eq!(section(&ask(&container).await, "hostname"), "test-a", "it goes on answering");
    shim.signal(rustix::process::Signal::CONT).unwrap();
    let FoundContainer::Running(found) = host.runner.find("a").await.unwrap() else { panic!("it runs") };
    assert_eq!(found.shim().record().child, record.child);
    host.finish().await;
}

#[tokio::test]
async fn the_images_stop_signal_is_sent() {
    let host = Host::new();
    let mut spec = host.spec("a", &["quit"]);
    spec.image.config.config.stop_signal = "SIGQUIT".into();
    host.runner.start(&spec).await.unwrap().wait_ready(PORT).await.unwrap();
    // The next agent knows it too.
    let again = runner(host.root.path(), &host.instance);
    let FoundContainer::Running(container) = again.find("a").await.unwrap() else { panic!("it runs") };
    let exit = container.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!((exit.code, exit.signal), (Some(3), None), "{exit:?}");
    host.finish().await;
}

#[tokio::test]
async fn a_runtime_that_hangs_while_it_creates_is_ended() {
    let host = Host::new();
    let path = script(&host, "create", "exec sleep 1000");
    let config = RunnerConfig {
        runtime: path,
        create_deadline: Duration::from_millis(500),
        ..config(host.root.path(), &host.instance)
    };
    let hanging = ContainerRunner::new(config, Dialer::start().unwrap()).unwrap();
    let error = hanging.start(&host.spec("a", &["serve"])).await.unwrap_err();
    assert!(error.to_string().contains("start shim"), "{error}");
    assert!(!error.is_permanent());
    eventually("nothing is left", async || {
        let left = host.leftovers();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    })
    .await;
    host.finish().await;
}

#[tokio::test]
async fn a_removal_does_not_wait_for_a_runtime_that_hangs() {
    let host = Host::new();
    for command in ["create", "start"] {
        let called = host.root.path().join(format!("{command}-was-called"));
        let runtime = script(&host, command, &format!("touch {} && exec sleep 1000", called.display()));
        let config = RunnerConfig { runtime, ..config(host.root.path(), &host.instance) };
        let hanging = ContainerRunner::new(config, Dialer::start().unwrap()).unwrap();
        let starting = tokio::spawn({
            let (hanging, spec) = (hanging.clone(), host.spec("a", &["serve"]));
            async move { hanging.start(&spec).await.map(drop) }
        });
        eventually("the runtime hangs", async || called.exists().then_some(()).ok_or("not yet".into())).await;
        // Both deadlines of the runtime are longer.
        tokio::time::timeout(Duration::from_secs(25), hanging.remove("a")).await.expect("in time").unwrap();
        assert!(starting.await.unwrap().is_err());
        assert!(hanging.known().is_empty(), "{command}");
    }
    host.finish().await;
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
    let config = RunnerConfig { runtime: path, ..config(host.root.path(), &host.instance) };
    ContainerRunner::new(config, Dialer::start().unwrap()).unwrap()
}

#[tokio::test]
async fn a_container_that_lost_its_shim_is_ended_and_its_log_goes_on() {
    let host = Host::new();
    let container = host.runner.start(&host.spec("a", &["serve"])).await.unwrap();
    let served = |times: usize| {
        let log = host.log("a");
        if log.matches(" stdout F serving\n").count() == times { Ok(()) } else { Err(log) }
    };
    eventually("the output is in the log", async || served(1)).await;
    let record = container.shim().record().clone();
    record.shim.open().unwrap().unwrap().signal(rustix::process::Signal::KILL).unwrap();
    let orphan = eventually("the loss is seen", async || match host.runner.find("a").await.unwrap() {
        FoundContainer::Orphaned(orphan) => Ok(orphan),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(orphan.reason.contains("shim was killed"), "{}", orphan.reason);
    assert!(record.child.open().unwrap().is_some(), "looking ends nothing");
    let container = host.runner.start(&host.spec("a", &["serve"])).await.unwrap();
    assert!(record.child.open().unwrap().is_none(), "the orphan was ended before");
    container.wait_ready(PORT).await.unwrap();
    eventually("the log goes on where the lost shim left it", async || served(2)).await;
    host.finish().await;
}

#[tokio::test]
async fn exits_are_reported_exactly() {
    let host = Host::new();
    for (uid, mode, want) in [
        ("code", "exit", (Some(7), None, false)),
        // SIGABRT of its own making does not end the first process of a container; the C library then crashes on purpose.
        ("signal", "abort", (None, Some(11), false)),
        ("memory", "eat", (None, Some(9), true)),
    ] {
        let container = host.runner.start(&host.spec(uid, &[mode])).await.unwrap();
        let exit = tokio::time::timeout(Duration::from_secs(60), container.wait()).await.unwrap().unwrap();
        assert_eq!((exit.code, exit.signal, exit.oom), want, "{mode}: {}", exit.reason);
        assert!(matches!(host.runner.find(uid).await.unwrap(), FoundContainer::Ended(_)));
    }
    assert!(host.log("code").contains(" stderr F leaving\n"));
    let FoundContainer::Ended(exit) = host.runner.find("code").await.unwrap() else { panic!("it ended") };
    assert_eq!(exit.stderr_tail, "leaving", "the end of its standard error goes with its end");
    // Without a handler the first process of a container ignores SIGTERM.
    let container = host.runner.start(&host.spec("stubborn", &["sleep"])).await.unwrap();
    // The runtime's own process, which exists until then, ends by SIGTERM.
    let sleeping = || Some(host.log("stubborn")).filter(|log| log.contains("sleeping")).ok_or("no output".to_owned());
    eventually("the program runs", async || sleeping()).await;
    let exit = container.stop(Duration::from_millis(200)).await.unwrap();
    assert_eq!(exit.signal, Some(9), "{exit:?}");
    // Waiting for a port ends with the container.
    let container = host.runner.start(&host.spec("late", &["exit"])).await.unwrap();
    assert!(matches!(container.wait_ready(PORT).await, Err(ContainerError::Ended(exit)) if exit.code == Some(7)));
    host.finish().await;
}

#[tokio::test]
async fn a_container_that_cannot_run_is_reported_and_leaves_nothing() {
    let host = Host::new();
    type Change = fn(&mut ContainerSpec);
    let cases: [(Change, &str); 5] = [
        (
            |s| s.image.config.config.entrypoint = vec!["/nope".into()],
            "image \"demo/test:v1\" cannot be started: it has no program \"/nope\"",
        ),
        (|s| s.image.config.config.user = String::new(), "image \"demo/test:v1\" runs as root (USER is not set)"),
        (
            |s| s.image.config.config.user = "nobody".into(),
            "image \"demo/test:v1\" has USER \"nobody\", but /etc/passwd",
        ),
        (|s| s.image.config.config.working_dir = "/nope".into(), "has WORKDIR \"/nope\", but no such folder"),
        (
            |s| {
                s.image.config.config.entrypoint.clear();
                s.workload.args.clear();
            },
            "names no program",
        ),
    ];
    for (change, want) in cases {
        let mut spec = host.spec("a", &["serve"]);
        change(&mut spec);
        let error = host.runner.start(&spec).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(want), "{error}");
        assert!(host.leftovers().is_empty(), "{:?}", host.leftovers());
    }
    host.finish().await;
}

#[tokio::test]
async fn many_start_and_end_at_once() {
    let host = Host::new();
    let rounds = (0..12).map(|index| {
        let (runner, spec) = (host.runner.clone(), host.spec(&format!("c{index}"), &["serve"]));
        async move {
            let container = runner.start(&spec).await.unwrap();
            container.wait_ready(PORT).await.unwrap();
            container.stop(Duration::from_secs(10)).await.unwrap();
            runner.remove(&spec.uid).await.unwrap();
        }
    });
    futures::future::join_all(rounds).await;
    assert!(host.runner.known().is_empty());
    host.finish().await;
}

/// A registry as HTTP serves it: `/v2/<repository>/{manifests,blobs}/<digest>` out of an OCI image layout's blobs.
async fn serve_blobs(blobs: PathBuf) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    use http_body_util::Full;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let blobs = blobs.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let digest = request.uri().path().rsplit("sha256:").next().unwrap_or_default();
                let found = std::fs::read(blobs.join(digest));
                let status = if found.is_ok() { 200 } else { 404 };
                let body = Full::new(bytes::Bytes::from(found.unwrap_or_default()));
                let response = http::Response::builder().status(status).body(body);
                async move { response }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, task)
}

#[tokio::test]
async fn an_image_from_the_registry_runs() {
    use evroc_node::container::digest::Digest;
    use evroc_node::container::fetch::RegistryClient;
    use evroc_node::container::image::{ImageReference, ImageStore};

    let _ = rustls::crypto::ring::default_provider().install_default();
    let host = Host::new();
    let blobs = host.root.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    let put = |bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        std::fs::write(blobs.join(digest.hex()), &bytes).unwrap();
        (digest, bytes.len())
    };
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", &host.image.layers[0]).unwrap();
    let tar = tar.into_inner().unwrap();
    let diff_id = Digest::of(&tar);
    let (layer, layer_size) = put(tar);
    let (config, config_size) = put(serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "config": {"User": "65532:65532", "Entrypoint": ["/app"], "Cmd": ["serve"], "StopSignal": "SIGTERM"},
    })
    .to_string()
    .into_bytes());
    let (manifest, _) = put(serde_json::json!({
        "schemaVersion": 2,
        "config": {"digest": config, "size": config_size},
        "layers": [{"digest": layer, "size": layer_size}],
    })
    .to_string()
    .into_bytes());
    let (address, server) = serve_blobs(blobs).await;
    let tls = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let client = RegistryClient::new(format!("http://{address}"), tls.with_no_client_auth());
    let store =
        ImageStore::open(&host.root.path().join("node/containers"), std::sync::Arc::new(client), unpacker()).unwrap();
    let reference =
        |digest| ImageReference { written: "demo/hello:v1".into(), repository: "demo/hello".into(), digest };
    let image = store.ensure(&reference(manifest)).await.unwrap();
    let spec = ContainerSpec { image, ..host.spec("a", &[]) };
    let container = host.runner.start(&spec).await.unwrap();
    container.wait_ready(PORT).await.unwrap();
    assert_eq!(section(&ask(&container).await, "hostname"), "test-a");
    let missing = store.ensure(&reference(Digest::of(b"no such image"))).await.unwrap_err();
    assert!(missing.is_permanent() && missing.to_string().contains("fetch manifest"), "{missing}");
    server.abort();
    host.finish().await;
}
