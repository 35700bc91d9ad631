//! Programs that fetch their calls, built with the vendors' own libraries, unmodified, on the real platform.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use dunlin_testkit::{Platform, Response, cache, zip_of, zip_of_folder};
use serde_json::{Value, json};

/// What `scripts/setup` has built.
fn fixture(name: &str) -> Result<String> {
    zip_of_folder(&cache().join("fixtures").join(name)).context("run scripts/setup first")
}

/// Calls `function` with an event that says what to do.
fn call(platform: &Platform, function: &str, event: &Value) -> Result<Response> {
    let reply = platform.api.invoke(function, &serde_json::to_vec(event)?)?;
    ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
    Ok(reply)
}

fn answer(platform: &Platform, function: &str, event: &Value) -> Result<String> {
    let reply = call(platform, function, event)?;
    ensure!(reply.header("x-fc-error-type").is_none(), "it failed: {}", reply.text());
    Ok(reply.text())
}

fn error(platform: &Platform, function: &str, event: &Value) -> Result<Value> {
    let reply = call(platform, function, event)?;
    ensure!(reply.header("x-fc-error-type") == Some("UnhandledInvocationError"), "it did not fail: {reply:?}");
    reply.json()
}

fn log_of(reply: &Response) -> Result<String> {
    let tail = reply.header("x-fc-log-result").context("the tail was asked for")?;
    Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(tail)?)?)
}

#[test]
fn a_program_with_the_vendors_go_library_runs_unmodified() -> Result<()> {
    let platform = Platform::fresh()?;
    let hooks =
        json!({"initializer": {"handler": "initialize", "timeout": 10}, "preStop": {"handler": "preStop", "timeout": 10}});
    platform.api.create_from(
        "gopher",
        "go1",
        &fixture("go-fc")?,
        json!({
            "handler": "main", "timeout": 30, "memorySize": 256, "instanceLifecycleConfig": hooks,
            "environmentVariables": {"OWN": "mine"},
        }),
    )?;
    // Every result is JSON, as the library encodes it.
    assert_eq!(answer(&platform, "gopher", &json!({"do": "text", "text": "hi"}))?, r#""hi""#);
    assert_eq!(answer(&platform, "gopher", &json!({"do": "bytes", "text": "hi"}))?, r#""aGk=""#);
    assert_eq!(answer(&platform, "gopher", &json!({"do": "nothing"}))?, "null");

    let reply = call(&platform, "gopher", &json!({"do": "context"}))?;
    let seen = reply.json()?;
    assert_eq!(seen["requestId"].as_str(), reply.header("x-fc-request-id"));
    for (member, expected) in [
        ("function", json!("gopher")),
        ("handler", json!("main")),
        ("memory", json!("256")),
        ("timeout", json!(30)),
        ("region", json!("cn-hangzhou")),
        ("accountId", json!(platform.api.credentials().account_id)),
        ("qualifier", json!("LATEST")),
        ("retryCount", json!(0)),
        ("deadline", json!(true)),
        ("initialized", json!("gopher")),
        ("code", json!("/code")),
        ("own", json!("mine")),
    ] {
        assert_eq!(seen[member], expected, "{member} in {seen}");
    }

    let log = log_of(&call(&platform, "gopher", &json!({"do": "print", "text": "a line"}))?)?;
    assert!(log.contains("printed: a line") && log.contains("logged: a line"), "{log}");
    assert_eq!(log.matches("FC Invoke Start RequestId").count(), 1, "the library marks its log, the platform does not: {log}");

    let failed = error(&platform, "gopher", &json!({"do": "error", "text": "oops"}))?;
    assert_eq!((failed["errorMessage"].as_str(), failed["errorType"].as_str()), (Some("oops"), Some("errorString")));
    let panicked = error(&platform, "gopher", &json!({"do": "panic", "text": "help"}))?;
    assert_eq!(panicked["errorMessage"], "help");
    assert!(panicked["stackTrace"][0]["line"].is_number(), "{panicked}");
    let exited = error(&platform, "gopher", &json!({"do": "exit"}))?;
    assert!(exited["errorMessage"].as_str().is_some_and(|text| text.contains("Process exited unexpectedly")), "{exited}");
    assert_eq!(answer(&platform, "gopher", &json!({"do": "text", "text": "again"}))?, r#""again""#);
    Ok(())
}

#[test]
fn a_custom_runtime_may_fetch_its_calls_as_well() -> Result<()> {
    let platform = Platform::fresh()?;
    platform.api.create_from(
        "custom",
        "custom.debian12",
        &fixture("go-fc")?,
        json!({"customRuntimeConfig": {"command": ["/code/main"]}, "timeout": 30}),
    )?;
    assert_eq!(answer(&platform, "custom", &json!({"do": "text", "text": "hi"}))?, r#""hi""#);
    Ok(())
}

#[test]
fn a_program_that_takes_several_calls_at_a_time_gets_them() -> Result<()> {
    let platform = Platform::fresh()?;
    platform.api.create_from(
        "gopher",
        "go1",
        &fixture("go-fc")?,
        json!({"handler": "main", "timeout": 5, "memorySize": 256, "instanceConcurrency": 4}),
    )?;
    answer(&platform, "gopher", &json!({"do": "nothing"}))?;
    std::thread::scope(|scope| -> Result<()> {
        // Three calls hang; the fourth is served by the same instance meanwhile.
        let hanging: Vec<_> = (0..3).map(|_| scope.spawn(|| call(&platform, "gopher", &json!({"do": "hang"})))).collect();
        for _ in 0..10 {
            answer(&platform, "gopher", &json!({"do": "text", "text": "meanwhile"}))?;
        }
        for call in hanging {
            let reply = call.join().expect("a call does not panic")?;
            ensure!(reply.text().contains("timed out"), "{}", reply.text());
        }
        Ok(())
    })
}

/// Both Lambda fixtures take the same events.
fn lambda(platform: &Platform, function: &str) -> Result<()> {
    let echoed: Value = serde_json::from_str(&answer(platform, function, &json!({"a": [1, "ü"]}))?)?;
    assert_eq!(echoed, json!({"echo": {"a": [1, "ü"]}}));
    let reply = call(platform, function, &json!({"do": "context"}))?;
    let seen = reply.json()?;
    assert_eq!(seen["requestId"].as_str(), reply.header("x-fc-request-id"));
    assert_eq!(seen["function"], function);
    assert!(seen["arn"].as_str().is_some_and(|arn| arn.ends_with(&format!(":function:{function}"))), "{seen}");
    assert_eq!((&seen["deadline"], &seen["own"]), (&json!(true), &json!("mine")));
    assert_eq!(seen["memory"].to_string().trim_matches('"'), "256");
    let failed = error(platform, function, &json!({"do": "error", "text": "oops"}))?;
    assert_eq!(failed["errorMessage"], "oops");
    assert!(failed["errorType"].is_string(), "{failed}");
    Ok(())
}

fn lambda_members(handler: &str) -> Value {
    json!({"handler": handler, "timeout": 30, "memorySize": 256, "environmentVariables": {"OWN": "mine"}})
}

#[test]
fn a_program_with_the_crate_lambda_runtime_runs_unmodified() -> Result<()> {
    let platform = Platform::fresh()?;
    platform.api.create_from("crab", "provided.al2023", &fixture("lambda-rust")?, lambda_members("bootstrap"))?;
    lambda(&platform, "crab")?;
    let panicked = error(&platform, "crab", &json!({"do": "panic", "text": "help"}))?;
    assert!(panicked["errorMessage"].as_str().is_some_and(|text| text.contains("help")), "{panicked}");
    Ok(())
}

#[test]
fn a_function_on_awslambdaric_runs_unmodified() -> Result<()> {
    let platform = Platform::fresh()?;
    let zip = fixture("lambda-python")?;
    platform.api.create_from("snake", "provided.al2", &zip, lambda_members("app.handler"))?;
    lambda(&platform, "snake")?;
    let log = log_of(&call(&platform, "snake", &json!({"do": "print", "text": "a line"}))?)?;
    assert!(log.contains("FC Invoke Start RequestId") && log.contains("printed: a line"), "{log}");
    let exited = error(&platform, "snake", &json!({"do": "exit"}))?;
    assert!(exited["errorMessage"].as_str().is_some_and(|text| text.contains("Process exited unexpectedly")), "{exited}");

    // What the client reports through `init/error` is what the caller reads.
    platform.api.create_from("broken", "provided", &zip, lambda_members("broken.handler"))?;
    let reply = call(&platform, "broken", &json!({}))?;
    assert!(reply.header("x-fc-error-type").is_some(), "{reply:?}");
    assert!(reply.text().contains("this module does not import"), "{}", reply.text());
    Ok(())
}

#[test]
fn a_function_on_aws_lambda_ric_runs_unmodified() -> Result<()> {
    let platform = Platform::fresh()?;
    platform.api.create_from("node", "provided.al2023", &fixture("lambda-node")?, lambda_members("app.handler"))?;
    lambda(&platform, "node")?;
    assert_eq!(error(&platform, "node", &json!({"do": "error", "text": "oops"}))?["errorType"], "TypeError");
    Ok(())
}

#[test]
fn a_program_that_is_not_there_is_said_to_be_missing() -> Result<()> {
    let platform = Platform::fresh()?;
    platform.api.create_from("absent", "go1", &zip_of(&[("other", "")])?, json!({"handler": "main"}))?;
    let reply = platform.api.invoke("absent", b"{}")?;
    assert_eq!((reply.status, reply.json()?["Code"].as_str()), (412, Some("CAFileNotFound")), "{}", reply.text());
    Ok(())
}
