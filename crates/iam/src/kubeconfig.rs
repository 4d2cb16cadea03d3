//! The kubeconfig of an operator: written once, then only replaced when what it says no longer holds, so that a user's own edits (a
//! namespace, a second context) survive restarts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::leaf::LeafPem;

/// Name of the cluster extension with what the evroc CLI needs beyond Kubernetes' fields: `domain`, `httpsPort`, `instance`.
pub const EXTENSION: &str = "evroclabs.net";

/// The content of the file.
#[derive(Debug, Clone)]
pub struct Kubeconfig<'a> {
    /// Name of the installation; names cluster and context.
    pub instance: &'a str,
    /// User name.
    pub user: &'a str,
    /// Namespace of the context.
    pub namespace: &'a str,
    /// Port of the API on loopback.
    pub api_port: u16,
    /// Port of the HTTPS gateway on loopback.
    pub https_port: u16,
    /// Domain of the installation.
    pub domain: &'a str,
    /// The authority's certificate.
    pub authority_pem: &'a str,
}

impl Kubeconfig<'_> {
    /// The address in the file. An address and not a name: names under `.localhost` do not resolve in Go's or libc's resolver.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// The file's text.
    pub fn render(&self, leaf: &LeafPem) -> String {
        let Self { instance, user, namespace, https_port, domain, .. } = self;
        let server = self.server();
        let authority = STANDARD.encode(self.authority_pem);
        let certificate = STANDARD.encode(&leaf.certificate);
        let key = STANDARD.encode(&leaf.key);
        format!(
            "apiVersion: v1
kind: Config
clusters:
- name: {instance}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
    extensions:
    - name: {EXTENSION}
      extension:
        instance: {instance}
        domain: {domain}
        httpsPort: {https_port}
users:
- name: {user}@{instance}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {instance}
  context:
    cluster: {instance}
    user: {user}@{instance}
    namespace: {namespace}
current-context: {instance}
"
        )
    }

    /// Whether an existing file still says the same about the installation; returns the client certificate in it, to be checked for life.
    pub fn accepted_leaf(&self, text: &str) -> Option<LeafPem> {
        let value: Value = serde_saphyr::from_str(text).ok()?;
        let cluster = &named(&value["clusters"], self.instance)?["cluster"];
        let extension = &named(&cluster["extensions"], EXTENSION)?["extension"];
        let fits = cluster["server"].as_str()? == self.server()
            && decode(&cluster["certificate-authority-data"])? == self.authority_pem
            && extension["domain"].as_str()? == self.domain
            && extension["httpsPort"].as_u64()? == u64::from(self.https_port);
        let user = &named(&value["users"], &format!("{}@{}", self.user, self.instance))?["user"];
        let leaf =
            LeafPem { certificate: decode(&user["client-certificate-data"])?, key: decode(&user["client-key-data"])? };
        fits.then_some(leaf)
    }
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry["name"].as_str() == Some(name))
}

fn decode(value: &Value) -> Option<String> {
    String::from_utf8(STANDARD.decode(value.as_str()?).ok()?).ok()
}
