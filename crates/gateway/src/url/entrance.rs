//! What a request comes in through: the URL of a trigger, or a route of a custom domain.

use std::sync::Arc;

use dunlin_model::domain::Rewrite;
use dunlin_model::domain::{JwtConfig, Route, RouteTable};
use dunlin_model::{AuthType, CorsConfig, CustomDomain, InvalidField, Method, Qualifier, Stored, Trigger};
use dunlin_tls::{Certificate, ServerConfig};

use super::jwt::Jwt;
use crate::compiled::Compiled;
use crate::doors::Doors;

/// One way in, found.
pub(super) struct Entrance<'a> {
    /// The trigger's or the domain's name, for the record.
    pub(super) name: String,
    /// What of the function is called.
    pub(super) qualifier: Qualifier,
    /// Which methods are served; empty means all.
    pub(super) methods: &'a [Method],
    /// Who may call.
    pub(super) auth: Auth,
    /// Cross-origin rules.
    pub(super) cors: Option<&'a CorsConfig>,
    /// Nobody may.
    pub(super) is_disabled: bool,
    /// The first label of a function URL.
    pub(super) prefix: &'a str,
    /// The trigger's id.
    pub(super) trigger_id: &'a str,
    /// Where the route of a domain begins.
    pub(super) base_path: &'a str,
    /// What the function sees instead of the path.
    pub(super) rewrite: Option<&'a Rewrite>,
}

/// Who may call.
#[derive(Clone)]
pub(super) enum Auth {
    /// Everybody.
    Anonymous,
    /// Whoever signs for the owner's account.
    Function,
    /// Bearers of a token.
    Jwt(Arc<Jwt>),
}

impl<'a> Entrance<'a> {
    /// The entrance that a trigger is.
    pub(super) fn trigger(trigger: &'a Trigger, auth: Auth) -> Self {
        Self {
            name: trigger.name.to_string(),
            qualifier: Qualifier::from_wire(Some(&trigger.qualifier)),
            methods: &trigger.http.methods,
            auth,
            cors: trigger.http.cors_config.as_ref(),
            is_disabled: trigger.http.disable_url_internet,
            prefix: &trigger.url_prefix,
            trigger_id: &trigger.trigger_id,
            base_path: "",
            rewrite: None,
        }
    }

    /// The entrance that a route of a domain is. Its methods were asked for when it was found.
    pub(super) fn route(domain: &'a CustomDomain, route: &'a Route, auth: Auth) -> Self {
        Self {
            name: domain.domain_name.to_string(),
            qualifier: route.qualifier.clone(),
            methods: &[],
            auth,
            cors: domain.cors_config.as_ref(),
            is_disabled: false,
            prefix: "",
            trigger_id: "",
            base_path: route.pattern.base(),
            rewrite: Some(&route.rewrite),
        }
    }

    pub(super) fn serves(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|allowed| allowed.as_str() == method)
    }
}

/// A domain, ready to be served.
pub(crate) struct ReadyDomain {
    pub(super) table: RouteTable,
    pub(super) auth: Auth,
    /// What a handshake is answered with; nothing when the domain is served without TLS only.
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// Domains and the tokens of triggers, made ready once per change.
#[derive(Default)]
pub(crate) struct Ready {
    domains: Compiled<ReadyDomain>,
    tokens: Compiled<Jwt>,
}

impl Ready {
    /// A stored domain, ready. What was written was checked, so that a failure is the platform's.
    pub(crate) fn domain(&self, doors: &Doors, stored: &Stored<CustomDomain>) -> Result<Arc<ReadyDomain>, InvalidField> {
        let domain = &stored.value;
        self.domains.get(domain.domain_name.as_str(), stored.revision, || {
            let none = dunlin_model::domain::RouteConfig::default();
            let auth = match domain.auth_type() {
                AuthType::Anonymous => Auth::Anonymous,
                AuthType::Function => Auth::Function,
                AuthType::Jwt => {
                    let field = "authConfig.authInfo";
                    let text = domain.auth_config.as_ref().and_then(|auth| auth.auth_info.as_deref());
                    Auth::Jwt(Arc::new(Jwt::new(JwtConfig::parse(text.unwrap_or_default(), field)?, field)?))
                }
            };
            let certificate = domain.cert_config.as_ref().filter(|_| domain.protocol.serves_https());
            let tls = certificate.map(|cert| dunlin_tls::server_config(&Certificate::read(cert)?, domain.tls_config.as_ref()));
            let table = RouteTable::new(domain.route_config.as_ref().unwrap_or(&none), &doors.limits)?;
            Ok(ReadyDomain { table, auth, tls: tls.transpose()? })
        })
    }

    /// Who may call a trigger.
    pub(super) fn auth(&self, trigger: &Stored<Trigger>) -> Result<Auth, InvalidField> {
        let http = &trigger.value.http;
        Ok(match http.auth_type {
            AuthType::Anonymous => Auth::Anonymous,
            AuthType::Function => Auth::Function,
            AuthType::Jwt => Auth::Jwt(
                self.tokens
                    .get(&trigger.value.trigger_id, trigger.revision, || Jwt::new(http.jwt()?, "triggerConfig.authConfig"))?,
            ),
        })
    }
}
