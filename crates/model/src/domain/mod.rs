//! Custom domains (contract sections 4.6 and 9.5): a host, the routes below it, and who may use them.
//!
//! [`CustomDomain`] is what is stored, in the wire's members. What a door needs is made out of it once per change:
//! [`RouteTable`] finds the route of a path and rewrites it, [`JwtConfig`] says where a token is and what becomes of its claims.
//! Both are pure.

mod jwt;
mod name;
mod path;
mod rewrite;
mod table;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::trigger::{AuthType, CorsConfig, Method};

pub use jwt::{ClaimPass, Jwks, JwtConfig, PathList, Place, TokenLookup};
pub use name::{DomainKey, DomainName};
pub use path::{PathPattern, canonical_path};
pub use rewrite::Rewrite;
pub use table::{Route, RouteTable, Routed};

/// A custom domain as it is stored. Members that were never given are absent, and not shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomDomain {
    /// The host.
    pub domain_name: DomainName,
    /// Over what it is served.
    pub protocol: Scheme,
    /// Which function answers for which path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_config: Option<RouteConfig>,
    /// Who may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_config: Option<AuthConfig>,
    /// The certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_config: Option<CertConfig>,
    /// Which versions of TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,
    /// Cross-origin rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors_config: Option<CorsConfig>,
    /// The vendor's firewall: always off here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waf_config: Option<WafConfig>,
    /// Kept for the vendor's sandbox product; nothing follows from it.
    #[serde(default, rename = "isE2B", skip_serializing_if = "Option::is_none")]
    pub is_e2b: Option<bool>,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
}

impl CustomDomain {
    /// Who may call; everybody unless something else is said.
    #[must_use]
    pub fn auth_type(&self) -> AuthType {
        self.auth_config.as_ref().and_then(|auth| auth.auth_type).unwrap_or(AuthType::Anonymous)
    }
}

/// Over what a domain is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the wire's words")]
pub enum Scheme {
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "HTTPS")]
    Https,
    #[serde(rename = "HTTP,HTTPS")]
    Both,
}

impl Scheme {
    /// Whether requests without TLS are served.
    #[must_use]
    pub fn serves_http(self) -> bool {
        matches!(self, Self::Http | Self::Both)
    }

    /// Whether requests over TLS are served.
    #[must_use]
    pub fn serves_https(self) -> bool {
        matches!(self, Self::Https | Self::Both)
    }
}

/// The routes of a domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteConfig {
    /// In any order.
    pub routes: Vec<PathConfig>,
}

/// One route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathConfig {
    /// `/a`, or `/a/*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The function, of the domain's own account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_name: Option<String>,
    /// A version, an alias or `LATEST`; absent means the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
    /// Which methods; absent and empty mean all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<Method>>,
    /// What the function sees instead of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite_config: Option<RewriteConfig>,
}

/// The rewrite rules of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RewriteConfig {
    /// Paths as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equal_rules: Option<Vec<RewriteRule>>,
    /// Paths with `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wildcard_rules: Option<Vec<RewriteRule>>,
    /// Regular expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex_rules: Option<Vec<RewriteRule>>,
}

/// One rewrite rule of any kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewriteRule {
    /// What the path must look like.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What becomes of it.
    pub replacement: String,
}

/// Who may call a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthConfig {
    /// Absent means everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_type: Option<AuthType>,
    /// JSON in a string, for `jwt`: see [`JwtConfig`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_info: Option<String>,
}

/// A certificate with its key, both as PEM.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertConfig {
    /// The owner's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_name: Option<String>,
    /// The domain's own certificate first, then those that signed it.
    pub certificate: String,
    /// Written, stored and used; never shown.
    pub private_key: String,
}

impl fmt::Debug for CertConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertConfig").field("cert_name", &self.cert_name).finish_non_exhaustive()
    }
}

/// Which TLS a domain speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsConfig {
    /// The oldest version; what is older than TLS 1.2 is not spoken in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The newest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TlsVersion>,
    /// Suites by the names of their registry; absent and empty mean all that are spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cipher_suites: Option<Vec<String>>,
}

/// A version of TLS, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the wire's words")]
pub enum TlsVersion {
    #[serde(rename = "TLSv1.0")]
    V1_0,
    #[serde(rename = "TLSv1.1")]
    V1_1,
    #[serde(rename = "TLSv1.2")]
    V1_2,
    #[serde(rename = "TLSv1.3")]
    V1_3,
}

/// The vendor's firewall.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WafConfig {
    /// Whether it is on.
    #[serde(rename = "enableWAF", skip_serializing_if = "Option::is_none")]
    pub enable_waf: Option<bool>,
}
