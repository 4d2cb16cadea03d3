//! Claims: what must be unique is written, compared and released in the same store transaction as the object.

use serde_json::Value;

/// One thing that at most one object may hold at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// What is held, unique in the whole cloud, for example `disk/demo/hello`.
    pub key: String,
    /// The field that asks for it, for example `spec.diskRefs[0].name`.
    pub field: String,
    /// What it is, for the refusal: `disk "hello"`.
    pub what: String,
}

/// What a VirtualMachine holds: each of its disks, and its private address in the VPC of its resource group.
pub fn of_virtual_machine(object: &Value) -> Vec<Claim> {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let disks = object.pointer("/spec/diskRefs").and_then(Value::as_array).into_iter().flatten().enumerate();
    let mut claims: Vec<Claim> = disks
        .filter_map(|(index, disk)| {
            let name = disk.get("name")?.as_str()?;
            Some(Claim {
                key: format!("disk/{namespace}/{name}"),
                field: format!("spec.diskRefs[{index}].name"),
                what: format!("disk \"{name}\""),
            })
        })
        .collect();
    if let Some(address) =
        object.pointer("/status/networking/privateIPv4Address").and_then(Value::as_str).filter(|a| !a.is_empty())
    {
        claims.push(Claim {
            key: format!("address/{namespace}/{address}"),
            field: "status.networking.privateIPv4Address".into(),
            what: format!("address {address}"),
        });
    }
    claims
}
