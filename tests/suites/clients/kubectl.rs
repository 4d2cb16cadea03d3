//! Everyday commands, with Debian's kubectl (1.20) and with the newest.

use evroc_testkit::IMAGE;

use super::{Kubectl, NEWEST, OLD, World};

fn manifest(label: &str) -> String {
    format!(
        "apiVersion: compute.evroclabs.net/v1alpha1
kind: Disk
metadata: {{name: hello}}
spec: {{diskImage: {{diskImageRef: {{name: {IMAGE}}}}}}}
---
apiVersion: compute.evroclabs.net/v1alpha1
kind: VirtualMachine
metadata: {{name: hello, labels: {{team: {label}}}}}
spec:
  vmVirtualResourcesRef: {{vmVirtualResourcesRefName: test.xs}}
  diskRefs: [{{name: hello, bootFrom: true}}]
"
    )
}

fn with_input(line: &str, input: &str) -> String {
    format!("{line} <<'END'\n{input}END")
}

/// The first word of each line.
fn first_words(table: &str) -> Vec<&str> {
    table.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

async fn a_day(kubectl: &Kubectl, is_old: bool) {
    // Discovery.
    let kinds = kubectl.ok("api-resources").await;
    for kind in ["VirtualMachine", "Disk", "ResourceGroup", "ConfigMap", "Lease"] {
        assert!(kinds.contains(kind), "{kind}: {kinds}");
    }
    assert!(kubectl.ok("get services").await.is_empty(), "services are Run's, and there are none");
    assert!(kubectl.ok("api-versions").await.contains("run.evroclabs.net/v1alpha1"));
    assert!(kubectl.ok("explain vm.spec.diskRefs").await.contains("bootFrom"));
    let fields = kubectl.ok("explain vm --recursive").await;
    assert!(fields.contains("vmVirtualResourcesRefName") && fields.contains("publicIPv4Address"), "{fields}");
    kubectl.ok("version").await;
    assert_eq!(kubectl.ok("get --raw /readyz").await.trim(), "ok");

    // Make and look.
    let created = kubectl.ok(&with_input("apply -f -", &manifest("red"))).await;
    assert!(created.contains("virtualmachine.compute.evroclabs.net/hello created"), "{created}");
    kubectl.ok("wait vm/hello --for=condition=Ready --timeout=20s").await;
    let table = kubectl.ok("get vm").await;
    let header: Vec<&str> =
        table.lines().next().unwrap_or_default().split("  ").map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(header, ["NAME", "READY", "REASON", "VIRTUALMACHINESTATUS", "IP", "PUBLIC IP"], "{table}");
    let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..4], ["hello", "True", "Ready", "Running"], "{table}");
    assert!(kubectl.ok("get vm -o wide").await.contains("test.xs"));
    assert_eq!(kubectl.ok("get vm,disk -o name").await.lines().count(), 2);
    assert!(kubectl.ok("get all").await.contains("virtualmachine.compute.evroclabs.net/hello"));
    assert_eq!(kubectl.ok("get vm -l team=red -o name").await.lines().count(), 1);
    assert_eq!(kubectl.ok("get vm -l team!=red -o name").await.lines().count(), 0);
    assert_eq!(
        kubectl.ok("get vm --field-selector status.virtualMachineStatus=Running -o name").await.lines().count(),
        1
    );
    assert_eq!(kubectl.ok("get vm hello -o jsonpath={.spec.running}").await, "true");
    assert_eq!(
        first_words(&kubectl.ok("get vm --sort-by=.metadata.name -o custom-columns=N:.metadata.name").await),
        ["N", "hello"]
    );
    assert!(kubectl.ok("get vm -A").await.contains("demo"));
    let description = kubectl.ok("describe vm hello").await;
    assert!(description.contains("Disk Refs:"), "{description}");
    let events = description.split("Events:").nth(1).unwrap_or_default();
    assert!(events.contains("Ready") && events.contains("evroc"), "{description}");

    // Change.
    let same = kubectl.ok(&with_input("apply -f -", &manifest("red"))).await;
    assert!(same.contains("virtualmachine.compute.evroclabs.net/hello unchanged"), "{same}");
    let difference = kubectl.output(&with_input("diff -f -", &manifest("blue"))).await;
    assert!(difference.code == Some(1) && difference.stdout.contains("+    team: blue"), "{}", difference.both);
    assert!(kubectl.ok(&with_input("apply -f -", &manifest("blue"))).await.contains("hello configured"));
    kubectl.ok("label vm hello colour=green").await;
    kubectl.ok("annotate vm hello note=kept").await;
    assert!(kubectl.ok(&with_input("apply -f -", &manifest("blue"))).await.contains("hello unchanged"));
    assert_eq!(kubectl.ok("get vm hello -o jsonpath={.metadata.labels.colour}").await, "green");
    kubectl.ok(r#"patch vm hello --type=json -p '[{"op": "remove", "path": "/metadata/labels/colour"}]'"#).await;
    kubectl.ok(r#"patch vm hello --type=merge -p '{"metadata": {"labels": {"shape": "round"}}}'"#).await;
    let refused = kubectl.refused(r#"patch vm hello -p '{"metadata": {"labels": {"shape": "flat"}}}'"#).await;
    assert!(refused.contains("UnsupportedMediaType") || refused.contains("media type"), "{refused}");
    kubectl.ok("get vm hello -o yaml | sed 's/round/square/' | \"$kubectl\" replace -f -").await;
    assert_eq!(kubectl.ok("get vm hello -o jsonpath={.metadata.labels.shape}").await, "square");
    let edited =
        kubectl.output("version --client && EDITOR=\"sed -i s/square/oval/\" \"$kubectl\" edit vm hello").await;
    assert!(edited.ok() && edited.both.contains("edited"), "{}", edited.both);
    let server_side = kubectl.ok(&with_input("apply --server-side --force-conflicts -f -", &manifest("red"))).await;
    assert!(server_side.contains("serverside-applied"), "{server_side}");
    let refused = kubectl.refused(&with_input("apply -f -", &manifest("red").replace("test.xs", "{}"))).await;
    assert!(refused.contains("vmVirtualResourcesRefName"), "{refused}");

    // Core kinds.
    kubectl.ok("create configmap settings --from-literal=k=v").await;
    kubectl.ok("create secret generic key --from-literal=k=v").await;
    assert!(kubectl.ok("describe configmap settings").await.contains("k:"));
    assert!(kubectl.ok("get secret key").await.contains("Opaque"));
    kubectl.ok("delete configmap/settings secret/key").await;
    kubectl.ok("create quota few --hard=count/disks.compute.evroclabs.net=1").await;
    let refused =
        kubectl.refused(&with_input("create -f -", &manifest("red").replace("name: hello", "name: second"))).await;
    assert!(refused.contains("exceeded quota: few, requested: count/disks.compute.evroclabs.net=1"), "{refused}");
    let described = kubectl.ok("describe quota few").await;
    assert!(described.contains("count/disks.compute.evroclabs.net"), "{described}");
    kubectl.ok("delete quota few").await;
    kubectl.ok("delete vm second --ignore-not-found").await;
    assert!(kubectl.ok("get events").await.contains("VirtualMachine"));
    assert_eq!(kubectl.ok("auth can-i delete vm").await.trim(), "yes");
    for absent in ["pods", "serviceaccounts", "nodes", "deployments"] {
        let refused = kubectl.refused(&format!("get {absent}")).await;
        assert!(refused.contains("the server doesn't have a resource type"), "{absent}: {refused}");
    }
    if !is_old {
        assert!(kubectl.ok("__complete get vm ''").await.starts_with("hello"));
        assert!(kubectl.ok("__complete get virtualm").await.contains("virtualmachines"));
        assert!(kubectl.ok("auth whoami").await.contains("admin"));
        assert!(kubectl.ok("get vm hello --subresource=status -o name").await.contains("hello"));
        assert!(kubectl.ok("explain vm --recursive --output=plaintext-openapiv2").await.contains("diskRefs"));
        kubectl.ok("events").await;
    }

    // Away.
    let deleted = kubectl.ok(&with_input("delete -f -", &manifest("red"))).await;
    assert!(deleted.contains("virtualmachine.compute.evroclabs.net \"hello\" deleted"), "{deleted}");
    assert!(kubectl.refused("get vm hello").await.contains("(NotFound)"));
    assert!(kubectl.ok("get all -o name").await.lines().all(|name| name.contains("networking.")));
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_kubectl_has_a_day() {
    let world = World::start().await;
    let kubectl = world.kubectl(OLD);
    assert!(kubectl.ok("version --client --short").await.contains("v1.20"));
    a_day(&kubectl, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_kubectl_has_a_day() {
    let world = World::start().await;
    a_day(&world.kubectl(NEWEST), false).await;
}
