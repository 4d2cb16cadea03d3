//! Programs in Python, as users write them: `tests/clients` has them.

use std::path::Path;
use std::process::Command;

use evroc_api::compute::Disk;
use evroc_testkit::objects::disk;
use evroc_testkit::{IMAGE, eventually};
use evroc_tests::process::Running;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use serde_json::json;

use super::{World, run, tools};

fn python(world: &World, program: &str, script: &str) -> Command {
    let mut command = Command::new(tools().join("clients/bin").join(program));
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    if program == "kopf" {
        command.args(["run", "--namespace=demo", "--liveness=", "--verbose"]);
        command.args(["--standalone", "--log-format=plain"]);
    }
    command.arg(scripts.join(script)).env("KUBECONFIG", &world.kubeconfig).env("PYTHONDONTWRITEBYTECODE", "1");
    // kr8s keeps what it has discovered in the user's home.
    command.env("HOME", world.folder()).env("TMPDIR", world.folder());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_lists_watches_and_informs() {
    let world = World::start().await;
    let mut command = python(&world, "python", "kubernetes_client.py");
    command.arg(IMAGE);
    let output = run(command).await;
    assert!(output.ok(), "{}\n{}", output.ending(), output.both);
    assert_eq!(output.stdout.lines().count(), 4, "{}", output.both);
}

#[tokio::test(flavor = "multi_thread")]
async fn kr8s_waits_and_watches() {
    let world = World::start().await;
    let mut command = python(&world, "python", "kr8s_client.py");
    command.arg(IMAGE);
    let output = run(command).await;
    assert!(output.ok(), "{}\n{}", output.ending(), output.both);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_kopf_reconciles() {
    let world = World::start().await;
    let platform = &world.platform;
    let mut labelled = disk("hello", IMAGE);
    labelled.metadata.labels = Some([("backup".to_owned(), "daily".to_owned())].into());
    platform.create(&disk("plain", IMAGE)).await;
    platform.create(&labelled).await;
    platform
        .create(&ConfigMap {
            metadata: kube::core::ObjectMeta { name: Some("ended".into()), ..Default::default() },
            ..Default::default()
        })
        .await;

    let mut operator = python(&world, "kopf", "kopf_operator.py");
    let operator = Running::start(&mut operator, false).expect("kopf");
    let when = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("when").cloned()).unwrap_or_default();
    let plan = platform.until::<ConfigMap>("backup-hello", "planned", |map| when(map) == "daily").await;
    assert_eq!(plan.metadata.owner_references.expect("an owner")[0].name, "hello");
    platform
        .until::<Disk>("hello", "marked", |disk| {
            disk.metadata.annotations.iter().flatten().any(|(key, _)| key == "suite.example/planned")
                && disk.metadata.finalizers.iter().flatten().any(|it| it == "suite.example/backup")
        })
        .await;
    platform.patch::<Disk>("hello", json!({"metadata": {"labels": {"backup": "weekly"}}})).await;
    platform.until::<ConfigMap>("backup-hello", "changed", |map| when(map) == "weekly").await;
    let events = platform.api::<Event>();
    eventually("the operator's event", || {
        let events = events.clone();
        async move {
            let all = events.list(&Default::default()).await.map_err(|error| error.to_string())?;
            let found = all.items.iter().any(|event| event.reason.as_deref() == Some("Planned"));
            found.then_some(()).ok_or_else(|| format!("{} other events", all.items.len()))
        }
    })
    .await;

    // The operator's finalizer holds the disk until its handler has run; the disk's dependents are deleted after it.
    platform.delete::<Disk>("hello").await;
    platform.gone::<Disk>("hello").await;
    platform.gone::<ConfigMap>("backup-hello").await;
    let ended = platform.get::<ConfigMap>("ended").await.data.unwrap_or_default();
    assert_eq!(ended.get("hello").map(String::as_str), Some("ended"));
    assert!(
        platform.get::<Disk>("plain").await.metadata.annotations.is_none(),
        "an object without the label is left alone"
    );
    let printed = operator.so_far();
    assert!(!printed.contains("Traceback"), "{printed}");
}
