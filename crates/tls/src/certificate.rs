//! Reading a certificate and its key.

use std::fmt;
use std::sync::Arc;

use dunlin_model::domain::CertConfig;
use dunlin_model::{DomainName, InvalidField};
use jiff::Timestamp;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const CERTIFICATE: &str = "certConfig.certificate";
const PRIVATE_KEY: &str = "certConfig.privateKey";
/// Largest PEM, in bytes.
const PEM_BYTES_MAX: usize = 64 << 10;
/// Longest chain.
const CHAIN_MAX: usize = 10;

/// A certificate chain with the key of its first certificate.
#[derive(Clone)]
pub struct Certificate {
    pub(crate) certified: Arc<CertifiedKey>,
    names: Vec<String>,
    from: i64,
    until: i64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).field("until", &self.until).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads PEM, and sees to it that the two halves belong together.
    ///
    /// # Errors
    /// The member that is wrong.
    pub fn read(config: &CertConfig) -> Result<Self, InvalidField> {
        let chain = chain(&config.certificate)?;
        let first = chain.first().ok_or_else(|| InvalidField::new(CERTIFICATE, "is required"))?;
        let (rest, parsed) = X509Certificate::from_der(first)
            .map_err(|_| InvalidField::new(CERTIFICATE, "holds something else than an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(InvalidField::new(CERTIFICATE, "has bytes behind its first certificate"));
        }
        let names = names(&parsed);
        let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let key = private_key(&config.private_key)?;
        let certified = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => InvalidField::new(PRIVATE_KEY, "is not the key of certConfig.certificate"),
            rustls::Error::InvalidCertificate(_) => {
                InvalidField::new(CERTIFICATE, "holds a certificate of a kind that TLS cannot use")
            }
            _ => InvalidField::new(PRIVATE_KEY, "must be an RSA key of 2048 bits or more, or a P-256, P-384 or Ed25519 key"),
        })?;
        Ok(Self { certified: Arc::new(certified), names, from, until })
    }

    /// Sees to it that the certificate is one for `domain`, and that its time is `now`.
    ///
    /// # Errors
    /// Why a client would not take it.
    pub fn check(&self, domain: &DomainName, now: Timestamp) -> Result<(), InvalidField> {
        let wrong = |problem: String| Err(InvalidField::new(CERTIFICATE, problem));
        let shown = |second: i64| Timestamp::from_second(second).map_or_else(|_| second.to_string(), |at| at.to_string());
        if now.as_second() > self.until {
            return wrong(format!("has expired on {}; give one that is valid", shown(self.until)));
        }
        if now.as_second() < self.from {
            return wrong(format!("is not valid before {}", shown(self.from)));
        }
        if !self.names.iter().any(|name| covers(name, domain.as_str())) {
            let names: Vec<&str> = self.names.iter().map(String::as_str).take(10).collect();
            let names = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
            return wrong(format!("is not for {domain}; it is for {names}"));
        }
        Ok(())
    }
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, InvalidField> {
    bounded(pem, CERTIFICATE)?;
    let wrong = |problem: String| InvalidField::new(CERTIFICATE, problem);
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = read.map_err(|_| wrong("must be PEM: a section is malformed".to_owned()))?;
    match chain.len() {
        0 => Err(wrong("must be PEM with a section '-----BEGIN CERTIFICATE-----'".to_owned())),
        1..=CHAIN_MAX => Ok(chain),
        count => Err(wrong(format!("must be {CHAIN_MAX} certificates at most (actual: {count})"))),
    }
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, InvalidField> {
    bounded(pem, PRIVATE_KEY)?;
    let wrong = |problem: &str| InvalidField::new(PRIVATE_KEY, problem);
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(wrong("is encrypted; give it without a passphrase, for example as 'openssl pkey' prints it"));
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(pem.as_bytes());
    let key = keys.next().ok_or_else(|| wrong("must be PEM with a section '-----BEGIN PRIVATE KEY-----'"))?;
    let key = key.map_err(|_| wrong("must be PEM: a section is malformed"))?;
    if keys.next().is_some() {
        return Err(wrong("must be one key"));
    }
    Ok(key)
}

fn bounded(pem: &str, field: &str) -> Result<(), InvalidField> {
    match pem.len() {
        0 => Err(InvalidField::new(field, "is required")),
        1..=PEM_BYTES_MAX => Ok(()),
        bytes => Err(InvalidField::new(field, format!("must be at most {PEM_BYTES_MAX} bytes (actual: {bytes})"))),
    }
}

/// The hosts it is for. A common name has not counted for a long time (RFC 6125, section 6.4.4).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let hosts = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(host) => Some(host.to_ascii_lowercase()),
        _ => None,
    });
    hosts.collect()
}

/// `*` stands for the whole first label, and for one.
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd};

    use super::*;

    fn pair(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertConfig {
        signed_by(names, change, &KeyPair::generate().unwrap())
    }

    fn signed_by(names: &[&str], change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> CertConfig {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(2035, 1, 1);
        change(&mut params);
        CertConfig { cert_name: None, certificate: params.self_signed(key).unwrap().pem(), private_key: key.serialize_pem() }
    }

    fn now() -> Timestamp {
        "2026-11-28T00:00:00Z".parse().unwrap()
    }

    fn check(config: &CertConfig, domain: &str) -> Result<(), InvalidField> {
        Certificate::read(config)?.check(&domain.parse().unwrap(), now())
    }

    #[test]
    fn a_certificate_is_for_its_names() {
        let config = pair(&["www.example.com", "*.wild.example"], |_| {});
        for domain in ["www.example.com", "a.wild.example"] {
            check(&config, domain).unwrap_or_else(|refused| panic!("{domain}: {refused}"));
        }
        for domain in ["example.com", "a.b.wild.example", "wild.example", "xwww.example.com"] {
            let refused = check(&config, domain).expect_err(domain);
            assert!(refused.field == CERTIFICATE && refused.problem.contains("www.example.com"), "{refused}");
        }
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            check(&signed_by(&["a.example"], |_| {}, &key), "a.example").unwrap();
        }
    }

    #[test]
    fn a_certificate_has_its_time() {
        let expired = pair(&["a.example"], |params| params.not_after = date_time_ymd(2026, 1, 1));
        let early = pair(&["a.example"], |params| params.not_before = date_time_ymd(2030, 1, 1));
        assert!(check(&expired, "a.example").unwrap_err().problem.contains("expired on 2026-01-01"));
        assert!(check(&early, "a.example").unwrap_err().problem.contains("not valid before 2030-01-01"));
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        let (good, other) = (pair(&["a.example"], |_| {}), pair(&["a.example"], |_| {}));
        let p521 = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
        let truncated = &good.certificate[..good.certificate.len() - 40];
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let both = good.private_key.repeat(2);
        let chain = good.certificate.repeat(11);
        let large = "x".repeat(70_000);
        let cases: &[(&str, &str, &str)] = &[
            (&good.certificate, &other.private_key, PRIVATE_KEY),
            (&good.certificate, encrypted, PRIVATE_KEY),
            (&good.certificate, old, PRIVATE_KEY),
            (&good.certificate, p521, PRIVATE_KEY),
            (&good.certificate, "", PRIVATE_KEY),
            (&good.certificate, "garbage", PRIVATE_KEY),
            (&good.certificate, &good.certificate, PRIVATE_KEY),
            (&good.certificate, &both, PRIVATE_KEY),
            (&good.certificate, &large, PRIVATE_KEY),
            ("", &good.private_key, CERTIFICATE),
            ("garbage", &good.private_key, CERTIFICATE),
            (garbage, &good.private_key, CERTIFICATE),
            (truncated, &good.private_key, CERTIFICATE),
            (&good.private_key, &good.private_key, CERTIFICATE),
            (&chain, &good.private_key, CERTIFICATE),
        ];
        for (index, (certificate, key, field)) in cases.iter().enumerate() {
            let config = CertConfig { cert_name: None, certificate: (*certificate).to_owned(), private_key: (*key).to_owned() };
            let refused = Certificate::read(&config).expect_err("something is wrong");
            assert_eq!(refused.field, *field, "case {index}: {refused}");
        }
        assert!(!format!("{:?} {:?}", good, Certificate::read(&good).unwrap()).contains("PRIVATE"));
    }
}
