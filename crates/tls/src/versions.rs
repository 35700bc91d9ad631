//! Which versions and suites a domain speaks.

use std::sync::Arc;

use dunlin_model::InvalidField;
use dunlin_model::domain::{TlsConfig, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SignatureAlgorithm, SupportedCipherSuite, SupportedProtocolVersion};

use crate::certificate::Certificate;

/// The one protocol behind the handshake.
const HTTP_1_1: &[u8] = b"http/1.1";
/// Most names in a list of suites.
const SUITES_MAX: usize = 64;

/// What a handshake with the domain is answered with.
///
/// # Errors
/// The member after which no client could connect, or that names nothing.
pub fn server_config(certificate: &Certificate, tls: Option<&TlsConfig>) -> Result<Arc<ServerConfig>, InvalidField> {
    let (none, mut provider) = (TlsConfig::default(), default_provider());
    let tls = tls.unwrap_or(&none);
    let versions = versions(tls)?;
    if let Some(named) = tls.cipher_suites.as_deref().filter(|named| !named.is_empty()) {
        provider.cipher_suites = suites(named, &provider, &versions, certificate)?;
    }
    let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&versions);
    // Every combination that was let through has a version with a suite.
    let builder = builder.map_err(|error| InvalidField::new("tlsConfig", format!("leaves nothing to speak: {error}")))?;
    let only = Only(Some(Arc::clone(&certificate.certified)));
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(only));
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

/// What a handshake for a name that nobody has is answered with: an alert.
#[must_use]
pub fn nobody() -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider's own suites fit its own versions");
    Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(Only(None))))
}

/// One certificate whatever is asked for: the domain was found before.
#[derive(Debug)]
struct Only(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

fn versions(tls: &TlsConfig) -> Result<Vec<&'static SupportedProtocolVersion>, InvalidField> {
    let (min, max) = (tls.min_version.unwrap_or(TlsVersion::V1_2), tls.max_version.unwrap_or(TlsVersion::V1_3));
    if max < TlsVersion::V1_2 {
        return Err(InvalidField::new("tlsConfig.maxVersion", "must be TLSv1.2 or TLSv1.3: older versions are not spoken"));
    }
    if min > max {
        return Err(InvalidField::new("tlsConfig.minVersion", "must not be newer than tlsConfig.maxVersion"));
    }
    let mut versions = Vec::new();
    if min <= TlsVersion::V1_2 {
        versions.push(&TLS12);
    }
    if max >= TlsVersion::V1_3 {
        versions.push(&TLS13);
    }
    Ok(versions)
}

/// The suites that are named and spoken. As with other servers, those of TLS 1.3 are restricted only when one of them is named.
fn suites(
    named: &[String],
    provider: &CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
    certificate: &Certificate,
) -> Result<Vec<SupportedCipherSuite>, InvalidField> {
    let field = "tlsConfig.cipherSuites";
    if named.len() > SUITES_MAX {
        return Err(InvalidField::new(field, format!("may hold {SUITES_MAX} names at most (actual: {})", named.len())));
    }
    let name_of = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let asked = |suite: &SupportedCipherSuite| {
        named.iter().any(|name| name.replace("TLS13_", "TLS_").eq_ignore_ascii_case(&name_of(suite)))
    };
    if let Some(index) = named.iter().position(|name| !is_a_suites_name(name)) {
        let problem = "must be a suite's registered name, for example TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        return Err(InvalidField::new(format!("{field}[{index}]"), problem));
    }
    let newest = |suite: &SupportedCipherSuite| suite.version() == &TLS13;
    let restricts_newest = provider.cipher_suites.iter().any(|suite| newest(suite) && asked(suite));
    let kept: Vec<_> =
        provider.cipher_suites.iter().filter(|suite| asked(suite) || (newest(suite) && !restricts_newest)).copied().collect();
    let usable = |suite: &SupportedCipherSuite| {
        versions.contains(&suite.version())
            && match suite {
                SupportedCipherSuite::Tls13(_) => true,
                SupportedCipherSuite::Tls12(suite) => {
                    suite.sign.iter().any(|scheme| match certificate.certified.key.algorithm() {
                        SignatureAlgorithm::RSA => format!("{scheme:?}").starts_with("RSA"),
                        _ => !format!("{scheme:?}").starts_with("RSA"),
                    })
                }
            }
    };
    if kept.iter().any(usable) {
        return Ok(kept);
    }
    let spoken: Vec<String> = provider.cipher_suites.iter().filter(|suite| usable(suite)).map(name_of).collect();
    let problem =
        format!("names no suite that can be spoken with this certificate and these versions; name one of {}", spoken.join(", "));
    Err(InvalidField::new(field, problem))
}

/// Old suites may be named, as in the vendor's defaults: they are not spoken, and nobody has to change a list for that.
fn is_a_suites_name(name: &str) -> bool {
    name.len() <= 64
        && name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("TLS_") || start.eq_ignore_ascii_case("TLS1"))
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use dunlin_model::domain::CertConfig;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate() -> Certificate {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        Certificate::read(&CertConfig { cert_name: None, certificate: signed.pem(), private_key: key.serialize_pem() }).unwrap()
    }

    fn tls(min: Option<TlsVersion>, max: Option<TlsVersion>, suites: &[&str]) -> TlsConfig {
        let cipher_suites = (!suites.is_empty()).then(|| suites.iter().map(|name| (*name).to_owned()).collect());
        TlsConfig { min_version: min, max_version: max, cipher_suites }
    }

    #[test]
    fn old_versions_may_be_allowed_but_are_not_spoken() {
        use TlsVersion::{V1_0, V1_1, V1_2, V1_3};
        for (min, max, spoken) in [
            (None, None, 2),
            (Some(V1_0), Some(V1_3), 2),
            (Some(V1_1), Some(V1_2), 1),
            (Some(V1_3), None, 1),
            (Some(V1_2), Some(V1_2), 1),
        ] {
            assert_eq!(versions(&tls(min, max, &[])).unwrap().len(), spoken, "{min:?} {max:?}");
        }
        for (min, max, field) in
            [(Some(V1_0), Some(V1_1), "tlsConfig.maxVersion"), (Some(V1_3), Some(V1_2), "tlsConfig.minVersion")]
        {
            assert_eq!(versions(&tls(min, max, &[])).unwrap_err().field, field);
        }
    }

    #[test]
    fn a_list_of_suites_leaves_one_that_can_be_spoken_or_is_refused() {
        let certificate = certificate();
        let (ecdsa, rsa) = ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        let v1_2 = Some(TlsVersion::V1_2);
        for (config, fine) in [
            (tls(None, v1_2, &[ecdsa]), true),
            (tls(None, v1_2, &["TLS_RSA_WITH_AES_128_CBC_SHA", ecdsa]), true),
            (tls(None, None, &[rsa]), true),
            (tls(None, v1_2, &[rsa]), false),
            (tls(None, v1_2, &["TLS_RSA_WITH_AES_128_CBC_SHA"]), false),
            (tls(None, v1_2, &["TLS_AES_128_GCM_SHA256"]), false),
            (tls(Some(TlsVersion::V1_3), None, &["TLS_AES_128_GCM_SHA256"]), true),
            (tls(None, None, &["AES"]), false),
            (tls(None, None, &["TLS_\n"]), false),
            (tls(None, None, &[ecdsa; 65]), false),
        ] {
            let made = server_config(&certificate, Some(&config));
            assert_eq!(made.is_ok(), fine, "{config:?}");
            if let Err(refused) = made {
                assert!(refused.field.starts_with("tlsConfig.cipherSuites"), "{refused}");
            }
        }
    }
}
