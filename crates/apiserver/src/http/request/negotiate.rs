//! Content negotiation: the form of the response.

use http::HeaderMap;

use crate::object::error::ApiError;

/// The shape of the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The whole object.
    #[default]
    Object,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata or its list.
    Partial,
}

/// The encoding of the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    #[default]
    Json,
    /// YAML; not for watches.
    Yaml,
}

/// The form of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Whole or reduced.
    pub shape: Shape,
    /// JSON or YAML.
    pub encoding: Encoding,
}

/// One entry of an Accept header.
#[derive(Debug, PartialEq)]
pub struct MediaRange {
    /// For example `application/json`.
    pub media_type: String,
    /// For example `as` = `Table`.
    pub parameters: Vec<(String, String)>,
    quality: f32,
}

impl MediaRange {
    /// A parameter's value.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(it, _)| it == key).map(|(_, value)| value.as_str())
    }
}

/// Returns the entries of the Accept header, best first.
pub fn accept_ranges(headers: &HeaderMap) -> Vec<MediaRange> {
    let mut ranges: Vec<MediaRange> = headers
        .get_all(http::header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(parse_range)
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

fn parse_range(text: &str) -> Option<MediaRange> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|it| !it.is_empty())?.to_ascii_lowercase();
    let mut range = MediaRange { media_type, parameters: Vec::new(), quality: 1.0 };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key == "q" {
            range.quality = value.parse().unwrap_or(1.0);
        } else {
            range.parameters.push((key.to_owned(), value.trim_matches('"').to_owned()));
        }
    }
    Some(range)
}

/// The media types that Kubernetes names in a 406 (protobuf is accepted for core kinds only, and never sent).
pub const OBJECT_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Returns the form for objects and lists.
///
/// # Errors
/// 406 if nothing that the client accepts can be served.
pub fn object_form(headers: &HeaderMap) -> Result<Accepted, ApiError> {
    let ranges = accept_ranges(headers);
    if ranges.is_empty() {
        return Ok(Accepted::default());
    }
    ranges.iter().find_map(accepted).ok_or_else(|| ApiError::not_acceptable(OBJECT_TYPES))
}

fn accepted(range: &MediaRange) -> Option<Accepted> {
    let encoding = match range.media_type.as_str() {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let is_meta = |range: &MediaRange| {
        range.parameter("g").is_none_or(|group| group == "meta.k8s.io")
            && range.parameter("v").is_none_or(|version| version == "v1")
    };
    let shape = match range.parameter("as") {
        None => Shape::Object,
        Some("Table") if is_meta(range) => Shape::Table,
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if is_meta(range) => Shape::Partial,
        Some(_) => return None,
    };
    Some(Accepted { shape, encoding })
}
