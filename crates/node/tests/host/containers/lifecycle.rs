//! From the start of a container to its last trace, with and without its agent and shim.

use super::*;

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
