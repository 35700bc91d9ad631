//! Who may call a domain: signers, and bearers of tokens, whose claims the function is told.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dunlin_testkit::Platform;
use jiff::Timestamp;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::support::{ask, echoes, platform, platform_with, put, seen, send};

const HOST: &str = "www.example.test";

struct Issuer {
    key: EcdsaKeyPair,
    kid: &'static str,
}

fn part(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    fn new(kid: &'static str) -> Result<Self> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok().context("a key")?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).ok().context("a key")?;
        Ok(Self { key, kid })
    }

    fn point(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    fn jwk(&self) -> Value {
        let (x, y) = (part(&self.point()[1..33]), part(&self.point()[33..]));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "use": "sig", "alg": "ES256"})
    }

    fn token(&self, claims: &Value) -> Result<String> {
        self.signed(&json!({"alg": "ES256", "typ": "JWT", "kid": self.kid}), claims)
    }

    fn signed(&self, header: &Value, claims: &Value) -> Result<String> {
        let message = message(header, claims);
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).ok().context("a signature")?;
        Ok(format!("{message}.{}", part(signature.as_ref())))
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", part(header.to_string().as_bytes()), part(claims.to_string().as_bytes()))
}

fn later(seconds: i64) -> i64 {
    Timestamp::now().as_second() + seconds
}

fn guarded(platform: &Platform, issuer: &Issuer, more: &Value) -> Result<()> {
    let mut info = json!({"jwks": {"keys": [issuer.jwk()]}, "tokenLookup": "header:Authorization:Bearer ,cookie:tok"});
    info.as_object_mut().context("an object")?.extend(more.as_object().context("an object")?.clone());
    let members = json!({
        "routeConfig": {"routes": [{"path": "/*", "functionName": "web"}]},
        "authConfig": {"authType": "jwt", "authInfo": info.to_string()},
    });
    put(platform, HOST, &members).map(drop)
}

#[test]
fn tokens_let_in_those_whom_the_key_set_vouches_for() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web"])?;
    let (issuer, other) = (Issuer::new("one")?, Issuer::new("one")?);
    guarded(&platform, &issuer, &json!({}))?;
    let status = |token: &str| -> Result<(u16, String)> {
        let reply = ask(&platform, HOST, "GET", "/", &[("authorization", &format!("Bearer {token}"))])?;
        Ok((reply.status, reply.text()))
    };
    let good = issuer.token(&json!({"sub": "ann", "exp": later(600)}))?;
    assert_eq!(status(&good)?.0, 200);
    assert_eq!(ask(&platform, HOST, "GET", "/", &[("cookie", &format!("a=b; tok={good}"))])?.status, 200);
    let claims = json!({"sub": "ann", "exp": later(600)});
    let none = format!("{}.", message(&json!({"alg": "none", "kid": "one"}), &claims));
    // The public key, taken for a shared secret.
    let confused = message(&json!({"alg": "HS256", "kid": "one"}), &claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, issuer.point()), confused.as_bytes());
    let confused = format!("{confused}.{}", part(tag.as_ref()));
    let (head, tail) = good.rsplit_once('.').context("three parts")?;
    let changed = format!("{}x.{tail}", &head[..head.len() - 1]);
    for (what, token, why) in [
        ("expired", issuer.token(&json!({"exp": later(-600)}))?, "expired"),
        ("not yet", issuer.token(&json!({"nbf": later(600)}))?, "not valid yet"),
        ("another issuer under the same kid", other.token(&claims)?, "signature"),
        ("unknown kid", issuer.signed(&json!({"alg": "ES256", "kid": "two"}), &claims)?, "kid"),
        ("alg none", none, "alg"),
        ("alg confusion", confused, "alg"),
        ("changed", changed, ""),
        ("no token", "x".to_owned(), "malformed"),
    ] {
        let (status, text) = status(&token)?;
        ensure!(status == 403 && text.contains(why) && text.contains("AccessDenied"), "{what}: {status} {text}");
    }
    assert_eq!(ask(&platform, HOST, "GET", "/", &[])?.status, 403, "without a token");
    // Keys are changed: the old ones end at once.
    guarded(&platform, &Issuer::new("two")?, &json!({}))?;
    assert_eq!(status(&good)?.0, 403);
    put(&platform, HOST, &json!({"authConfig": {"authType": "anonymous"}}))?;
    assert_eq!(ask(&platform, HOST, "GET", "/", &[])?.status, 200);
    Ok(())
}

/// Serves what it is told to at an address of its own, as a server of key sets does.
fn key_server(keys: Value) -> Result<(String, Arc<Mutex<Value>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}/jwks.json", listener.local_addr()?);
    let served = Arc::new(Mutex::new(keys));
    let keys = Arc::clone(&served);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let _ = (&socket).read(&mut [0; 4096]);
            let body = keys.lock().map(|keys| keys.to_string()).unwrap_or_default();
            let _ = write!(&socket, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        }
    });
    Ok((address, served))
}

#[test]
fn keys_are_fetched_from_inside_only_where_the_operator_allows_it() -> Result<()> {
    let issuer = Issuer::new("one")?;
    let (address, served) = key_server(json!({"keys": [issuer.jwk()]}))?;
    let info = json!({"jwks": address}).to_string();
    let members = json!({
        "routeConfig": {"routes": [{"path": "/*", "functionName": "web"}]},
        "authConfig": {"authType": "jwt", "authInfo": info},
    });
    let (careful, _) = platform()?;
    echoes(&careful, &["web"])?;
    let refused = send(&careful, HOST, &members)?;
    ensure!(refused.status == 400 && refused.text().contains("authConfig.authInfo.jwks"), "{}", refused.text());
    let (trusting, _) = platform_with(&["--fetch-inside"])?;
    echoes(&trusting, &["web"])?;
    put(&trusting, HOST, &members)?;
    let bearer = format!("Bearer {}", issuer.token(&json!({"sub": "ann", "exp": later(600)}))?);
    assert_eq!(ask(&trusting, HOST, "GET", "/", &[("authorization", &bearer)])?.status, 200);
    let other = format!("Bearer {}", Issuer::new("one")?.token(&json!({"exp": later(600)}))?);
    assert_eq!(ask(&trusting, HOST, "GET", "/", &[("authorization", &other)])?.status, 403);
    // What is no key set is refused when it is written.
    *served.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = json!({"keys": []});
    let refused = send(&trusting, HOST, &json!({"authConfig": {"authType": "jwt", "authInfo": format!("{info} ")}}))?;
    ensure!(refused.status == 400 && refused.text().contains("authConfig.authInfo.jwks.keys"), "{}", refused.text());
    Ok(())
}

#[test]
fn claims_arrive_and_cannot_be_forged() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web"])?;
    let issuer = Issuer::new("one")?;
    guarded(&platform, &issuer, &json!({"claimPassBy": "header:sub:X-User,query:role:role", "whitelist": ["/open/*"]}))?;
    let token = issuer.token(&json!({"sub": "ann", "role": "reader", "exp": later(600)}))?;
    let bearer = format!("Bearer {token}");
    let forged = [("x-user", "root"), ("x_user", "root"), ("connection", "x-user"), ("authorization", bearer.as_str())];
    let told = seen(&platform, HOST, "/x?role=admin&%72ole=admin&a=1", &forged)?;
    assert_eq!((&told["headers"]["X-User"], &told["query"]), (&json!("ann"), &json!({"a": "1", "role": "reader"})));
    assert_eq!(told["headers"].get("X_user"), None, "{told}");
    // Where no token is needed the names are still not the caller's.
    let told = seen(&platform, HOST, "/open/x?role=admin&a=1", &forged[..3])?;
    assert_eq!((told["headers"].get("X-User"), told["headers"].get("X_user"), &told["query"]), (None, None, &json!({"a": "1"})));
    for target in ["/x", "/open/../x", "/open/..%2fx", "/open/%2e%2e/x", "//x"] {
        assert_eq!(ask(&platform, HOST, "GET", target, &forged[..3])?.status, 403, "{target}");
    }
    // The other way round: these paths alone.
    guarded(&platform, &issuer, &json!({"blacklist": ["/admin", "/admin/*"]}))?;
    for (target, status) in [("/x", 200), ("/admin", 403), ("//admin", 403), ("/%61dmin/y", 403), ("/x/../admin", 403)] {
        assert_eq!(ask(&platform, HOST, "GET", target, &[])?.status, status, "{target}");
    }
    Ok(())
}

#[test]
fn a_triggers_tokens_are_checked_as_a_domains_are() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web"])?;
    let issuer = Issuer::new("one")?;
    let info = json!({"jwks": {"keys": [issuer.jwk()]}, "claimPassBy": "header:sub:x-user"});
    let config = json!({"authType": "jwt", "methods": ["GET"], "authConfig": info.to_string()}).to_string();
    let body = json!({"triggerName": "web", "triggerType": "http", "triggerConfig": config});
    let reply = platform.api.json("POST", "/functions/web/triggers", "CreateTrigger", &body)?;
    ensure!(reply.status == 200, "{}", reply.text());
    let url = reply.json()?["httpTrigger"]["urlInternet"].as_str().unwrap_or_default().to_owned();
    let host = url.trim_start_matches("http://").to_owned();
    let bearer = format!("Bearer {}", issuer.token(&json!({"sub": "ann", "exp": later(600)}))?);
    let told = seen(&platform, &host, "/", &[("authorization", &bearer), ("x-user", "root")])?;
    assert_eq!(told["headers"]["X-User"], "ann");
    assert_eq!(ask(&platform, &host, "GET", "/", &[("x-user", "root")])?.status, 403);
    Ok(())
}

#[test]
fn signed_calls_of_a_domain_are_the_owners_and_no_others() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web"])?;
    let rules = json!({"equalRules": [{"match": "/hello", "replacement": "/rewritten"}]});
    let members = json!({
        "routeConfig": {"routes": [{"path": "/*", "functionName": "web", "rewriteConfig": rules}]},
        "authConfig": {"authType": "function"},
    });
    put(&platform, HOST, &members)?;
    assert_eq!(ask(&platform, HOST, "GET", "/hello", &[])?.status, 403);
    let credentials = platform.api.credentials();
    let call = |secret: &str| -> Result<(u16, String)> {
        let key = dunlin_auth::SigningKey { id: credentials.access_key_id.clone(), secret: secret.to_owned() };
        let headers = dunlin_auth::sign(&key, "GET", "/hello", &[("host".to_owned(), HOST.to_owned())], b"");
        let reply = platform.connect()?.request("GET", "/hello", &headers, b"")?;
        Ok((reply.status, reply.text()))
    };
    // What is signed is the path as it is sent; what the function sees is the path as it is rewritten.
    let (status, text) = call(&credentials.access_key_secret)?;
    ensure!(status == 200 && text.contains("/rewritten"), "{status} {text}");
    assert_eq!(call("guess")?.0, 403);
    Ok(())
}
