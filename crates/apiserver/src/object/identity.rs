//! The identity of a caller.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An authenticated caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name, for example `admin` or `system:node:host-1`.
    pub user: String,
    /// A stable id, if the authenticator knows one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups; `system:authenticated` is added by the server.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Additional facts from the authenticator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
    /// When the credential ends that the caller came with, and with it every stream; `None` for callers within the process.
    #[serde(skip)]
    pub expires: Option<Timestamp>,
}

impl Identity {
    /// A caller in some groups.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Identity { user: user.into(), groups: groups.into_iter().map(Into::into).collect(), ..Identity::default() }
    }

    /// A controller that runs inside the server: `system:controller:<name>` in `system:controllers`.
    pub fn controller(name: &str) -> Self {
        Identity::new(format!("system:controller:{name}"), ["system:controllers"])
    }

    /// Whether the caller belongs to `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }
}
