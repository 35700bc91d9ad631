//! What a program may say to the runtime API, and what comes of what it may not.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{
    AccountId, CodePackage, Crc64, Digest, Function, FunctionKey, FunctionPatch, InstanceId, Limits, RequestId, Revision,
    VersionKey,
};
use dunlin_runtime::{
    Answer, Answered, BootPlan, CallContext, CallError, Failed, Guest, LoadSpec, LogLine, LogSink, Payload, StartError,
};
use dunlin_sandbox::testing::Fake;
use dunlin_sandbox::{CellKind, Net, Sandboxes};
use tokio::time::Instant;

struct Nowhere;

impl LogSink for Nowhere {
    fn line(&self, _: LogLine<'_>) {}
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Loads a program of `runtime` that is played by `program`, which gets the API's address.
async fn load(runtime: &str, program: impl FnOnce(String) + Send + 'static) -> Result<Arc<Guest>, Failed<StartError>> {
    let (fake, mut insides) = Fake::new();
    let cell = fake.make(CellKind::Launcher, Net::Loopback).await.unwrap();
    let mut inside = insides.recv().await.unwrap();
    std::thread::spawn(move || {
        let mut header = [0; 32];
        inside.channel.read_exact(&mut header).unwrap();
        let length = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as usize;
        let mut text = vec![0; length(8) + length(12)];
        inside.channel.read_exact(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let address = text.split('\0').find_map(|word| word.split_once("_RUNTIME_API=")).unwrap().1.to_owned();
        // The program was started: end of file on the channel.
        inside.channel.shutdown(std::net::Shutdown::Write).unwrap();
        program(address);
        // The cell lives on until the test has ended.
        std::mem::forget(inside);
    });
    let guest = Guest::boot(cell, BootPlan::Custom, soon()).await.unwrap();
    let patch: FunctionPatch =
        serde_json::from_value(serde_json::json!({"functionName": "f", "runtime": runtime, "handler": "main"})).unwrap();
    let account: AccountId = "1234567890123456".parse().unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let code = CodePackage { digest: Digest::of(b""), checksum: Crc64(0), size: 0 };
    let config = patch.create(&Limits::default()).unwrap();
    let spec = LoadSpec {
        template: false,
        instance: InstanceId::random(),
        function: Arc::new(Function { config, code, function_id: "id".to_owned(), created: now, modified: now }),
        key: VersionKey {
            function: FunctionKey::from_stored(account, "f".parse().unwrap()),
            version: "LATEST".into(),
            revision: Revision(1),
        },
        qualifier: "LATEST".to_owned(),
        request: RequestId::random(),
        region: "cn-hangzhou".to_owned(),
        logs: Arc::new(Nowhere),
    };
    let sandboxes: Arc<dyn Sandboxes> = Arc::new(fake);
    guest.load(&sandboxes, &spec, soon()).await?;
    Ok(Arc::new(guest))
}

fn call() -> CallContext {
    CallContext {
        request_id: RequestId::random(),
        deadline_ms: 4_000_000_000_000,
        retry_count: 0,
        capture_tail: false,
        takes_parts: false,
        http_base: None,
    }
}

async fn invoke(guest: &Guest, deadline: Instant) -> Result<Answered, CallError> {
    guest.invoke(&call(), Payload::Event("event".into()), deadline).await.map_err(|failed| failed.error)
}

fn text(answered: Result<Answered, CallError>) -> String {
    match answered.unwrap().answer {
        Answer::Event(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// One exchange on a connection of its own: the status, the head and the body.
fn say(address: &str, method: &str, path: &str, body: &[u8]) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // The other side may refuse before it has read everything.
    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body));
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// Fetches the next call: its id.
fn fetch(address: &str) -> String {
    let (status, head, body) = say(address, "GET", "/2020-11-11/runtime/invocation/next", b"");
    assert_eq!((status, body.as_str()), (200, "event"), "{head}");
    head.lines().find_map(|line| line.strip_prefix("x-fc-request-id: ")).unwrap().to_owned()
}

fn path(id: &str, what: &str) -> String {
    format!("/2020-11-11/runtime/invocation/{id}/{what}")
}

/// Lets a program end its life: it asks for a call that never comes.
fn rest(address: &str) {
    say(address, "GET", "/2020-11-11/runtime/invocation/next", b"");
}

#[tokio::test]
async fn a_call_is_answered_once_and_only_under_its_own_id() {
    let guest = load("go1", |address| {
        for path in
            ["/", "/2019-01-01/runtime/invocation/next", "/2020-11-11/runtime/init/error", "/2020-11-11/runtime/invocation"]
        {
            assert_eq!(say(&address, "POST", path, b"x").0, 404, "{path}");
        }
        let id = fetch(&address);
        let foreign = RequestId::random().to_string();
        for wrong in [foreign.as_str(), "", "%00", "next"] {
            assert_eq!(say(&address, "POST", &path(wrong, "response"), b"forged").0, 400, "{wrong}");
        }
        assert_eq!(say(&address, "POST", &path(&id, "response"), b"first").0, 200);
        for what in ["response", "error"] {
            let (status, _, body) = say(&address, "POST", &path(&id, what), b"second");
            assert_eq!(status, 400);
            assert!(body.contains("InvalidRequestID"), "{body}");
        }
        rest(&address);
    })
    .await
    .unwrap();
    assert_eq!(text(invoke(&guest, soon()).await), "first");
    assert!(!guest.is_spent());
}

#[tokio::test]
async fn an_error_reaches_the_caller_as_it_was_worded_or_as_its_message() {
    for (said, expected) in [
        (
            r#"{"errorMessage":"oops","errorType":"E","stackTrace":[]}"#,
            r#"{"errorMessage":"oops","errorType":"E","stackTrace":[]}"#,
        ),
        ("not JSON", r#"{"errorMessage":"not JSON","errorType":"FunctionError"}"#),
        (r#"["a list"]"#, r#"{"errorMessage":"[\"a list\"]","errorType":"FunctionError"}"#),
    ] {
        let guest = load("go1", move |address| {
            let id = fetch(&address);
            assert_eq!(say(&address, "POST", &path(&id, "error"), said.as_bytes()).0, 200);
            rest(&address);
        })
        .await
        .unwrap();
        match invoke(&guest, soon()).await {
            Err(CallError::Function(error)) => assert_eq!(String::from_utf8(error.body).unwrap(), expected),
            other => panic!("{other:?}"),
        }
        assert!(!guest.is_spent());
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_is_cut_off() {
    let guest = load("go1", |address| {
        let id = fetch(&address);
        assert_eq!(say(&address, "POST", &path(&id, "response"), &vec![b'x'; (32 << 20) + 1]).0, 413);
        rest(&address);
    })
    .await
    .unwrap();
    assert!(matches!(invoke(&guest, soon()).await, Err(CallError::TooLarge { .. })));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let guest = load("go1", |address| {
        let id = fetch(&address);
        let mut socket = TcpStream::connect(&address).unwrap();
        let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf", path(&id, "response"));
        socket.write_all(head.as_bytes()).unwrap();
        drop(socket);
        rest(&address);
    })
    .await
    .unwrap();
    assert!(matches!(invoke(&guest, soon()).await, Err(CallError::Protocol(_))));
}

#[tokio::test]
async fn a_program_that_keeps_its_call_too_long_gets_no_other() {
    let guest = load("go1", |address| {
        fetch(&address);
        rest(&address);
    })
    .await
    .unwrap();
    assert!(matches!(invoke(&guest, Instant::now() + Duration::from_millis(200)).await, Err(CallError::TimedOut)));
    assert!(guest.is_spent());
}

#[tokio::test]
async fn a_lambda_program_may_say_that_it_cannot_start_but_only_first() {
    let error = br#"{"errorMessage":"no module","errorType":"ImportError"}"#;
    let refused = load("provided", move |address| {
        assert_eq!(say(&address, "POST", "/2018-06-01/runtime/init/error", error).0, 202);
        assert_eq!(say(&address, "POST", "/2018-06-01/runtime/init/error", error).0, 403);
    })
    .await;
    match refused.map_err(|failed| failed.error) {
        Err(StartError::Function(told)) => assert_eq!(told.body, error),
        Ok(_) => panic!("it started"),
        Err(other) => panic!("{other:?}"),
    }
    let guest = load("provided", move |address| {
        let (status, head, _) = say(&address, "GET", "/2018-06-01/runtime/invocation/next", b"");
        assert_eq!(status, 200);
        for name in ["aws-request-id", "deadline-ms", "invoked-function-arn", "trace-id"] {
            assert!(head.contains(&format!("lambda-runtime-{name}: ")), "{name} in {head}");
        }
        let id = head.lines().find_map(|line| line.strip_prefix("lambda-runtime-aws-request-id: ")).unwrap();
        assert_eq!(say(&address, "POST", "/2018-06-01/runtime/init/error", error).0, 403);
        assert_eq!(say(&address, "POST", &format!("/2018-06-01/runtime/invocation/{id}/response"), b"done").0, 202);
        rest(&address);
    })
    .await
    .unwrap();
    assert_eq!(text(invoke(&guest, soon()).await), "done");
}

#[tokio::test]
async fn garbage_and_crowds_of_connections_cost_the_program_nothing_but_themselves() {
    let guest = load("go1", |address| {
        let held: Vec<TcpStream> = (0..12)
            .map(|n| {
                let mut socket = TcpStream::connect(&address).unwrap();
                let bytes: &[u8] = match n % 4 {
                    0 => b"",
                    1 => b"GET /2020-11-11/runtime/invocation/next HT",
                    2 => b"\x16\x03\x01\0\0garbage\r\n\r\n",
                    _ => b"POST / HTTP/1.1\r\nx: ",
                };
                socket.write_all(bytes).unwrap();
                socket
            })
            .collect();
        let mut endless = TcpStream::connect(&address).unwrap();
        // A head without an end is cut off.
        while endless.write_all(&[b'a'; 4096]).is_ok() {}
        let id = fetch(&address);
        assert_eq!(say(&address, "POST", &path(&id, "response"), b"served").0, 200);
        drop(held);
        rest(&address);
    })
    .await
    .unwrap();
    assert_eq!(text(invoke(&guest, soon()).await), "served");
}
