//! PHP functions as users have them, on the real platform. Without PHP on the machine each says that it is skipped.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use dunlin_testkit::{Platform, asked, eventually, read_until, zip_of_folder};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A platform with the folder as the function `f`. None where there is no PHP: that is said past the test runner, which
/// would keep it to itself, in a form that `cargo xtask test` counts.
fn deployed(folder: &str, members: Value) -> Result<Option<Platform>> {
    if !Path::new("/usr/bin/php").exists() {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        writeln!(std::io::stderr(), "{name}: there is no PHP on this machine\n0 passed, 0 failed, 1 skipped")?;
        return Ok(None);
    }
    let platform = Platform::fresh()?;
    platform.api.create_from("f", "php7.2", &zip_of_folder(&root().join(folder))?, members)?;
    Ok(Some(platform))
}

#[test]
fn the_example_answers_through_every_door() -> Result<()> {
    let Some(platform) = deployed("examples/php-hello", json!({}))? else { return Ok(()) };
    let reply = platform.api.invoke("f", b"API")?;
    assert_eq!(reply.json()?["body"], "hello API from PHP\n", "{}", reply.text());
    let host = platform.api.expose("f")?;
    let reply = platform.connect()?.request("GET", "/any?name=URL", &[("host".to_owned(), host)], b"")?;
    assert_eq!((reply.status, reply.text()), (200, "hello URL from PHP\n".to_owned()));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    let logs = String::from_utf8_lossy(&platform.cli(&["logs", "f"])?.stdout).into_owned();
    assert!(logs.contains("[INFO] called with 3 bytes"), "{logs}");
    Ok(())
}

#[test]
fn mistakes_are_told_and_the_next_call_has_another_instance() -> Result<()> {
    let Some(platform) = deployed("tests/functions/php", json!({"memorySize": 128, "timeout": 60}))? else { return Ok(()) };
    let call = |deed: &str| platform.api.invoke("f", deed.as_bytes());
    assert_eq!(call("you")?.text(), "hello you");

    let reply = call("throw")?;
    assert_eq!(reply.header("x-fc-error-type"), Some("UnhandledInvocationError"));
    let trace = "#0 [internal function]: handler()\n#1 {main}";
    assert_eq!(
        reply.json()?,
        json!({"errorMessage": "oops", "errorType": "DomainException",
               "stackTrace": {"file": "/code/index.php", "line": 21, "traceString": trace}})
    );
    assert_eq!(call("notice")?.text(), "noticed ");
    let logs = String::from_utf8_lossy(&platform.cli(&["logs", "f"])?.stdout).into_owned();
    assert!(logs.contains("PHP Warning:  Undefined variable $undefined in /code/index.php"), "{logs}");

    let reply = call("exit")?;
    assert!(reply.text().contains("Process exited unexpectedly"), "{}", reply.text());
    let reply = call("fatal")?;
    assert!(reply.json()?["errorMessage"].as_str().unwrap_or_default().starts_with("Allowed memory size"), "{}", reply.text());
    // 400 MB of garbage live in 128 MB; what is kept beyond them ends the instance.
    assert_eq!(call("litter")?.text(), "littered");
    let reply = call("keep")?;
    assert_eq!(reply.header("x-fc-error-type"), Some("UnhandledInvocationError"));
    assert!(reply.text().to_lowercase().contains("memory"), "{}", reply.text());
    assert_eq!(call("again")?.text(), "hello again");
    Ok(())
}

#[test]
fn hooks_run_around_the_calls() -> Result<()> {
    let hook = |handler: &str| json!({"handler": handler, "timeout": 10});
    let hooks = json!({"initializer": hook("index.initializer"), "preStop": hook("index.pre_stop")});
    let members = json!({"memorySize": 192, "instanceLifecycleConfig": hooks});
    let Some(platform) = deployed("tests/functions/php", members)? else { return Ok(()) };
    assert_eq!(platform.api.invoke("f", b"you")?.text(), "hello, once initialized for 192 MB, you");
    // Another configuration retires the instance.
    let reply = platform.api.json("PUT", "/functions/f", "UpdateFunction", &json!({"memorySize": 256}))?;
    ensure!(reply.status == 200, "{}", reply.text());
    assert_eq!(platform.api.invoke("f", b"you")?.text(), "hello, once initialized for 256 MB, you");
    eventually("the pre-stop hook's line", || {
        Ok(String::from_utf8_lossy(&platform.cli(&["logs", "f"])?.stdout).contains("stopping"))
    })
}

#[test]
fn responses_and_parts_reach_callers_of_the_url() -> Result<()> {
    let Some(platform) = deployed("tests/functions/php", json!({"timeout": 60}))? else { return Ok(()) };
    let host = platform.api.expose("f")?;
    let mut stream = asked(&platform, &format!("GET /events HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
    let first = read_until(&mut stream, "data: 1\n\n")?;
    assert!(first.contains("text/event-stream"), "{first}");
    // The handler is still at it.
    assert!(!first.contains("data: 2"), "{first}");
    drop(stream);
    // An empty array of headers is no list.
    let reply = platform.api.invoke("f", b"response")?;
    assert_eq!(reply.json()?["headers"], json!({}), "{}", reply.text());
    Ok(())
}

#[test]
fn the_documented_extensions_are_there() -> Result<()> {
    let Some(platform) = deployed("tests/functions/php", json!({}))? else { return Ok(()) };
    let reply = platform.api.invoke("f", b"extensions")?.json()?;
    let there: Vec<&str> = reply.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for wanted in ["json", "openssl", "PDO", "bcmath", "curl", "dom", "gd", "mbstring", "mysqli", "pdo_mysql", "SimpleXML", "zip"]
    {
        assert!(there.contains(&wanted), "{wanted} is not among {there:?}");
    }
    Ok(())
}

#[test]
fn a_function_is_behind_the_walls() -> Result<()> {
    let Some(platform) = deployed("tests/functions/php", json!({"internetAccess": false}))? else { return Ok(()) };
    let reply = platform.api.invoke("f", b"walls")?.json()?;
    for (deed, found) in reply.as_object().into_iter().flatten() {
        assert_eq!(found, "", "{deed}");
    }
    assert!(reply.as_object().is_some_and(|deeds| deeds.len() > 5), "{reply}");
    Ok(())
}

#[test]
fn what_php_cannot_do_is_refused_when_it_is_created() -> Result<()> {
    let platform = Platform::fresh()?;
    let zip = zip_of_folder(&root().join("examples/php-hello"))?;
    for (members, complaint) in
        [(json!({"instanceConcurrency": 2}), "instanceConcurrency"), (json!({"handler": "index"}), "handler")]
    {
        let mut body = json!({"functionName": "f", "runtime": "php7.2", "handler": "index.handler", "code": {"zipFile": zip}});
        body.as_object_mut().into_iter().for_each(|body| body.extend(members.as_object().cloned().unwrap_or_default()));
        let reply = platform.api.json("POST", "/functions", "CreateFunction", &body)?;
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains(complaint), "{}", reply.text());
    }
    Ok(())
}
