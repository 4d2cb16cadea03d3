//! `evroc registry`: a credential for skopeo, docker and podman, put where they look for it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use clap::Subcommand;
use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::api;
use crate::config::{Cloud, home};

/// The commands of `evroc registry`.
#[derive(Subcommand)]
pub enum Registry {
    /// Give skopeo, docker and podman access to the cloud's registry
    Login,
}

/// Runs a command.
pub async fn run(cloud: &Cloud, Registry::Login: Registry) -> anyhow::Result<()> {
    let question =
        json!({"apiVersion": "iam.evroclabs.net/v1alpha1", "kind": "RegistryCredential", "metadata": {}, "spec": {}});
    let request = Request::post("/apis/iam.evroclabs.net/v1alpha1/registrycredentials")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Body::from(serde_json::to_vec(&question)?))?;
    let body = api::send(cloud, request).await?.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
    let field = |name: &str| {
        answer["status"][name].as_str().map(str::to_owned).with_context(|| format!("the answer has no status.{name}"))
    };
    let (registry, username, password, ca) =
        (field("registry")?, field("username")?, field("password")?, field("caBundle")?);

    let auth = auth_file()?;
    write_auth(&auth, &registry, &username, &password)?;
    for folder in certificate_folders(&registry)? {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join("ca.crt");
        std::fs::write(&file, &ca).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!(
        "Logged in to {registry} as {username} until {}.",
        answer["status"]["expirationTimestamp"].as_str().unwrap_or("?")
    );
    println!("Push with: skopeo copy oci:FOLDER docker://{registry}/{}/NAME:TAG", cloud.namespace);
    Ok(())
}

/// Returns where the tools read credentials: REGISTRY_AUTH_FILE, else docker's file, which all of them read.
fn auth_file() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("REGISTRY_AUTH_FILE") {
        return Ok(named.into());
    }
    let docker = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    Ok(docker.map_or_else(|| home().map(|home| home.join(".docker")), Ok)?.join("config.json"))
}

/// Returns where the tools look for a registry's CA: skopeo and podman in the first, rootless docker in the second.
fn certificate_folders(registry: &str) -> anyhow::Result<Vec<PathBuf>> {
    let config = home()?.join(".config");
    Ok(vec![config.join("containers/certs.d").join(registry), config.join("docker/certs.d").join(registry)])
}

/// Adds one registry to the file, keeping all else in it.
fn write_auth(file: &Path, registry: &str, username: &str, password: &str) -> anyhow::Result<()> {
    let mut content: Value = match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not JSON: repair or remove it", file.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    if !content.is_object() {
        bail!("{}: expected a JSON object, found something else: repair or remove it", file.display());
    }
    let secret = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    content["auths"][registry] = json!({ "auth": secret });
    let folder = file.parent().context("the credential file has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let fresh = file.with_extension("json.new");
    write_private(&fresh, &serde_json::to_vec_pretty(&content)?)
        .with_context(|| format!("cannot write {}", fresh.display()))?;
    std::fs::rename(&fresh, file).with_context(|| format!("cannot replace {}", file.display()))
}

/// Writes a file that only its owner reads.
fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(bytes)
}
