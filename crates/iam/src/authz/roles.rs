//! The tables: what each kind of caller may do, and nothing more.

use super::{Names, Role, Rule};

const READ: &[&str] = &["get", "list", "watch"];
const CHANGE: &[&str] = &["update", "patch"];
const REPORT: &[&str] = &["get", "update", "patch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const ALL: &[&str] = &["*"];

const COMPUTE: &str = "compute.evroclabs.net";
const NETWORKING: &str = "networking.evroclabs.net";
const RUN: &str = "run.evroclabs.net";
const IAM: &str = "iam.evroclabs.net";
const INFRA: &str = "infra.evroclabs.net";

/// Writing events, in both of their groups.
const EVENTS: Rule = Rule {
    verbs: &["create", "update", "patch"],
    groups: &["", "events.k8s.io"],
    resources: &["events"],
    names: Names::Any,
};

/// The installation's administrators.
pub static OPERATOR: Role = Role {
    name: "operator",
    rules: &[Rule { verbs: ALL, groups: ALL, resources: &["*"], names: Names::Any }],
    readable_paths: &["/*"],
};

/// A host's agent: its own Host and tunnel, and the work that is bound to hosts. It neither creates nor deletes work.
pub static NODE: Role = Role {
    name: "node",
    rules: &[
        Rule {
            verbs: READ,
            groups: &[INFRA],
            resources: &["hosts", "volumes", "machines", "replicas"],
            names: Names::Any,
        },
        Rule { verbs: &["create", "update", "patch"], groups: &[INFRA], resources: &["hosts"], names: Names::OwnHost },
        Rule { verbs: REPORT, groups: &[INFRA], resources: &["hosts/status"], names: Names::OwnHost },
        Rule { verbs: &["get", "create"], groups: &[INFRA], resources: &["hosts/tunnel"], names: Names::OwnHost },
        // Finalizers are in metadata: removing one is an update of the object.
        Rule { verbs: CHANGE, groups: &[INFRA], resources: &["volumes", "machines", "replicas"], names: Names::Any },
        Rule {
            verbs: REPORT,
            groups: &[INFRA],
            resources: &["volumes/status", "machines/status", "replicas/status"],
            names: Names::Any,
        },
        // Kept logs go with their service.
        Rule { verbs: READ, groups: &[RUN], resources: &["services"], names: Names::Any },
        // A host publishes its images.
        Rule {
            verbs: &["get", "list", "watch", "create", "update", "patch"],
            groups: &[COMPUTE],
            resources: &["diskimages", "diskimages/status"],
            names: Names::Any,
        },
        Rule {
            verbs: &["get", "create", "update", "patch"],
            groups: &["coordination.k8s.io"],
            resources: &["leases"],
            names: Names::OwnHost,
        },
        EVENTS,
    ],
    readable_paths: &[],
};

/// The HTTPS gateway: reads its routes, reports load, releases drained replicas.
pub static EDGE: Role = Role {
    name: "edge",
    rules: &[
        Rule { verbs: READ, groups: &[RUN], resources: &["services", "revisions"], names: Names::Any },
        Rule { verbs: READ, groups: &[INFRA], resources: &["replicas", "hosts"], names: Names::Any },
        Rule { verbs: REPORT, groups: &[RUN], resources: &["revisions/status"], names: Names::Any },
        Rule { verbs: CHANGE, groups: &[INFRA], resources: &["replicas"], names: Names::Any },
        Rule { verbs: &["get"], groups: &[INFRA], resources: &["hosts/edgetunnel"], names: Names::Any },
        EVENTS,
    ],
    readable_paths: &[],
};

/// A monitoring system: metrics, and the hosts that there are metrics of.
pub static MONITORING: Role = Role {
    name: "monitoring",
    rules: &[Rule { verbs: READ, groups: &[INFRA], resources: &["hosts"], names: Names::Any }],
    readable_paths: &["/metrics/*"],
};

/// The permissions of every controller: read the platform's own kinds, write events, take part in leader election.
pub static ANY_CONTROLLER: Role = Role {
    name: "controller",
    rules: &[
        Rule { verbs: READ, groups: &[COMPUTE, NETWORKING, RUN, IAM, INFRA], resources: &["*"], names: Names::Any },
        Rule { verbs: READ, groups: &[""], resources: &["namespaces", "resourcequotas"], names: Names::Any },
        Rule {
            verbs: &["get", "create", "update", "patch"],
            groups: &["coordination.k8s.io"],
            resources: &["leases"],
            names: Names::Any,
        },
        EVENTS,
    ],
    readable_paths: &[],
};

/// VirtualMachine, Disk and what they become on hosts.
static COMPUTE_CONTROLLER: Role = Role {
    name: "controller:compute",
    rules: &[
        Rule { verbs: WRITE, groups: &[COMPUTE], resources: &["*"], names: Names::Any },
        Rule {
            verbs: WRITE,
            groups: &[INFRA],
            resources: &["machines", "machines/status", "volumes", "volumes/status"],
            names: Names::Any,
        },
    ],
    readable_paths: &[],
};

/// Service, Revision, Replica.
static RUN_CONTROLLER: Role = Role {
    name: "controller:run",
    rules: &[
        Rule { verbs: WRITE, groups: &[RUN], resources: &["*"], names: Names::Any },
        Rule { verbs: WRITE, groups: &[INFRA], resources: &["replicas", "replicas/status"], names: Names::Any },
    ],
    readable_paths: &[],
};

/// Organization and ResourceGroup, the namespace of a group, VirtualPrivateCloud and Subnet.
static NETWORK_CONTROLLER: Role = Role {
    name: "controller:network",
    rules: &[
        Rule { verbs: WRITE, groups: &[IAM], resources: &["*"], names: Names::Any },
        Rule {
            verbs: WRITE,
            groups: &[""],
            resources: &["namespaces", "namespaces/status", "namespaces/finalize"],
            names: Names::Any,
        },
        Rule { verbs: WRITE, groups: &[NETWORKING], resources: &["*"], names: Names::Any },
    ],
    readable_paths: &[],
};

/// Garbage collection, emptying of namespaces, end of events, use of quotas: reads and deletes everything, changes metadata (finalizers, owner references).
static COLLECTOR: Role = Role {
    name: "controller:collector",
    rules: &[Rule {
        verbs: &["get", "list", "watch", "update", "patch", "delete", "deletecollection"],
        groups: ALL,
        resources: &["*"],
        names: Names::Any,
    }],
    readable_paths: &[],
};

/// The subresources that act on virtual machines for their users.
static STREAMS: Role = Role {
    name: "controller:streams",
    rules: &[
        Rule { verbs: &["patch"], groups: &[COMPUTE], resources: &["virtualmachines"], names: Names::Any },
        Rule { verbs: &["delete"], groups: &[INFRA], resources: &["machines"], names: Names::Any },
    ],
    readable_paths: &[],
};

/// First start: the catalogue, the organisation, the first group. It creates and updates; it deletes nothing.
static SEEDER: Role = Role {
    name: "controller:seed",
    rules: &[
        Rule {
            verbs: &["create", "update", "patch"],
            groups: &[COMPUTE, NETWORKING, IAM, INFRA],
            resources: &["*"],
            names: Names::Any,
        },
        Rule { verbs: &["create", "update", "patch"], groups: &[""], resources: &["namespaces"], names: Names::Any },
    ],
    readable_paths: &[],
};

/// The table of a controller by its name; an unknown controller has only [`ANY_CONTROLLER`].
pub fn controller(name: &str) -> Option<&'static Role> {
    Some(match name {
        "compute" | "virtualmachine" | "disk" | "scheduler" | "placement" => &COMPUTE_CONTROLLER,
        // "iam" is the name of control processes of earlier versions.
        "network" | "iam" => &NETWORK_CONTROLLER,
        "run" | "service" | "revision" | "autoscaler" => &RUN_CONTROLLER,
        "garbage-collector" | "namespaces" | "expiry" | "quota" => &COLLECTOR,
        "seed" | "bootstrap" => &SEEDER,
        "streams" => &STREAMS,
        _ => return None,
    })
}

/// Everybody with a name: discovery, schemas, and questions about oneself.
pub static AUTHENTICATED: Role = Role {
    name: "authenticated",
    rules: &[
        Rule {
            verbs: &["create"],
            groups: &["authorization.k8s.io"],
            resources: &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            names: Names::Any,
        },
        Rule {
            verbs: &["create"],
            groups: &["authentication.k8s.io"],
            resources: &["selfsubjectreviews"],
            names: Names::Any,
        },
        // A token of one's own: it can do no more than who asks for it.
        Rule { verbs: &["create"], groups: &[IAM], resources: &["accesstokens"], names: Names::Any },
    ],
    readable_paths: &["/api/*", "/apis/*", "/openapi/*", "/version/*", "/livez/*", "/readyz/*", "/healthz/*"],
};
