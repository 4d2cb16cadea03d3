//! The messages of the core kinds, by field number.

/// The encoding of a field.
pub(super) enum Type {
    Text,
    Int,
    Bool,
    /// Seconds in RFC 3339.
    Time,
    /// Microseconds in RFC 3339.
    MicroTime,
    Texts,
    TextMap,
    BytesMap,
    /// A map of quantities, each a message with one string.
    QuantityMap,
    /// Bytes that are JSON.
    Json,
    One(Message),
    Many(Message),
}

/// Number, JSON name, encoding.
pub(super) type Field = (u64, &'static str, Type);
/// The fields of a message.
pub(super) type Message = &'static [Field];

use Type::{Bool, BytesMap, Int, Json, Many, MicroTime, One, QuantityMap, Text, TextMap, Texts, Time};

const OWNER: Message = &[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", Bool),
    (7, "blockOwnerDeletion", Bool),
];
const FIELDS: Message = &[(1, "", Json)];
const MANAGED: Message = &[
    (1, "manager", Text),
    (2, "operation", Text),
    (3, "apiVersion", Text),
    (4, "time", Time),
    (6, "fieldsType", Text),
    (7, "fieldsV1", One(FIELDS)),
    (8, "subresource", Text),
];
const METADATA: Message = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "generation", Int),
    (8, "creationTimestamp", Time),
    (9, "deletionTimestamp", Time),
    (10, "deletionGracePeriodSeconds", Int),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (13, "ownerReferences", Many(OWNER)),
    (14, "finalizers", Texts),
    (17, "managedFields", Many(MANAGED)),
];
const REFERENCE: Message = &[
    (1, "kind", Text),
    (2, "namespace", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "resourceVersion", Text),
    (7, "fieldPath", Text),
];
const SOURCE: Message = &[(1, "component", Text), (2, "host", Text)];
const SERIES: Message = &[(1, "count", Int), (2, "lastObservedTime", MicroTime)];
const NAMESPACE_SPEC: Message = &[(1, "finalizers", Texts)];
const NAMESPACE_STATUS: Message = &[(1, "phase", Text)];
const NAMESPACE: Message =
    &[(1, "metadata", One(METADATA)), (2, "spec", One(NAMESPACE_SPEC)), (3, "status", One(NAMESPACE_STATUS))];
const CONFIG_MAP: Message =
    &[(1, "metadata", One(METADATA)), (2, "data", TextMap), (3, "binaryData", BytesMap), (4, "immutable", Bool)];
const SECRET: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "data", BytesMap),
    (3, "type", Text),
    (4, "stringData", TextMap),
    (5, "immutable", Bool),
];
const EVENT: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "involvedObject", One(REFERENCE)),
    (3, "reason", Text),
    (4, "message", Text),
    (5, "source", One(SOURCE)),
    (6, "firstTimestamp", Time),
    (7, "lastTimestamp", Time),
    (8, "count", Int),
    (9, "type", Text),
    (10, "eventTime", MicroTime),
    (11, "series", One(SERIES)),
    (12, "action", Text),
    (13, "related", One(REFERENCE)),
    (14, "reportingComponent", Text),
    (15, "reportingInstance", Text),
];
const NEW_EVENT: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "eventTime", MicroTime),
    (3, "series", One(SERIES)),
    (4, "reportingController", Text),
    (5, "reportingInstance", Text),
    (6, "action", Text),
    (7, "reason", Text),
    (8, "regarding", One(REFERENCE)),
    (9, "related", One(REFERENCE)),
    (10, "note", Text),
    (11, "type", Text),
    (12, "deprecatedSource", One(SOURCE)),
    (13, "deprecatedFirstTimestamp", Time),
    (14, "deprecatedLastTimestamp", Time),
    (15, "deprecatedCount", Int),
];
const LEASE_SPEC: Message = &[
    (1, "holderIdentity", Text),
    (2, "leaseDurationSeconds", Int),
    (3, "acquireTime", MicroTime),
    (4, "renewTime", MicroTime),
    (5, "leaseTransitions", Int),
    (6, "strategy", Text),
    (7, "preferredHolder", Text),
];
const LEASE: Message = &[(1, "metadata", One(METADATA)), (2, "spec", One(LEASE_SPEC))];
const QUOTA_SPEC: Message = &[(1, "hard", QuantityMap), (2, "scopes", Texts)];
const QUOTA_STATUS: Message = &[(1, "hard", QuantityMap), (2, "used", QuantityMap)];
const QUOTA: Message =
    &[(1, "metadata", One(METADATA)), (2, "spec", One(QUOTA_SPEC)), (3, "status", One(QUOTA_STATUS))];
const RESOURCE_ATTRIBUTES: Message = &[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
];
const PATH_ATTRIBUTES: Message = &[(1, "path", Text), (2, "verb", Text)];
const ACCESS_SPEC: Message =
    &[(1, "resourceAttributes", One(RESOURCE_ATTRIBUTES)), (2, "nonResourceAttributes", One(PATH_ATTRIBUTES))];
const ACCESS_REVIEW: Message = &[(1, "metadata", One(METADATA)), (2, "spec", One(ACCESS_SPEC))];
const RULES_SPEC: Message = &[(1, "namespace", Text)];
const RULES_REVIEW: Message = &[(1, "metadata", One(METADATA)), (2, "spec", One(RULES_SPEC))];
const SUBJECT_REVIEW: Message = &[(1, "metadata", One(METADATA))];
const PRECONDITIONS: Message = &[(1, "uid", Text), (2, "resourceVersion", Text)];
const DELETE_OPTIONS: Message = &[
    (1, "gracePeriodSeconds", Int),
    (2, "preconditions", One(PRECONDITIONS)),
    (3, "orphanDependents", Bool),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
];

/// The kinds that have a protobuf form here: their version, their name, their fields.
pub(super) const KINDS: [(&str, &str, Message); 11] = [
    ("v1", "Namespace", NAMESPACE),
    ("v1", "ConfigMap", CONFIG_MAP),
    ("v1", "Secret", SECRET),
    ("v1", "ResourceQuota", QUOTA),
    ("v1", "Event", EVENT),
    ("events.k8s.io/v1", "Event", NEW_EVENT),
    ("coordination.k8s.io/v1", "Lease", LEASE),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", ACCESS_REVIEW),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview", RULES_REVIEW),
    ("authentication.k8s.io/v1", "SelfSubjectReview", SUBJECT_REVIEW),
    ("v1", "DeleteOptions", DELETE_OPTIONS),
];
