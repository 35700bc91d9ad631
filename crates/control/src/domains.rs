//! Custom domains: what is asked for is made ready once here, so that a door cannot meet a domain that it cannot serve.

use std::sync::Arc;

use dunlin_auth::TokenKeys;
use dunlin_model::domain::{AuthConfig, CertConfig, Jwks, JwtConfig, RouteConfig, RouteTable, Scheme, TlsConfig, WafConfig};
use dunlin_model::{AccountScope, AuthType, CorsConfig, CustomDomain, DomainKey, DomainName, Stored};
use dunlin_store::{CreateError, DeleteError, ReplaceError, View};
use dunlin_tls::Certificate;
use serde::Deserialize;

use crate::control::Control;
use crate::error::Error;
use crate::listing::{Listing, Paging, page};
use crate::versions::resolve;

/// How often a delete looks again when somebody writes at the same moment.
const DELETE_TRIES: usize = 5;
/// Longest name of a certificate, in characters.
const CERT_NAME_CHARS_MAX: usize = 256;
/// Most entries of each list of the cross-origin rules.
const CORS_ENTRIES_MAX: usize = 100;

/// What a custom domain is made from, in the wire's spelling. On an update only present members apply.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DomainInput {
    /// The host; only on create.
    pub domain_name: Option<String>,
    /// Over what it is served.
    pub protocol: Option<Scheme>,
    /// All routes; on an update they replace those before.
    pub route_config: Option<RouteConfig>,
    /// Who may call.
    pub auth_config: Option<AuthConfig>,
    /// The certificate with its key.
    pub cert_config: Option<CertConfig>,
    /// Which TLS is spoken.
    pub tls_config: Option<TlsConfig>,
    /// Cross-origin rules.
    pub cors_config: Option<CorsConfig>,
    /// The vendor's firewall.
    pub waf_config: Option<WafConfig>,
    /// Kept.
    #[serde(rename = "isE2B")]
    pub is_e2b: Option<bool>,
}

impl Control {
    /// Creates a custom domain. It is served from the moment this returns.
    ///
    /// # Errors
    /// When a member is wrong, a function that is named does not exist, or anybody has a domain of that name.
    pub async fn create_domain(&self, scope: &AccountScope, input: DomainInput) -> Result<Arc<Stored<CustomDomain>>, Error> {
        let name = input.domain_name.as_deref().ok_or_else(|| Error::invalid("domainName", "is required"))?;
        let name: DomainName = name.parse()?;
        self.check_is_not_ours(&name)?;
        let protocol = input.protocol.ok_or_else(|| Error::invalid("protocol", "is required: HTTP, HTTPS or HTTP,HTTPS"))?;
        let now = self.now();
        let domain = CustomDomain {
            domain_name: name.clone(),
            protocol,
            route_config: input.route_config,
            auth_config: input.auth_config,
            cert_config: input.cert_config.filter(|cert| *cert != CertConfig::default()),
            tls_config: input.tls_config,
            cors_config: input.cors_config,
            waf_config: input.waf_config,
            is_e2b: input.is_e2b,
            created: now,
            modified: now,
        };
        self.check_domain(scope, &domain, None)?;
        self.check_auth(&domain).await?;
        let key = scope.domain(name.clone());
        match self.inner.store.create_domain(&key, &domain, self.limits().domains_per_account_max).await {
            Ok(revision) => {
                tracing::info!(account = %scope.account(), domain = %name, "custom domain created");
                Ok(Arc::new(Stored { value: domain, revision }))
            }
            Err(CreateError::AlreadyExists) => Err(Error::DomainExists { name }),
            Err(CreateError::LimitExceeded { limit }) => Err(Error::LimitExceeded { what: "custom domains", limit }),
            Err(CreateError::Store(error)) => Err(error.into()),
            Err(other @ (CreateError::FunctionNotFound | CreateError::PrefixTaken | CreateError::VersionNotFound { .. })) => {
                Err(Error::platform("create the custom domain", other))
            }
        }
    }

    /// A custom domain as it is now.
    ///
    /// # Errors
    /// When the account has none of that name.
    pub fn get_domain(&self, scope: &AccountScope, name: &str) -> Result<Arc<Stored<CustomDomain>>, Error> {
        self.domain(scope, name).map(|(_, stored)| stored)
    }

    fn domain(&self, scope: &AccountScope, name: &str) -> Result<(DomainKey, Arc<Stored<CustomDomain>>), Error> {
        let key = scope.domain(name.parse()?);
        match self.inner.store.view().domain(&key) {
            Some(stored) => Ok((key, Arc::clone(stored))),
            None => Err(Error::DomainNotFound { name: key.name().clone() }),
        }
    }

    /// Changes the members that are present, all of them or none. Calls in flight and connections that are open go on.
    ///
    /// # Errors
    /// [`Error::ConcurrentUpdate`] when somebody else wrote since this call began.
    pub async fn update_domain(
        &self,
        scope: &AccountScope,
        name: &str,
        patch: DomainInput,
    ) -> Result<Arc<Stored<CustomDomain>>, Error> {
        let (key, current) = self.domain(scope, name)?;
        if patch.domain_name.as_deref().is_some_and(|given| !given.eq_ignore_ascii_case(name)) {
            return Err(Error::invalid("domainName", "cannot be changed"));
        }
        let mut domain = current.value.clone();
        domain.protocol = patch.protocol.unwrap_or(domain.protocol);
        domain.route_config = patch.route_config.or(domain.route_config);
        domain.auth_config = patch.auth_config.or(domain.auth_config);
        domain.tls_config = patch.tls_config.or(domain.tls_config);
        domain.cors_config = patch.cors_config.or(domain.cors_config);
        domain.waf_config = patch.waf_config.or(domain.waf_config);
        domain.is_e2b = patch.is_e2b.or(domain.is_e2b);
        if let Some(mut cert) = patch.cert_config {
            // A key is never shown, so that who gives back what was shown has none to give.
            let same = domain.cert_config.as_ref().filter(|kept| kept.certificate == cert.certificate);
            if let Some(kept) = same.filter(|_| cert.private_key.is_empty()) {
                cert.private_key.clone_from(&kept.private_key);
            }
            // Nothing in it takes the certificate away.
            domain.cert_config = if cert == CertConfig::default() { None } else { Some(cert) };
        }
        self.check_domain(scope, &domain, Some(&current.value))?;
        if domain.auth_config != current.value.auth_config {
            self.check_auth(&domain).await?;
        }
        if domain == current.value {
            return Ok(current);
        }
        domain.modified = self.now();
        match self.inner.store.replace_domain(&key, &domain, current.revision).await {
            Ok(revision) => {
                tracing::info!(account = %scope.account(), domain = %key.name(), "custom domain changed");
                Ok(Arc::new(Stored { value: domain, revision }))
            }
            Err(ReplaceError::NotFound) => Err(Error::DomainNotFound { name: key.name().clone() }),
            Err(ReplaceError::Conflict { .. }) => Err(Error::ConcurrentUpdate),
            Err(ReplaceError::Store(error)) => Err(error.into()),
            Err(other @ ReplaceError::VersionNotFound { .. }) => Err(Error::platform("replace the custom domain", other)),
        }
    }

    /// Deletes a custom domain. Its host answers no more.
    ///
    /// # Errors
    /// When the account has none of that name.
    pub async fn delete_domain(&self, scope: &AccountScope, name: &str) -> Result<(), Error> {
        for _ in 0..DELETE_TRIES {
            let (key, current) = self.domain(scope, name)?;
            match self.inner.store.delete_domain(&key, current.revision).await {
                Ok(()) => return Ok(()),
                Err(DeleteError::Conflict { .. }) => {}
                Err(DeleteError::NotFound) => return Err(Error::DomainNotFound { name: key.name().clone() }),
                Err(DeleteError::Store(error)) => return Err(error.into()),
                Err(error @ DeleteError::NotEmpty) => return Err(Error::platform("delete the custom domain", error)),
            }
        }
        Err(Error::ConcurrentUpdate)
    }

    /// One page of the account's custom domains by name, and the token of the next page.
    ///
    /// # Errors
    /// When the page makes no sense.
    pub fn list_domains(&self, scope: &AccountScope, paging: &Paging) -> Result<Listing<CustomDomain>, Error> {
        let purpose = ["domains", scope.account().as_str()];
        let view = self.inner.store.view();
        let prefix = paging.prefix().to_ascii_lowercase();
        let domains = view.domains(scope.account()).filter(|domain| domain.value.domain_name.as_str().starts_with(&prefix));
        let is_after = |domain: &Stored<CustomDomain>, last: &str| domain.value.domain_name.as_str() > last;
        page(&self.inner.seal, &purpose, paging, domains, is_after, |domain| domain.value.domain_name.to_string())
    }

    /// The names under which the platform itself is reached stay its own.
    fn check_is_not_ours(&self, name: &DomainName) -> Result<(), Error> {
        let reserved = self.inner.config.reserved_domains.iter().map(String::as_str).chain(["localhost"]);
        match reserved.into_iter().find(|own| name.is_within(own)) {
            Some(own) => Err(Error::invalid("domainName", format!("must not lie within '{own}', which is the platform's own"))),
            None => Ok(()),
        }
    }

    /// Everything that makes a domain one that can be served. What `before` had already is not held against it: a certificate
    /// that has expired, or a function that is gone, must not be in the way of a change to something else.
    fn check_domain(&self, scope: &AccountScope, domain: &CustomDomain, before: Option<&CustomDomain>) -> Result<(), Error> {
        let is_new = |same: &dyn Fn(&CustomDomain) -> bool| !before.is_some_and(same);
        if is_new(&|before| before.route_config == domain.route_config) {
            self.check_routes(scope, &self.inner.store.view(), domain.route_config.as_ref())?;
        }
        if let Some(cors) = &domain.cors_config {
            check_cors(cors)?;
        }
        if domain.waf_config.as_ref().and_then(|waf| waf.enable_waf) == Some(true) {
            return Err(Error::invalid(
                "wafConfig.enableWAF",
                "must be false or left out: there is no firewall of that kind here",
            ));
        }
        match &domain.cert_config {
            None if domain.protocol.serves_https() => {
                return Err(Error::invalid("certConfig", "is required for protocol HTTPS: certificate and privateKey as PEM"));
            }
            None => {
                if domain.tls_config.is_some() && is_new(&|before| before.tls_config == domain.tls_config) {
                    return Err(Error::invalid("tlsConfig", "needs a certificate: give certConfig and protocol HTTPS as well"));
                }
            }
            Some(cert) => {
                let name = cert.cert_name.as_deref().unwrap_or_default();
                if name.chars().count() > CERT_NAME_CHARS_MAX {
                    let problem = format!("must be at most {CERT_NAME_CHARS_MAX} characters");
                    return Err(Error::invalid("certConfig.certName", problem));
                }
                let certificate = Certificate::read(cert)?;
                if is_new(&|before| before.cert_config == domain.cert_config) {
                    certificate.check(&domain.domain_name, self.now())?;
                }
                dunlin_tls::server_config(&certificate, domain.tls_config.as_ref())?;
            }
        }
        Ok(())
    }

    async fn check_auth(&self, domain: &CustomDomain) -> Result<(), Error> {
        let field = "authConfig.authInfo";
        let info = domain.auth_config.as_ref().and_then(|auth| auth.auth_info.as_deref());
        match domain.auth_type() {
            AuthType::Anonymous | AuthType::Function => Ok(()),
            AuthType::Jwt => {
                let text = info.ok_or_else(|| Error::invalid(field, "is required for authType 'jwt': JSON in a string"))?;
                self.check_keys(&JwtConfig::parse(text, field)?, field).await
            }
        }
    }

    /// A key set is one when it is written, wherever it is.
    pub(crate) async fn check_keys(&self, config: &JwtConfig, field: &str) -> Result<(), Error> {
        let field = format!("{field}.jwks");
        let jwks = match &config.jwks {
            Jwks::Given(jwks) => jwks.clone(),
            Jwks::At(address) => {
                let fetched = self.inner.outbound.get(address).await;
                let fetched = fetched.map_err(|error| Error::invalid(&field, error.to_string()))?;
                serde_json::from_slice(&fetched).map_err(|_| Error::invalid(&field, "leads to something else than JSON"))?
            }
        };
        TokenKeys::read(&jwks, &field)?;
        Ok(())
    }

    fn check_routes(&self, scope: &AccountScope, view: &View, routes: Option<&RouteConfig>) -> Result<(), Error> {
        let Some(config) = routes else { return Ok(()) };
        RouteTable::new(config, self.limits())?;
        for route in &config.routes {
            // A route means something when it is written; later the function or its version may go.
            let function = route.function_name.as_deref().unwrap_or_default().parse()?;
            resolve(view, &scope.function(function), route.qualifier.as_deref())?;
        }
        Ok(())
    }
}

fn check_cors(cors: &CorsConfig) -> Result<(), Error> {
    let lists = [
        ("allowHeaders", &cors.allow_headers),
        ("allowMethods", &cors.allow_methods),
        ("allowOrigins", &cors.allow_origins),
        ("exposeHeaders", &cors.expose_headers),
    ];
    for (member, list) in lists {
        if list.len() > CORS_ENTRIES_MAX {
            let problem = format!("may hold {CORS_ENTRIES_MAX} entries at most (actual: {})", list.len());
            return Err(Error::invalid(format!("corsConfig.{member}"), problem));
        }
        let graphic = |entry: &String| (1..=1024).contains(&entry.len()) && entry.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(index) = list.iter().position(|entry| !graphic(entry)) {
            return Err(Error::invalid(format!("corsConfig.{member}[{index}]"), "must have 1 to 1024 visible ASCII characters"));
        }
    }
    if !(0..=86_400).contains(&cors.max_age) {
        return Err(Error::invalid("corsConfig.maxAge", format!("must be between 0 and 86400 (actual: {})", cors.max_age)));
    }
    Ok(())
}
