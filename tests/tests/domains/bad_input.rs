//! Domains that cannot be: each is refused in the contract's words, with the member named, and nothing is changed.

use anyhow::{Context as _, Result, ensure};
use dunlin_testkit::Response;
use rcgen::date_time_ymd;
use serde_json::{Value, json};

use crate::support::{Authority, ask, echoes, platform, put, send};

/// Whether the answer is a refusal with `code` that names `field`.
fn refused(reply: &Response, status: u16, code: &str, field: &str) -> Result<()> {
    let body = reply.json()?;
    let message = body["Message"].as_str().unwrap_or_default();
    let named = message.starts_with(field);
    ensure!(reply.status == status && body["Code"] == code && named, "{status} {code} {field} expected: {}", reply.text());
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_by_name_and_nothing_is_half_applied() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web"])?;
    let (authority, name) = (Authority::new()?, "www.example.test");
    let route = |members: Value| {
        let mut route = json!({"path": "/*", "functionName": "web"});
        for (member, value) in members.as_object().into_iter().flatten() {
            route[member] = value.clone();
        }
        json!({"routeConfig": {"routes": [route]}})
    };
    let regex = |pattern: &str| route(json!({"rewriteConfig": {"regexRules": [{"match": pattern, "replacement": "/x"}]}}));
    let good = authority.certificate(&[name], |_| {})?;
    let with = |member: &str, value: &str| {
        let mut certificate = good.clone();
        certificate[member] = json!(value);
        json!({"protocol": "HTTPS", "certConfig": certificate})
    };
    let other = authority.certificate(&[name], |_| {})?;
    let other_key = other["privateKey"].as_str().context("a key")?;
    let expired = authority.certificate(&[name], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    })?;
    let stranger = authority.certificate(&["other.example.test"], |_| {})?;
    let jwt = |info: Value| json!({"authConfig": {"authType": "jwt", "authInfo": info.to_string()}});
    let many: Vec<Value> = (0..101).map(|index| json!({"path": format!("/{index}"), "functionName": "web"})).collect();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cases: Vec<(Value, &str)> = vec![
        (with("privateKey", other_key), "certConfig.privateKey"),
        (with("privateKey", encrypted), "certConfig.privateKey"),
        (with("privateKey", "garbage"), "certConfig.privateKey"),
        (with("certificate", "garbage"), "certConfig.certificate"),
        (json!({"protocol": "HTTPS", "certConfig": expired}), "certConfig.certificate"),
        (json!({"protocol": "HTTPS", "certConfig": stranger}), "certConfig.certificate"),
        (json!({"protocol": "HTTPS"}), "certConfig"),
        (json!({"protocol": "GOPHER"}), "protocol"),
        (json!({"protocol": "HTTPS", "certConfig": good, "tlsConfig": {"maxVersion": "TLSv1.1"}}), "tlsConfig.maxVersion"),
        (json!({"protocol": "HTTPS", "certConfig": good, "tlsConfig": {"minVersion": "SSLv3"}}), "tlsConfig.minVersion"),
        (json!({"protocol": "HTTPS", "certConfig": good, "tlsConfig": {"cipherSuites": ["RC4"]}}), "tlsConfig.cipherSuites[0]"),
        (json!({"tlsConfig": {"minVersion": "TLSv1.2"}}), "tlsConfig"),
        (route(json!({"path": "no-slash"})), "routeConfig.routes[0].path"),
        (route(json!({"path": "/a/*/b"})), "routeConfig.routes[0].path"),
        (route(json!({"functionName": "9"})), "routeConfig.routes[0].functionName"),
        (route(json!({"methods": ["BREW"]})), "routeConfig.routes[0].methods[0]"),
        (regex("("), "routeConfig.routes[0].rewriteConfig.regexRules[0].match"),
        (regex("(a{1,1000}){1,1000}"), "routeConfig.routes[0].rewriteConfig.regexRules[0].match"),
        (json!({"routeConfig": {"routes": many}}), "routeConfig.routes"),
        (
            json!({"routeConfig": {"routes": [{"path": "/a", "functionName": "web"}, {"path": "/a", "functionName": "web"}]}}),
            "routeConfig.routes[1].path",
        ),
        (json!({"authConfig": {"authType": "jwt"}}), "authConfig.authInfo"),
        (json!({"authConfig": {"authType": "basic"}}), "authConfig.authType"),
        (jwt(json!({"jwks": {"keys": []}})), "authConfig.authInfo.jwks.keys"),
        (jwt(json!({"jwks": "http://keys.example/jwks"})), "authConfig.authInfo.jwks must begin with https://"),
        (jwt(json!({"jwks": "https://169.254.169.254/jwks"})), "authConfig.authInfo.jwks leads to an address inside"),
        (jwt(json!({"jwks": "https://[::ffff:10.0.0.1]/jwks"})), "authConfig.authInfo.jwks leads to an address inside"),
        // A name that leads inside: found out when it was resolved.
        (jwt(json!({"jwks": "https://localhost/jwks"})), "authConfig.authInfo.jwks leads to an address inside"),
        (jwt(json!({"jwks": "file:///etc/passwd"})), "authConfig.authInfo.jwks"),
        (jwt(json!({"jwks": 7})), "authConfig.authInfo.jwks.keys"),
        (jwt(json!({"jwks": {"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}})), "authConfig.authInfo.jwks.keys[0].k"),
        (json!({"corsConfig": {"maxAge": -1}}), "corsConfig.maxAge"),
        (json!({"corsConfig": {"allowOrigins": ["a\r\nb: c"]}}), "corsConfig.allowOrigins[0]"),
        (json!({"wafConfig": {"enableWAF": true}}), "wafConfig.enableWAF"),
    ];
    // As a new domain: then there is none.
    for (members, field) in &cases {
        refused(&send(&platform, name, members)?, 400, "InvalidArgument", field)?;
    }
    assert_eq!(ask(&platform, name, "GET", "/", &[])?.status, 404);
    let missing = route(json!({"functionName": "absent"}));
    refused(&send(&platform, name, &missing)?, 404, "FunctionNotFound", "function 'absent'")?;
    let missing = route(json!({"qualifier": "absent"}));
    refused(&send(&platform, name, &missing)?, 404, "AliasNotFound", "alias 'absent'")?;
    // As a change, together with one that would be fine: then all is as it was.
    let before = put(&platform, name, &route(json!({})))?;
    for (members, field) in &cases {
        let mut both = json!({"isE2B": true});
        both.as_object_mut().context("an object")?.extend(members.as_object().context("an object")?.clone());
        refused(&send(&platform, name, &both)?, 400, "InvalidArgument", field)?;
    }
    let after = platform.api.json("GET", &format!("/custom-domains/{name}"), "GetCustomDomain", &Value::Null)?.json()?;
    assert_eq!(after, before);
    assert_eq!(ask(&platform, name, "GET", "/", &[])?.status, 200);
    Ok(())
}

#[test]
fn names_that_cannot_be_a_domain_are_refused() -> Result<()> {
    let (platform, _) = platform()?;
    let create = |name: &str| {
        let body = json!({"domainName": name, "protocol": "HTTP"});
        platform.api.json("POST", "/custom-domains", "CreateCustomDomain", &body)
    };
    for name in [
        "",
        "localhost",
        "a.localhost",
        "x.fn.localhost",
        "127.0.0.1",
        "[::1]",
        "*.example.test",
        "bücher.example",
        "a_b.test",
        "example.test:80",
        "example.test/x",
        "a b.test",
        "a.test\u{0}",
        "a.test\n",
        ".test",
        "a..test",
        "-a.test",
    ] {
        refused(&create(name)?, 400, "InvalidArgument", "domainName").context(name.to_owned())?;
    }
    refused(
        &platform.api.json("POST", "/custom-domains", "CreateCustomDomain", &json!({}))?,
        400,
        "InvalidArgument",
        "domainName",
    )?;
    let idn = create("xn--bcher-kva.Example")?.json()?;
    assert_eq!(idn["domainName"], "xn--bcher-kva.example");
    refused(&create("XN--bcher-kva.example")?, 409, "DomainNameAlreadyExists", "custom domain")?;
    for (method, action) in [("GET", "GetCustomDomain"), ("DELETE", "DeleteCustomDomain")] {
        let reply = platform.api.json(method, "/custom-domains/absent.example", action, &Value::Null)?;
        refused(&reply, 404, "DomainNameNotFound", "custom domain 'absent.example'")?;
    }
    let renamed = json!({"domainName": "b.example"});
    let reply = platform.api.json("PUT", "/custom-domains/xn--bcher-kva.example", "UpdateCustomDomain", &renamed)?;
    refused(&reply, 400, "InvalidArgument", "domainName")
}

#[test]
fn a_host_has_one_reading_or_none() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web"])?;
    let name = "www.example.test";
    put(&platform, name, &json!({"routeConfig": {"routes": [{"path": "/*", "functionName": "web"}]}}))?;
    let status = |head: &str| -> Result<u16> {
        let mut connection = platform.connect()?;
        connection.send_raw(format!("GET / HTTP/1.1\r\n{head}connection: close\r\n\r\n").as_bytes())?;
        Ok(connection.read_response(false, std::time::Instant::now())?.status)
    };
    for (head, expected) in [
        (format!("host: {name}\r\n"), 200),
        (format!("host: {name}:80\r\n"), 200),
        (format!("host: {name}.\r\n"), 200),
        (String::new(), 400),
        (format!("host: {name}\r\nhost: {name}\r\n"), 400),
        (format!("host: {name}\r\nhost: other.test\r\n"), 400),
        (format!("host: {name}, other.test\r\n"), 400),
        (format!("host: {name}:port\r\n"), 400),
        (format!("host: user@{name}\r\n"), 400),
        (format!("host: x{name}\r\n"), 404),
        (format!("host: x.{name}\r\n"), 404),
    ] {
        assert_eq!(status(&head)?, expected, "{head:?}");
    }
    // A control-plane path under somebody's host is the function's.
    let reply = ask(&platform, name, "GET", "/2023-03-30/functions", &[])?;
    assert_eq!((reply.status, reply.json()?["path"].as_str()), (200, Some("/2023-03-30/functions")));
    let reply = ask(&platform, name, "GET", "/-/metrics", &[("x-acs-action", "ListFunctions")])?;
    assert_eq!((reply.status, reply.json()?["path"].as_str()), (200, Some("/-/metrics")));
    Ok(())
}
