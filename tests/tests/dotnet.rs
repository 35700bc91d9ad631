//! .NET functions as users have them, on the real platform. Where `scripts/setup` has not installed .NET each says that it is
//! skipped.

use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Options, Platform, asked, cache, eventually, read_until, zip_of_folder};
use serde_json::{Value, json};

/// A platform that serves .NET. None where there is no .NET: that is said past the test runner, which would keep it to itself,
/// in a form that `cargo xtask test` counts.
fn platform() -> Result<Option<Platform>> {
    let home = cache().join("dotnet/dotnetcore2");
    if !home.join("bin/dotnet").exists() || !cache().join("fixtures/dotnet/App.dll").exists() {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        writeln!(std::io::stderr(), "{name}: there is no .NET on this machine\n0 passed, 0 failed, 1 skipped")?;
        return Ok(None);
    }
    let args = ["--interpreter", home.to_str().context("the cache's path is text")?].map(str::to_owned).to_vec();
    Ok(Some(Platform::start(&Options { args, ..Options::default() })?))
}

/// The same with the fixture as the function `f`.
fn deployed(method: &str, members: Value) -> Result<Option<Platform>> {
    let Some(platform) = platform()? else { return Ok(None) };
    let mut all = json!({"handler": format!("App::Tests.App::{method}"), "timeout": 60});
    all.as_object_mut().into_iter().for_each(|all| all.extend(members.as_object().cloned().unwrap_or_default()));
    platform.api.create_from("f", "dotnetcore3.1", &zip_of_folder(&cache().join("fixtures/dotnet"))?, all)?;
    Ok(Some(platform))
}

fn logs(platform: &Platform) -> Result<String> {
    Ok(String::from_utf8_lossy(&platform.cli(&["logs", "f"])?.stdout).into_owned())
}

#[test]
fn the_example_answers_through_every_door() -> Result<()> {
    let Some(platform) = platform()? else { return Ok(()) };
    let zip = zip_of_folder(&cache().join("fixtures/dotnet-hello"))?;
    let members = json!({"handler": "Hello::Example.Hello::Handle"});
    let created = platform.api.create_from("f", "dotnetcore3.1", &zip, members.clone())?;
    assert_eq!(created["stateReason"], Value::Null, "the version is the one that is named");
    let reply = platform.api.invoke("f", b"API")?;
    assert_eq!(reply.json()?["body"], "hello API from .NET\n", "{}", reply.text());
    let host = platform.api.expose("f")?;
    let reply = platform.connect()?.request("GET", "/any?name=URL", &[("host".to_owned(), host)], b"")?;
    assert_eq!((reply.status, reply.text()), (200, "hello URL from .NET\n".to_owned()));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    assert!(logs(&platform)?.contains("called with 3 characters"));
    // The older name runs on what is here, and says so.
    let created = platform.api.create_from("old", "dotnetcore2.1", &zip, members)?;
    assert!(created["stateReason"].as_str().is_some_and(|reason| reason.contains(".NET 3.1")), "{created}");
    assert_eq!(platform.api.invoke("old", b"API")?.json()?["statusCode"], 200);
    Ok(())
}

#[test]
fn mistakes_are_told_and_the_next_call_has_another_instance() -> Result<()> {
    let Some(platform) = deployed("Serve", json!({"memorySize": 128}))? else { return Ok(()) };
    let call = |deed: &str| platform.api.invoke("f", deed.as_bytes());
    assert_eq!(call("you")?.text(), "hello you");
    assert!(logs(&platform)?.contains("[INFO] [1-"), "{}", logs(&platform)?);

    let reply = call("throw")?;
    assert_eq!(reply.header("x-fc-error-type"), Some("UnhandledInvocationError"));
    let stack = json!(["at Tests.App.Do(String deed)", "at Tests.App.Serve(Stream input, IFcContext context)"]);
    let expected = json!({"errorMessage": "oops", "errorType": "System.InvalidOperationException", "stackTrace": stack});
    assert_eq!(reply.json()?, expected);
    let reply = call("exit")?;
    assert!(reply.text().contains("Process exited unexpectedly"), "{}", reply.text());
    let reply = call("thread")?;
    assert_eq!(reply.json()?["errorMessage"], "in a thread", "{}", reply.text());
    // 400 MB of garbage live in 128 MB; what is kept beyond them ends the instance.
    assert_eq!(call("litter")?.text(), "littered");
    let reply = call("keep")?;
    assert_eq!(reply.header("x-fc-error-type"), Some("UnhandledInvocationError"));
    assert!(reply.text().to_lowercase().contains("memory"), "{}", reply.text());
    assert_eq!(call("again")?.text(), "hello again");
    assert_eq!(call("threads")?.text(), "190");
    let reply = call("process")?.text();
    assert!(reply.starts_with("from a process\n"), "{reply}");
    Ok(())
}

#[test]
fn hooks_run_around_the_calls() -> Result<()> {
    let hook = |method: &str| json!({"handler": format!("App::Tests.App::{method}"), "timeout": 10});
    let hooks = json!({"initializer": hook("Initialize"), "preStop": hook("PreStop")});
    let members = json!({"memorySize": 192, "instanceLifecycleConfig": hooks});
    let Some(platform) = deployed("Serve", members)? else { return Ok(()) };
    assert_eq!(platform.api.invoke("f", b"you")?.text(), "hello, once initialized for 192 MB, you");
    // Another configuration retires the instance.
    let reply = platform.api.json("PUT", "/functions/f", "UpdateFunction", &json!({"memorySize": 256}))?;
    ensure!(reply.status == 200, "{}", reply.text());
    assert_eq!(platform.api.invoke("f", b"you")?.text(), "hello, once initialized for 256 MB, you");
    eventually("the pre-stop hook's line", || Ok(logs(&platform)?.contains("stopping")))
}

#[test]
fn objects_and_streams_are_answers() -> Result<()> {
    let Some(platform) = deployed("Greet", json!({}))? else { return Ok(()) };
    let reply = platform.api.invoke("f", br#"{"name": "you", "numbers": [1, 2]}"#)?;
    assert_eq!(reply.json()?, json!({"statusCode": 201, "body": "hello you, 3"}));
    let members = json!({"handler": "App::Tests.App::Events"});
    let reply = platform.api.json("PUT", "/functions/f", "UpdateFunction", &members)?;
    ensure!(reply.status == 200, "{}", reply.text());
    let host = platform.api.expose("f")?;
    let mut stream = asked(&platform, &format!("GET /events HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
    let first = read_until(&mut stream, "data: 1\n\n")?;
    // The handler is still at it.
    assert!(!first.contains("data: 2"), "{first}");
    Ok(())
}

#[test]
fn a_function_is_behind_the_walls() -> Result<()> {
    let Some(platform) = deployed("Serve", json!({"internetAccess": false}))? else { return Ok(()) };
    let reply = platform.api.invoke("f", b"walls")?.json()?;
    for (deed, found) in reply.as_object().into_iter().flatten() {
        assert_eq!(found, "", "{deed}");
    }
    assert!(reply.as_object().is_some_and(|deeds| deeds.len() > 5), "{reply}");
    Ok(())
}

#[test]
fn what_dotnet_cannot_do_is_refused_when_it_is_created() -> Result<()> {
    let Some(platform) = platform()? else { return Ok(()) };
    let zip = zip_of_folder(&cache().join("fixtures/dotnet-hello"))?;
    for (members, complaint) in [
        (json!({"instanceConcurrency": 2}), "instanceConcurrency"),
        (json!({"handler": "index.handler"}), "Assembly::Namespace.Class::Method"),
        (json!({"handler": "../Hello::Example.Hello::Handle"}), "Assembly::Namespace.Class::Method"),
    ] {
        let mut body = json!({"functionName": "f", "runtime": "dotnetcore3.1", "handler": "Hello::Example.Hello::Handle",
                              "code": {"zipFile": zip}});
        body.as_object_mut().into_iter().for_each(|body| body.extend(members.as_object().cloned().unwrap_or_default()));
        let reply = platform.api.json("POST", "/functions", "CreateFunction", &body)?;
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains(complaint), "{}", reply.text());
    }
    Ok(())
}
