//! Streams through the API: logs of services on several hosts, the log of a guest's previous run, limits, ends.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use evroc_apiserver::Identity;
use evroc_apiserver::body::ResponseBody;
use evroc_control::streams::Streams;
use evroc_tunnel::{BoxBytes, BoxDuplex, HostLog, LogOptions, MachineAction, Refusal, TunnelHandler, serve_connection};
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::support::{Server, kind};

/// A host that has written these lines of a service, and keeps one log of a previous run.
#[derive(Default)]
struct FakeHost {
    written: String,
    next: Option<String>,
    previous: Option<&'static str>,
    acts: Arc<Mutex<Vec<String>>>,
}

fn refused() -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "this host has none")
}

#[async_trait]
impl TunnelHandler for FakeHost {
    async fn dial_machine(&self, _uid: &str, _port: u16) -> Result<BoxDuplex, Refusal> {
        Err(refused())
    }

    async fn console(&self, _uid: &str) -> Result<BoxDuplex, Refusal> {
        Err(refused())
    }

    async fn act(&self, uid: &str, action: MachineAction) -> Result<(), Refusal> {
        self.acts.lock().unwrap().push(format!("{} {uid}", action.name()));
        Ok(())
    }

    async fn service_log(&self, _namespace: &str, _service: &str, options: LogOptions) -> Result<HostLog, Refusal> {
        assert!(options.timestamps, "lines of hosts are put in order by their times");
        let next = self.next.clone().map(|line| Ok(Bytes::from(line)));
        let follow = futures::stream::iter(next).chain(futures::stream::pending());
        let written = Bytes::from(self.written.clone());
        Ok(HostLog { written, follow: options.follow.then(|| Box::pin(follow) as BoxBytes) })
    }

    async fn serial_log(&self, _uid: &str, _tail_bytes: u64) -> Result<BoxBytes, Refusal> {
        Err(refused())
    }

    async fn previous_serial_log(&self, _uid: &str, _tail_bytes: u64) -> Result<BoxBytes, Refusal> {
        let log = self.previous.ok_or_else(refused)?;
        Ok(Box::pin(futures::stream::iter([Ok(Bytes::from(log))])))
    }

    async fn metrics(&self) -> Result<Bytes, Refusal> {
        Err(refused())
    }
}

fn line(second: u8, text: &str) -> String {
    format!("2026-01-01T00:00:{second:02}.000000000Z {text}\n")
}

/// A server with hosts, of which those with a [`FakeHost`] are connected, a service `web` and a virtual machine `vm`.
struct Cloud {
    server: Server,
    _hosts: tokio::task::JoinSet<()>,
}

impl Cloud {
    async fn start(hosts: Vec<(&str, Option<FakeHost>)>) -> Self {
        let streams = Streams::new(CancellationToken::new());
        let server = Server::start_with(|builder| streams.register(builder)).await;
        streams.begin(server.client());
        let mut tasks = tokio::task::JoinSet::new();
        let (path, mut object) = kind("hosts");
        for (name, host) in hosts {
            object["metadata"]["name"] = json!(name);
            assert_eq!(server.post(&path, &object).await.0, 201);
            let Some(host) = host else { continue };
            let (theirs, ours) = tokio::io::duplex(1 << 16);
            let (tunnels, name) = (streams.tunnels().clone(), name.to_owned());
            tasks.spawn(async move { drop(serve_connection(TokioIo::new(theirs), Arc::new(host)).await) });
            let (registry, host) = (tunnels.clone(), name.clone());
            tasks.spawn(async move { drop(registry.serve(&host, TokioIo::new(ours)).await) });
            while !tunnels.is_connected(&name) {
                tokio::task::yield_now().await;
            }
        }
        for (plural, name, spec) in [
            ("services", "web", crate::names::spec_of("services")),
            ("virtualmachines", "vm", crate::names::spec_of("virtualmachines")),
        ] {
            let (path, mut object) = kind(plural);
            (object["metadata"], object["spec"]) = (json!({"name": name}), spec);
            let (code, answer) = server.post(&path, &object).await;
            assert_eq!(code, 201, "{answer}");
        }
        Self { server, _hosts: tasks }
    }

    async fn get(&self, caller: Identity, plural: &str, rest: &str) -> Response<ResponseBody> {
        let request =
            Request::get(format!("{}/{rest}", kind(plural).0)).body(Full::new(Bytes::new())).expect("a request");
        self.server.service_as(caller).oneshot(request).await.expect("an answer")
    }

    async fn text(&self, plural: &str, rest: &str) -> (StatusCode, String) {
        let answer = self.get(operator(), plural, rest).await;
        let code = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn operator() -> Identity {
    Identity::new("admin", ["operators"])
}

#[tokio::test]
async fn logs_of_hosts_are_merged_and_a_dead_host_delays_nobody() {
    let one = FakeHost { written: line(1, "a") + &line(4, "d"), ..FakeHost::default() };
    let two = FakeHost { written: line(2, "b") + &line(3, "c"), next: Some(line(5, "e")), ..FakeHost::default() };
    let cloud = Cloud::start(vec![("h1", Some(one)), ("h2", Some(two)), ("dead", None)]).await;
    let begun = Instant::now();
    assert_eq!(cloud.text("services", "web/log").await, (StatusCode::OK, "a\nb\nc\nd\n".into()));
    assert_eq!(cloud.text("services", "web/log?tailLines=3").await.1, "b\nc\nd\n", "of all hosts together");
    assert!(begun.elapsed() < Duration::from_secs(4), "the tunnel of a dead host is not waited for");
    let timed = cloud.text("services", "web/log?tailLines=1&timestamps=true").await.1;
    assert_eq!(timed, line(4, "d"));

    let answer = cloud.get(operator(), "services", "web/log?follow=true&tailLines=1").await;
    let warning = answer.headers()["warning"].to_str().expect("text").to_owned();
    assert!(warning.starts_with("299 - \"") && warning.ends_with("missing: dead\""), "{warning}");
    let (mut body, mut text) = (answer.into_body(), Vec::new());
    while text != b"d\ne\n" {
        text.extend(body.frame().await.expect("a frame").expect("no error").into_data().expect("data"));
        assert!(text.len() <= 4, "{:?}", String::from_utf8_lossy(&text));
    }
}

#[tokio::test]
async fn the_log_of_a_previous_run_is_found_without_a_machine() {
    let keeper = FakeHost { previous: Some("panic"), ..FakeHost::default() };
    let cloud = Cloud::start(vec![("h1", Some(FakeHost::default())), ("h2", Some(keeper))]).await;
    assert_eq!(cloud.text("virtualmachines", "vm/log?previous=true").await, (StatusCode::OK, "panic".into()));
    let (code, answer) = cloud.text("virtualmachines", "vm/log").await;
    assert_eq!(code, StatusCode::CONFLICT, "it has no run now: {answer}");
}

#[tokio::test]
async fn streams_of_a_caller_are_limited_until_one_ends() {
    let cloud = Cloud::start(vec![("h1", Some(FakeHost::default()))]).await;
    let follow = async || cloud.get(operator(), "services", "web/log?follow=true").await;
    let mut open = Vec::new();
    let refused = loop {
        let answer = follow().await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        open.push(answer);
    };
    assert_eq!((open.len(), refused.status()), (64, StatusCode::TOO_MANY_REQUESTS));
    let other = cloud.get(Identity::new("other", ["operators"]), "services", "web/log?follow=true").await;
    assert_eq!(other.status(), StatusCode::OK, "another caller has places of its own");
    open.pop();
    while follow().await.status() != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_followed_log_ends_with_the_credential() {
    let cloud = Cloud::start(vec![("h1", Some(FakeHost { written: line(1, "a"), ..FakeHost::default() }))]).await;
    let begun = Instant::now();
    let mut caller = operator();
    caller.expires = Some(Timestamp::now() + SignedDuration::from_secs(1));
    let answer = cloud.get(caller, "services", "web/log?follow=true").await;
    let (mut body, mut text) = (answer.into_body(), Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        text.extend(frame.into_data().unwrap_or_default());
    }
    assert_eq!(text, b"a\n", "it began, and ended although the host goes on");
    assert!(begun.elapsed() < Duration::from_secs(10), "with the credential, not later");
}

#[tokio::test]
async fn actions_change_objects_or_reach_the_host_of_the_machine() {
    let host = FakeHost::default();
    let acts = host.acts.clone();
    let cloud = Cloud::start(vec![("h1", Some(host))]).await;
    let post = async |rest: &str| {
        let (code, answer) = cloud.server.post(&format!("{}/vm/{rest}", kind("virtualmachines").0), &json!({})).await;
        (code, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    let (code, message) = post("pause").await;
    assert!(code == StatusCode::CONFLICT && message.contains("does not run yet"), "{code} {message}");

    let capacity = json!({"cpus": 4, "memoryBytes": 1 << 30, "diskBytes": 1 << 30});
    let status = json!({"status": {"allocatable": capacity}});
    assert_eq!(cloud.server.merge(&format!("{}/h1/status", kind("hosts").0), &status).await.0, 200);
    let (_, vm) = cloud.server.merge(&format!("{}/vm", kind("virtualmachines").0), &json!({})).await;
    let (path, mut machine) = kind("machines");
    machine["metadata"]["name"] = json!("vm-1");
    machine["spec"] = crate::immutable::sample("machines").expect("a sample").spec;
    machine["spec"]["hostName"] = json!("h1");
    machine["spec"]["virtualMachineUid"] = vm["metadata"]["uid"].clone();
    let (code, machine) = cloud.server.post(&path, &machine).await;
    assert_eq!(code, 201, "{machine}");
    let running = json!({"status": {"phase": "Running"}});
    assert_eq!(cloud.server.merge(&format!("{path}/vm-1/status"), &running).await.0, 200);
    let uid = machine["metadata"]["uid"].as_str().expect("a uid");

    for action in ["pause", "resume", "reset"] {
        assert_eq!(post(action).await.0, StatusCode::OK, "{action}");
        assert_eq!(acts.lock().unwrap().pop(), Some(format!("{action} {uid}")));
    }
    let (code, message) = post("stop?gracePeriodSeconds=5").await;
    assert!(code == StatusCode::BAD_REQUEST && message.contains("expected 0"), "{code} {message}");
    assert_eq!(post("stop").await.0, StatusCode::OK);
    assert_eq!(acts.lock().unwrap().pop(), None, "the guest is asked by its host, when the machine is deleted");
    let (_, vm) = cloud.server.merge(&format!("{}/vm", kind("virtualmachines").0), &json!({})).await;
    assert_eq!(vm["spec"]["running"], false);
    assert_eq!(post("stop?gracePeriodSeconds=0").await.0, StatusCode::OK);
    assert_eq!(acts.lock().unwrap().pop(), Some(format!("force-stop {uid}")));
    let (code, message) = post("restart").await;
    assert!(code == StatusCode::CONFLICT && message.contains("switched off"), "{code} {message}");

    let on = json!({"spec": {"running": true}});
    assert_eq!(cloud.server.merge(&format!("{}/vm", kind("virtualmachines").0), &on).await.0, 200);
    assert_eq!(post("restart?gracePeriodSeconds=0").await.0, StatusCode::OK);
    assert_eq!(acts.lock().unwrap().pop(), Some(format!("force-stop {uid}")));
    let (code, _) = cloud.server.merge(&format!("{path}/vm-1"), &json!({})).await;
    assert_eq!(code, 404, "this run is over; the next is made by its controller");
    let got = cloud.get(operator(), "virtualmachines", "vm/pause").await;
    assert_eq!(got.status(), StatusCode::METHOD_NOT_ALLOWED, "reading changes nothing");
}
