//! Credentials that are revoked while they are used, in a real cloud: at the API, in a watch, in a tunnel and at the registry.

use std::io::{BufRead, BufReader, Read};
use std::time::SystemTime;

use evroc_iam::Authority;
use evroc_iam::kubeconfig::Kubeconfig;
use evroc_iam::leaf::{self, Leaf, LeafSpec, OPERATOR_LIFE};
use serde_json::{Value, json};

use crate::client::{Connection, send, status};
use crate::fixture::{Instance, eventually};

const INFRA: &str = "/apis/infra.evroclabs.net/v1alpha1";
const IAM: &str = "/apis/iam.evroclabs.net/v1alpha1";

/// A caller with a certificate of their own.
struct Caller {
    kubeconfig: String,
    serial: String,
    port: u16,
}

impl Caller {
    fn new(instance: &Instance, user: &str, group: &str) -> Self {
        let read = |name: &str| std::fs::read_to_string(instance.state().join("pki/authority").join(name)).unwrap();
        let authority = Authority::from_pem(&read("ca.crt"), &read("ca.key")).unwrap();
        let leaf = leaf::issue(&authority, &LeafSpec::client(user, group), OPERATOR_LIFE, SystemTime::now()).unwrap();
        let (port, https_port) = instance.ports();
        let file = Kubeconfig {
            instance: &instance.name,
            user,
            namespace: "demo",
            api_port: port,
            https_port,
            domain: "evroc.localhost",
            authority_pem: authority.certificate_pem(),
        };
        let serial = Leaf::read(leaf.certificate.as_bytes()).unwrap().serial;
        Self { kubeconfig: file.render(&leaf), serial, port }
    }

    fn begin(&self, head: &str, body: &str) -> Connection {
        send(&self.kubeconfig, self.port, head, body).unwrap()
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> (u16, String) {
        let head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Type: {kind}");
        let mut answer = self.begin(&head, &if body.is_null() { String::new() } else { body.to_string() });
        let code = status(&mut answer).unwrap();
        let mut text = Vec::new();
        // The end of a connection without a word of TLS is an end too.
        let _ = answer.read_to_end(&mut text);
        (code, String::from_utf8_lossy(&text).into_owned())
    }

    fn get(&self, path: &str) -> u16 {
        self.ask("GET", path, "application/json", &Value::Null).0
    }

    fn create(&self, path: &str, body: &Value) -> Value {
        let (code, text) = self.ask("POST", path, "application/json", body);
        assert_eq!(code, 201, "{text}");
        let start = text.find("\r\n\r\n").unwrap();
        serde_json::from_str(&text[start..]).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn revoke(&self, name: &str, serial: &str) {
        let api = "iam.evroclabs.net/v1alpha1";
        let spec = json!({"certificateSerial": serial.trim_start_matches('0'), "reason": "lost"});
        let object = json!({"apiVersion": api, "kind": "RevokedCredential", "metadata": {"name": name}, "spec": spec});
        self.create(&format!("{IAM}/revokedcredentials"), &object);
    }
}

/// The code of a login with a password: the server sees no certificate.
fn log_in(instance: &Instance, password: &str) -> u16 {
    let url = format!("https://127.0.0.1:{}/v2/", instance.ports().0);
    let user = format!("somebody:{password}");
    let authorities = instance.state().join("pki/ca.crt");
    let output = std::process::Command::new("curl")
        .args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--user", &user, "--cacert"])
        .arg(authorities)
        .arg(url)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).parse().unwrap()
}

#[test]
fn a_revoked_credential_ends_everywhere() {
    let instance = Instance::up();
    let admin = Caller::new(&instance, "admin", "evroc:operators");
    let (lost, other) =
        (Caller::new(&instance, "lost", "evroc:operators"), Caller::new(&instance, "other", "evroc:operators"));
    let node = Caller::new(&instance, "system:node:elsewhere", "system:nodes");

    assert_eq!(lost.get(&format!("{INFRA}/hosts")), 200);
    let watch = |caller: &Caller| {
        let mut watch = caller.begin(&format!("GET {INFRA}/hosts?watch=true HTTP/1.1"), "");
        assert_eq!(status(&mut watch).unwrap(), 200);
        BufReader::new(watch).lines()
    };
    let (mut revoked, mut undisturbed) = (watch(&lost), watch(&other));
    let credential = lost.create(
        &format!("{IAM}/registrycredentials"),
        &json!({"apiVersion": "iam.evroclabs.net/v1alpha1", "kind": "RegistryCredential", "metadata": {}}),
    );
    let password = credential["status"]["password"].as_str().unwrap();
    assert_eq!((log_in(&instance, password), lost.get("/v2/")), (200, 200));
    assert_eq!(log_in(&instance, "nonsense"), 401);

    // The tunnel of a host, over which control would open consoles there.
    let host = json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Host", "metadata": {"name": "elsewhere"}, "spec": {}});
    let path = format!("{INFRA}/hosts/elsewhere");
    let apply = format!("{path}?fieldManager=it&force=true");
    let (code, text) = node.ask("PATCH", &apply, "application/apply-patch+yaml", &host);
    assert!(matches!(code, 200 | 201), "{text}");
    let upgrade = format!("GET {path}/tunnel HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: evroc-tunnel");
    let mut tunnel = node.begin(&upgrade, "");
    assert_eq!(status(&mut tunnel).unwrap(), 101);
    // Control speaks first: the preface of HTTP/2 comes over the tunnel.
    let mut head = Vec::new();
    while !head.ends_with(b"PRI * HTTP/2.0") {
        let mut byte = [0];
        tunnel.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }

    admin.revoke("lost", &lost.serial);
    admin.revoke("elsewhere", &node.serial);
    eventually("requests are refused", || (lost.get(&format!("{INFRA}/hosts")) == 401).then_some(()));
    eventually("the registry refuses the password", || (log_in(&instance, password) == 401).then_some(()));
    assert_eq!(lost.get("/v2/"), 401, "the registry refuses the certificate");
    assert_eq!(node.get(&path), 401);
    ends("the watch", || revoked.next().is_none_or(|line| line.is_err()));
    ends("the tunnel", || matches!(tunnel.read(&mut [0; 4096]), Ok(0) | Err(_)));
    // Others are not disturbed.
    assert_eq!(other.get(&format!("{INFRA}/hosts")), 200);
    let (code, _) = admin.ask("DELETE", &path, "application/json", &Value::Null);
    assert_eq!(code, 200);
    assert!(undisturbed.any(|line| line.unwrap().starts_with("{\"type\":\"DELETED\"")));
}

/// Reads until the end of a stream that must end at once. A silent stream ends by time only, long after that.
fn ends(what: &str, mut has_ended: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    loop {
        let is_over = has_ended();
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{what} goes on after {:?}", start.elapsed());
        if is_over {
            return;
        }
    }
}
