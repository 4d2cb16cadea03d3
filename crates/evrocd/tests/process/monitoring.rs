//! The credential of a monitoring system, and the names of callers in the audit log.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::client::{answer, ask, mode, send};
use crate::fixture::{Instance, eventually};

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn a_monitoring_system_reads_the_metrics_and_nothing_else() {
    let instance = Instance::up();
    let folder = instance.home.path().join("monitoring");
    let text = instance.must(&["monitoring-config", folder.to_str().unwrap()]);
    assert!(text.contains("system:monitoring") && text.contains("prometheus.yml"), "{text}");
    assert_eq!((mode(&folder.join("client.key")), mode(&folder.join("kubeconfig"))), (0o600, 0o600));
    let scrapes = std::fs::read_to_string(folder.join("prometheus.yml")).unwrap();
    let key = folder.join("client.key").display().to_string();
    assert_eq!(scrapes.matches(&format!("key_file: \"{key}\"")).count(), 3, "{scrapes}");

    let monitoring = std::fs::read_to_string(folder.join("kubeconfig")).unwrap();
    let get = |path: &str| ask(&instance, Some(&monitoring), "GET", path, "", "").unwrap();
    let scraped: Vec<_> = scrapes.lines().filter_map(|line| line.trim().strip_prefix("metrics_path: ")).collect();
    assert_eq!(scraped.len(), 3);
    for path in scraped {
        eventually(path, || (get(path) == 200).then_some(()));
    }
    assert_eq!(get("/apis/infra.evroclabs.net/v1alpha1/hosts"), 200);
    for path in [
        "/api/v1/namespaces",
        "/apis/infra.evroclabs.net/v1alpha1/machines",
        "/apis/compute.evroclabs.net/v1alpha1/namespaces/demo/disks",
        "/apis/run.evroclabs.net/v1alpha1/namespaces/demo/services",
    ] {
        assert_eq!(get(path), 403, "{path}");
    }
    for (method, path) in [
        ("POST", "/api/v1/namespaces"),
        ("DELETE", "/apis/infra.evroclabs.net/v1alpha1/hosts"),
        ("POST", "/apis/iam.evroclabs.net/v1alpha1/registrycredentials"),
    ] {
        let code = ask(&instance, Some(&monitoring), method, path, JSON, "{}").unwrap();
        assert_eq!(code, 403, "{method} {path}");
    }
}

#[test]
fn the_audit_log_names_users_of_the_registry_who_come_with_a_password() {
    let instance = Instance::up();
    let operator = instance.kubeconfig();
    let question = r#"{"apiVersion":"iam.evroclabs.net/v1alpha1","kind":"RegistryCredential","metadata":{},"spec":{}}"#;
    let path = "/apis/iam.evroclabs.net/v1alpha1/registrycredentials";
    let head = format!("POST {path} HTTP/1.1\r\n{JSON}Connection: close");
    let text = answer(&mut send(&operator, instance.ports().0, &head, question).unwrap()).unwrap();
    assert!(text.starts_with("HTTP/1.1 201"), "{text}");
    let (begin, end) = (text.find('{').unwrap(), text.rfind('}').unwrap());
    let credential: Value = serde_json::from_str(&text[begin..=end]).unwrap();
    let field = |name: &str| credential["status"][name].as_str().unwrap().to_owned();
    let password = field("password");
    for (password, wanted) in [(password.as_str(), 200), ("guessed", 401)] {
        let basic = STANDARD.encode(format!("{}:{password}", field("username")));
        let header = format!("Authorization: Basic {basic}\r\n");
        assert_eq!(ask(&instance, None, "GET", "/v2/", &header, "").unwrap(), wanted);
    }
    let log = || std::fs::read_to_string(instance.state().join("control/audit.jsonl")).unwrap();
    let records = eventually("both are in the audit log", || {
        let all = log().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
        let of_registry: Vec<_> = all.into_iter().filter(|it| it["uri"] == "/v2/").collect();
        (of_registry.len() == 2).then_some(of_registry)
    });
    assert_eq!(records[0]["user"]["user"], field("username").as_str(), "{records:?}");
    assert!(records[1]["user"].is_null() && records[1]["code"] == 401, "{records:?}");
    assert!(!log().contains(&password), "no password is in the log");
}
