//! Handlers of built-in runtimes that stream, and that serve several calls at a time. One platform for each case, since
//! memory is measured.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::thread;

use anyhow::{Result, ensure};
use dunlin_testkit::{Platform, asked, eventually, growth, read_until, zip_of, zip_of_folder};
use serde_json::{Value, json};

const GIB: u64 = 1 << 30;
/// What a streamed body may add to the memory of the process it streams through.
const GROWTH_MAX: u64 = 64 << 20;

const PYTHON: &str = "
import json

def handler(event, context):
    path = json.loads(event)['rawPath']
    if path == '/count':
        return {'bytes': sum(len(part) for part in iter(lambda: context.body.read1(65536), b''))}
    return {'statusCode': 200, 'headers': {'content-type': 'application/x-zeros'}, 'body': zeros()}

def zeros():
    piece = bytes(65536)
    for _ in range(1 << 14):
        yield piece
";

const NODE: &str = "
const { Readable } = require('stream');
exports.handler = async (event, context) => {
  if (JSON.parse(event).rawPath === '/count') {
    let bytes = 0;
    for await (const part of context.body) bytes += part.length;
    return { bytes };
  }
  let left = 1 << 14;
  const piece = Buffer.alloc(65536);
  const body = new Readable({ read() { this.push(left-- > 0 ? piece : null); } });
  return { statusCode: 200, headers: { 'content-type': 'application/x-zeros' }, body };
};
";

const JAVA: &str = r#"
import java.io.*;
import java.util.*;
public class Index {
    public Object handler(Map<String, Object> event, InputStream body) throws IOException {
        if (event.get("rawPath").equals("/count")) {
            long bytes = 0;
            byte[] part = new byte[65536];
            for (int got = body.read(part); got >= 0; got = body.read(part)) bytes += got;
            return Map.of("bytes", bytes);
        }
        InputStream zeros = new InputStream() {
            private long left = 1L << 30;
            public int read() { return left-- > 0 ? 0 : -1; }
            public int read(byte[] into, int from, int count) {
                if (left == 0) return -1;
                count = (int) Math.min(count, left);
                Arrays.fill(into, from, from + count, (byte) 0);
                left -= count;
                return count;
            }
        };
        return Map.of("statusCode", 200, "headers", Map.of("content-type", "application/x-zeros"), "body", zeros);
    }
}
"#;

const PHP: &str = "<?php
function handler($event, $context) {
    if (json_decode($event)->rawPath === '/count') {
        for ($bytes = 0; !feof($context['body']); $bytes += strlen(fread($context['body'], 65536)));
        return ['bytes' => $bytes];
    }
    return ['statusCode' => 200, 'headers' => ['content-type' => 'application/x-zeros'], 'body' => zeros()];
}

function zeros() {
    $piece = str_repeat(chr(0), 65536);
    for ($left = 1 << 14; $left > 0; $left--) yield $piece;
}
";

/// A platform with `code` as the function `f`, and the host of its URL.
fn deployed(runtime: &str, file: &str, code: &str, members: Value) -> Result<(Platform, String)> {
    let platform = Platform::fresh()?;
    platform.api.create("f", runtime, &[(file, code)], members)?;
    let host = platform.api.expose("f")?;
    Ok((platform, host))
}

/// More goes through an instance than fits into it, both ways.
fn streams_a_gibibyte(runtime: &str, handler: &str, archive: &str) -> Result<()> {
    let members = json!({
        "handler": handler, "memorySize": 256, "timeout": 300,
        "environmentVariables": {"DUNLIN_STREAM_REQUESTS": "true"},
    });
    let platform = Platform::fresh()?;
    platform.api.create_from("f", runtime, archive, members)?;
    let host = platform.api.expose("f")?;
    let up = growth(&platform, || {
        let head = format!("POST /count HTTP/1.1\r\nhost: {host}\r\ncontent-length: {GIB}\r\nconnection: close\r\n\r\n");
        let mut socket = asked(&platform, &head)?;
        let piece = vec![7; 1 << 20];
        for _ in 0..GIB >> 20 {
            socket.write_all(&piece)?;
        }
        let text = read_until(&mut socket, "}")?;
        ensure!(text.replace(' ', "").contains(&format!(r#"{{"bytes":{GIB}}}"#)), "{text}");
        Ok(())
    })?;
    assert!(up < GROWTH_MAX, "a request's body added {up} bytes");
    let down = growth(&platform, || {
        let mut socket = asked(&platform, &format!("GET /zeros HTTP/1.0\r\nhost: {host}\r\n\r\n"))?;
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
fn a_python_handler_streams_a_gibibyte_in_and_out_in_constant_memory() -> Result<()> {
    streams_a_gibibyte("python3.10", "index.handler", &zip_of(&[("index.py", PYTHON)])?)
}

#[test]
fn a_node_handler_streams_a_gibibyte_in_and_out_in_constant_memory() -> Result<()> {
    streams_a_gibibyte("nodejs20", "index.handler", &zip_of(&[("index.js", NODE)])?)
}

#[test]
fn a_java_handler_streams_a_gibibyte_in_and_out_in_constant_memory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (source, classes) = (folder.path().join("Index.java"), folder.path().join("classes"));
    std::fs::write(&source, JAVA)?;
    let compiled = Command::new("javac").arg("-d").arg(&classes).arg(&source).output()?;
    ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    streams_a_gibibyte("java11", "Index::handler", &zip_of_folder(&classes)?)
}

#[test]
fn a_php_handler_streams_a_gibibyte_in_and_out_in_constant_memory() -> Result<()> {
    streams_a_gibibyte("php7.2", "index.handler", &zip_of(&[("index.php", PHP)])?)
}

const EVENTS: &str = "
import json, threading

RELEASED, CLOSED = threading.Event(), threading.Event()

def events():
    try:
        yield 'data: 1\\n\\n'
        RELEASED.wait(60)
        yield 'data: 2\\n\\n'
    finally:
        CLOSED.set()

def endless():
    try:
        while True:
            yield 'data: again\\n\\n' * 1000
    finally:
        CLOSED.set()

def handler(event, context):
    path = json.loads(event)['rawPath']
    if path == '/release':
        RELEASED.set()
        return 'released'
    if path == '/closed':
        return str(CLOSED.is_set())
    body = events() if path == '/events' else endless()
    return {'statusCode': 200, 'headers': {'content-type': 'text/event-stream'}, 'body': body}
";

#[test]
fn a_generator_of_events_reaches_its_reader_event_by_event() -> Result<()> {
    let members = json!({"handler": "index.handler", "timeout": 120, "instanceConcurrency": 10});
    let (platform, host) = deployed("python3.12", "index.py", EVENTS, members)?;
    let get = |path: &str| -> Result<String> {
        let reply = platform.connect()?.request("GET", path, &[("host".into(), host.clone())], b"")?;
        ensure!(reply.status == 200, "{path} answered {}: {}", reply.status, reply.text());
        Ok(reply.text())
    };
    let mut socket = asked(&platform, &format!("GET /events HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
    let text = read_until(&mut socket, "data: 1\n\n")?;
    assert!(text.contains("content-type: text/event-stream") && !text.contains("data: 2"), "{text}");
    // The same instance serves this call meanwhile.
    get("/release")?;
    read_until(&mut socket, "data: 2\n\n")?;
    eventually("the generator's end", || Ok(get("/closed")? == "True"))
}

#[test]
fn a_reader_that_goes_away_closes_its_generator_and_nothing_else() -> Result<()> {
    let members = json!({"handler": "index.handler", "timeout": 120, "instanceConcurrency": 10});
    let (platform, host) = deployed("python3.12", "index.py", EVENTS, members)?;
    let get = |path: &str| -> Result<String> {
        let reply = platform.connect()?.request("GET", path, &[("host".into(), host.clone())], b"")?;
        ensure!(reply.status == 200, "{path} answered {}: {}", reply.status, reply.text());
        Ok(reply.text())
    };
    let mut goes = asked(&platform, &format!("GET /endless HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
    read_until(&mut goes, "data: again\n\n")?;
    assert_eq!(get("/closed")?, "False");
    drop(goes);
    eventually("the generator's end", || Ok(get("/closed")? == "True"))
}

#[test]
fn one_instance_serves_as_many_calls_as_it_may() -> Result<()> {
    let codes = [
        (
            "python3.10",
            "index.py",
            "import threading\nALL = threading.Barrier(8)\ndef handler(event, context):\n    ALL.wait(60)\n    return event\n",
        ),
        (
            "nodejs20",
            "index.js",
            "let here = 0, open;\nconst all = new Promise((resolve) => { open = resolve; });\nexports.handler = async (event) => { if (++here === 8) open(); await all; return event; };\n",
        ),
    ];
    for (runtime, file, code) in codes {
        let platform = Platform::fresh()?;
        let members = json!({"handler": "index.handler", "timeout": 60, "instanceConcurrency": 8});
        platform.api.create("f", runtime, &[(file, code)], members)?;
        let (api, seen) = (&platform.api, std::sync::Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for n in 0..8 {
                let seen = &seen;
                scope.spawn(move || {
                    let reply = api.invoke("f", format!("call {n}").as_bytes()).expect("the platform answers");
                    assert_eq!((reply.status, reply.text()), (200, format!("call {n}")), "{runtime}");
                    seen.lock().expect("no other failed").push(reply.header("x-fc-instance-id").map(str::to_owned));
                });
            }
        });
        let mut instances = seen.into_inner().expect("none failed");
        instances.sort();
        instances.dedup();
        assert_eq!(instances.len(), 1, "{runtime}: {instances:?}");
    }
    Ok(())
}
