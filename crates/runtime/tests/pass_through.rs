//! Requests that pass through to the user's server and back.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::{
    AccountId, CodePackage, Crc64, Digest, Function, FunctionKey, FunctionPatch, InstanceId, Limits, RequestId, Revision,
    VersionKey,
};
use dunlin_runtime::{
    Answer, BootPlan, CallContext, CallError, Guest, HttpBase, LoadSpec, LogLine, LogSink, MarkedStatus, Payload, TunnelEnd,
    Upgrade,
};
use dunlin_sandbox::testing::Fake;
use dunlin_sandbox::{CellKind, Net, Sandboxes};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;

struct Nowhere;

impl LogSink for Nowhere {
    fn line(&self, _: LogLine<'_>) {}
}

/// A guest whose server is `serve`, called once per connection with the listener's stream.
async fn guest(serve: fn(TcpStream)) -> (Guest, Fake) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    let (fake, mut insides) = Fake::new();
    let cell = fake.make(CellKind::Launcher, Net::Loopback).await.unwrap();
    // The program was started: end of file on the channel.
    let inside = insides.recv().await.unwrap();
    inside.channel.shutdown(std::net::Shutdown::Write).unwrap();
    std::mem::forget(inside);
    let guest = Guest::boot(cell, BootPlan::Custom, soon()).await.unwrap();
    let patch: FunctionPatch = serde_json::from_value(serde_json::json!({
        "functionName": "f", "runtime": "custom", "handler": "index.handler", "customRuntimeConfig": {"port": port},
    }))
    .unwrap();
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
            version: "3".into(),
            revision: Revision(1),
        },
        qualifier: "prod".to_owned(),
        request: RequestId::random(),
        region: "cn-hangzhou".to_owned(),
        logs: Arc::new(Nowhere),
    };
    let sandboxes: Arc<dyn Sandboxes> = Arc::new(fake.clone());
    guest.load(&sandboxes, &spec, soon()).await.unwrap();
    (guest, fake)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn call() -> CallContext {
    let http_base = Some(HttpBase { client_ip: "192.0.2.7".to_owned(), base_path: String::new() });
    CallContext {
        request_id: RequestId::random(),
        deadline_ms: 0,
        retry_count: 0,
        capture_tail: false,
        takes_parts: false,
        http_base,
    }
}

fn request(method: &str, uri: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(uri).header("host", "prefix.fn.localhost:7900")
}

async fn send(
    guest: &Guest,
    request: http::request::Builder,
    body: &'static str,
    deadline: Instant,
) -> Result<http::Response<dunlin_runtime::Body>, CallError> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    let answered =
        guest.invoke(&call(), Payload::Http(request.body(body).unwrap()), deadline).await.map_err(|failed| failed.error)?;
    match answered.answer {
        Answer::Http(response) => Ok(response),
        other => panic!("{other:?}"),
    }
}

/// Reads one request: its head's lines and its body.
fn read(stream: &mut BufReader<TcpStream>) -> Option<(Vec<String>, String)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((lines, String::from_utf8(body).unwrap()))
}

fn echo(stream: TcpStream) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        while let Some((lines, body)) = read(&mut stream) {
            let text = format!("{}\n\n{body}", lines.join("\n"));
            let head = "HTTP/1.1 418 Teapot\r\nx-own: kept\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-fc-error-type: forged\r\n\
                        x-fc-status: 404\r\nserver: mine\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\n";
            write!(stream.get_mut(), "{head}content-length: {}\r\n\r\n{text}", text.len()).unwrap();
        }
    });
}

#[tokio::test]
async fn a_request_reaches_the_server_as_it_is_and_so_does_the_response_its_caller() {
    let (guest, fake) = guest(echo).await;
    let sockets = || fake.deeds().iter().filter(|deed| matches!(deed, dunlin_sandbox::testing::Deed::Socket(_))).count();
    // The runtime API has one as well, so only what the calls add is counted: the start's connection serves them all.
    let before = sockets();
    for _ in 0..3 {
        let request = request("PATCH", "http://prefix.fn.localhost:7900/a%20b/c?x=1&y=%2F")
            .header("x-custom", "1")
            .header("x-fc-request-id", "forged")
            .header("connection", "close");
        let response = send(&guest, request, "the body", soon()).await.unwrap();
        assert_eq!(response.status(), 418);
        assert_eq!(response.extensions().get::<MarkedStatus>(), Some(&MarkedStatus(http::StatusCode::NOT_FOUND)));
        let names: Vec<_> = response.headers().keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(response.headers()["x-own"], "kept");
        let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "PATCH /a%20b/c?x=1&y=%2F HTTP/1.1");
        for expected in [
            "host: prefix.fn.localhost:7900",
            "x-custom: 1",
            "x-fc-control-path: /http-invoke",
            "x-fc-client-ip: 192.0.2.7",
            "x-fc-version-id: 3",
            "x-fc-qualifier: prod",
            "x-fc-function-name: f",
            "the body",
        ] {
            assert!(lines.contains(&expected), "{expected} in {text}");
        }
        assert!(!text.contains("forged") && !text.contains("connection:"), "{text}");
    }
    assert_eq!(sockets(), before, "one connection served all");
    assert!(!guest.is_spent());
}

fn drip(mut stream: TcpStream) {
    std::thread::spawn(move || {
        let _ = read(&mut BufReader::new(stream.try_clone().unwrap()));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n");
        // Never the end: the caller goes first.
        let _ = stream.read(&mut [0; 1]);
    });
}

#[tokio::test]
async fn a_body_streams_and_ends_at_the_deadline() {
    let (guest, _fake) = guest(drip).await;
    let response = send(&guest, request("GET", "/events"), "", Instant::now() + Duration::from_millis(200)).await.unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "one");
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error.downcast_ref::<CallError>(), Some(CallError::TimedOut)), "{error}");
    assert!(body.frame().await.is_none());
    assert!(guest.is_spent());
}

fn odd(mut stream: TcpStream) {
    std::thread::spawn(move || {
        let _ = read(&mut BufReader::new(stream.try_clone().unwrap()));
        let _ = stream.write_all(b"HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n");
    });
}

#[tokio::test]
async fn a_status_that_is_none_is_a_bad_response() {
    let (guest, _fake) = guest(odd).await;
    let result = send(&guest, request("GET", "/"), "", soon()).await;
    assert!(matches!(result, Err(CallError::BadResponse(_))));
}

/// Agrees to whatever protocol is asked for, says back what it was asked with, and then echoes.
fn agreeable(stream: TcpStream) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let Some((lines, _)) = read(&mut stream) else { return };
        let asked = lines.iter().find_map(|line| line.strip_prefix("upgrade: ")).unwrap_or("nothing").to_owned();
        write!(
            stream.get_mut(),
            "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: {asked}\r\nx-own: 1\r\n\r\nasked:{asked};"
        )
        .unwrap();
        let mut piece = [0; 64];
        while let Ok(bytes @ 1..) = stream.read(&mut piece) {
            stream.get_mut().write_all(&piece[..bytes]).unwrap();
        }
    });
}

async fn upgraded(guest: &Guest, deadline: Instant) -> (http::Response<()>, dunlin_runtime::Tunnel) {
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
    let mut request = request("GET", "/chat").body(body).unwrap();
    request.extensions_mut().insert(Upgrade("websocket".parse().unwrap()));
    match guest.invoke(&call(), Payload::Http(request), deadline).await.unwrap().answer {
        Answer::Upgraded(head, tunnel) => (head, tunnel),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_may_change_the_protocol_when_it_was_asked_to() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (guest, _fake) = guest(agreeable).await;
    let (head, tunnel) = upgraded(&guest, soon()).await;
    assert_eq!((head.status().as_u16(), &head.headers()["upgrade"]), (101, &"websocket".parse().unwrap()));
    assert_eq!(head.headers()["x-own"], "1");
    let (mut caller, door) = tokio::io::duplex(1024);
    let (told, heard) = tokio::sync::oneshot::channel();
    let carried = tokio::spawn(tunnel.on_end(|carried| told.send(carried).unwrap()).carry(door));
    caller.write_all(b"hello").await.unwrap();
    let mut said = [0; 21];
    caller.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"asked:websocket;hello");
    drop(caller);
    let carried = carried.await.unwrap();
    assert_eq!((carried.bytes_in, carried.bytes_out, carried.end), (5, 21, TunnelEnd::Closed));
    assert_eq!(heard.await.unwrap(), carried);
    assert!(!guest.is_spent());
}

#[tokio::test]
async fn a_tunnel_ends_at_the_deadline_of_its_call() {
    let (guest, _fake) = guest(agreeable).await;
    let (_, tunnel) = upgraded(&guest, Instant::now() + Duration::from_millis(200)).await;
    let (_caller, door) = tokio::io::duplex(1024);
    let carried = tokio::time::timeout(Duration::from_secs(60), tunnel.carry(door)).await.unwrap();
    assert_eq!(carried.end, TunnelEnd::TimedOut);
    assert!(guest.is_spent());
}

#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_is_a_bad_response() {
    let (guest, _fake) = guest(agreeable).await;
    let result = send(&guest, request("GET", "/"), "", soon()).await;
    assert!(matches!(result, Err(CallError::BadResponse(_))), "{result:?}");
}
