//! Views: one namespace in front of the API under names of its own, and the objects it hides.

use std::collections::BTreeSet;
use std::sync::Arc;

use evroc_apiserver::views::{ObjectFilter, Objects, View, Views};
use evroc_apiserver::{ClaimKey, ResourceKind, Scope};
use serde_json::{Value, json};

use crate::support::{Client, TestServer, disk, eventually_deleted, names};

/// `root:acme`, and in it `root:acme:web` with the namespace `web-x7`. Hosts are in no view.
struct Acme;

impl Views for Acme {
    fn view(&self, name: &str, _: &Objects<'_>) -> Result<Option<View>, String> {
        let filters = |field: &str, value: &str| {
            vec![ObjectFilter { kind: "teams.test.example".into(), field: field.into(), value: value.into() }]
        };
        Ok(match name {
            "root:acme" => Some(View { filters: filters("spec.owner", "acme"), ..View::default() }),
            "root:acme:web" => Some(View {
                namespace: "web-x7".into(),
                aliases: ["web", "acme", "default"].map(str::to_owned).to_vec(),
                filters: filters("metadata.name", "web"),
            }),
            _ => None,
        })
    }

    fn serves(&self, kind: &ResourceKind) -> bool {
        kind.plural != "hosts"
    }
}

fn cluster_kind(kind: &str, plural: &str) -> ResourceKind {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"owner": {"type": "string"}, "note": {"type": "string"}}}}});
    let mut kind = ResourceKind::new("test.example", "v1", kind, plural, schema);
    kind.scope = Scope::Cluster;
    kind.selectable_fields = vec![".spec.owner".into()];
    kind
}

/// Holds the port that it names, which is one for all namespaces.
fn gates() -> ResourceKind {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"port": {"type": "integer"}}}}});
    let mut kind = ResourceKind::new("test.example", "v1", "Gate", "gates", schema);
    kind.claims = Some(Arc::new(|gate: &Value| {
        let claim = |port: &Value| ClaimKey {
            key: format!("port/{port}"),
            field: "spec.port".into(),
            what: format!("port {port}"),
            refusal: Default::default(),
        };
        gate.pointer("/spec/port").map(claim).into_iter().collect()
    }));
    kind
}

const GROUP: &str = "/clusters/root:acme:web/apis/test.example/v1";
const PLAIN: &str = "/apis/test.example/v1";

async fn start() -> (TestServer, Client) {
    let server = TestServer::start_with(|it| {
        it.views(Arc::new(Acme)).kind(cluster_kind("Team", "teams")).kind(cluster_kind("Host", "hosts")).kind(gates())
    })
    .await;
    let admin = server.admin();
    for namespace in ["web-x7", "other"] {
        admin.make_namespace(namespace).await;
    }
    (server, admin)
}

fn of(kind: &str, name: &str, namespace: Option<&str>, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "test.example/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

#[tokio::test]
async fn a_namespace_answers_to_its_aliases_and_others_are_hidden() {
    let (_server, admin) = start().await;
    let mut wanted = disk("a", 1);
    wanted["metadata"]["namespace"] = json!("acme");
    let made = admin.create(&format!("{GROUP}/namespaces/acme/disks"), &wanted).await;
    assert_eq!(made["metadata"]["namespace"], "acme");
    wanted["metadata"]["namespace"] = json!("other");
    admin.create(&format!("{PLAIN}/namespaces/other/disks"), &wanted).await;
    assert_eq!(admin.get(&format!("{PLAIN}/namespaces/web-x7/disks/a")).await.1["metadata"]["namespace"], "web-x7");
    for alias in ["web", "acme", "default"] {
        let path = format!("{GROUP}/namespaces/{alias}/disks");
        assert_eq!(admin.get(&format!("{path}/a")).await.1["metadata"]["namespace"], alias);
        assert_eq!(admin.get(&path).await.1["items"][0]["metadata"]["namespace"], alias);
    }
    let everywhere = admin.get(&format!("{GROUP}/disks")).await.1;
    assert_eq!((names(&everywhere), &everywhere["items"][0]["metadata"]["namespace"]), (vec!["a"], &json!("web")));
    let mut events = admin.watch(&format!("{GROUP}/disks?watch=true&resourceVersion=0")).await;
    assert_eq!(events.next().await.unwrap()["object"]["metadata"]["namespace"], "web");
    for wrong in ["other", "web-x7"] {
        let (code, refused) = admin.get(&format!("{GROUP}/namespaces/{wrong}/disks")).await;
        assert_eq!(code, 404, "{refused}");
        assert!(
            refused["message"].as_str().unwrap().contains("answers to \"web\", \"acme\", \"default\""),
            "{refused}"
        );
    }
    // Another alias in the body than in the path is another namespace.
    wanted["metadata"] = json!({"name": "b", "namespace": "web"});
    assert_eq!(admin.post(&format!("{GROUP}/namespaces/acme/disks"), &wanted).await.0, 400);
    let (code, refused) = admin.get("/clusters/root:acme:web/api/v1/namespaces").await;
    assert_eq!(code, 403, "{refused}");
}

#[tokio::test]
async fn refusals_name_the_namespace_as_the_view_does() {
    let (_server, admin) = start().await;
    let gates = format!("{GROUP}/namespaces/acme/gates");
    admin.create(&gates, &of("Gate", "one", Some("acme"), json!({"port": 1}))).await;
    admin
        .create(&format!("{PLAIN}/namespaces/other/gates"), &of("Gate", "secret", Some("other"), json!({"port": 2})))
        .await;
    for (port, why) in [
        (1, "port 1 is in use by Gate \"one\" in namespace \"acme\""),
        (2, "port 2 is in use by a Gate in another namespace"),
    ] {
        let (code, refused) = admin.post(&gates, &of("Gate", "two", Some("acme"), json!({"port": port}))).await;
        let message = refused["message"].as_str().unwrap();
        assert_eq!(code, 422, "{refused}");
        assert!(message.contains(why) && !message.contains("secret"), "expected {why:?}: {message}");
    }
    // Outside views nothing is hidden.
    let (_, refused) = admin
        .post(&format!("{PLAIN}/namespaces/other/gates"), &of("Gate", "two", Some("other"), json!({"port": 1})))
        .await;
    assert!(refused["message"].as_str().unwrap().contains("Gate \"one\" in namespace \"web-x7\""), "{refused}");

    let mut held = of("Gate", "held", Some("acme"), json!({"port": 3}));
    held["metadata"]["finalizers"] = json!(["test.example/hold"]);
    admin.create(&gates, &held).await;
    admin.delete("/api/v1/namespaces/web-x7").await;
    let (code, refused) = admin.post(&gates, &of("Gate", "late", Some("acme"), json!({"port": 4}))).await;
    assert_eq!(code, 403, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("new content in namespace acme because"), "{refused}");
    assert!(!refused.to_string().contains("web-x7"), "{refused}");
    admin.merge(&format!("{gates}/held"), &json!({"metadata": {"finalizers": null}})).await;
    eventually_deleted(&admin, "/api/v1/namespaces/web-x7").await;
    let (code, refused) = admin.post(&gates, &of("Gate", "late", Some("acme"), json!({"port": 4}))).await;
    assert_eq!((code.as_u16(), &refused["message"]), (404, &json!("namespaces \"acme\" not found")));
}

#[tokio::test]
async fn objects_outside_a_filtered_kind_do_not_exist() {
    let (_server, admin) = start().await;
    let teams = "/clusters/root:acme/apis/test.example/v1/teams";
    let mut events = admin.watch(&format!("{teams}?watch=true&resourceVersion=0")).await;
    for (name, owner) in [("theirs", "umbrella"), ("web", "acme"), ("shop", "acme")] {
        admin.create(&format!("{PLAIN}/teams"), &of("Team", name, None, json!({"owner": owner}))).await;
    }
    let mut seen = [events.brief().await, events.brief().await];
    seen.sort();
    assert_eq!(seen, ["ADDED shop", "ADDED web"], "a watch has none of the others");
    assert_eq!(names(&admin.get(teams).await.1), ["shop", "web"]);
    assert_eq!(names(&admin.get(&format!("{teams}?fieldSelector=metadata.name%3Dshop")).await.1), ["shop"]);
    assert_eq!(names(&admin.get(&format!("{GROUP}/teams")).await.1), ["web"], "a group has itself");

    let theirs = format!("{teams}/theirs");
    assert_eq!(admin.get(&format!("{teams}/web")).await.0, 200);
    assert_eq!(admin.get(&theirs).await.0, 404);
    assert_eq!(admin.merge(&theirs, &json!({"spec": {"note": "x"}})).await.0, 404);
    assert_eq!(admin.delete(&theirs).await.0, 404);
    assert_eq!(admin.delete(teams).await.0, 200);
    eventually_deleted(&admin, &format!("{PLAIN}/teams/shop")).await;
    assert_eq!(admin.get(&format!("{PLAIN}/teams/theirs")).await.0, 200);

    admin.create(teams, &of("Team", "new", None, json!({"owner": "acme"}))).await;
    let (code, refused) = admin.post(teams, &of("Team", "newer", None, json!({"owner": "umbrella"}))).await;
    assert_eq!(code, 403, "{refused}");
    let why = "spec.owner: expected \"acme\" at this endpoint, found \"umbrella\"";
    assert!(refused["message"].as_str().unwrap().contains(why), "{refused}");
    // Names are the whole server's; whose one is stays unsaid.
    let taken = of("Team", "theirs", None, json!({"owner": "acme"}));
    for (code, refused) in
        [admin.post(teams, &taken).await, admin.apply(&format!("{theirs}?fieldManager=suite"), &taken).await]
    {
        assert_eq!(code, 409, "{refused}");
        assert!(refused["message"].as_str().unwrap().contains("the name is taken"), "{refused}");
    }
    let moved = admin.merge(&format!("{teams}/new"), &json!({"spec": {"owner": "umbrella"}})).await;
    assert_eq!(moved.0, 403, "{}", moved.1);
}

/// The plurals of a group version, in both forms of discovery.
async fn discovered(client: &Client, view: &str) -> BTreeSet<String> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let mut found = BTreeSet::new();
    for root in ["api", "apis"] {
        let (_, document) = client.get_as(&format!("{view}/{root}"), accept).await;
        for group in document["items"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                let plurals = version["resources"].as_array().unwrap().iter();
                found.extend(plurals.map(|it| it["resource"].as_str().unwrap().to_owned()));
            }
        }
    }
    let (_, plain) = client.get(&format!("{view}{PLAIN}")).await;
    let plain: BTreeSet<&str> =
        plain["resources"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    for ours in ["disks", "teams", "hosts"] {
        assert_eq!(plain.contains(ours), found.contains(ours), "{view}: {ours} in the two forms of discovery");
    }
    found
}

#[tokio::test]
async fn discovery_and_schemas_have_what_the_view_serves() {
    let (server, admin) = start().await;
    let (plain, group, organisation) = (
        discovered(&admin, "").await,
        discovered(&admin, "/clusters/root:acme:web").await,
        discovered(&admin, "/clusters/root:acme").await,
    );
    let has =
        |found: &BTreeSet<String>, plurals: &[&str]| plurals.iter().map(|it| found.contains(*it)).collect::<Vec<_>>();
    let requested = ["disks", "configmaps", "teams", "hosts", "namespaces"];
    assert_eq!(has(&plain, &requested), [true, true, true, true, true]);
    assert_eq!(has(&group, &requested), [true, true, true, false, false]);
    assert_eq!(has(&organisation, &requested), [false, false, true, false, false]);
    for (view, has_disks) in [("/clusters/root:acme:web", true), ("/clusters/root:acme", false)] {
        let schemas = admin.get(&format!("{view}/openapi/v3{PLAIN}")).await.1["components"]["schemas"].to_string();
        assert!(schemas.contains("v1.Team") && !schemas.contains("v1.Host"), "{view}");
        assert_eq!(schemas.contains("v1.Disk"), has_disks, "{view}");
        assert_eq!(admin.get(&format!("{view}{PLAIN}/hosts")).await.0, 404, "{view}");
    }
    let (code, refused) = admin.get("/clusters/root:acme/apis/test.example/v1/disks").await;
    assert_eq!(code, 404);
    assert!(refused["message"].as_str().unwrap().contains("name a resource group too"), "{refused}");
    // Strangers find the same everywhere, and learn nothing about existing objects.
    let stranger = server.client("eve", &[]);
    let of_nothing = discovered(&stranger, "/clusters/root:none").await;
    for view in ["/clusters/root:acme:web", "/clusters/root:acme"] {
        assert_eq!(discovered(&stranger, view).await, of_nothing, "{view}");
        let (code, refused) = stranger.get(&format!("{view}{PLAIN}/namespaces/acme/disks")).await;
        assert_eq!(code, 403, "{refused}");
    }
    assert_eq!(stranger.get(&format!("/clusters/root:none{PLAIN}/namespaces/acme/disks")).await.0, 403);
}
