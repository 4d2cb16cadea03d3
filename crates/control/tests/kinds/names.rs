//! Names are checked when an object is created, not when something is made from it.

use serde_json::{Value, json};

use crate::support::{Server, kind};

pub fn spec_of(plural: &str) -> Value {
    let container = json!({"image": "registry.evroc.localhost/demo/hello:v1"});
    match plural {
        "virtualmachines" => {
            json!({"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "test.xs"}, "diskRefs": [{"name": "a"}]})
        }
        "disks" => json!({"diskSize": {"amount": 1, "unit": "GB"}}),
        "placementgroups" => json!({}),
        "services" => json!({"template": {"spec": {"containers": [container]}}}),
        "resourcegroups" => json!({"organization": "local"}),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_name_that_leaves_no_room_is_refused_with_the_rule() {
    let server = Server::start().await;
    for (plural, longest, reason) in [
        ("virtualmachines", 63, "host name"),
        ("disks", 63, "VMs refer to the disk"),
        ("placementgroups", 63, "VMs refer to the placement group"),
        ("services", 50, "<name>-00001"),
        ("resourcegroups", 63, "namespace"),
    ] {
        let (path, mut object) = kind(plural);
        object["spec"] = spec_of(plural);
        for (name, is_good) in
            [("a".repeat(longest), true), ("a".repeat(longest + 1), false), ("a.b".to_owned(), false)]
        {
            object["metadata"] = json!({"name": name});
            for query in ["?dryRun=All", ""] {
                let (code, answer) = server.post(&format!("{path}{query}"), &object).await;
                if is_good {
                    assert_eq!(code, 201, "{plural} {name} {query}: {answer}");
                    continue;
                }
                assert_eq!(code, 422, "{plural} {name} {query}: {answer}");
                assert_eq!(answer["details"]["causes"][0]["field"], "metadata.name", "{answer}");
                let message = answer["message"].as_str().unwrap_or_default();
                assert!(message.contains(&format!("at most {longest}")) && message.contains(reason), "{message}");
            }
        }
        object["metadata"] = json!({"generateName": "a.b-"});
        let (code, answer) = server.post(&path, &object).await;
        assert_eq!(
            (code.as_u16(), &answer["details"]["causes"][0]["field"]),
            (422, &json!("metadata.name")),
            "{answer}"
        );
    }
    // Names that are generated for a service are longer than its own.
    let (path, mut service) = kind("services");
    service["spec"] = spec_of("services");
    for (length, code) in [(45, 201), (46, 422)] {
        service["metadata"] = json!({"generateName": "a".repeat(length)});
        assert_eq!(server.post(&path, &service).await.0, code, "{length}");
    }
}

#[tokio::test]
async fn a_reference_that_can_be_no_name_is_refused() {
    let server = Server::start().await;
    let (path, mut vm) = kind("virtualmachines");
    vm["metadata"] = json!({"name": "a"});
    for (field, change) in [
        ("spec.diskRefs[0].name", json!({"diskRefs": [{"name": "b?x"}]})),
        ("spec.diskRefs[0].name", json!({"diskRefs": [{"name": "b/status"}]})),
        (
            "spec.vmVirtualResourcesRef.vmVirtualResourcesRefName",
            json!({"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": ".."}}),
        ),
        ("spec.placementGroup", json!({"placementGroup": "a/b"})),
        (
            "spec.networking.securityGroups.securityGroupMemberships[0].name",
            json!({"networking": {"securityGroups": {"securityGroupMemberships": [{"name": "a%2fb"}]}}}),
        ),
    ] {
        vm["spec"] = spec_of("virtualmachines");
        for (name, value) in change.as_object().expect("fields") {
            vm["spec"][name] = value.clone();
        }
        let (code, answer) = server.post(&path, &vm).await;
        assert_eq!((code.as_u16(), &answer["details"]["causes"][0]["field"]), (422, &json!(field)), "{answer}");
    }
}
