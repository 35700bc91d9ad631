//! Layers that are not what they should be, and functions that name them wrongly.

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Platform, zip_of};
use serde_json::{Value, json};

use crate::packages::kept;
use crate::{absent, create, no_layer, publish, refused};

fn good() -> Result<Value> {
    Ok(json!({"code": {"zipFile": zip_of(&[("python/x.py", "x = 1\n")])?}}))
}

pub(crate) fn wrong_layers_are_named(platform: &Platform) -> Result<()> {
    let before = kept(platform);
    let good = good()?;
    let zip = &good["code"]["zipFile"];
    let cases: &[(&str, Value, &str)] = &[
        ("code", Value::Null, "code.zipFile"),
        ("code", json!({}), "code.zipFile"),
        ("code", json!("x"), "code"),
        ("code", json!({"zipFile": 1}), "zipFile"),
        ("code", json!({"zipFile": ""}), "zipFile"),
        ("code", json!({"zipFile": "***"}), "zipFile"),
        ("code", json!({"zipFile": zip, "checksum": "1"}), "checksum"),
        ("code", json!({"zipFile": zip, "checksum": "-1"}), "checksum"),
        ("code", json!({"ossBucketName": "b", "ossObjectName": "o"}), "oss"),
        ("description", json!("x".repeat(257)), "description"),
        ("description", json!(1), "description"),
        ("description", json!("x".repeat(10 << 20)), "description"),
        ("license", json!("x".repeat(2000)), "license"),
        ("compatibleRuntime", json!("python3.10"), "compatibleRuntime"),
        ("compatibleRuntime", json!({}), "compatibleRuntime"),
        ("compatibleRuntime", json!([1]), "compatibleRuntime"),
        ("compatibleRuntime", json!(["../x"]), "compatibleRuntime.0"),
        ("compatibleRuntime", json!(["ok", "\u{202e}"]), "compatibleRuntime.1"),
        ("compatibleRuntime", json!(vec!["x"; 10_000]), "compatibleRuntime"),
    ];
    for (member, value, named) in cases {
        let mut body = good.clone();
        body[*member] = value.clone();
        let shown: String = value.to_string().chars().take(60).collect();
        let message =
            refused(&publish(platform, "bad", &body)?, 400, "InvalidArgument").with_context(|| format!("{member} = {shown}"))?;
        ensure!(message.contains(named), "{member} = {shown}: the message does not name {named}: {message}");
        ensure!(message.len() < 2000, "{member} = {shown}: a message of {} bytes", message.len());
    }
    let over = "x".repeat(129);
    for name in ["9x", "-x", "..%2fx", "%2e%2e", "a.b", "a%20b", "%20a", "a%00", "a%0a", "%C3%A9", "a%3Ab", "%E2%80%AEb", &over] {
        let message = refused(&publish(platform, name, &good)?, 400, "InvalidArgument").with_context(|| name.to_owned())?;
        ensure!(message.contains("layerName") && !message.chars().any(char::is_control), "{name}: {message:?}");
    }
    no_layer(platform, "bad")?;
    for path in ["/layers/bad/versions/0", "/layers/bad/versions/1.5", "/layers/bad/versions/+1", "/layers/bad/versions/1e3"] {
        let reply = platform.api.json("GET", path, "GetLayerVersion", &Value::Null)?;
        let message = refused(&reply, 400, "InvalidArgument").context(path)?;
        ensure!(message.contains("version"), "{path}: {message}");
    }
    ensure!(kept(platform) == before, "left on disk: {:?}", kept(platform).difference(&before).collect::<Vec<_>>());
    Ok(())
}

pub(crate) fn layers_of_functions_are_named(platform: &Platform) -> Result<()> {
    let made = publish(platform, "good", &good()?)?.json()?;
    let arn = made["layerVersionArn"].as_str().context("a name")?.to_owned();
    let before = kept(platform);
    let absent_one = arn.replace("/good/", "/absent/");
    let another = arn.replace(
        made["layerVersionArn"].as_str().and_then(|arn| arn.split(':').nth(3)).context("an account")?,
        "9999999999999999",
    );
    let code = json!({"zipFile": zip_of(&[("index.py", "def handler(e, c):\n    return 'x'\n")])?});
    let cases: &[(Value, u16, &str, &str)] = &[
        (json!("x"), 400, "InvalidArgument", "layers"),
        (json!({}), 400, "InvalidArgument", "layers"),
        (json!([1]), 400, "InvalidArgument", "layers"),
        (json!([null]), 400, "InvalidArgument", "layers"),
        (json!([""]), 400, "InvalidArgument", "layers.0"),
        (json!([arn, arn]), 400, "InvalidArgument", "layers.1"),
        (json!([arn, format!("{arn}0000000000000000000000")]), 400, "InvalidArgument", "layers.1"),
        (json!([format!("{arn} ")]), 400, "InvalidArgument", "layers.0"),
        (json!([arn.replace("acs:", "arn:")]), 400, "InvalidArgument", "layers.0"),
        (json!([arn.replace("/versions/1", "")]), 400, "InvalidArgument", "layers.0"),
        (json!([arn.replace("good", "../good")]), 400, "InvalidArgument", "layers.0"),
        (json!(vec![&arn; 6]), 400, "InvalidArgument", "5"),
        (json!(["x".repeat(1 << 20)]), 400, "InvalidArgument", "layers.0"),
        (json!([absent_one]), 404, "LayerVersionNotFound", "layers.0"),
        (json!([another]), 404, "LayerVersionNotFound", "layers.0"),
        (json!([format!("{arn}1")]), 404, "LayerVersionNotFound", "layers.0"),
    ];
    for (layers, status, code_of, named) in cases {
        let body =
            json!({"functionName": "bad", "runtime": "python3.10", "handler": "index.handler", "code": code, "layers": layers});
        let shown: String = layers.to_string().chars().take(90).collect();
        let message =
            refused(&create(platform, body.to_string().as_bytes())?, *status, code_of).with_context(|| shown.clone())?;
        ensure!(message.contains(named) && message.len() < 2000, "{shown}: {message}");
        absent(platform, "bad")?;
        let reply = platform.api.json("PUT", "/functions/echo", "UpdateFunction", &json!({"layers": layers}))?;
        refused(&reply, *status, code_of).with_context(|| format!("an update to {shown}"))?;
    }
    ensure!(kept(platform) == before, "left on disk: {:?}", kept(platform).difference(&before).collect::<Vec<_>>());
    Ok(())
}
