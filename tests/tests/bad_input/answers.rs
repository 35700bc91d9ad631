//! Answers of functions that pretend to be the platform's.

use anyhow::{Result, ensure};
use dunlin_testkit::{Connection, Platform, Response};
use serde_json::{Value, json};

pub(crate) fn hostile_answers_cannot_forge_the_platforms(platform: &Platform) -> Result<()> {
    let code = r#"
import json
def handler(event, context):
    return json.dumps(json.loads(json.loads(event)["body"]))
"#;
    platform.api.create("answers", "python3.10", &[("index.py", code)], json!({}))?;
    let host = platform.api.expose("answers")?;
    let ask = |answer: Value| -> Result<Response> {
        let headers = [("host".to_owned(), host.clone()), ("content-type".to_owned(), "application/json".to_owned())];
        Connection::open(platform.address())?.request("POST", "/", &headers, answer.to_string().as_bytes())
    };
    for (what, answer) in [
        ("a split header", json!({"statusCode": 200, "headers": {"x-a": "b\r\nx-evil: 1"}, "body": ""})),
        ("a NUL", json!({"statusCode": 200, "headers": {"x-a": "b\u{0}"}, "body": ""})),
        ("a bad name", json!({"statusCode": 200, "headers": {"x a": "b"}, "body": ""})),
        ("status 999", json!({"statusCode": 999, "body": ""})),
        ("status 0", json!({"statusCode": 0, "body": ""})),
        ("status as text", json!({"statusCode": "teapot", "body": ""})),
        ("a header of 9 KB", json!({"statusCode": 200, "headers": {"x-a": "b".repeat(9 << 10)}, "body": ""})),
        ("headers as a list", json!({"statusCode": 200, "headers": ["x"], "body": ""})),
        ("a header as an object", json!({"statusCode": 200, "headers": {"x": {}}, "body": ""})),
        ("status 200.5", json!({"statusCode": 200.5, "body": ""})),
        ("status 2^32 + 200", json!({"statusCode": 4_294_967_496_u64, "body": ""})),
        ("status 101", json!({"statusCode": 101, "body": ""})),
        ("bad base64", json!({"statusCode": 200, "isBase64Encoded": true, "body": "***"})),
    ] {
        let reply = ask(answer)?;
        ensure!(reply.status == 502 && reply.json()?["Code"] == "BadResponse", "{what}: {} {}", reply.status, reply.text());
        ensure!(reply.header("x-evil").is_none(), "{what}");
        ensure!(reply.json()?["RequestId"] == reply.header("x-fc-request-id").unwrap_or_default(), "{what}: {}", reply.text());
    }
    let reply = ask(
        json!({"statusCode": 200, "headers": {"X-Fc-Request-Id": "forged", "Transfer-Encoding": "chunked", "Connection": "close", "Content-Length": "1"}, "body": "whole"}),
    )?;
    ensure!(reply.status == 200 && reply.text() == "whole", "{} {}", reply.status, reply.text());
    ensure!(reply.header("x-fc-request-id").is_some_and(|id| id.starts_with("1-")), "the request id was forged");
    let reply = ask(json!({"statusCode": 200, "headers": {"Set-Cookie": "a=b; Domain=localhost"}, "body": ""}))?;
    ensure!(reply.status == 200 && reply.header("set-cookie").is_none(), "a cookie for everybody: {:?}", reply.headers);
    Ok(())
}
