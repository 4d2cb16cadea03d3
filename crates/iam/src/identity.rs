//! Identities: of a verified client certificate, a token or an in-process caller.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Group of the installation's administrators: everything is allowed.
pub const GROUP_OPERATORS: &str = "evroc:operators";
/// Group of host agents.
pub const GROUP_NODES: &str = "system:nodes";
/// Group of HTTPS gateways.
pub const GROUP_EDGES: &str = "system:edges";
/// Group of monitoring systems: they read metrics, as in Kubernetes.
pub const GROUP_MONITORING: &str = "system:monitoring";
/// Group of controllers.
pub const GROUP_CONTROLLERS: &str = "system:controllers";
/// Group that every authenticated caller is in; added here, never taken from a certificate.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// Name of the first operator.
pub const USER_ADMIN: &str = "admin";
/// Name of the HTTPS gateway.
pub const USER_EDGE: &str = "system:edge";
/// A host agent's name is this followed by the host's name.
pub const USER_NODE_PREFIX: &str = "system:node:";
/// A controller's name is this followed by the controller's name.
pub const USER_CONTROLLER_PREFIX: &str = "system:controller:";

/// Key in `extra` under which the id of the token stands that a caller came with; callers with a certificate have none.
pub const EXTRA_TOKEN_ID: &str = "authentication.evroclabs.net/token-id";

/// Key in `extra` under which the serial number (hexadecimal, lower case, without leading zeros) of the client certificate stands that a caller came with.
pub const EXTRA_CERTIFICATE_SERIAL: &str = "authentication.evroclabs.net/certificate-serial";
/// Key in `extra` of the scopes that narrow what a token is good for; absent where it is not narrowed.
pub const EXTRA_SCOPE: &str = "authentication.evroclabs.net/scope";

/// An authenticated caller, in Kubernetes' terms (`user.Info`): the one type for the API, the registry and the streams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name, for example `admin` or `system:node:host-1`.
    pub user: String,
    /// Stable id of the user, empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups, `system:authenticated` included.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Anything else an authenticator knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
    /// When the credential ends that the caller came with, and with it every stream; `None` for callers within the process.
    #[serde(skip)]
    pub expires: Option<Timestamp>,
}

/// The reason why a certificate gives no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// Not meant for clients.
    #[error("the certificate is not a client's (extended key usage clientAuth is missing)")]
    NotAClient,
    /// No common name, or more than one.
    #[error("the client certificate must have exactly one common name (the user), found {found}")]
    CommonName {
        /// How many it has.
        found: usize,
    },
    /// A group that only callers within the control process are in.
    #[error("the client certificate is for the group {group:?}, which no one outside of the control process is in")]
    Internal {
        /// The group.
        group: &'static str,
    },
    /// A name is empty or not text.
    #[error("the client certificate's {field} is empty or not text")]
    Text {
        /// Which part of the subject.
        field: &'static str,
    },
}

impl Identity {
    /// A caller in some groups, and in `system:authenticated`.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        groups.retain(|group| group != GROUP_AUTHENTICATED);
        groups.push(GROUP_AUTHENTICATED.to_owned());
        Self { user: user.into(), groups, ..Self::default() }
    }

    /// The identity of the controller `name`, for callers inside the control process.
    pub fn controller(name: &str) -> Self {
        Self::new(format!("{USER_CONTROLLER_PREFIX}{name}"), [GROUP_CONTROLLERS])
    }

    /// The identity of the host agent on `host`.
    pub fn node(host: &str) -> Self {
        Self::new(format!("{USER_NODE_PREFIX}{host}"), [GROUP_NODES])
    }

    /// The identity of the HTTPS gateway.
    pub fn edge() -> Self {
        Self::new(USER_EDGE, [GROUP_EDGES])
    }

    /// The first operator.
    pub fn operator() -> Self {
        Self::new(USER_ADMIN, [GROUP_OPERATORS])
    }

    /// The identity in a client certificate **that the TLS layer has already verified** against the installation's authority
    /// (`peer_certificates()[0]` of rustls). User = common name, groups = organizations. The certificate's serial number is kept in
    /// `extra`, for the audit log.
    pub fn from_client_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| IdentityError::Unreadable)?;
        let is_client = matches!(certificate.extended_key_usage(), Ok(Some(usage)) if usage.value.client_auth);
        if !is_client || certificate.is_ca() {
            return Err(IdentityError::NotAClient);
        }
        let names: Vec<_> = certificate.subject().iter_common_name().collect();
        let [name] = names.as_slice() else { return Err(IdentityError::CommonName { found: names.len() }) };
        let name =
            name.as_str().ok().filter(|text| !text.is_empty()).ok_or(IdentityError::Text { field: "common name" })?;
        let mut groups = Vec::new();
        for group in certificate.subject().iter_organization() {
            let group = group
                .as_str()
                .ok()
                .filter(|text| !text.is_empty())
                .ok_or(IdentityError::Text { field: "organization" })?
                .to_owned();
            if group != GROUP_AUTHENTICATED && !groups.contains(&group) {
                groups.push(group);
            }
        }
        if groups.iter().any(|group| group == GROUP_CONTROLLERS) {
            return Err(IdentityError::Internal { group: GROUP_CONTROLLERS });
        }
        let serial = certificate.raw_serial_as_string().replace(':', "");
        let serial = serial.trim_start_matches('0').to_owned();
        let mut identity = Self::new(name, groups);
        identity.extra.insert(EXTRA_CERTIFICATE_SERIAL.to_owned(), vec![serial]);
        identity.expires = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok();
        Ok(identity)
    }

    /// Whether the identity is in `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }

    /// Whether the caller came with a token: a credential that was issued to a caller with a stronger one.
    pub fn came_by_token(&self) -> bool {
        self.extra.contains_key(EXTRA_TOKEN_ID)
    }

    /// The credentials without which the caller would not be known, as a list of revoked ones names them: the serial number of the
    /// certificate, the id of the token and the serial number of the certificate that it was made with.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        let of = |key: &str| self.extra.get(key).into_iter().flatten().map(String::as_str);
        of(EXTRA_TOKEN_ID).chain(of(EXTRA_CERTIFICATE_SERIAL))
    }

    /// The scopes that narrow what the caller's token is good for.
    pub fn scopes(&self) -> &[String] {
        self.extra.get(EXTRA_SCOPE).map_or(&[], Vec::as_slice)
    }

    /// The host that this identity is the agent of.
    pub fn host(&self) -> Option<&str> {
        if !self.is_in(GROUP_NODES) {
            return None;
        }
        self.user.strip_prefix(USER_NODE_PREFIX).filter(|host| !host.is_empty())
    }

    /// The controller that this identity is.
    pub fn controller_name(&self) -> Option<&str> {
        if !self.is_in(GROUP_CONTROLLERS) {
            return None;
        }
        self.user.strip_prefix(USER_CONTROLLER_PREFIX).filter(|name| !name.is_empty())
    }
}
