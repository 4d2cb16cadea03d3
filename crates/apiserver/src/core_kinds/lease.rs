//! Leases: leader election and heartbeats.

use serde_json::json;

use super::{age, column, micro_time, object, schema, string};
use crate::object::kind::ResourceKind;

pub(super) fn lease() -> ResourceKind {
    let mut kind = ResourceKind::new(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        schema(
            "A promise that is kept alive.",
            json!({
                "spec": object("Who holds it and how long.", json!({
                    "holderIdentity": string("Who holds it."),
                    "leaseDurationSeconds": {"type": "integer", "format": "int32", "minimum": 1},
                    "acquireTime": micro_time("When the holder got it."),
                    "renewTime": micro_time("When the holder was last seen."),
                    "leaseTransitions": {"type": "integer", "format": "int32", "minimum": 0},
                    "strategy": string("How a holder is chosen."),
                    "preferredHolder": string("Who should have it."),
                })),
            }),
        ),
    );
    kind.columns = vec![column("Holder", "string", ".spec.holderIdentity", 0), age()];
    kind.has_generation = false;
    kind
}
