//! `run.evroclabs.net`: services (containers behind HTTPS) and their revisions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names;

/// The label on revisions and replicas that names their service.
pub const SERVICE_LABEL: &str = "run.evroclabs.net/service";
/// The label on replicas that names their revision.
pub const REVISION_LABEL: &str = "run.evroclabs.net/revision";
/// The port of a container that names none.
pub const DEFAULT_PORT: i32 = 8080;

/// A serverless container behind HTTPS that scales to zero and back.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "run.evroclabs.net",
    version = "v1alpha1",
    kind = "Service",
    plural = "services",
    namespaced,
    category = "all",
    status = "ServiceStatus"
)]
#[kube(printcolumn = r#"{"name":"URL","type":"string","jsonPath":".status.url"}"#)]
#[kube(printcolumn = r#"{"name":"LatestCreated","type":"string","jsonPath":".status.latestCreatedRevisionName"}"#)]
#[kube(printcolumn = r#"{"name":"LatestReady","type":"string","jsonPath":".status.latestReadyRevisionName"}"#)]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#
)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","priority":1}"#)]
pub struct ServiceSpec {
    /// The template of new revisions.
    pub template: RevisionTemplate,
}

/// The template of a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RevisionTemplate {
    /// The containers: exactly one.
    pub spec: PodSpec,
}

/// The part of a pod's specification that evroc Run supports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PodSpec {
    /// Exactly one container.
    #[schemars(length(min = 1, max = 1))]
    pub containers: Vec<Container>,
}

/// A container: image, arguments, inline environment and one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The name; for people only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = names::LABEL_OR_EMPTY))]
    pub name: Option<String>,
    /// The image in the cloud's registry, for example `registry.evroc.localhost/demo/hello:v1`.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments; replace the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables, inline only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// At most one port: where traffic is forwarded to, and what `PORT` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1))]
    pub ports: Vec<ContainerPort>,
}

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EnvVar {
    /// The name. `PORT` is set by the platform.
    #[schemars(length(min = 1, max = 256), regex(pattern = names::ENVIRONMENT_VARIABLE), extend("x-kubernetes-validations" = [
        {"rule": "self != 'PORT'", "message": "PORT is set by the platform: give spec.template.spec.containers[0].ports[0].containerPort instead"}]))]
    pub name: String,
    /// The value.
    #[serde(default)]
    pub value: String,
}

/// The port that a container listens on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// 1024 or above: the container does not run as root.
    #[schemars(range(min = 1024, max = 65535))]
    pub container_port: i32,
}

impl Container {
    /// The port that traffic is forwarded to.
    pub fn port(&self) -> i32 {
        self.ports.first().map_or(DEFAULT_PORT, |p| p.container_port)
    }
}

/// The observed state of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// The state over time: Ready, ConfigurationsReady, RoutesReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The address: `https://svc-<iid>.<domain>`, stable for the service's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_created_revision_name: Option<String>,
    /// The newest revision that was ready: it has all traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_ready_revision_name: Option<String>,
    /// The target of requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

/// A share of the traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficTarget {
    /// The revision.
    pub revision_name: String,
    /// Percent of the requests.
    pub percent: i32,
    /// Whether it follows the newest ready revision.
    #[serde(default)]
    pub latest_revision: bool,
}

/// One immutable version of a service, made by the platform.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "run.evroclabs.net",
    version = "v1alpha1",
    kind = "Revision",
    plural = "revisions",
    shortname = "rev",
    namespaced,
    category = "all",
    status = "RevisionStatus"
)]
#[kube(
    printcolumn = r#"{"name":"Service","type":"string","jsonPath":".metadata.labels.run\\.evroclabs\\.net/service"}"#
)]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#
)]
#[kube(printcolumn = r#"{"name":"Replicas","type":"integer","jsonPath":".status.replicas"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSpec {
    /// The name of the service that it is a version of.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub service: String,
    /// The service's generation that it was made from.
    pub service_generation: i64,
    /// The container.
    pub container: Container,
}

/// The observed state of a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// The state over time: Proven (a container has accepted connections once), Ready (it did when it was last started), Active (a
    /// container does now).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The image by digest, resolved once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// How many replicas should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// How many replicas there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// The reason for that number: the autoscaler's last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_reason: Option<String>,
    /// How often a container was started again since one last accepted connections for a long time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i32>,
    /// The gateway's last report on the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// The gateway's report on a revision's requests, at every change between idle and active.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Requests that wait for a replica.
    pub waiting: i32,
    /// Requests that are being answered.
    pub in_flight: i32,
    /// When the last request began or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request_time: Option<Time>,
}
