//! `evrocd monitoring-config`: a credential for reading the metrics and nothing else, with a configuration of Prometheus.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use evroc_iam::Authority;
use evroc_iam::identity::GROUP_MONITORING;
use evroc_iam::kubeconfig::Kubeconfig;
use evroc_iam::leaf::{self, LeafSpec, OPERATOR_LIFE};

use super::require_root;
use crate::bootstrap::{self, Caller, WantedFile};
use crate::instance::InstanceName;

/// The user of the certificate, as the audit log names it.
const USER: &str = "monitoring";

/// Writes a certificate of the group `system:monitoring`, a kubeconfig with it and a configuration of Prometheus into `folder`, for the
/// calling user. Files that are there are replaced.
pub fn config(instance: &InstanceName, folder: &Path) -> anyhow::Result<ExitCode> {
    require_root("monitoring-config")?;
    let record = super::pki::record(instance)?;
    let ports = record.ports.with_context(|| format!("instance {instance} has no ports yet: start it first"))?;
    let folder = std::path::absolute(folder).context("the folder")?;
    let public = record.layout().public_authority();
    let authority_pem =
        std::fs::read_to_string(&public).with_context(|| format!("cannot read {}", public.display()))?;
    let now = SystemTime::now();
    let (authority, _) = Authority::open_or_create(&bootstrap::pki_files(&record).signing(), instance.as_str(), now)?;
    let pem = leaf::issue(&authority, &LeafSpec::client(USER, GROUP_MONITORING), OPERATOR_LIFE, now)?;
    let kubeconfig = Kubeconfig {
        instance: &record.instance,
        user: USER,
        namespace: "default",
        api_port: ports.api.port,
        https_port: ports.https.port,
        domain: &record.domain,
        authority_pem: &authority_pem,
    };
    let scrapes = scrape_config(&folder, instance.as_str(), &bootstrap::host_name(), ports.api.port);
    let files = [
        ("kubeconfig", kubeconfig.render(&pem), 0o600),
        ("client.key", pem.key, 0o600),
        ("client.crt", pem.certificate, 0o644),
        ("ca.crt", authority_pem, 0o644),
        ("prometheus.yml", scrapes, 0o644),
    ];
    let files = files.map(|(name, content, mode)| WantedFile { name: name.into(), content, mode });
    bootstrap::write_files(&record, &Caller::current(), &folder, files.into())?;
    say!(
        "wrote a certificate of the group {GROUP_MONITORING}, good for {} days, into {}",
        OPERATOR_LIFE.as_secs() / 86_400,
        folder.display()
    );
    say!("for Prometheus: the scrape_configs of {}", folder.join("prometheus.yml").display());
    say!("for a look: kubectl --kubeconfig {} get --raw /metrics", folder.join("kubeconfig").display());
    Ok(ExitCode::SUCCESS)
}

/// A configuration of Prometheus for all processes of this host.
fn scrape_config(folder: &Path, instance: &str, host: &str, port: u16) -> String {
    let job = |name: &str, path: &str, role: &str| {
        // A string of JSON is one of YAML.
        let [ca, certificate, key] = ["ca.crt", "client.crt", "client.key"]
            .map(|name| serde_json::Value::from(folder.join(name).display().to_string()).to_string());
        format!(
            "  - job_name: {name}
    scheme: https
    metrics_path: {path}
    tls_config:
      ca_file: {ca}
      cert_file: {certificate}
      key_file: {key}
    static_configs:
      - targets: [\"127.0.0.1:{port}\"]
        labels: {{instance_name: {instance}, role: {role}, host: {host}}}
"
        )
    };
    let jobs = [
        job("evroc-control", "/metrics", "control"),
        job("evroc-node", &format!("/metrics/node/{host}"), "node"),
        job("evroc-edge", &format!("/metrics/edge/{host}"), "edge"),
    ];
    format!("scrape_configs:\n{}", jobs.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_is_scraped_with_the_files_of_the_folder() {
        let text = scrape_config(Path::new("/etc/prometheus/a \"b\""), "evroc", "host-1", 6443);
        let parsed: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let jobs = parsed["scrape_configs"].as_array().unwrap();
        let paths: Vec<_> = jobs.iter().map(|job| job["metrics_path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/metrics", "/metrics/node/host-1", "/metrics/edge/host-1"]);
        for job in jobs {
            assert_eq!(job["tls_config"]["key_file"], "/etc/prometheus/a \"b\"/client.key");
            assert_eq!(job["static_configs"][0]["targets"][0], "127.0.0.1:6443");
        }
    }
}
