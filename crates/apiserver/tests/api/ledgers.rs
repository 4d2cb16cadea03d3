//! Ledgers: the objects together never exceed the given total.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use evroc_apiserver::{Limit, ResourceKind, Room, Take};
use serde_json::{Value, json};

use crate::support::{Client, TestServer, eventually, eventually_deleted, names};

/// `HOSTS` give memory and disk, `LOADS` take of them.
const LOADS: &str = "/apis/test.example/v1/namespaces/demo/loads";
const HOSTS: &str = "/apis/test.example/v1/hosts";

fn schema() -> Value {
    let amounts = json!({"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}});
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"host": {"type": "string"}, "amounts": amounts, "note": {"type": "string"}}},
        "status": {"type": "object", "properties": {"amounts": amounts}}}})
}

fn amounts(of: &Value) -> Vec<(String, u64)> {
    let amounts = of["amounts"].as_object().into_iter().flatten();
    amounts.map(|(resource, amount)| (resource.clone(), amount.as_u64().unwrap())).collect()
}

fn loads() -> ResourceKind {
    let mut kind = ResourceKind::new("test.example", "v1", "Load", "loads", schema());
    kind.subresources.status = true;
    kind.takes = Some(Arc::new(|stored| {
        let object: Value = serde_json::from_slice(stored)?;
        let ledger = format!("host/{}", object["spec"]["host"].as_str().unwrap_or_default());
        let take = |(resource, amount): (String, u64)| Take {
            ledger: if resource.starts_with("requests.") { "group/demo".into() } else { ledger.clone() },
            field: format!("spec.amounts.{resource}"),
            limit: (resource == "places")
                .then(|| Limit { amount: 2, message: "expected at most 2, choose another".into() }),
            resource,
            amount,
        };
        Ok(amounts(&object["spec"]).into_iter().map(take).collect())
    }));
    kind
}

fn hosts() -> ResourceKind {
    let mut kind = ResourceKind::new("test.example", "v1", "Host", "hosts", schema());
    kind.scope = evroc_apiserver::Scope::Cluster;
    kind.subresources.status = true;
    kind.gives = Some(Arc::new(|stored| {
        let object: Value = serde_json::from_slice(stored)?;
        let ledger = format!("host/{}", object["metadata"]["name"].as_str().unwrap_or_default());
        let room = |(resource, amount)| Room { ledger: ledger.clone(), resource, amount };
        Ok(amounts(&object["status"]).into_iter().map(room).collect())
    }));
    kind
}

fn load(name: &str, host: &str, amounts: &Value) -> Value {
    json!({"apiVersion": "test.example/v1", "kind": "Load", "metadata": {"name": name, "namespace": "demo"},
        "spec": {"host": host, "amounts": amounts}})
}

async fn report(admin: &Client, host: &str, amounts: &Value) {
    let (code, answer) = admin.merge(&format!("{HOSTS}/{host}/status"), &json!({"status": {"amounts": amounts}})).await;
    assert_eq!(code, 200, "{answer}");
}

async fn add_host(admin: &Client, host: &str, amounts: &Value) {
    let object = json!({"apiVersion": "test.example/v1", "kind": "Host", "metadata": {"name": host}});
    admin.create(HOSTS, &object).await;
    report(admin, host, amounts).await;
}

async fn server() -> (TestServer, Client) {
    let server = TestServer::start_with(|it| it.kind(loads()).kind(hosts())).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    (server, admin)
}

#[tokio::test]
async fn absent_quantities_cannot_be_taken() {
    let (_server, admin) = server().await;
    let (code, refused) = admin.post(LOADS, &load("a", "x", &json!({"memory": 1}))).await;
    assert_eq!(code, 409, "an unknown host has no room: {refused}");
    add_host(&admin, "x", &json!({"memory": 10, "disk": 5})).await;
    admin.create(LOADS, &load("a", "x", &json!({"memory": 6}))).await;
    for query in ["?dryRun=All", ""] {
        let (code, refused) = admin.post(&format!("{LOADS}{query}"), &load("b", "x", &json!({"memory": 5}))).await;
        assert_eq!((code.as_u16(), &refused["reason"]), (409, &json!("Conflict")), "{refused}");
        let cause = json!({"reason": "InsufficientCapacity", "field": "spec.amounts.memory",
            "message": "host/x has 4 of 10 memory left, 5 wanted"});
        assert_eq!(refused["details"]["causes"], json!([cause]), "{refused}");
    }
    // Each resource for itself, each host for itself.
    let (code, refused) = admin.post(LOADS, &load("b", "x", &json!({"memory": 4, "disk": 6}))).await;
    assert_eq!((code.as_u16(), &refused["details"]["causes"][0]["field"]), (409, &json!("spec.amounts.disk")));
    admin.create(LOADS, &load("b", "x", &json!({"memory": 4, "disk": 5}))).await;
    add_host(&admin, "y", &json!({"memory": 3})).await;
    admin.create(LOADS, &load("c", "y", &json!({"memory": 3}))).await;
    // A deleted object makes room.
    admin.delete(&format!("{LOADS}/a")).await;
    admin.create(LOADS, &load("d", "x", &json!({"memory": 6}))).await;
}

#[tokio::test]
async fn a_change_takes_only_what_is_new_and_is_never_refused_for_what_it_had() {
    let (_server, admin) = server().await;
    add_host(&admin, "x", &json!({"memory": 10})).await;
    add_host(&admin, "y", &json!({"memory": 2})).await;
    admin.create(LOADS, &load("a", "x", &json!({"memory": 6}))).await;
    admin.create(LOADS, &load("b", "x", &json!({"memory": 3}))).await;
    let change = async |patch: Value| admin.merge(&format!("{LOADS}/a"), &patch).await.0.as_u16();
    assert_eq!(change(json!({"spec": {"amounts": {"memory": 8}}})).await, 409);
    assert_eq!(change(json!({"spec": {"amounts": {"memory": 7}}})).await, 200);
    assert_eq!(change(json!({"spec": {"host": "y"}})).await, 409);
    // The host reports less than was promised: existing objects stay, can be written and can be made smaller.
    report(&admin, "x", &json!({"memory": 5})).await;
    assert_eq!(change(json!({"spec": {"note": "n"}})).await, 200);
    assert_eq!(change(json!({"metadata": {"labels": {"a": "b"}}})).await, 200);
    assert_eq!(change(json!({"spec": {"amounts": {"memory": 6}}})).await, 200);
    assert_eq!(change(json!({"spec": {"amounts": {"memory": 7}}})).await, 409);
    assert_eq!(admin.post(LOADS, &load("c", "x", &json!({"memory": 1}))).await.0, 409);
    // A deleted host has no room.
    admin.delete(&format!("{HOSTS}/y")).await;
    eventually_deleted(&admin, &format!("{HOSTS}/y")).await;
    assert_eq!(admin.post(LOADS, &load("c", "y", &json!({"memory": 1}))).await.0, 409);
}

#[tokio::test]
async fn a_fixed_room_needs_no_giver_and_its_excess_is_the_users_mistake() {
    let (_server, admin) = server().await;
    let place = |name: &str, host: &str| load(name, host, &json!({"places": 1}));
    for round in 0..3 {
        let names: Vec<String> = (0..8).map(|n| format!("l-{round}-{n}")).collect();
        let attempts = names.iter().map(|name| {
            let (admin, wanted) = (admin.clone(), place(name, "nobody"));
            async move { admin.post(LOADS, &wanted).await }
        });
        let done = futures::future::join_all(attempts).await;
        let (made, refused): (Vec<_>, Vec<_>) = done.into_iter().partition(|(code, _)| code.as_u16() == 201);
        assert_eq!((made.len(), refused.len()), (2, 6), "round {round}: {refused:?}");
        for (code, answer) in refused {
            assert_eq!(code, 422, "{answer}");
            assert_eq!(answer["details"]["causes"][0]["field"], "spec.amounts.places", "{answer}");
            assert!(answer["message"].as_str().unwrap().contains("expected at most 2, choose another"), "{answer}");
        }
        // One of them moves away, another takes its place; what moves counts where it is.
        let stays = made.iter().map(|(_, object)| object["metadata"]["name"].as_str().unwrap().to_owned());
        let stays: Vec<String> = stays.collect();
        let moved = admin.merge(&format!("{LOADS}/{}", stays[0]), &json!({"spec": {"host": "elsewhere"}})).await;
        assert_eq!(moved.0, 200, "{}", moved.1);
        admin.create(LOADS, &place("late", "nobody")).await;
        let back = admin.merge(&format!("{LOADS}/{}", stays[0]), &json!({"spec": {"host": "nobody"}})).await;
        assert_eq!(back.0, 422, "{}", back.1);
        let (_, list) = admin.get(LOADS).await;
        // All of them go at once, so that the last one removes the ledger's key while others still take from it.
        let deletes = names_of(&list).into_iter().map(|name| {
            let admin = admin.clone();
            async move { admin.delete(&format!("{LOADS}/{name}")).await }
        });
        futures::future::join_all(deletes).await;
        for name in names_of(&list) {
            eventually_deleted(&admin, &format!("{LOADS}/{name}")).await;
        }
    }
}

fn names_of(list: &Value) -> Vec<String> {
    names(list).into_iter().map(str::to_owned).collect()
}

/// Sizes that follow from a seed, so that a failure can be repeated.
fn sizes(seed: u64, count: usize) -> Vec<u64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (state >> 33) % 7
    };
    (0..count).map(|_| next()).collect()
}

#[tokio::test]
async fn concurrent_creates_never_take_more_than_the_limit() {
    const ROOM: u64 = 20;
    let (_server, admin) = server().await;
    for host in ["x", "y"] {
        add_host(&admin, host, &json!({"memory": ROOM})).await;
    }
    for seed in 0..4 {
        let attempts = sizes(seed, 48).into_iter().enumerate().map(|(index, size)| {
            let admin = admin.clone();
            let host = ["x", "y"][index % 2];
            async move {
                let wanted = load(&format!("l-{seed}-{index}"), host, &json!({"memory": size}));
                (admin.post(LOADS, &wanted).await.0.as_u16(), host, size)
            }
        });
        let done = futures::future::join_all(attempts).await;
        assert!(done.iter().all(|(code, ..)| matches!(code, 201 | 409)), "{done:?}");
        for host in ["x", "y"] {
            let of_host = |code| done.iter().filter(move |it| it.1 == host && it.0 == code).map(|it| it.2);
            let taken: u64 = of_host(201).sum();
            assert!(taken <= ROOM, "seed {seed}, host {host}: {taken} of {ROOM} taken");
            // No object was refused that would fit in the end.
            let smallest = of_host(409).min().unwrap_or(u64::MAX);
            assert!(smallest > ROOM - taken, "seed {seed}, host {host}: {taken} taken, {smallest} refused");
        }
        let (_, list) = admin.get(LOADS).await;
        for name in names(&list) {
            admin.delete(&format!("{LOADS}/{name}")).await;
            eventually_deleted(&admin, &format!("{LOADS}/{name}")).await;
        }
    }
}

/// Thirty-two clients create objects that take from one host's ledger, until there are this many.
async fn create_many(admin: &Client, amounts: &Value, count: usize) {
    const CLIENTS: usize = 32;
    let clients = (0..CLIENTS).map(|client| async move {
        for number in (client..count).step_by(CLIENTS) {
            let made = load(&format!("l-{number}"), "x", amounts);
            assert_eq!(admin.post(LOADS, &made).await.0, 201);
        }
    });
    futures::future::join_all(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_take_from_one_ledger_do_not_refuse_each_other() {
    const CREATES: usize = 320;
    let (server, counts) = TestServer::observed(|it| it.kind(loads()).kind(hosts())).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    add_host(&admin, "x", &json!({"memory": CREATES, "disk": 2 * CREATES})).await;
    let before = counts.all_transactions.load(Ordering::Relaxed);
    create_many(&admin, &json!({"memory": 1, "disk": 2}), CREATES).await;
    let transactions = counts.all_transactions.load(Ordering::Relaxed) - before;
    // Compare and set with another attempt after each failure would need many times as many. Requests to an etcd may overtake each other,
    // and the one that came too early is repeated.
    let is_etcd = std::env::var("EVROC_TEST_STORE").is_ok_and(|store| store.starts_with("etcd"));
    let bound = if is_etcd { 6 * CREATES } else { CREATES + CREATES / 8 };
    assert!(transactions <= bound, "{CREATES} creates took {transactions} transactions");
    let refused = load("one-more", "x", &json!({"memory": 1}));
    assert_eq!(admin.post(LOADS, &refused).await.0, 409, "all of it is taken");
}

#[tokio::test]
async fn the_next_server_knows_the_taken_claims() {
    let server = TestServer::start_with(|it| it.kind(loads()).kind(hosts())).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    add_host(&admin, "x", &json!({"memory": 10})).await;
    admin.create(LOADS, &load("a", "x", &json!({"memory": 6}))).await;
    let TestServer { api, state } = server;
    api.shut_down();
    drop((api, admin));
    let server = TestServer::start_over(state, |it| it.kind(loads()).kind(hosts())).await;
    let admin = server.admin();
    assert_eq!(admin.post(LOADS, &load("b", "x", &json!({"memory": 5}))).await.0, 409);
    admin.create(LOADS, &load("b", "x", &json!({"memory": 4}))).await;
}

const QUOTAS: &str = "/api/v1/namespaces/demo/resourcequotas";

async fn limit(admin: &Client, name: &str, memory: &str) {
    let hard = json!({"requests.memory": memory});
    let quota =
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}});
    admin.create(QUOTAS, &quota).await;
}

#[tokio::test]
async fn a_namespace_has_the_room_that_its_quotas_allow() {
    let (_server, admin) = server().await;
    let takes = |amount: u64| json!({"requests.memory": amount});
    admin.create(LOADS, &load("a", "x", &takes(4))).await;
    limit(&admin, "wide", "1Ki").await;
    limit(&admin, "narrow", "10").await;
    let (code, refused) = admin.post(LOADS, &load("b", "x", &takes(7))).await;
    let cause = json!({"reason": "InsufficientCapacity", "field": "spec.amounts.requests.memory",
        "message": "group/demo has 6 of 10 requests.memory left, 7 wanted (ResourceQuota \"narrow\")"});
    assert_eq!((code.as_u16(), &refused["details"]["causes"]), (409, &json!([cause])), "{refused}");
    admin.create(LOADS, &load("b", "x", &takes(6))).await;
    let used = |expected: &'static str| move |_, quota: &Value| quota["status"]["used"]["requests.memory"] == expected;
    eventually(&admin, &format!("{QUOTAS}/narrow"), "ten used", used("10")).await;
    // What is there can become smaller, and not greater; a change is shown.
    let change = async |amount: u64| {
        admin.merge(&format!("{LOADS}/b"), &json!({"spec": {"amounts": takes(amount)}})).await.0.as_u16()
    };
    assert_eq!((change(7).await, change(5).await), (409, 200));
    eventually(&admin, &format!("{QUOTAS}/narrow"), "nine used", used("9")).await;
    // Other namespaces have quotas of their own, and without the narrow one there is room.
    admin.delete(&format!("{QUOTAS}/narrow")).await;
    assert_eq!(change(1000).await, 200);
    assert_eq!(change(1021).await, 409);
    admin.delete(&format!("{QUOTAS}/wide")).await;
    assert_eq!(change(5000).await, 200);
    let wrong = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"requests.memory": "much"}}});
    assert_eq!(admin.post(QUOTAS, &wrong).await.0, 422);
}

#[tokio::test]
async fn many_at_once_never_exceed_a_quota() {
    let (_server, admin) = server().await;
    limit(&admin, "few", "10").await;
    let creates = (0..12).map(|n| {
        let admin = admin.clone();
        async move { admin.post(LOADS, &load(&format!("l{n}"), "x", &json!({"requests.memory": 3}))).await.0.as_u16() }
    });
    let codes = futures::future::join_all(creates).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 3, "{codes:?}");
    assert!(codes.iter().all(|code| [201, 409].contains(code)), "{codes:?}");
}
