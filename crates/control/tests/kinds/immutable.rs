//! Every field that a kind declares as unchangeable: it cannot be set to another value, nor come, nor go.

use evroc_api::kinds::Kind;
use serde_json::{Value, json};

use crate::support::{Server, kind};

/// An object of the kind, with every field that cannot be changed, and another value for each of those; `None` where a field may not be
/// left out.
pub struct Sample {
    pub spec: Value,
    others: Vec<(&'static str, Value)>,
}

pub fn sample(plural: &str) -> Option<Sample> {
    let (spec, others) = match plural {
        "virtualmachines" => (
            json!({"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "test.xs"}, "diskRefs": [{"name": "a"}],
                "osSettings": {"cloudInitUserData": "#cloud-config\n"}, "placement": {"zone": "a"}}),
            vec![("osSettings.cloudInitUserData", json!("#cloud-config\n{}")), ("placement.zone", json!("b"))],
        ),
        "disks" => (
            json!({"diskSize": {"amount": 1, "unit": "GB"}, "diskImage": {"diskImageRef": {"name": "tiny"}},
                "diskStorageClass": {"name": "persistent"}, "placement": {"zone": "a"}}),
            vec![
                ("diskSize", json!({"amount": 10, "unit": "TB"})),
                ("diskImage", json!({"diskImageRef": {"name": "debian"}})),
                // There is no second class.
                ("diskStorageClass", Value::Null),
                ("placement.zone", json!("b")),
            ],
        ),
        "placementgroups" => {
            (json!({"strategy": {"type": "spread"}, "placement": {"zone": "a"}}), vec![("placement.zone", json!("b"))])
        }
        "subnets" => (
            json!({"vpcRef": {"name": "default"}, "ipv4CidrBlock": {"block": "10.0.0.0/24"}}),
            vec![("vpcRef", json!({"name": "other"})), ("ipv4CidrBlock", json!({"block": "10.0.1.0/24"}))],
        ),
        "revisions" => (
            json!({"service": "a", "serviceGeneration": 1, "container": {"image": "r.x/a"}}),
            vec![("", json!({"service": "a", "serviceGeneration": 2, "container": {"image": "r.x/a"}}))],
        ),
        "resourcegroups" => (json!({"organization": "local"}), vec![("organization", json!("other"))]),
        "revokedcredentials" => (
            json!({"certificateSerial": "5f3a0c"}),
            vec![("", json!({"certificateSerial": "5f3a0d", "reason": "lost"}))],
        ),
        "volumes" => (
            json!({"hostName": "host-1", "sizeBytes": 1, "image": "tiny", "imageSha256": "0".repeat(64)}),
            vec![("hostName", json!("host-2")), ("image", json!("debian")), ("imageSha256", json!("1".repeat(64)))],
        ),
        "machines" => {
            let network = json!({"vpcUid": "u", "address": "10.0.0.3", "prefixLength": 24, "gateway": "10.0.0.1", "mac": "0a:00:00:00:00:01"});
            let spec = json!({"hostName": "host-1", "epoch": 1, "virtualMachineUid": "u", "vcpus": 1, "memoryBytes": 1,
                "volumes": [], "network": network, "hostname": "a"});
            let mut other = spec.clone();
            other["hostName"] = json!("host-2");
            (spec, vec![("", other)])
        }
        "replicas" => {
            let spec = json!({"hostName": "host-1", "epoch": 1, "service": "a", "revision": "a-00001", "repository": "demo/a",
                "digest": format!("sha256:{}", "0".repeat(64)), "port": 8080, "memoryBytes": 1, "cpuMillis": 1});
            let mut other = spec.clone();
            other["hostName"] = json!("host-2");
            (spec, vec![("", other)])
        }
        _ => return None,
    };
    Some(Sample { spec, others })
}

/// A merge patch that sets the field at `path` below `spec`.
fn patch(path: &str, value: Value) -> Value {
    let parts = path.split('.').filter(|part| !part.is_empty());
    let spec = parts.rev().fold(value, |value, part| json!({part: value}));
    json!({"spec": spec})
}

/// Whether a patch can leave the field out.
fn is_optional(kind: &Kind, path: &str) -> bool {
    let schema = serde_json::to_value(&kind.definition).expect("JSON");
    let mut at = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let is_required = at["required"].as_array().is_some_and(|required| required.iter().any(|it| it == part));
        if !is_required {
            return true;
        }
        at = &at["properties"][part];
    }
    false
}

#[tokio::test]
async fn a_field_that_cannot_be_changed_neither_comes_nor_goes() {
    let server = Server::start().await;
    // What runs on hosts takes room there.
    let (path, mut host) = kind("hosts");
    host["metadata"]["name"] = json!("host-1");
    assert_eq!(server.post(&path, &host).await.0, 201);
    let room = json!({"status": {"allocatable": {"cpus": 1, "memoryBytes": 1000, "diskBytes": 1000}}});
    let (code, answer) = server.merge(&format!("{path}/host-1/status"), &room).await;
    assert_eq!(code, 200, "{answer}");
    let mut covered = 0;
    for known in evroc_api::kinds::all().iter().filter(|it| !it.immutable.is_empty()) {
        let plural = known.definition.spec.names.plural.as_str();
        let Sample { spec, others } = sample(plural).unwrap_or_else(|| panic!("no sample of {plural}"));
        let (path, mut object) = kind(plural);
        object["metadata"] = json!({"name": "whole"});
        object["spec"] = spec.clone();
        let (code, answer) = server.post(&path, &object).await;
        assert_eq!(code, 201, "{plural}: {answer}");
        for field in known.immutable {
            let (_, other) = others
                .iter()
                .find(|(path, _)| *path == field.path)
                .unwrap_or_else(|| panic!("no other value of {} in {plural}", field.path));
            let refused = async |name: &str, how: &str, value: Value| {
                let (code, answer) = server.merge(&format!("{path}/{name}"), &patch(field.path, value)).await;
                assert_eq!(code, 422, "{plural} {} {how}: {answer}", field.path);
                let message = answer["message"].as_str().unwrap_or_default();
                assert!(message.contains(field.message), "{plural} {} {how}: {message}", field.path);
            };
            if !other.is_null() {
                refused("whole", "set to another value", other.clone()).await;
            }
            covered += 1;
            if field.path.is_empty() || !is_optional(known, field.path) {
                continue;
            }
            refused("whole", "removed", Value::Null).await;
            // The same object without the field, which does not come later.
            let pointer = format!("/spec/{}", field.path.replace('.', "/"));
            let (parent, last) = pointer.rsplit_once('/').expect("a parent");
            let without = format!("without-{covered}");
            object["metadata"]["name"] = json!(without);
            object["spec"] = spec.clone();
            if let Some(disk) = object.pointer_mut("/spec/diskRefs/0/name") {
                *disk = json!(without);
            }
            let value = object.pointer_mut(parent).and_then(|it| it.as_object_mut()?.remove(last)).expect("the field");
            let (code, answer) = server.post(&path, &object).await;
            assert_eq!(code, 201, "{plural} without {}: {answer}", field.path);
            refused(&without, "added", value).await;
        }
    }
    assert!(covered >= 16, "{covered} fields");
}
