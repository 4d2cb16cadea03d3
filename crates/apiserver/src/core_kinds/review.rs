//! Reviews of the caller itself: SelfSubjectReview and SelfSubjectAccessReview.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{object, schema, string};
use crate::http::authz::{Attributes, Authorize, Decision};
use crate::object::error::ApiError;
use crate::object::kind::{ResourceKind, Scope};
use crate::object::virtual_kind::{Answer, Question};

fn question(group: &str, kind: &str, plural: &str, schema: Value, answer: Arc<dyn Answer>) -> ResourceKind {
    let mut kind = ResourceKind::new(group, "v1", kind, plural, schema);
    kind.scope = Scope::Cluster;
    kind.answer = Some(answer);
    kind.has_generation = false;
    kind
}

pub(super) fn self_subject_access_review(authorizer: Arc<dyn Authorize>) -> ResourceKind {
    let texts = |names: &[&str]| Value::Object(names.iter().map(|name| ((*name).to_owned(), string(""))).collect());
    let mut resource = texts(&["namespace", "verb", "group", "version", "resource", "subresource", "name"]);
    for selector in ["fieldSelector", "labelSelector"] {
        resource[selector] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    let spec = object(
        "What one would like to do.",
        json!({
            "resourceAttributes": object("With objects.", resource),
            "nonResourceAttributes": object("With other paths.", texts(&["path", "verb"])),
        }),
    );
    let status = object(
        "The answer.",
        json!({
            "allowed": {"type": "boolean"}, "denied": {"type": "boolean"},
            "reason": string(""), "evaluationError": string(""),
        }),
    );
    let mut kind = question(
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        schema("May I?", json!({"spec": spec, "status": status})),
        Arc::new(MayI(authorizer)),
    );
    kind.namespace_references = &["/spec/resourceAttributes/namespace"];
    kind
}

pub(super) fn self_subject_rules_review(authorizer: Arc<dyn Authorize>) -> ResourceKind {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let spec = object("Where.", json!({"namespace": string("In which namespace.")}));
    let mut kind = question(
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        schema("What may I?", json!({"spec": spec, "status": open})),
        Arc::new(WhatMayI(authorizer)),
    );
    kind.namespace_references = &["/spec/namespace"];
    kind
}

pub(super) fn self_subject_review() -> ResourceKind {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    question(
        "authentication.k8s.io",
        "SelfSubjectReview",
        "selfsubjectreviews",
        schema("Who am I?", json!({"status": open})),
        Arc::new(WhoAmI),
    )
}

struct MayI(Arc<dyn Authorize>);

#[async_trait]
impl Answer for MayI {
    async fn answer(&self, question: Question) -> Result<Value, ApiError> {
        let mut object = question.object;
        let text = |attributes: &Value, field: &str| {
            attributes.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let resource = object.pointer("/spec/resourceAttributes").filter(|it| it.is_object());
        let path = object.pointer("/spec/nonResourceAttributes").filter(|it| it.is_object());
        let attributes = match (resource, path) {
            (Some(it), None) => Attributes {
                verb: text(it, "verb"),
                is_resource: true,
                group: text(it, "group"),
                version: text(it, "version"),
                resource: text(it, "resource"),
                subresource: text(it, "subresource"),
                namespace: text(it, "namespace"),
                name: text(it, "name"),
                path: String::new(),
            },
            (None, Some(it)) => Attributes { verb: text(it, "verb"), path: text(it, "path"), ..Attributes::default() },
            _ => {
                return Err(ApiError::bad_request(
                    "spec: exactly one of resourceAttributes or nonResourceAttributes must be specified",
                ));
            }
        };
        object["status"] = match self.0.authorize(&question.identity, &attributes).await {
            Decision::Allow => json!({"allowed": true}),
            Decision::Deny { reason } if reason.is_empty() => json!({"allowed": false}),
            Decision::Deny { reason } => json!({"allowed": false, "reason": reason}),
        };
        Ok(object)
    }
}

struct WhatMayI(Arc<dyn Authorize>);

#[async_trait]
impl Answer for WhatMayI {
    async fn answer(&self, question: Question) -> Result<Value, ApiError> {
        let mut object = question.object;
        let namespace = object.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
        let everything = Attributes {
            verb: "*".into(),
            is_resource: true,
            group: "*".into(),
            version: "*".into(),
            resource: "*".into(),
            namespace,
            ..Attributes::default()
        };
        let is_unlimited = self.0.authorize(&question.identity, &everything).await == Decision::Allow;
        let (rules, paths) = if is_unlimited {
            (
                json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]),
                json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
            )
        } else {
            (json!([]), json!([]))
        };
        object["status"] = json!({"resourceRules": rules, "nonResourceRules": paths, "incomplete": !is_unlimited});
        Ok(object)
    }
}

struct WhoAmI;

#[async_trait]
impl Answer for WhoAmI {
    async fn answer(&self, question: Question) -> Result<Value, ApiError> {
        let mut object = question.object;
        let identity = question.identity;
        let mut user = json!({"username": identity.user, "groups": identity.groups});
        if !identity.uid.is_empty() {
            user["uid"] = json!(identity.uid);
        }
        if !identity.extra.is_empty() {
            user["extra"] = json!(identity.extra);
        }
        object["status"] = json!({"userInfo": user});
        Ok(object)
    }
}
