//! Attempts to make one message read as two.

use dunlin_gateway::Config;
use dunlin_model::Limits;
use tokio::io::AsyncWriteExt as _;

use crate::support::{ANYBODY, Script, open, open_with, read_to_end};

/// What an attacker wants to be read as a request of its own.
const SECOND: &str = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Heads and bodies with more than one reading. Each is followed by [`SECOND`].
fn ambiguous() -> Vec<(&'static str, String)> {
    let post =
        |headers: &str, body: &str| format!("POST /2023-03-30/functions HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}");
    let chunked = |body: &str| post("transfer-encoding: chunked\r\n", body);
    vec![
        ("CL.TE", post("content-length: 6\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")),
        ("TE.CL", post("transfer-encoding: chunked\r\ncontent-length: 3\r\n", "1\r\nZ\r\n0\r\n\r\n")),
        ("TE.TE with an unknown coding", post("transfer-encoding: chunked\r\ntransfer-encoding: x\r\n", "0\r\n\r\n")),
        ("TE.TE twice chunked", post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")),
        ("an obfuscated coding", post("transfer-encoding: xchunked\r\n", "0\r\n\r\n")),
        ("a quoted coding", post("transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n")),
        ("a coding behind a vertical tab", post("transfer-encoding: \x0bchunked\r\n", "0\r\n\r\n")),
        ("identity before chunked", post("transfer-encoding: identity, chunked\r\n", "0\r\n\r\n")),
        ("a space before the colon", post("transfer-encoding : chunked\r\n", "0\r\n\r\n")),
        (
            "a coding in HTTP/1.0",
            "POST /2023-03-30/x HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("two lengths that differ", post("content-length: 0\r\ncontent-length: 44\r\n", "")),
        ("two lengths that agree", post("content-length: 0\r\ncontent-length: 0\r\n", "")),
        ("a list of lengths", post("content-length: 0, 0\r\n", "")),
        ("a length with a sign", post("content-length: +0\r\n", "")),
        ("a negative length", post("content-length: -1\r\n", "")),
        ("a hexadecimal length", post("content-length: 0x0\r\n", "")),
        ("an empty length", post("content-length: \r\n", "")),
        ("a length beyond counting", post("content-length: 99999999999999999999\r\n", "")),
        ("a folded line", post("x: y\r\n z: w\r\n", "")),
        ("a folded coding", post("transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        ("a bare line feed in the head", post("x: y\ncontent-length: 0\r\n", "")),
        ("a bare line feed at the head's end", "GET / HTTP/1.1\r\nhost: localhost\r\n\n".into()),
        ("a bare carriage return", post("x: y\rcontent-length: 44\r\n", "")),
        ("NUL in a value", post("x: a\0b\r\n", "")),
        ("NUL in a name", post("x\0: a\r\n", "")),
        ("no colon", post("content-length\r\n", "")),
        ("an empty name", post(": a\r\n", "")),
        ("a second host", post("host: other\r\n", "")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into()),
        ("a host in the target that differs", "GET http://other/ HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        ("a target of two words", "GET / x HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        ("a tab in the request line", "GET\t/ HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        ("an empty line first", "\r\nGET / HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        ("a target with a fragment", "GET /#x HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        ("every target", "OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        (
            "a change to HTTP/2",
            post(
                "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nconnection: upgrade, http2-settings\r\ncontent-length: 0\r\n",
                "",
            ),
        ),
        ("a chunk extension", chunked("1;a=b\r\nZ\r\n0\r\n\r\n")),
        ("a chunk extension with a line feed", chunked("1;\nZ\r\n0\r\n\r\n")),
        ("a chunk size with a sign", chunked("+1\r\nZ\r\n0\r\n\r\n")),
        ("a chunk size with a prefix", chunked("0x1\r\nZ\r\n0\r\n\r\n")),
        ("a chunk size with an underscore", chunked("1_0\r\nZ\r\n0\r\n\r\n")),
        ("a chunk size beyond counting", chunked("10000000000000000\r\nZ\r\n0\r\n\r\n")),
        ("a space behind a chunk size", chunked("1 \r\nZ\r\n0\r\n\r\n")),
        ("a chunk that ends with a line feed", chunked("1\r\nZ\n0\r\n\r\n")),
        ("a chunk longer than it says", chunked("1\r\nZZ\r\n0\r\n\r\n")),
        ("trailers that frame", chunked("0\r\ncontent-length: 44\r\n\r\n")),
        ("trailers", chunked("0\r\nx: y\r\n\r\n")),
        ("a bare line feed behind the last chunk", chunked("0\n\r\n")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_two_readings_is_answered_once_and_the_connection_closed() {
    let door = open(Script::Value("{}"), "python3.10").await;
    for (name, bytes) in ambiguous() {
        let text = door.exchange([bytes.as_bytes(), SECOND.as_bytes()].concat().as_slice()).await;
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{name}: {text}");
        let status = &text[9..12];
        assert!(matches!(status, "400" | "405"), "{name}: {text}");
        assert!(!door.asked().iter().any(|line| line.contains("smuggled")), "{name}");
    }
    assert_eq!(door.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_json_with_a_request_id() {
    let door = open(Script::Value("{}"), "python3.10").await;
    let text = door.exchange(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: \0\r\n\r\n").await;
    let answered = crate::support::Answered::parse(&text);
    assert_eq!((answered.status, answered.code().as_str()), (400, "InvalidArgument"));
    assert_eq!(answered.header("connection"), Some("close"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_violation_does_not_disturb_the_answer_before_it() {
    let door = open(Script::Value("{}"), "python3.10").await;
    let good = "POST /2023-03-30/one HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nhi";
    let bad = "POST /2023-03-30/two HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
    let text = door.exchange([good, bad, SECOND].concat().as_bytes()).await;
    let statuses: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "400"], "{text}");
    assert_eq!(door.asked(), ["POST /2023-03-30/one hi"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let door = open(Script::Value("{}"), "python3.10").await;
    let text = door
        .exchange(
            b"POST /2023-03-30/1 HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n\
              POST /2023-03-30/2 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\ndef\
              GET /2023-03-30/3 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert_eq!(text.matches("HTTP/1.1 200").count(), 3, "{text}");
    assert_eq!(door.asked(), ["POST /2023-03-30/1 abc", "POST /2023-03-30/2 def", "GET /2023-03-30/3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_and_methods_are_turned_away() {
    let door = open(Script::Value("{}"), "python3.10").await;
    for (line, status) in [
        ("CONNECT localhost:80 HTTP/1.1", "405"),
        ("TRACE / HTTP/1.1", "405"),
        ("get / HTTP/1.1", "405"),
        ("BREW / HTTP/1.1", "405"),
        ("PRI * HTTP/2.0", "400"),
        ("GET ftp://localhost/ HTTP/1.1", "400"),
        ("GET http://localhost/-/ready HTTP/1.1", "200"),
        ("GET /nothing HTTP/1.1", "404"),
    ] {
        let text = door.exchange(format!("{line}\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_read_the_same_byte_by_byte() {
    let door = open_with(Script::Value("{}"), "python3.10", ANYBODY, Config::default(), Limits::default()).await;
    let mut socket = door.connect().await;
    socket.set_nodelay(true).expect("a TCP socket has it");
    for byte in b"POST /2023-03-30/1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" {
        socket.write_all(&[*byte]).await.expect("the door listens");
        tokio::task::yield_now().await;
    }
    let text = read_to_end(&mut socket).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(door.asked(), ["POST /2023-03-30/1 ab"]);
}
