//! A runtime that hangs.

use super::*;

#[tokio::test]
async fn a_runtime_that_hangs_while_it_creates_is_ended() {
    let host = Host::new();
    let path = script(&host, "create", "exec sleep 1000");
    let config = ContainerRunnerConfig {
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
        let config = ContainerRunnerConfig { runtime, ..config(host.root.path(), &host.instance) };
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
