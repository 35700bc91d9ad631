//! Triggers: what makes the platform call a function. Only `http` so far.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::JwtConfig;
use crate::ids::TriggerName;
use crate::limits::InvalidField;

/// A trigger as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Unique within the function.
    pub name: TriggerName,
    /// A random id.
    pub trigger_id: String,
    /// Free text.
    pub description: String,
    /// The version or alias it calls, in the wire's spelling; `LATEST` for the head.
    pub qualifier: String,
    /// What it does.
    pub http: HttpTriggerConfig,
    /// The `triggerConfig` text as the owner gave it, given back unchanged.
    pub config_text: String,
    /// The first label of the function URL's host.
    pub url_prefix: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
}

/// The `triggerConfig` of an `http` trigger (contract section 9.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpTriggerConfig {
    /// Who may call; `function` by default.
    #[serde(default)]
    pub auth_type: AuthType,
    /// Which methods are served.
    pub methods: Vec<Method>,
    /// Answers 403 to everybody.
    #[serde(default, rename = "disableURLInternet")]
    pub disable_url_internet: bool,
    /// JSON in a string, for `jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_config: Option<String>,
    /// Cross-origin rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors_config: Option<CorsConfig>,
}

/// Who may call a function URL or a custom domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthType {
    /// Everybody.
    Anonymous,
    /// Callers whose signature holds for the owner's account.
    #[default]
    Function,
    /// Bearers of a token: see [`JwtConfig`](crate::domain::JwtConfig).
    Jwt,
}

/// A method a trigger may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the methods of HTTP")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
}

impl Method {
    /// The method as HTTP spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
        }
    }
}

/// Cross-origin rules (contract section 4.5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsConfig {
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
    /// Request headers a script may set.
    pub allow_headers: Vec<String>,
    /// Methods a script may use.
    pub allow_methods: Vec<String>,
    /// Origins, or `*`.
    pub allow_origins: Vec<String>,
    /// Response headers a script may read.
    pub expose_headers: Vec<String>,
    /// Seconds a preflight answer may be kept.
    pub max_age: i64,
}

impl HttpTriggerConfig {
    /// Reads the JSON text of `triggerConfig`.
    ///
    /// # Errors
    /// The member that is wrong, with its path.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "triggerConfig".to_owned() } else { format!("triggerConfig.{path}") };
            InvalidField::new(field, format!("is invalid: {}", error.inner()))
        })?;
        reader.end().map_err(|error| InvalidField::new("triggerConfig", format!("is invalid: {error}")))?;
        if config.methods.is_empty() {
            return Err(InvalidField::new(
                "triggerConfig.methods",
                "must name at least one of GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS",
            ));
        }
        if config.auth_type == AuthType::Jwt {
            config.jwt()?;
        }
        Ok(config)
    }

    /// How tokens are accepted, for `authType` `jwt`.
    ///
    /// # Errors
    /// The member of `authConfig` that is wrong.
    pub fn jwt(&self) -> Result<JwtConfig, InvalidField> {
        let field = "triggerConfig.authConfig";
        let text = self.auth_config.as_deref().ok_or_else(|| InvalidField::new(field, "is required for authType 'jwt'"))?;
        JwtConfig::parse(text, field)
    }

    /// Whether `method` is served.
    #[must_use]
    pub fn serves(&self, method: &str) -> bool {
        self.methods.iter().any(|allowed| allowed.as_str() == method)
    }
}
