//! Tables: given a group and its namespace, these steps and this status.

use evroc_api::GROUP_FINALIZER;
use evroc_api::conditions::{self, READY};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::observe::Observed;
use super::plan::{Step, plan};
use super::status::status;

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn observed(owner: Option<&str>, finalizers: &[&str], is_deleted: bool) -> Observed {
    let mut group = json!({"apiVersion": "iam.evroclabs.net/v1alpha1", "kind": "ResourceGroup",
        "metadata": {"name": "demo", "uid": "this", "finalizers": finalizers}, "spec": {"organization": "local"}});
    if is_deleted {
        group["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    }
    let namespace = owner.map(|uid| {
        let owners = match uid {
            "" => json!([]),
            uid => json!([{"apiVersion": "iam.evroclabs.net/v1alpha1", "kind": "ResourceGroup", "name": "demo", "uid": uid}]),
        };
        of(json!({"metadata": {"name": "demo", "ownerReferences": owners}}))
    });
    Observed { group: of(group), namespace, has_network: true, is_network_reported: true }
}

#[test]
fn from_the_finalizer_to_the_last_trace() {
    let kept = [GROUP_FINALIZER];
    let going = |mut observed: Observed| {
        observed.namespace.as_mut().unwrap().metadata.deletion_timestamp = Some(of(json!("1970-01-01T00:00:00Z")));
        observed
    };
    let mut bare = observed(Some("this"), &kept, false);
    bare.has_network = false;
    let mut fresh = observed(Some("this"), &kept, false);
    fresh.is_network_reported = false;
    let cases = [
        ("with a network that has no status", fresh, vec![], None),
        ("new", observed(None, &[], false), vec![Step::AddFinalizer], None),
        ("with its finalizer", observed(None, &kept, false), vec![Step::CreateNamespace], None),
        ("with its namespace", bare, vec![Step::EnsureNetwork], None),
        ("complete", observed(Some("this"), &kept, false), vec![], Some("Ready")),
        ("after a former one", observed(Some("former"), &kept, false), vec![], Some("NamespaceTerminating")),
        ("beside something else", observed(Some(""), &kept, false), vec![], Some("NamespaceTaken")),
        ("deleted", observed(Some("this"), &kept, true), vec![Step::DeleteNamespace], Some("NamespaceTerminating")),
        ("emptying", going(observed(Some("this"), &kept, true)), vec![], Some("NamespaceTerminating")),
        ("empty", observed(None, &kept, true), vec![Step::ForgetAndRemoveFinalizer], None),
        ("beside something else, deleted", observed(Some(""), &kept, true), vec![Step::ForgetAndRemoveFinalizer], None),
        ("kept by another", observed(None, &["theirs/backup"], true), vec![], Some("Deleting")),
    ];
    for (name, observed, steps, reason) in cases {
        assert_eq!(plan(&observed), steps, "{name}");
        let shown = status(&observed, Timestamp::UNIX_EPOCH);
        let ready = shown.as_ref().map(|status| conditions::get(&status.conditions, READY).unwrap().reason.as_str());
        assert_eq!(ready, reason, "{name}");
    }
}
