//! Certificates that are renewed, and an authority that is replaced, while the cloud runs.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use crate::client::{Knocker, ask_api, begin, certificate_of, request, status};
use crate::fixture::{Instance, eventually, pause_for, signal};

/// The path of the hosts, which the node writes with its own certificate.
const HOSTS: &str = "/apis/infra.evroclabs.net/v1alpha1/hosts";
/// How many certificates each server and client is seen to use: the cloud outlives the first ones by far.
const CERTIFICATES: usize = 4;

#[test]
fn certificates_of_seconds_are_renewed_and_nothing_ends() {
    let instance = Instance::new();
    instance.start(&["--leaf-life-seconds", "12"]);
    let roles = instance.all_ready_but(&[]);
    let (api, https) = instance.ports();
    // Opened with the first certificates; it ends with none of them.
    let mut watch = begin(&instance, &format!("{HOSTS}?watch=true")).unwrap();
    assert_eq!(status(&mut watch).unwrap(), 200);
    let mut events = BufReader::new(watch).lines();

    let file = |path: &str| std::fs::read(instance.state().join(path)).unwrap();
    let (mut of_api, mut of_gateway, mut of_node, mut of_edge) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    eventually("every certificate was replaced several times", || {
        assert_eq!(ask_api(&instance, HOSTS).unwrap(), 200, "requests are answered all the time");
        of_api.insert(certificate_of(&instance, "localhost", api).expect("the API's certificate is good"));
        let name = "any.evroc.localhost";
        of_gateway.insert(certificate_of(&instance, name, https).expect("the gateway's certificate is good"));
        of_node.insert(file("node/node.crt"));
        of_edge.insert(file("edge/edge.crt"));
        [&of_api, &of_gateway, &of_node, &of_edge].iter().all(|seen| seen.len() >= CERTIFICATES).then_some(())
    });

    let log = |role: &str| std::fs::read_to_string(instance.state().join(format!("log/{role}.log"))).unwrap();
    for role in ["node", "edge"] {
        let text = log(role);
        assert!(text.matches("tunnel to control is open").count() >= CERTIFICATES - 1, "{role}");
        // The first try may come before the host's object exists.
        assert!(text.matches("no tunnel to control").count() <= 1, "{role}");
    }

    // What the node writes now, it writes with a certificate that did not exist at the start: its object, which an operator removed.
    let mut next = |kind: &str| {
        let wanted = format!("{{\"type\":\"{kind}\"");
        events.find_map(|line| line.expect("the watch goes on").split_once(&wanted).map(|(_, rest)| rest.to_owned()))
    };
    let host = next("ADDED").expect("the host");
    let host = host.split("\"name\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("its name").to_owned();
    let deleted = request(&instance.kubeconfig(), api, "DELETE", &format!("{HOSTS}/{host}"));
    assert_eq!(status(&mut deleted.unwrap()).unwrap(), 200);
    assert!(next("DELETED").is_some() && next("ADDED").is_some(), "the node writes its object anew");

    assert_eq!(instance.all_ready_but(&[]), roles, "no role was started again");
}

/// The status of a request with a kubeconfig that was copied at some time; None where the server's certificate is not trusted by it.
fn ask_with(instance: &Instance, kubeconfig: &str) -> Option<u16> {
    request(kubeconfig, instance.ports().0, "GET", HOSTS).ok().map(|mut answer| status(&mut answer).unwrap_or(0))
}

/// `evrocd pki status`.
fn pki(instance: &Instance) -> serde_json::Value {
    serde_json::from_str(&instance.must(&["pki", "status", "-o", "json"])).unwrap()
}

fn states(instance: &Instance) -> Vec<String> {
    let status = pki(instance);
    let states = |list: &str| {
        let all = status[list].as_array().unwrap().clone();
        all.into_iter().map(move |one| one["state"].as_str().unwrap().to_owned())
    };
    states("authorities").chain(states("tokenKeys")).collect()
}

#[test]
fn the_authority_is_replaced_while_everything_goes_on() {
    let instance = Instance::up();
    let roles = instance.all_ready_but(&[]);
    let (api, https) = instance.ports();
    let before = instance.kubeconfig();
    let status_before = pki(&instance);
    let mut watch = begin(&instance, &format!("{HOSTS}?watch=true")).unwrap();
    assert_eq!(status(&mut watch).unwrap(), 200);
    let mut events = BufReader::new(watch).lines();
    let knocker = Knocker::start(&instance);

    // Both are trusted, the old one signs: an old copy of the kubeconfig is as good as the new one.
    let text = instance.must(&["pki", "rotate", "--prepare"]);
    assert!(text.contains("the old one still signs"), "{text}");
    assert_eq!(states(&instance), ["signs", "next", "signs"]);
    let prepared = instance.kubeconfig();
    assert_ne!(prepared, before);
    for copy in [&before, &prepared] {
        assert_eq!(ask_with(&instance, copy), Some(200));
    }
    assert_eq!(pki(&instance)["certificates"], status_before["certificates"]);

    let text = instance.must(&["pki", "rotate"]);
    assert!(text.contains("every certificate of the cloud is the new authority's"), "{text}");
    assert_eq!(states(&instance), ["signs", "retired", "signs", "retired"]);
    let new = pki(&instance)["authorities"][0]["name"].as_str().unwrap().to_owned();
    for certificate in pki(&instance)["certificates"].as_array().unwrap() {
        assert!(certificate["issuer"].as_str().unwrap().contains(&new), "{certificate}");
    }
    // The new kubeconfig, and the copy that was made in between; its certificate is the old authority's.
    assert_eq!(ask_api(&instance, HOSTS).unwrap(), 200);
    assert_eq!(ask_with(&instance, &prepared), Some(200));
    for (name, port) in [("localhost", api), ("any.evroc.localhost", https)] {
        certificate_of(&instance, name, port).expect("a certificate of a trusted authority");
    }
    let host = events.find_map(|line| {
        let line = line.expect("the watch goes on");
        line.split("\"name\":\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
    });
    let deleted = request(&instance.kubeconfig(), api, "DELETE", &format!("{HOSTS}/{}", host.unwrap()));
    assert_eq!(status(&mut deleted.unwrap()).unwrap(), 200);
    let is = |line: std::io::Result<String>, kind: &str| line.unwrap().starts_with(&format!("{{\"type\":\"{kind}\""));
    assert!(events.any(|line| is(line, "DELETED")) && events.any(|line| is(line, "ADDED")), "the node writes");
    assert_eq!(instance.all_ready_but(&[]), roles, "no role was started again");

    // Without an overlap, what the former authorities signed is refused at the end, also on connections that are open.
    instance.must(&["pki", "rotate", "--overlap-days", "0"]);
    let after = instance.all_ready_but(&[roles["control"]]);
    assert_eq!((after["node"], after["edge"]), (roles["node"], roles["edge"]));
    assert_eq!(states(&instance)[..2], ["signs", "retired"], "the first one has its month");
    assert_eq!(ask_api(&instance, HOSTS).unwrap(), 200);
    knocker.never_refused();
}

/// The supervisor is killed at ever later moments of a rotation; the next start finishes it.
#[test]
fn a_rotation_killed_at_any_moment_is_finished() {
    let instance = Instance::up();
    let mut name = String::new();
    for step in 0..8u64 {
        let mut rotating = instance.spawn(&["pki", "rotate"]);
        pause_for(Duration::from_millis(step * 25));
        let supervisor = instance.supervisors();
        supervisor.iter().for_each(|pid| signal(*pid, "KILL"));
        rotating.wait().unwrap();
        instance.start(&[]);
        let status = pki(&instance);
        assert_eq!(status.get("rotation"), None, "killed after {} ms", step * 25);
        let signing = status["authorities"][0]["name"].as_str().unwrap().to_owned();
        for certificate in status["certificates"].as_array().unwrap() {
            assert!(certificate["issuer"].as_str().unwrap().contains(&signing), "{certificate}");
        }
        assert_eq!(ask_api(&instance, HOSTS).unwrap(), 200, "killed after {} ms", step * 25);
        name = signing;
    }
    // And without a supervisor.
    instance.must(&["down"]);
    instance.must(&["pki", "rotate"]);
    instance.start(&[]);
    assert_ne!(pki(&instance)["authorities"][0]["name"].as_str(), Some(name.as_str()));
    assert_eq!(ask_api(&instance, HOSTS).unwrap(), 200);
}
