//! The operations on a kind, in the neutral form.

use super::KindInfo;
use super::definitions::{reference, shared};
use serde_json::{Value, json};

/// One HTTP operation.
pub(super) struct Operation {
    pub path: String,
    /// Lower case: `get`, `put`…
    pub method: &'static str,
    pub id: String,
    pub tag: String,
    pub description: String,
    /// `x-kubernetes-action`.
    pub action: &'static str,
    pub gvk: Value,
    /// The query parameters; [`path_parameters`] has those of the path.
    pub parameters: Vec<Parameter>,
    /// Schema of the body, whether it is required, and its media types.
    pub body: Option<(Value, bool, Vec<&'static str>)>,
    /// Status code, its name, schema.
    pub responses: Vec<(&'static str, &'static str, Value)>,
}

/// A parameter: name, JSON type, help.
#[derive(Clone, Copy)]
pub(super) struct Parameter {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
}

const fn parameter(name: &'static str, kind: &'static str, help: &'static str) -> Parameter {
    Parameter { name, kind, help }
}

pub(super) const PRETTY: Parameter = parameter(
    "pretty",
    "string",
    "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
);
const DRY_RUN: Parameter = parameter(
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. The only valid value is 'All': all stages of the request are processed, nothing is stored.",
);
const FIELD_MANAGER: Parameter = parameter(
    "fieldManager",
    "string",
    "Name of the actor that makes these changes: at most 128 printable characters. Required for apply requests; for others it defaults to the first part of the user agent.",
);
const FIELD_VALIDATION: Parameter = parameter(
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: 'Ignore' drops them silently, 'Warn' (the default) drops them with a warning, 'Strict' refuses the request and names all of them.",
);
const FORCE: Parameter = parameter(
    "force",
    "boolean",
    "Force takes over conflicting fields that other managers own. It must be unset for patches that are not apply patches.",
);
const RESOURCE_VERSION: Parameter = parameter(
    "resourceVersion",
    "string",
    "resourceVersion sets a constraint on what resource versions a request may be served from. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions for details. Defaults to unset.",
);
const LIST: [Parameter; 10] = [
    parameter(
        "allowWatchBookmarks",
        "boolean",
        "Asks for watch events of type BOOKMARK; they may be sent at any time.",
    ),
    parameter(
        "continue",
        "string",
        "The continue option should be set when retrieving more results from the server: the token of the page before. An expired token is answered with 410 ResourceExpired.",
    ),
    parameter(
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    parameter(
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    parameter(
        "limit",
        "integer",
        "The maximum number of responses to return for a list call. If there are more, the answer has a continue token.",
    ),
    RESOURCE_VERSION,
    parameter(
        "resourceVersionMatch",
        "string",
        "resourceVersionMatch determines how resourceVersion is applied to list calls. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions for details.",
    ),
    parameter(
        "sendInitialEvents",
        "boolean",
        "A watch with this begins with synthetic events for the objects that exist, ended by a bookmark with the annotation k8s.io/initial-events-end.",
    ),
    parameter(
        "timeoutSeconds",
        "integer",
        "Timeout for the list or watch call: it ends after this time, active or not.",
    ),
    parameter(
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
];
const DELETE: [Parameter; 4] = [
    DRY_RUN,
    parameter(
        "gracePeriodSeconds",
        "integer",
        "The duration in seconds before the object should be deleted. Zero means at once.",
    ),
    parameter(
        "orphanDependents",
        "boolean",
        "Deprecated: use propagationPolicy. Whether dependent objects are orphaned.",
    ),
    parameter(
        "propagationPolicy",
        "string",
        "Whether and how dependent objects are collected: 'Orphan', 'Background' or 'Foreground'.",
    ),
];
const WRITE: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: [Parameter; 4] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];

const ANY_BODY: [&str; 2] = ["application/json", "application/yaml"];
const PATCH_BODY: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// The parameters in a path: name and help.
pub(super) fn path_parameters(path: &str, kind: &str) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if path.contains("{name}") {
        out.push(("name", format!("name of the {kind}")));
    }
    if path.contains("{namespace}") {
        out.push(("namespace", "object name and auth scope, such as for teams and projects".to_string()));
    }
    out
}

/// `compute.evroclabs.net` to `ComputeEvroclabsNet`.
fn camel(text: &str, mut upper: bool) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() {
            upper = true;
        } else if upper {
            out.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

/// All operations of a kind.
pub(super) fn of_kind(info: &KindInfo<'_>) -> Vec<Operation> {
    let base = if info.group.is_empty() {
        format!("/api/{}", info.version)
    } else {
        format!("/apis/{}/{}", info.group, info.version)
    };
    let one = reference(&info.model_name(info.kind));
    let list = reference(&info.model_name(info.list_kind));
    let status = reference(&shared("Status"));
    let patch = reference(&shared("Patch"));
    let options = reference(&shared("DeleteOptions"));
    let body = |schema: &Value| Some((schema.clone(), true, ANY_BODY.to_vec()));
    let maker = Maker { info };
    let mut out = Vec::new();

    let mut collection = format!("{base}/{}", info.plural);
    if info.namespaced {
        let mut all = maker.operation(&collection, "get", "list", "list", "", &LIST, None, &[("200", "OK", &list)]);
        all.id = all.id.replacen("Namespaced", "", 1) + "ForAllNamespaces";
        out.push(all);
        collection = format!("{base}/namespaces/{{namespace}}/{}", info.plural);
    }
    let created = [("200", "OK", &one), ("201", "Created", &one), ("202", "Accepted", &one)];
    let deleted = [("200", "OK", &status), ("202", "Accepted", &status)];
    let deletecollection = [&LIST[1..], &DELETE[..]].concat();
    out.push(maker.operation(&collection, "get", "list", "list", "", &LIST, None, &[("200", "OK", &list)]));
    out.push(maker.operation(&collection, "post", "create", "post", "", &WRITE, body(&one), &created));
    out.push(maker.operation(
        &collection,
        "delete",
        "deletecollection",
        "deletecollection",
        "",
        &deletecollection,
        Some((options.clone(), false, ANY_BODY.to_vec())),
        &[("200", "OK", &status)],
    ));
    let item = format!("{collection}/{{name}}");
    let mut on_item = |path: &str, sub: &str, one: &Value| {
        let replaced = [("200", "OK", one), ("201", "Created", one)];
        let patch_body = Some((patch.clone(), true, PATCH_BODY.to_vec()));
        out.push(maker.operation(path, "get", "read", "get", sub, &[RESOURCE_VERSION], None, &[("200", "OK", one)]));
        out.push(maker.operation(path, "put", "replace", "put", sub, &WRITE, body(one), &replaced));
        if sub.is_empty() {
            let body = Some((options.clone(), false, ANY_BODY.to_vec()));
            out.push(maker.operation(path, "delete", "delete", "delete", sub, &DELETE, body, &deleted));
        }
        out.push(maker.operation(path, "patch", "patch", "patch", sub, &PATCH, patch_body, &replaced));
    };
    on_item(&item, "", &one);
    if info.has_status {
        on_item(&format!("{item}/status"), "Status", &one);
    }
    if info.has_scale {
        on_item(&format!("{item}/scale"), "Scale", &reference("io.k8s.api.autoscaling.v1.Scale"));
        let is_scale = |operation: &&mut Operation| operation.path.ends_with("/{name}/scale");
        for operation in out.iter_mut().filter(is_scale) {
            operation.gvk = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        }
    }
    for connect in &info.connects {
        let (path, sub) = (format!("{item}/{connect}"), camel(connect, true));
        for method in ["get", "post"] {
            let answer = json!({"type": "string"});
            let mut operation =
                maker.operation(&path, method, "connect", "connect", &sub, &[], None, &[("200", "OK", &answer)]);
            operation.description = format!("connect {} requests to {connect} of {}", method.to_uppercase(), info.kind);
            out.push(operation);
        }
    }
    out
}

struct Maker<'a> {
    info: &'a KindInfo<'a>,
}

impl Maker<'_> {
    #[allow(clippy::too_many_arguments)]
    fn operation(
        &self,
        path: &str,
        method: &'static str,
        verb: &'static str,
        action: &'static str,
        subresource: &str,
        parameters: &[Parameter],
        body: Option<(Value, bool, Vec<&'static str>)>,
        responses: &[(&'static str, &'static str, &Value)],
    ) -> Operation {
        let info = self.info;
        let group = if info.group.is_empty() { "core" } else { info.group.trim_end_matches(".k8s.io") };
        let namespaced = if info.namespaced { "Namespaced" } else { "" };
        let scope = format!("{}{}", camel(group, true), camel(info.version, true));
        let of = if subresource.is_empty() { String::new() } else { format!(" {} of", subresource.to_lowercase()) };
        let article = if info.kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
        let description = match verb {
            "list" => format!("list objects of kind {}", info.kind),
            "patch" => format!("partially update{of} the specified {}", info.kind),
            "deletecollection" => format!("delete collection of {}", info.kind),
            "create" | "delete" => format!("{verb}{of} {article} {}", info.kind),
            _ => format!("{verb}{of} the specified {}", info.kind),
        };
        let mut parameters = parameters.to_vec();
        parameters.sort_by_key(|p| p.name);
        Operation {
            path: path.to_string(),
            method,
            id: match verb {
                "deletecollection" => format!("delete{scope}Collection{namespaced}{}", info.kind),
                "connect" => format!("connect{scope}{}{namespaced}{}{subresource}", camel(method, true), info.kind),
                verb => format!("{verb}{scope}{namespaced}{}{subresource}", info.kind),
            },
            tag: format!("{}_{}", camel(group, false), camel(info.version, false)),
            description,
            action,
            gvk: json!({"group": info.group, "version": info.version, "kind": info.kind}),
            parameters,
            body,
            responses: responses.iter().map(|(code, name, schema)| (*code, *name, (*schema).clone())).collect(),
        }
    }
}
