//! Events: what `kubectl describe` lists below an object. One for each change of its condition Ready, and no others.

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

/// How much of the object's name the event's name may use; names are limited to 253 characters.
const LONGEST_START: usize = 200;

/// The event for the change from one state of an object to the next; `None` if Ready stays as it was.
fn event(old: &Value, new: &Value, is_failure: bool, now: Timestamp) -> Option<(String, Value)> {
    let text = |pointer: &str| new.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, namespace, name) = (text("/apiVersion"), text("/metadata/namespace"), text("/metadata/name"));
    let ready = ready(new)?;
    let field =
        |of: Option<&Value>, name: &str| of.and_then(|it| it.get(name)).and_then(Value::as_str).map(str::to_owned);
    let before = self::ready(old);
    let is_same = |name: &str| field(Some(ready), name) == field(before, name);
    // An object without a namespace has conditions only.
    if namespace.is_empty() || (is_same("status") && is_same("reason")) {
        return None;
    }
    // Client libraries name events this way: the object, and a number that grows.
    let start: String = name.chars().take(LONGEST_START).collect();
    let own_name = format!("{}.{:x}", start.trim_end_matches(['-', '.']), now.as_nanosecond());
    let time = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": own_name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": api_version, "kind": text("/kind"), "namespace": namespace, "name": name,
            "uid": text("/metadata/uid"), "resourceVersion": text("/metadata/resourceVersion"),
        },
        "type": if is_failure { "Warning" } else { "Normal" },
        "reason": ready["reason"], "message": ready["message"],
        "source": {"component": "evroc"}, "reportingComponent": "evroc",
        "firstTimestamp": time, "lastTimestamp": time, "count": 1,
    });
    Some((namespace.to_owned(), event))
}

fn ready(object: &Value) -> Option<&Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == "Ready")
}

/// The reason of the condition Ready, if it is not True.
pub(crate) fn reason_against(object: &Value) -> Option<&str> {
    ready(object).filter(|ready| ready["status"] != "True").and_then(|ready| ready["reason"].as_str())
}

/// Records an event for a status change that was written. Best effort: an event that cannot be written is dropped.
pub(crate) async fn record(client: Client, old: &Value, new: &Value, is_failure: bool, now: Timestamp) {
    let Some((namespace, event)) = event(old, new, is_failure, now) else { return };
    let kind = ApiResource::erase::<k8s_openapi::api::core::v1::Event>(&());
    let events = Api::<DynamicObject>::namespaced_with(client, &namespace, &kind);
    let event = match serde_json::from_value(event) {
        Ok(event) => event,
        Err(error) => return tracing::error!(%error, "cannot convert an event to an object"),
    };
    match events.create(&PostParams::default(), &event).await {
        Ok(_) => {}
        // The namespace is being deleted or absent, and its events with it.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            tracing::debug!(reason = %status.reason, %namespace, "an event was not written");
        }
        Err(error) => tracing::warn!(%error, %namespace, "cannot write an event"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(status: &str, reason: &str, message: &str) -> Value {
        json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "Disk", "metadata": {"name": "a", "namespace": "demo"},
            "status": {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}]}})
    }

    #[test]
    fn a_transition_is_reported_once() {
        let now = Timestamp::UNIX_EPOCH;
        let (fresh, waits) = (json!({}), disk("False", "Provisioning", "host-1 clones the image"));
        let (namespace, reported) = event(&fresh, &waits, false, now).expect("an event");
        assert_eq!(
            (namespace.as_str(), &reported["reason"], &reported["type"]),
            ("demo", &json!("Provisioning"), &json!("Normal"))
        );
        assert_eq!(reported["involvedObject"]["name"], "a");
        assert!(event(&waits, &disk("False", "Provisioning", "another message"), false, now).is_none());
        assert!(event(&waits, &disk("True", "Ready", ""), false, now).is_some());
        let failed = disk("False", "DiskTooSmall", "expected 2 GB");
        assert_eq!(event(&waits, &failed, true, now).expect("an event").1["type"], "Warning");
        let mut cluster_wide = disk("True", "Ready", "");
        cluster_wide["metadata"]["namespace"] = Value::Null;
        assert!(event(&fresh, &cluster_wide, false, now).is_none());
    }

    #[test]
    fn only_objects_that_are_not_ready_have_a_reason() {
        assert_eq!(reason_against(&disk("False", "DiskTooSmall", "")), Some("DiskTooSmall"));
        assert_eq!(reason_against(&disk("True", "Ready", "")), None);
        assert_eq!(reason_against(&json!({})), None);
    }
}
