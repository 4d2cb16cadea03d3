//! Certificates that are renewed while the cloud runs.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use crate::client::{ask_api, begin, certificate_of, request, status};
use crate::fixture::{Instance, eventually};

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

    // What the node writes now, it writes with a certificate that did not exist at the start: its object, which somebody removed.
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
    let log = |role: &str| std::fs::read_to_string(instance.state().join(format!("log/{role}.log"))).unwrap();
    for role in ["node", "edge"] {
        let text = log(role);
        assert!(text.matches("tunnel to control is open").count() >= CERTIFICATES - 1, "{role}");
        // The first try may come before the host's object exists.
        assert!(text.matches("no tunnel to control").count() <= 1, "{role}");
    }
}
