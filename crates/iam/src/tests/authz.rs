use crate::authz::registry::{self, Action};
use crate::authz::{Request, decide};
use crate::identity::Identity;

const INFRA: &str = "infra.evroclabs.net";
const RUN: &str = "run.evroclabs.net";
const COMPUTE: &str = "compute.evroclabs.net";

/// `verb group resource[/subresource] [name]`
fn may(identity: &Identity, line: &str) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if fields[1].starts_with('/') {
        return decide(identity, &Request::Path { verb: fields[0], path: fields[1] }).is_allowed();
    }
    let (resource, subresource) = fields[2].split_once('/').unwrap_or((fields[2], ""));
    let group = if fields[1] == "core" { "" } else { fields[1] };
    let name = fields.get(3).copied().unwrap_or("");
    decide(identity, &Request::Resource { verb: fields[0], group, resource, subresource, namespace: "demo", name })
        .is_allowed()
}

fn table(identity: &Identity, lines: &[(&str, bool)]) {
    for (line, want) in lines {
        let line = line.replace("INFRA", INFRA).replace("RUN", RUN).replace("COMPUTE", COMPUTE);
        assert_eq!(may(identity, &line), *want, "{} {line}", identity.user);
    }
}

#[test]
fn operators_may_everything() {
    table(
        &Identity::operator(),
        &[
            ("delete INFRA hosts h1", true),
            ("get core secrets x", true),
            ("get /metrics", true),
            ("create IAM anything/at/all", true),
            ("post /metrics", false),
        ],
    );
}

#[test]
fn a_node_may_report_its_own_host_and_the_work_on_hosts() {
    table(
        &Identity::node("h1"),
        &[
            ("list INFRA machines", true),
            ("watch INFRA replicas", true),
            ("patch INFRA machines/status m", true),
            ("patch INFRA machines m", true),
            ("create INFRA machines m", false),
            ("delete INFRA machines m", false),
            ("create INFRA hosts h1", true),
            ("create INFRA hosts h2", false),
            ("create INFRA hosts", false),
            ("patch INFRA hosts/status h1", true),
            ("patch INFRA hosts/status h2", false),
            ("get INFRA hosts/tunnel h1", true),
            ("get INFRA hosts/tunnel h2", false),
            ("delete INFRA hosts h1", false),
            ("update coordination.k8s.io leases h1", true),
            ("update coordination.k8s.io leases h2", false),
            ("list COMPUTE virtualmachines", false),
            ("get COMPUTE diskimages tiny", true),
            ("get core secrets x", false),
            ("list core namespaces", false),
            ("create core events", true),
            ("create events.k8s.io events", true),
            ("get RUN services x", true),
            ("update RUN services x", false),
            ("get /apis/infra.evroclabs.net", true),
            ("get /metrics", false),
        ],
    );
}

#[test]
fn an_edge_may_route_and_report_load() {
    table(
        &Identity::edge(),
        &[
            ("watch RUN services", true),
            ("watch RUN revisions", true),
            ("patch RUN revisions/status r", true),
            ("patch RUN revisions r", false),
            ("patch RUN services/status s", false),
            ("watch INFRA replicas", true),
            ("patch INFRA replicas r", true),
            ("patch INFRA replicas/status r", false),
            ("create INFRA replicas r", false),
            ("delete INFRA replicas r", false),
            ("list INFRA machines", false),
            ("get core secrets x", false),
            ("get INFRA hosts/edgetunnel h", true),
            ("get INFRA hosts/tunnel h", false),
            ("get /metrics", false),
        ],
    );
}

#[test]
fn monitoring_systems_read_metrics_and_tenants_do_not() {
    let rights = |may: bool| {
        [
            ("get /metrics", may),
            ("get /metrics/node/h1", may),
            ("post /metrics", false),
            ("get /metricsx", false),
            ("list INFRA hosts", may),
            ("get INFRA hosts/edgetunnel h", false),
            ("list COMPUTE virtualmachines", false),
            ("get core secrets x", false),
        ]
    };
    table(&Identity::new("prometheus", ["system:monitoring"]), &rights(true));
    table(&Identity::new("mallory", ["users"]), &rights(false));
    table(&Identity::operator(), &[("get /metrics", true), ("get /metrics/edge/h1", true)]);
}

#[test]
fn controllers_write_only_their_own_kinds() {
    table(
        &Identity::controller("compute"),
        &[
            ("create INFRA machines m", true),
            ("patch COMPUTE virtualmachines/status v", true),
            ("create INFRA replicas r", false),
            ("list RUN services", true),
            ("patch RUN services s", false),
            ("get core secrets x", false),
        ],
    );
    table(
        &Identity::controller("run"),
        &[
            ("create INFRA replicas r", true),
            ("delete INFRA replicas r", true),
            ("create INFRA machines m", false),
            ("create RUN revisions r", true),
        ],
    );
    // The names that the API server's own controllers have.
    for name in ["garbage-collector", "namespaces", "expiry"] {
        let rights = [("delete core secrets x", true), ("create core secrets x", false)];
        table(&Identity::controller(name), &rights);
    }
    table(&Identity::controller("unheard-of"), &[("list RUN services", true), ("patch RUN services s", false)]);
}

#[test]
fn requests_that_no_table_names_are_denied() {
    let stranger = Identity::new("mallory", ["users"]);
    table(
        &stranger,
        &[
            ("get COMPUTE virtualmachines v", false),
            ("list core namespaces", false),
            ("create authorization.k8s.io selfsubjectaccessreviews", true),
            ("create authentication.k8s.io selfsubjectreviews", true),
            ("create authorization.k8s.io subjectaccessreviews", false),
            ("get /api", true),
            ("get /apis/apps/v1", true),
            ("get /openapi/v3", true),
            ("get /apiserver-secrets", false),
            ("delete /apis", false),
        ],
    );
    // The group without the name, and the name without the group, identify none.
    table(&Identity::new("h1", ["system:nodes"]), &[("list INFRA machines", false)]);
    table(&Identity::new("system:node:h1", ["users"]), &[("list INFRA machines", false)]);
    table(&Identity::new("run", ["system:controllers"]), &[("list RUN services", false)]);
    let nobody = Identity { user: "x".into(), ..Identity::default() };
    table(&nobody, &[("get /api", false)]);
}

#[test]
fn registry_access_follows_identity_and_scope() {
    let operator = Identity::operator();
    for (identity, scopes, repository, action, want) in [
        (&operator, "", "demo/hello", Action::Push, true),
        (&operator, "repository:demo/*:pull,push", "demo/hello", Action::Push, true),
        (&operator, "repository:demo/*:pull", "demo/hello", Action::Push, false),
        (&operator, "repository:demo/*:pull", "other/hello", Action::Pull, false),
        (&operator, "repository:demo/*:pull", "demo2/hello", Action::Pull, false),
        (&operator, "repository:demo/hello:pull", "demo/hello2", Action::Pull, false),
        (&operator, "repository:demo*:pull", "demo2/hello", Action::Pull, false),
        (&operator, "nonsense", "demo/hello", Action::Pull, false),
        (&Identity::node("h1"), "", "demo/hello", Action::Pull, true),
        (&Identity::node("h1"), "", "demo/hello", Action::Push, false),
        (&Identity::edge(), "", "demo/hello", Action::Pull, false),
        (&Identity::new("mallory", ["users"]), "repository:*:pull", "demo/hello", Action::Pull, false),
    ] {
        let mut identity = identity.clone();
        let scopes: Vec<String> = scopes.split_whitespace().map(str::to_owned).collect();
        identity.extra.insert(crate::identity::EXTRA_SCOPE.into(), scopes.clone());
        assert_eq!(
            registry::allows(&identity, repository, action),
            want,
            "{} {scopes:?} {repository} {action:?}",
            identity.user
        );
    }
}
