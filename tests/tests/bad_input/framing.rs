//! Requests that mean two things, too large ones, and clients that never finish theirs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Connection, Platform, Response};
use serde_json::{Value, json};

use crate::{function_host, refused, shaped};

/// The contract's limit of a synchronous payload.
const PAYLOAD_MAX: usize = 32 << 20;

pub(crate) fn payloads_are_bounded_at_the_limit_and_not_before(platform: &Platform) -> Result<()> {
    let full = vec![b'x'; PAYLOAD_MAX];
    let reply = platform.api.invoke("echo", &full)?;
    ensure!(reply.status == 200 && reply.body == full, "32 MiB: {} and {} bytes", reply.status, reply.body.len());
    refused(&platform.api.invoke("echo", &vec![b'x'; PAYLOAD_MAX + 1])?, 400, "EntityTooLarge").context("32 MiB and one byte")?;

    // Over a function URL the limit is the body's, whatever the event around it weighs.
    let code = r#"
import base64, json
def handler(event, context):
    event = json.loads(event)
    body = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
    return "%d %s" % (len(body), event["isBase64Encoded"])
"#;
    platform.api.create("measure", "python3.10", &[("index.py", code)], json!({"timeout": 30, "memorySize": 1024}))?;
    let host = platform.api.expose("measure")?;
    let post = |kind: &str, body: &[u8]| {
        let headers = [("host".to_owned(), host.clone()), ("content-type".to_owned(), kind.to_owned())];
        platform.connect()?.request("POST", "/", &headers, body)
    };
    for (kind, byte, binary) in
        [("application/octet-stream", b'x', "True"), ("text/plain", b'x', "False"), ("text/plain", 1, "True")]
    {
        let reply = post(kind, &vec![byte; PAYLOAD_MAX])?;
        ensure!(
            reply.status == 200 && reply.text() == format!("{PAYLOAD_MAX} {binary}"),
            "{kind} of {byte}: {} {}",
            reply.status,
            reply.text()
        );
        refused(&post(kind, &vec![byte; PAYLOAD_MAX + 1])?, 400, "InvalidArgument").context(kind)?;
    }
    // In chunks nothing is announced, so it is counted.
    let mut connection = platform.connect()?;
    connection.send_raw(format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes())?;
    let chunk = [b"100000\r\n".as_slice(), &[b'x'; 1 << 20], b"\r\n"].concat();
    for _ in 0..33 {
        // The platform may have answered and closed before it is all sent.
        if connection.send_raw(&chunk).is_err() {
            break;
        }
    }
    refused(&connection.read_response(false, Instant::now())?, 400, "InvalidArgument").context("33 MiB in chunks")?;

    let host = [("host".to_owned(), function_host(platform)?)];
    let with = |value: String| [host.as_slice(), &[("x-long".to_owned(), value)]].concat();
    refused(&platform.connect()?.request("GET", "/", &with("y".repeat(9 << 10)), b"")?, 400, "InvalidArgument")
        .context("a header of 9 KB")?;
    refused(&platform.connect()?.request("GET", &format!("/{}", "p".repeat(5 << 10)), &host, b"")?, 400, "InvalidArgument")
        .context("a path of 5 KB")?;
    let many: Vec<_> = (0..101).map(|n| (format!("x-{n}"), String::new())).collect();
    let reply = platform.connect()?.request("GET", "/", &[host.as_slice(), &many].concat(), b"")?;
    refused(&reply, 431, "InvalidArgument").context("a hundred and one headers")?;
    let reply = platform.connect()?.request("GET", "/", &with("y".repeat(64 << 10)), b"")?;
    refused(&reply, 431, "InvalidArgument").context("a header of 64 KiB")?;
    let reply = platform.connect()?.request("GET", &format!("/{}", "p".repeat(16 << 10)), &host, b"")?;
    refused(&reply, 414, "InvalidArgument").context("a path of 16 KiB")?;
    Ok(())
}

pub(crate) fn paths_of_function_urls_are_passed_as_sent(platform: &Platform) -> Result<()> {
    let host = function_host(platform)?;
    let headers = [("host".to_owned(), host.clone())];
    let get = |target: &str| -> Result<Response> { platform.connect()?.request("GET", target, &headers, b"") };
    for path in [
        "/",
        "//",
        "///a//b",
        "/./",
        "/../",
        "/a/../../etc/passwd",
        "/%2f",
        "/%2e%2e/",
        "/%252e",
        "/%c0%af",
        "/%ff",
        "/a;b=c",
        "/-/ready",
        "/2023-03-30/functions",
    ] {
        let reply = get(path)?;
        ensure!(reply.status == 200 && reply.json()?["rawPath"] == path, "{path}: {} {}", reply.status, reply.text());
        let reply = get(&format!("http://{host}{path}"))?;
        ensure!(
            reply.status == 200 && reply.json()?["rawPath"] == path,
            "{path} in the absolute form: {} {}",
            reply.status,
            reply.text()
        );
    }
    for target in [
        "/%00",
        "/%",
        "/%2",
        "/%zz",
        "/a%00b",
        "http://other.localhost/",
        &format!("https:{host}/"),
        &host,
        "*",
        "a",
        "/a#b",
        "/a\\b\u{e9}",
        "/<\u{1}>",
    ] {
        let reply = get(target)?;
        refused(&reply, 400, "InvalidArgument").with_context(|| target.to_owned())?;
    }
    let mut connection = platform.connect()?;
    let reply = connection.request("OPTIONS", "*", &headers, b"")?;
    refused(&reply, 400, "InvalidArgument").context("OPTIONS *")?;
    Ok(())
}

pub(crate) fn paths_and_methods_of_the_api_mean_one_thing(platform: &Platform) -> Result<()> {
    let get = |target: &str| platform.api.send("GET", target, "GetFunction", &[], b"");
    ensure!(get("/2023-03-30/functions/%65cho")?.status == 200, "an escape is the character it stands for");
    for rest in [
        "//functions/echo",
        "/./functions/echo",
        "/x/../functions/echo",
        "/functions//echo",
        "/functions/echo/",
        "/functions/./echo",
        "/functions/../functions/echo",
        "/functions/%2e%2e",
        "/functions/x%2f..%2fecho",
        "/functions/echo%2f",
        "/functions/echo%00",
        "/functions/%2565cho",
        "/functions/%c0%af",
        "/functions/%ff",
        "/functions/echo%0a",
        "/functions/echo%20",
        "/functions/Echo",
        "/Functions/echo",
        "/functions/echo;x",
        "%2ffunctions%2fecho",
        "/functions/echo/code/..",
        "/functions/%zz",
        "/functions/%",
    ] {
        let reply = get(&format!("/2023-03-30{rest}"))?;
        shaped(&reply).with_context(|| rest.to_owned())?;
        ensure!(matches!(reply.status, 400 | 404), "{rest}: {} {}", reply.status, reply.text());
    }
    let target = "/2023-03-30/functions/echo";
    for method in ["get", "Get", "BREW", "TRACE", "PROPFIND", "PRI"] {
        let reply = platform.api.send(method, target, "GetFunction", &[], b"")?;
        refused(&reply, 405, "MethodNotAllowed").with_context(|| method.to_owned())?;
        ensure!(reply.header("allow").is_some_and(|methods| methods.contains("GET")), "{method}: Allow names the methods");
    }
    let connect =
        platform.connect()?.request("CONNECT", "localhost:22", &[("host".to_owned(), "localhost:22".to_owned())], b"")?;
    refused(&connect, 405, "MethodNotAllowed").context("CONNECT")?;
    refused(&platform.api.send("PATCH", target, "GetFunction", &[], b"")?, 400, "PathNotSupported")?;
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let reply = platform.api.send("GET", target, "GetFunction", &[(name, "DELETE")], b"")?;
        ensure!(reply.status == 200 && reply.json()?["functionName"] == "echo", "{name}: {}", reply.text());
    }
    let reply = platform.api.json("GET", "/functions/echo", "DeleteFunction", &Value::Null)?;
    ensure!(reply.status < 500, "the action's name beside another path: {}", reply.text());
    ensure!(get(target)?.status == 200, "a header deletes nothing");
    Ok(())
}

pub(crate) fn requests_that_frame_themselves_twice_get_one_answer(platform: &Platform) -> Result<()> {
    let host = function_host(platform)?;
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let head = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    let post = |fields: &str, body: &str| format!("{}{body}{smuggled}", head("POST /", fields));
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let cases: Vec<(&str, String)> = vec![
        ("CL.TE", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("TE.CL", post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\n")),
        ("TE.TE", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n")),
        ("two lengths", post("Content-Length: 0\r\nContent-Length: 5\r\n", "")),
        ("the same length twice", post("Content-Length: 0\r\nContent-Length: 0\r\n", "")),
        ("a list of lengths", post("Content-Length: 0, 0\r\n", "")),
        ("a signed length", post("Content-Length: +0\r\n", "")),
        ("a negative length", post("Content-Length: -1\r\n", "")),
        ("a length in hex", post("Content-Length: 0x0\r\n", "")),
        ("a length beyond all counters", post("Content-Length: 18446744073709551616\r\n", "")),
        ("an odd coding", post("Transfer-Encoding: xchunked\r\n", "")),
        ("a coding after chunked", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        ("a coding behind a tab of another kind", post("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n")),
        ("a folded header", head("GET /", "X: a\r\n b\r\n")),
        ("a space before the colon", format!("GET / HTTP/1.1\r\nHost : {host}\r\n\r\n")),
        ("a NUL in a value", head("GET /", "X: a\0b\r\n")),
        ("a bare line feed", head("GET /", "X: a\nTransfer-Encoding: chunked\r\n")),
        ("a bare carriage return", head("GET /", "X: a\rTransfer-Encoding: chunked\r\n")),
        ("two hosts", head("GET /", "Host: other\r\n")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned()),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned()),
        ("a host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".to_owned()),
        ("a chunk size in hex notation", chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size with a sign", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size with an underscore", chunked("0_5\r\nhello\r\n0\r\n\r\n")),
        ("a huge chunk size", chunked("fffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
        ("a chunk extension", chunked("5;a=b\r\nhello\r\n0\r\n\r\n")),
        ("a chunk longer than its size", chunked("1\r\nhello\r\n0\r\n\r\n")),
        ("trailers that frame", chunked("0\r\nContent-Length: 5\r\n\r\n")),
        ("h2c", head("GET /", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")),
        ("a websocket", head("GET /", "Upgrade: websocket\r\nConnection: Upgrade\r\n")),
        ("HTTP/2 from the start", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /\r\n\r\n".to_owned()),
        ("HTTP/1.2", format!("GET / HTTP/1.2\r\nHost: {host}\r\n\r\n")),
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".to_owned()),
    ];
    for (what, bytes) in cases {
        let mut connection = platform.connect()?;
        connection.send_raw(bytes.as_bytes())?;
        let reply = connection.read_response(false, Instant::now()).with_context(|| format!("{what}: no answer"))?;
        refused(&reply, 400, "InvalidArgument").with_context(|| what.to_owned())?;
        closed_without_another_answer(connection).with_context(|| what.to_owned())?;
    }
    Ok(())
}

fn closed_without_another_answer(mut connection: Connection) -> Result<()> {
    let began = Instant::now();
    let second = connection.read_response(false, began);
    ensure!(second.is_err(), "a second answer came: {second:?}");
    ensure!(began.elapsed() < Duration::from_secs(60), "the connection was not closed");
    Ok(())
}

pub(crate) fn half_open_clients_hinder_nobody_and_are_closed(platform: &Platform) -> Result<()> {
    let mut held = Vec::new();
    for n in 0..300 {
        let mut connection = platform.connect()?;
        match n % 3 {
            0 => {}
            1 => connection.send_raw(b"GET / HTTP/1.1\r\nHos")?,
            _ => connection.send_raw(b"POST /2023-03-30/functions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")?,
        }
        held.push(connection);
    }
    for _ in 0..50 {
        ensure!(platform.api.invoke("echo", b"x")?.text() == "x", "the function still answers");
    }
    // A head that was begun has ten seconds; one that drips is no better off.
    let mut dripping = platform.connect()?;
    dripping.send_raw(b"GET / HTTP/1.1\r\nX: ")?;
    let began = Instant::now();
    for n in [1, 4] {
        let reply = held[n].read_response(false, Instant::now())?;
        refused(&reply, 408, "RequestTimeout")?;
        let _ = dripping.send_raw(b"y");
    }
    refused(&dripping.read_response(false, Instant::now())?, 408, "RequestTimeout").context("a dripping head")?;
    ensure!(began.elapsed() < Duration::from_secs(60), "closed after {:?}", began.elapsed());
    Ok(())
}
