use super::*;

fn schema() -> Value {
    json!({"type":"object","description":"A machine.","properties":{
        "spec":{"type":"object","required":["size"],"properties":{"size":{"type":"integer","minimum":1,"default":1},"maybe":{"type":"string","nullable":true},
            "any":{"x-kubernetes-preserve-unknown-fields":true,"type":"object"},"port":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]}}},
        "status":{"type":"object"}}})
}

fn info(schema: &Value) -> KindInfo<'_> {
    KindInfo {
        group: "compute.evroclabs.net",
        version: "v1alpha1",
        kind: "VirtualMachine",
        list_kind: "VirtualMachineList",
        plural: "virtualmachines",
        singular: "virtualmachine",
        namespaced: true,
        schema,
        has_status: true,
        has_scale: true,
        connects: vec!["console"],
        selectable: vec![".spec.size"],
    }
}

fn assert_references_resolve(document: &Value) {
    fn visit(document: &Value, value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(name)) = map.get("$ref") {
                    assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name}");
                }
                map.values().for_each(|v| visit(document, v));
            }
            Value::Array(items) => items.iter().for_each(|v| visit(document, v)),
            _ => {}
        }
    }
    visit(document, document);
}

#[test]
fn v3_has_paths_operations_and_schemas() {
    let schema = schema();
    let document = v3_document("evroc", "v1", &[info(&schema)]);
    assert_references_resolve(&document);
    let of_item = |sub: &str| {
        let path =
            format!("/apis/compute.evroclabs.net/v1alpha1/namespaces/{{namespace}}/virtualmachines/{{name}}/{sub}");
        document["paths"][path].clone()
    };
    assert_eq!(of_item("scale")["patch"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(of_item("scale")["get"]["operationId"], "readComputeEvroclabsNetV1alpha1NamespacedVirtualMachineScale");
    assert_eq!(of_item("console")["post"]["x-kubernetes-action"], "connect");
    assert_eq!(
        of_item("console")["get"]["operationId"],
        "connectComputeEvroclabsNetV1alpha1GetNamespacedVirtualMachineConsole"
    );
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/apis/compute.evroclabs.net/v1alpha1/namespaces/{namespace}/virtualmachines",
            "/apis/compute.evroclabs.net/v1alpha1/namespaces/{namespace}/virtualmachines/{name}",
            "/apis/compute.evroclabs.net/v1alpha1/namespaces/{namespace}/virtualmachines/{name}/console",
            "/apis/compute.evroclabs.net/v1alpha1/namespaces/{namespace}/virtualmachines/{name}/scale",
            "/apis/compute.evroclabs.net/v1alpha1/namespaces/{namespace}/virtualmachines/{name}/status",
            "/apis/compute.evroclabs.net/v1alpha1/virtualmachines",
        ]
    );
    let item = &document["paths"]["/apis/compute.evroclabs.net/v1alpha1/namespaces/{namespace}/virtualmachines/{name}"];
    assert_eq!(item["patch"]["operationId"], "patchComputeEvroclabsNetV1alpha1NamespacedVirtualMachine");
    assert_eq!(item["patch"]["x-kubernetes-action"], "patch");
    assert_eq!(
        item["patch"]["x-kubernetes-group-version-kind"],
        json!({"group":"compute.evroclabs.net","version":"v1alpha1","kind":"VirtualMachine"})
    );
    let names: Vec<&str> =
        item["patch"]["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let machine = &document["components"]["schemas"]["net.evroclabs.compute.v1alpha1.VirtualMachine"];
    assert_eq!(
        machine["properties"]["metadata"]["allOf"],
        json!([{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}])
    );
    assert_eq!(machine["x-kubernetes-selectable-fields"], json!([{"fieldPath":"spec.size"}]));
    assert_eq!(machine["properties"]["spec"]["properties"]["port"]["anyOf"][0]["type"], "integer");
    let meta = &document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
    assert_eq!(meta["properties"]["ownerReferences"]["x-kubernetes-list-map-keys"], json!(["uid"]));
}

#[test]
fn v2_says_only_what_kubectl_understands() {
    let schema = schema();
    let document = v2_document("evroc", "v1", &[info(&schema)]);
    assert_references_resolve(&document);
    let spec =
        &document["definitions"]["net.evroclabs.compute.v1alpha1.VirtualMachine"]["properties"]["spec"]["properties"];
    assert_eq!(spec["maybe"], json!({}));
    assert_eq!(spec["any"], json!({"x-kubernetes-preserve-unknown-fields":true}));
    assert_eq!(spec["port"], json!({"x-kubernetes-int-or-string":true}));
    assert!(!document.to_string().contains("allOf"));
}

#[test]
fn core_kinds_have_core_paths() {
    let schema =
        json!({"type":"object","properties":{"data":{"type":"object","additionalProperties":{"type":"string"}}}});
    let info = KindInfo {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        list_kind: "ConfigMapList",
        plural: "configmaps",
        singular: "configmap",
        namespaced: true,
        has_status: false,
        has_scale: false,
        connects: vec![],
        selectable: vec![],
        schema: &schema,
    };
    let document = v3_document("evroc", "v1", &[info]);
    assert_eq!(document["paths"]["/api/v1/configmaps"]["get"]["operationId"], "listCoreV1ConfigMapForAllNamespaces");
    assert!(document["components"]["schemas"]["io.k8s.api.core.v1.ConfigMap"].is_object());
}

/// Walks a message and returns its top-level fields: number, and bytes if length-delimited.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let mut varint = || {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let byte = bytes[0];
                bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return value;
                }
                shift += 7;
            }
        };
        let tag = varint();
        match tag & 7 {
            0 => {
                let value = varint();
                out.push((tag >> 3, value.to_le_bytes().to_vec()));
            }
            1 => {
                out.push((tag >> 3, bytes[..8].to_vec()));
                bytes = &bytes[8..];
            }
            2 => {
                let length = varint() as usize;
                out.push((tag >> 3, bytes[..length].to_vec()));
                bytes = &bytes[length..];
            }
            other => panic!("wire type {other}"),
        }
    }
    out
}

fn descend(bytes: &[u8], path: &[u64]) -> Vec<Vec<u8>> {
    match path.split_first() {
        None => vec![bytes.to_vec()],
        Some((first, rest)) => {
            fields(bytes).into_iter().filter(|(n, _)| n == first).flat_map(|(_, b)| descend(&b, rest)).collect()
        }
    }
}

#[test]
fn protobuf_has_gnostics_form() {
    let schema = schema();
    let v2 = v2_protobuf(&v2_document("evroc", "v1", &[info(&schema)]));
    assert_eq!(descend(&v2, &[1]), [b"2.0".to_vec()]);
    let names = descend(&v2, &[9, 1, 1]);
    assert!(names.contains(&b"net.evroclabs.compute.v1alpha1.VirtualMachine".to_vec()));
    // paths.path.value.patch.vendor_extension.name
    assert!(descend(&v2, &[8, 2, 2, 8, 13, 1]).contains(&b"x-kubernetes-group-version-kind".to_vec()));
    // …patch.parameters.parameter.non_body_parameter.query.name
    assert!(descend(&v2, &[8, 2, 2, 8, 8, 1, 2, 3, 4]).contains(&b"dryRun".to_vec()));
    // …get.responses.response_code.value.response.description
    assert!(descend(&v2, &[8, 2, 2, 2, 9, 1, 2, 1, 1]).contains(&b"OK".to_vec()));
    let v3 = v3_protobuf(&v3_document("evroc", "v1", &[info(&schema)]));
    assert_eq!(descend(&v3, &[1]), [b"3.0.0".to_vec()]);
    // components.schemas.additional_properties.value.schema.properties.…name
    assert!(descend(&v3, &[5, 1, 1, 2, 1, 31, 1, 1]).contains(&b"metadata".to_vec()));
    // …patch.parameters.parameter.name
    assert!(descend(&v3, &[4, 1, 2, 10, 6, 1, 1]).contains(&b"fieldValidation".to_vec()));
}

#[test]
fn the_index_names_each_document_with_its_hash() {
    let index = v3_index(&[("apis/g/v1".into(), "AB".into())]);
    assert_eq!(index, json!({"paths":{"apis/g/v1":{"serverRelativeURL":"/openapi/v3/apis/g/v1?hash=AB"}}}));
    assert_eq!(hash(b"").len(), 128);
}
