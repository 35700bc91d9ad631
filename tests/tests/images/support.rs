//! A program for images, images with it in them, and the platform to run them on.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use dunlin_testkit::Platform;
use dunlin_testkit::image::{Image, Layer, Packing};
use serde_json::{Value, json};

/// The server of `server.c`, which needs no library.
pub(crate) fn server() -> &'static [u8] {
    static SERVER: OnceLock<Vec<u8>> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let (source, program) =
            (PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/images/server.c"), folder.path().join("server"));
        let built = Command::new("gcc").args(["-O1", "-static", "-o"]).args([&program, &source]).status();
        assert!(built.expect("gcc is there").success(), "the server is not built");
        std::fs::read(program).expect("gcc has written it")
    })
}

/// What an image with the server says, if it says nothing else.
pub(crate) fn plain() -> Value {
    json!({"Entrypoint": ["/server"]})
}

/// A layer with the server.
pub(crate) fn base() -> Layer {
    Layer::new().program("server", server())
}

/// An image of the server and the layers on top of it.
pub(crate) fn image(layers: &[Layer], program: &Value) -> Result<Image> {
    let all: Vec<_> = std::iter::once(&base()).chain(layers).map(|layer| (layer.tar(), Packing::Plain)).collect();
    Image::new(&all, program)
}

/// Brings an image; answers its reference.
pub(crate) fn push(platform: &Platform, name: &str, archive: &[u8]) -> Result<String> {
    let target = format!("/2023-03-30/dunlin/images/{}", name.replace('/', "%2F"));
    let reply = platform.api.send("PUT", &target, "DunlinPushImage", &[("content-type", "application/x-tar")], archive)?;
    ensure!(reply.status == 200, "DunlinPushImage answered {}: {}", reply.status, reply.text());
    Ok(reply.json()?["image"].as_str().context("a reference")?.to_owned())
}

/// Why an image is not taken.
pub(crate) fn refusal(platform: &Platform, archive: &[u8]) -> Result<String> {
    let target = "/2023-03-30/dunlin/images/refused";
    let reply = platform.api.send("PUT", target, "DunlinPushImage", &[("content-type", "application/x-tar")], archive)?;
    ensure!(reply.status == 400, "DunlinPushImage answered {}: {}", reply.status, reply.text());
    Ok(reply.json()?["Message"].as_str().context("a message")?.to_owned())
}

/// Creates a function that runs an image; `container` is the rest of `customContainerConfig`.
pub(crate) fn create(platform: &Platform, name: &str, image: &str, container: &Value, members: &Value) -> Result<Value> {
    let reply = request(platform, name, image, container, members)?;
    ensure!(reply.status == 200, "CreateFunction answered {}: {}", reply.status, reply.text());
    reply.json()
}

pub(crate) fn request(
    platform: &Platform,
    name: &str,
    image: &str,
    container: &Value,
    members: &Value,
) -> Result<dunlin_testkit::Response> {
    let mut config = json!({"image": image});
    extend(&mut config, container);
    let mut body = json!({
        "functionName": name, "runtime": "custom-container", "handler": "index.handler", "timeout": 30,
        "customContainerConfig": config,
    });
    extend(&mut body, members);
    platform.api.json("POST", "/functions", "CreateFunction", &body)
}

fn extend(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.clone());
    }
}

/// Has the server of a function do something.
pub(crate) fn ask(platform: &Platform, name: &str, command: &str) -> Result<String> {
    let reply = platform.api.invoke(name, command.as_bytes())?;
    ensure!(
        reply.status == 200 && reply.header("x-fc-error-type").is_none(),
        "{name}, {command}: {} {}\n{}",
        reply.status,
        reply.text(),
        platform.printed()
    );
    Ok(reply.text())
}
