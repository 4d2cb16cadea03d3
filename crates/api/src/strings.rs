//! Every text that clients may write, by purpose: a text that refers to an object has the form of a name, so that nothing that is
//! made from it (a path, a file's name, a command's argument) means something else.

use serde_json::Value;

use crate::names;

/// The purpose of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// The name of an object, a uid, a digest, an address: it has this pattern.
    Of(&'static str),
    /// One of a fixed set.
    Choice,
    /// Checked by the kind's `PROBLEMS`.
    Checked,
    /// Shown to people or given to a guest or container as it is; nothing of the platform is made from it.
    Free,
}
use Is::{Checked, Choice, Free, Of};

const TEXTS: &[(&str, &str, Is)] = &[
    ("virtualmachines", "spec.diskRefs[].name", Of(names::LABEL)),
    ("virtualmachines", "spec.networking.publicIPv4Address.static.publicIPRef", Of(names::LABEL_OR_EMPTY)),
    ("virtualmachines", "spec.networking.securityGroups.securityGroupMemberships[].name", Of(names::LABEL)),
    ("virtualmachines", "spec.osSettings.cloudInitUserData", Free),
    ("virtualmachines", "spec.osSettings.ssh.authorizedKeys[].value", Checked),
    ("virtualmachines", "spec.placement.zone", Free),
    ("virtualmachines", "spec.placementGroup", Of(names::LABEL_OR_EMPTY)),
    ("virtualmachines", "spec.vmVirtualResourcesRef.vmVirtualResourcesRefName", Of(names::SUBDOMAIN)),
    ("disks", "spec.diskImage.diskImageRef.name", Of(names::SUBDOMAIN)),
    ("disks", "spec.diskSize.unit", Choice),
    ("disks", "spec.diskStorageClass.name", Choice),
    ("disks", "spec.placement.zone", Free),
    ("placementgroups", "spec.placement.zone", Free),
    ("placementgroups", "spec.strategy.type", Choice),
    ("diskimages", "spec.defaultSize.unit", Choice),
    ("diskimages", "spec.osArch", Free),
    ("diskimages", "spec.osImage", Free),
    ("diskimages", "spec.osVersion", Free),
    ("diskimages", "spec.sha256", Of(names::SHA256)),
    ("diskimages", "spec.version", Free),
    ("diskstorageclasses", "spec.description", Free),
    ("vmvirtualresources", "spec.memory.unit", Choice),
    ("vmvirtualresources", "spec.processorArchitecture", Free),
    ("subnets", "spec.ipv4CidrBlock.block", Checked),
    ("subnets", "spec.vpcRef.name", Of(names::SUBDOMAIN)),
    ("services", "spec.template.spec.containers[].args[]", Checked),
    ("services", "spec.template.spec.containers[].command[]", Checked),
    ("services", "spec.template.spec.containers[].env[].name", Of(names::ENVIRONMENT_VARIABLE)),
    ("services", "spec.template.spec.containers[].env[].value", Checked),
    ("services", "spec.template.spec.containers[].image", Checked),
    ("services", "spec.template.spec.containers[].name", Of(names::LABEL_OR_EMPTY)),
    ("revisions", "spec.container.args[]", Checked),
    ("revisions", "spec.container.command[]", Checked),
    ("revisions", "spec.container.env[].name", Of(names::ENVIRONMENT_VARIABLE)),
    ("revisions", "spec.container.env[].value", Checked),
    ("revisions", "spec.container.image", Checked),
    ("revisions", "spec.container.name", Of(names::LABEL_OR_EMPTY)),
    ("revisions", "spec.service", Of(names::SUBDOMAIN)),
    ("organizations", "spec.displayName", Free),
    ("resourcegroups", "spec.displayName", Free),
    ("revokedcredentials", "spec.certificateSerial", Of(names::CERTIFICATE_SERIAL)),
    ("revokedcredentials", "spec.reason", Free),
    ("revokedcredentials", "spec.tokenID", Of(names::TOKEN_ID)),
    ("resourcegroups", "spec.organization", Of(names::SUBDOMAIN)),
    ("hosts", "spec.zone", Free),
    ("volumes", "spec.hostName", Of(names::SUBDOMAIN)),
    ("volumes", "spec.image", Of(names::SUBDOMAIN)),
    ("volumes", "spec.imageSha256", Of(names::SHA256)),
    ("machines", "spec.authorizedKeys[]", Free),
    ("machines", "spec.cpuModel", Of(names::HARDWARE)),
    ("machines", "spec.hostName", Of(names::SUBDOMAIN)),
    ("machines", "spec.hostname", Of(names::SUBDOMAIN)),
    ("machines", "spec.machineType", Of(names::HARDWARE)),
    ("machines", "spec.network.address", Of(names::IPV4)),
    ("machines", "spec.network.gateway", Of(names::IPV4)),
    ("machines", "spec.network.mac", Of(names::LINK_ADDRESS)),
    ("machines", "spec.network.vpcUid", Of(names::UID)),
    ("machines", "spec.placementGroup", Of(names::LABEL)),
    ("machines", "spec.userData", Free),
    ("machines", "spec.virtualMachine", Of(names::SUBDOMAIN)),
    ("machines", "spec.virtualMachineUid", Of(names::UID)),
    ("machines", "spec.volumes[].diskUid", Of(names::UID)),
    ("machines", "spec.volumes[].format", Choice),
    ("machines", "spec.volumes[].imageSha256", Of(names::SHA256)),
    ("machines", "spec.volumes[].name", Of(names::SUBDOMAIN)),
    ("machines", "spec.volumes[].uid", Of(names::UID)),
    ("replicas", "spec.args[]", Free),
    ("replicas", "spec.command[]", Free),
    ("replicas", "spec.digest", Of(names::DIGEST)),
    ("replicas", "spec.env[].name", Of(names::ENVIRONMENT_VARIABLE)),
    ("replicas", "spec.env[].value", Free),
    ("replicas", "spec.hostName", Of(names::SUBDOMAIN)),
    ("replicas", "spec.repository", Of(names::REPOSITORY)),
    ("replicas", "spec.revision", Of(names::SUBDOMAIN)),
    ("replicas", "spec.service", Of(names::SUBDOMAIN)),
];

/// The paths of all texts below a schema.
fn texts(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    if schema["type"] == "string" {
        found.push((path.to_owned(), schema.clone()));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        texts(property, &format!("{path}.{name}"), found);
    }
    if schema["items"].is_object() {
        texts(&schema["items"], &format!("{path}[]"), found);
    }
    if schema["additionalProperties"].is_object() {
        texts(&schema["additionalProperties"], &format!("{path}{{}}"), found);
    }
}

#[test]
fn every_text_has_a_form_or_a_reason_to_have_none() {
    let mut wrong = Vec::new();
    let mut listed: Vec<(&str, &str)> = TEXTS.iter().map(|(kind, path, _)| (*kind, *path)).collect();
    for definition in crate::definitions() {
        let plural = definition.spec.names.plural.clone();
        let schema = serde_json::to_value(&definition).unwrap();
        let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut found = Vec::new();
        texts(schema, "spec", &mut found);
        for (path, schema) in found {
            let Some((_, _, is)) = TEXTS.iter().find(|(kind, at, _)| (*kind, *at) == (&plural, &path)) else {
                wrong.push(format!("(\"{plural}\", \"{path}\", …) is missing: decide what it is"));
                continue;
            };
            listed.retain(|it| *it != (plural.as_str(), path.as_str()));
            let is_right = match is {
                Of(pattern) => schema["pattern"] == *pattern,
                Choice => schema["enum"].is_array(),
                Checked | Free => schema["pattern"].is_null(),
            };
            if !is_right {
                wrong.push(format!("{plural} {path} is {is:?}, but its schema is {schema}"));
            }
        }
    }
    wrong.extend(listed.iter().map(|(kind, path)| format!("{kind} has no {path} any more")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
