//! Query parameters.

use super::path::decode;
use crate::object::error::ApiError;

/// The parameters of a request, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// How unknown and duplicate fields are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

impl Query {
    /// Parses the text after `?`.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .filter_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decode(key, true)?, decode(value, true)?))
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == key).map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter that is not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// Whether a parameter is true, or has no value.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F"))
    }

    /// Returns a boolean parameter, if present.
    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.text(key).map(|_| self.flag(key))
    }

    /// Returns a non-negative integer parameter.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let number: i64 = text
            .parse()
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
        // A negative number counts as absent.
        Ok(u64::try_from(number).ok())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(it, _)| it == key).map(|(_, value)| value.as_str())
    }
}

/// Returns the `resourceVersion` parameter.
///
/// # Errors
/// 500 if it is not a number, as in Kubernetes.
pub(crate) fn revision_parameter(query: &Query) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.text("resourceVersion") else { return Ok(None) };
    let parsed = text.parse::<u64>().map_err(|_| {
        ApiError::unclassified(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    });
    parsed.map(Some)
}
