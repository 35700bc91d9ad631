//! HTTPS: which certificate, which versions, and changes under load.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::support::{Authority, Secured, ask, echoes, platform, put};

fn routes() -> Value {
    json!({"routes": [{"path": "/*", "functionName": "web"}]})
}

#[test]
fn each_name_has_its_certificate_and_nothing_else_is_served_under_it() -> Result<()> {
    let (platform, door) = platform()?;
    echoes(&platform, &["web"])?;
    let authority = Authority::new()?;
    for name in ["one.example.test", "two.example.test"] {
        let certificate = authority.certificate(&[name], |_| {})?;
        let members = json!({"protocol": "HTTP,HTTPS", "routeConfig": routes(), "certConfig": certificate});
        let shown = put(&platform, name, &members)?;
        assert_eq!(shown["certConfig"]["certificate"], certificate["certificate"]);
        assert_eq!(shown["certConfig"]["certName"], "test");
        assert_eq!(shown["certConfig"].get("privateKey"), None, "a private key is never shown");
        ensure!(!shown.to_string().contains("PRIVATE KEY"));
    }
    let client = authority.client(&[&TLS13, &TLS12])?;
    for name in ["one.example.test", "two.example.test"] {
        let mut connection = Secured::open(&door, name, &client)?;
        let (status, body) = connection.get(name, "/a?b=c", "")?;
        assert_eq!(status, 200, "{body}");
        let seen: Value = serde_json::from_str(&body)?;
        assert_eq!((&seen["context"]["domainName"], &seen["path"]), (&json!(name), &json!("/a")));
        // The same connection again, and then for a name that its certificate does not vouch for.
        assert_eq!(connection.get(name, "/", "")?.0, 200);
        let other = if name.starts_with("one") { "two.example.test" } else { "one.example.test" };
        assert_eq!(connection.get(other, "/", "")?.0, 421);
    }
    // Names that nobody has, names of ours, and none at all.
    for name in ["three.example.test", "localhost", "x.fn.localhost"] {
        ensure!(Secured::open(&door, name, &client).is_err(), "a handshake for {name}");
    }
    ensure!(Secured::open(&door, "127.0.0.1", &client).is_err(), "a handshake without a name");
    // Without TLS on the TLS door, and with TLS on the plain door.
    ensure!(
        dunlin_testkit::Connection::open(&door)?.request("GET", "/", &[("host".into(), "one.example.test".into())], b"").is_err()
    );
    ensure!(Secured::open(platform.address(), "one.example.test", &client).is_err());

    // Over HTTPS only, then over HTTP only.
    put(&platform, "one.example.test", &json!({"protocol": "HTTPS"}))?;
    let refused = ask(&platform, "one.example.test", "GET", "/", &[])?;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(Secured::open(&door, "one.example.test", &client)?.get("one.example.test", "/", "")?.0, 200);
    let mut open = Secured::open(&door, "one.example.test", &client)?;
    put(&platform, "one.example.test", &json!({"protocol": "HTTP"}))?;
    assert_eq!(ask(&platform, "one.example.test", "GET", "/", &[])?.status, 200);
    ensure!(Secured::open(&door, "one.example.test", &client).is_err(), "HTTP only");
    assert_eq!(open.get("one.example.test", "/", "")?.0, 200, "a connection that is open goes on");
    Ok(())
}

#[test]
fn curl_takes_the_certificate() -> Result<()> {
    let (platform, door) = platform()?;
    echoes(&platform, &["web"])?;
    let (authority, name) = (Authority::new()?, "www.example.test");
    let certificate = authority.certificate(&["*.example.test"], |_| {})?;
    put(&platform, name, &json!({"protocol": "HTTPS", "routeConfig": routes(), "certConfig": certificate}))?;
    let folder = tempfile::tempdir()?;
    let trusted = folder.path().join("ca.pem");
    std::fs::write(&trusted, authority.pem())?;
    let port = door.rsplit(':').next().context("a port")?;
    let curl = |more: &[&str]| -> Result<(bool, String)> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--resolve", &format!("{name}:{port}:127.0.0.1"), "--cacert"]).arg(&trusted).args(more);
        let output = command.arg(format!("https://{name}:{port}/hello")).output().context("curl")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    for more in [&[][..], &["--tlsv1.3"], &["--tls-max", "1.2"], &["--http2"]] {
        let (fine, body) = curl(more)?;
        ensure!(fine && body.contains("/hello"), "curl {more:?}: {body}");
    }
    put(&platform, name, &json!({"tlsConfig": {"minVersion": "TLSv1.3"}}))?;
    ensure!(curl(&["--tlsv1.3"])?.0 && !curl(&["--tls-max", "1.2"])?.0, "TLS 1.3 and no older");
    Ok(())
}

#[test]
fn versions_and_suites_are_those_of_the_domain() -> Result<()> {
    let (platform, door) = platform()?;
    echoes(&platform, &["web"])?;
    let (authority, name) = (Authority::new()?, "www.example.test");
    let certificate = authority.certificate(&[name], |_| {})?;
    put(&platform, name, &json!({"protocol": "HTTPS", "routeConfig": routes(), "certConfig": certificate}))?;
    let (old, new) = (authority.client(&[&TLS12])?, authority.client(&[&TLS13])?);
    let suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    for (tls, takes_old, takes_new) in [
        (json!({}), true, true),
        (json!({"minVersion": "TLSv1.0"}), true, true),
        (json!({"minVersion": "TLSv1.3"}), false, true),
        (json!({"minVersion": "TLSv1.2", "maxVersion": "TLSv1.2"}), true, false),
        (json!({"minVersion": "TLSv1.2", "cipherSuites": [suite]}), true, true),
        (json!({"minVersion": "TLSv1.2", "maxVersion": "TLSv1.3", "cipherSuites": ["TLS_AES_128_GCM_SHA256"]}), false, true),
    ] {
        assert_eq!(put(&platform, name, &json!({"tlsConfig": tls}))?["tlsConfig"], tls);
        let taken = (Secured::open(&door, name, &old).is_ok(), Secured::open(&door, name, &new).is_ok());
        assert_eq!(taken, (takes_old, takes_new), "{tls}");
    }
    Ok(())
}

#[test]
fn no_call_is_dropped_while_the_certificate_is_replaced() -> Result<()> {
    const CALLS: usize = 10_000;
    const CALLERS: usize = 4;
    /// Calls on one connection: short enough that connections are made all the time.
    const KEPT: usize = 10;
    let (platform, door) = platform()?;
    echoes(&platform, &["web"])?;
    let (authority, name) = (Authority::new()?, "www.example.test");
    let new = || authority.certificate(&[name], |_| {});
    put(&platform, name, &json!({"protocol": "HTTPS", "routeConfig": routes(), "certConfig": new()?}))?;
    let client = authority.client(&[&TLS13, &TLS12])?;
    let done = Arc::new(AtomicUsize::new(0));
    let (shown, failures) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Mutex::new(Vec::new())));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (door, client, done) = (door.clone(), Arc::clone(&client), Arc::clone(&done));
            let (shown, failures) = (Arc::clone(&shown), Arc::clone(&failures));
            thread::spawn(move || {
                for _ in 0..CALLS / CALLERS / KEPT {
                    let calls = || -> Result<()> {
                        let mut connection = Secured::open(&door, name, &client)?;
                        shown.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.insert(connection.certificate()?);
                        for _ in 0..KEPT {
                            let (status, body) = connection.get(name, "/", "")?;
                            ensure!(status == 200, "{status}: {body}");
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    };
                    if let Err(error) = calls() {
                        failures.lock().expect("nothing panics with it").push(format!("{error:#}"));
                    }
                }
            })
        })
        .collect();
    let mut replaced = 0;
    while callers.iter().any(|caller| !caller.is_finished()) {
        put(&platform, name, &json!({"certConfig": new()?}))?;
        replaced += 1;
    }
    for caller in callers {
        caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))?;
    }
    let (done, shown) = (done.load(Ordering::Relaxed), shown.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.len());
    let failures = failures.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    eprintln!(
        "{done} calls over TLS while the certificate was replaced {replaced} times; clients saw {shown} certificates; {} dropped",
        failures.len()
    );
    assert!(failures.is_empty(), "{:?}", &failures[..failures.len().min(3)]);
    assert_eq!(done, CALLS);
    assert!(replaced > 3 && shown > 3, "replaced {replaced} times, {shown} were seen");
    // After the last change the last certificate is shown.
    let last = new()?;
    put(&platform, name, &json!({"certConfig": last}))?;
    let der = Secured::open(&door, name, &client)?.certificate()?;
    let pem: String = last["certificate"].as_str().context("PEM")?.lines().filter(|line| !line.starts_with("-----")).collect();
    use base64::Engine as _;
    assert_eq!(base64::engine::general_purpose::STANDARD.decode(pem)?, der);
    Ok(())
}
