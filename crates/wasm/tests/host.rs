//! The host at the other end of the wire, with real programs and no walls.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use dunlin_wasm::{PrepareError, prepare};
use serde_json::{Value, json};
use tempfile::TempDir;

const LOAD: u8 = 2;
const INVOKE: u8 = 4;
const CHUNK: u8 = 5;
const CANCEL: u8 = 6;
const READY: u8 = 16;
const HEAD: u8 = 17;
const END: u8 = 18;
const ERROR: u8 = 19;
const MORE: u8 = 1;

/// Nothing here takes so long; a test that waits for ever says so.
const PATIENCE: Duration = Duration::from_secs(60);

fn wasm(name: &str) -> Vec<u8> {
    let path = format!("{}/../../tests/fixtures/wasm/{name}.wat", env!("CARGO_MANIFEST_DIR"));
    wat::parse_file(path).expect("a fixture is well-formed")
}

/// A package with these programs, unpacked and not prepared.
fn package(programs: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in programs {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn prepared(folder: &TempDir) -> Result<Vec<String>, PrepareError> {
    prepare(fs::File::open(folder.path()).unwrap().as_fd())
}

struct Frame {
    kind: u8,
    stream: u32,
    token: [u8; 16],
    head: Vec<u8>,
    body: Vec<u8>,
}

/// A host, and the platform's end of its channel.
struct Host {
    socket: UnixStream,
    thread: Option<JoinHandle<ExitCode>>,
    code: TempDir,
    /// What came for other streams than the one that was waited for.
    early: HashMap<u32, Vec<Frame>>,
}

impl Host {
    fn start(code: TempDir) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let thread = std::thread::spawn(move || dunlin_wasm::run(OwnedFd::from(theirs)));
        let mut host = Self { socket, thread: Some(thread), code, early: HashMap::new() };
        let ready = host.read();
        assert_eq!((ready.kind, ready.stream), (READY, 0));
        host
    }

    /// A host that has loaded the one program `name`, compiled ahead.
    fn of(name: &str, members: Value) -> Self {
        let folder = package(&[("main.wasm", wasm(name))]);
        prepared(&folder).unwrap();
        let mut host = Self::start(folder);
        let loaded = host.load(members);
        assert_eq!(loaded.kind, END, "{}", String::from_utf8_lossy(&loaded.body));
        host
    }

    fn load(&mut self, members: Value) -> Frame {
        let mut head = json!({
            "codePath": self.code.path(), "handler": "index.handler", "env": {"GREETING": "hi"},
            "function": {"name": "f", "memory": 128},
        });
        head.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        self.send(LOAD, 0, 1, head.to_string().as_bytes(), b"");
        self.answer(1)
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, head: &[u8], body: &[u8]) {
        let mut frame = vec![kind, flags, 0, 0];
        frame.extend(stream.to_le_bytes());
        frame.extend(u32::try_from(head.len()).unwrap().to_le_bytes());
        frame.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        frame.extend([u8::try_from(stream).unwrap(); 16]);
        frame.extend(head);
        frame.extend(body);
        self.socket.write_all(&frame).unwrap();
    }

    fn read(&mut self) -> Frame {
        let mut header = [0; 32];
        self.socket.read_exact(&mut header).unwrap();
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let mut head = vec![0; number(8) as usize];
        let mut body = vec![0; number(12) as usize];
        self.socket.read_exact(&mut head).unwrap();
        self.socket.read_exact(&mut body).unwrap();
        Frame { kind: header[0], stream: number(4), token: header[16..].try_into().unwrap(), head, body }
    }

    /// The next frame of a stream, whose token is checked.
    fn answer(&mut self, stream: u32) -> Frame {
        if let Some(frames) = self.early.get_mut(&stream).filter(|frames| !frames.is_empty()) {
            return frames.remove(0);
        }
        loop {
            let frame = self.read();
            assert_eq!(frame.token, [u8::try_from(frame.stream).unwrap(); 16]);
            if frame.stream == stream {
                return frame;
            }
            self.early.entry(frame.stream).or_default().push(frame);
        }
    }

    fn ask(&mut self, stream: u32, event: &[u8]) {
        self.send(INVOKE, 0, stream, br#"{"requestId":"1-a","deadlineMs":0,"retryCount":0}"#, event);
    }

    fn call(&mut self, event: &[u8]) -> Result<Vec<u8>, Value> {
        self.ask(7, event);
        let frame = self.answer(7);
        match frame.kind {
            END => Ok(frame.body),
            ERROR => {
                assert_eq!(frame.head, br#"{"errorType":"UnhandledInvocationError"}"#);
                Err(serde_json::from_slice(&frame.body).unwrap())
            }
            other => panic!("kind {other}"),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            assert_eq!(format!("{:?}", thread.join().unwrap()), format!("{:?}", ExitCode::SUCCESS));
        }
    }
}

#[test]
fn an_event_is_read_and_the_answer_is_what_was_printed() {
    let mut host = Host::of("echo", json!({}));
    assert_eq!(host.call(b"hello").unwrap(), b"hello");
    assert_eq!(host.call(b"").unwrap(), b"");
    let large: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    assert_eq!(host.call(&large).unwrap(), large);
}

#[test]
fn every_call_has_a_memory_of_its_own() {
    let mut host = Host::of("count", json!({}));
    for _ in 0..3 {
        assert_eq!(host.call(b"").unwrap(), b"1");
    }
}

#[test]
fn a_program_finds_its_name_and_the_functions_variables_and_nothing_of_the_hosts() {
    let mut host = Host::of("environment", json!({"env": {"A": "1", "B": "two words"}}));
    assert_eq!(host.call(b"").unwrap(), b"main.wasm\0A=1\0B=two words\0");
}

#[test]
fn whatever_a_program_does_the_next_call_is_served() {
    for (name, kind, message) in [
        ("trap", "Trap", "wasm trap: wasm `unreachable` instruction executed"),
        ("deep", "Trap", "wasm trap: call stack exhausted"),
        ("exit", "ExitStatus", "the program exited with status 3"),
        ("eat", "OutOfMemory", "the program ran out of memory: memorySize is 128 MB"),
        ("huge", "OutOfMemory", "the program ran out of memory: memorySize is 128 MB"),
        ("flood", "ResponseTooLarge", "Response payload is larger than 33554432 bytes"),
    ] {
        let mut host = Host::of(name, json!({}));
        for _ in 0..2 {
            let error = host.call(b"").unwrap_err();
            assert_eq!(error["errorType"], kind, "{name}: {error}");
            assert!(error["errorMessage"].as_str().unwrap().starts_with(message), "{name}: {error}");
        }
    }
}

#[test]
fn a_trap_says_where() {
    let error = Host::of("trap", json!({})).call(b"").unwrap_err();
    let stack: Vec<&str> = error["stackTrace"].as_array().unwrap().iter().map(|frame| frame.as_str().unwrap()).collect();
    assert_eq!(stack.len(), 3, "{error}");
    assert!(stack[0].starts_with("broken!inner at 0x") && stack[1].starts_with("broken!outer at 0x"), "{error}");
}

#[test]
fn a_program_sees_its_code_and_tmp_and_can_leave_neither() {
    let folder = package(&[("main.wasm", wasm("escape"))]);
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
    prepared(&folder).unwrap();
    let mut host = Host::start(folder);
    assert_eq!(host.load(json!({})).kind, END);
    // Only writing to /tmp leads somewhere.
    assert_eq!(String::from_utf8(host.call(b"").unwrap()).unwrap(), "0000010");
    fs::remove_file("/tmp/new").unwrap();
}

#[test]
fn calls_that_never_end_let_others_run_and_can_be_given_up() {
    let mut host = Host::of("spin", json!({"concurrency": 20}));
    // More than there are threads.
    (10..18).for_each(|stream| host.ask(stream, b"for ever"));
    assert_eq!(host.call(b"").unwrap(), b"idle");
    for stream in 10..18 {
        host.send(CANCEL, 0, stream, b"", b"");
        assert_eq!(host.answer(stream).kind, ERROR);
    }
    assert_eq!(host.call(b"").unwrap(), b"idle");
}

#[test]
fn a_request_to_a_command_is_its_input_and_its_environment() {
    let request = |method: &str| {
        json!({
            "requestId": "1-a", "deadlineMs": 0, "retryCount": 0, "takesParts": true,
            "http": {"method": method, "uri": "/a?b=c", "headers": [["content-type", "text/plain"], ["x-d", "e"]]},
        })
        .to_string()
    };
    let mut host = Host::of("echo", json!({}));
    host.send(INVOKE, MORE, 7, request("POST").as_bytes(), b"");
    host.send(CHUNK, MORE, 7, b"", b"in ");
    host.send(CHUNK, MORE, 7, b"", b"parts");
    host.send(CHUNK, 0, 7, b"", b"");
    let head = host.answer(7);
    let parsed: Value = serde_json::from_slice(&head.head).unwrap();
    assert_eq!((head.kind, &parsed["statusCode"]), (HEAD, &json!(200)));
    assert_eq!(parsed["headers"], json!([["content-type", "text/plain; charset=utf-8"]]));
    let chunk = host.answer(7);
    assert_eq!((chunk.kind, &chunk.body[..]), (CHUNK, &b"in parts"[..]));
    assert_eq!(host.answer(7).kind, END);

    let mut host = Host::of("environment", json!({}));
    host.send(INVOKE, 0, 7, request("GET").as_bytes(), b"");
    assert_eq!(host.answer(7).kind, HEAD);
    let text = String::from_utf8(host.answer(7).body).unwrap();
    for variable in ["REQUEST_METHOD=GET", "PATH_INFO=/a", "QUERY_STRING=b=c", "CONTENT_TYPE=text/plain", "HTTP_X_D=e"] {
        assert!(text.split('\0').any(|pair| pair == variable), "{variable}: {text}");
    }
}

#[test]
fn code_that_was_not_compiled_ahead_is_compiled_when_it_is_loaded() {
    let mut host = Host::start(package(&[("index.wasm", wasm("echo"))]));
    assert_eq!(host.load(json!({})).kind, END);
    assert_eq!(host.call(b"x").unwrap(), b"x");
}

#[test]
fn a_function_without_a_program_says_what_is_missing() {
    for (handler, text) in
        [("main.wasm", "names 'main.wasm', which is not in the package"), ("index.handler", "neither main.wasm nor index.wasm")]
    {
        let mut host = Host::start(package(&[("other.wasm", wasm("echo"))]));
        let answer = host.load(json!({"handler": handler}));
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.kind, &error["errorType"]), (ERROR, &json!("ProgramNotFound")));
        assert!(error["errorMessage"].as_str().unwrap().contains(text), "{error}");
    }
}

#[test]
fn every_program_of_a_package_is_compiled_and_nothing_else() {
    let folder = package(&[("b.wasm", wasm("echo")), ("a.wasm", wasm("trap")), ("readme.txt", b"x".to_vec())]);
    fs::create_dir(folder.path().join("deeper.wasm")).unwrap();
    std::os::unix::fs::symlink("a.wasm", folder.path().join("link.wasm")).unwrap();
    assert_eq!(prepared(&folder).unwrap(), ["a.wasm", "b.wasm"]);
    let mut compiled: Vec<_> = fs::read_dir(folder.path().join(".dunlin-wasm"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    compiled.sort();
    assert_eq!(compiled, ["a.wasm.compiled", "b.wasm.compiled"]);
    assert!(matches!(prepared(&folder), Err(PrepareError::Reserved)), "its own work is taken for the package's");
}

#[test]
fn what_is_no_program_is_refused_by_name() {
    let good = wasm("echo");
    for (bytes, text) in [
        (b"<html>".to_vec(), "'x.wasm' is not WebAssembly"),
        (Vec::new(), "'x.wasm' is not WebAssembly"),
        (good[..good.len() / 2].to_vec(), "'x.wasm' cannot be compiled: "),
        (wasm("library"), "'x.wasm' exports no function '_start'"),
        (wasm("stranger"), "'x.wasm' imports what nobody provides: unknown import: `env::launch_missiles`"),
        (wasm("tables"), "'x.wasm' cannot be compiled: "),
        (wat::parse_str("(component)").unwrap(), "'x.wasm' exports neither wasi:cli/run nor wasi:http/incoming-handler"),
        (
            wat::parse_str(r#"(component (import "acme:store/keys" (instance (export "get" (func)))))"#).unwrap(),
            "'x.wasm' imports what nobody provides: component imports instance `acme:store/keys`",
        ),
    ] {
        let error = prepared(&package(&[("x.wasm", bytes)])).expect_err(text).to_string();
        assert!(error.starts_with(text), "{error}");
    }
    assert!(matches!(prepared(&package(&[("x.txt", Vec::new())])), Err(PrepareError::Nothing)));
}

#[test]
fn the_example_is_what_its_text_says() {
    let folder = format!("{}/../../examples/wasm-hello", env!("CARGO_MANIFEST_DIR"));
    let program = fs::read(format!("{folder}/main.wasm")).unwrap();
    assert_eq!(wat::parse_file(format!("{folder}/main.wat")).unwrap(), program);
    let code = package(&[("main.wasm", program)]);
    prepared(&code).unwrap();
    let mut host = Host::start(code);
    assert_eq!(host.load(json!({})).kind, END);
    assert_eq!(host.call(b"").unwrap(), b"hello");
    assert_eq!(host.call(b"you").unwrap(), b"hello you");
}

/// The component that `scripts/setup` builds from JavaScript.
#[test]
fn a_component_answers_events_and_requests() {
    let cache = std::env::var_os("DUNLIN_CACHE").map(std::path::PathBuf::from);
    let cache = cache.unwrap_or_else(|| std::path::PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/dunlin"));
    let component = fs::read(cache.join("fixtures/wasm-http/main.wasm")).expect("run scripts/setup first");
    let folder = package(&[("main.wasm", component)]);
    prepared(&folder).unwrap();
    let mut host = Host::start(folder);
    let headers = json!([["x-fc-function-name", "f"]]);
    let loaded = host.load(json!({"function": {"memory": 512}, "concurrency": 4, "httpHeaders": headers}));
    assert_eq!(loaded.kind, END, "{}", String::from_utf8_lossy(&loaded.body));
    for _ in 0..2 {
        let answer: Value = serde_json::from_slice(&host.call(b"an event").unwrap()).unwrap();
        assert_eq!(answer, json!({"event": "an event", "calls": 1, "requestId": "1-a"}));
    }
    assert_eq!(host.call(b"fail").unwrap_err(), json!({"errorMessage": "as asked", "errorType": "Asked"}));

    let head = json!({
        "requestId": "1-a", "deadlineMs": 0, "retryCount": 0, "takesParts": true,
        "http": {"method": "PUT", "uri": "/echo?a=1", "headers": [["host", "example.org"]]},
    });
    host.send(INVOKE, MORE, 7, head.to_string().as_bytes(), b"");
    host.send(CHUNK, MORE, 7, b"", b"a body");
    let head = host.answer(7);
    let parsed: Value = serde_json::from_slice(&head.head).unwrap_or_default();
    assert_eq!((head.kind, &parsed["statusCode"]), (HEAD, &json!(201)), "{}", String::from_utf8_lossy(&head.body));
    assert!(parsed["headers"].as_array().unwrap().contains(&json!(["x-method", "PUT"])), "{parsed}");
    // It comes back before the request has ended.
    let chunk = host.answer(7);
    assert_eq!((chunk.kind, &chunk.body[..]), (CHUNK, &b"a body"[..]));
    host.send(CHUNK, 0, 7, b"", b"");
    assert_eq!(host.answer(7).kind, END);
}
