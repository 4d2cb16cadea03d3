//! kubectl over TLS, as users type it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::network::NetworkServer;

/// kubectl of the clone, or of the machine.
fn kubectl_program() -> PathBuf {
    let of_clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/kubectl");
    if of_clone.exists() { of_clone } else { PathBuf::from("kubectl") }
}

#[derive(Clone)]
struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    async fn output(&self, arguments: &str, input: &str) -> Output {
        let (this, arguments, input) = (self.clone(), arguments.to_owned(), input.to_owned());
        let running = move || {
            let mut child = Command::new(kubectl_program())
                .args(arguments.split(' '))
                .env("KUBECONFIG", &this.kubeconfig)
                .env("HOME", &this.home)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("kubectl must be installed: scripts/install-host-packages brings it into .tools/bin");
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        };
        tokio::task::spawn_blocking(running).await.unwrap()
    }

    /// Runs and expects success; returns the output.
    async fn run(&self, arguments: &str) -> String {
        self.run_with(arguments, "").await
    }

    async fn run_with(&self, arguments: &str, input: &str) -> String {
        let output = self.output(arguments, input).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {arguments}\n{out}{err}");
        out.into_owned()
    }

    /// Runs and expects failure; returns the error output.
    async fn refused(&self, arguments: &str, input: &str) -> String {
        let output = self.output(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments} should have failed");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

async fn start() -> (NetworkServer, Kubectl) {
    let network = NetworkServer::start().await;
    let kubeconfig = network.write_kubeconfig();
    let home = network.server.state.dir().to_owned();
    (network, Kubectl { kubeconfig, home })
}

const DISK: &str = r#"
apiVersion: test.example/v1
kind: Disk
metadata: {name: a, labels: {team: red}}
spec: {sizeGb: 5}
"#;

#[tokio::test]
async fn the_everyday_commands_work() {
    let (_network, kubectl) = start().await;
    kubectl.run("create namespace demo").await;
    assert!(kubectl.run("get namespaces").await.contains("Active"));
    assert_eq!(kubectl.run_with("apply -f -", DISK).await, "disk.test.example/a created\n");
    assert_eq!(kubectl.run_with("apply -f -", DISK).await, "disk.test.example/a unchanged\n");
    let changed = DISK.replace("sizeGb: 5", "sizeGb: 6");
    let differences = kubectl.output("diff -f -", &changed).await;
    assert!(String::from_utf8_lossy(&differences.stdout).contains("+  sizeGb: 6"));
    assert_eq!(kubectl.run_with("apply -f -", &changed).await, "disk.test.example/a configured\n");
    let table = kubectl.run("get disks").await;
    assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["NAME", "SIZE", "PHASE", "AGE"]);
    assert!(kubectl.run("get dk -o wide").await.contains("CLASS"));
    assert_eq!(kubectl.run("get all -o name").await, "disk.test.example/a\n");
    assert_eq!(kubectl.run("get disk a -o jsonpath={.spec.sizeGb}").await, "6");
    kubectl.run("label disk a colour=blue").await;
    kubectl.run("annotate disk a note=x").await;
    assert_eq!(kubectl.run("get disks -l colour=blue,team=red -o name").await, "disk.test.example/a\n");
    assert_eq!(kubectl.run("get disks --field-selector spec.class=standard -o name").await, "disk.test.example/a\n");
    kubectl.run("scale disk a --replicas=2").await;
    kubectl.run("patch disk a --type=merge --subresource=status -p {\"status\":{\"phase\":\"Ready\"}}").await;
    assert_eq!(
        kubectl.run("wait disk/a --for=jsonpath={.status.phase}=Ready --timeout=5s").await,
        "disk.test.example/a condition met\n"
    );
    kubectl.run("patch disk a --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/sizeGb\",\"value\":8}]").await;
    let description = kubectl.run("describe disk a").await;
    assert!(description.contains("Size Gb:") && description.contains("Events:"), "{description}");
    assert!(kubectl.run("delete disk a").await.starts_with("disk.test.example \"a\" deleted"));
    assert!(
        kubectl
            .refused("get disk a", "")
            .await
            .contains("Error from server (NotFound): disks.test.example \"a\" not found")
    );
}

#[tokio::test]
async fn replace_create_and_server_side_apply_work() {
    let (_network, kubectl) = start().await;
    kubectl.run("create namespace demo").await;
    kubectl.run_with("create -f -", DISK).await;
    kubectl.run_with("replace -f -", &DISK.replace("sizeGb: 5", "sizeGb: 7")).await;
    assert_eq!(kubectl.run("get disk a -o jsonpath={.spec.sizeGb}").await, "7");
    let conflict = kubectl
        .refused("apply --server-side --field-manager=other -f -", &DISK.replace("sizeGb: 5", "sizeGb: 9"))
        .await;
    assert!(conflict.contains("conflict with \"kubectl-replace\""), "{conflict}");
    kubectl
        .run_with(
            "apply --server-side --force-conflicts --field-manager=other -f -",
            &DISK.replace("sizeGb: 5", "sizeGb: 9"),
        )
        .await;
    assert_eq!(kubectl.run("get disk a -o jsonpath={.spec.sizeGb}").await, "9");
    kubectl.run("create configmap settings --from-literal=k=v").await;
    kubectl.run("label configmap settings a=b").await;
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {k: v, l: w}\n";
    kubectl.run_with("apply -f -", settings).await;
    kubectl.run_with("apply -f -", &settings.replace(", l: w", "")).await;
    assert_eq!(kubectl.run("get configmap applied -o jsonpath={.data}").await, "{\"k\":\"v\"}");
    kubectl.run("create secret generic key --from-literal=k=v").await;
    assert_eq!(kubectl.run("get secret key -o jsonpath={.data.k}").await, "dg==");
    assert!(kubectl.run("auth whoami").await.contains("admin"));
    assert_eq!(kubectl.run("auth can-i get disks").await, "yes\n");
    let twice = DISK.replace("spec: {sizeGb: 5}", "spec: {sizeGb: 5, colour: red}");
    let refused = kubectl.refused("apply -f -", &twice).await;
    assert!(refused.contains("unknown field \"spec.colour\""), "{refused}");
    kubectl.run("delete namespace demo --timeout=20s").await;
    assert!(kubectl.refused("get namespace demo", "").await.contains("NotFound"));
}

#[tokio::test]
async fn schemas_explain_kinds() {
    let (_network, kubectl) = start().await;
    let text = kubectl.run("explain disk.spec.sizeGb").await;
    assert!(text.contains("Size in gigabytes."), "{text}");
    let text = kubectl.run("explain disk --recursive").await;
    assert!(text.contains("mounts"), "{text}");
    assert!(kubectl.run("explain namespace").await.contains("A name space for objects"));
    let resources = kubectl.run("api-resources --no-headers").await;
    assert!(resources.contains("disks") && !resources.contains("services"), "{resources}");
    assert!(kubectl.run("api-versions").await.contains("test.example/v1"));
}
