//! WebAssembly functions on the real platform: commands written as text, and one component that was built from JavaScript.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dunlin_testkit::{Platform, Response, asked, cache, read_until, zip_of};
use serde_json::{Value, json};

fn program(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/wasm/{name}.wat", env!("CARGO_MANIFEST_DIR"));
    wat::parse_file(path).expect("a fixture is well-formed")
}

/// A function of the program, which is `main.wasm` in its package.
fn create(platform: &Platform, name: &str, members: Value) -> Result<()> {
    let zip = zip_of(&[("main.wasm", program(name))])?;
    platform.api.create_from(name, "wasm", &zip, members).map(drop)
}

/// The component that `scripts/setup` built.
fn component() -> Result<Vec<u8>> {
    std::fs::read(cache().join("fixtures/wasm-http/main.wasm")).context("run scripts/setup first")
}

fn error_of(reply: &Response) -> Result<(String, Value)> {
    let kind = reply.header("x-fc-error-type").with_context(|| format!("no error: {} {}", reply.status, reply.text()))?;
    Ok((kind.to_owned(), reply.json()?))
}

fn tail(reply: &Response) -> String {
    use base64::Engine as _;
    let encoded = reply.header("x-fc-log-result").unwrap_or_default();
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_command_answers_events_and_its_log_is_its_standard_error() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "echo", json!({"handler": "main.wasm"}))?;
    for event in [&b"hello"[..], b"", &[0xff; 100_000]] {
        let reply = platform.api.invoke("echo", event)?;
        ensure!(reply.status == 200 && reply.body == event, "{}: {}", reply.status, reply.text());
        ensure!(reply.header("x-fc-error-type").is_none(), "{}", reply.text());
        ensure!(tail(&reply).contains("echoing\n"), "{}", tail(&reply));
        let timing = reply.header("server-timing").unwrap_or_default();
        ensure!(["bind", "load", "handler"].iter().all(|phase| timing.contains(phase)), "{timing}");
    }
    let instances = platform.api.json("GET", "/functions/echo/instances", "ListInstances", &Value::Null)?.json()?;
    ensure!(instances["instances"].as_array().is_some_and(|list| list.len() == 1), "{instances}");
    Ok(())
}

#[test]
fn no_two_calls_share_a_memory_though_they_share_an_instance() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "count", json!({"instanceConcurrency": 10}))?;
    let mut instances = Vec::new();
    for _ in 0..5 {
        let reply = platform.api.invoke("count", b"")?;
        ensure!(reply.body == b"1", "{}", reply.text());
        instances.push(reply.header("x-fc-instance-id").unwrap_or_default().to_owned());
    }
    instances.dedup();
    ensure!(instances.len() == 1, "{instances:?}");
    Ok(())
}

#[test]
fn a_function_finds_the_contracts_environment_and_its_own() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "environment", json!({"environmentVariables": {"OWN": "mine"}}))?;
    let text = platform.api.invoke("environment", b"")?.text();
    for pair in ["main.wasm", "OWN=mine", "FC_FUNCTION_NAME=environment", "FC_RUNTIME=wasm", "FC_FUNC_CODE_PATH=/code"] {
        ensure!(text.split('\0').any(|part| part == pair), "{pair}: {text}");
    }
    Ok(())
}

#[test]
fn ends_of_every_kind_are_function_errors_and_the_next_call_is_served() -> Result<()> {
    let platform = Platform::fresh()?;
    for (name, message) in [
        ("trap", "wasm trap: wasm `unreachable` instruction executed"),
        ("deep", "wasm trap: call stack exhausted"),
        ("exit", "the program exited with status 3"),
        ("eat", "the program ran out of memory: memorySize is 128 MB"),
        ("huge", "the program ran out of memory: memorySize is 128 MB"),
        ("flood", "Response payload is larger than 33554432 bytes"),
    ] {
        create(&platform, name, json!({"memorySize": 128, "timeout": 30}))?;
        for _ in 0..2 {
            let reply = platform.api.invoke(name, b"")?;
            let (kind, error) = error_of(&reply).with_context(|| name.to_owned())?;
            ensure!(reply.status == 200 && kind == "UnhandledInvocationError", "{name}: {} {kind}", reply.status);
            ensure!(error["errorMessage"].as_str().is_some_and(|text| text.starts_with(message)), "{name}: {error}");
            if name == "exit" {
                ensure!(tail(&reply).contains("not today"), "{}", tail(&reply));
            }
        }
    }
    Ok(())
}

#[test]
fn a_program_that_never_ends_is_ended_at_its_timeout() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "spin", json!({"timeout": 1}))?;
    let reply = platform.api.invoke("spin", b"for ever")?;
    let (_, error) = error_of(&reply)?;
    ensure!(error["errorMessage"] == "Function timed out after 1 seconds", "{error}");
    let reply = platform.api.invoke("spin", b"")?;
    ensure!(reply.body == b"idle", "{}", reply.text());
    Ok(())
}

#[test]
fn what_is_no_program_is_refused_when_it_comes_in() -> Result<()> {
    let platform = Platform::fresh()?;
    let cases: [(&str, &str, Vec<u8>, Value, &str); 8] = [
        ("main.wasm", "code.zipFile", b"<html>".to_vec(), json!({}), "'main.wasm' is not WebAssembly"),
        ("main.wasm", "code.zipFile", program("library"), json!({}), "'main.wasm' exports no function '_start'"),
        ("main.wasm", "code.zipFile", program("stranger"), json!({}), "`env::launch_missiles`"),
        ("main.wasm", "code.zipFile", program("tables"), json!({}), "'main.wasm' cannot be compiled"),
        ("main.txt", "code.zipFile", program("echo"), json!({}), "there is no .wasm file in its top folder"),
        (
            "other.wasm",
            "handler",
            program("count"),
            json!({"handler": "main.wasm"}),
            "must name a .wasm file of the package: other.wasm",
        ),
        (
            "main.wasm",
            "handler",
            program("count"),
            json!({"handler": "../main.wasm"}),
            "must name a .wasm file in the top folder",
        ),
        (
            "main.wasm",
            "instanceLifecycleConfig",
            program("count"),
            json!({"instanceLifecycleConfig": {"initializer": {"handler": "init"}}}),
            "is not supported for the runtime wasm",
        ),
    ];
    for (file, field, content, members, text) in cases {
        let mut body = json!({
            "functionName": "refused", "runtime": "wasm", "handler": "index.handler", "code": {"zipFile": zip_of(&[(file, content)])?},
        });
        body.as_object_mut().context("an object")?.extend(members.as_object().context("an object")?.clone());
        let reply = platform.api.json("POST", "/functions", "CreateFunction", &body)?;
        let answer = reply.text();
        ensure!(reply.status == 400 && answer.contains("InvalidArgument"), "{text}: {} {answer}", reply.status);
        ensure!(answer.contains(field) && answer.contains(text), "{field}, {text}: {answer}");
    }
    let left = platform.api.json("GET", "/functions", "ListFunctions", &Value::Null)?.json()?;
    ensure!(left["functions"].as_array().is_some_and(Vec::is_empty), "{left}");
    Ok(())
}

#[test]
fn a_request_to_a_command_is_its_input_and_what_it_prints_is_the_response() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "echo", json!({}))?;
    let host = platform.api.expose("echo")?;
    let reply = platform.connect()?.request("POST", "/", &[("host".into(), host)], b"a body")?;
    ensure!(reply.status == 200 && reply.body == b"a body", "{}: {}", reply.status, reply.text());
    ensure!(reply.header("content-type") == Some("text/plain; charset=utf-8"), "{:?}", reply.header("content-type"));

    create(&platform, "environment", json!({}))?;
    let host = platform.api.expose("environment")?;
    let text =
        platform.connect()?.request("GET", "/a/b?c=d&c=e", &[("host".into(), host), ("x-own".into(), "1".into())], b"")?.text();
    for pair in ["REQUEST_METHOD=GET", "PATH_INFO=/a/b", "QUERY_STRING=c=d&c=e", "HTTP_X_OWN=1"] {
        ensure!(text.split('\0').any(|part| part == pair), "{pair}: {text}");
    }

    create(&platform, "trap", json!({}))?;
    let host = platform.api.expose("trap")?;
    let reply = platform.connect()?.request("GET", "/", &[("host".into(), host)], b"")?;
    ensure!(reply.header("x-fc-error-type") == Some("UnhandledInvocationError"), "{}: {}", reply.status, reply.text());
    Ok(())
}

#[test]
fn a_component_answers_events_requests_and_streams() -> Result<()> {
    let platform = Platform::fresh()?;
    let zip = zip_of(&[("main.wasm", component()?)])?;
    platform.api.create_from("component", "wasm", &zip, json!({"memorySize": 512, "timeout": 60, "instanceConcurrency": 10}))?;

    for _ in 0..2 {
        let reply = platform.api.invoke("component", b"an event")?;
        let answer = reply.json().with_context(|| reply.text())?;
        ensure!(answer["event"] == "an event" && answer["calls"] == 1, "{answer}");
        ensure!(answer["requestId"].as_str() == reply.header("x-fc-request-id"), "{answer}");
    }
    let (kind, error) = error_of(&platform.api.invoke("component", b"fail")?)?;
    ensure!(kind == "UnhandledInvocationError" && error == json!({"errorMessage": "as asked", "errorType": "Asked"}), "{error}");

    let host = platform.api.expose("component")?;
    let reply = platform.connect()?.request("PUT", "/echo?a=1", &[("host".into(), host.clone())], &[b'x'; 1_000_000])?;
    ensure!(reply.status == 201 && reply.body.len() == 1_000_000, "{}: {} bytes", reply.status, reply.body.len());
    ensure!(reply.header("x-method") == Some("PUT") && reply.header("x-query") == Some("?a=1"), "{:?}", reply.header("x-query"));
    let reply = platform.connect()?.request("GET", "/nowhere", &[("host".into(), host.clone())], b"")?;
    ensure!(reply.status == 404 && reply.text() == "no /nowhere", "{}: {}", reply.status, reply.text());

    // What is sent comes back before there is more of it.
    let head = format!("POST /echo HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let mut socket = asked(&platform, &head)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    read_until(&mut socket, "first")?;
    std::io::Write::write_all(&mut socket, b"6\r\nsecond\r\n0\r\n\r\n")?;
    read_until(&mut socket, "second")?;
    Ok(())
}

#[test]
fn a_package_that_came_in_for_another_runtime_serves_as_well() -> Result<()> {
    let platform = Platform::fresh()?;
    let zip =
        zip_of(&[("main.wasm", program("echo")), ("index.py", b"def handler(event, context):\n    return 'python'\n".to_vec())])?;
    platform.api.create_from("first", "python3.10", &zip, json!({}))?;
    platform.api.create_from("second", "wasm", &zip, json!({}))?;
    ensure!(platform.api.invoke("first", b"x")?.body == b"python", "the Python function does not answer");
    let reply = platform.api.invoke("second", b"x")?;
    ensure!(reply.body == b"x", "{}: {}", reply.status, reply.text());
    Ok(())
}
