//! Stories about shims with real processes.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evroc_node::shim::{
    Adopted, ClientError, LogFormat, LogLimits, ProcessHandle, ShimClient, ShimLauncher, SpawnError, Spec, State,
    Stderr, Stdio, User, adopt, adopt_within, log_files, tail,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A folder of shims that leaves no process behind, however a test ends.
struct Shims {
    root: tempfile::TempDir,
    launcher: ShimLauncher,
}

impl Shims {
    fn new() -> Self {
        let root = tempfile::Builder::new().prefix("evroc-shim-").tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { root, launcher: ShimLauncher::new(env!("CARGO_BIN_EXE_evroc-test-shim"), &[]) }
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.root.path().join("shims").join(id)
    }

    fn spec(&self, id: &str, argv: &[&str]) -> Spec {
        let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
        Spec::new(id, argv, self.root.path().join(format!("{id}.sock")))
    }

    fn shell(&self, id: &str, script: &str) -> Spec {
        self.spec(id, &["/bin/sh", "-c", script])
    }

    async fn start(&self, spec: &Spec) -> ShimClient {
        self.launcher.spawn(&self.dir(&spec.id), spec).await.unwrap()
    }

    fn log(&self, id: &str) -> String {
        String::from_utf8_lossy(&tail(&self.dir(id), u64::MAX).unwrap()).into_owned()
    }
}

impl Drop for Shims {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root.path().join("shims")).into_iter().flatten().flatten() {
            let text = std::fs::read(entry.path().join("pid.json")).unwrap_or_default();
            let Ok(record) = serde_json::from_slice::<evroc_node::shim::PidRecord>(&text) else { continue };
            for process in [record.shim, record.child] {
                if let Ok(Some(handle)) = process.open() {
                    let _ = handle.signal(rustix::process::Signal::KILL);
                }
            }
        }
    }
}

fn open(process: evroc_node::shim::ProcessIdentity) -> ProcessHandle {
    process.open().unwrap().expect("the process runs")
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < limit, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads until `text` has come.
async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(text) {
            match stream.read(&mut buffer).await.unwrap() {
                0 => panic!("ended before {text:?} came: {:?}", String::from_utf8_lossy(&seen)),
                count => seen.extend_from_slice(&buffer[..count]),
            }
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert!(outcome.is_ok(), "{text:?} never came: {:?}", String::from_utf8_lossy(&seen));
    String::from_utf8_lossy(&seen).into_owned()
}

fn processes_in(shims: &Shims) -> usize {
    let marker = shims.root.path().to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(marker)).count()
}

#[tokio::test]
async fn output_and_exit_code_are_kept() {
    let shims = Shims::new();
    let client = shims.start(&shims.shell("a", "echo out; echo bad >&2; exit 3")).await;
    let exit = client.wait().await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.oom), (Some(3), None, false));
    assert_eq!(exit.reason, "ended with code 3");
    let log = shims.log("a");
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F bad\n"), "{log}");
    let Adopted::Exited(again) = adopt(&shims.dir("a")).await.unwrap() else { panic!("it has ended") };
    assert_eq!(again, exit);
    eventually("no process is left", async || (processes_in(&shims) == 0).then_some(())).await;
    // A request to a shim that has ended still gets the answer.
    assert_eq!(client.wait().await.unwrap(), exit);
}

#[tokio::test]
async fn a_sleeping_process_is_adopted() {
    let shims = Shims::new();
    let first = shims.start(&shims.spec("a", &["/bin/sleep", "1000"])).await;
    let child = first.record().child;
    drop(first);
    let Adopted::Running(second) = adopt(&shims.dir("a")).await.unwrap() else { panic!("it runs") };
    assert_eq!(second.record().child, child);
    assert_eq!(second.status().await.unwrap().state, State::Running);
    second.signal(15).await.unwrap();
    let exit = second.wait().await.unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(15)));
}

#[tokio::test]
async fn a_shim_shrugs_off_signals_and_its_starter_is_not_its_parent() {
    let shims = Shims::new();
    let client = shims.start(&shims.spec("a", &["/bin/sleep", "1000"])).await;
    let shim = open(client.record().shim);
    use rustix::process::Signal;
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::TSTP] {
        shim.signal(signal).unwrap();
    }
    assert_eq!(client.status().await.unwrap().state, State::Running);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", client.record().shim.pid)).unwrap();
    let fields: Vec<i64> =
        stat.rsplit(')').next().unwrap().split_whitespace().skip(1).take(3).map(|f| f.parse().unwrap()).collect();
    assert_ne!(fields[0], i64::from(std::process::id()));
    assert_eq!(
        (fields[1], fields[2]),
        (i64::from(client.record().shim.pid), i64::from(client.record().shim.pid)),
        "own group and session"
    );
}

/// An image may have `STOPSIGNAL SIGRTMIN+3`, as those with systemd have.
#[tokio::test]
async fn signals_without_a_name_reach_the_workload() {
    let shims = Shims::new();
    for (id, number) in [("first", libc::SIGRTMIN()), ("systemd", libc::SIGRTMIN() + 3), ("last", libc::SIGRTMAX())] {
        let client = shims.start(&shims.spec(id, &["/bin/sleep", "1000"])).await;
        client.signal(number).await.unwrap();
        assert_eq!(client.wait().await.unwrap().signal, Some(number));
    }
    let client = shims.start(&shims.spec("refused", &["/bin/sleep", "1000"])).await;
    for number in [0, -9, libc::SIGRTMAX() + 1] {
        let refused = client.signal(number).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { reason, .. } if reason.contains("1 to 64")), "{refused}");
    }
    client.signal(9).await.unwrap();
    client.wait().await.unwrap();
}

/// Refused connections are no proof of an end, and no reason for one: shim and workload live on, and are found again.
#[tokio::test]
async fn a_shim_whose_socket_refuses_is_not_taken_for_dead() {
    let shims = Shims::new();
    let spec = shims.spec("a", &["/bin/sleep", "1000"]);
    let client = shims.start(&spec).await;
    let (shim, child) = (open(client.record().shim), open(client.record().child));
    let aside = spec.socket.with_extension("aside");
    std::fs::rename(&spec.socket, &aside).unwrap();
    // A socket without a listener.
    drop(std::os::unix::net::UnixListener::bind(&spec.socket).unwrap());
    let refused = tokio::net::UnixStream::connect(&spec.socket).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    let error = adopt_within(&shims.dir("a"), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("lives but does not answer"), "{error}");
    assert!(!shim.has_ended().unwrap() && !child.has_ended().unwrap(), "looking ends nothing");
    assert!(client.status().await.is_err());
    assert!(!shims.dir("a").join("exit.json").exists(), "no end was recorded");

    std::fs::rename(&aside, &spec.socket).unwrap();
    let Adopted::Running(again) = adopt(&shims.dir("a")).await.unwrap() else { panic!("it runs") };
    again.signal(15).await.unwrap();
    assert_eq!(again.wait().await.unwrap().signal, Some(15));
}

#[tokio::test]
async fn a_killed_shim_is_noticed_and_its_workload_ended() {
    let shims = Shims::new();
    let client = shims.start(&shims.spec("a", &["/bin/sleep", "1000"])).await;
    let child = open(client.record().child);
    open(client.record().shim).signal(rustix::process::Signal::KILL).unwrap();
    assert!(matches!(client.wait().await, Err(ClientError::Lost { .. })));
    let Adopted::ShimLost(lost) = adopt(&shims.dir("a")).await.unwrap() else { panic!("the shim is lost") };
    assert!(lost.child.is_some(), "the workload survives its shim until the agent ends it");
    let exit = lost.end(Duration::from_secs(5)).await.unwrap();
    assert_eq!(exit.reason, "its shim was killed");
    assert!(child.has_ended().unwrap());
    assert!(matches!(adopt(&shims.dir("a")).await.unwrap(), Adopted::Exited(found) if found == exit));
    // And the same folder serves again.
    let client = shims.start(&shims.shell("a", "exit 0")).await;
    assert!(client.wait().await.unwrap().is_success());
}

#[tokio::test]
async fn a_record_of_another_boot_names_no_process() {
    let shims = Shims::new();
    let client = shims.start(&shims.spec("a", &["/bin/sleep", "1000"])).await;
    let child = open(client.record().child);
    open(client.record().shim).signal(rustix::process::Signal::KILL).unwrap();
    let path = shims.dir("a").join("pid.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["bootId"] = "another".into();
    std::fs::write(&path, record.to_string()).unwrap();
    let lost = eventually("the shim is lost", async || match adopt(&shims.dir("a")).await.unwrap() {
        Adopted::ShimLost(lost) => Some(lost),
        _ => None,
    });
    let exit = lost.await.end(Duration::ZERO).await.unwrap();
    assert_eq!(exit.reason, "the host was restarted");
    assert!(!child.has_ended().unwrap(), "a pid of another boot is not touched");
    child.signal(rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn nothing_was_ever_started_in_an_empty_folder() {
    let shims = Shims::new();
    assert!(matches!(adopt(&shims.dir("none")).await.unwrap(), Adopted::Never));
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_reported() {
    let shims = Shims::new();
    let spec = shims.spec("a", &["/nonexistent/program"]);
    let error = shims.launcher.spawn(&shims.dir("a"), &spec).await.unwrap_err();
    assert!(matches!(&error, SpawnError::Refused { .. }));
    assert_eq!(
        error.to_string(),
        "start shim a: cannot start: execute /nonexistent/program: No such file or directory (os error 2)"
    );
    let Adopted::Exited(exit) = adopt(&shims.dir("a")).await.unwrap() else { panic!("it never ran") };
    assert_eq!((exit.code, exit.started_at), (None, None));
}

#[tokio::test]
async fn two_shims_cannot_serve_one_folder() {
    let shims = Shims::new();
    let spec = shims.spec("a", &["/bin/sleep", "1000"]);
    let client = shims.start(&spec).await;
    let error = shims.launcher.spawn(&shims.dir("a"), &spec).await.unwrap_err();
    assert!(error.to_string().contains("another shim"), "{error}");
    assert_eq!(client.status().await.unwrap().state, State::Running);
}

#[tokio::test]
async fn a_terminal_is_interactive_and_late_attachers_see_the_past() {
    let shims = Shims::new();
    let mut spec = shims.shell(
        "a",
        "stty size; echo ready; while read line; do echo \"got $line\"; [ \"$line\" = size ] && stty size; done",
    );
    spec.stdio = Stdio::Pty { rows: 30, cols: 100 };
    spec.env.insert("PATH".into(), "/usr/bin:/bin".into());
    let client = shims.start(&spec).await;
    let mut first = client.attach(0).await.unwrap();
    let mut late = client.attach(4096).await.unwrap();
    read_until(&mut late, "ready\r\n").await;
    late.write_all(b"hello\n").await.unwrap();
    read_until(&mut late, "got hello\r\n").await;
    read_until(&mut first, "got hello\r\n").await;
    client.resize(50, 132).await.unwrap();
    first.write_all(b"size\n").await.unwrap();
    read_until(&mut first, "50 132").await;
    assert_eq!(client.status().await.unwrap().attached, 2);
    // Control-D ends the shell's loop; attached clients see the end.
    first.write_all(b"\x04").await.unwrap();
    assert_eq!(client.wait().await.unwrap().code, Some(0));
    let mut rest = Vec::new();
    late.read_to_end(&mut rest).await.unwrap();
    assert!(shims.log("a").contains("30 100"));
}

#[tokio::test]
async fn a_client_that_goes_does_not_end_the_input() {
    let shims = Shims::new();
    let client = shims.start(&shims.spec("a", &["/bin/cat"])).await;
    for word in ["one\n", "two\n"] {
        let mut stream = client.attach(0).await.unwrap();
        stream.write_all(word.as_bytes()).await.unwrap();
        read_until(&mut stream, word).await;
    }
    eventually("both have left", async || (client.status().await.unwrap().attached == 0).then_some(())).await;
    assert_eq!(client.status().await.unwrap().state, State::Running);
}

#[tokio::test]
async fn logs_rotate_within_their_limits() {
    let shims = Shims::new();
    let mut spec = shims.shell("a", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done");
    spec.log = LogLimits { format: LogFormat::Cri, max_bytes: 10_000, max_files: 3 };
    let client = shims.start(&spec).await;
    let exit = client.wait().await.unwrap();
    assert_eq!(exit.log_bytes_dropped, 0);
    let files = log_files(&shims.dir("a")).unwrap();
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 10_000));
    let log = shims.log("a");
    let lines: Vec<_> = log.lines().collect();
    assert!(lines.last().unwrap().ends_with("line 2999"), "{:?}", lines.last());
    // No line is missing in between.
    let first: usize = lines[0].rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(lines.len(), 3000 - first);
}

#[tokio::test]
async fn standard_error_can_be_kept_apart_and_its_end_is_in_the_exit() {
    let shims = Shims::new();
    let mut spec = shims.shell("a", "printf 'login: '; echo cannot open disk >&2; exit 1");
    spec.stderr = Stderr::Separate;
    spec.log.format = LogFormat::Raw;
    let client = shims.start(&spec).await;
    let exit = client.wait().await.unwrap();
    assert_eq!(exit.stderr_tail, "cannot open disk");
    assert_eq!(shims.log("a"), "login: ");
}

#[tokio::test]
async fn privileges_are_dropped_on_both_sides() {
    let shims = Shims::new();
    let mut spec =
        shims.shell("a", "id -u; id -g; id -G; grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status; sleep 1000");
    spec.env.insert("PATH".into(), "/usr/bin:/bin".into());
    spec.user = Some(User { uid: 1_899_999_001, gid: 1_899_999_002, groups: vec![] });
    spec.shim_user = Some(User { uid: 1_899_999_003, gid: 1_899_999_003, groups: vec![] });
    spec.no_new_privileges = true;
    spec.log.format = LogFormat::Raw;
    let client = shims.start(&spec).await;
    let log = eventually("it printed", async || Some(shims.log("a")).filter(|log| log.contains("NoNewPrivs"))).await;
    assert!(log.starts_with("1899999001\n1899999002\n1899999002\n"), "{log}");
    assert!(log.contains("CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1"), "{log}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", client.record().shim.pid)).unwrap();
    assert!(status.contains("Uid:\t1899999003\t1899999003\t1899999003"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000020\n"), "CAP_KILL alone: {status}");
    // It still can do its job.
    client.signal(9).await.unwrap();
    let exit = client.wait().await.unwrap();
    assert_eq!(exit.signal, Some(9));
    assert!(matches!(adopt(&shims.dir("a")).await.unwrap(), Adopted::Exited(_)));
}

#[tokio::test]
async fn only_the_listed_descriptors_are_passed_on() {
    let shims = Shims::new();
    let passed: OwnedFd = std::fs::File::open("/etc/hostname").unwrap().into();
    let other: OwnedFd = std::fs::File::open("/etc/passwd").unwrap().into();
    let _inherited = rustix::io::fcntl_setfd(&other, rustix::io::FdFlags::empty());
    let number = passed.as_raw_fd();
    let mut spec = shims.shell("a", "ls -l /proc/self/fd; exec sleep 1000");
    spec.inherited_fds = vec![number];
    spec.env.insert("PATH".into(), "/usr/bin:/bin".into());
    let client = shims.start(&spec).await;
    let log = eventually("it printed", async || Some(shims.log("a")).filter(|log| log.contains("/proc/"))).await;
    assert!(log.contains(&format!("{number} -> /etc/hostname")), "{log}");
    assert!(!log.contains("/etc/passwd"), "{log}");
    let in_shim = std::fs::read_dir(format!("/proc/{}/fd", client.record().shim.pid)).unwrap().flatten();
    let targets: Vec<_> = in_shim.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    assert!(!targets.contains(&"/etc/hostname".into()), "the shim keeps no copy: {targets:?}");
}

#[tokio::test]
async fn orphans_end_with_the_workload() {
    let shims = Shims::new();
    let marker = shims.root.path().join("orphan");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 1000' & while [ ! -s {0} ]; do :; done; exit 7",
        marker.display()
    );
    let client = shims.start(&shims.shell("a", &script)).await;
    let exit = client.wait().await.unwrap();
    assert_eq!(exit.code, Some(7));
    let orphan: i32 = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
    assert!(!Path::new(&format!("/proc/{orphan}")).exists(), "the orphan was ended and collected");
}

#[tokio::test]
async fn a_workload_can_be_handed_over_by_pid_file() {
    let shims = Shims::new();
    let pid_file = shims.root.path().join("pid");
    let script = format!("setsid sh -c 'echo up; exec sleep 1000' & echo $! > {}; exit 0", pid_file.display());
    let mut spec = shims.shell("a", &script);
    spec.pid_file = Some(pid_file.clone());
    let client = shims.start(&spec).await;
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert_eq!(client.record().child.pid, pid);
    client.signal(15).await.unwrap();
    assert_eq!(client.wait().await.unwrap().signal, Some(15));

    let mut spec = shims.shell("b", "echo no such bundle >&2; exit 1");
    spec.pid_file = Some(pid_file);
    let error = shims.launcher.spawn(&shims.dir("b"), &spec).await.unwrap_err();
    assert!(error.to_string().contains("ended with code 1"), "{error}");
    assert!(error.to_string().contains("no such bundle"), "{error}");
}

#[tokio::test]
async fn a_stuck_reader_does_not_stop_the_workload() {
    let shims = Shims::new();
    let mut spec = shims.shell("a", "head -c 20000000 /dev/zero; echo done >&2");
    spec.env.insert("PATH".into(), "/usr/bin:/bin".into());
    spec.log = LogLimits { format: LogFormat::Raw, max_bytes: 1 << 20, max_files: 2 };
    let client = shims.start(&spec).await;
    let _never_read = client.attach(0).await;
    let exit = tokio::time::timeout(Duration::from_secs(20), client.wait()).await.unwrap().unwrap();
    assert_eq!(exit.code, Some(0));
}

#[tokio::test]
async fn a_full_disk_costs_log_bytes_and_nothing_else() {
    let shims = Shims::new();
    let dir = shims.dir("a");
    std::fs::create_dir_all(&dir).unwrap();
    let _disk = SmallDisk::mount(&dir);
    let mut spec = shims.shell("a", "head -c 2000000 /dev/zero; exit 5");
    spec.env.insert("PATH".into(), "/usr/bin:/bin".into());
    spec.log = LogLimits { format: LogFormat::Raw, max_bytes: 10 << 20, max_files: 1 };
    let client = shims.start(&spec).await;
    let exit = client.wait().await.unwrap();
    assert_eq!(exit.code, Some(5));
    assert!(exit.log_bytes_dropped > 1_000_000, "{exit:?}");
    assert!(matches!(adopt(&dir).await.unwrap(), Adopted::Exited(found) if found == exit));
}

/// A file system of 256 KiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        let options = Some(c"size=256k");
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn running_out_of_memory_is_reported() {
    let shims = Shims::new();
    let cgroups = evroc_node::cgroup::Cgroups::discover().unwrap();
    let instance = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let group = format!("/{instance}/oom");
    cgroups.create(&group).unwrap();
    let folders = cgroups.memory_folders(&group);
    let limited: Vec<PathBuf> = folders
        .into_iter()
        .filter(|folder| {
            let files = ["memory.limit_in_bytes", "memory.max"].map(|name| folder.join(name));
            files.iter().any(|file| file.exists() && std::fs::write(file, "30000000").is_ok())
        })
        .collect();
    assert!(!limited.is_empty(), "no memory controller on this host");
    let mut spec = shims.shell("a", "exec tail /dev/zero");
    spec.env.insert("PATH".into(), "/usr/bin:/bin".into());
    spec.cgroups = limited;
    let client = shims.start(&spec).await;
    let exit = tokio::time::timeout(Duration::from_secs(30), client.wait()).await;
    cgroups.remove(&group).unwrap();
    let exit = exit.unwrap().unwrap();
    assert_eq!((exit.signal, exit.oom), (Some(9), true));
    assert_eq!(exit.reason, "ran out of memory (ended by signal 9 (SIGKILL))");
}

#[tokio::test]
async fn a_shim_whose_folder_was_removed_ends_with_its_workload() {
    let shims = Shims::new();
    let shim = shims.start(&shims.spec("gone", &["/bin/sleep", "1000"])).await;
    let (own, child) = (open(shim.record().shim), open(shim.record().child));
    std::fs::remove_dir_all(shims.dir("gone")).unwrap();
    child.signal(rustix::process::Signal::KILL).unwrap();
    tokio::time::timeout(Duration::from_secs(20), own.wait()).await.expect("the shim ends").unwrap();
}
