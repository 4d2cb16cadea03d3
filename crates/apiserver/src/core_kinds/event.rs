//! Events: `v1` stores them, `events.k8s.io/v1` serves the same objects with other field names.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{column, micro_time, object, object_reference, schema, string};
use crate::object::kind::{PrinterColumn, ResourceKind, SharedStorage};

/// How long an event is kept after its last change, as in Kubernetes.
const LIFETIME: Duration = Duration::from_secs(3_600);

fn columns(message: &str, object_kind: &str, object_name: &str, last: &str) -> Vec<PrinterColumn> {
    vec![
        column("Last Seen", "date", last, 0),
        column("Type", "string", ".type", 0),
        column("Reason", "string", ".reason", 0),
        column("Kind", "string", object_kind, 0),
        column("Object", "string", object_name, 0),
        column("Message", "string", message, 0),
    ]
}

fn series() -> Value {
    object(
        "Set if it has happened more than once.",
        json!({
            "count": {"type": "integer", "format": "int32"},
            "lastObservedTime": micro_time("When it was last seen."),
        }),
    )
}

pub(super) fn core() -> ResourceKind {
    let mut kind = ResourceKind::new(
        "",
        "v1",
        "Event",
        "events",
        schema(
            "Something that happened to an object.",
            json!({
                "involvedObject": object_reference("What it happened to."),
                "reason": string("Why, in one word."),
                "message": string("The event as text."),
                "source": object("Who saw it.", json!({"component": string("Program."), "host": string("Machine.")})),
                "firstTimestamp": micro_time("When it was first seen."),
                "lastTimestamp": micro_time("When it was last seen."),
                "count": {"type": "integer", "format": "int32", "description": "How often it was seen."},
                "type": string("Normal or Warning."),
                "eventTime": micro_time("When it happened."),
                "series": series(),
                "action": string("The action that was taken."),
                "related": object_reference("Another object that matters."),
                "reportingComponent": string("Name of the program that reports."),
                "reportingInstance": string("Which instance of it."),
            }),
        ),
    );
    kind.short_names = vec!["ev".into()];
    kind.columns = columns(".message", ".involvedObject.kind", ".involvedObject.name", ".lastTimestamp");
    kind.selectable_fields = [
        ".involvedObject.kind",
        ".involvedObject.namespace",
        ".involvedObject.name",
        ".involvedObject.uid",
        ".involvedObject.apiVersion",
        ".involvedObject.resourceVersion",
        ".involvedObject.fieldPath",
        ".reason",
        ".reportingComponent",
        ".type",
    ]
    .map(str::to_owned)
    .to_vec();
    kind.namespace_references = &["/involvedObject/namespace", "/related/namespace"];
    kind.has_generation = false;
    kind.prepare = Some(Arc::new(|event, _| fill_times(event)));
    kind.lifetime = Some(LIFETIME);
    kind
}

pub(super) fn events_group() -> ResourceKind {
    let mut kind = ResourceKind::new(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        schema(
            "Something that happened to an object.",
            json!({
                "eventTime": micro_time("When it happened."),
                "series": series(),
                "reportingController": string("Name of the program that reports."),
                "reportingInstance": string("Which instance of it."),
                "action": string("The action that was taken."),
                "reason": string("Why, in one word."),
                "regarding": object_reference("What it happened to."),
                "related": object_reference("Another object that matters."),
                "note": string("The event as text."),
                "type": string("Normal or Warning."),
                "deprecatedSource": object("Who saw it.", json!({"component": string("Program."), "host": string("Machine.")})),
                "deprecatedFirstTimestamp": micro_time("When it was first seen."),
                "deprecatedLastTimestamp": micro_time("When it was last seen."),
                "deprecatedCount": {"type": "integer", "format": "int32"},
            }),
        ),
    );
    kind.short_names = vec!["ev".into()];
    kind.columns = columns(".note", ".regarding.kind", ".regarding.name", ".deprecatedLastTimestamp");
    // Paths of both forms, because stored objects are converted here too.
    kind.namespace_references = &["/regarding/namespace", "/involvedObject/namespace", "/related/namespace"];
    kind.has_generation = false;
    kind.prepare = Some(Arc::new(|event, _| {
        if event.get("deprecatedLastTimestamp").is_none_or(Value::is_null)
            && let Some(time) = event.get("eventTime").and_then(Value::as_str).map(seconds)
        {
            event["deprecatedFirstTimestamp"] = time.clone().into();
            event["deprecatedLastTimestamp"] = time.into();
        }
    }));
    kind.shared_storage = Some(SharedStorage {
        group: String::new(),
        plural: "events".into(),
        from_stored: Arc::new(|event| rename(event, "events.k8s.io/v1", |(stored, shown)| (stored, shown))),
        to_stored: Arc::new(|event| rename(event, "v1", |(stored, shown)| (shown, stored))),
    });
    kind
}

/// The names of fields in the two forms.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

type NamePair = (&'static str, &'static str);

fn rename(event: &Value, api_version: &str, direction: impl Fn(NamePair) -> NamePair) -> Value {
    let mut out = Map::new();
    for (key, value) in event.as_object().into_iter().flatten() {
        let renamed = NAMES.iter().map(|pair| direction(*pair)).find(|(from, _)| from == key).map(|(_, to)| to);
        out.insert(renamed.unwrap_or(key).to_owned(), value.clone());
    }
    out.insert("apiVersion".into(), api_version.into());
    Value::Object(out)
}

/// Fills in the old time fields: new-style events have only `eventTime`, but the columns and `kubectl describe` use the old
/// fields.
fn fill_times(event: &mut Value) {
    if event.get("lastTimestamp").is_none_or(Value::is_null)
        && let Some(time) = event.get("eventTime").and_then(Value::as_str).map(seconds)
    {
        event["firstTimestamp"] = time.clone().into();
        event["lastTimestamp"] = time.into();
    }
}

fn seconds(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(|_| time.to_owned(), crate::object::time::time_text)
}
