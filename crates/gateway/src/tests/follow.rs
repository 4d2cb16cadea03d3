//! The table follows services and replicas, also those that went while the watch was interrupted.

use serde_json::{Value, json};

use super::reports::Api;
use super::*;

fn service(traffic: Option<&str>) -> Value {
    let traffic: Vec<Value> =
        traffic.iter().map(|name| json!({"revisionName": name, "percent": 100, "latestRevision": true})).collect();
    let why = json!({"type": "Ready", "status": "False", "reason": "RunsAsRoot", "message": "it would run as root",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    json!({"apiVersion": "run.evroclabs.net/v1alpha1", "kind": "Service",
        "metadata": {"name": "a", "namespace": "demo", "uid": "u", "resourceVersion": "7"},
        "spec": {"template": {"spec": {"containers": [{"image": "registry.x/demo/a:1"}]}}},
        "status": {"url": format!("https://{HOST}:8443"), "traffic": traffic, "conditions": [why]}})
}

fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "7"}, "items": items})
}

const SERVICES: &str = "GET /apis/run.evroclabs.net/v1alpha1/services";
const REPLICAS: &str = "GET /apis/infra.evroclabs.net/v1alpha1/replicas";

#[test]
fn services_lead_to_their_revision_until_they_are_deleted() {
    time::run(async {
        let (mut api, client) = Api::new();
        let table = Arc::<Table>::default();
        tokio::spawn(crate::follow::services(client, table.clone(), Metrics::new(&Registry::default())));
        // The API is away at first, and its return is noticed soon.
        for _ in 0..20 {
            drop(api.next().await);
        }
        let back = time::now();
        let first = api.next().await;
        assert!(time::now() - back <= Duration::from_secs(1));
        assert_eq!(first.what, SERVICES);
        assert!(!table.is_complete());
        first.answer(200, list(vec![service(Some("a-1"))]));
        let watch = api.next().await;
        assert!(table.is_complete());
        assert_eq!(table.route(HOST), Some(Route::To(key("a-1"))));
        watch.answer(200, json!({"type": "MODIFIED", "object": service(None)}));
        // The watch ended; the next finds that its version is too old, so all are read again.
        let watch = api.next().await;
        assert_eq!(table.route(HOST), Some(Route::NotReady("it would run as root".into())));
        let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "too old", "reason": "Expired", "code": 410});
        watch.answer(200, json!({"type": "ERROR", "object": gone}));
        let again = api.next().await;
        assert!(table.route(HOST).is_some(), "until its deletion is known");
        again.answer(200, list(vec![]));
        api.next().await;
        assert_eq!(table.route(HOST), None);
    });
}

#[test]
fn a_replica_that_was_let_go_is_not_held_again() {
    time::run(async {
        let (mut api, client) = Api::new();
        let table = Arc::<Table>::default();
        tokio::spawn(crate::follow::replicas(client, table.clone()));
        let object = |name: &str, leaving: bool, finalizers: Value, ready: &str| {
            let mut object = json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Replica",
                "metadata": {"name": name, "namespace": "demo", "uid": format!("uid-of-{name}"), "resourceVersion": "7",
                    "finalizers": finalizers, "labels": {"run.evroclabs.net/revision": "a-1"}},
                "spec": {"hostName": "h", "epoch": 1, "service": "a", "revision": "a-1", "repository": "demo/a",
                    "digest": "sha256:1", "port": 8080, "memoryBytes": 1, "cpuMillis": 1},
                "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "x", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            if leaving {
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            object
        };
        let both = json!(["infra.evroclabs.net/node", "run.evroclabs.net/gateway"]);
        let nodes = json!(["infra.evroclabs.net/node"]);
        let first = api.next().await;
        assert_eq!(first.what, REPLICAS);
        first.answer(
            200,
            list(vec![
                object("ready", false, both.clone(), "True"),
                object("starting", false, both.clone(), "False"),
                object("leaving", true, both, "True"),
                object("left", true, nodes.clone(), "True"),
            ]),
        );
        let watch = api.next().await;
        let uids = |names: &[&str]| names.iter().map(|name| format!("uid-of-{name}")).collect();
        assert_eq!(table.uids(), uids(&["ready", "starting", "leaving"]));
        let crate::table::Choice::Now(lease) = table.choose(&key("a-1")) else { panic!("no lease") };
        assert_eq!(lease.replica, replica("ready"));
        assert_eq!(table.drained().len(), 1);
        watch.answer(200, json!({"type": "MODIFIED", "object": object("leaving", true, nodes, "True")}));
        api.next().await;
        assert_eq!(table.uids(), uids(&["ready", "starting"]));
    });
}
