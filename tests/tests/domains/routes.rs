//! Which function answers for which path, and what it sees.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::support::{ask, echoes, platform, put, seen};

#[test]
fn routes_lead_to_functions_and_their_versions_and_follow_every_change() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web", "api", "users"])?;
    let name = "www.example.test";
    // A version that differs from the head, and an alias to it.
    let update = |stage: &str| {
        let body = json!({"environmentVariables": {"STAGE": stage}});
        platform.api.json("PUT", "/functions/api", "UpdateFunction", &body)
    };
    update("one")?;
    platform.api.json("POST", "/functions/api/versions", "PublishFunctionVersion", &json!({}))?;
    let alias = json!({"aliasName": "prod", "versionId": "1"});
    platform.api.json("POST", "/functions/api/aliases", "CreateAlias", &alias)?;
    update("head")?;
    let routes = json!({"routes": [
        {"path": "/*", "functionName": "web"},
        {"path": "/api/*", "functionName": "api", "qualifier": "prod"},
        {"path": "/api/1/*", "functionName": "api", "qualifier": "1"},
        {"path": "/api/head", "functionName": "api", "methods": ["GET", "PUT"]},
        {"path": "/api/head", "functionName": "users", "methods": ["POST"]},
    ]});
    put(&platform, name, &json!({"routeConfig": routes}))?;
    for (host, target, function, version) in [
        (name, "/", "web", ""),
        (name, "/api", "web", ""),
        ("WWW.Example.TEST:7900", "/api/x?y=1", "api", "one"),
        (name, "/api/1/", "api", "one"),
        (name, "/api/head", "api", "head"),
        (name, "/x/..%2fapi/head", "api", "head"),
    ] {
        let answer = seen(&platform, host, target, &[])?;
        assert_eq!((&answer["function"], &answer["version"]), (&json!(function), &json!(version)), "{target}");
        assert_eq!(answer["path"], target.split('?').next().unwrap_or_default(), "without a rewrite the path is as it was sent");
        assert_eq!(answer["context"]["domainName"], name);
    }
    let posted = ask(&platform, name, "POST", "/api/head", &[])?;
    assert_eq!(posted.json()?["function"], "users");
    let refused = ask(&platform, name, "DELETE", "/api/head", &[])?;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, PUT, POST")), "{}", refused.text());

    // An alias is switched, a route taken out, a function removed: the next call knows.
    platform.api.json("POST", "/functions/api/versions", "PublishFunctionVersion", &json!({}))?;
    platform.api.json("PUT", "/functions/api/aliases/prod", "UpdateAlias", &json!({"versionId": "2"}))?;
    assert_eq!(seen(&platform, name, "/api/x", &[])?["version"], "head");
    put(&platform, name, &json!({"routeConfig": {"routes": [{"path": "/only", "functionName": "users"}]}}))?;
    assert_eq!(seen(&platform, name, "/only", &[])?["function"], "users");
    let nowhere = ask(&platform, name, "GET", "/api/x", &[])?;
    assert_eq!((nowhere.status, nowhere.json()?["Code"].as_str()), (404, Some("PathNotSupported")));
    platform.api.json("DELETE", "/functions/users", "DeleteFunction", &Value::Null)?;
    let gone = ask(&platform, name, "GET", "/only", &[])?;
    assert_eq!((gone.status, gone.json()?["Code"].as_str()), (404, Some("FunctionNotFound")));
    let deleted = platform.api.json("DELETE", &format!("/custom-domains/{name}"), "DeleteCustomDomain", &Value::Null)?;
    assert_eq!(deleted.status, 204);
    assert_eq!(ask(&platform, name, "GET", "/only", &[])?.status, 404);
    Ok(())
}

#[test]
fn the_function_sees_what_the_rules_make_of_a_path() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web"])?;
    let rules = json!({
        "equalRules": [{"match": "/old", "replacement": "/new?from=old"}],
        "wildcardRules": [{"match": "^/css/*", "replacement": "/public/static/css/$1"}, {"match": "/legacy", "replacement": "/found"}],
        "regexRules": [{"match": "^/user/(\\d+)/(.*)$", "replacement": "/profile/$2?id=$1"}],
    });
    let route = json!({"path": "/*", "functionName": "web", "rewriteConfig": rules});
    let stored = put(&platform, "www.example.test", &json!({"routeConfig": {"routes": [route]}}))?;
    assert_eq!(stored["routeConfig"]["routes"][0]["rewriteConfig"], rules);
    for (target, path, query) in [
        ("/old?a=1", "/new", json!({"from": "old", "a": "1"})),
        ("/css/style.css", "/public/static/css/style.css", json!({})),
        ("/test/legacy/x", "/found", json!({})),
        ("/user/42/a%20b?full=1", "/profile/a%20b", json!({"id": "42", "full": "1"})),
        ("/user/x/a", "/user/x/a", json!({})),
    ] {
        let answer = seen(&platform, "www.example.test", target, &[])?;
        assert_eq!((&answer["path"], &answer["query"]), (&json!(path), &query), "{target}");
    }
    let long = format!("/user/1/{}", "x".repeat(4000));
    let grown = json!({"regexRules": [{"match": "^/user/1/(.*)$", "replacement": "/$1$1$1"}]});
    let route = json!({"path": "/*", "functionName": "web", "rewriteConfig": grown});
    put(&platform, "www.example.test", &json!({"routeConfig": {"routes": [route]}}))?;
    let refused = ask(&platform, "www.example.test", "GET", &long, &[])?;
    assert_eq!(refused.status, 400, "{}", refused.text());
    Ok(())
}

#[test]
fn a_domain_answers_scripts_of_other_origins_by_its_own_rules() -> Result<()> {
    let (platform, _) = platform()?;
    echoes(&platform, &["web"])?;
    let cors = json!({
        "allowOrigins": ["https://app.example"], "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-one"],
        "exposeHeaders": ["x-fc-request-id"], "allowCredentials": true, "maxAge": 60,
    });
    let members = json!({"routeConfig": {"routes": [{"path": "/*", "functionName": "web"}]}, "corsConfig": cors});
    assert_eq!(put(&platform, "www.example.test", &members)?["corsConfig"], cors);
    let preflight = |origin: &str, method: &str| {
        let headers = [("origin", origin), ("access-control-request-method", method)];
        ask(&platform, "www.example.test", "OPTIONS", "/x", &headers)
    };
    let granted = preflight("https://app.example", "PUT")?;
    assert_eq!((granted.status, granted.header("access-control-allow-origin")), (204, Some("https://app.example")));
    assert_eq!(granted.header("access-control-allow-methods"), Some("PUT"));
    for (origin, method) in [("https://evil.example", "PUT"), ("https://app.example", "DELETE")] {
        ensure!(preflight(origin, method)?.header("access-control-allow-methods").is_none(), "{origin} {method}");
    }
    let called = ask(&platform, "www.example.test", "GET", "/x", &[("origin", "https://app.example")])?;
    assert_eq!((called.status, called.header("access-control-allow-credentials")), (200, Some("true")));
    Ok(())
}
