//! Query parameters.

use super::path::decode;
use crate::error::ApiError;

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
    /// Reads what follows `?`.
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

    /// Whether a parameter is set to true, or stands without a value.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F"))
    }

    /// A boolean that may be absent.
    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.text(key).map(|_| self.flag(key))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        self.text(key)
            .map(|text| {
                text.parse().map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
            })
            .transpose()
    }

    /// Whether `dryRun=All`.
    ///
    /// # Errors
    /// 422 for any other value.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        let mut values = self.0.iter().filter(|(key, value)| key == "dryRun" && !value.is_empty());
        match values.next() {
            None => Ok(false),
            Some((_, value)) if value == "All" => Ok(true),
            Some((_, value)) => Err(ApiError::bad_request(format!(
                "invalid dryRun {value:?}: the only supported value is \"All\""
            ))),
        }
    }

    /// `fieldValidation`.
    ///
    /// # Errors
    /// 400 for an unknown value.
    pub fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.text("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(ApiError::bad_request(format!(
                "invalid fieldValidation {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}
