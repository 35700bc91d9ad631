//! What the tests of custom domains share: a platform with a TLS door, certificates, and a client that speaks TLS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dunlin_testkit::{Options, Platform, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::{Value, json};

/// Answers with all that it sees of a request.
pub(crate) const ECHO: &str = r#"
import json, os
def handler(event, context):
    seen = json.loads(event)
    return json.dumps({
        "function": context.function.name, "version": os.environ.get("STAGE", ""), "path": seen["rawPath"],
        "query": seen["queryParameters"], "headers": seen["headers"], "context": seen["requestContext"],
    })
"#;

/// A platform with a TLS door, and the door's address.
pub(crate) fn platform() -> Result<(Platform, String)> {
    platform_with(&[])
}

/// The same with further arguments.
pub(crate) fn platform_with(more: &[&str]) -> Result<(Platform, String)> {
    let args = ["--https", "127.0.0.1:0"].iter().chain(more).map(|word| (*word).to_owned()).collect();
    let platform = Platform::start(&Options { args, ..Options::default() })?;
    let printed = platform.printed();
    let address = printed.split("over TLS on https://").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.context("the platform says where it speaks TLS")?.to_owned();
    Ok((platform, address))
}

/// Functions that answer with what they see.
pub(crate) fn echoes(platform: &Platform, names: &[&str]) -> Result<()> {
    for name in names {
        platform.api.create(name, "python3.10", &[("index.py", ECHO)], json!({"instanceConcurrency": 1}))?;
    }
    Ok(())
}

/// Creates or updates a domain and expects it to work.
pub(crate) fn put(platform: &Platform, name: &str, members: &Value) -> Result<Value> {
    let reply = send(platform, name, members)?;
    ensure!(reply.status == 200, "the domain was refused with {}: {}", reply.status, reply.text());
    reply.json()
}

/// Creates the domain, or updates it when it is there.
pub(crate) fn send(platform: &Platform, name: &str, members: &Value) -> Result<Response> {
    let path = format!("/custom-domains/{name}");
    if platform.api.json("GET", &path, "GetCustomDomain", &Value::Null)?.status == 200 {
        return platform.api.json("PUT", &path, "UpdateCustomDomain", members);
    }
    let mut body = json!({"domainName": name, "protocol": "HTTP"});
    body.as_object_mut().context("an object")?.extend(members.as_object().context("an object")?.clone());
    platform.api.json("POST", "/custom-domains", "CreateCustomDomain", &body)
}

/// A request without TLS.
pub(crate) fn ask(platform: &Platform, host: &str, method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let mut all = vec![("host".to_owned(), host.to_owned())];
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    platform.connect()?.request(method, target, &all, b"")
}

/// What the echo saw of a request without TLS.
pub(crate) fn seen(platform: &Platform, host: &str, target: &str, headers: &[(&str, &str)]) -> Result<Value> {
    let reply = ask(platform, host, "GET", target, headers)?;
    ensure!(reply.status == 200, "{host}{target} answered {}: {}", reply.status, reply.text());
    reply.json()
}

/// Signs certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::new(vec![])?;
        // A name of its own: a certificate whose issuer is called like itself is taken for self-signed.
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// A certificate for `names`, in the wire's words.
    pub(crate) fn certificate(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Result<Value> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        change(&mut params);
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        Ok(json!({"certName": "test", "certificate": signed.pem(), "privateKey": key.serialize_pem()}))
    }

    /// A client that trusts this authority and speaks these versions.
    pub(crate) fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        // Every connection is a whole handshake: what is tested is which certificate it is with.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// The authority's own certificate, as PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// A connection over TLS, kept alive between requests.
pub(crate) struct Secured {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Secured {
    /// Connects and shakes hands for `name`.
    pub(crate) fn open(address: &str, name: &str, config: &Arc<ClientConfig>) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from(name.to_owned())?)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The certificate that the other side showed.
    pub(crate) fn certificate(&self) -> Result<Vec<u8>> {
        let chain = self.stream.get_ref().conn.peer_certificates().context("there was a handshake")?;
        Ok(chain.first().context("with a certificate")?.to_vec())
    }

    /// Asks for `target` of `host`; the status and the body.
    pub(crate) fn get(&mut self, host: &str, target: &str, headers: &str) -> Result<(u16, String)> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("a status line")?.parse()?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "the connection was closed in the headers");
            match line.trim_end().split_once(':') {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body)?))
    }
}
