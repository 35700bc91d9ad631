//! Requests that pass through to a function's own server: streams both ways, server-sent events, WebSockets, callers
//! that go away. One platform, one Node server with the `ws` package in its zip.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Platform, asked, cache, eventually, growth, read_until};
use serde_json::json;

const SERVER: &str = include_str!("../functions/pass_through.js");
const GIB: u64 = 1 << 30;
/// What a streamed body may add to the memory of the process it streams through.
const GROWTH_MAX: u64 = 64 << 20;

fn node_modules() -> PathBuf {
    cache().join("node-sdk/node_modules")
}

/// The files of an installed package, as entries of a zip.
fn package(name: &str) -> Result<Vec<(String, String)>> {
    let root = node_modules();
    let (mut files, mut folders) = (Vec::new(), vec![root.join(name)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).context("run scripts/setup first")? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push((format!("node_modules/{}", path.strip_prefix(&root)?.display()), text));
            }
        }
    }
    Ok(files)
}

/// A platform with the server as a function, and the host of its URL.
fn deployed() -> Result<(Platform, String)> {
    let platform = Platform::fresh()?;
    let mut files = package("ws")?;
    files.push(("server.js".into(), SERVER.into()));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    platform.api.create(
        "server",
        "custom.debian12",
        &files,
        json!({
            "customRuntimeConfig": {"command": ["node", "server.js"], "port": 9000},
            "instanceConcurrency": 20, "memorySize": 512, "timeout": 300,
        }),
    )?;
    let host = platform.api.expose("server")?;
    Ok((platform, host))
}

fn get(platform: &Platform, host: &str, path: &str) -> Result<String> {
    let reply = platform.connect()?.request("GET", path, &[("host".into(), host.into())], b"")?;
    ensure!(reply.status == 200, "{path} answered {}: {}", reply.status, reply.text());
    Ok(reply.text())
}

#[test]
fn a_body_of_a_gibibyte_streams_in_and_out_in_constant_memory() -> Result<()> {
    let (platform, host) = deployed()?;
    get(&platform, &host, "/bytes?n=1048576")?;
    let up = growth(&platform, || {
        let head = format!("POST /count HTTP/1.1\r\nhost: {host}\r\ncontent-length: {GIB}\r\nconnection: close\r\n\r\n");
        let mut socket = asked(&platform, &head)?;
        let piece = vec![7; 1 << 20];
        for _ in 0..GIB >> 20 {
            socket.write_all(&piece)?;
        }
        let text = read_until(&mut socket, "}")?;
        ensure!(text.contains(&format!(r#"{{"bytes":{GIB}}}"#)), "{text}");
        Ok(())
    })?;
    assert!(up < GROWTH_MAX, "a request's body added {up} bytes");
    let down = growth(&platform, || {
        let mut socket = asked(&platform, &format!("GET /bytes?n={GIB} HTTP/1.0\r\nhost: {host}\r\nconnection: close\r\n\r\n"))?;
        let (mut seen, mut piece) = (0, vec![0; 1 << 20]);
        loop {
            match socket.read(&mut piece)? {
                0 => break,
                bytes => seen += bytes as u64,
            }
        }
        ensure!(seen > GIB && seen < GIB + 4096, "{seen} bytes with the head");
        Ok(())
    })?;
    assert!(down < GROWTH_MAX, "a response's body added {down} bytes");
    Ok(())
}

#[test]
fn events_arrive_while_the_response_is_still_being_made() -> Result<()> {
    let (platform, host) = deployed()?;
    let mut socket = asked(&platform, &format!("GET /events HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n"))?;
    let text = read_until(&mut socket, "data: 1\n\n")?;
    assert!(text.contains("content-type: text/event-stream") && !text.contains("data: 2"), "{text}");
    // The server sends the next one when it is told to, which this side does only now.
    get(&platform, &host, "/release")?;
    read_until(&mut socket, "data: 2\n\n")?;
    Ok(())
}

#[test]
fn a_real_websocket_client_talks_with_a_real_websocket_server() -> Result<()> {
    let (platform, host) = deployed()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/websocket.js");
    let output = Command::new("node").env("NODE_PATH", node_modules()).arg(script).arg(platform.address()).arg(&host).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("all right"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // The tunnel is one call, and its record is written when it ends.
    eventually("the record of the connection", || {
        let reply = platform.api.send("GET", "/2023-03-30/dunlin/records?functionName=server", "", &[], b"")?;
        let records = reply.json()?;
        let all = records["records"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().any(|record| record["bytesIn"].as_u64() > Some(100_000) && record["bytesOut"].as_u64() > Some(100_000)))
    })
}

#[test]
fn a_caller_that_goes_away_cancels_its_own_call_only() -> Result<()> {
    let (platform, host) = deployed()?;
    let head = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let mut stays = asked(&platform, &head("/events"))?;
    read_until(&mut stays, "data: 1\n\n")?;
    let goes = asked(&platform, &head("/hang"))?;
    eventually("the call's arrival", || Ok(get(&platform, &host, "/hanging")? == "1"))?;
    drop(goes);
    eventually("the news at the server", || Ok(get(&platform, &host, "/gone")? == "1"))?;
    // The same instance goes on with the other call.
    get(&platform, &host, "/release")?;
    read_until(&mut stays, "data: 2\n\n")?;
    Ok(())
}
