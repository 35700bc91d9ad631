//! The functions under load: an echo in every language, and one for each way to misbehave.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_testkit::{Platform, cache, zip_of, zip_of_folder};
use serde_json::{Value, json};

/// Answers, or does what the event says.
const PYTHON: &str = "
import os, time

def handler(event, context):
    if event == b'raise':
        raise ValueError('on purpose')
    if event == b'exit':
        os._exit(3)
    if event == b'hang':
        time.sleep(60)
    if event == b'eat':
        held = []
        while True:
            held.append(bytearray(1 << 24))
    if event == b'nap':
        time.sleep(0.05)
    return event
";

const STREAM: &str = "
def parts():
    for number in range(64):
        yield b'%06d' % number * 1000

def handler(event, context):
    return {'statusCode': 200, 'headers': {'content-type': 'application/x-parts'}, 'body': parts()}
";

const NODE: &str = "exports.handler = async (event) => event;";

const PHP: &str = "<?php function handler($event, $context) { return $event; }";

const CUSTOM: &str = "#!/usr/bin/python3
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        event = self.rfile.read(int(self.headers.get('content-length') or 0))
        self.send_response(200)
        self.send_header('content-length', str(len(event)))
        self.end_headers()
        self.wfile.write(event)
    def log_message(self, *_):
        pass

ThreadingHTTPServer(('0.0.0.0', 9000), Handler).serve_forever()
";

/// Cells that wait when one of each kind does: Python's, Node's, Java's, PHP's, and the launcher that all others begin in.
pub(crate) const KINDS_OF_CELLS: u64 = 5;

/// How an echo takes its text and gives it back.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// As it is.
    Plain,
    /// `{"do":"text","text":…}`, answered as a JSON string (the fixture for the vendor's Go library).
    Go,
    /// Any JSON, answered as `{"echo":…}` (the fixtures for Lambda's clients).
    Lambda,
    /// A greeting with the text in it.
    Greeting,
}

impl Shape {
    pub(crate) fn event(self, text: &str) -> Vec<u8> {
        match self {
            Self::Plain | Self::Greeting => text.as_bytes().to_vec(),
            Self::Go => json!({"do": "text", "text": text}).to_string().into_bytes(),
            Self::Lambda => json!({"text": text}).to_string().into_bytes(),
        }
    }

    pub(crate) fn accepts(self, text: &str, answer: &str) -> bool {
        let read = || serde_json::from_str::<Value>(answer).unwrap_or_default();
        match self {
            Self::Plain => answer == text,
            Self::Go => read() == json!(text),
            Self::Lambda => read() == json!({"echo": {"text": text}}),
            Self::Greeting => answer.contains(text),
        }
    }
}

/// What is deployed.
pub(crate) struct Fleet {
    /// One per language.
    pub(crate) echoes: Vec<(String, Shape)>,
    /// The host of the URL of the function that streams.
    pub(crate) stream: String,
    names: Vec<String>,
}

impl Fleet {
    pub(crate) fn deploy(platform: &Platform) -> Result<Self> {
        let mut fleet = Self { echoes: Vec::new(), stream: String::new(), names: Vec::new() };
        let python = zip_of(&[("index.py", PYTHON)])?;
        fleet.echo(platform, "python", "python3.10", &python, json!({}), Shape::Plain)?;
        fleet.echo(platform, "node", "nodejs20", &zip_of(&[("index.js", NODE)])?, json!({}), Shape::Plain)?;
        fleet.echo(platform, "php", "php7.2", &zip_of(&[("index.php", PHP)])?, json!({}), Shape::Plain)?;
        fleet.echo(platform, "custom", "custom.debian12", &zip_of(&[("bootstrap", CUSTOM)])?, json!({}), Shape::Plain)?;
        let jar = std::fs::read(cache().join("java-hello/target/java-hello.jar")).context("run scripts/setup first")?;
        let members = json!({"handler": "example.Hello::handleRequest", "memorySize": 256});
        fleet.echo(platform, "java", "java11", &STANDARD.encode(jar), members, Shape::Greeting)?;
        fleet.echo(platform, "go", "go1", &fixture("go-fc")?, json!({"handler": "main"}), Shape::Go)?;
        fleet.echo(platform, "rust", "provided.al2023", &fixture("lambda-rust")?, json!({}), Shape::Lambda)?;
        for (name, members) in [
            ("faulty", json!({})),
            ("slow", json!({"timeout": 1})),
            ("small", json!({"memorySize": 128})),
            ("busy", json!({"instanceConcurrency": 4})),
        ] {
            fleet.create(platform, name, "python3.10", &python, members)?;
        }
        fleet.create(platform, "parts", "python3.10", &zip_of(&[("index.py", STREAM)])?, json!({}))?;
        fleet.stream = platform.api.expose("parts")?;
        Ok(fleet)
    }

    fn echo(&mut self, platform: &Platform, name: &str, runtime: &str, zip: &str, members: Value, shape: Shape) -> Result<()> {
        self.create(platform, name, runtime, zip, members)?;
        self.echoes.push((name.to_owned(), shape));
        Ok(())
    }

    fn create(&mut self, platform: &Platform, name: &str, runtime: &str, zip: &str, members: Value) -> Result<()> {
        let mut all = json!({"timeout": 60, "memorySize": 256});
        if let (Some(all), Some(members)) = (all.as_object_mut(), members.as_object()) {
            all.extend(members.clone());
        }
        platform.api.create_from(name, runtime, zip, all)?;
        self.names.push(name.to_owned());
        Ok(())
    }

    pub(crate) fn delete(self, platform: &Platform) -> Result<()> {
        let trigger = platform.api.json("DELETE", "/functions/parts/triggers/web", "DeleteTrigger", &Value::Null)?;
        ensure!(trigger.status == 204, "DeleteTrigger answered {}: {}", trigger.status, trigger.text());
        self.names.iter().try_for_each(|name| delete(platform, name))
    }
}

pub(crate) fn delete(platform: &Platform, name: &str) -> Result<()> {
    let reply = platform.api.json("DELETE", &format!("/functions/{name}"), "DeleteFunction", &Value::Null)?;
    ensure!(reply.status == 204, "DeleteFunction answered {}: {}", reply.status, reply.text());
    Ok(())
}

/// What `scripts/setup` has built.
fn fixture(name: &str) -> Result<String> {
    zip_of_folder(&cache().join("fixtures").join(name)).context("run scripts/setup first")
}
