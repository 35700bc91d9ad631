//! The vendor's SDKs, unmodified, and the command line, each against a platform of its own.

use std::process::Command;

use anyhow::{Context, Result};
use dunlin_testkit::{Platform, cache};
use serde_json::Value;

fn scenario(platform: &Platform, command: &mut Command) -> Result<()> {
    let output = command.arg(platform.data.join("credentials.json")).output().context("run scripts/setup first")?;
    let text = String::from_utf8_lossy(&output.stdout);
    eprint!("{text}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(" passed, 0 failed"), "the scenario failed:\n{text}");
    Ok(())
}

#[test]
fn the_vendors_python_sdk_drives_the_platform() -> Result<()> {
    let platform = Platform::fresh()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/scenario.py");
    scenario(&platform, Command::new(cache().join("python-sdk/bin/python")).arg(script))
}

#[test]
fn the_vendors_node_sdk_drives_the_platform() -> Result<()> {
    let platform = Platform::fresh()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/scenario.js");
    scenario(&platform, Command::new("node").env("NODE_PATH", cache().join("node-sdk/node_modules")).arg(script))
}

#[test]
fn the_vendors_python_sdk_drives_the_control_plane() -> Result<()> {
    let platform = Platform::fresh()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/control.py");
    scenario(&platform, Command::new(cache().join("python-sdk/bin/python")).arg(script))
}

#[test]
fn the_vendors_node_sdk_drives_the_control_plane() -> Result<()> {
    let platform = Platform::fresh()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/control.js");
    scenario(&platform, Command::new("node").env("NODE_PATH", cache().join("node-sdk/node_modules")).arg(script))
}

fn cli(platform: &Platform, args: &[&str]) -> Result<(i32, String, String)> {
    let output = platform.cli(args)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr)))
}

#[test]
fn the_command_line_deploys_calls_and_shows_logs() -> Result<()> {
    let platform = Platform::fresh()?;
    let folder = tempfile::tempdir()?;
    let code = folder.path().join("greeter");
    std::fs::create_dir(&code)?;
    std::fs::write(
        code.join("index.py"),
        "def handler(event, context):\n    print('greeting', event.decode())\n    if not event:\n        raise KeyError('who')\n    return 'hello ' + event.decode()\n",
    )?;
    let path = code.display().to_string();

    let (status, out, err) =
        cli(&platform, &["deploy", &path, "--runtime", "python3.10", "--handler", "index.handler", "--memory", "256"])?;
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("greeter"), "{out}");
    let (status, out, err) = cli(&platform, &["invoke", "greeter", "-d", "world"])?;
    assert_eq!((status, out.trim_end()), (0, "hello world"), "{err}");
    let (status, out, err) = cli(&platform, &["invoke", "greeter"])?;
    assert_eq!(status, 1, "a function that raises makes the command fail: {out}");
    assert!(err.contains("KeyError"), "{err}");
    let (status, out, _) = cli(&platform, &["logs", "greeter"])?;
    assert_eq!(status, 0);
    assert!(out.contains("greeting world"), "{out}");
    let (status, out, _) = cli(&platform, &["fn", "ls", "--json"])?;
    let listed: Value = serde_json::from_str(&out)?;
    assert_eq!((status, listed[0]["functionName"].as_str()), (0, Some("greeter")), "{out}");
    let (status, out, _) = cli(&platform, &["instance", "ls", "greeter", "--json"])?;
    assert_eq!(status, 0);
    assert!(out.contains("c-"), "{out}");
    // A second deploy replaces the code.
    std::fs::write(code.join("index.py"), "def handler(event, context):\n    return 'second'\n")?;
    assert_eq!(cli(&platform, &["deploy", &path])?.0, 0);
    assert_eq!(cli(&platform, &["invoke", "greeter"])?.1.trim_end(), "second");
    let (status, _, err) = cli(&platform, &["fn", "get", "absent"])?;
    assert_eq!(status, 3, "{err}");
    assert!(err.contains("absent") && err.contains("1-"), "an error names the thing and the request: {err}");
    assert_eq!(cli(&platform, &["fn", "rm", "greeter", "--yes"])?.0, 0);
    Ok(())
}
