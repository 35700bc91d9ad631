//! Java functions as users have them: a jar that Maven built against the vendor's library, uploaded as it is, and a zip
//! with classes and `lib/*.jar`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_testkit::{Platform, cache};
use serde_json::{Value, json};

/// `examples/java-hello` as Maven packed it.
fn hello() -> Result<Vec<u8>> {
    fs::read(cache().join("java-hello/target/java-hello.jar")).context("run scripts/setup first")
}

/// Creates a function from an archive's bytes.
fn create(platform: &Platform, name: &str, archive: &[u8], handler: &str, members: Value) -> Result<()> {
    let mut all = json!({"code": {"zipFile": STANDARD.encode(archive)}, "handler": handler, "memorySize": 256});
    if let (Some(all), Some(members)) = (all.as_object_mut(), members.as_object()) {
        all.extend(members.clone());
    }
    platform.api.create(name, "java11", &[], all).map(|_| ())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A zip with the classes of `mistakes`, and their helper in a jar below `lib`.
fn mistakes() -> Result<Vec<u8>> {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("functions/java");
    let work = tempfile::tempdir()?;
    let (code, helper) = (work.path().join("code"), work.path().join("helper"));
    fs::create_dir_all(code.join("lib"))?;
    run(Command::new("javac").arg("-d").arg(&helper).arg(functions.join("helper/Helper.java")))?;
    run(Command::new("jar").arg("cf").arg(code.join("lib/helper.jar")).arg("-C").arg(&helper).arg("."))?;
    let library = cache().join("m2/com/aliyun/fc/runtime/fc-java-core/1.4.1/fc-java-core-1.4.1.jar");
    let path = format!("{}:{}", library.display(), helper.display());
    run(Command::new("javac").arg("-cp").arg(path).arg("-d").arg(&code).arg(functions.join("mistakes/Mistakes.java")))?;
    let archive = work.path().join("code.zip");
    run(Command::new("jar").arg("cMf").arg(&archive).arg("-C").arg(&code).arg("."))?;
    Ok(fs::read(archive)?)
}

#[test]
fn a_jar_built_by_maven_runs_as_it_is() -> Result<()> {
    let platform = Platform::fresh()?;
    let jar = hello()?;
    create(&platform, "plain", &jar, "example.Hello::handleRequest", json!({}))?;
    let reply = platform.api.invoke("plain", b"Maven")?;
    assert_eq!(reply.json()?["body"], "hello Maven from Java\n", "{}", reply.text());

    let hook = json!({"initializer": {"handler": "example.Hello::initialize", "timeout": 10}});
    create(&platform, "hooked", &jar, "example.Hello::handleRequest", json!({"instanceLifecycleConfig": hook}))?;
    let host = platform.api.expose("hooked")?;
    let reply = platform.connect()?.request("GET", "/?name=URL", &[("host".to_owned(), host)], b"")?;
    assert_eq!((reply.status, reply.text()), (200, "hello, once initialized, URL from Java\n".to_owned()));

    let hook = json!({"preStop": {"handler": "example.Orders::preStop", "timeout": 10}});
    create(&platform, "orders", &jar, "example.Orders::handleRequest", json!({"instanceLifecycleConfig": hook}))?;
    let event = br#"{"customer":"Li","lines":[{"price":250,"count":2},{"price":99,"count":1,"note":"unknown"}]}"#;
    let reply = platform.api.invoke("orders", event)?;
    assert_eq!(reply.json()?, json!({"customer": "Li", "sum": 599}), "{}", reply.text());
    // New code retires the instance.
    create_again(&platform, "orders", &jar)?;
    platform.api.invoke("orders", event)?;
    let logs = || -> Result<String> { Ok(String::from_utf8_lossy(&platform.cli(&["logs", "orders"])?.stdout).into_owned()) };
    let started = std::time::Instant::now();
    while !logs()?.contains("stopping after 1") {
        ensure!(started.elapsed().as_secs() < 60, "the pre-stop hook left no line: {}", logs()?);
        std::thread::yield_now();
    }
    Ok(())
}

fn create_again(platform: &Platform, name: &str, archive: &[u8]) -> Result<()> {
    let body = json!({"code": {"zipFile": STANDARD.encode(archive)}, "environmentVariables": {"AGAIN": "yes"}});
    let reply = platform.api.json("PUT", &format!("/functions/{name}"), "UpdateFunction", &body)?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(())
}

#[test]
fn a_zip_with_classes_and_libraries_runs_and_its_mistakes_are_told() -> Result<()> {
    let platform = Platform::fresh()?;
    let zip = mistakes()?;
    create(&platform, "mistakes", &zip, "mistakes.Mistakes::handleRequest", json!({"memorySize": 128, "timeout": 60}))?;
    let call = |deed: &str| platform.api.invoke("mistakes", deed.as_bytes());

    assert_eq!(call("you")?.text(), "fine, helped you");
    let reply = call("throw")?;
    assert_eq!(reply.header("x-fc-error-type"), Some("UnhandledInvocationError"));
    assert_eq!(
        reply.json()?,
        json!({"errorMessage": "oops", "errorType": "java.io.IOException", "errorCause": "oops",
               "stackTrace": ["mistakes.Mistakes.handleRequest(Mistakes.java:22)"]})
    );
    let reply = call("exit")?;
    assert_eq!(reply.header("x-fc-error-type"), Some("UnhandledInvocationError"));
    assert!(reply.text().contains("Process exited unexpectedly"), "{}", reply.text());
    // 2 GB of garbage live in 128 MB; what is kept beyond them ends the instance, and the next call has another.
    assert_eq!(call("litter")?.text(), "littered 2000");
    let reply = call("keep")?;
    assert_eq!(reply.header("x-fc-error-type"), Some("UnhandledInvocationError"));
    assert!(reply.text().to_lowercase().contains("memory"), "{}", reply.text());
    assert_eq!(call("again")?.text(), "fine, helped again");
    Ok(())
}

#[test]
fn a_handler_that_is_no_javas_is_refused_when_it_is_created() -> Result<()> {
    let platform = Platform::fresh()?;
    let body = json!({"functionName": "f", "runtime": "java11", "handler": "index.handler", "code": {"zipFile": STANDARD.encode(hello()?)}});
    let reply = platform.api.json("POST", "/functions", "CreateFunction", &body)?;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("package.Class::method"), "{}", reply.text());
    Ok(())
}
