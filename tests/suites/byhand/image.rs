//! The images that `images/build` makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::names;
use serde_json::Value;

/// The folder of an image, built when the cache lacks it.
pub fn folder(name: &str) -> Result<PathBuf> {
    let script = names::repository().join("images/build");
    // A build may take a minute: show its output.
    let output = Command::new(&script)
        .arg(name)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    ensure!(output.status.success(), "images/build {name}: {}", output.status);
    let line = String::from_utf8(output.stdout)?;
    match line.trim().split_once(' ') {
        Some((_, folder)) => Ok(PathBuf::from(folder)),
        None => bail!("images/build {name}: expected `{name} FOLDER`, found: {line}"),
    }
}

/// An OCI image layout on disk.
pub struct Layout {
    folder: PathBuf,
    index: Value,
}

/// One image of a layout.
pub struct Image {
    config: Value,
    layers: Vec<PathBuf>,
}

impl Layout {
    /// Reads the index of a layout.
    pub fn open(folder: &Path) -> Result<Layout> {
        Ok(Layout { folder: folder.to_owned(), index: json(&folder.join("index.json"))? })
    }

    /// The image that carries a tag.
    pub fn image(&self, tag: &str) -> Result<Image> {
        let manifests = self.index["manifests"].as_array().context("index.json has no manifests")?;
        let tagged = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
        let descriptor = manifests.iter().find(tagged).with_context(|| format!("no tag {tag}"))?;
        let manifest = json(&self.blob(descriptor)?)?;
        let layers = manifest["layers"].as_array().context("the manifest has no layers")?;
        Ok(Image {
            config: json(&self.blob(&manifest["config"])?)?["config"].take(),
            layers: layers.iter().map(|layer| self.blob(layer)).collect::<Result<_>>()?,
        })
    }

    fn blob(&self, descriptor: &Value) -> Result<PathBuf> {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        Ok(self.folder.join("blobs/sha256").join(digest.context("a descriptor without a sha256 digest")?))
    }
}

impl Image {
    /// The user that the image is configured to run as.
    pub fn user(&self) -> Option<&str> {
        self.config["User"].as_str()
    }

    /// The command: entry point and arguments.
    pub fn command(&self) -> Vec<&str> {
        ["Entrypoint", "Cmd"]
            .iter()
            .filter_map(|key| self.config[*key].as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// The folder that the command starts in.
    pub fn folder(&self) -> &str {
        self.config["WorkingDir"].as_str().unwrap_or("/")
    }

    /// Unpacks the layers, lowest first.
    pub fn unpack(&self, root: &Path) -> Result<()> {
        for layer in &self.layers {
            let status = Command::new("tar").arg("-xzf").arg(layer).arg("-C").arg(root).status().context("run tar")?;
            ensure!(status.success(), "tar of {}: {status}", layer.display());
        }
        Ok(())
    }
}

fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
}
