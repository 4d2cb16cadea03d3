//! The endpoints of organisations and resource groups, by kubectl and by `kube`.

use evroc_api::compute::{Disk, VirtualMachine};
use evroc_api::iam::{Organization, OrganizationSpec, ResourceGroup, ResourceGroupSpec};
use evroc_testkit::objects::{HasConditions, disk};
use evroc_testkit::{IMAGE, eventually};
use futures::{StreamExt, TryStreamExt};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Kubectl, NEWEST, OLD, World, tools};

impl World {
    /// The operator's kubectl at an endpoint.
    fn kubectl_at(&self, program: &str, path: &str) -> Kubectl {
        let user = self.endpoint.certificate("admin", "evroc:operators");
        Kubectl { program: tools().join(program), kubeconfig: self.endpoint.kubeconfig(path, &user) }
    }

    /// Another organisation with a group; its namespace.
    async fn with_acme(&self) -> String {
        let platform = &self.platform;
        platform.create(&Organization::new("acme", OrganizationSpec { display_name: None })).await;
        platform
            .create(&ResourceGroup::new("web", ResourceGroupSpec { organization: "acme".into(), display_name: None }))
            .await;
        let group = platform.until::<ResourceGroup>("web", "Ready", HasConditions::is_ready).await;
        group.status.and_then(|status| status.namespace).expect("a namespace")
    }
}

const VM: &str = "<<'END'
apiVersion: compute.evroclabs.net/v1alpha1
kind: Disk
metadata: {name: one}
spec: {diskImage: {diskImageRef: {name: tiny.1-0.1}}}
---
apiVersion: compute.evroclabs.net/v1alpha1
kind: VirtualMachine
metadata: {name: one}
spec: {vmVirtualResourcesRef: {vmVirtualResourcesRefName: test.xs}, diskRefs: [{name: one, bootFrom: true}]}
END";

async fn a_tour(world: &World, program: &str) {
    for path in ["/clusters/root:acme:web", "/clusters/root:web"] {
        let kubectl = world.kubectl_at(program, path);
        let created = kubectl.ok(&format!("apply -f - {VM}")).await;
        assert!(created.contains("virtualmachine.compute.evroclabs.net/one created"), "{created}");
        assert!(kubectl.ok(&format!("apply -f - {VM}")).await.contains("one unchanged"));
        kubectl.ok("wait vm/one --for=condition=Ready --timeout=20s").await;
        // By whatever name the client addresses the namespace, the answer has that name.
        for alias in ["default", "acme", "web"] {
            let shown = kubectl.ok(&format!("get vm one -n {alias} -o jsonpath={{.metadata.namespace}}")).await;
            assert_eq!(shown, alias);
            let listed = kubectl.ok(&format!("get vm -n {alias} -o jsonpath={{.items[*].metadata.namespace}}")).await;
            assert_eq!(listed, alias);
            kubectl.ok(&format!("get vm one -n {alias} -o yaml | \"$kubectl\" replace -n {alias} -f -")).await;
        }
        let everywhere = kubectl.ok("get vm -A").await;
        assert!(everywhere.contains("web ") && !everywhere.contains("demo"), "{everywhere}");
        assert!(kubectl.ok("describe vm one").await.contains("Namespace:    default"));
        kubectl.ok("label vm one colour=red").await;
        kubectl.ok("apply --server-side --force-conflicts -f - <<'END'\n{\"apiVersion\": \"compute.evroclabs.net/v1alpha1\", \"kind\": \"Disk\", \"metadata\": {\"name\": \"one\", \"namespace\": \"default\", \"labels\": {\"a\": \"b\"}}, \"spec\": {}}\nEND").await;
        assert_eq!(kubectl.ok("get vm --field-selector metadata.namespace=default -o name").await.lines().count(), 1);
        assert!(kubectl.ok("api-resources").await.contains("VirtualMachine"));
        assert!(kubectl.ok("explain vm.spec.running").await.contains("running"));
        assert!(kubectl.ok("get vmvirtualresources").await.contains("test.xs"));
        assert_eq!(kubectl.ok("auth can-i create vm").await.trim(), "yes");
        let refused = kubectl.refused("get vm -n demo").await;
        assert!(refused.contains("\"demo\" not found") && refused.contains("\"acme\""), "{refused}");
        let refused = kubectl.refused("get namespaces").await;
        assert!(refused.contains("the server doesn't have a resource type \"namespaces\""), "{refused}");
        let refused = world.kubectl(program).refused(&format!("get --raw {path}/api/v1/namespaces")).await;
        assert!(refused.contains("namespaces are not shown here"), "{refused}");
        kubectl.ok(&format!("delete -f - --wait=false {VM}")).await;
        kubectl.ok("wait vm/one --for=delete --timeout=20s || true").await;
        let deleted = || async {
            let left = kubectl.ok("get vm,disk -o name").await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        };
        eventually("the group is empty", deleted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_at_a_groups_endpoint() {
    let world = World::start().await;
    world.with_acme().await;
    for program in [OLD, NEWEST] {
        a_tour(&world, program).await;
    }
    for program in [OLD, NEWEST] {
        let organization = world.kubectl_at(program, "/clusters/root:acme");
        // Other tenants' objects are absent, and so are kinds that an organisation cannot have.
        for (kind, shown) in
            [("resourcegroups", "resourcegroup.iam.evroclabs.net/web"), ("org", "organization.iam.evroclabs.net/acme")]
        {
            assert_eq!(organization.ok(&format!("get {kind} -o name")).await.trim(), shown);
        }
        assert!(organization.refused("get rg demo").await.contains("(NotFound)"));
        let refused = organization.refused("get vm").await;
        assert!(refused.contains("the server doesn't have a resource type \"vm\""), "{refused}");
        let kinds = organization.ok("api-resources").await;
        for absent in ["VirtualMachine", "ConfigMap", "Namespace", "Host", "Replica"] {
            assert!(!kinds.contains(&format!(" {absent}\n")), "{absent}: {kinds}");
        }
        let raw = world
            .kubectl(program)
            .refused("get --raw /clusters/root:acme/apis/compute.evroclabs.net/v1alpha1/virtualmachines")
            .await;
        assert!(raw.contains("name a resource group too"), "{raw}");
        let foreign = "create -f - <<'END'\n{\"apiVersion\": \"iam.evroclabs.net/v1alpha1\", \"kind\": \"ResourceGroup\", \"metadata\": {\"name\": \"x\"}, \"spec\": {\"organization\": \"local\"}}\nEND";
        let refused = organization.refused(foreign).await;
        assert!(refused.contains("spec.organization: expected \"acme\" at this endpoint"), "{refused}");
        let group = world.kubectl_at(program, "/clusters/root:acme:web");
        let kinds = group.ok("api-resources").await;
        assert!(kinds.contains(" VirtualMachine\n") && kinds.contains(" ConfigMap\n"), "{kinds}");
        assert!(!kinds.contains(" Host\n") && !kinds.contains(" Namespace\n"), "{kinds}");
        assert_eq!(group.ok("get rg -o name").await.trim(), "resourcegroup.iam.evroclabs.net/web");
        assert!(group.ok("explain vm.spec --recursive").await.contains("diskRefs"));
    }
    for path in ["/clusters/root:acme:demo", "/clusters/root:none", "/clusters/web", "/clusters/root:acme:web:x"] {
        let refused = world.kubectl_at(NEWEST, path).refused("get vm").await;
        assert!(refused.contains("not found: expected root:<organisation>"), "{path}: {refused}");
    }
    // A caller without permissions does not learn which exist.
    let eve = world.endpoint.certificate("eve", "strangers");
    for path in ["/clusters/root:acme:web", "/clusters/root:none"] {
        let refused = world.kubectl_as(path, &eve).refused("get vm -n default").await;
        assert!(refused.contains("Forbidden") && !refused.contains("\"web\""), "{path}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_library_watches_in_a_view() {
    let world = World::start().await;
    let namespace = world.with_acme().await;
    let user = world.endpoint.certificate("admin", "evroc:operators");
    let config = world.endpoint.kubeconfig("/clusters/root:acme:web", &user);
    let config = kube::config::Kubeconfig::read_from(config).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("settings");
    let client = kube::Client::try_from(config).expect("a client");
    let disks = Api::<Disk>::namespaced(client.clone(), "acme");
    let events = disks.watch(&WatchParams::default().fields("metadata.name=hello"), "0").await.expect("a watch");
    let everywhere =
        Api::<Disk>::all(client.clone()).watch_metadata(&WatchParams::default(), "0").await.expect("a watch");

    let created = disks.create(&PostParams::default(), &disk("hello", IMAGE)).await.expect("a disk");
    assert_eq!(created.namespace().as_deref(), Some("acme"));
    let whole = world.platform.client_as(evroc_iam::Identity::operator());
    let whole = Api::<Disk>::namespaced(whole, &namespace).get("hello").await.expect("the disk in its namespace");
    assert_eq!((whole.namespace(), whole.uid()), (Some(namespace.clone()), created.uid()));
    let patch = json!([{"op": "test", "path": "/metadata/namespace", "value": "acme"},
        {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).expect("a patch"));
    disks.patch("hello", &PatchParams::default(), &patch).await.expect("patched");
    disks.delete("hello", &DeleteParams::default()).await.expect("deleted");
    let (mut events, mut seen, mut is_over) = (events.boxed(), Vec::new(), false);
    while !is_over {
        match events.try_next().await.expect("an event").expect("a watch that goes on") {
            WatchEvent::Added(it) | WatchEvent::Modified(it) => seen.push(it.namespace()),
            WatchEvent::Deleted(it) => {
                seen.push(it.namespace());
                is_over = true;
            }
            // The initial state, which was empty, ends here.
            WatchEvent::Bookmark(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(seen.len() >= 3 && seen.iter().all(|namespace| namespace.as_deref() == Some("acme")), "{seen:?}");
    let changes = everywhere.try_filter(|event| std::future::ready(!matches!(event, WatchEvent::Bookmark(_))));
    let first = changes.boxed().try_next().await.expect("events").expect("an event");
    assert!(matches!(&first, WatchEvent::Added(it) if it.namespace().as_deref() == Some("web")), "{first:?}");
    let wrong = disk("hello", IMAGE);
    let wrong = Disk { metadata: kube::core::ObjectMeta { namespace: Some("web".into()), ..wrong.metadata }, ..wrong };
    let path = "/apis/compute.evroclabs.net/v1alpha1/namespaces/acme/disks";
    let request = http::Request::post(path).body(serde_json::to_vec(&wrong).expect("JSON")).expect("a request");
    let refused = client.request::<Disk>(request).await.expect_err("another alias in the body");
    assert!(refused.to_string().contains("does not match the namespace sent on the request"), "{refused}");
    assert!(
        Api::<VirtualMachine>::namespaced(client, "default")
            .list(&ListParams::default())
            .await
            .expect("a list")
            .items
            .is_empty()
    );
}
