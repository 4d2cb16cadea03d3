//! Events: what `kubectl describe` tells below an object. One for each change of its condition Ready, and no others.

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

/// Objects of this group are the platform's own: nobody describes them.
const PLATFORM: &str = "infra.evroclabs.net/";

/// Of the object's name, so much begins the event's: names end at 253.
const LONGEST_START: usize = 200;

/// The event for the change from one state of an object to the next; `None` if Ready stays as it was.
fn event(old: &Value, new: &Value, now: Timestamp) -> Option<(String, Value)> {
    let text = |pointer: &str| new.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, namespace, name) = (text("/apiVersion"), text("/metadata/namespace"), text("/metadata/name"));
    let ready = ready(new)?;
    let field =
        |of: Option<&Value>, name: &str| of.and_then(|it| it.get(name)).and_then(Value::as_str).map(str::to_owned);
    let before = self::ready(old);
    let is_same = |name: &str| field(Some(ready), name) == field(before, name);
    // What belongs to no namespace has conditions alone.
    if namespace.is_empty() || api_version.starts_with(PLATFORM) || (is_same("status") && is_same("reason")) {
        return None;
    }
    let is_known = field(Some(ready), "status").as_deref() != Some("Unknown");
    // As client libraries name events: the object, and a number that grows.
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
        "type": if is_known { "Normal" } else { "Warning" },
        "reason": ready["reason"], "message": ready["message"],
        "source": {"component": "evroc"}, "reportingComponent": "evroc",
        "firstTimestamp": time, "lastTimestamp": time, "count": 1,
    });
    Some((namespace.to_owned(), event))
}

fn ready(object: &Value) -> Option<&Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == "Ready")
}

/// Tells of a change that was written. An event that cannot be written is lost, and the work goes on.
pub(crate) async fn tell(client: Client, old: &Value, new: &Value) {
    let Some((namespace, event)) = event(old, new, Timestamp::now()) else { return };
    let kind = ApiResource::erase::<k8s_openapi::api::core::v1::Event>(&());
    let events = Api::<DynamicObject>::namespaced_with(client, &namespace, &kind);
    let event = match serde_json::from_value(event) {
        Ok(event) => event,
        Err(error) => return tracing::error!(%error, "an event is no object"),
    };
    match events.create(&PostParams::default(), &event).await {
        Ok(_) => {}
        // The namespace is going or gone, and its events with it.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            tracing::debug!(reason = %status.reason, %namespace, "an event was not written");
        }
        Err(error) => tracing::warn!(%error, %namespace, "an event was not written"),
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
    fn a_transition_is_told_once() {
        let now = Timestamp::UNIX_EPOCH;
        let (fresh, waits) = (json!({}), disk("False", "Provisioning", "host-1 clones the image"));
        let (namespace, told) = event(&fresh, &waits, now).expect("an event");
        assert_eq!(
            (namespace.as_str(), &told["reason"], &told["type"]),
            ("demo", &json!("Provisioning"), &json!("Normal"))
        );
        assert_eq!(told["involvedObject"]["name"], "a");
        assert!(event(&waits, &disk("False", "Provisioning", "other words"), now).is_none());
        assert!(event(&waits, &disk("True", "Ready", ""), now).is_some());
        let unknown = disk("Unknown", "HostGone", "host-1 does not answer");
        assert_eq!(event(&waits, &unknown, now).expect("an event").1["type"], "Warning");
        let mut volume = disk("True", "Ready", "");
        volume["apiVersion"] = json!("infra.evroclabs.net/v1alpha1");
        assert!(event(&fresh, &volume, now).is_none());
    }
}
