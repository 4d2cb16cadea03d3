//! References to container images: `host[:port]/repository[:tag][@sha256:…]`.

use thiserror::Error;

/// A parsed reference to a container image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// The registry's host name, without a port.
    pub host: String,
    /// The port, where one is given; ports of the cloud's own registry may change, so it is not compared.
    pub port: Option<u16>,
    /// The repository, for example `demo/hello`.
    pub repository: String,
    /// The tag; `latest` when neither tag nor digest is given.
    pub tag: Option<String>,
    /// The digest, for example `sha256:…`.
    pub digest: Option<String>,
}

/// The reason why a text is not a reference to a container image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageRefError {
    /// There is no host in front.
    #[error(
        "\"{0}\" names no registry: expected HOST/REPOSITORY:TAG, for example registry.evroc.localhost/demo/hello:v1"
    )]
    NoHost(String),
    /// An address and not a reference.
    #[error("\"{text}\" is not an image reference: leave out \"{scheme}://\"")]
    Scheme {
        /// The whole text.
        text: String,
        /// The text before `://`.
        scheme: String,
    },
    /// A part does not have the form of its kind.
    #[error("\"{text}\" is not an image reference: {part} \"{found}\" is not allowed")]
    Part {
        /// The whole text.
        text: String,
        /// The name of the part.
        part: &'static str,
        /// The text found.
        found: String,
    },
}

impl ImageRef {
    /// Reads `host[:port]/repository[:tag][@digest]`.
    pub fn parse(text: &str) -> Result<Self, ImageRefError> {
        let bad = |part, found: &str| ImageRefError::Part { text: text.into(), part, found: found.into() };
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(ImageRefError::Scheme { text: text.into(), scheme: scheme.into() });
        }
        let (host_port, rest) = text.split_once('/').ok_or_else(|| ImageRefError::NoHost(text.into()))?;
        if !(host_port.contains('.') || host_port.contains(':') || host_port == "localhost") {
            return Err(ImageRefError::NoHost(text.into()));
        }
        let (host, port) = match host_port.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| bad("port", port))?)),
            None => (host_port, None),
        };
        if !is_host(host) {
            return Err(bad("host", host));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some((_, digest)) => return Err(bad("digest", digest)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some((_, tag)) => return Err(bad("tag", tag)),
            None => (rest, None),
        };
        if !is_repository(repository) {
            return Err(bad("repository", repository));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { host: host.into(), port, repository: repository.into(), tag, digest })
    }

    /// The reference to request from the registry: the digest if present, else the tag.
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

fn is_host(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_repository(text: &str) -> bool {
    text.len() <= 255
        && text.split('/').all(|part| {
            let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            !part.is_empty()
                && part.bytes().all(|b| edge(b) || matches!(b, b'.' | b'_' | b'-'))
                && part.bytes().next().is_some_and(edge)
                && part.bytes().last().is_some_and(edge)
        })
}
