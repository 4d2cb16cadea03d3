//! The view of a container on the host, and its permissions.

use super::*;

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
